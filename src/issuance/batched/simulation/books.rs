//! The rows of the model database, and the rule of `issue_batch` on them as `migrations/0004_issue_batch.sql` has it. No time
//! passes here; [`super::server`] decides when a draft is made and when it counts.

use std::collections::{BTreeMap, HashMap, HashSet};

use super::Guard;
use super::plan::ChangeKind;
use crate::coupons::{Code, Entry, Order, Settlement, Timestamp, UserId};

/// The tables, committed rows only.
pub(super) struct Books {
    pub(super) round: u32,
    pub(super) generation: u64,
    pub(super) exclusive: bool,
    /// The rule from the next round on.
    exclusive_next: bool,
    /// Whether the event's window is open.
    pub(super) open: bool,
    pub(super) coupons: BTreeMap<Code, Row>,
    /// Scope and entry, in the order of their commits.
    pub(super) wallet: Vec<(u16, Entry)>,
    /// When each row of the wallet was committed, by round, scope and user.
    pub(super) committed: HashMap<(u32, u16, UserId), u64>,
    /// What every commit left behind.
    pub(super) moments: Vec<Moment>,
    /// When an administrator's changes were committed.
    pub(super) changes: Vec<u64>,
    /// The last total of each code in each round.
    pub(super) totals: BTreeMap<(u32, Code), u32>,
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
    pub(super) scope: u16,
    pub(super) remaining: u32,
    pub(super) open: bool,
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
        let mut books = Self {
            round: 1,
            generation: 1,
            exclusive,
            exclusive_next: exclusive,
            open: true,
            coupons,
            wallet: vec![],
            committed: HashMap::new(),
            moments: vec![],
            changes: vec![],
            totals: BTreeMap::new(),
            without,
        };
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
                open: self.open,
                first_serial: row.next_serial,
                remaining: row.remaining,
                issued_at: Some(now),
                ..Settlement::default()
            },
        };
        if self.round == call.round && self.open && row.remaining > 0 {
            self.write(call, row.remaining, now, &mut draft);
        }
        draft
    }

    fn write(&self, call: &Call, remaining: u32, now: Timestamp, draft: &mut Draft) {
        let most = remaining as usize;
        let mut winners: Vec<&Order> = call.orders.iter().take(most).collect();
        let scope = draft.scope;
        let is_new = |order: &Order, seen: &mut HashSet<UserId>| {
            seen.insert(order.user.clone()) && self.entry(self.round, scope, &order.user).is_none()
        };
        let mut seen = HashSet::new();
        let are_new = winners.iter().all(|order| is_new(order, &mut seen));
        draft.settlement.repaired = self.without != Some(Guard::UserKey) && !are_new;
        if draft.settlement.repaired {
            seen.clear();
            winners = call.orders.iter().filter(|order| is_new(order, &mut seen)).take(most).collect();
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
        for entry in &draft.entries {
            self.wallet.push((draft.scope, entry.clone()));
            self.committed.insert((entry.round, draft.scope, entry.user_id.clone()), at_ms);
        }
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

    /// What an administrator does, or a person by hand.
    pub(super) fn change(&mut self, kind: ChangeKind, at_ms: u64) {
        let first = self.coupons.values_mut().next().unwrap();
        match kind {
            ChangeKind::TopUp(pieces) | ChangeKind::ByHand(pieces) => {
                first.total += pieces;
                first.remaining += pieces;
            }
            ChangeKind::Reduce(pieces) => {
                let taken = pieces.min(first.remaining);
                first.total -= taken;
                first.remaining -= taken;
            }
            ChangeKind::Open(open) => self.open = open,
            ChangeKind::Exclusive(exclusive) => self.exclusive_next = exclusive,
            ChangeKind::Reset => self.reset(),
        }
        self.generation += u64::from(!matches!(kind, ChangeKind::ByHand(_)));
        self.changes.push(at_ms);
        self.remember(at_ms);
    }

    fn reset(&mut self) {
        for row in self.coupons.values_mut() {
            row.remaining = row.total;
            row.next_serial = 1;
        }
        self.round += 1;
        self.exclusive = self.exclusive_next;
    }

    fn remember(&mut self, at_ms: u64) {
        for (code, row) in &self.coupons {
            let (scope, remaining) = (self.scope(row), row.remaining);
            self.totals.insert((self.round, code.clone()), row.total);
            let (code, round, open) = (code.clone(), self.round, self.open);
            self.moments.push(Moment { at_ms, code, round, scope, remaining, open });
        }
    }
}
