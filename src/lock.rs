//! The lock: one Redlock per coupon code over independent Redis nodes, by rslock. The only module that knows Redis.
//!
//! It keeps the crowd away from the database and promises nothing: a lease can expire under a stalled holder, and then the row lock
//! alone decides. So it may cost time and never an answer: patience with it is bounded. A code has a home, so mostly one replica wants
//! its lock and keeps the lease from batch to batch; now and then a second one waits in line for it.

mod line;
mod nodes;
mod probe;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rslock::Lock;
use tokio::sync::oneshot;
use tokio::time::timeout;

use self::line::Line;
pub use self::nodes::Nodes;
use crate::metrics::{Attempt, LockMetrics};

/// Longest sleep without a token. Then a waiter asks by itself, and keeps its place in line: the holder may have died.
const SLEEP: Duration = Duration::from_millis(100);
/// Longest sleep of a waiter that was woken and refused all the same: its token came before the lock was free.
const SLEEP_REFUSED: Duration = Duration::from_millis(20);
/// A waiter waits so many times the time-to-live: after one, a dead holder's lease is gone, and then the line has its turns.
const PATIENCE: u32 = 2;
/// A lease may stay while more than this share of its time-to-live is left for the work under it.
const STAY_LEFT: f64 = 2.0 / 3.0;

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

impl LockConfig {
    fn key(&self, kind: &str, name: &str) -> String {
        format!("{}{kind}:{name}", self.prefix)
    }
}

/// Why there is no lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LockError {
    /// Fewer nodes than a majority are used.
    #[error("no quorum of lock nodes")]
    QuorumGone,
    /// Patience has run out, with this wait or an earlier one.
    #[error("the lock was not granted in time")]
    NotGranted,
    /// The caller no longer wants the lock.
    #[error("the lock is not wanted any more")]
    Abandoned,
}

/// The locks of all codes.
pub struct Locks {
    nodes: Arc<Nodes>,
    line: Line,
    metrics: LockMetrics,
    /// When a release of this replica woke a waiter, whose turn it is then. No more than there are coupons.
    gave_way: Mutex<HashMap<String, Instant>>,
    /// When patience with a lock ran out last, until it is granted. No more than there are coupons.
    ran_out: Mutex<HashMap<String, Instant>>,
}

/// A held lock. Give it back with [`Locks::release`] or [`Locks::hand_over`], on every path: rslock leaves a dropped one in place until
/// its time-to-live ends.
#[must_use]
pub struct Lease {
    lock: Lock,
    name: String,
    granted: Instant,
    valid_until: Instant,
    /// Whether a waiter had its turn before it: the next one waits already.
    in_turn: bool,
}

impl Locks {
    /// Locks over `nodes`.
    pub fn new(nodes: Arc<Nodes>, metrics: LockMetrics) -> Arc<Self> {
        let line = Line::new(Arc::clone(&nodes));
        Arc::new(Self { nodes, line, metrics, gave_way: Mutex::default(), ran_out: Mutex::default() })
    }

    /// Takes the lock called `name`, waiting in line while `wanted` says so, until patience runs out. From then on one call waits for it in
    /// a time-to-live, and only for a moment, until it is granted.
    pub async fn acquire(&self, name: &str, wanted: impl FnMut() -> bool) -> Result<Lease, LockError> {
        let (started, ttl) = (Instant::now(), self.nodes.config.ttl);
        let ran_out = self.ran_out.lock().get(name).copied();
        if ran_out.is_some_and(|at| at.elapsed() < ttl) {
            return Err(LockError::NotGranted);
        }
        // Long enough for one attempt at nodes that are far away.
        let moment = SLEEP.max(2 * self.nodes.config.probe_timeout);
        let patience = if ran_out.is_some() { moment } else { PATIENCE * ttl };
        let Ok(acquired) = timeout(patience, self.wait(name, wanted)).await else {
            tracing::warn!(lock = name, "the lock was not granted in time");
            self.ran_out.lock().insert(name.to_owned(), Instant::now());
            return Err(LockError::NotGranted);
        };
        if acquired.is_ok() {
            self.ran_out.lock().remove(name);
            self.metrics.acquired(started);
        }
        acquired
    }

    /// Asks, and sleeps in line between the attempts. A replica whose last release has woken a waiter lines up before it asks.
    async fn wait(&self, name: &str, mut wanted: impl FnMut() -> bool) -> Result<Lease, LockError> {
        let gave_way = self.gave_way.lock().remove(name);
        let mut asks = gave_way.is_none_or(|at| at.elapsed() > self.nodes.config.ttl / 2);
        let (mut woken, mut place) = (false, None);
        while wanted() {
            if asks && let Some(lease) = self.attempt(name).await? {
                return Ok(Lease { in_turn: gave_way.is_some(), ..lease });
            }
            asks = true;
            let (node, turn) = place.get_or_insert_with(|| (self.nodes.first(), Box::pin(self.line.wait(name))));
            woken = timeout(if woken { SLEEP_REFUSED } else { SLEEP }, turn).await.is_ok();
            // Where the line is at another node by now, or the note cannot be renewed, the place is lost, too.
            let keeps = !woken && *node == self.nodes.first() && self.line.renew(name).await;
            place = place.filter(|_| keeps);
        }
        if woken {
            // The token came too late for this waiter; it belongs to the next one.
            self.line.wake(name).await;
        }
        Err(LockError::Abandoned)
    }

    /// One attempt at all nodes: 1 round trip when granted, 2 when not.
    pub async fn attempt(&self, name: &str) -> Result<Option<Lease>, LockError> {
        let Some(manager) = self.nodes.manager() else {
            self.metrics.attempted(Attempt::Unavailable);
            return Err(LockError::QuorumGone);
        };
        // Taken before the nodes are asked: the validity counts from the earliest moment a node may have set the key.
        let asked = Instant::now();
        // In a task of its own: patience may run out while a node hangs, and a dropped attempt leaves its keys behind.
        let (tell, told) = oneshot::channel();
        let (key, ttl) = (self.nodes.config.key("lock", name), self.nodes.config.ttl);
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
        // Less the drift between the clocks of the nodes for which Redlock allows: 1 % of the time-to-live and 2 ms.
        let valid_until = asked + ttl.saturating_sub(ttl / 100 + Duration::from_millis(2));
        Ok(Some(Lease { lock, name: name.to_owned(), granted: Instant::now(), valid_until, in_turn: false }))
    }

    /// Whether the holder may go on with more work under the same lease: most of its life is left, and no waiter has lined up. One round
    /// trip to one node, where giving the lease back and taking it again are two to all of them; none while replicas take turns.
    pub async fn may_stay(&self, lease: &Lease) -> bool {
        let left = lease.valid_until.saturating_duration_since(Instant::now());
        !lease.in_turn && left > self.nodes.config.ttl.mul_f64(STAY_LEFT) && self.line.is_empty(&lease.name).await
    }

    /// Gives a lease back, and wakes the waiter that waits longest.
    pub async fn hand_over(&self, lease: Lease) {
        let name = lease.name.clone();
        // Together: the unlocking is under way before the token, and arrives before the woken waiter asks. A hung node delays the one
        // and not the other.
        let ((), woken) = tokio::join!(self.release(lease), self.line.wake(&name));
        if woken {
            self.gave_way.lock().insert(name, Instant::now());
        }
    }

    /// Gives a lease back for which no waiter sleeps in line.
    pub async fn release(&self, lease: Lease) {
        self.metrics.held(lease.granted, Instant::now() > lease.valid_until);
        // Through the current manager: the one that took the lock may still wait for a node that hangs.
        let lock_manager = self.nodes.manager().unwrap_or(lease.lock.lock_manager);
        Lock { lock_manager, ..lease.lock }.release().await;
    }
}
