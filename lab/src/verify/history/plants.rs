//! Corruptions, each as a fault of the service or of its database would leave it behind.

use fastrand::Rng;
use time::Duration;

use super::super::Holding;
use super::super::report::Kind as K;
use super::answers::NOT_OPEN;
use super::world::{ROUND, World, entry_of, take};
use crate::history::{Ack, Attempt, Look, Shown, Told};

/// Which of all that fit is corrupted: the first or any.
pub(super) type Luck<'a> = Option<&'a mut Rng>;

/// What is corrupted; what that shows in the hand-made world when the first that fits is, of which the first shows in any world; and
/// how. `None`: nothing in this world can be corrupted so.
pub(super) type Plant = (&'static str, &'static [K], fn(&mut World, Luck) -> Option<()>);

pub(super) const PLANTS: [Plant; 33] = [
    ("row deleted", &[K::Conservation, K::SerialGap, K::SerialOutOfRange, K::NextSerial, K::AckLost], |it, luck| {
        it.row(luck, |_| true).map(|at| drop(it.tables.holdings.remove(at)))
    }),
    (
        "row doubled",
        &[K::UserTwice, K::SerialTwice, K::SerialGap, K::NextSerial, K::Oversold, K::Conservation],
        |it, luck| it.row(luck, |_| true).map(|at| it.tables.holdings.push(it.tables.holdings[at].clone())),
    ),
    ("row moved", &[K::Unasked, K::AckOtherUser], World::move_row),
    ("row of another request", &[K::AckOtherRequest], |it, luck| {
        it.row(luck, |_| true).map(|at| it.tables.holdings[at].request_id = "another".to_owned())
    }),
    ("serial skipped", &[K::SerialGap, K::SerialOutOfRange], |it, luck| {
        let at = it.row(luck, |row| it.is_last(row))?;
        it.renumber(at, it.tables.holdings[at].serial? + 1);
        Some(())
    }),
    ("serials swapped", &[K::AckOtherSerial], |it, luck| {
        let (a, b) = it.pair(luck, |_, _| true)?;
        let rows = &mut it.tables.holdings;
        (rows[a].serial, rows[b].serial) = (rows[b].serial, rows[a].serial);
        Some(())
    }),
    ("no serials", &[K::SerialMissing], |it, _| {
        it.tables.holdings.iter_mut().for_each(|row| row.serial = None);
        it.tables.coupons.iter_mut().for_each(|coupon| coupon.next_serial = 1);
        let told = it.history.attempts.iter_mut().filter_map(|ask| ask.told.entry_mut());
        told.map(|entry| entry.serial = None).last()
    }),
    ("counter off", &[K::Conservation], |it, luck| {
        one(&mut it.tables.coupons, luck).map(|coupon| coupon.remaining += 1)
    }),
    ("next serial off", &[K::NextSerial], |it, luck| {
        one(&mut it.tables.coupons, luck).map(|coupon| coupon.next_serial += 1)
    }),
    ("acknowledged lost", &[K::AckLost], |it, luck| it.undo(luck, |_, _| true).map(drop)),
    ("oversold", &[K::Oversold, K::Conservation], World::oversell),
    ("sold out too early", &[K::FalseSoldOut, K::SoldOutThenIssued], |it, luck| {
        let has_rows = |it: &World, code: &str| it.tables.holdings.iter().any(|row| it.code_of(row) == code);
        let ask = it.attempt(luck, |it, ask| ask.told == Told::SoldOut && has_rows(it, &ask.code))?;
        (ask.asked, ask.answered) = (0, 1);
        Some(())
    }),
    ("issued after sold out", &[K::SoldOutThenIssued, K::FalseSoldOut, K::OutOfOrder], World::delay_winner),
    ("served out of order", &[K::OutOfOrder], |it, luck| {
        let (a, b) = it.pair(luck, |first, second| it.is_earlier(first, second))?;
        let (first, second) = (it.tables.holdings[a].serial?, it.tables.holdings[b].serial?);
        it.renumber(a, second);
        it.renumber(b, first);
        Some(())
    }),
    ("already issued without cause", &[K::AlreadyUnfounded], |it, luck| {
        let has_one_key = |it: &World, ask: &Attempt| it.same(ask).all(|other| other.key == ask.key);
        let ask = it.attempt(luck, |it, ask| ask.told.own().is_some() && has_one_key(it, ask))?;
        let Attempt { user, code, .. } = ask.clone();
        it.retell(&code, &user, |told| {
            if let Some(entry) = told.own() {
                *told = Told::AlreadyIssued(entry.clone());
            }
        });
        Some(())
    }),
    ("both requests issued", &[K::IssuedTwice], World::issue_both),
    ("issued twice to one request", &[K::IssuedAnew], World::issue_anew),
    ("another code", &[K::AckOtherCode, K::AckOtherRequest], |it, luck| {
        it.mislead(luck, |_, ask| match &ask.told {
            Told::Issued(entry) if ask.code != "B" => Some(Told::Issued(Ack { code: "B".into(), ..entry.clone() })),
            _ => None,
        })
    }),
    ("entry of another round", &[K::EntryOfAnotherTime, K::AckOtherRound], |it, luck| {
        it.misquote(luck, |entry| entry.round += 1)
    }),
    ("entry of another user", &[K::AckOtherUser], |it, luck| it.misquote(luck, |entry| entry.user_id.push('x'))),
    ("entry of another time", &[K::AckOtherTime], |it, luck| {
        it.misquote(luck, |entry| entry.issued_at += Duration::MICROSECOND)
    }),
    ("never answered", &[K::NeverFinal], |it, luck| {
        let may_be_lost = |ask: &Attempt| !ask.told.is_final() || ask.told == Told::SoldOut;
        let ask = it.attempt(luck, |it, ask| ask.told == Told::SoldOut && it.same(ask).all(may_be_lost))?;
        let Attempt { user, code, .. } = ask.clone();
        it.asks_of(&user, &code).for_each(|ask| ask.told = Told::Nothing);
        Some(())
    }),
    ("holder sent away", &[K::SoldOutHolder], |it, luck| {
        let Attempt { user, code, .. } = it.attempt(luck, |_, ask| ask.told.own().is_some())?.clone();
        it.retell(&code, &user, |told| *told = Told::SoldOut);
        Some(())
    }),
    ("stock left", &[K::FalseSoldOut, K::Unserved], World::leave_stock),
    ("refused", &[K::Refused], |it, luck| {
        it.mislead(luck, |_, ask| (ask.told == Told::SoldOut).then_some(Told::Refused { status: 422 }))
    }),
    ("not open while open", &[K::NotOpenWhileOpen], |it, luck| {
        it.mislead(luck, |_, ask| (ask.told == Told::SoldOut).then_some(Told::Refused { status: NOT_OPEN }))
    }),
    ("wallet of the past", &[K::WalletOfThePast], |it, luck| {
        it.wallet(luck).and_then(|(_, entries)| entries.pop()).map(drop)
    }),
    ("wallet of another user", &[K::AckOtherUser], |it, luck| {
        it.wallet(luck).map(|(_, entries)| entries[0].user_id.push('x'))
    }),
    ("wallet of another round", &[K::EntryOfAnotherTime], |it, luck| {
        let row = Holding { round: ROUND - 1, ..it.tables.holdings[it.row(luck, |_| true)?].clone() };
        let (user, code) = (row.user_id.clone(), it.code_of(&row));
        it.wallets().find(|(name, _)| **name == user)?.1.push(entry_of(&code, &row));
        it.tables.holdings.push(row);
        Some(())
    }),
    ("wallet refused", &[K::Refused], |it, luck| it.hide(luck, Shown::Refused { status: 500 })),
    ("wallet never shown", &[K::NeverFinal], |it, luck| it.hide(luck, Shown::Retryable)),
    ("wallet late", &[K::TooSlow], |it, luck| {
        it.look();
        one(&mut it.history.looks, luck).map(|look| look.answered += 10_000_000)
    }),
    ("slow", &[K::TooSlow], |it, luck| it.attempt(luck, |_, _| true).map(|ask| ask.answered += 10_000_000)),
];

fn one<T>(all: impl IntoIterator<Item = T>, luck: Luck) -> Option<T> {
    let all: Vec<T> = all.into_iter().collect();
    let place = luck.filter(|_| !all.is_empty()).map_or(0, |rng| rng.usize(..all.len()));
    all.into_iter().nth(place)
}

impl Told {
    fn entry_mut(&mut self) -> Option<&mut Ack> {
        match self {
            Self::Issued(entry) | Self::Replayed(entry) | Self::AlreadyIssued(entry) => Some(entry),
            _ => None,
        }
    }
}

impl World {
    pub(super) fn row(&self, luck: Luck, fits: impl Fn(&Holding) -> bool) -> Option<usize> {
        let rows = &self.tables.holdings;
        one((0..rows.len()).filter(|at| fits(&rows[*at])), luck)
    }

    fn pair(&self, luck: Luck, fits: impl Fn(&Holding, &Holding) -> bool) -> Option<(usize, usize)> {
        let rows = &self.tables.holdings;
        let pairs = (0..rows.len()).flat_map(|a| (0..rows.len()).map(move |b| (a, b)));
        let same = pairs.filter(|&(a, b)| a != b && rows[a].coupon_id == rows[b].coupon_id);
        one(same.filter(|&(a, b)| fits(&rows[a], &rows[b])), luck)
    }

    fn attempt(&mut self, luck: Luck, fits: impl Fn(&Self, &Attempt) -> bool) -> Option<&mut Attempt> {
        let all = 0..self.history.attempts.len();
        let at = one(all.filter(|at| fits(self, &self.history.attempts[*at])), luck)?;
        Some(&mut self.history.attempts[at])
    }

    /// Somebody is told something else, where there is something else to be told.
    pub(super) fn mislead(&mut self, luck: Luck, told: impl Fn(&Self, &Attempt) -> Option<Told>) -> Option<()> {
        let lie = |at: usize| Some((at, told(self, &self.history.attempts[at])?));
        let (at, lie) = one((0..self.history.attempts.len()).filter_map(lie), luck)?;
        self.history.attempts[at].told = lie;
        Some(())
    }

    /// Somebody that got a piece is told of it otherwise.
    fn misquote(&mut self, luck: Luck, change: impl Fn(&mut Ack)) -> Option<()> {
        self.mislead(luck, |_, ask| {
            let Told::Issued(mut entry) = ask.told.clone() else { return None };
            change(&mut entry);
            Some(Told::Issued(entry))
        })
    }

    /// Whose wallet everybody sees, and what is in it.
    fn wallets(&mut self) -> impl Iterator<Item = (&String, &mut Vec<Ack>)> {
        self.look();
        self.history.looks.iter_mut().filter_map(|Look { user, shown, .. }| match shown {
            Shown::Entries(entries) => Some((&*user, entries)),
            _ => None,
        })
    }

    /// One that is not empty.
    fn wallet(&mut self, luck: Luck) -> Option<(&String, &mut Vec<Ack>)> {
        one(self.wallets().filter(|(_, entries)| !entries.is_empty()), luck)
    }

    /// Somebody is shown something else than its wallet.
    fn hide(&mut self, luck: Luck, shown: Shown) -> Option<()> {
        self.look();
        one(&mut self.history.looks, luck).map(|look| look.shown = shown)
    }

    /// Whatever clients were told of the piece of `user`, is another story from now on.
    pub(super) fn retell(&mut self, code: &str, user: &str, tell: impl Fn(&mut Told)) {
        for attempt in self.history.attempts.iter_mut().filter(|attempt| attempt.user == user) {
            if attempt.told.entry().is_some_and(|entry| entry.code == code) {
                tell(&mut attempt.told);
            }
        }
    }

    fn asks_of<'a>(&'a mut self, user: &'a str, code: &'a str) -> impl Iterator<Item = &'a mut Attempt> {
        self.history.attempts.iter_mut().filter(move |ask| ask.user == user && ask.code == code)
    }

    /// What the user of `attempt` asked for the same code.
    fn same<'a>(&'a self, attempt: &'a Attempt) -> impl Iterator<Item = &'a Attempt> {
        self.history.attempts.iter().filter(move |other| other.user == attempt.user && other.code == attempt.code)
    }

    pub(super) fn code_of(&self, row: &Holding) -> String {
        self.tables.coupons.iter().find(|coupon| coupon.id == row.coupon_id).unwrap().code.clone()
    }

    fn is_sold_out(&self, code: &str) -> bool {
        self.history.attempts.iter().any(|attempt| attempt.code == code && attempt.told == Told::SoldOut)
    }

    /// Whether no row of its coupon has a higher serial.
    fn is_last(&self, row: &Holding) -> bool {
        self.tables.holdings.iter().all(|it| it.coupon_id != row.coupon_id || it.serial <= row.serial)
    }

    /// Whether somebody was told of the first piece before the holder of the second asked at all.
    fn is_earlier(&self, first: &Holding, second: &Holding) -> bool {
        let (code, attempts) = (self.code_of(first), || self.history.attempts.iter());
        let is_told = |ask: &&Attempt| ask.told.entry().is_some_and(|entry| entry.code == code);
        let told = attempts().filter(|ask| ask.user == first.user_id).filter(is_told).map(|ask| ask.answered).min();
        let asks = attempts().filter(|ask| ask.user == second.user_id && ask.code == code);
        told.zip(asks.map(|ask| ask.asked).min()).is_some_and(|(told, asked)| told < asked)
    }

    /// Gives a row another serial and tells its user so.
    fn renumber(&mut self, at: usize, serial: u32) {
        self.tables.holdings[at].serial = Some(serial);
        let row = self.tables.holdings[at].clone();
        self.retell(&self.code_of(&row), &row.user_id, |told| {
            if let Some(entry) = told.entry_mut() {
                entry.serial = Some(serial);
            }
        });
    }

    /// A request that was told of another that won is told that it won, and so was the other.
    pub(super) fn issue_both(&mut self, luck: Luck) -> Option<()> {
        self.mislead(luck, |it, ask| {
            let Told::AlreadyIssued(entry) = &ask.told else { return None };
            let is_told = it.same(ask).any(|other| other.key != ask.key && other.told.own() == Some(entry));
            is_told.then(|| Told::Issued(entry.clone()))
        })
    }

    /// A request that asked again is told that it got its coupon only now.
    pub(super) fn issue_anew(&mut self, luck: Luck) -> Option<()> {
        self.mislead(luck, |it, ask| {
            let Told::Replayed(entry) = &ask.told else { return None };
            let is_before = |other: &Attempt| other.told.own() == Some(entry) && other.answered < ask.asked;
            let is_told = it.same(ask).any(|other| other.key == ask.key && is_before(other));
            is_told.then(|| Told::Issued(entry.clone()))
        })
    }

    pub(super) fn move_row(&mut self, luck: Luck) -> Option<()> {
        let at = self.row(luck, |_| true)?;
        "stranger".clone_into(&mut self.tables.holdings[at].user_id);
        Some(())
    }

    /// The last issue of a coupon is undone, in the tables.
    fn undo(&mut self, luck: Luck, fits: impl Fn(&Self, &str) -> bool) -> Option<Holding> {
        let at = self.row(luck, |row| self.is_last(row) && fits(self, &self.code_of(row)))?;
        let row = self.tables.holdings.remove(at);
        let coupon = self.tables.coupons.iter_mut().find(|coupon| coupon.id == row.coupon_id)?;
        (coupon.remaining, coupon.next_serial) = (coupon.remaining + 1, coupon.next_serial - 1);
        Some(row)
    }

    /// The last winner of a coupon that sold out is sent away, as if it had never won.
    fn leave_stock(&mut self, luck: Luck) -> Option<()> {
        let row = self.undo(luck, Self::is_sold_out)?;
        self.retell(&self.code_of(&row), &row.user_id, |told| *told = Told::SoldOut);
        Some(())
    }

    /// The holder of a piece of a coupon that sold out asked only when all was over.
    fn delay_winner(&mut self, luck: Luck) -> Option<()> {
        const LATER: u64 = 1_000_000;
        let at = self.row(luck, |row| self.is_sold_out(&self.code_of(row)))?;
        let row = self.tables.holdings[at].clone();
        for ask in self.asks_of(&row.user_id, &self.code_of(&row)) {
            (ask.asked, ask.answered) = (ask.asked + LATER, ask.answered + LATER);
        }
        Some(())
    }

    /// One piece too many goes to a user that the replica had sent away.
    fn oversell(&mut self, luck: Luck) -> Option<()> {
        let sent_away = self.attempt(luck, |_, ask| ask.told == Told::SoldOut)?;
        let Attempt { user, code, key, .. } = sent_away.clone();
        let coupon = self.tables.coupons.iter_mut().find(|coupon| coupon.code == code)?;
        let row = take(coupon, &user, "one too many");
        let same = self.asks_of(&user, &code).filter(|ask| ask.key == key && ask.told == Told::SoldOut);
        same.for_each(|ask| ask.told = Told::Issued(entry_of(&code, &row)));
        self.tables.holdings.push(row);
        Some(())
    }
}
