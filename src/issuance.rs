//! The use case: an order comes in, an outcome goes out. Six strategies make the issue exclusive, each by one idea.
//!
//! Memory answers what it knows exactly. The rest goes to the strategy, and from there on work runs in tasks of its own: a
//! client that hangs up drops a waiting future, never a lock or a transaction.

mod batched;
mod conditional;
mod optimistic;
mod pessimistic;
mod redlock;
mod unlocked;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use clap::ValueEnum;
use tokio::sync::Semaphore;
use tokio_util::task::TaskTracker;

use self::batched::Batched;
use crate::coupons::{Entry, Order, Outcome, Timestamp};
use crate::lock::{LockError, Locks};
use crate::memory::{Known, Memory};
use crate::metrics::{IssueMetrics, LockMetrics, Rerun, Wait, outcome_label};
use crate::store::{Inserted, LockedCoupon, Store, StoreError, Tx};

/// Most orders that wait at once: per code under `batched`, in all under the other strategies. Beyond it "busy" is the
/// better answer; below it a rush of ten thousand users is nobody's error.
pub const QUEUE_MAX: usize = 10_000;

/// Runs of one order, or one batch, before giving up on contention or an unknown outcome.
const RUNS_MAX: u32 = 3;

/// How an issue is made exclusive.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Strategy {
    /// Read, decide, write: loses updates, on purpose.
    Unlocked,
    /// One UPDATE with the condition in it.
    Conditional,
    /// Read, then write only if nobody wrote since.
    Optimistic,
    /// SELECT … FOR UPDATE.
    Pessimistic,
    /// Each request takes its own Redlock.
    Redlock,
    /// One Redlock and one call for all that wait.
    Batched,
}

impl Strategy {
    /// The name in configuration, metrics and JSON.
    pub fn name(self) -> &'static str {
        match self {
            Self::Unlocked => "unlocked",
            Self::Conditional => "conditional",
            Self::Optimistic => "optimistic",
            Self::Pessimistic => "pessimistic",
            Self::Redlock => "redlock",
            Self::Batched => "batched",
        }
    }
}

/// What `batched` does while no quorum of lock nodes can be reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum OnLockLoss {
    /// Go on with the row lock alone, one call in flight per code and replica.
    Bypass,
    /// Answer 503.
    Refuse,
}

/// No decision was reached. Asking again is safe: a request is issued at most once.
#[derive(Clone, Debug, thiserror::Error)]
pub enum IssueError {
    /// Too many others at the same time, or the round has just changed.
    #[error("too busy")]
    Busy,
    /// A dependency failed.
    #[error("a dependency failed")]
    Unavailable(#[source] Option<Arc<StoreError>>),
}

impl From<StoreError> for IssueError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Contended(_) | StoreError::Duplicate(_) => Self::Busy,
            other => Self::Unavailable(Some(Arc::new(other))),
        }
    }
}

impl From<LockError> for IssueError {
    fn from(error: LockError) -> Self {
        match error {
            LockError::QuorumGone => Self::Unavailable(None),
            LockError::Abandoned => Self::Busy,
        }
    }
}

/// An order on its way through a strategy.
#[derive(Clone, Debug)]
struct Ticket {
    order: Order,
    /// The round it was made in; it gets nothing from another.
    round: u32,
    /// When its handler began: the lock wait counts from here.
    entered: Instant,
    /// Alive as long as the caller of a single-issue strategy waits.
    caller: Weak<()>,
}

impl Ticket {
    /// Whether its caller still waits.
    fn is_wanted(&self) -> bool {
        self.caller.strong_count() > 0
    }
}

/// What one run of a single-issue strategy came to.
enum Step {
    /// It was issued.
    Issued(Entry),
    /// Nothing was written; [`explain`] finds out why.
    Refused,
    /// Somebody else was faster; run it again.
    Conflict,
}

/// What all strategies work with.
struct Parts {
    strategy: Strategy,
    on_lock_loss: OnLockLoss,
    store: Store,
    locks: Locks,
    memory: Arc<Memory>,
    issue: IssueMetrics,
    lock: LockMetrics,
    tasks: TaskTracker,
}

/// What an [`Issuer`] is made of.
pub struct IssuerConfig {
    /// How issues are made exclusive.
    pub strategy: Strategy,
    /// What to do without a quorum of lock nodes.
    pub on_lock_loss: OnLockLoss,
    /// Single-issue strategies: orders worked on at once; the size of the store's pool.
    pub pool_size: u32,
    /// Longest time from a handler's entry to its answer.
    pub deadline: Duration,
}

/// Issues coupons.
pub struct Issuer {
    parts: Arc<Parts>,
    deadline: Duration,
    /// One permit per pooled connection, so that nobody waits for one inside a task.
    turns: Arc<Semaphore>,
    waiting: AtomicUsize,
    batched: Arc<Batched>,
}

impl Issuer {
    /// Puts the parts together.
    pub fn new(
        config: &IssuerConfig,
        store: Store,
        locks: Locks,
        memory: Arc<Memory>,
        (issue, lock): (IssueMetrics, LockMetrics),
    ) -> Self {
        let IssuerConfig { strategy, on_lock_loss, pool_size, deadline } = *config;
        let tasks = TaskTracker::new();
        let parts = Arc::new(Parts { strategy, on_lock_loss, store, locks, memory, issue, lock, tasks });
        Self {
            batched: Batched::new(Arc::clone(&parts)),
            parts,
            deadline,
            turns: Arc::new(Semaphore::new(pool_size as usize)),
            waiting: AtomicUsize::new(0),
        }
    }

    /// Answers an order before the deadline, which counts from `entered`. Dropping the future is safe: the order is
    /// forgotten if it was still waiting, and settled if it was not.
    pub async fn issue(&self, order: Order, entered: Instant) -> Result<Outcome, IssueError> {
        let (code, arrived_ms) = (order.code.clone(), order.arrived_ms);
        let deadline = tokio::time::Instant::from_std(entered + self.deadline);
        let result = match self.parts.memory.knows(&order) {
            Known::Answer(outcome) => Ok(outcome),
            Known::Unavailable => Err(IssueError::Unavailable(None)),
            Known::UnlessHeld(_) | Known::Undecided => {
                tokio::time::timeout_at(deadline, self.decide(order, entered)).await.unwrap_or(Err(IssueError::Busy))
            }
        };
        if matches!(result, Ok(Outcome::SoldOut)) {
            self.parts.memory.refused(&code, arrived_ms);
        }
        let label = match &result {
            Ok(outcome) => outcome_label(outcome),
            Err(IssueError::Busy) => "busy",
            Err(IssueError::Unavailable(_)) => "unavailable",
        };
        self.parts.issue.finished(&code, label);
        result
    }

    /// Makes a connection before the first order needs it; without a database that is left to the first order.
    pub async fn warm(&self) {
        if self.parts.strategy == Strategy::Batched {
            self.batched.warm().await;
        }
    }

    async fn decide(&self, order: Order, entered: Instant) -> Result<Outcome, IssueError> {
        let Some(round) = self.parts.memory.round() else { return Err(IssueError::Unavailable(None)) };
        let ticket = Ticket { order, round, entered, caller: Weak::new() };
        match self.parts.strategy {
            Strategy::Batched => self.batched.issue(ticket).await,
            _ => self.single(ticket).await,
        }
    }

    /// Waits for a turn, which a client may leave, and then works in a task, which it may not.
    async fn single(&self, mut ticket: Ticket) -> Result<Outcome, IssueError> {
        // Dropped with this future: that is how the task sees that the caller has gone.
        let caller = Arc::new(());
        ticket.caller = Arc::downgrade(&caller);
        let _place = Place::take(&self.waiting, &self.parts.issue)?;
        let queued = Instant::now();
        let turn = Arc::clone(&self.turns).acquire_owned().await.map_err(|_| IssueError::Busy)?;
        self.parts.issue.pool_wait(queued);
        let parts = Arc::clone(&self.parts);
        let work = async move {
            let _turn = turn;
            parts.run(&ticket).await
        };
        self.parts.tasks.spawn(work).await.unwrap_or(Err(IssueError::Unavailable(None)))
    }

    /// Waits until all work that has begun is finished. Call it when no new orders come in.
    pub async fn drain(&self) {
        self.parts.tasks.close();
        self.parts.tasks.wait().await;
    }
}

/// A place among the waiting, given up when dropped.
struct Place<'a> {
    waiting: &'a AtomicUsize,
    metrics: &'a IssueMetrics,
}

impl<'a> Place<'a> {
    fn take(waiting: &'a AtomicUsize, metrics: &'a IssueMetrics) -> Result<Self, IssueError> {
        if waiting.fetch_add(1, Ordering::Relaxed) >= QUEUE_MAX {
            waiting.fetch_sub(1, Ordering::Relaxed);
            metrics.shed();
            return Err(IssueError::Busy);
        }
        metrics.queued(1);
        Ok(Self { waiting, metrics })
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.waiting.fetch_sub(1, Ordering::Relaxed);
        self.metrics.queued(-1);
    }
}

impl Parts {
    /// Runs a single-issue strategy until it decides.
    async fn run(&self, ticket: &Ticket) -> Result<Outcome, IssueError> {
        if let Some(refusal) = self.memory.refusal(&ticket.order.code) {
            let held = self.store.held_by(&ticket.order).await?;
            return Ok(held.map_or(refusal, |entry| entry.answer(&ticket.order)));
        }
        let runs = if self.strategy == Strategy::Optimistic { optimistic::RUNS_MAX } else { RUNS_MAX };
        for run in 1..=runs {
            match self.step(ticket).await {
                Ok(Step::Issued(entry)) => return Ok(Outcome::Issued(entry)),
                Ok(Step::Refused) => {
                    if let Some(outcome) = self.explain(ticket).await? {
                        return Ok(outcome);
                    }
                }
                Ok(Step::Conflict) => {}
                Err(Failure::Lock(error)) => return Err(error.into()),
                Err(Failure::Store(error)) => self.may_run_again(error)?,
            }
            pause(run).await;
        }
        Err(IssueError::Busy)
    }

    async fn step(&self, ticket: &Ticket) -> Result<Step, Failure> {
        match self.strategy {
            Strategy::Unlocked => unlocked::issue(self, ticket).await,
            Strategy::Conditional => conditional::issue(self, ticket).await,
            Strategy::Optimistic => optimistic::issue(self, ticket).await,
            Strategy::Pessimistic => pessimistic::issue(self, ticket).await,
            Strategy::Redlock => redlock::issue(self, ticket).await,
            Strategy::Batched => unreachable!("the batch has its own way"),
        }
    }

    /// Counts an error after which the same work may be run again, and returns any other.
    fn may_run_again(&self, error: StoreError) -> Result<(), StoreError> {
        let reason = match error {
            StoreError::Contended(_) => Rerun::Contended,
            StoreError::Duplicate(_) => Rerun::Duplicate,
            StoreError::Unknown(_) => Rerun::Unknown,
            StoreError::Rejected(_) | StoreError::Unavailable(_) => return Err(error),
        };
        tracing::debug!(error = &error as &dyn std::error::Error, "running it again");
        if reason == Rerun::Unknown {
            self.issue.unknown_outcome();
        }
        self.issue.rerun(reason);
        Ok(())
    }

    /// The last two statements of every single-issue strategy: insert the child after its parent, commit.
    async fn finish(&self, mut tx: Tx, ticket: &Ticket, won: Won) -> Result<Step, Failure> {
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

    /// Finds out why an order was refused; `None` when there is no reason any more.
    async fn explain(&self, ticket: &Ticket) -> Result<Option<Outcome>, IssueError> {
        if let Some(entry) = self.store.held_by(&ticket.order).await? {
            return Ok(Some(entry.answer(&ticket.order)));
        }
        let mut tx = self.store.begin().await?;
        let coupon = tx.read(&ticket.order.code).await?;
        tx.roll_back().await?;
        match coupon {
            None => Ok(Some(Outcome::UnknownCoupon)),
            Some(coupon) if coupon.round != ticket.round => {
                self.memory.poke();
                Err(IssueError::Busy)
            }
            Some(coupon) if !coupon.open => Ok(Some(Outcome::NotOpen(coupon.opens_in))),
            Some(coupon) if coupon.remaining == 0 => {
                self.memory.poke();
                Ok(Some(Outcome::SoldOut))
            }
            Some(_) => Ok(None),
        }
    }

    /// Records the wait of a request that has got the exclusive right.
    fn granted(&self, ticket: &Ticket) {
        self.lock.waited(Wait::Granted, ticket.entered);
    }
}

/// What an order has won before its row is written.
struct Won {
    serial: Option<u32>,
    issued_at: Timestamp,
}

/// Why a run failed.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Lock(#[from] LockError),
}

/// Whether a coupon row that was read allows an issue in the ticket's round.
fn issuable(coupon: Option<LockedCoupon>, ticket: &Ticket) -> Option<LockedCoupon> {
    coupon.filter(|coupon| coupon.round == ticket.round && coupon.open && coupon.remaining > 0)
}

/// Waits a little, longer and with more jitter after every run.
async fn pause(run: u32) {
    let most = Duration::from_millis(5) * run;
    tokio::time::sleep(most.mul_f64(fastrand::f64())).await;
}
