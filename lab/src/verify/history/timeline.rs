//! What was so while clients asked, as a row of situations. A change takes effect at some moment between its call and its answer;
//! until then a replica may answer by what was before it, or by what is after it.

use std::ops::RangeInclusive;

use super::super::Event;
use super::Tables;
use crate::history::{Attempt, Change, Situation, Stock};

/// The situations of a history, by place; the first is the one in which it began.
pub(super) struct Timeline<'a> {
    pub(super) changes: &'a [Change],
}

/// What the tables show, as if it had always been so.
pub(super) fn always(tables: &Tables) -> Change {
    let Event { round, exclusive } = tables.event;
    let coupons = tables.coupons.iter().map(|it| (it.code.clone(), Stock { total: it.total, open: it.open })).collect();
    Change { asked: 0, answered: 0, after: Situation { round, exclusive, open: true, coupons } }
}

impl<'a> Timeline<'a> {
    /// Whether nothing changed.
    pub(super) fn is_steady(&self) -> bool {
        self.changes.len() == 1
    }

    /// The places of the situations by which something may have been answered that lasted so long.
    pub(super) fn possible(&self, lasted: RangeInclusive<u64>) -> RangeInclusive<usize> {
        let first = self.changes.partition_point(|change| change.answered < *lasted.start()).saturating_sub(1);
        first..=self.last_at(*lasted.end())
    }

    /// The place of the last situation that may have begun by then.
    pub(super) fn last_at(&self, time: u64) -> usize {
        self.changes.partition_point(|change| change.asked <= time).saturating_sub(1)
    }

    pub(super) fn at(&self, place: usize) -> &'a Situation {
        &self.changes[place].after
    }

    pub(super) fn end(&self) -> &'a Situation {
        self.at(self.changes.len() - 1)
    }

    /// Whether a situation was surely still so at that time: the change that ends it had not even been asked for.
    pub(super) fn lasts(&self, place: usize, time: u64) -> bool {
        self.changes.get(place + 1).is_none_or(|next| time < next.asked)
    }

    /// The first place after this one at which there may be stock of `code` again in the same round.
    pub(super) fn topped_up_after(&self, place: usize, code: &str) -> Option<usize> {
        let round = self.at(place).round;
        let total = |place: usize| self.at(place).coupons.get(code).map_or(0, |stock| stock.total);
        (place + 1..self.changes.len())
            .take_while(|later| self.at(*later).round == round)
            .find(|later| total(*later) > total(later - 1))
    }

    /// Whether what lasted so long may have been answered in this round.
    pub(super) fn may_be_of(&self, lasted: RangeInclusive<u64>, round: u32) -> bool {
        self.possible(lasted).any(|place| self.at(place).round == round)
    }

    /// Whether an attempt may have got something in this round. What has no final answer may yet be carried out.
    pub(super) fn may_win_in(&self, attempt: &Attempt, round: u32) -> bool {
        let first = *self.possible(attempt.lasted()).start();
        !attempt.told.is_final() && self.changes[first..].iter().any(|change| change.after.round == round)
            || self.may_be_of(attempt.lasted(), round)
    }

    /// Whether the history names this round.
    pub(super) fn has(&self, round: u32) -> bool {
        self.changes.iter().any(|change| change.after.round == round)
    }

    /// The rule of a round; `None` where the history does not name it.
    pub(super) fn exclusive(&self, round: u32) -> Option<bool> {
        self.changes.iter().find(|change| change.after.round == round).map(|change| change.after.exclusive)
    }

    /// The stock of a coupon at the end of a round.
    pub(super) fn stock(&self, round: u32, code: &str) -> Option<Stock> {
        let end = self.changes.iter().rfind(|change| change.after.round == round)?;
        end.after.coupons.get(code).copied()
    }
}
