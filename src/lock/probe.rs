//! The prober's look at one node. It does there what the lock and its line do, with keys of its own: a node that refuses any of it, or
//! is silent, is of no use to the lock, whatever it answers to `PING`.

use std::pin::pin;
use std::time::{Duration, Instant};

use futures_util::FutureExt;
use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Client, ErrorKind, InfoDict, Pipeline, RedisError, Script, ServerErrorKind};

use super::wake::{TOKEN_TAKEN_BY, push_token};
use super::{LockConfig, key_of};
use crate::metrics::{LockMetrics, Refusal};

/// A node that missed this many looks in a row is replaced.
const MISSES_MAX: u32 = 2;

/// A node that answered this many looks in a row comes back.
const HITS_MIN: u32 = 3;

/// A connection along which nothing was heard for so long is made anew, so that a name is looked up again.
const SILENCE_MAX: Duration = Duration::from_secs(2);

/// What gives a key back, as rslock's own script does: only for the process that has set it.
const GIVE_BACK: &str = "return redis.call('GET', KEYS[1]) == ARGV[1] and redis.call('DEL', KEYS[1]) or 0";

/// What is known of one node.
pub(super) struct Probe {
    place: usize,
    client: Client,
    /// Longest wait for an answer.
    timeout: Duration,
    ttl: Duration,
    /// What a look sends.
    trial: Pipeline,
    give_back: Script,
    connection: Option<MultiplexedConnection>,
    /// When the node last answered, or was last connected to.
    heard: Instant,
    run_id: Option<String>,
    votes_from: Instant,
    misses: u32,
    hits: u32,
    up: bool,
    /// The refusal that was logged, until the node answers again.
    told: Option<Refusal>,
    /// Whether a client slept at the node when it last answered.
    pub(super) sleepers: bool,
}

/// Why a node did not do what was asked of it, with its words.
struct Refused(Refusal, String);

impl Probe {
    pub(super) fn new(place: usize, client: &Client, config: &LockConfig) -> Self {
        let give_back = Script::new(GIVE_BACK);
        Self {
            place,
            client: client.clone(),
            timeout: config.probe_timeout,
            ttl: config.ttl,
            trial: trial(config, &give_back),
            give_back,
            connection: None,
            heard: Instant::now(),
            run_id: None,
            votes_from: Instant::now(),
            misses: 0,
            hits: 0,
            up: true,
            told: None,
            sleepers: false,
        }
    }

    /// Tries the node once and returns whether it may be used.
    pub(super) async fn look(&mut self, metrics: &LockMetrics) -> bool {
        let asked = Instant::now();
        match self.try_out().await {
            Ok(sleepers) => {
                (self.hits, self.misses, self.told, self.sleepers) = (self.hits + 1, 0, None, sleepers);
                self.heard = Instant::now();
                self.up |= self.hits >= HITS_MIN;
            }
            // A verdict that comes so late tells that this process got no CPU, and nothing about the node.
            Err(Refused(Refusal::Silent, _)) if asked.elapsed() > 4 * self.timeout => {}
            Err(refused) => {
                (self.hits, self.misses) = (0, self.misses + 1);
                self.up &= self.misses < MISSES_MAX;
                self.tell(&refused, metrics);
            }
        }
        // A node that restarted has forgotten the locks it granted; it votes again when those have expired.
        self.up && Instant::now() >= self.votes_from
    }

    /// Counts a refusal, and logs the first of a series. A single silence is not worth a line.
    fn tell(&mut self, Refused(refusal, words): &Refused, metrics: &LockMetrics) {
        metrics.refused(*refusal);
        if self.told != Some(*refusal) && (*refusal != Refusal::Silent || !self.up) {
            self.told = Some(*refusal);
            tracing::warn!(node = self.place + 1, words, "a lock node refuses what the lock needs");
        }
    }

    /// Whether a client sleeps at the node; an error if the node does not do all that is asked of it.
    async fn try_out(&mut self) -> Result<bool, Refused> {
        if self.connection.is_none() || self.heard.elapsed() > SILENCE_MAX {
            self.heard = Instant::now();
            self.connection = Some(self.connect().await?);
        }
        let Some(connection) = &mut self.connection else { return Err(silent()) };
        match in_time(self.timeout, send(&self.trial, &self.give_back, connection)).await {
            Some(Ok((1, clients))) => Ok(has_sleepers(&clients)),
            Some(Ok(_)) => Err(Refused(Refusal::Other, "a key that was set is gone at once".to_owned())),
            Some(Err(error)) => {
                if error.is_unrecoverable_error() {
                    self.connection = None;
                }
                Err(refused(error))
            }
            // The connection is kept: the node may only be slow, and its answers stay in order.
            None => Err(silent()),
        }
    }

    /// Connects and notes whether this is still the process that was seen before: a restart always breaks the connection.
    async fn connect(&mut self) -> Result<MultiplexedConnection, Refused> {
        let config =
            AsyncConnectionConfig::new().set_connection_timeout(Some(self.timeout * 3 / 2)).set_response_timeout(None);
        let connected = self.client.get_multiplexed_async_connection_with_config(&config).await;
        let mut connection = connected.map_err(refused)?;
        let mut ask = redis::cmd("INFO");
        let answer = ask.arg("server").query_async::<InfoDict>(&mut connection);
        let info = in_time(self.timeout, answer).await.ok_or_else(silent)?.map_err(refused)?;
        let run_id = info.get("run_id");
        if self.run_id.is_some() && self.run_id != run_id {
            self.votes_from = Instant::now() + self.ttl;
        }
        self.run_id = run_id;
        Ok(connection)
    }
}

/// What a lease, a release and a waiter send, with keys of this process alone, and the question whether a client sleeps: one round trip.
/// `PING` counts the looks in the node's own statistics.
fn trial(config: &LockConfig, give_back: &Script) -> Pipeline {
    let unique = format!("{:016x}", fastrand::u64(..));
    let (key, list) = (key_of(config, "probe", &unique), key_of(config, "probe-wake", &unique));
    let mut trial = redis::pipe();
    trial.cmd("PING").ignore();
    trial.cmd("SET").arg(&key).arg(&unique).arg("NX").arg("PX").arg(millis(config.ttl)).ignore();
    push_token(&mut trial, &list, config.ttl).ignore();
    // The token is there, so that this takes it at once; where the token was refused, it waits no longer than this.
    trial.cmd(TOKEN_TAKEN_BY).arg(&list).arg(0.001).ignore();
    trial.cmd("EVALSHA").arg(give_back.get_hash()).arg(1).arg(&key).arg(&unique);
    trial.cmd("INFO").arg("clients");
    trial
}

/// How many keys were given back, and what the node says of its clients.
async fn send(
    trial: &Pipeline,
    give_back: &Script,
    connection: &mut MultiplexedConnection,
) -> Result<(u32, InfoDict), RedisError> {
    match trial.query_async(connection).await {
        Err(error) if error.kind() == ErrorKind::Server(ServerErrorKind::NoScript) => {
            give_back.prepare_invoke().load_async(connection).await?;
            trial.query_async(connection).await
        }
        sent => sent,
    }
}

/// Whether a client sleeps at a node, before whichever lock.
pub(super) fn has_sleepers(clients: &InfoDict) -> bool {
    clients.get("blocked_clients") != Some(0)
}

/// A time in the unit of Redis' `PX`.
pub(super) fn millis(time: Duration) -> i64 {
    i64::try_from(time.as_millis()).unwrap_or(i64::MAX)
}

fn silent() -> Refused {
    Refused(Refusal::Silent, "no answer in time".to_owned())
}

fn refused(error: RedisError) -> Refused {
    if error.is_timeout() {
        return silent();
    }
    if error.is_io_error() {
        return Refused(Refusal::Unreachable, error.to_string());
    }
    let words = error.to_string();
    let kind = match error.into_server_errors().as_deref() {
        Some([(_, first), ..]) => Refusal::of(first.code()),
        // What comes of a password, before anything else is asked.
        _ if words.contains("Authentication") => Refusal::Forbidden,
        _ => Refusal::Other,
    };
    Refused(kind, words)
}

impl Refusal {
    /// What the first word of a server's refusal says.
    fn of(code: &str) -> Self {
        match code {
            "OOM" => Self::Memory,
            "READONLY" => Self::ReadOnly,
            "NOPERM" | "NOAUTH" | "WRONGPASS" => Self::Forbidden,
            "MISCONF" | "NOREPLICAS" => Self::Unsafe,
            "LOADING" | "BUSY" | "MASTERDOWN" => Self::Loading,
            _ => Self::Other,
        }
    }
}

/// The answer of a node, or `None` if it takes too long. A busy process sees its time-out before the answer that lies in the
/// socket. So the answer gets one turn each to be sent, received and handed over. Then, for what other threads have in hand, it gets
/// three times as long as the time-out was late, and at most the time-out once more.
async fn in_time<T>(timeout: Duration, answer: impl Future<Output = T>) -> Option<T> {
    let (mut answer, asked) = (pin!(answer), Instant::now());
    if let Ok(answer) = tokio::time::timeout(timeout, &mut answer).await {
        return Some(answer);
    }
    let late = asked.elapsed().saturating_sub(timeout);
    for _ in 0..3 {
        tokio::task::yield_now().await;
        if let Some(answer) = answer.as_mut().now_or_never() {
            return Some(answer);
        }
    }
    tokio::time::timeout((3 * late).min(timeout), answer).await.ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIMEOUT: Duration = Duration::from_millis(40);

    #[tokio::test]
    async fn an_answer_that_a_busy_process_reads_after_its_time_out_counts() {
        let (tell, told) = tokio::sync::oneshot::channel();
        tokio::spawn(async move {
            let started = Instant::now();
            while started.elapsed() < TIMEOUT * 3 / 2 {}
            for _ in 0..2 {
                tokio::task::yield_now().await;
            }
            let _ = tell.send("PONG");
        });

        assert_eq!(in_time(TIMEOUT, told).await, Some(Ok("PONG")));
    }

    #[tokio::test]
    async fn a_node_that_does_not_answer_is_given_up() {
        assert_eq!(in_time(TIMEOUT, std::future::pending::<()>()).await, None);
    }
}
