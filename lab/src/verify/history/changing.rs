//! Histories in which an administrator was at work: every lie about a change is found.

use super::super::Holding;
use super::super::report::Kind as K;
use super::answers::{NOT_OPEN, UNKNOWN};
use super::plants::Plant;
use super::timeline::Timeline;
use super::world::{World, entry_of};
use crate::history::{Attempt, Told};

const NOT_OPEN_TOLD: Told = Told::Refused { status: NOT_OPEN };

/// What is planted, and the finding that it shows in any world.
pub(super) const LIES: [Plant; 15] = [
    // In the very situation in which it was told of its coupon.
    ("holder sent away", &[K::SoldOutHolder], |it, luck| {
        it.mislead(luck, |it, ask| it.is_told_again(ask).then_some(Told::SoldOut))
    }),
    ("sold out of before", &[K::FalseSoldOut], |it, _| it.refuse_after_a_change()),
    ("entry of before", &[K::EntryOfAnotherTime], |it, luck| it.mislead(luck, World::entry_of_before)),
    ("not open while open", &[K::NotOpenWhileOpen], |it, luck| {
        it.mislead(luck, |it, ask| (ask.told == Told::SoldOut && !it.is_closed(ask)?).then_some(NOT_OPEN_TOLD))
    }),
    ("not open to a holder", &[K::NotOpenHolder], |it, luck| {
        it.mislead(luck, |it, ask| (it.is_told_again(ask) && it.is_closed(ask)?).then_some(NOT_OPEN_TOLD))
    }),
    ("unknown while there", &[K::UnknownWhileThere], |it, luck| {
        it.mislead(luck, |_, ask| ask.told.is_final().then_some(Told::Refused { status: UNKNOWN }))
    }),
    ("old round oversold", &[K::Oversold], |it, _| it.oversell_before()),
    ("row of an old round lost", &[K::SerialGap], |it, luck| {
        let (current, rows) = (it.tables.event.round, &it.tables.holdings);
        let of = |row: &Holding| (row.round, row.coupon_id);
        let follows = |row: &Holding| rows.iter().any(|it| of(it) == of(row) && it.serial > row.serial);
        let lost = it.row(luck, |row| row.round < current && follows(row))?;
        it.tables.holdings.remove(lost);
        Some(())
    }),
    ("two of an old round for one user", &[K::UserTwice], |it, luck| {
        let current = it.tables.event.round;
        let first = it.row(luck, |row| row.round < current)?;
        let Holding { round, coupon_id, ref user_id, .. } = it.tables.holdings[first];
        let (user, mut rows) = (user_id.clone(), it.tables.holdings.iter_mut().enumerate());
        let is_other = |at: usize, row: &Holding| at != first && (row.round, row.coupon_id) == (round, coupon_id);
        rows.find_map(|(at, row)| is_other(at, row).then_some(row))?.user_id = user;
        Some(())
    }),
    ("row of an old round in another scope", &[K::WrongScope], |it, luck| {
        let current = it.tables.event.round;
        it.row(luck, |row| row.round < current).map(|at| it.tables.holdings[at].scope += 1)
    }),
    ("stock as before a change", &[K::ChangeLost], |it, _| {
        let left = it.tables.coupons.iter_mut().find(|coupon| coupon.remaining > 0)?;
        (left.total, left.remaining) = (left.total - 1, left.remaining - 1);
        Some(())
    }),
    ("both requests issued", &[K::IssuedTwice], World::issue_both),
    // A request that got a piece is told that another one got it.
    ("own request denied", &[K::AlreadyUnfounded], |it, luck| {
        it.mislead(luck, |it, ask| match &ask.told {
            Told::Replayed(entry) if it.is_told_twice(ask) => Some(Told::AlreadyIssued(entry.clone())),
            _ => None,
        })
    }),
    ("row moved", &[K::Unasked], World::move_row),
    ("issued twice to one request", &[K::IssuedAnew], World::issue_anew),
];

impl World {
    fn timeline(&self) -> Timeline<'_> {
        Timeline { changes: &self.history.changes }
    }

    /// The only situation by which the attempt may have been answered.
    fn only(&self, attempt: &Attempt) -> Option<usize> {
        let possible = self.timeline().possible(attempt.lasted());
        (possible.start() == possible.end()).then(|| *possible.start())
    }

    /// Whether the user had been told of the same entry before, in the only situation of the attempt.
    fn is_told_again(&self, attempt: &Attempt) -> bool {
        let Some(place) = self.only(attempt) else { return false };
        let same = |other: &&Attempt| other.user == attempt.user && other.told.entry() == attempt.told.entry();
        let mut before = self.history.attempts.iter().filter(same).filter(|other| other.answered < attempt.asked);
        attempt.told.entry().is_some_and(|entry| entry.code == attempt.code)
            && before.any(|other| self.timeline().lasts(place, other.answered))
    }

    /// Whether it was closed in the only situation of the attempt.
    fn is_closed(&self, attempt: &Attempt) -> Option<bool> {
        let situation = self.timeline().at(self.only(attempt)?);
        Some(!(situation.open && situation.coupons[&attempt.code].open))
    }

    /// What the user of a request that got a piece holds of another round.
    fn entry_of_before(&self, attempt: &Attempt) -> Option<Told> {
        let round = self.timeline().at(self.only(attempt)?).round;
        let coupon = self.tables.coupons.iter().find(|coupon| coupon.code == attempt.code)?;
        let mut rows = self.tables.holdings.iter().filter(|row| row.user_id == attempt.user);
        let other = rows.find(|row| row.coupon_id == coupon.id && row.round != round)?;
        attempt.told.own().map(|_| Told::Replayed(entry_of(&attempt.code, other)))
    }

    /// Whether another attempt of the same request was told the same.
    fn is_told_twice(&self, attempt: &Attempt) -> bool {
        let is_same = |it: &&Attempt| {
            (&it.user, &it.code, &it.key, it.told.own())
                == (&attempt.user, &attempt.code, &attempt.key, attempt.told.own())
        };
        self.history.attempts.iter().filter(is_same).count() > 1
    }

    /// Somebody is told "sold out" when a change has been answered after which there was stock for all who had asked and not been sent
    /// away.
    fn refuse_after_a_change(&mut self) -> Option<()> {
        let wins = |round: u32, code: &str, time: u64| {
            let rows = self.tables.holdings.iter().filter(|row| row.round == round && self.code_of(row) == code);
            let may_win = |ask: &Attempt| ask.told.entry().is_some() || !ask.told.is_final();
            let mut attempts = self.history.attempts.iter().filter(|ask| ask.asked <= time && may_win(ask));
            let askers: Vec<_> = attempts.by_ref().map(|ask| &ask.user).collect();
            rows.filter(|row| askers.contains(&&row.user_id)).count()
        };
        let found = self.history.changes.iter().enumerate().skip(1).find_map(|(place, change)| {
            let time = change.answered + 1;
            let lasts = self.timeline().lasts(place, time);
            let mut stocks = change.after.coupons.iter();
            let code = stocks.find(|(code, stock)| wins(change.after.round, code, time) < stock.total as usize)?.0;
            lasts.then(|| (code.clone(), time))
        });
        let (code, asked) = found?;
        self.ask(&code, "late", "k", (asked, asked), Told::SoldOut);
        Some(())
    }

    /// A round that is over and was sold out has one row more.
    fn oversell_before(&mut self) -> Option<()> {
        let (rows, timeline) = (&self.tables.holdings, self.timeline());
        let of = |row: &Holding| (row.round, row.coupon_id);
        let total = |row: &Holding| timeline.stock(row.round, &self.code_of(row)).map_or(0, |stock| stock.total);
        let is_sold_out = |row: &Holding| rows.iter().filter(|it| of(it) == of(row)).count() == total(row) as usize;
        let row = rows.iter().find(|row| row.round < self.tables.event.round && is_sold_out(row))?;
        let code = self.code_of(row);
        let holds = |user: &str| rows.iter().any(|it| it.round == row.round && it.user_id == user);
        let user = self
            .history
            .attempts
            .iter()
            .find(|ask| ask.code == code && timeline.may_be_of(ask.lasted(), row.round) && !holds(&ask.user))?;
        let extra = Holding { user_id: user.user.clone(), serial: Some(total(row) + 1), ..row.clone() };
        self.tables.holdings.push(extra);
        Some(())
    }
}
