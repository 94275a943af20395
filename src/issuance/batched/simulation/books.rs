//! The rows of the model database, and the rule of `issue_batch` on them as `migrations/0004_issue_batch.sql` has it. No time
//! passes here; [`super::server`] decides when a draft is made and when it counts.

use std::collections::{BTreeMap, HashMap, HashSet};

use super::Guard;
use crate::coupons::{Code, Entry, Order, Settlement, Timestamp, UserId};

/// The tables, committed rows only.
pub(super) struct Books {
    pub(super) round: u32,
    pub(super) generation: u64,
    pub(super) exclusive: bool,
    pub(super) coupons: BTreeMap<Code, Row>,
    /// Scope and entry, in the order of their commits.
    pub(super) wallet: Vec<(u16, Entry)>,
    /// What every commit left behind.
    pub(super) moments: Vec<Moment>,
    /// The guard that is taken away.
    pub(super) without: Option<Guard>,
}

/// A coupon's row.
#[derive(Clone, Debug)]
pub(super) struct Row {
    pub(super) id: u16,
    pub(super) total: u32,
    pub(super) remaining: u32,
    pub(super) next_serial: u32,
}

/// A coupon's row after a commit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Moment {
    pub(super) at_ms: u64,
    pub(super) code: Code,
    pub(super) round: u32,
    pub(super) remaining: u32,
}

/// A call as the server got it.
pub(super) struct Call {
    pub(super) round: u32,
    pub(super) code: Code,
    pub(super) orders: Vec<Order>,
}

/// What a transaction has written and not committed.
pub(super) struct Draft {
    pub(super) code: Code,
    pub(super) scope: u16,
    pub(super) entries: Vec<Entry>,
    pub(super) settlement: Settlement,
}

impl Books {
    pub(super) fn new(stock: &[u32], exclusive: bool, without: Option<Guard>) -> Self {
        let rows = stock.iter().zip(1..).map(|(&total, id)| {
            let code = Code::parse(&format!("C{id}")).unwrap();
            (code, Row { id, total, remaining: total, next_serial: 1 })
        });
        let coupons = rows.collect();
        let mut books = Self { round: 1, generation: 1, exclusive, coupons, wallet: vec![], moments: vec![], without };
        books.remember(0);
        books
    }

    pub(super) fn scope(&self, row: &Row) -> u16 {
        if self.exclusive { 0 } else { row.id }
    }

    /// What the call would write now.
    pub(super) fn draft(&self, call: &Call, now: Timestamp) -> Draft {
        let row = &self.coupons[&call.code];
        let mut draft = Draft {
            code: call.code.clone(),
            scope: self.scope(row),
            entries: vec![],
            settlement: Settlement {
                known: true,
                round: self.round,
                open: true,
                first_serial: row.next_serial,
                remaining: row.remaining,
                issued_at: Some(now),
                ..Settlement::default()
            },
        };
        if self.round == call.round && row.remaining > 0 {
            self.write(call, row.remaining, now, &mut draft);
        }
        draft
    }

    fn write(&self, call: &Call, remaining: u32, now: Timestamp, draft: &mut Draft) {
        let most = remaining as usize;
        let mut winners: Vec<&Order> = call.orders.iter().take(most).collect();
        let mut seen = HashSet::new();
        let mut is_new = |order: &Order| {
            seen.insert(order.user.clone()) && self.entry(self.round, draft.scope, &order.user).is_none()
        };
        draft.settlement.repaired = self.without != Some(Guard::UserKey) && !winners.iter().all(|order| is_new(order));
        if draft.settlement.repaired {
            seen.clear();
            let mut is_new = |order: &&Order| {
                seen.insert(order.user.clone()) && self.entry(self.round, draft.scope, &order.user).is_none()
            };
            winners = call.orders.iter().filter(|order| is_new(order)).take(most).collect();
        }
        let serials = draft.settlement.first_serial..;
        draft.entries = winners
            .into_iter()
            .zip(serials)
            .map(|(order, serial)| Entry {
                code: call.code.clone(),
                user_id: order.user.clone(),
                serial: Some(serial),
                round: self.round,
                request_id: order.request,
                issued_at: now,
            })
            .collect();
        draft.settlement.issued = u32::try_from(draft.entries.len()).unwrap();
        draft.settlement.remaining -= draft.settlement.issued;
    }

    /// Makes a draft count.
    pub(super) fn commit(&mut self, draft: &Draft, at_ms: u64) {
        let row = self.coupons.get_mut(&draft.code).unwrap();
        // Without the row lock the stock may be gone: then nothing stops the draft, as nothing stopped it from being made.
        row.remaining = row.remaining.saturating_sub(draft.settlement.issued);
        row.next_serial += draft.settlement.issued;
        self.wallet.extend(draft.entries.iter().map(|entry| (draft.scope, entry.clone())));
        self.remember(at_ms);
    }

    /// The second result set: it is read after the commit.
    pub(super) fn second_result(&self, call: &Call, draft: &Draft) -> HashMap<UserId, Entry> {
        let all = usize::try_from(draft.settlement.issued).unwrap() == call.orders.len();
        if draft.settlement.round != call.round || (all && !draft.settlement.repaired) {
            return HashMap::new();
        }
        self.held(draft.settlement.round, draft.scope, &call.orders)
    }

    pub(super) fn held(&self, round: u32, scope: u16, orders: &[Order]) -> HashMap<UserId, Entry> {
        let held = orders.iter().filter_map(|order| self.entry(round, scope, &order.user));
        held.map(|entry| (entry.user_id.clone(), entry.clone())).collect()
    }

    fn entry(&self, round: u32, scope: u16, user: &UserId) -> Option<&Entry> {
        let mut entries = self.wallet.iter();
        let found = entries.find(|(of, entry)| *of == scope && entry.round == round && entry.user_id == *user);
        found.map(|(_, entry)| entry)
    }

    /// More pieces of the first code.
    pub(super) fn top_up(&mut self, pieces: u32, at_ms: u64) {
        let row = self.coupons.values_mut().next().unwrap();
        row.total += pieces;
        row.remaining += pieces;
        self.generation += 1;
        self.remember(at_ms);
    }

    /// A new round.
    pub(super) fn reset(&mut self, at_ms: u64) {
        for row in self.coupons.values_mut() {
            row.remaining = row.total;
            row.next_serial = 1;
        }
        self.round += 1;
        self.generation += 1;
        self.remember(at_ms);
    }

    fn remember(&mut self, at_ms: u64) {
        let round = self.round;
        let now = self.coupons.iter().map(|(code, row)| Moment {
            at_ms,
            code: code.clone(),
            round,
            remaining: row.remaining,
        });
        self.moments.extend(now);
    }
}
