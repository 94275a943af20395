//! Wake-ups: a release pushes a token to a list on one node, the first that is up, and the waiter that waits longest pops it. Whoever
//! cannot reach that node sleeps at another one, where the probe sees him, and gets a token of his own. Only a hint: the lock is
//! rslock's, and a waiter that misses its token asks again by itself after a while.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use parking_lot::Mutex;
use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, RedisResult};

use super::nodes::{Nodes, has_sleepers};

/// Pause when the node that carries the wake-ups cannot be reached.
const PAUSE: Duration = Duration::from_millis(2);

/// How long a place in line lasts. Longer than the lock usually takes to go round, because a new place is at the end of the line:
/// whoever takes one more often than it goes round never gets to the front. Short, because a place at a node that no longer carries the wake-ups is worth nothing.
const PLACE: Duration = Duration::from_millis(500);

/// Longest wait for an answer of that node beyond the sleep itself.
const TIMEOUT: Duration = Duration::from_millis(100);

/// The wake-ups of all codes.
pub(super) struct Wakes {
    nodes: Arc<Nodes>,
    prefix: String,
    ttl: Duration,
    /// Connections for waiting: a blocked one can carry nothing else, so each waiter borrows its own.
    idle: Mutex<Vec<(usize, MultiplexedConnection)>>,
    /// The connections for everything else, one to each node.
    senders: Vec<Mutex<Option<MultiplexedConnection>>>,
    /// The names for which somebody else waited when this process last released them, and when that was. No more than there
    /// are coupons.
    others: Mutex<HashMap<String, Instant>>,
}

impl Wakes {
    pub(super) fn new(nodes: Arc<Nodes>, prefix: &str, ttl: Duration) -> Self {
        let senders = (0..nodes.count()).map(|_| Mutex::default()).collect();
        Self { nodes, prefix: prefix.to_owned(), ttl, idle: Mutex::default(), senders, others: Mutex::default() }
    }

    /// Whether to line up for `name` before asking for it: a short while ago somebody else was woken, whose turn it is. The token
    /// of whoever has it last still lies there then, so that nobody lines up for nothing.
    pub(super) fn others_wait(&self, name: &str) -> bool {
        self.others.lock().get(name).is_some_and(|woken| woken.elapsed() < self.ttl / 2)
    }

    /// Whether nobody sleeps before any lock: the node that carries the wake-ups counts its blocked clients. Somebody before another
    /// lock is counted, too, so that this errs on the side of giving way.
    pub(super) async fn nobody_sleeps(&self) -> bool {
        let Some(first) = self.nodes.up().next() else { return false };
        self.nodes.with_sleepers().next().is_none()
            && self.send(first, async |node| has_sleepers(node).await).await == Some(false)
    }

    /// Takes the last place in the line before the lock called `name`, and returns when it is the first and a release wakes it: true; or
    /// false when the place is lost. Dropping it gives it up; a wake-up that is on its way then wakes nobody. Whoever has `lost` two places
    /// takes the next two at another node: a holder who cannot reach the first one wakes nobody there.
    pub(super) async fn line_up(&self, name: &str, lost: usize) -> bool {
        let popped = self.pop(name, lost).await;
        if popped.is_none() {
            tokio::time::sleep(PAUSE.mul_f64(0.5 + fastrand::f64())).await;
        }
        popped == Some(true)
    }

    /// Whether there was a token; `None` when the node cannot be asked.
    async fn pop(&self, name: &str, lost: usize) -> Option<bool> {
        let node = self.nodes.up().cycle().nth(lost / 2)?;
        let idle = self.idle.lock().pop().filter(|(to, _)| *to == node);
        let mut connection = self.connection(idle.map(|(_, connection)| connection), node, PLACE).await?;
        let mut command = redis::cmd("BLPOP");
        command.arg(self.key(name)).arg(PLACE.as_secs_f64());
        let token = command.query_async::<Option<(String, String)>>(&mut connection).await.ok()?;
        self.idle.lock().push((node, connection));
        Some(token.is_some())
    }

    /// Wakes one waiter for `name`, or leaves a token for the next one. Who sleeps elsewhere is woken, too.
    pub(super) async fn wake(&self, name: &str) {
        let Some(first) = self.nodes.up().next() else { return };
        let elsewhere = join_all(self.nodes.with_sleepers().map(|node| self.push(node, name)));
        let (here, elsewhere) = tokio::join!(self.push(first, name), elsewhere);
        let mut others = self.others.lock();
        if here || elsewhere.contains(&true) {
            others.insert(name.to_owned(), Instant::now());
        } else {
            others.remove(name);
        }
    }

    /// Whether somebody took the token at once.
    async fn push(&self, node: usize, name: &str) -> bool {
        let key = self.key(name);
        let mut pipeline = redis::pipe();
        pipeline.lpush(&key, 1).ignore().ltrim(&key, 0, 0).ignore();
        // A waiter takes the token at once, and then there is no list whose life could be limited.
        pipeline.pexpire(&key, i64::try_from(self.ttl.as_millis()).unwrap_or(i64::MAX));
        self.send(node, async |node| pipeline.query_async(node).await).await == Some((false,))
    }

    /// What the node answers to `ask`; `None` when it cannot be asked.
    async fn send<T>(
        &self,
        node: usize,
        ask: impl AsyncFnOnce(&mut MultiplexedConnection) -> RedisResult<T>,
    ) -> Option<T> {
        let current = self.senders[node].lock().clone();
        let mut connection = self.connection(current, node, Duration::ZERO).await?;
        let answer = ask(&mut connection).await;
        *self.senders[node].lock() = answer.is_ok().then_some(connection);
        answer.ok()
    }

    /// `current`, or else a new connection to the node, whose answers may take as long as its commands `sleep`.
    async fn connection(
        &self,
        current: Option<MultiplexedConnection>,
        node: usize,
        sleep: Duration,
    ) -> Option<MultiplexedConnection> {
        if current.is_some() {
            return current;
        }
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(TIMEOUT))
            .set_response_timeout(Some(sleep + TIMEOUT));
        self.nodes.client(node).get_multiplexed_async_connection_with_config(&config).await.ok()
    }

    fn key(&self, name: &str) -> String {
        format!("{}wake:{name}", self.prefix)
    }
}
