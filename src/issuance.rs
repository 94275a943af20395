//! The use case: an order comes in, an outcome goes out. Each of six strategies has one idea of how to make an issue exclusive.
//!
//! Memory answers what it knows exactly. The rest goes to the strategy, `batched` or one of those in `single` that issue one by one. From
//! there on work runs in tasks of its own: a client that hangs up drops a waiting future, never a lock or a transaction.

mod batched;
mod conditional;
mod locking;
mod optimistic;
mod pessimistic;
mod redlock;
mod reserve;
mod runs;
mod single;
mod step;
mod unlocked;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use clap::ValueEnum;
use tokio::sync::oneshot;
use tokio_util::task::TaskTracker;

use self::batched::Batched;
use self::reserve::Reserve;
use self::single::Single;
use crate::coupons::{Order, Outcome};
use crate::lock::{LockError, Locks};
use crate::memory::{Known, Memory};
use crate::metrics::{IssueMetrics, LockMetrics, Metrics, Wait, outcome_label};
use crate::store::{Store, StoreError};

/// Most orders that wait at once: per code under `batched`, in all under the other strategies. A rush of ten thousand users fits in;
/// beyond that "busy" is the better answer.
pub const QUEUE_MAX: usize = 10_000;

/// How an issue is made exclusive.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Strategy {
    /// Read, decide, write: loses updates, on purpose.
    Unlocked,
    /// One UPDATE with the condition in it.
    Conditional,
    /// Read, then write only if the row is still as it was read.
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

/// What `batched` does while the lock cannot be had.
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
            LockError::QuorumGone | LockError::NotGranted => Self::Unavailable(None),
            LockError::Abandoned => Self::Busy,
        }
    }
}

/// An order on its way through a strategy.
#[derive(Debug)]
struct Ticket {
    order: Order,
    /// The round in which it was made; it gets nothing of another.
    round: u32,
    /// When its handler began: the lock wait counts from here.
    entered: Instant,
    /// Whether that wait was recorded: an order that is run again has waited once.
    has_waited: AtomicBool,
    /// The deadline, when its caller stops waiting.
    due: tokio::time::Instant,
}

/// The way back to an order's caller, the handler that waits. Closed when the client has hung up or the deadline has passed.
type Caller = oneshot::Sender<Result<Outcome, IssueError>>;

/// What all strategies work with. Only the simulation of `batched` puts models in the place of database and lock.
struct Parts<D = Store, L = Arc<Locks>> {
    strategy: Strategy,
    on_lock_loss: OnLockLoss,
    store: D,
    /// Whether another member of the database may become the primary.
    has_several_members: bool,
    locks: L,
    memory: Arc<Memory>,
    issue: IssueMetrics,
    lock: LockMetrics,
    reserve: Reserve,
    tasks: TaskTracker,
}

/// What an [`Issuer`] is made of.
pub struct IssuerConfig {
    /// How issues are made exclusive.
    pub strategy: Strategy,
    /// What `batched` does while the lock cannot be had.
    pub on_lock_loss: OnLockLoss,
    /// Longest time from a handler's entry to its answer.
    pub deadline: Duration,
}

/// Issues coupons.
pub struct Issuer {
    parts: Arc<Parts>,
    deadline: Duration,
    single: Single,
    batched: Arc<Batched>,
}

impl Issuer {
    /// Puts the parts together.
    pub fn new(config: &IssuerConfig, store: Store, locks: Arc<Locks>, memory: Arc<Memory>, metrics: &Metrics) -> Self {
        let IssuerConfig { strategy, on_lock_loss, deadline } = *config;
        let (issue, lock, tasks) = (metrics.issue.clone(), metrics.lock.clone(), TaskTracker::new());
        let (reserve, has_several_members) = (Reserve::new(deadline), store.has_several_members());
        let parts =
            Parts { strategy, on_lock_loss, store, has_several_members, locks, memory, issue, lock, reserve, tasks };
        let parts = Arc::new(parts);
        Self { single: Single::new(Arc::clone(&parts)), batched: Batched::new(Arc::clone(&parts)), parts, deadline }
    }

    /// Answers an order before the deadline, which counts from `entered`. Dropping the future is safe: the order is
    /// forgotten if it was still waiting, and settled if it was not.
    pub async fn issue(&self, order: Order, entered: Instant) -> Result<Outcome, IssueError> {
        let (code, arrived_ms) = (order.code.clone(), order.arrived_ms);
        let (due, round) = ((entered + self.deadline).into(), self.parts.memory.round());
        let result = match self.parts.memory.knows(&order) {
            Known::Answer(outcome) => Ok(outcome),
            Known::Unavailable => Err(IssueError::Unavailable(None)),
            Known::Undecided => {
                let decided = tokio::time::timeout_at(due, self.decide(order, round, entered, due));
                decided.await.unwrap_or(Err(IssueError::Busy))
            }
        };
        if let (Ok(Outcome::SoldOut), Some(round)) = (&result, round) {
            self.parts.memory.refused(&code, round, arrived_ms);
        }
        let label = match &result {
            Ok(outcome) => outcome_label(outcome),
            Err(IssueError::Busy) => "busy",
            Err(IssueError::Unavailable(_)) => "unavailable",
        };
        self.parts.issue.finished(&code, label);
        result
    }

    /// Makes the connection that the first batch will take; without a database that is left to the first order.
    pub async fn warm(&self) {
        if self.parts.strategy == Strategy::Batched
            && let Err(error) = self.parts.store.batches.free().await.connect().await
        {
            tracing::warn!(error = &error as &dyn std::error::Error, "cannot connect to the database yet");
        }
    }

    async fn decide(
        &self,
        order: Order,
        round: Option<u32>,
        entered: Instant,
        due: tokio::time::Instant,
    ) -> Result<Outcome, IssueError> {
        let Some(round) = round else { return Err(IssueError::Unavailable(None)) };
        let ticket = Ticket { order, round, entered, has_waited: AtomicBool::new(false), due };
        match self.parts.strategy {
            Strategy::Batched => self.batched.issue(ticket).await,
            _ => self.single.issue(ticket).await,
        }
    }

    /// Waits until all work that has begun is finished. Call it when no new orders come in.
    pub async fn drain(&self) {
        self.parts.tasks.close();
        self.parts.tasks.wait().await;
    }
}

impl<D, L> Parts<D, L> {
    /// Records the end of an order's wait for the exclusive right.
    fn waited(&self, result: Wait, ticket: &Ticket) {
        if !ticket.has_waited.swap(true, Ordering::Relaxed) {
            self.lock.waited(result, ticket.entered);
        }
    }
}
