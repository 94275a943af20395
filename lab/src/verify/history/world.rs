//! Worlds that are clean by construction: a crowd with bad luck of every kind asks an issuer that carries out one request after the
//! other. While a change is under way it sometimes answers by what was before it, as a replica may that has not seen it yet.

use std::collections::BTreeSet;

use fastrand::Rng;
use time::{Duration, OffsetDateTime};

use super::super::report::{Kind, Report};
use super::super::{Coupon, Event, Holding, PATIENCE, Tables, rules};
use super::answers::NOT_OPEN;
use crate::history::{Ack, Attempt, Change, History, Look, Shown, Situation, Stock, Told};

pub(super) struct World {
    pub(super) tables: Tables,
    pub(super) history: History,
}

pub(super) const ROUND: u32 = 5;

/// Everybody's attempts, and what happens when: a request may be carried out after its client has left.
#[derive(Default)]
struct Crowd {
    attempts: Vec<Attempt>,
    steps: Vec<(u64, Step)>,
}

/// What happens at a moment, by its place in the history.
enum Step {
    Change(usize),
    Request(usize),
}

/// The database.
#[derive(Clone)]
struct State {
    tables: Tables,
    /// The event's window.
    open: bool,
}

impl World {
    /// One to three codes, some of which sell out, and up to thirty users with several wishes each.
    pub(super) fn steady(rng: &mut Rng) -> Self {
        let (state, mut crowd) = (State::random(8, rng), Crowd::default());
        for user in 0..rng.usize(4..=30) {
            for _ in 0..rng.usize(1..=3) {
                crowd.ask(&state.wish(user, rng), rng.u8(1..3), rng);
            }
        }
        crowd.carry_out(state, Vec::new(), rng)
    }

    /// One to three codes, one to five changes, up to ten users that ask again and again.
    pub(super) fn changing(rng: &mut Rng) -> Self {
        let (state, mut crowd) = (State::random(4, rng), Crowd::default());
        for number in 0..rng.usize(4..=20) {
            crowd.ask(&state.wish(number / 2, rng), rng.u8(1..8), rng);
        }
        let mut changes = vec![Change { asked: 0, answered: 0, after: state.situation() }];
        for place in 1..=rng.usize(1..=5) {
            let asked = changes[place - 1].answered + rng.u64(50..700);
            let effect = asked + rng.u64(0..150);
            // What it does is drawn when it is carried out.
            changes.push(Change { asked, answered: effect + rng.u64(0..300), after: state.situation() });
            crowd.steps.push((effect, Step::Change(place)));
        }
        crowd.carry_out(state, changes, rng)
    }

    /// At the end everybody looks at its wallet.
    pub(super) fn look(&mut self) {
        let changed = self.history.changes.iter().map(|change| change.answered);
        let now = self.history.attempts.iter().map(|ask| ask.answered).chain(changed).max().unwrap_or(0);
        let users: BTreeSet<_> = self.history.attempts.iter().map(|ask| ask.user.clone()).collect();
        let rows = || self.tables.holdings.iter().filter(|row| row.round == self.tables.event.round);
        let of = |user: &str| {
            rows().filter(|row| row.user_id == user).map(|row| entry_of(&self.code_of(row), row)).collect()
        };
        let look = |user: String| Look { asked: now + 1, answered: now + 2, shown: Shown::Entries(of(&user)), user };
        self.history.looks = users.into_iter().map(look).collect();
    }

    pub(super) fn judge(&self) -> Report {
        let acks: Vec<Ack> = super::acks(&self.history).collect();
        let mut report = rules::judge(&self.tables, Some(&acks));
        super::judge(&self.tables, &self.history, PATIENCE, &mut report);
        report
    }

    pub(super) fn kinds(&self) -> Vec<Kind> {
        let mut kinds: Vec<Kind> = self.judge().findings.iter().map(|finding| finding.kind).collect();
        kinds.sort_unstable();
        kinds.dedup();
        kinds
    }
}

impl Crowd {
    /// Asks until there were so many answers; what gets none is carried out late or never.
    fn ask(&mut self, wish: &Attempt, mut answers: u8, rng: &mut Rng) {
        let mut now = rng.u64(10..1_000);
        while answers > 0 {
            let (asked, answered) = (now, now + rng.u64(1..300));
            now = answered + rng.u64(1..300);
            let (told, carried_out) = if rng.u8(..10) < 7 {
                answers -= 1;
                // Any final answer stands for the one that the issuer will give.
                (Told::SoldOut, Some(rng.u64(asked..=answered)))
            } else {
                let told = if rng.bool() { Told::Retryable } else { Told::Nothing };
                (told, rng.bool().then(|| rng.u64(asked..answered + 600)))
            };
            self.steps.extend(carried_out.map(|at| (at, Step::Request(self.attempts.len()))));
            self.attempts.push(Attempt { asked, answered, told, ..wish.clone() });
        }
    }

    fn carry_out(mut self, mut state: State, changes: Vec<Change>, rng: &mut Rng) -> World {
        let mut history = History { attempts: self.attempts, changes, looks: Vec::new() };
        self.steps.sort_by_key(|(at, _)| *at);
        let (mut before, mut until) = (state.clone(), 0);
        for (at, step) in self.steps {
            match step {
                Step::Change(place) => {
                    before = state.clone();
                    state.change(rng);
                    history.changes[place].after = state.situation();
                    until = history.changes[place].answered;
                }
                Step::Request(place) => {
                    let attempt = &mut history.attempts[place];
                    let as_before = (at < until && rng.bool()).then(|| before.refuse(attempt)).flatten();
                    let told = as_before.unwrap_or_else(|| state.answer(attempt));
                    if attempt.told.is_final() {
                        attempt.told = told;
                    }
                }
            }
        }
        state.tables.coupons.iter_mut().for_each(|coupon| coupon.open &= state.open);
        let mut world = World { tables: state.tables, history };
        world.look();
        world
    }
}

impl State {
    fn random(most: u32, rng: &mut Rng) -> Self {
        let exclusive = rng.bool();
        let coupons = (1..=rng.u16(1..=3)).map(|id| coupon(id, exclusive, rng.u32(1..=most))).collect();
        let event = Event { round: ROUND, exclusive };
        Self { tables: Tables { event, coupons, retired: Vec::new(), holdings: Vec::new() }, open: true }
    }

    /// What a user asks for, whenever that will be.
    fn wish(&self, user: usize, rng: &mut Rng) -> Attempt {
        let code = self.tables.coupons[rng.usize(..self.tables.coupons.len())].code.clone();
        let (user, key) = (format!("u-{user}"), format!("k{}", rng.u8(..2)));
        Attempt { user, code, key, asked: 0, answered: 0, told: Told::Nothing }
    }

    fn situation(&self) -> Situation {
        let Event { round, exclusive } = self.tables.event;
        let stocks = self.tables.coupons.iter().map(|it| (it.code.clone(), Stock { total: it.total, open: it.open }));
        Situation { round, exclusive, open: self.open, coupons: stocks.collect() }
    }

    fn change(&mut self, rng: &mut Rng) {
        let Tables { event, coupons, .. } = &mut self.tables;
        let place = rng.usize(..coupons.len());
        let it = &mut coupons[place];
        match rng.u8(..8) {
            0..3 => {
                *event = Event { round: event.round + 1, exclusive: rng.bool() };
                for it in coupons {
                    *it = Coupon { round: event.round, open: it.open, ..coupon(it.id, event.exclusive, it.total) };
                }
            }
            3 | 4 => {
                let more = rng.u32(1..3);
                (it.total, it.remaining) = (it.total + more, it.remaining + more);
            }
            5 => {
                let less = rng.u32(..=it.remaining);
                (it.total, it.remaining) = (it.total - less, it.remaining - less);
            }
            6 => it.open = !it.open,
            _ => self.open = !self.open,
        }
    }

    /// What the order gets where nothing new can be had; `None` where something can.
    fn refuse(&self, attempt: &Attempt) -> Option<Told> {
        let Tables { coupons, holdings, .. } = &self.tables;
        let coupon = coupons.iter().find(|it| it.code == attempt.code)?;
        let of = |row: &Holding| (row.round, row.scope);
        let is_theirs = |row: &&Holding| of(row) == (coupon.round, coupon.scope) && row.user_id == attempt.user;
        if let Some(row) = holdings.iter().find(is_theirs) {
            let entry = entry_of(&coupons.iter().find(|it| it.id == row.coupon_id)?.code, row);
            let is_own = row.request_id == request(attempt);
            return Some(if is_own { Told::Replayed(entry) } else { Told::AlreadyIssued(entry) });
        }
        if !(self.open && coupon.open) {
            return Some(Told::Refused { status: NOT_OPEN });
        }
        (coupon.remaining == 0).then_some(Told::SoldOut)
    }

    fn answer(&mut self, attempt: &Attempt) -> Told {
        self.refuse(attempt).unwrap_or_else(|| {
            let Tables { coupons, holdings, .. } = &mut self.tables;
            let coupon = coupons.iter_mut().find(|it| it.code == attempt.code).unwrap();
            holdings.push(take(coupon, &attempt.user, &request(attempt)));
            Told::Issued(entry_of(&attempt.code, &holdings[holdings.len() - 1]))
        })
    }
}

/// Names the request of an attempt.
fn request(attempt: &Attempt) -> String {
    format!("{} {} {}", attempt.user, attempt.code, attempt.key)
}

/// A full coupon; its code is a letter.
pub(super) fn coupon(id: u16, exclusive: bool, total: u32) -> Coupon {
    let code = char::from(b'@' + u8::try_from(id).unwrap()).to_string();
    let scope = if exclusive { 0 } else { id };
    Coupon { id, code, total, remaining: total, next_serial: 1, round: ROUND, scope, open: true }
}

/// The next piece for `user`.
pub(super) fn take(coupon: &mut Coupon, user: &str, request: &str) -> Holding {
    let Coupon { id, round, scope, next_serial: serial, .. } = *coupon;
    (coupon.next_serial, coupon.remaining) = (serial + 1, coupon.remaining.saturating_sub(1));
    let [user_id, request_id] = [user, request].map(str::to_owned);
    Holding { round, scope, user_id, coupon_id: id, serial: Some(serial), request_id, issued_at: serial.into() }
}

/// What a client is told of a row.
pub(super) fn entry_of(code: &str, row: &Holding) -> Ack {
    let (user_id, request_id) = (row.user_id.clone(), row.request_id.clone());
    let issued_at = OffsetDateTime::UNIX_EPOCH + Duration::microseconds(row.issued_at);
    Ack { code: code.to_owned(), user_id, serial: row.serial, round: row.round, request_id, issued_at }
}
