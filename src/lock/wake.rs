//! Wake-ups: a release pushes a token to a list on one node, and the waiter that waits longest pops it. A token is only a hint: the
//! lock is rslock's, and a waiter that misses its token asks again by itself after a while.
//!
//! The line before a lock stands at the first node that is up. Replicas that cannot reach the same nodes find each other all the same: a
//! release also wakes waiters at other nodes, where the probe has seen clients asleep; a waiter that is not woken for long tries the next
//! node; and each replica remembers where it last met others.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use parking_lot::Mutex;
use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, InfoDict, Pipeline, RedisResult};

use super::key_of;
use super::nodes::Nodes;
use super::probe::{has_sleepers, millis};

/// Pause when a node cannot be asked: the waiter goes on to the next place without connecting hundreds of times a second.
const PAUSE: Duration = Duration::from_millis(50);

/// How long a place in line lasts. Longer than the lock usually takes to come back to a replica, because a new place is at the end of the
/// line: a waiter that takes new places more often than that never gets to the front. Short all the same, because a place at a node to
/// which no release pushes tokens is worth nothing.
const PLACE: Duration = Duration::from_millis(500);

/// A waiter takes so many places at one node before it tries the next.
const PLACES: usize = 2;

/// How long a replica remembers at which node it last met others.
const REMEMBERED: Duration = Duration::from_secs(10);

/// The command that waits for a token and takes it.
pub(super) const TOKEN_TAKEN_BY: &str = "BLPOP";

/// The wake-ups of all codes.
pub(super) struct Wakes {
    nodes: Arc<Nodes>,
    stations: Vec<Station>,
    /// The lines in which this replica has met others. No more than there are coupons.
    lines: Mutex<HashMap<String, Line>>,
}

/// The connections to a node.
#[derive(Default)]
struct Station {
    /// For waiting: a blocked one can carry nothing else, so each waiter borrows its own.
    idle: Mutex<Vec<MultiplexedConnection>>,
    /// For everything else.
    sender: Mutex<Option<MultiplexedConnection>>,
}

/// Where this replica last met others before one lock.
struct Line {
    node: usize,
    met: Instant,
    /// Whether a release of this replica has woken a waiter there: it is that one's turn.
    gives_way: bool,
}

impl Wakes {
    pub(super) fn new(nodes: Arc<Nodes>) -> Self {
        let stations = (0..nodes.count()).map(|_| Station::default()).collect();
        Self { nodes, stations, lines: Mutex::default() }
    }

    /// Whether to line up for `name` before asking for it: a short while ago a release of this replica woke a waiter, and it is that
    /// one's turn. The waiter has taken the token, so that none is left in the line that would wake this replica at once.
    pub(super) fn others_wait(&self, name: &str) -> bool {
        self.lines.lock().get(name).is_some_and(|line| line.gives_way && line.met.elapsed() < self.nodes.config.ttl / 2)
    }

    /// The node at which others were met before the lock called `name`.
    fn known(&self, name: &str) -> Option<usize> {
        self.lines.lock().get(name).filter(|line| line.met.elapsed() < REMEMBERED).map(|line| line.node)
    }

    fn meet(&self, name: &str, node: usize, gives_way: bool) {
        self.lines.lock().insert(name.to_owned(), Line { node, met: Instant::now(), gives_way });
    }

    /// Whether no client sleeps before any lock: the first node counts its blocked clients now, and the probe has counted those of the
    /// other nodes. Clients before other locks count, too: this errs on the side of giving way.
    pub(super) async fn nobody_sleeps(&self) -> bool {
        let up = self.nodes.up();
        let Some((&first, others)) = up.split_first() else { return false };
        !others.iter().any(|&node| self.nodes.has_sleepers(node))
            && self.send(first, clients).await.is_some_and(|clients| !has_sleepers(&clients))
    }

    /// What identifies the holder of the lock with this key: the value that a majority of the nodes has.
    pub(super) async fn holder(&self, key: &str) -> Option<Vec<u8>> {
        let ask = |node| {
            self.send(node, async |node: &mut MultiplexedConnection| {
                redis::cmd("GET").arg(key).query_async::<Option<Vec<u8>>>(node).await
            })
        };
        let values = join_all(self.nodes.up().into_iter().map(ask)).await;
        let values: Vec<_> = values.into_iter().flatten().flatten().collect();
        let has = |value: &&Vec<u8>| 2 * values.iter().filter(|it| it == value).count() > self.nodes.count();
        values.iter().find(has).cloned()
    }

    /// Takes the last place in the line before the lock called `name`. Returns true when the place is the first and a release wakes it,
    /// false when the place is lost; `lost` of them were lost before. Dropping the future gives the place up; a wake-up that is then on
    /// its way wakes no waiter.
    pub(super) async fn line_up(&self, name: &str, lost: usize) -> bool {
        let Some(node) = self.place(name, lost) else { return false };
        let popped = self.pop(node, name).await;
        if popped == Some(true) {
            self.meet(name, node, false);
        } else if popped.is_none() {
            tokio::time::sleep(PAUSE.mul_f64(0.5 + fastrand::f64())).await;
        }
        popped == Some(true)
    }

    /// The node at which to line up: where this replica last met others, and then one after the other of those that are up.
    fn place(&self, name: &str, lost: usize) -> Option<usize> {
        let up = self.nodes.up();
        let known = self.known(name).and_then(|known| up.iter().position(|&node| node == known));
        up.get((known.unwrap_or(0) + lost / PLACES) % up.len().max(1)).copied()
    }

    /// Whether there was a token; `None` when the node cannot be asked.
    async fn pop(&self, node: usize, name: &str) -> Option<bool> {
        let idle = self.stations[node].idle.lock().pop();
        let mut connection = self.connection(idle, node, PLACE).await?;
        let mut command = redis::cmd(TOKEN_TAKEN_BY);
        command.arg(self.key(name)).arg(PLACE.as_secs_f64());
        let token = command.query_async::<Option<(String, String)>>(&mut connection).await.ok()?;
        self.stations[node].idle.lock().push(connection);
        Some(token.is_some())
    }

    /// Wakes one waiter for `name`, or leaves a token for the next one; at the first node, and at each where a client may sleep.
    pub(super) async fn wake(&self, name: &str) {
        let known = self.known(name);
        let mut nodes = self.nodes.up();
        let first = nodes.first().copied();
        nodes.retain(|&node| Some(node) == first || Some(node) == known || self.nodes.has_sleepers(node));
        let woken = join_all(nodes.iter().map(|&node| self.push(node, name))).await;
        if let Some((node, _)) = nodes.into_iter().zip(woken).find(|(_, woken)| *woken) {
            self.meet(name, node, true);
        } else if let Some(line) = self.lines.lock().get_mut(name) {
            line.gives_way = false;
        }
    }

    /// Pushes a token. Returns whether a waiter took it at once.
    async fn push(&self, node: usize, name: &str) -> bool {
        let mut pipeline = redis::pipe();
        push_token(&mut pipeline, &self.key(name), self.nodes.config.ttl);
        // Where a waiter has taken the token there is no list any more, and limiting its life fails.
        self.send(node, async |node: &mut MultiplexedConnection| pipeline.query_async(node).await).await
            == Some((false,))
    }

    /// What the node answers to `ask`; `None` when it cannot be asked.
    async fn send<T>(
        &self,
        node: usize,
        ask: impl AsyncFnOnce(&mut MultiplexedConnection) -> RedisResult<T>,
    ) -> Option<T> {
        let sender = &self.stations[node].sender;
        let current = sender.lock().clone();
        let mut connection = self.connection(current, node, Duration::ZERO).await?;
        let answer = ask(&mut connection).await;
        // After a refusal it is as good as before.
        let is_broken = answer.as_ref().is_err_and(|error| error.is_timeout() || error.is_unrecoverable_error());
        *sender.lock() = (!is_broken).then_some(connection);
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
        // Longest wait for an answer beyond the sleep itself.
        let timeout = self.nodes.config.probe_timeout * 5 / 2;
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(timeout))
            .set_response_timeout(Some(sleep + timeout));
        self.nodes.client(node).get_multiplexed_async_connection_with_config(&config).await.ok()
    }

    fn key(&self, name: &str) -> String {
        key_of(&self.nodes.config, "wake", name)
    }
}

/// Adds the commands that put a token into a list: never more than one lies there, and not for long.
pub(super) fn push_token<'a>(pipeline: &'a mut Pipeline, list: &str, lives: Duration) -> &'a mut Pipeline {
    pipeline.lpush(list, 1).ignore().ltrim(list, 0, 0).ignore().pexpire(list, millis(lives))
}

/// What a node says of its clients.
async fn clients(node: &mut MultiplexedConnection) -> RedisResult<InfoDict> {
    redis::cmd("INFO").arg("clients").query_async(node).await
}
