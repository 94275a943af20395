//! Histories that are clean by construction: a crowd with bad luck of every kind asks an issuer that carries out one
//! request after the other.

use std::collections::HashMap;

use fastrand::Rng;

use super::super::{Coupon, Event, Holding, Tables};
use crate::history::{Attempt, Entry, Told};

/// What is judged together.
pub(super) struct World {
    pub(super) tables: Tables,
    pub(super) attempts: Vec<Attempt>,
}

/// The round of all worlds.
pub(super) const ROUND: u32 = 5;

/// A request on its way: the attempt it belongs to and when it is carried out, which may be after its client has left.
struct Request {
    attempt: usize,
    carried_out: u64,
}

/// One wish of one user: a code and a key.
#[derive(Clone)]
struct Wish {
    user: String,
    code: String,
    key: String,
}

impl World {
    /// The world of a seed: one to three codes, some of which sell out, and up to thirty users.
    pub(super) fn random(rng: &mut Rng) -> Self {
        let exclusive = rng.bool();
        let coupons: Vec<Coupon> = (1..=rng.u16(1..=3)).map(|id| coupon(id, exclusive, rng.u32(1..=8))).collect();
        let mut crowd = Crowd { attempts: Vec::new(), requests: Vec::new() };
        for user in 0..rng.usize(4..=30) {
            for _ in 0..rng.usize(1..=3) {
                let code = coupons[rng.usize(..coupons.len())].code.clone();
                crowd.ask(&Wish { user: format!("u-{user}"), code, key: format!("k{}", rng.u8(..2)) }, rng);
            }
        }
        crowd.carry_out(exclusive, coupons)
    }

    /// Whatever clients were told of the piece of `user`, is another story from now on.
    pub(super) fn retell(&mut self, code: &str, user: &str, tell: impl Fn(&mut Told)) {
        for attempt in self.attempts.iter_mut().filter(|attempt| attempt.user == user) {
            if attempt.told.entry().is_some_and(|entry| entry.code == code) {
                tell(&mut attempt.told);
            }
        }
    }

    /// The coupon with this code.
    pub(super) fn coupon(&mut self, code: &str) -> &mut Coupon {
        self.tables.coupons.iter_mut().find(|coupon| coupon.code == code).unwrap()
    }

    /// The code of a row.
    pub(super) fn code_of(&self, row: &Holding) -> String {
        self.tables.coupons.iter().find(|coupon| coupon.id == row.coupon_id).unwrap().code.clone()
    }

    /// The places of the rows with the highest serial of each coupon.
    pub(super) fn last_rows(&self) -> Vec<usize> {
        let rows = &self.tables.holdings;
        let is_last = |row: &Holding| rows.iter().all(|it| it.coupon_id != row.coupon_id || it.serial <= row.serial);
        (0..rows.len()).filter(|&place| is_last(&rows[place])).collect()
    }
}

/// A full coupon; its code is a letter.
pub(super) fn coupon(id: u16, exclusive: bool, total: u32) -> Coupon {
    Coupon {
        id,
        code: char::from(b'@' + u8::try_from(id).unwrap()).to_string(),
        total,
        remaining: total,
        next_serial: 1,
        round: ROUND,
        scope: if exclusive { 0 } else { id },
        open: true,
    }
}

struct Crowd {
    attempts: Vec<Attempt>,
    requests: Vec<Request>,
}

impl Crowd {
    /// Asks until there is an answer, and sometimes once more.
    fn ask(&mut self, wish: &Wish, rng: &mut Rng) {
        let mut now = rng.u64(10..2_000);
        loop {
            let (asked, answered) = (now, now + rng.u64(1..400));
            now = answered + rng.u64(1..200);
            if rng.u8(..10) < 6 {
                self.send(wish, asked, answered, Some(rng.u64(asked..=answered)), Told::SoldOut);
                if rng.u8(..10) < 8 {
                    return;
                }
                continue;
            }
            let told = if rng.bool() { Told::Retryable } else { Told::Nothing };
            let carried_out = rng.bool().then(|| rng.u64(asked..asked + 1_500));
            self.send(wish, asked, answered, carried_out, told);
        }
    }

    /// Any final answer stands for the one that the issuer will give.
    fn send(&mut self, wish: &Wish, asked: u64, answered: u64, carried_out: Option<u64>, told: Told) {
        let Wish { user, code, key } = wish.clone();
        let attempt = self.attempts.len();
        self.requests.extend(carried_out.map(|carried_out| Request { attempt, carried_out }));
        self.attempts.push(Attempt { user, code, round: ROUND, key, asked, answered, told });
    }

    /// One request after the other.
    fn carry_out(mut self, exclusive: bool, mut coupons: Vec<Coupon>) -> World {
        self.requests.sort_by_key(|request| request.carried_out);
        let mut wallet: HashMap<(u16, String), (Entry, String)> = HashMap::new();
        let mut holdings = Vec::new();
        for Request { attempt, .. } in self.requests {
            let Attempt { user, code, key, told, .. } = &mut self.attempts[attempt];
            let coupon = coupons.iter_mut().find(|coupon| coupon.code == *code).unwrap();
            let place = (coupon.scope, user.clone());
            let outcome = match wallet.get(&place) {
                Some((entry, by)) if *by == *key && entry.code == *code => Told::Issued(entry.clone()),
                Some((entry, _)) => Told::AlreadyIssued(entry.clone()),
                None if coupon.remaining == 0 => Told::SoldOut,
                None => {
                    let row = take(coupon, user, &format!("{user} {code} {key}"));
                    let entry = entry_of(code, &row);
                    wallet.insert(place, (entry.clone(), key.clone()));
                    holdings.push(row);
                    Told::Issued(entry)
                }
            };
            if told.is_final() {
                *told = outcome;
            }
        }
        World {
            tables: Tables { event: Event { round: ROUND, exclusive }, coupons, retired: vec![], holdings },
            attempts: self.attempts,
        }
    }
}

/// The next piece for `user`. The name of the request, cut or filled to 16 bytes, is its id.
pub(super) fn take(coupon: &mut Coupon, user: &str, request: &str) -> Holding {
    let serial = coupon.next_serial;
    coupon.next_serial += 1;
    coupon.remaining = coupon.remaining.saturating_sub(1);
    Holding {
        round: ROUND,
        scope: coupon.scope,
        user_id: user.to_owned(),
        coupon_id: coupon.id,
        serial: Some(serial),
        request_id: request.bytes().chain([0; 16]).take(16).collect(),
    }
}

/// What a client is told of a row.
pub(super) fn entry_of(code: &str, row: &Holding) -> Entry {
    Entry { code: code.to_owned(), serial: row.serial, round: row.round, request_id: row.request() }
}
