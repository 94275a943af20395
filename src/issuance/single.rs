//! What the strategies that issue one by one have in common: a lane for each order, the runs of the strategy, and the reason for a
//! refusal.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use tokio::sync::oneshot;

use super::runs::{RUNS_MAX, Runs};
use super::step::{Failure, Step};
use super::{
    Caller, IssueError, Parts, QUEUE_MAX, Strategy, Ticket, conditional, optimistic, pessimistic, redlock, unlocked,
};
use crate::coupons::Outcome;
use crate::metrics::Wait;
use crate::store::{Lane, Standing};

/// Issues one by one, as many at once as there are lanes for transactions.
pub(super) struct Single {
    parts: Arc<Parts>,
    waiting: AtomicUsize,
}

impl Single {
    pub(super) fn new(parts: Arc<Parts>) -> Self {
        Self { parts, waiting: AtomicUsize::new(0) }
    }

    /// Waits for a lane; a client that hangs up ends that. Then works in a task, which no client ends.
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
            let mut runs = parts.runs(&ticket);
            let settled = parts.run(&mut lane, &ticket, &caller, &mut runs).await;
            parts.reserve.took(runs.took());
            if let Err(IssueError::Unavailable(Some(error))) = &settled {
                tracing::warn!(error = &**error as &dyn std::error::Error, "an order failed");
            }
            // A caller that has left meanwhile finds the same answer when it asks again.
            let _ = caller.send(settled);
        });
        answer.await.unwrap_or(Err(IssueError::Unavailable(None)))
    }
}

/// A place among the orders that wait or are at work, given up when dropped.
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
        // Without a lane it has waited in vain for the exclusive right, where the strategy has one. With a lane it waits on.
        if !self.has_lane && !matches!(parts.strategy, Strategy::Unlocked | Strategy::Optimistic) {
            parts.lock.waited(Wait::Expired, self.entered);
        }
    }
}

impl Parts {
    /// As many runs as the strategy may need.
    fn runs(&self, ticket: &Ticket) -> Runs {
        let most = if self.strategy == Strategy::Optimistic { optimistic::RUNS_MAX } else { RUNS_MAX };
        Runs::new(most, ticket.due)
    }

    /// Runs a single-issue strategy until it decides.
    async fn run(
        &self,
        lane: &mut Lane,
        ticket: &Ticket,
        caller: &Caller,
        runs: &mut Runs,
    ) -> Result<Outcome, IssueError> {
        // Where memory expects a refusal, one read without a lock tells whether that is so, and why.
        if self.memory.refusal(&ticket.order.code).is_some()
            && let Some(outcome) = self.explain(lane, ticket).await?
        {
            return Ok(outcome);
        }
        while runs.is_left() {
            match self.step(lane, ticket, caller).await {
                Ok(Step::Issued(entry)) => return Ok(Outcome::Issued(entry)),
                Ok(Step::Refused) => {
                    if let Some(outcome) = self.explain(lane, ticket).await? {
                        return Ok(outcome);
                    }
                    runs.missed();
                }
                Ok(Step::Conflict) => runs.missed(),
                Err(Failure::Lock(error)) => return Err(error.into()),
                Err(Failure::Store(error)) => self.may_run_again(error, runs)?,
            }
            runs.pause().await;
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

    /// Finds out why an order was refused; `None` when there is no reason any more. Stock and holdings are of one moment: between two
    /// moments another request of the same user may get the last piece.
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
