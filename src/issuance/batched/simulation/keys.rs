//! The lock as a model: keys with a time-to-live that are granted, forgotten and lost as the plan says.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::plan::LockFault;
use super::{hop, millis};
use crate::issuance::locking::Locking;
use crate::lock::LockError;

/// How long a key lives when its holder does not delete it.
const TTL: Duration = Duration::from_millis(1_500);

/// Longest sleep of a waiter without a wake-up.
const WAIT: Duration = Duration::from_millis(20);

/// The keys of all codes, shared by the replicas.
#[derive(Default)]
pub(super) struct Keys {
    state: Mutex<State>,
    released: Notify,
}

#[derive(Default)]
struct State {
    /// Name to number and end.
    held: BTreeMap<String, (u64, Instant)>,
    faults: VecDeque<LockFault>,
    tokens: u64,
    waiting: usize,
    /// Whether the last release woke a waiter.
    lines_up: bool,
    /// Leases that were granted and not given back.
    outstanding: usize,
}

/// A granted key.
pub(super) struct Token {
    name: String,
    number: u64,
    /// How long the nodes hang when the holder asks them something.
    hung: Duration,
}

impl Token {
    async fn hop(&self) {
        hop().await;
        if !self.hung.is_zero() {
            tokio::time::sleep(self.hung).await;
        }
    }
}

impl Keys {
    pub(super) fn new(faults: &[LockFault]) -> Arc<Self> {
        let state = State { faults: faults.iter().copied().collect(), ..State::default() };
        Arc::new(Self { state: Mutex::new(state), released: Notify::new() })
    }

    /// Leases that were not given back.
    pub(super) fn outstanding(&self) -> usize {
        self.state.lock().outstanding
    }

    /// One attempt; `None` while the key is held.
    async fn attempt(&self, name: &str) -> Result<Option<Token>, LockError> {
        let fault = self.state.lock().faults.pop_front().unwrap_or(LockFault::None);
        hop().await;
        let mut hung = Duration::ZERO;
        match fault {
            LockFault::QuorumGone => return Err(LockError::QuorumGone),
            LockFault::NotGranted => return Err(LockError::NotGranted),
            LockFault::Slow { ms } => tokio::time::sleep(millis(ms)).await,
            LockFault::HungLater { ms } => hung = millis(ms),
            LockFault::Amnesia | LockFault::None => {}
        }
        let mut state = self.state.lock();
        let now = Instant::now();
        if fault != LockFault::Amnesia && state.held.get(name).is_some_and(|(_, end)| now < *end) {
            return Ok(None);
        }
        state.tokens += 1;
        state.outstanding += 1;
        let number = state.tokens;
        state.held.insert(name.to_owned(), (number, now + TTL));
        Ok(Some(Token { name: name.to_owned(), number, hung }))
    }

    async fn wait(&self) {
        self.state.lock().waiting += 1;
        let _ = tokio::time::timeout(WAIT, self.released.notified()).await;
        self.state.lock().waiting -= 1;
    }
}

impl Locking for Arc<Keys> {
    type Lease = Token;

    async fn acquire(&self, name: &str, mut wanted: impl FnMut() -> bool + Send) -> Result<Token, LockError> {
        let mut lines_up = self.state.lock().lines_up;
        while wanted() {
            if !lines_up && let Some(token) = self.attempt(name).await? {
                return Ok(token);
            }
            lines_up = false;
            self.wait().await;
        }
        self.released.notify_one();
        Err(LockError::Abandoned)
    }

    async fn may_stay(&self, lease: &Token) -> bool {
        lease.hop().await;
        let state = self.state.lock();
        let young = |(number, end): &(u64, Instant)| *number == lease.number && Instant::now() + TTL / 2 < *end;
        state.waiting == 0 && !state.lines_up && state.held.get(&lease.name).is_some_and(young)
    }

    async fn hand_over(&self, lease: Token) {
        lease.hop().await;
        let mut state = self.state.lock();
        state.outstanding -= 1;
        if state.held.get(&lease.name).is_some_and(|(number, _)| *number == lease.number) {
            state.held.remove(&lease.name);
        }
        self.released.notify_one();
        state.lines_up = state.waiting > 0;
    }
}
