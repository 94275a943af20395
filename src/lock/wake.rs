//! Wake-ups: a release pushes a token to a list on one node, and one waiter pops it. Only a hint: the lock is rslock's, and a
//! waiter that misses its token asks again by itself after a short while.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use redis::AsyncConnectionConfig;
use redis::aio::MultiplexedConnection;

use super::Nodes;

/// Longest sleep of a waiter: what a lost wake-up costs.
const WAIT: Duration = Duration::from_millis(20);

/// Pause when the node that carries the wake-ups cannot be reached.
const PAUSE: Duration = Duration::from_millis(2);

/// Longest wait for an answer of that node beyond the sleep itself.
const TIMEOUT: Duration = Duration::from_millis(100);

/// The wake-ups of all codes.
pub(super) struct Wakes {
    nodes: Arc<Nodes>,
    prefix: String,
    ttl: Duration,
    /// Connections for waiting: a blocked one can carry nothing else, so each waiter borrows its own.
    idle: Mutex<Vec<(usize, MultiplexedConnection)>>,
    /// The connection that carries all tokens.
    pusher: Mutex<Option<(usize, MultiplexedConnection)>>,
}

impl Wakes {
    pub(super) fn new(nodes: Arc<Nodes>, prefix: &str, ttl: Duration) -> Self {
        Self { nodes, prefix: prefix.to_owned(), ttl, idle: Mutex::default(), pusher: Mutex::default() }
    }

    /// Sleeps until the lock called `name` was released, or a short while.
    pub(super) async fn wait(&self, name: &str) {
        if self.pop(name).await.is_none() {
            tokio::time::sleep(PAUSE.mul_f64(0.5 + fastrand::f64())).await;
        }
    }

    /// `None` when the node cannot be asked.
    async fn pop(&self, name: &str) -> Option<()> {
        let idle = self.idle.lock().pop();
        let (place, mut connection) = self.connection(idle).await?;
        let mut command = redis::cmd("BLPOP");
        command.arg(self.key(name)).arg(WAIT.as_secs_f64());
        command.query_async::<Option<(String, String)>>(&mut connection).await.ok()?;
        self.idle.lock().push((place, connection));
        Some(())
    }

    /// Wakes one waiter for `name`. Returns whether there was one.
    pub(super) async fn wake(&self, name: &str) -> bool {
        let current = self.pusher.lock().clone();
        let Some((place, mut connection)) = self.connection(current).await else { return false };
        let key = self.key(name);
        let mut pipeline = redis::pipe();
        pipeline.lpush(&key, 1).ignore().ltrim(&key, 0, 0).ignore();
        // A waiter takes the token at once, and then there is no list whose life could be limited.
        pipeline.pexpire(&key, i64::try_from(self.ttl.as_millis()).unwrap_or(i64::MAX));
        let left: Result<(bool,), _> = pipeline.query_async(&mut connection).await;
        *self.pusher.lock() = left.is_ok().then_some((place, connection));
        matches!(left, Ok((false,)))
    }

    /// `current` if it leads to the node that carries the wake-ups now, else a new connection to that node.
    async fn connection(
        &self,
        current: Option<(usize, MultiplexedConnection)>,
    ) -> Option<(usize, MultiplexedConnection)> {
        let (place, client) = self.nodes.first_up()?;
        if let Some(connection) = current.filter(|(node, _)| *node == place) {
            return Some(connection);
        }
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(TIMEOUT))
            .set_response_timeout(Some(WAIT + TIMEOUT));
        let connection = client.get_multiplexed_async_connection_with_config(&config).await.ok()?;
        Some((place, connection))
    }

    fn key(&self, name: &str) -> String {
        format!("{}wake:{name}", self.prefix)
    }
}
