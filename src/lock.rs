//! The lock: one Redlock per coupon code over independent Redis nodes, by rslock. The only module that knows Redis.
//!
//! It keeps the crowd away from the database and makes one writer per code. It does not keep the promises: a lease can
//! expire under a stalled holder, and then the row lock alone decides. Waits are bounded by their caller, and a lease is
//! given back on every path, because rslock leaves a dropped one in place until its time-to-live ends.

mod nodes;
mod wake;

use std::sync::Arc;
use std::time::{Duration, Instant};

use rslock::Lock;

pub use nodes::Nodes;
use wake::Wakes;

use crate::metrics::{Attempt, LockMetrics};

/// First pause of a caller that asks again by itself, without a wake-up.
const RETRY_FIRST: Duration = Duration::from_millis(1);

/// Longest such pause: what a caller waits at most after the lock became free.
const RETRY_MAX: Duration = Duration::from_millis(25);

/// Longest sleep of a waiter, who then asks by himself and keeps his place in line: the holder has died or wakes nobody.
const SLEEP: Duration = Duration::from_millis(100);

/// Longest sleep of one who was woken and refused all the same: the wake-up came before the lock was free, or from a release long
/// ago. In the first case nobody else is woken.
const SLEEP_REFUSED: Duration = Duration::from_millis(20);

/// A lease may stay for more work while more than this share of its time-to-live is left for the work itself.
const STAY_LEFT: f64 = 2.0 / 3.0;

/// The drift which Redlock allows for between the clocks of the nodes: 1 % of the time-to-live plus 2 ms.
fn drift(ttl: Duration) -> Duration {
    ttl / 100 + Duration::from_millis(2)
}

/// Why there is no lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LockError {
    /// Fewer nodes than a majority can be reached.
    #[error("no quorum of lock nodes")]
    QuorumGone,
    /// Nobody wants the lock any more.
    #[error("every waiter has gone")]
    Abandoned,
}

/// How to wait for a lock that somebody else holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Patience {
    /// A release wakes one waiter through Redis, the one that waits longest. Costs a connection per waiter.
    Wake,
    /// Ask again after a growing, jittered pause.
    Retry,
}

/// The locks of all codes.
pub struct Locks {
    nodes: Arc<Nodes>,
    wakes: Wakes,
    ttl: Duration,
    prefix: String,
    metrics: LockMetrics,
}

/// A held lock. Give it back with [`Locks::release`].
#[must_use]
pub struct Lease {
    lock: Lock,
    name: String,
    granted: Instant,
    valid_until: Instant,
    /// Whether those who wait for it sleep until they are woken.
    wakes: bool,
}

impl Locks {
    /// Locks over `nodes`; their keys start with `prefix` and live for `ttl` when their holder dies.
    pub fn new(nodes: Arc<Nodes>, ttl: Duration, prefix: &str, metrics: LockMetrics) -> Self {
        Self { wakes: Wakes::new(Arc::clone(&nodes), prefix, ttl), nodes, ttl, prefix: prefix.to_owned(), metrics }
    }

    /// Takes the lock called `name`, waiting while `wanted` says so.
    ///
    /// Run it in a task that nobody cancels: a dropped attempt leaves its keys behind for the whole time-to-live.
    pub async fn acquire(
        &self,
        name: &str,
        patience: Patience,
        wanted: impl FnMut() -> bool,
    ) -> Result<Lease, LockError> {
        let started = Instant::now();
        let lease = match patience {
            Patience::Wake => self.acquire_in_line(name, wanted).await?,
            Patience::Retry => self.acquire_by_asking(name, wanted).await?,
        };
        self.metrics.acquired(started);
        Ok(Lease { wakes: patience == Patience::Wake, ..lease })
    }

    /// Sleeps between the attempts until a release wakes it, with one place in line for as long as it can. Whose own last release has
    /// woken another sleeps before the first attempt, too: it is not his turn.
    async fn acquire_in_line(&self, name: &str, mut wanted: impl FnMut() -> bool) -> Result<Lease, LockError> {
        let mut asks = !self.wakes.others_wait(name);
        let (mut woken, mut place, mut lost) = (false, None, 0);
        while wanted() {
            if asks && let Some(lease) = self.attempt(name).await? {
                return Ok(lease);
            }
            asks = true;
            let sleep = if woken { SLEEP_REFUSED } else { SLEEP };
            let turn = place.get_or_insert_with(|| Box::pin(self.wakes.line_up(name, lost)));
            let called = tokio::time::timeout(sleep, turn).await;
            place = place.filter(|_| called.is_err());
            lost += usize::from(called == Ok(false));
            woken = called.unwrap_or(false);
        }
        if woken {
            // The wake-up came too late for this caller; it belongs to the next one.
            self.wakes.wake(name).await;
        }
        Err(LockError::Abandoned)
    }

    /// Pauses between the attempts.
    async fn acquire_by_asking(&self, name: &str, mut wanted: impl FnMut() -> bool) -> Result<Lease, LockError> {
        let mut pause = RETRY_FIRST;
        while wanted() {
            if let Some(lease) = self.attempt(name).await? {
                return Ok(lease);
            }
            tokio::time::sleep(pause.mul_f64(0.5 + fastrand::f64())).await;
            pause = (pause * 3 / 2).min(RETRY_MAX);
        }
        Err(LockError::Abandoned)
    }

    /// One attempt at all nodes: 1 round trip when granted, 2 when not.
    async fn attempt(&self, name: &str) -> Result<Option<Lease>, LockError> {
        let Some(manager) = self.nodes.manager() else {
            self.metrics.attempted(Attempt::Unavailable);
            return Err(LockError::QuorumGone);
        };
        // Taken before the nodes are asked: the validity counts from the earliest moment a node may have set the key.
        let asked = Instant::now();
        let key = format!("{}lock:{name}", self.prefix);
        let Ok(lock) = manager.lock(key.as_bytes(), self.ttl).await else {
            self.metrics.attempted(Attempt::Contended);
            return Ok(None);
        };
        self.metrics.attempted(Attempt::Granted);
        Ok(Some(Lease {
            lock,
            name: name.to_owned(),
            granted: Instant::now(),
            valid_until: asked + self.ttl.saturating_sub(drift(self.ttl)),
            wakes: false,
        }))
    }

    /// Whether the holder may go on with more work under the same lease: most of its life is left, and nobody else wants a lock. One
    /// round trip to one node, where giving it back and taking it again are two to all of them. Whoever lines up later is seen
    /// the next time; at another node than the first, when the probe has seen him.
    pub async fn may_stay(&self, lease: &Lease) -> bool {
        let left = lease.valid_until.saturating_duration_since(Instant::now());
        left > self.ttl.mul_f64(STAY_LEFT) && !self.wakes.others_wait(&lease.name) && self.wakes.nobody_sleeps().await
    }

    /// Gives a lease back and wakes one waiter where waiters sleep.
    pub async fn release(&self, lease: Lease) {
        let now = Instant::now();
        self.metrics.held(lease.granted, now > lease.valid_until);
        // Through the current manager: the one that took the lock may still wait for a node that hangs.
        let Lock { resource, val, validity_time, lock_manager } = lease.lock;
        let lock_manager = self.nodes.manager().unwrap_or(lock_manager);
        let lock = Lock { resource, val, validity_time, lock_manager };
        if lease.wakes {
            // Together: the unlocking is under way before the wake-up, and arrives before the woken one asks. A hung node delays
            // the one and not the other.
            tokio::join!(lock.release(), self.wakes.wake(&lease.name));
        } else {
            lock.release().await;
        }
    }
}
