//! All that the rules look up: the attempts by user, what was told by round, the pieces by code.

use std::collections::{BTreeMap, HashMap};

use super::super::Holding;
use super::timeline::Timeline;
use super::{Evidence, Kind, Tables};
use crate::history::{Ack, Attempt, History};

pub(super) struct Index<'a> {
    pub(super) timeline: Timeline<'a>,
    pub(super) attempts: &'a [Attempt],
    /// By user and code.
    pub(super) asks: HashMap<(&'a str, &'a str), Vec<&'a Attempt>>,
    /// When each user was told of an entry, or saw it in its wallet, by round and user.
    pub(super) told: HashMap<(u32, &'a str), Vec<(u64, &'a Ack)>>,
    /// The pieces of each code, by round.
    pub(super) wins: BTreeMap<(u32, &'a str), Wins<'a>>,
}

/// The pieces of one code in one round.
#[derive(Default)]
pub(super) struct Wins<'a> {
    /// Those of users that asked for one.
    pub(super) asked: Vec<Win<'a>>,
    /// How many rows nobody asked for. They may have been there from the beginning.
    pub(super) unasked: usize,
}

/// Round, code and user.
type Piece<'a> = (u32, &'a str, &'a str);

/// A piece and the request that got it, as far as the history tells.
#[derive(Clone, Copy)]
pub(super) struct Win<'a> {
    pub(super) user: &'a str,
    /// `None` when its user was told of it, and the wallet has it not.
    pub(super) row: Option<&'a Holding>,
    /// As its client was told; by the wallet when it was not.
    pub(super) serial: Option<u32>,
    /// When its request was first made, without attempts that were refused; when nobody was told which request it is, when its user
    /// first asked in the round.
    pub(super) asked: u64,
    /// The last situation in which its user may have got it.
    pub(super) until: usize,
}

impl<'a> Index<'a> {
    pub(super) fn new(
        tables: &'a Tables,
        history: &'a History,
        timeline: Timeline<'a>,
        evidence: &mut Evidence<'a>,
    ) -> Self {
        let (mut asks, mut told) = (HashMap::<_, Vec<_>>::new(), HashMap::<_, Vec<_>>::new());
        let (mut issued, mut wins) = (BTreeMap::<_, &Attempt>::new(), BTreeMap::<_, Wins>::new());
        for attempt in &history.attempts {
            let (user, code) = (attempt.user.as_str(), attempt.code.as_str());
            asks.entry((user, code)).or_default().push(attempt);
            wins.entry((timeline.at(0).round, code)).or_default();
            if let Some(entry) = attempt.told.entry() {
                told.entry((entry.round, user)).or_default().push((attempt.answered, entry));
            }
            if let Some(entry) = attempt.told.own() {
                issued.entry((entry.round, code, user)).or_insert(attempt);
            }
        }
        for look in &history.looks {
            let of = |entry: &Ack| (entry.round, look.user.as_str());
            let seen = look.entries().iter().map(|entry| (of(entry), (look.answered, entry)));
            seen.for_each(|(holder, entry)| told.entry(holder).or_default().push(entry));
        }
        let mut index = Self { timeline, attempts: &history.attempts, asks, told, wins };
        let codes = tables.codes();
        for row in tables.holdings.iter().filter(|row| index.timeline.has(row.round)) {
            let Some(&code) = codes.get(&row.coupon_id) else { continue };
            // Others may have asked for what a steady history does not name.
            if index.timeline.is_steady() && !index.wins.contains_key(&(row.round, code)) {
                continue;
            }
            let piece = (row.round, code, row.user_id.as_str());
            let win = index.win(piece, Some(row), issued.remove(&piece));
            let wins = index.wins.entry((row.round, code)).or_default();
            if win.is_none() {
                wins.unasked += 1;
                evidence.add(Kind::Unasked, Some(code), row.user_id.clone());
            }
            wins.asked.extend(win);
        }
        for (piece @ (round, code, _), attempt) in issued {
            let win = index.win(piece, None, Some(attempt));
            index.wins.entry((round, code)).or_default().asked.extend(win);
        }
        index
    }

    /// `issued` is the attempt that was told that it got the piece.
    fn win(&self, piece: Piece<'a>, row: Option<&'a Holding>, issued: Option<&Attempt>) -> Option<Win<'a>> {
        let (round, code, user) = piece;
        let asks = self.asks.get(&(user, code))?.iter().filter(|ask| self.timeline.may_win_in(ask, round));
        let asks = asks.filter(|ask| issued.is_none_or(|issued| issued.key == ask.key));
        // What was refused did not get it. Where all was, that is a lie, which is found as one.
        let was_refused = |ask: &Attempt| ask.told.is_final() && ask.told.own().is_none();
        let first = asks.clone().filter(|ask| !was_refused(ask)).map(|ask| ask.asked).min();
        let asked = first.or(asks.map(|ask| ask.asked).min()).or(issued.map(|issued| issued.asked))?;
        // What was lost on the way may be carried out when its client has gone; what a client was told is the end of it.
        let told = self.told.get(&(round, user)).into_iter().flatten();
        let told = told.filter(|(_, entry)| entry.code == code).map(|(answered, _)| *answered).min();
        let entry = issued.and_then(|issued| issued.told.entry());
        let serial = entry.map_or_else(|| row.and_then(|row| row.serial), |entry| entry.serial);
        Some(Win { user, row, serial, asked, until: self.timeline.last_at(told.unwrap_or(u64::MAX)) })
    }

    /// What a user asked for a code.
    pub(super) fn asks_of<'b>(&'b self, user: &'b str, code: &'b str) -> &'b [&'b Attempt] {
        self.asks.get(&(user, code)).map_or(&[], Vec::as_slice)
    }
}
