//! Worlds that are clean by construction: a crowd with bad luck of every kind asks an issuer that carries out one request after the
//! other. While a change is under way it sometimes answers by what was before it, as a replica may that has not seen it yet.

use fastrand::Rng;

use super::super::report::{Kind, Report};
use super::super::{Ack, Coupon, Event, Holding, PATIENCE, Tables, rules};
use super::answers::NOT_OPEN;
use crate::history::{Attempt, Change, Entry, History, Situation, Stock, Told};

/// What is judged together.
pub(super) struct World {
    pub(super) tables: Tables,
    pub(super) history: History,
}

/// The round in which all worlds begin.
pub(super) const ROUND: u32 = 5;

/// One wish of one user: a code and a key.
#[derive(Clone)]
struct Wish {
    user: String,
    code: String,
    key: String,
}

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
    event: Event,
    open: bool,
    coupons: Vec<Coupon>,
    /// With the key that got it.
    wallet: Vec<(Holding, String)>,
}

impl World {
    /// One to three codes, some of which sell out, and up to thirty users with several wishes each.
    pub(super) fn steady(rng: &mut Rng) -> Self {
        let (state, mut crowd) = (State::random(8, rng), Crowd::default());
        for user in 0..rng.usize(4..=30) {
            for _ in 0..rng.usize(1..=3) {
                crowd.ask(&state.wish(user, rng), rng);
            }
        }
        crowd.carry_out(state, Vec::new(), rng)
    }

    /// One to three codes, one to five changes, up to ten users that ask again and again.
    pub(super) fn changing(rng: &mut Rng) -> Self {
        let (state, mut crowd) = (State::random(4, rng), Crowd::default());
        for number in 0..rng.usize(4..=20) {
            crowd.ask_again(&state.wish(number / 2, rng), rng);
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

    pub(super) fn judge(&self) -> Report {
        let acks: Vec<Ack> = super::acks(&self.history.attempts).collect();
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

    /// Whatever clients were told of the piece of `user`, is another story from now on.
    pub(super) fn retell(&mut self, code: &str, user: &str, tell: impl Fn(&mut Told)) {
        for attempt in self.history.attempts.iter_mut().filter(|attempt| attempt.user == user) {
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

    /// Asks until there were so many answers; what is not answered is carried out late or never.
    fn ask_again(&mut self, wish: &Wish, rng: &mut Rng) {
        let (mut now, mut left) = (rng.u64(10..800), rng.u8(1..8));
        while left > 0 {
            let (asked, answered) = (now, now + rng.u64(1..300));
            now = answered + rng.u64(1..400);
            if rng.u8(..10) < 8 {
                left -= 1;
                self.send(wish, asked, answered, Some(rng.u64(asked..=answered)), Told::SoldOut);
            } else {
                let carried_out = rng.bool().then(|| rng.u64(asked..=answered) + rng.u64(..300));
                self.send(wish, asked, answered, carried_out, Told::Nothing);
            }
        }
    }

    /// Any final answer stands for the one that the issuer will give.
    fn send(&mut self, wish: &Wish, asked: u64, answered: u64, carried_out: Option<u64>, told: Told) {
        let Wish { user, code, key } = wish.clone();
        self.steps.extend(carried_out.map(|at| (at, Step::Request(self.attempts.len()))));
        self.attempts.push(Attempt { user, code, round: ROUND, key, asked, answered, told });
    }

    /// One step after the other.
    fn carry_out(mut self, mut state: State, changes: Vec<Change>, rng: &mut Rng) -> World {
        let mut history = History { attempts: self.attempts, changes };
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
        World { tables: state.tables(), history }
    }
}

impl State {
    fn random(most: u32, rng: &mut Rng) -> Self {
        let exclusive = rng.bool();
        let coupons = (1..=rng.u16(1..=3)).map(|id| coupon(id, exclusive, rng.u32(1..=most))).collect();
        Self { event: Event { round: ROUND, exclusive }, open: true, coupons, wallet: Vec::new() }
    }

    fn wish(&self, user: usize, rng: &mut Rng) -> Wish {
        let code = self.coupons[rng.usize(..self.coupons.len())].code.clone();
        Wish { user: format!("u-{user}"), code, key: format!("k{}", rng.u8(..2)) }
    }

    fn situation(&self) -> Situation {
        let stocks = self.coupons.iter().map(|it| (it.code.clone(), Stock { total: it.total, open: it.open }));
        let Event { round, exclusive } = self.event;
        Situation { round, exclusive, open: self.open, coupons: stocks.collect() }
    }

    fn change(&mut self, rng: &mut Rng) {
        let place = rng.usize(..self.coupons.len());
        let coupon = &mut self.coupons[place];
        match rng.u8(..8) {
            0..3 => self.reset(rng.bool()),
            3 | 4 => {
                let more = rng.u32(1..3);
                (coupon.total, coupon.remaining) = (coupon.total + more, coupon.remaining + more);
            }
            5 => {
                let less = rng.u32(..=coupon.remaining);
                (coupon.total, coupon.remaining) = (coupon.total - less, coupon.remaining - less);
            }
            6 => coupon.open = !coupon.open,
            _ => self.open = !self.open,
        }
    }

    fn reset(&mut self, exclusive: bool) {
        let round = self.event.round + 1;
        self.event = Event { round, exclusive };
        for it in &mut self.coupons {
            *it = Coupon { round, open: it.open, ..coupon(it.id, exclusive, it.total) };
        }
    }

    /// What the order gets where nothing new can be had; `None` where something can.
    fn refuse(&self, attempt: &Attempt) -> Option<Told> {
        let Attempt { user, code, key, .. } = attempt;
        let coupon = self.coupons.iter().find(|it| it.code == *code).unwrap();
        let is_theirs = |row: &Holding| (row.round, row.scope) == (coupon.round, coupon.scope) && row.user_id == *user;
        if let Some((row, by)) = self.wallet.iter().find(|(row, _)| is_theirs(row)) {
            let held = &self.coupons.iter().find(|it| it.id == row.coupon_id).unwrap().code;
            let entry = entry_of(held, row);
            let is_own = by == key && held == code;
            return Some(if is_own { Told::Issued(entry) } else { Told::AlreadyIssued(entry) });
        }
        if !(self.open && coupon.open) {
            return Some(Told::Refused { status: NOT_OPEN });
        }
        (coupon.remaining == 0).then_some(Told::SoldOut)
    }

    fn answer(&mut self, attempt: &Attempt) -> Told {
        if let Some(told) = self.refuse(attempt) {
            return told;
        }
        let Attempt { user, code, key, .. } = attempt;
        let coupon = self.coupons.iter_mut().find(|it| it.code == *code).unwrap();
        let row = take(coupon, user, &format!("{user} {code} {key}"));
        let told = Told::Issued(entry_of(code, &row));
        self.wallet.push((row, key.clone()));
        told
    }

    fn tables(self) -> Tables {
        let Self { event, open, mut coupons, wallet } = self;
        for coupon in &mut coupons {
            coupon.open &= open;
        }
        Tables { event, coupons, retired: Vec::new(), holdings: wallet.into_iter().map(|(row, _)| row).collect() }
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

/// The next piece for `user`. The name of the request, cut or filled to 16 bytes, is its id.
pub(super) fn take(coupon: &mut Coupon, user: &str, request: &str) -> Holding {
    let serial = coupon.next_serial;
    coupon.next_serial += 1;
    coupon.remaining = coupon.remaining.saturating_sub(1);
    Holding {
        round: coupon.round,
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
