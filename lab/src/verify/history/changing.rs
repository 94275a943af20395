//! Histories in which an administrator was at work: every lie about a change is found.

use std::collections::HashMap;

use super::super::Holding;
use super::super::report::Kind;
use super::answers::{NOT_OPEN, UNKNOWN};
use super::timeline::Timeline;
use super::world::{ROUND, World, entry_of};
use crate::history::{Attempt, Entry, Told};

/// Worlds that are tried.
const SEEDS: u64 = 4_000;

/// What is planted, and the finding that it shows in any world.
#[derive(Clone, Copy, Debug)]
enum Lie {
    /// A holder is told "sold out" in the very situation in which it was told of its coupon.
    HolderSentAway,
    /// A refusal of before a change is told when the change has been answered.
    SoldOutOfBefore,
    EntryOfBefore,
    NotOpenWhileOpen,
    NotOpenToHolder,
    UnknownWhileThere,
    OldRoundOversold,
    OldRoundRowLost,
    BothRequestsIssued,
    /// A request that got a piece is told that another one got it.
    OwnRequestDenied,
    RowMoved,
}

const ALL: [(Lie, Kind); 11] = [
    (Lie::HolderSentAway, Kind::SoldOutHolder),
    (Lie::SoldOutOfBefore, Kind::FalseSoldOut),
    (Lie::EntryOfBefore, Kind::EntryOfAnotherTime),
    (Lie::NotOpenWhileOpen, Kind::NotOpenWhileOpen),
    (Lie::NotOpenToHolder, Kind::NotOpenHolder),
    (Lie::UnknownWhileThere, Kind::UnknownWhileThere),
    (Lie::OldRoundOversold, Kind::Oversold),
    (Lie::OldRoundRowLost, Kind::SerialGap),
    (Lie::BothRequestsIssued, Kind::IssuedTwice),
    (Lie::OwnRequestDenied, Kind::AlreadyUnfounded),
    (Lie::RowMoved, Kind::Unasked),
];

impl World {
    fn timeline(&self) -> Timeline<'_> {
        Timeline::new(&self.tables, &self.history, &[])
    }

    /// The only situation by which the attempt may have been answered.
    fn only(&self, attempt: &Attempt) -> Option<usize> {
        let possible = self.timeline().possible(attempt);
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

    fn is_closed(&self, place: usize, code: &str) -> bool {
        let situation = self.timeline().at(place);
        !(situation.open && situation.coupons[code].open)
    }

    /// `None`: nothing in this world can be corrupted so.
    fn lie(&mut self, lie: Lie) -> Option<()> {
        match lie {
            Lie::SoldOutOfBefore => self.refuse_after_a_change(),
            Lie::OldRoundOversold => self.oversell(),
            Lie::OldRoundRowLost => {
                let current = self.tables.event.round;
                let rows = &self.tables.holdings;
                let follows = |row: &Holding| {
                    rows.iter()
                        .any(|it| (it.round, it.coupon_id) == (row.round, row.coupon_id) && it.serial > row.serial)
                };
                let lost = rows.iter().position(|row| row.round < current && follows(row))?;
                self.tables.holdings.remove(lost);
                Some(())
            }
            Lie::RowMoved => {
                "stranger".clone_into(&mut self.tables.holdings.first_mut()?.user_id);
                Some(())
            }
            _ => self.mislead(lie),
        }
    }

    fn mislead(&mut self, lie: Lie) -> Option<()> {
        let told = |attempt: &Attempt| {
            let place = self.only(attempt)?;
            match lie {
                Lie::HolderSentAway => self.is_told_again(attempt).then_some(Told::SoldOut),
                Lie::EntryOfBefore if matches!(attempt.told, Told::Issued(_)) => {
                    let round = self.timeline().at(place).round;
                    let coupon = self.tables.coupons.iter().find(|coupon| coupon.code == attempt.code)?;
                    let mut rows = self.tables.holdings.iter().filter(|row| row.user_id == attempt.user);
                    let other = rows.find(|row| row.coupon_id == coupon.id && row.round != round)?;
                    Some(Told::Issued(entry_of(&attempt.code, other)))
                }
                Lie::NotOpenWhileOpen => {
                    let fits = attempt.told == Told::SoldOut && !self.is_closed(place, &attempt.code);
                    fits.then_some(Told::Refused { status: NOT_OPEN })
                }
                Lie::NotOpenToHolder => {
                    let fits = self.is_told_again(attempt) && self.is_closed(place, &attempt.code);
                    fits.then_some(Told::Refused { status: NOT_OPEN })
                }
                Lie::UnknownWhileThere => attempt.told.is_final().then_some(Told::Refused { status: UNKNOWN }),
                Lie::BothRequestsIssued => match &attempt.told {
                    Told::AlreadyIssued(entry) if self.is_confirmed(entry, attempt) => {
                        Some(Told::Issued(entry.clone()))
                    }
                    _ => None,
                },
                Lie::OwnRequestDenied => match &attempt.told {
                    Told::Issued(entry) if self.is_told_twice(attempt) => Some(Told::AlreadyIssued(entry.clone())),
                    _ => None,
                },
                _ => None,
            }
        };
        let (place, told) =
            self.history.attempts.iter().enumerate().find_map(|(place, attempt)| Some((place, told(attempt)?)))?;
        self.history.attempts[place].told = told;
        Some(())
    }

    /// Whether another attempt of the same request was told the same.
    fn is_told_twice(&self, attempt: &Attempt) -> bool {
        let request = |it: &Attempt| (it.user.clone(), it.code.clone(), it.key.clone(), it.told.clone());
        let same = self.history.attempts.iter().filter(|it| request(it) == request(attempt));
        same.count() > 1
    }

    /// Whether the request that got the entry was told so.
    fn is_confirmed(&self, entry: &Entry, attempt: &Attempt) -> bool {
        let is_own = |other: &&Attempt| matches!(&other.told, Told::Issued(own) if own == entry);
        let mut others = self.history.attempts.iter().filter(is_own).filter(|other| other.user == attempt.user);
        others.any(|other| other.code == attempt.code && other.key != attempt.key)
    }

    /// Somebody is told "sold out" when a change has been answered after which there was stock for all who had asked.
    fn refuse_after_a_change(&mut self) -> Option<()> {
        let wins = |round: u32, code: &str, time: u64| {
            let coupon = self.tables.coupons.iter().find(|coupon| coupon.code == code).unwrap();
            let rows = self.tables.holdings.iter().filter(|row| (row.round, row.coupon_id) == (round, coupon.id));
            let asked = |row: &&Holding| {
                self.history.attempts.iter().any(|attempt| attempt.user == row.user_id && attempt.asked <= time)
            };
            rows.filter(asked).count()
        };
        let found = self.history.changes.iter().enumerate().skip(1).find_map(|(place, change)| {
            let time = change.answered + 1;
            let lasts = self.timeline().lasts(place, time);
            let mut stocks = change.after.coupons.iter();
            let code = stocks.find(|(code, stock)| wins(change.after.round, code, time) < stock.total as usize)?.0;
            lasts.then(|| (code.clone(), time))
        });
        let (code, asked) = found?;
        let (user, key) = ("late".to_owned(), "k".to_owned());
        let told = Told::SoldOut;
        self.history.attempts.push(Attempt { user, code, round: ROUND, key, asked, answered: asked, told });
        Some(())
    }

    /// A round that is over and was sold out has one row more.
    fn oversell(&mut self) -> Option<()> {
        let current = self.tables.event.round;
        let ids: HashMap<&str, u16> = self.tables.coupons.iter().map(|coupon| (&*coupon.code, coupon.id)).collect();
        let rows = &self.tables.holdings;
        let (round, code, total) =
            self.timeline().stocks().map(|(round, code, stock)| (round, code, stock.total)).find(
                |(round, code, total)| {
                    let of = rows.iter().filter(|row| (row.round, row.coupon_id) == (*round, ids[code]));
                    *round < current && *total > 0 && of.count() == *total as usize
                },
            )?;
        let row = rows.iter().find(|row| (row.round, row.coupon_id) == (round, ids[code]))?;
        let mut attempts = self.history.attempts.iter();
        let user = attempts.find(|attempt| {
            attempt.code == code
                && self.timeline().may_be_of(attempt, round)
                && !rows.iter().any(|row| row.round == round && row.user_id == attempt.user)
        })?;
        let extra = Holding { user_id: user.user.clone(), serial: Some(total + 1), ..row.clone() };
        self.tables.holdings.push(extra);
        Some(())
    }
}

#[test]
fn every_lie_about_a_change_is_found_in_any_history() {
    for (lie, kind) in ALL {
        let mut planted = 0;
        for seed in 0..SEEDS / 4 {
            let mut world = World::changing(&mut fastrand::Rng::with_seed(seed));
            if world.lie(lie).is_some() {
                planted += 1;
                let report = world.judge();
                let found = report.findings.iter().any(|finding| finding.kind == kind);
                assert!(found, "seed {seed}, {lie:?}: {report}");
            }
        }
        assert!(planted >= 20, "{lie:?} was planted {planted} times only");
    }
}
