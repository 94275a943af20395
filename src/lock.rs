//! The lock: one Redlock per coupon code over independent Redis nodes, by rslock. The only module that knows Redis.
//!
//! It keeps the crowd away from the database and makes one writer per code. It does not keep the promises: a lease can
//! expire under a stalled holder, and then the row lock alone decides. So it may cost time and never an answer: patience with it is
//! bounded. A lease is given back on every path, because rslock leaves a dropped one in place until its time-to-live ends.

mod nodes;
mod probe;
mod wake;

use std::collections::HashSet;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::future::{Either, select};
use parking_lot::Mutex;
use rslock::Lock;
use tokio::sync::oneshot;
use tokio::time::{sleep, timeout};

pub use nodes::Nodes;
use wake::Wakes;

use crate::metrics::{Attempt, LockMetrics};

/// First and longest pause of [`Patience::Retry`]: so long the lock may be free before its next attempt.
const RETRY: [Duration; 2] = [Duration::from_millis(1), Duration::from_millis(25)];

/// Longest sleep of a waiter without a wake-up. Then it asks by itself, and keeps its place in line: the holder may have died, or may
/// wake no waiter.
const SLEEP: Duration = Duration::from_millis(100);

/// Longest sleep of a waiter that was woken and refused all the same: the wake-up came before the lock was free, or from a release long
/// ago. In the first case the lock is free soon, and no other waiter will be woken for it.
const SLEEP_REFUSED: Duration = Duration::from_millis(20);

/// A waiter waits in line so much longer than the time-to-live, after which a dead holder's lease is gone.
const PATIENCE: Duration = Duration::from_millis(250);

/// A waiter sleeps as many times longer as there are locks that cannot be had, and no more than so many times.
const LATE_MAX: u32 = 10;

/// A lease may stay for more work while more than this share of its time-to-live is left for the work itself.
const STAY_LEFT: f64 = 2.0 / 3.0;

/// The drift which Redlock allows for between the clocks of the nodes: 1 % of the time-to-live plus 2 ms.
fn drift(ttl: Duration) -> Duration {
    ttl / 100 + Duration::from_millis(2)
}

/// What the lock is told at the start.
#[derive(Clone, Debug)]
pub struct LockConfig {
    /// The independent nodes.
    pub urls: Vec<String>,
    /// The authority, in PEM, that must have signed the certificates of nodes with TLS; the system's authorities if there is none.
    pub ca: Option<Vec<u8>>,
    /// How long a lock lives when its holder dies.
    pub ttl: Duration,
    /// What all keys start with.
    pub prefix: String,
    /// Longest wait for the answer of a healthy node; what else is waited for at a node is a multiple of it.
    pub probe_timeout: Duration,
}

/// The key of something of one kind.
fn key_of(config: &LockConfig, kind: &str, name: &str) -> String {
    format!("{}{kind}:{name}", config.prefix)
}

/// Why there is no lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LockError {
    /// Fewer nodes than a majority can be reached.
    #[error("no quorum of lock nodes")]
    QuorumGone,
    /// Patience has run out, with this wait or an earlier one, and this replica has not been granted the lock since.
    #[error("the lock was not granted in time")]
    NotGranted,
    /// The caller no longer wants the lock.
    #[error("the lock is not wanted any more")]
    Abandoned,
}

/// How to wait for a lock that is held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Patience {
    /// A release wakes one waiter through Redis, the one that waits longest. Costs a connection per waiter. Ends when the lock
    /// cannot be had.
    Wake,
    /// Ask again after a growing, jittered pause, as long as the lock is wanted.
    Retry,
}

/// The locks of all codes.
pub struct Locks {
    nodes: Arc<Nodes>,
    wakes: Wakes,
    ttl: Duration,
    metrics: LockMetrics,
    /// The locks that could not be had in time. For each of them one task goes on asking.
    late: Mutex<HashSet<String>>,
}

/// A held lock. Give it back with [`Locks::release`].
#[must_use]
pub struct Lease {
    lock: Lock,
    name: String,
    granted: Instant,
    valid_until: Instant,
    /// Whether its waiters sleep until a release wakes them.
    wakes: bool,
}

impl Locks {
    /// Locks over `nodes`.
    pub fn new(nodes: Arc<Nodes>, metrics: LockMetrics) -> Arc<Self> {
        let (wakes, ttl) = (Wakes::new(Arc::clone(&nodes)), nodes.config.ttl);
        Arc::new(Self { wakes, nodes, ttl, metrics, late: Mutex::default() })
    }

    /// Takes the lock called `name`, waiting while `wanted` says so.
    pub async fn acquire(
        self: &Arc<Self>,
        name: &str,
        patience: Patience,
        wanted: impl FnMut() -> bool,
    ) -> Result<Lease, LockError> {
        let started = Instant::now();
        let lease = match patience {
            Patience::Wake => self.acquire_in_time(name, wanted).await?,
            Patience::Retry => self.acquire_by_asking(name, wanted).await?,
        };
        self.metrics.acquired(started);
        Ok(lease)
    }

    /// Waits in line until patience runs out. From then on no call waits for this lock until it was granted once.
    async fn acquire_in_time(self: &Arc<Self>, name: &str, wanted: impl FnMut() -> bool) -> Result<Lease, LockError> {
        if self.late.lock().contains(name) {
            return Err(LockError::NotGranted);
        }
        match select(pin!(self.acquire_in_line(name, wanted)), pin!(self.lose_patience(name))).await {
            Either::Left((acquired, _)) => acquired,
            Either::Right(_) => {
                self.go_on_asking(name);
                Err(LockError::NotGranted)
            }
        }
    }

    /// Returns after the time-to-live and a moment. If the lock has changed hands by then, only slowly, it waits once more as long.
    async fn lose_patience(&self, name: &str) {
        let (key, patience) = (self.key(name), self.ttl + PATIENCE);
        let mut holders = HashSet::new();
        let watch = async {
            loop {
                sleep(SLEEP).await;
                holders.extend(self.wakes.holder(&key).await);
            }
        };
        let _: Result<(), _> = timeout(patience, watch).await;
        if holders.len() > 1 {
            sleep(patience).await;
        }
    }

    /// Asks for a lock that could not be had until it is granted, or there is no quorum to ask.
    fn go_on_asking(self: &Arc<Self>, name: &str) {
        if !self.late.lock().insert(name.to_owned()) {
            return;
        }
        tracing::warn!(lock = name, "a lock cannot be had");
        let (locks, name) = (Arc::clone(self), name.to_owned());
        tokio::spawn(async move {
            if let Ok(lease) = locks.acquire_in_line(&name, || true).await {
                locks.release(lease).await;
            }
            locks.late.lock().remove(&name);
        });
    }

    /// Sleeps between the attempts until a release wakes it, and keeps one place in line for as long as it can. If the last release of
    /// this replica has woken another one, it sleeps before the first attempt, too: it is the other's turn.
    async fn acquire_in_line(
        self: &Arc<Self>,
        name: &str,
        mut wanted: impl FnMut() -> bool,
    ) -> Result<Lease, LockError> {
        let mut asks = !self.wakes.others_wait(name);
        let (mut woken, mut place, mut lost) = (false, None, 0);
        while wanted() {
            if asks && let Some(lease) = self.attempt(name).await? {
                return Ok(Lease { wakes: true, ..lease });
            }
            asks = true;
            let longest = if woken { SLEEP_REFUSED } else { self.longest_sleep() };
            let turn = place.get_or_insert_with(|| Box::pin(self.wakes.line_up(name, lost)));
            let called = timeout(longest, turn).await;
            place = place.filter(|_| called.is_err());
            lost += usize::from(called == Ok(false));
            woken = called.unwrap_or(false);
        }
        if woken {
            // The wake-up came too late for this waiter; it belongs to the next one.
            self.wakes.wake(name).await;
        }
        Err(LockError::Abandoned)
    }

    /// Longer while many locks cannot be had, so that the tasks that go on asking for them do not ask too often in all.
    fn longest_sleep(&self) -> Duration {
        let late = u32::try_from(self.late.lock().len()).unwrap_or(LATE_MAX);
        SLEEP * late.clamp(1, LATE_MAX)
    }

    /// Pauses between the attempts.
    async fn acquire_by_asking(&self, name: &str, mut wanted: impl FnMut() -> bool) -> Result<Lease, LockError> {
        let [mut pause, longest] = RETRY;
        while wanted() {
            if let Some(lease) = self.attempt(name).await? {
                return Ok(lease);
            }
            sleep(pause.mul_f64(0.5 + fastrand::f64())).await;
            pause = (pause * 3 / 2).min(longest);
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
        // In a task of its own: patience may run out while a node hangs, and a dropped attempt leaves its keys behind for the whole
        // time-to-live.
        let (tell, told) = oneshot::channel();
        let (key, ttl) = (self.key(name), self.ttl);
        tokio::spawn(async move {
            if let Err(Some(late)) = tell.send(manager.lock(key.as_bytes(), ttl).await.ok()) {
                late.release().await;
            }
        });
        let Some(lock) = told.await.ok().flatten() else {
            self.metrics.attempted(Attempt::Contended);
            return Ok(None);
        };
        self.metrics.attempted(Attempt::Granted);
        let valid_until = asked + self.ttl.saturating_sub(drift(self.ttl));
        Ok(Some(Lease { lock, name: name.to_owned(), granted: Instant::now(), valid_until, wakes: false }))
    }

    fn key(&self, name: &str) -> String {
        key_of(&self.nodes.config, "lock", name)
    }

    /// Whether the holder may go on with more work under the same lease: most of the lease's life is left, its last release of this lock
    /// has woken no waiter, and no waiter sleeps before any lock. One round trip to one node, where giving the lease back and taking it
    /// again are two to all of them. A waiter that lines up later is seen the next time; at another node than the first, once the probe
    /// has seen it.
    pub async fn may_stay(&self, lease: &Lease) -> bool {
        let left = lease.valid_until.saturating_duration_since(Instant::now());
        left > self.ttl.mul_f64(STAY_LEFT) && !self.wakes.others_wait(&lease.name) && self.wakes.nobody_sleeps().await
    }

    /// Gives a lease back and wakes one waiter where waiters sleep.
    pub async fn release(&self, lease: Lease) {
        let now = Instant::now();
        self.metrics.held(lease.granted, now > lease.valid_until);
        // Through the current manager: the one that took the lock may still wait for a node that hangs.
        let lock_manager = self.nodes.manager().unwrap_or(lease.lock.lock_manager);
        let lock = Lock { lock_manager, ..lease.lock };
        if lease.wakes {
            // Together: the unlocking is under way before the wake-up, and arrives before the woken waiter asks. A hung node delays
            // the one and not the other.
            tokio::join!(lock.release(), self.wakes.wake(&lease.name));
        } else {
            lock.release().await;
        }
    }
}
