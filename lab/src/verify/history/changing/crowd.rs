//! Histories that are clean by construction, with an administrator at work: one issuer carries out one request after the other, and
//! while a change is under way it sometimes answers by what was before it, as a replica may that has not seen it yet.

use fastrand::Rng;

use super::super::super::{Coupon, Event, Holding, Tables};
use super::super::crowd::entry_of;
use crate::history::{Attempt, Change, History, Situation, Stock, Told};

/// What is judged together.
pub(super) struct World {
    pub(super) tables: Tables,
    pub(super) history: History,
}

/// The database, and what it was before the last change.
#[derive(Clone)]
struct State {
    situation: Situation,
    coupons: Vec<Piece>,
    /// With the key that got it.
    wallet: Vec<(Holding, String)>,
}

#[derive(Clone)]
struct Piece {
    code: String,
    remaining: u32,
    next_serial: u32,
}

/// What happens at a moment.
enum Step {
    Change(usize),
    Request(usize),
}

impl World {
    /// One to three codes, one to five changes, up to twenty users who ask again and again.
    pub(super) fn random(rng: &mut Rng) -> Self {
        let mut state = State::random(rng);
        let begin = Change { asked: 0, answered: 0, after: state.situation.clone() };
        let mut history = History { attempts: Vec::new(), changes: vec![begin] };
        let mut steps = ask(&state, &mut history, rng);
        let mut now = 0;
        for place in 1..=rng.usize(1..=5) {
            let asked = now + rng.u64(50..700);
            let effect = asked + rng.u64(0..150);
            now = effect + rng.u64(0..300);
            // What it does is drawn when it is carried out.
            history.changes.push(Change { asked, answered: now, after: state.situation.clone() });
            steps.push((effect, Step::Change(place)));
        }
        steps.sort_by_key(|(at, _)| *at);
        let (mut before, mut until) = (state.clone(), 0);
        for (at, step) in steps {
            match step {
                Step::Change(place) => {
                    before = state.clone();
                    state.change(rng);
                    history.changes[place].after = state.situation.clone();
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
        Self { tables: state.tables(), history }
    }
}

/// Everybody asks several times; each request is carried out while its client waits, or later, or never.
fn ask(state: &State, history: &mut History, rng: &mut Rng) -> Vec<(u64, Step)> {
    let mut steps = Vec::new();
    for user in 0..rng.usize(4..=20) {
        let code = state.coupons[rng.usize(..state.coupons.len())].code.clone();
        let (key, mut now, mut left) = (format!("k{}", rng.u8(..2)), rng.u64(10..800), rng.u8(1..8));
        while left > 0 {
            let (asked, answered) = (now, now + rng.u64(1..300));
            now = answered + rng.u64(1..400);
            let is_answered = rng.u8(..10) < 8;
            left -= u8::from(is_answered);
            // Any final answer stands for the one that the issuer will give.
            let told = if is_answered { Told::SoldOut } else { Told::Nothing };
            if is_answered || rng.bool() {
                let late = if is_answered { 0 } else { rng.u64(..300) };
                let at = rng.u64(asked..=answered) + late;
                steps.push((at, Step::Request(history.attempts.len())));
            }
            let (user, code, key) = (format!("u-{}", user / 2), code.clone(), key.clone());
            history.attempts.push(Attempt { user, code, round: 1, key, asked, answered, told });
        }
    }
    steps
}

impl State {
    fn random(rng: &mut Rng) -> Self {
        let totals: Vec<u32> = (0..rng.usize(1..=3)).map(|_| rng.u32(1..=4)).collect();
        let code = |place: usize| char::from(b'A' + u8::try_from(place).unwrap()).to_string();
        let coupons = totals.iter().enumerate();
        let stocks = coupons.clone().map(|(place, &total)| (code(place), Stock { total, open: true }));
        let situation = Situation { round: 1, exclusive: rng.bool(), open: true, coupons: stocks.collect() };
        let piece = |(place, &remaining): (usize, &u32)| Piece { code: code(place), remaining, next_serial: 1 };
        Self { situation, coupons: coupons.map(piece).collect(), wallet: Vec::new() }
    }

    fn change(&mut self, rng: &mut Rng) {
        let place = rng.usize(..self.coupons.len());
        let piece = &mut self.coupons[place];
        let stock = self.situation.coupons.get_mut(&piece.code).unwrap();
        match rng.u8(..8) {
            0..3 => self.reset(rng.bool()),
            3 | 4 => {
                let more = rng.u32(1..3);
                (stock.total, piece.remaining) = (stock.total + more, piece.remaining + more);
            }
            5 => {
                let less = rng.u32(..=piece.remaining);
                (stock.total, piece.remaining) = (stock.total - less, piece.remaining - less);
            }
            6 => stock.open = !stock.open,
            _ => self.situation.open = !self.situation.open,
        }
    }

    fn reset(&mut self, exclusive: bool) {
        self.situation.round += 1;
        self.situation.exclusive = exclusive;
        for piece in &mut self.coupons {
            (piece.remaining, piece.next_serial) = (self.situation.coupons[&piece.code].total, 1);
        }
    }

    /// What the order gets where nothing new can be had; `None` where something can.
    fn refuse(&self, attempt: &Attempt) -> Option<Told> {
        let Attempt { user, code, key, .. } = attempt;
        let Situation { round, exclusive, open, coupons } = &self.situation;
        let place = self.coupons.iter().position(|piece| piece.code == *code).unwrap();
        let code_of = |row: &Holding| &self.coupons[usize::from(row.coupon_id) - 1].code;
        let is_his =
            |row: &Holding| row.round == *round && row.user_id == *user && (*exclusive || code_of(row) == code);
        if let Some((row, by)) = self.wallet.iter().find(|(row, _)| is_his(row)) {
            let entry = entry_of(code_of(row), row);
            let is_own = by == key && code_of(row) == code;
            return Some(if is_own { Told::Issued(entry) } else { Told::AlreadyIssued(entry) });
        }
        if !(*open && coupons[code].open) {
            return Some(Told::Refused { status: super::NOT_OPEN });
        }
        (self.coupons[place].remaining == 0).then_some(Told::SoldOut)
    }

    fn answer(&mut self, attempt: &Attempt) -> Told {
        if let Some(told) = self.refuse(attempt) {
            return told;
        }
        let Attempt { user, code, key, .. } = attempt;
        let place = self.coupons.iter().position(|piece| piece.code == *code).unwrap();
        let (piece, coupon_id) = (&mut self.coupons[place], u16::try_from(place + 1).unwrap());
        let row = Holding {
            round: self.situation.round,
            scope: if self.situation.exclusive { 0 } else { coupon_id },
            user_id: user.clone(),
            coupon_id,
            serial: Some(piece.next_serial),
            request_id: format!("{user} {code} {key}").bytes().chain([0; 16]).take(16).collect(),
        };
        (piece.remaining, piece.next_serial) = (piece.remaining - 1, piece.next_serial + 1);
        let told = Told::Issued(entry_of(code, &row));
        self.wallet.push((row, key.clone()));
        told
    }

    fn tables(self) -> Tables {
        let Situation { round, exclusive, open, coupons } = self.situation;
        let coupon = |(place, piece): (usize, Piece)| {
            let id = u16::try_from(place + 1).unwrap();
            let Stock { total, open: is_open } = coupons[&piece.code];
            Coupon {
                id,
                code: piece.code,
                total,
                remaining: piece.remaining,
                next_serial: piece.next_serial,
                round,
                scope: if exclusive { 0 } else { id },
                open: open && is_open,
            }
        };
        Tables {
            event: Event { round, exclusive },
            coupons: self.coupons.into_iter().enumerate().map(coupon).collect(),
            holdings: self.wallet.into_iter().map(|(row, _)| row).collect(),
            retired: Vec::new(),
        }
    }
}
