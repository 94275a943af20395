//! The orders that wait, by code. A code has a queue as long as a task attends to it, and never two tasks.

use std::collections::HashMap;

use parking_lot::Mutex;
use tokio::time::Instant;

use crate::coupons::{Code, Outcome};
use crate::issuance::{Caller, IssueError, QUEUE_MAX, Ticket};
use crate::metrics::{IssueMetrics, LockMetrics, Wait};
use crate::store::fitting;

/// What an order is told.
pub(super) type Answer = Result<Outcome, IssueError>;

/// An order and the caller that waits for its answer.
pub(super) struct Waiting {
    pub(super) ticket: Ticket,
    pub(super) caller: Caller,
}

impl Waiting {
    /// Answers the caller. A client that has hung up meanwhile gets the same answer when it asks again.
    pub(super) fn answer(self, answer: Answer) {
        let _ = self.caller.send(answer);
    }

    fn is_gone(&self) -> bool {
        self.caller.is_closed()
    }
}

/// The queues of all codes.
pub(super) struct Queues {
    by_code: Mutex<HashMap<Code, Vec<Waiting>>>,
    issue: IssueMetrics,
    lock: LockMetrics,
}

impl Queues {
    pub(super) fn new(issue: IssueMetrics, lock: LockMetrics) -> Self {
        Self { by_code: Mutex::default(), issue, lock }
    }

    /// Adds an order. Returns whether its queue is new and needs a task that attends to it.
    pub(super) fn push(&self, order: Waiting) -> Result<bool, IssueError> {
        let mut queues = self.by_code.lock();
        let code = &order.ticket.order.code;
        let Some(queue) = queues.get_mut(code) else {
            queues.insert(code.clone(), vec![order]);
            self.issue.queued(1);
            return Ok(true);
        };
        if queue.len() >= QUEUE_MAX {
            self.issue.shed();
            return Err(IssueError::Busy);
        }
        queue.push(order);
        self.issue.queued(1);
        Ok(false)
    }

    /// Whether an order for `code` still waits. If not, the queue goes, and the task that asked must end.
    pub(super) fn is_wanted(&self, code: &Code) -> bool {
        let mut queues = self.by_code.lock();
        let Some(queue) = queues.get_mut(code) else { return false };
        let before = queue.len();
        queue.retain(|order| {
            if order.is_gone() {
                self.lock.waited(Wait::Expired, order.ticket.entered);
            }
            !order.is_gone()
        });
        let wanted = !queue.is_empty();
        self.left(before - queue.len());
        if !wanted {
            queues.remove(code);
        }
        wanted
    }

    /// Whether a caller for `code` still waits.
    pub(super) fn has_waiting(&self, code: &Code) -> bool {
        self.by_code.lock().get(code).is_some_and(|queue| queue.iter().any(|order| !order.is_gone()))
    }

    /// Takes the next batch out of the queue: the earliest arrivals, as many as fit into one call. An order whose caller will have left by
    /// `end` is told "busy" instead.
    pub(super) fn close(&self, code: &Code, end: Instant) -> Vec<Waiting> {
        let mut queues = self.by_code.lock();
        let Some(queue) = queues.get_mut(code) else { return Vec::new() };
        let mut batch = std::mem::take(queue);
        let before = batch.len();
        for late in batch.extract_if(.., |order| order.is_gone() || order.ticket.due < end) {
            self.lock.waited(Wait::Expired, late.ticket.entered);
            late.answer(Err(IssueError::Busy));
        }
        // Stable: equal stamps keep their place in the queue. An order without a stamp did not come through nginx, and must not
        // gain by that: it comes last.
        batch.sort_by_key(|order| order.ticket.order.arrived_ms.unwrap_or(u64::MAX));
        *queue = batch.split_off(fitting(batch.iter().map(|order| &order.ticket.order)));
        self.left(before - queue.len());
        batch
    }

    /// Drops a queue with all that wait in it.
    fn drop_all(&self, code: &Code) {
        if let Some(queue) = self.by_code.lock().remove(code) {
            self.left(queue.len());
        }
    }

    fn left(&self, orders: usize) {
        self.issue.queued(-i64::try_from(orders).unwrap_or(i64::MAX));
    }
}

/// A task at work on a queue. If it panics the queue goes with it, so that the next order starts another task.
pub(super) struct Attendance<'a> {
    pub(super) queues: &'a Queues,
    pub(super) code: &'a Code,
}

impl Drop for Attendance<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.queues.drop_all(self.code);
        }
    }
}
