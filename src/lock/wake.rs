//! Wake-ups: a release pushes a token to a list on one node, and the waiter that waits longest pops it. Only a hint: the lock is
//! rslock's, and a waiter that misses its token asks again by itself after a while.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, FromRedisValue, InfoDict, Pipeline};

use super::Nodes;

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
    /// The connection for everything else.
    sender: Mutex<Option<(usize, MultiplexedConnection)>>,
    /// The names for which somebody else waited when this process last released them, and when that was. No more than there
    /// are coupons.
    others: Mutex<HashMap<String, Instant>>,
}

impl Wakes {
    pub(super) fn new(nodes: Arc<Nodes>, prefix: &str, ttl: Duration) -> Self {
        let (idle, sender, others) = (Mutex::default(), Mutex::default(), Mutex::default());
        Self { nodes, prefix: prefix.to_owned(), ttl, idle, sender, others }
    }

    /// Whether to line up for `name` before asking for it: a short while ago somebody else was woken, whose turn it is. The token
    /// of whoever has it last still lies there then, so that nobody lines up for nothing.
    pub(super) fn others_wait(&self, name: &str) -> bool {
        self.others.lock().get(name).is_some_and(|woken| woken.elapsed() < self.ttl / 2)
    }

    /// Whether nobody sleeps before any lock: the node that carries the wake-ups counts its blocked clients. Somebody before another
    /// lock is counted, too, so that this errs on the side of giving way.
    pub(super) async fn nobody_sleeps(&self) -> bool {
        let mut pipeline = redis::pipe();
        pipeline.cmd("INFO").arg("clients");
        let clients: Option<(InfoDict,)> = self.send(&pipeline).await;
        clients.is_some_and(|(clients,)| clients.get("blocked_clients") == Some(0))
    }

    /// Takes the last place in the line before the lock called `name`, and returns when it is the first and a release wakes it: true; or
    /// false when the place is lost. Dropping it gives it up; a wake-up that is on its way then wakes nobody.
    pub(super) async fn line_up(&self, name: &str) -> bool {
        let popped = self.pop(name).await;
        if popped.is_none() {
            tokio::time::sleep(PAUSE.mul_f64(0.5 + fastrand::f64())).await;
        }
        popped == Some(true)
    }

    /// Whether there was a token; `None` when the node cannot be asked.
    async fn pop(&self, name: &str) -> Option<bool> {
        let idle = self.idle.lock().pop();
        let (node, mut connection) = self.connection(idle, PLACE).await?;
        let mut command = redis::cmd("BLPOP");
        command.arg(self.key(name)).arg(PLACE.as_secs_f64());
        let token = command.query_async::<Option<(String, String)>>(&mut connection).await.ok()?;
        self.idle.lock().push((node, connection));
        Some(token.is_some())
    }

    /// Wakes one waiter for `name`, or leaves a token for the next one.
    pub(super) async fn wake(&self, name: &str) {
        let woken = self.push(name).await;
        let mut others = self.others.lock();
        if woken {
            others.insert(name.to_owned(), Instant::now());
        } else {
            others.remove(name);
        }
    }

    /// Whether somebody took the token at once.
    async fn push(&self, name: &str) -> bool {
        let key = self.key(name);
        let mut pipeline = redis::pipe();
        pipeline.lpush(&key, 1).ignore().ltrim(&key, 0, 0).ignore();
        // A waiter takes the token at once, and then there is no list whose life could be limited.
        pipeline.pexpire(&key, i64::try_from(self.ttl.as_millis()).unwrap_or(i64::MAX));
        self.send(&pipeline).await == Some((false,))
    }

    /// What the node that carries the wake-ups answers; `None` when it cannot be asked.
    async fn send<T: FromRedisValue>(&self, pipeline: &Pipeline) -> Option<T> {
        let current = self.sender.lock().clone();
        let (node, mut connection) = self.connection(current, Duration::ZERO).await?;
        let answer = pipeline.query_async(&mut connection).await;
        *self.sender.lock() = answer.is_ok().then_some((node, connection));
        answer.ok()
    }

    /// `current` if it leads to the node that carries the wake-ups now, else a new connection to that node, whose answers may
    /// take as long as its commands `sleep`.
    async fn connection(
        &self,
        current: Option<(usize, MultiplexedConnection)>,
        sleep: Duration,
    ) -> Option<(usize, MultiplexedConnection)> {
        let (node, client) = self.nodes.first_up()?;
        if let Some(connection) = current.filter(|(to, _)| *to == node) {
            return Some(connection);
        }
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(TIMEOUT))
            .set_response_timeout(Some(sleep + TIMEOUT));
        let connection = client.get_multiplexed_async_connection_with_config(&config).await.ok()?;
        Some((node, connection))
    }

    fn key(&self, name: &str) -> String {
        format!("{}wake:{name}", self.prefix)
    }
}
