//! One Redlock and one call for all that wait. The default.
//!
//! Orders gather in a queue per code. The first one starts a task that attends to the queue (`attend`): it takes a lane and the lock.
//! When the lock is granted the batch closes, so that orders which came meanwhile are in it, and one `CALL issue_batch` settles it
//! (`settle`). Then the lease goes back and the answers go out; or, while no waiter wants a lock, the lease stays, and the next batch
//! follows under it (`work_off`). Where memory expects a refusal, one read without the lock answers as many as a call could carry instead
//! (`refuse`). The task ends when its queue is empty.
//!
//! Round trips: 1 to MySQL and 2 to Redis (lock, unlock) per batch, and 1 for the wake-up, to one Redis node. Under a lease that stays 1 to
//! one node, which asks whether it may, is instead of all these to Redis. 2 more for every attempt at a lock that another replica holds. So
//! many codes with few orders each are dearer than one with many.

mod queue;
#[cfg(test)]
mod simulation;

use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::FutureExt;
use tokio::sync::{Semaphore, oneshot};

use self::queue::{Answer, Attendance, Queues, Waiting};
use super::locking::Locking;
use super::runs::{RUNS_MAX, Runs};
use super::{IssueError, OnLockLoss, Parts, Ticket};
use crate::coupons::{Code, Order};
use crate::lock::{LockError, Locks};
use crate::memory::Refusal;
use crate::metrics::{Bypass, Wait};
use crate::store::{Calls, Database, Store, StoreError};

/// Longest wait of the answers: of a large batch for the release, of any batch for the question whether the lease may stay.
const LOCK_LEAD: Duration = Duration::from_millis(2);

/// A batch up to this size is answered while its release is under way: so few answers delay no wake-up, and one user alone is
/// answered 0.2 ms sooner.
const FEW: usize = 16;

/// Pause after a batch that the database could not settle, so that a failing database is not asked without end.
const FAILURE_PAUSE: Duration = Duration::from_millis(50);

/// So many batches of a replica are at the database at once. More would not settle more orders: they would be smaller batches, and each
/// costs what a large one costs.
const SLOTS: usize = 2;

/// Longest wait for a slot. A batch that takes longer stands at a row that is locked, and is no reason for other codes to wait.
const SLOT_PATIENCE: Duration = Duration::from_millis(50);

/// The queues of all codes. The codes share the lanes: where there are fewer lanes than codes, they take turns.
pub(super) struct Batched<D: Database = Store, L = Arc<Locks>> {
    parts: Arc<Parts<D, L>>,
    queues: Queues,
    slots: Semaphore,
}

/// What all orders of a batch have in common.
struct Terms {
    code: Code,
    round: u32,
    /// When the last of their callers stops waiting.
    due: tokio::time::Instant,
}

impl Terms {
    /// `None` of a batch without orders.
    fn of(batch: &[Waiting]) -> Option<Self> {
        let Ticket { order, round, .. } = &batch.first()?.ticket;
        let due = batch.iter().map(|order| order.ticket.due).max()?;
        Some(Self { code: order.code.clone(), round: *round, due })
    }
}

/// A batch that is settled and not answered yet.
struct Settled(Vec<(Waiting, Answer)>);

impl Settled {
    /// Whether the database could settle none of it.
    fn has_failed(&self) -> bool {
        !self.0.is_empty() && self.0.iter().all(|(_, answer)| matches!(answer, Err(IssueError::Unavailable(_))))
    }

    fn answer(self) {
        for (order, answer) in self.0 {
            order.answer(answer);
        }
    }
}

impl<D: Database, L: Locking> Batched<D, L> {
    pub(super) fn new(parts: Arc<Parts<D, L>>) -> Arc<Self> {
        let queues = Queues::new(parts.issue.clone(), parts.lock.clone());
        Arc::new(Self { parts, queues, slots: Semaphore::new(SLOTS) })
    }

    /// Queues the order and waits for its answer.
    pub(super) async fn issue(self: &Arc<Self>, ticket: Ticket) -> Answer {
        let (caller, answer) = oneshot::channel();
        let code = ticket.order.code.clone();
        if self.queues.push(Waiting { ticket, caller })? {
            let batched = Arc::clone(self);
            self.parts.tasks.spawn(async move { batched.attend(&code).await });
        }
        answer.await.unwrap_or(Err(IssueError::Unavailable(None)))
    }

    /// Serves the queue of `code` until no order waits in it.
    async fn attend(&self, code: &Code) {
        let _attendance = Attendance { queues: &self.queues, code };
        while self.queues.is_wanted(code) {
            let mut lane = self.parts.store.lane().await;
            if !lane.is_ready().await {
                continue;
            }
            if self.parts.memory.refusal(code).is_some() {
                self.refuse(code, &mut lane).await;
                continue;
            }
            match self.lock_or_bypass(code).await {
                Ok(lease) => self.work_off(lease, code, &mut lane).await,
                Err(LockError::Abandoned) => {}
                Err(LockError::QuorumGone | LockError::NotGranted) => {
                    answer_all(self.close(code), &IssueError::Unavailable(None));
                }
            }
        }
    }

    /// Takes the lock. Without a lease, where the lock cannot be had and need not, the row lock alone makes a batch exclusive.
    async fn lock_or_bypass(&self, code: &Code) -> Result<Option<L::Lease>, LockError> {
        let acquired = self.parts.locks.acquire(code.as_str(), || self.queues.has_waiting(code)).await;
        let reason = match acquired {
            Err(LockError::QuorumGone) => Bypass::NoQuorum,
            Err(LockError::NotGranted) => Bypass::NoGrant,
            decided => return decided.map(Some),
        };
        if self.parts.on_lock_loss == OnLockLoss::Refuse {
            return acquired.map(Some);
        }
        self.parts.lock.bypassed(reason);
        Ok(None)
    }

    /// Settles one batch, and another one under the same lease as long as that one stays.
    async fn work_off(&self, lease: Option<L::Lease>, code: &Code, lane: &mut D::Lane) {
        loop {
            let settled = self.settle(code, lane).await;
            let failed = settled.has_failed();
            if let Some(lease) = &lease
                && !failed
                && self.stays(lease, code).await
            {
                settled.answer();
                continue;
            }
            match lease {
                Some(lease) => self.release_and_answer(lease, settled).await,
                None => settled.answer(),
            }
            if failed {
                tokio::time::sleep(FAILURE_PAUSE).await;
            }
            return;
        }
    }

    /// Whether the next batch follows under the same lease: orders wait, their code can be had, a lane is free for other codes, and no
    /// waiter wants a lock. A hung lock node does not hold up the answers.
    async fn stays(&self, lease: &L::Lease, code: &Code) -> bool {
        let goes_on = self.queues.has_waiting(code)
            && self.parts.memory.refusal(code).is_none()
            && !self.parts.store.lanes_are_lent();
        goes_on && tokio::time::timeout(LOCK_LEAD, self.parts.locks.may_stay(lease)).await.unwrap_or(false)
    }

    /// Closes a batch when there is room for it, and settles it. One whose data the database refuses is split until the bad order stands
    /// alone.
    async fn settle(&self, code: &Code, lane: &mut D::Lane) -> Settled {
        let _slot = tokio::time::timeout(SLOT_PATIENCE, self.slots.acquire()).await;
        let mut batch = self.close(code);
        if let Some(round) = self.parts.memory.round() {
            send_away_others(&mut batch, round);
        }
        let Some(terms) = Terms::of(&batch) else { return Settled(Vec::new()) };
        for order in &batch {
            self.parts.waited(Wait::Granted, &order.ticket);
        }
        let orders: Vec<Order> = batch.iter().map(|order| order.ticket.order.clone()).collect();
        let mut took = Duration::ZERO;
        let (mut parts, mut answers) = (vec![&orders[..]], Vec::with_capacity(orders.len()));
        while let Some(part) = parts.pop() {
            let mut runs = Runs::new(RUNS_MAX, terms.due);
            let called = self.call(lane, &terms, part, &mut runs).await;
            took += runs.took();
            match called {
                Ok(settled) => answers.extend(settled),
                Err(StoreError::Rejected(_)) if part.len() > 1 => {
                    let (first, second) = part.split_at(part.len() / 2);
                    parts.extend([second, first]);
                }
                Err(error) => {
                    tracing::error!(error = &error as &dyn std::error::Error, orders = part.len(), "a batch failed");
                    answers.extend(failures(part, &error.into()));
                }
            }
        }
        self.parts.reserve.took(took);
        Settled(batch.into_iter().zip(answers).collect())
    }

    /// Gives the lease a moment's lead over the answers: a runtime of one thread would otherwise serialise a whole batch of
    /// answers before it sends the wake-up for which another replica waits. A hung lock node does not hold up the answers.
    async fn release_and_answer(&self, lease: L::Lease, settled: Settled) {
        let mut release = pin!(self.parts.locks.hand_over(lease));
        let released = if settled.0.len() > FEW {
            tokio::time::timeout(LOCK_LEAD, &mut release).await.is_ok()
        } else {
            // Polled once, so that it is on its way before the answers: a timer of zero ends at the next millisecond.
            release.as_mut().now_or_never().is_some()
        };
        settled.answer();
        if !released {
            release.await;
        }
    }

    /// The next batch: the orders of callers that will still be there when it is settled.
    fn close(&self, code: &Code) -> Vec<Waiting> {
        self.queues.close(code, self.parts.reserve.end())
    }

    /// Makes the call, and again where the database may answer then. The same orders again are safe: a user that got a piece in a run of
    /// which the outcome is unknown is found to hold it.
    async fn call(
        &self,
        lane: &mut D::Lane,
        &Terms { ref code, round, .. }: &Terms,
        orders: &[Order],
        runs: &mut Runs,
    ) -> Result<Vec<Answer>, StoreError> {
        let settlement = loop {
            let started = Instant::now();
            match lane.issue_batch(round, code, orders).await {
                Ok(settlement) => {
                    self.parts.issue.batch(orders.len());
                    self.parts.issue.transaction(started);
                    break settlement;
                }
                Err(error) => self.parts.may_run_again(error, runs)?,
            }
            runs.pause().await;
        };
        if settlement.known && settlement.round != round {
            self.parts.memory.poke();
            return Ok(failures(orders, &IssueError::Busy).collect());
        }
        if settlement.remaining == 0 {
            self.parts.memory.poke();
        }
        Ok(settlement.outcomes(orders).into_iter().map(|outcome| outcome.ok_or(IssueError::Busy)).collect())
    }

    /// Answers all orders that wait for a code of which nothing can be had: one read tells which of their users hold something already.
    /// The refusal is memory's and the holdings are the database's: joined, they are an answer only about one round.
    async fn refuse(&self, code: &Code, lane: &mut D::Lane) {
        let mut batch = self.close(code);
        // Asked once more, so that the refusal is no older than any of these orders.
        let Some(Refusal { round, outcome }) = self.parts.memory.refusal(code) else {
            return answer_all(batch, &IssueError::Busy);
        };
        send_away_others(&mut batch, round);
        if batch.is_empty() {
            return;
        }
        let orders: Vec<Order> = batch.iter().map(|order| order.ticket.order.clone()).collect();
        match lane.held(code, &orders).await {
            Ok(held) if held.round == round => {
                for order in batch {
                    let entry = held.entries.get(&order.ticket.order.user).cloned();
                    let answer = entry.map_or_else(|| outcome.clone(), |entry| entry.answer(&order.ticket.order));
                    order.answer(Ok(answer));
                }
            }
            Ok(_) => {
                self.parts.memory.poke();
                answer_all(batch, &IssueError::Busy);
            }
            Err(error) => {
                tracing::error!(error = &error as &dyn std::error::Error, orders = batch.len(), "a refusal failed");
                answer_all(batch, &error.into());
                tokio::time::sleep(FAILURE_PAUSE).await;
            }
        }
    }
}

/// Sends away the orders that were made in another round.
fn send_away_others(batch: &mut Vec<Waiting>, round: u32) {
    answer_all(batch.extract_if(.., |order| order.ticket.round != round), &IssueError::Busy);
}

fn answer_all(orders: impl IntoIterator<Item = Waiting>, error: &IssueError) {
    for order in orders {
        order.answer(Err(error.clone()));
    }
}

/// The same error for each of the orders.
fn failures(orders: &[Order], error: &IssueError) -> impl Iterator<Item = Answer> {
    orders.iter().map(|_| Err(error.clone()))
}
