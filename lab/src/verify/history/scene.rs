//! All that happened to one code in one round: the users that asked, what they were told, what the wallet holds.

use std::collections::{BTreeMap, HashMap};

use super::super::{Coupon, Holding, Tables};
use crate::history::{Attempt, Told};

/// One code in one round.
pub(super) struct Scene<'a> {
    pub(super) code: &'a str,
    /// Its stock; `None` for a round that is over, of which no counter is kept.
    pub(super) coupon: Option<&'a Coupon>,
    /// In the order of the history.
    pub(super) attempts: Vec<&'a Attempt>,
    /// The users that were told that they got a piece, or hold one and asked for it.
    pub(super) wins: Vec<Win<'a>>,
    /// The pieces of users that never asked for one.
    pub(super) unasked: Vec<&'a Holding>,
    /// When a user first asked.
    pub(super) first: HashMap<&'a str, u64>,
    /// Serials that clients were told, and when, whichever code they had asked for.
    pub(super) told: Vec<TellsSerial<'a>>,
}

/// A piece and the request that got it, as far as the history tells.
pub(super) struct Win<'a> {
    pub(super) user: &'a str,
    /// As its client was told; by the wallet when it was not.
    pub(super) serial: Option<u32>,
    /// When its request was first made; when nobody was told which one it is, when the user first asked.
    pub(super) asked: u64,
}

/// An answer that proves that a serial was given.
#[derive(Clone, Copy)]
pub(super) struct TellsSerial<'a> {
    pub(super) user: &'a str,
    pub(super) serial: u32,
    pub(super) answered: u64,
}

impl<'a> Scene<'a> {
    /// Every code and round that the history names and that exists.
    pub(super) fn all(tables: &'a Tables, attempts: &'a [Attempt]) -> Vec<Self> {
        let coupons: HashMap<&str, &Coupon> = tables.coupons.iter().map(|coupon| (&*coupon.code, coupon)).collect();
        let mut rows: HashMap<(u32, u16), Vec<&Holding>> = HashMap::new();
        for row in &tables.holdings {
            rows.entry((row.round, row.coupon_id)).or_default().push(row);
        }
        let (mut asked, mut told) = (BTreeMap::<_, Vec<_>>::new(), HashMap::<_, Vec<_>>::new());
        for attempt in attempts {
            asked.entry((attempt.round, attempt.code.as_str())).or_default().push(attempt);
            if let Some(entry) = attempt.told.entry()
                && let Some(serial) = entry.serial
            {
                let tells = TellsSerial { user: &attempt.user, serial, answered: attempt.answered };
                told.entry((entry.round, entry.code.as_str())).or_default().push(tells);
            }
        }
        let scene = |((round, code), attempts): ((u32, &'a str), Vec<&'a Attempt>)| {
            let coupon = *coupons.get(code)?;
            let rows = rows.remove(&(round, coupon.id)).unwrap_or_default();
            let told = told.remove(&(round, code)).unwrap_or_default();
            let coupon = (round == tables.event.round).then_some(coupon);
            Some(Self::new(code, coupon, attempts, &rows, told))
        };
        asked.into_iter().filter_map(scene).collect()
    }

    fn new(
        code: &'a str,
        coupon: Option<&'a Coupon>,
        attempts: Vec<&'a Attempt>,
        rows: &[&'a Holding],
        told: Vec<TellsSerial<'a>>,
    ) -> Self {
        let (mut first, mut first_with) = (HashMap::new(), HashMap::new());
        let mut issued: BTreeMap<&str, &Attempt> = BTreeMap::new();
        for attempt in &attempts {
            let (user, asked) = (attempt.user.as_str(), attempt.asked);
            first.entry(user).and_modify(|first: &mut u64| *first = asked.min(*first)).or_insert(asked);
            let with = first_with.entry((user, attempt.key.as_str())).or_insert(asked);
            *with = asked.min(*with);
            if matches!(attempt.told, Told::Issued(_)) {
                issued.entry(user).or_insert(attempt);
            }
        }
        let (held, unasked): (Vec<&Holding>, Vec<&Holding>) =
            rows.iter().copied().partition(|row| first.contains_key(row.user_id.as_str()));
        let mut winners: BTreeMap<&str, Option<&Holding>> = issued.keys().map(|user| (*user, None)).collect();
        winners.extend(held.into_iter().map(|row| (row.user_id.as_str(), Some(row))));
        let win = |(user, row): (&'a str, Option<&Holding>)| {
            let told = issued.get(user);
            let entry = told.and_then(|attempt| attempt.told.entry());
            Win {
                user,
                serial: entry.map_or_else(|| row.and_then(|row| row.serial), |entry| entry.serial),
                asked: told.map_or_else(|| first[user], |attempt| first_with[&(user, attempt.key.as_str())]),
            }
        };
        let wins = winners.into_iter().map(win).collect();
        Self { code, coupon, attempts, wins, unasked, first, told }
    }
}
