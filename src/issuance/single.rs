//! What the strategies share that issue one by one: a turn at a connection, the runs, the last two statements, and the reason
//! for a refusal.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use tokio::sync::oneshot;

use super::{
    Caller, IssueError, Parts, QUEUE_MAX, RUNS_MAX, Strategy, Ticket, conditional, optimistic, pause, pessimistic,
    redlock, unlocked,
};
use crate::coupons::{Entry, Outcome, Timestamp};
use crate::lock::LockError;
use crate::metrics::Wait;
use crate::store::{Inserted, Lane, LockedCoupon, Standing, StoreError, Tx};

/// Issues one by one, as many at once as there are lanes for transactions.
pub(super) struct Single {
    parts: Arc<Parts>,
    waiting: AtomicUsize,
}

impl Single {
    pub(super) fn new(parts: Arc<Parts>) -> Self {
        Self { parts, waiting: AtomicUsize::new(0) }
    }

    /// Waits for a lane, which a client may leave, and then works in a task, which it may not.
    pub(super) async fn issue(&self, ticket: Ticket) -> Result<Outcome, IssueError> {
        let mut place = Place::take(self, ticket.entered)?;
        let queued = Instant::now();
        let mut lane = self.parts.store.transactions.free().await;
        self.parts.issue.pool_wait(queued);
        if ticket.due < self.parts.reserve.end() {
            return Err(IssueError::Busy);
        }
        place.has_lane = true;
        let parts = Arc::clone(&self.parts);
        let (caller, answer) = oneshot::channel();
        self.parts.tasks.spawn(async move {
            let started = Instant::now();
            let settled = parts.run(&mut lane, &ticket, &caller).await;
            parts.reserve.took(started.elapsed());
            // A caller who has left meanwhile finds the same answer when he asks again.
            let _ = caller.send(settled);
        });
        answer.await.unwrap_or(Err(IssueError::Unavailable(None)))
    }
}

/// A place among those who wait or are at work, given up when dropped.
struct Place<'a> {
    single: &'a Single,
    entered: Instant,
    has_lane: bool,
}

impl<'a> Place<'a> {
    fn take(single: &'a Single, entered: Instant) -> Result<Self, IssueError> {
        if single.waiting.fetch_add(1, Ordering::Relaxed) >= QUEUE_MAX {
            single.waiting.fetch_sub(1, Ordering::Relaxed);
            single.parts.issue.shed();
            return Err(IssueError::Busy);
        }
        single.parts.issue.queued(1);
        Ok(Self { single, entered, has_lane: false })
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let parts = &self.single.parts;
        self.single.waiting.fetch_sub(1, Ordering::Relaxed);
        parts.issue.queued(-1);
        // Who has a lane waits on for the exclusive right, where the strategy has one.
        if !self.has_lane && !matches!(parts.strategy, Strategy::Unlocked | Strategy::Optimistic) {
            parts.lock.waited(Wait::Expired, self.entered);
        }
    }
}

/// What one run of a single-issue strategy came to.
pub(super) enum Step {
    /// It was issued.
    Issued(Entry),
    /// Nothing was written; [`Parts::explain`] finds out why.
    Refused,
    /// Somebody else was faster; run it again.
    Conflict,
}

/// What an order has won before its row is written.
pub(super) struct Won {
    pub(super) serial: Option<u32>,
    pub(super) issued_at: Timestamp,
}

/// Why a run failed.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Lock(#[from] LockError),
}

/// Whether a coupon row that was read allows an issue in the ticket's round.
pub(super) fn issuable(coupon: Option<LockedCoupon>, ticket: &Ticket) -> Option<LockedCoupon> {
    coupon.filter(|coupon| coupon.round == ticket.round && coupon.open && coupon.remaining > 0)
}

impl Parts {
    /// Runs a single-issue strategy until it decides.
    async fn run(&self, lane: &mut Lane, ticket: &Ticket, caller: &Caller) -> Result<Outcome, IssueError> {
        // Where memory expects a refusal, one read without a lock gives the reason for it, or against it.
        if self.memory.refusal(&ticket.order.code).is_some()
            && let Some(outcome) = self.explain(lane, ticket).await?
        {
            return Ok(outcome);
        }
        let runs = if self.strategy == Strategy::Optimistic { optimistic::RUNS_MAX } else { RUNS_MAX };
        for run in 1..=runs {
            match self.step(lane, ticket, caller).await {
                Ok(Step::Issued(entry)) => return Ok(Outcome::Issued(entry)),
                Ok(Step::Refused) => {
                    if let Some(outcome) = self.explain(lane, ticket).await? {
                        return Ok(outcome);
                    }
                }
                Ok(Step::Conflict) => {}
                Err(Failure::Lock(error)) => return Err(error.into()),
                Err(Failure::Store(error)) => self.may_run_again(error, run == runs)?,
            }
            pause(run).await;
        }
        Err(IssueError::Busy)
    }

    async fn step(&self, lane: &mut Lane, ticket: &Ticket, caller: &Caller) -> Result<Step, Failure> {
        match self.strategy {
            Strategy::Unlocked => unlocked::issue(self, lane, ticket).await,
            Strategy::Conditional => conditional::issue(self, lane, ticket).await,
            Strategy::Optimistic => optimistic::issue(self, lane, ticket).await,
            Strategy::Pessimistic => pessimistic::issue(self, lane, ticket).await,
            Strategy::Redlock => redlock::issue(self, lane, ticket, caller).await,
            Strategy::Batched => unreachable!("the batch has its own way"),
        }
    }

    /// The last two statements of every single-issue strategy: insert the child after its parent, commit.
    pub(super) async fn finish(&self, mut tx: Tx<'_>, ticket: &Ticket, won: Won) -> Result<Step, Failure> {
        if tx.insert(&ticket.order, won.serial, won.issued_at).await? == Inserted::Duplicate {
            tx.roll_back().await?;
            return Ok(Step::Refused);
        }
        let started = tx.started();
        tx.commit().await?;
        self.issue.transaction(started);
        Ok(Step::Issued(Entry {
            code: ticket.order.code.clone(),
            user_id: ticket.order.user.clone(),
            serial: won.serial,
            round: ticket.round,
            request_id: ticket.order.request,
            issued_at: won.issued_at,
        }))
    }

    /// Finds out why an order was refused; `None` when there is no reason any more. Stock and holdings are of one moment: between
    /// two of them another request of the same user may get the last piece.
    async fn explain(&self, lane: &mut Lane, ticket: &Ticket) -> Result<Option<Outcome>, IssueError> {
        let Some(Standing { coupon, held }) = lane.standing(&ticket.order).await? else {
            return Ok(Some(Outcome::UnknownCoupon));
        };
        if coupon.round != ticket.round {
            self.memory.poke();
            return Err(IssueError::Busy);
        }
        match held {
            Some(entry) => Ok(Some(entry.answer(&ticket.order))),
            None if !coupon.open => Ok(Some(Outcome::NotOpen(coupon.opens_in))),
            None if coupon.remaining == 0 => {
                self.memory.poke();
                Ok(Some(Outcome::SoldOut))
            }
            None => Ok(None),
        }
    }
}
