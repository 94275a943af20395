//! One Redlock and one call for all that wait. The default.
//!
//! Orders gather in a queue per code. The first one starts a task that takes the lock; when the lock is granted the batch
//! closes, so whoever arrived meanwhile is in it. One `CALL issue_batch` settles it; the lease goes back and the answers
//! go out. While nobody else wants a lock the next batch follows under the same lease. A task ends when its queue is empty.
//!
//! Measured by `make bench` with three replicas and 200 connections (docs/EXPERIMENTS.md): 18,100 issues a second, 0.46 of trivial
//! answers, p99 18 ms; with 1,000 connections 23,300, 0.67 and 68 ms; one user alone waits 1.2 ms. An order costs MySQL 11 µs and the replicas
//! 23 µs; a batch costs them 500 and 210 µs more, and Redis 100 µs: so many codes with few orders each are dearer than one with many.

mod queue;
#[cfg(test)]
mod simulation;

use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::FutureExt;
use tokio::sync::oneshot;

use self::queue::{Answer, Attendance, Queues, Waiting};
use super::outside::{Calls, Database, Locking};
use super::{IssueError, OnLockLoss, Parts, RUNS_MAX, Ticket, pause};
use crate::coupons::{Code, Order};
use crate::lock::{LockError, Locks, Patience};
use crate::memory::Refusal;
use crate::metrics::Bypass;
use crate::store::{Store, StoreError};

/// How long the answers of a large batch wait for the release at most, and those of any batch for the question whether the lease
/// may stay.
const LOCK_LEAD: Duration = Duration::from_millis(2);

/// A batch up to this size is answered while its release is under way: so few answers delay no wake-up, and one user alone is
/// answered 0.2 ms sooner.
const FEW: usize = 16;

/// Pause after a batch that the database could not settle, so that a failing database is not asked without end.
const FAILURE_PAUSE: Duration = Duration::from_millis(50);

/// The queues of all codes. Their connections are shared: more codes than there are lanes take turns.
pub(super) struct Batched<D: Database = Store, L = Arc<Locks>> {
    parts: Arc<Parts<D, L>>,
    queues: Queues,
}

/// The right to settle a batch now.
enum Right<T> {
    Leased(T),
    /// The lock cannot be had; the row lock alone makes it exclusive.
    Bypassed,
}

/// A batch that is settled and not answered yet.
struct Settled(Vec<(Waiting, Answer)>);

impl Settled {
    /// Whether the database could not settle any of it.
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
        Arc::new(Self { parts, queues })
    }

    /// Connects the lane that the next batch will take.
    pub(super) async fn warm(&self) {
        if let Err(error) = self.parts.store.lane().await.connect().await {
            tracing::warn!(error = &error as &dyn std::error::Error, "cannot connect to the database yet");
        }
    }

    /// Queues the order and waits for its answer. Round trips: 1 to MySQL and 2 to Redis (lock, unlock) per batch, one more
    /// to one Redis node for the wake-up (to each where others may sleep, when replicas reach different ones). Where orders
    /// wait and the last release woke nobody, 1 to the first node asks whether the lease may stay; if so, none of the others
    /// to Redis are needed. 2 more for every attempt at a lock that another replica holds.
    pub(super) async fn issue(self: &Arc<Self>, ticket: Ticket) -> Answer {
        let (caller, answer) = oneshot::channel();
        let code = ticket.order.code.clone();
        if self.queues.push(Waiting { ticket, caller })? {
            let batched = Arc::clone(self);
            self.parts.tasks.spawn(async move { batched.attend(&code).await });
        }
        answer.await.unwrap_or(Err(IssueError::Unavailable(None)))
    }

    /// Settles batch after batch until nobody waits for `code`.
    async fn attend(&self, code: &Code) {
        let _attendance = Attendance { queues: &self.queues, code };
        while self.queues.is_wanted(code) {
            let mut lane = self.parts.store.lane().await;
            self.take_turn(code, &mut lane).await;
        }
    }

    /// The right, the close, the call, the answers.
    async fn take_turn(&self, code: &Code, lane: &mut D::Lane) {
        if self.parts.memory.refusal(code).is_some() {
            return self.refuse(code, lane).await;
        }
        match self.right(code).await {
            Ok(right) => self.settle_under(right, code, lane).await,
            Err(LockError::Abandoned) => {}
            Err(LockError::QuorumGone | LockError::NotGranted) => {
                answer_all(self.close(code), &IssueError::Unavailable(None));
            }
        }
    }

    async fn right(&self, code: &Code) -> Result<Right<L::Lease>, LockError> {
        let acquired = self.parts.locks.acquire(code.as_str(), Patience::Wake, || self.queues.has_waiting(code)).await;
        let reason = match acquired {
            Ok(lease) => return Ok(Right::Leased(lease)),
            Err(LockError::QuorumGone) => Bypass::NoQuorum,
            Err(LockError::NotGranted) => Bypass::NoGrant,
            Err(LockError::Abandoned) => return Err(LockError::Abandoned),
        };
        if self.parts.on_lock_loss == OnLockLoss::Refuse {
            return acquired.map(Right::Leased);
        }
        self.parts.lock.bypassed(reason);
        Ok(Right::Bypassed)
    }

    /// One batch, and another one as long as nobody else wants a lock.
    async fn settle_under(&self, right: Right<L::Lease>, code: &Code, lane: &mut D::Lane) {
        loop {
            let settled = self.settle_batch(code, lane).await;
            let failed = settled.has_failed();
            if !failed && self.stays(&right, code).await {
                settled.answer();
                continue;
            }
            match right {
                Right::Leased(lease) => self.release_and_answer(lease, settled).await,
                Right::Bypassed => settled.answer(),
            }
            if failed {
                tokio::time::sleep(FAILURE_PAUSE).await;
            }
            return;
        }
    }

    /// Whether the next batch follows under the same lease: somebody waits for a code of which something can be had, no other code
    /// waits for this lane, and nobody else wants a lock. A hung lock node does not keep the answers.
    async fn stays(&self, right: &Right<L::Lease>, code: &Code) -> bool {
        let Right::Leased(lease) = right else { return false };
        let goes_on = self.queues.has_waiting(code)
            && self.parts.memory.refusal(code).is_none()
            && !self.parts.store.lanes_are_lent();
        goes_on && tokio::time::timeout(LOCK_LEAD, self.parts.locks.may_stay(lease)).await.unwrap_or(false)
    }

    /// Closes a batch and calls for it.
    async fn settle_batch(&self, code: &Code, lane: &mut D::Lane) -> Settled {
        let mut batch = self.close(code);
        if let Some(round) = self.parts.memory.round() {
            send_away_others(&mut batch, round);
        }
        for order in &batch {
            self.parts.granted(&order.ticket);
        }
        let orders: Vec<Order> = batch.iter().map(|order| order.ticket.order.clone()).collect();
        let round = batch.first().map_or(0, |order| order.ticket.round);
        let started = tokio::time::Instant::now();
        let answers = self.settle(lane, code, round, &orders).await;
        if !orders.is_empty() {
            self.parts.reserve.took(started.elapsed());
        }
        Settled(batch.into_iter().zip(answers).collect())
    }

    /// Gives the lease a moment's lead over the answers: a runtime of one thread would otherwise serialise a whole batch of
    /// answers before it sends the wake-up for which another replica waits. A hung lock node does not keep the answers.
    async fn release_and_answer(&self, lease: L::Lease, settled: Settled) {
        let mut release = pin!(self.parts.locks.release(lease));
        let released = if settled.0.len() > FEW {
            tokio::time::timeout(LOCK_LEAD, &mut release).await.is_ok()
        } else {
            // Once, so that it is on its way before the answers: a timer of zero ends at the next millisecond.
            release.as_mut().now_or_never().is_some()
        };
        settled.answer();
        if !released {
            release.await;
        }
    }

    /// The next batch: orders whose callers will still be there when it is settled.
    fn close(&self, code: &Code) -> Vec<Waiting> {
        self.queues.close(code, self.parts.reserve.end())
    }

    /// Settles the orders, running the call again where that is sound, and splitting a batch whose data is refused until
    /// the bad order stands alone.
    async fn settle(&self, lane: &mut D::Lane, code: &Code, round: u32, orders: &[Order]) -> Vec<Answer> {
        let mut answers = Vec::with_capacity(orders.len());
        let mut parts = if orders.is_empty() { vec![] } else { vec![orders] };
        while let Some(part) = parts.pop() {
            match self.call(lane, code, round, part).await {
                Ok(settled) => answers.extend(settled),
                Err(StoreError::Rejected(_)) if part.len() > 1 => {
                    let (first, second) = part.split_at(part.len() / 2);
                    parts.extend([second, first]);
                }
                Err(error) => {
                    tracing::error!(error = &error as &dyn std::error::Error, orders = part.len(), "a batch failed");
                    let failure = IssueError::from(error);
                    answers.extend(part.iter().map(|_| Err(failure.clone())));
                }
            }
        }
        answers
    }

    /// Runs the call until it answers. The same orders again are safe: whoever got a coupon in a run of which the outcome is
    /// unknown is found to hold it.
    async fn call(
        &self,
        lane: &mut D::Lane,
        code: &Code,
        round: u32,
        orders: &[Order],
    ) -> Result<Vec<Answer>, StoreError> {
        let mut run = 1;
        let settlement = loop {
            self.parts.issue.batch(orders.len());
            let started = Instant::now();
            match lane.issue_batch(round, code, orders).await {
                Ok(settlement) => {
                    self.parts.issue.transaction(started);
                    break settlement;
                }
                Err(error) => self.parts.may_run_again(error, run == RUNS_MAX)?,
            }
            pause(run).await;
            run += 1;
        };
        if settlement.known && settlement.round != round {
            self.parts.memory.poke();
            return Ok(busy(orders));
        }
        if settlement.remaining == 0 {
            self.parts.memory.poke();
        }
        Ok(settlement.outcomes(orders).into_iter().map(|outcome| outcome.ok_or(IssueError::Busy)).collect())
    }

    /// Answers everybody who waits for a code of which nothing can be had: one read tells who holds something already. The refusal
    /// is memory's, who holds something is the database's: joined, they are an answer only about one round.
    async fn refuse(&self, code: &Code, lane: &mut D::Lane) {
        let mut batch = self.close(code);
        // Once more, so that it is no older than any of these orders.
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

fn busy(orders: &[Order]) -> Vec<Answer> {
    orders.iter().map(|_| Err(IssueError::Busy)).collect()
}
