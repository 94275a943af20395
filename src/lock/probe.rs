//! The prober's look at one node. It does there what a lease, a waiter and a release do, with keys of its own: a node that refuses any of
//! it, or is silent, is of no use to the lock, whatever it answers to `PING`.

use std::pin::pin;
use std::time::{Duration, Instant};

use redis::aio::MultiplexedConnection;
use redis::{Client, ErrorKind, InfoDict, RedisError, RedisResult, Script};
use tokio::time::timeout;

use super::LockConfig;
use super::line::push_token;
use super::nodes::connect;
use crate::metrics::LockMetrics;

/// A node that missed so many looks in a row is replaced.
pub(super) const MISSES_MAX: i32 = 2;
/// One that did well in so many comes back.
const HITS_MIN: i32 = 3;
/// What gives a key back, as rslock's own script does: only for the process that has set it.
const GIVE_BACK: &str = "return redis.call('GET', KEYS[1]) == ARGV[1] and redis.call('DEL', KEYS[1]) or 0";

/// What is known of one node.
pub(super) struct Probe {
    client: Client,
    config: LockConfig,
    /// Kept from a good look to the next one; after a bad one the node's name is looked up again.
    connection: Option<MultiplexedConnection>,
    run_id: Option<String>,
    votes_from: Instant,
    /// Good looks in a row, or bad ones as a negative number.
    row: i32,
    up: bool,
}

impl Probe {
    pub(super) fn new(client: &Client, config: &LockConfig) -> Self {
        let (client, config, votes_from) = (client.clone(), config.clone(), Instant::now());
        Self { client, config, connection: None, run_id: None, votes_from, row: 0, up: true }
    }

    /// Lets the next look make a connection of its own.
    pub(super) fn disconnect(&mut self) {
        self.connection = None;
    }

    /// Tries the node once and returns whether it may be used.
    pub(super) async fn look(&mut self, metrics: &LockMetrics) -> bool {
        match in_time(self.config.probe_timeout, self.try_out()).await {
            Ok(()) => {
                self.row = self.row.max(0) + 1;
                self.up |= self.row >= HITS_MIN;
            }
            Err(error) => {
                metrics.refused(kind(&error));
                self.row = self.row.min(0) - 1;
                if self.up && self.row <= -MISSES_MAX {
                    let node = self.client.get_connection_info().addr();
                    tracing::warn!(%node, %error, "a lock node does not do what the lock needs");
                    self.up = false;
                }
            }
        }
        self.up && Instant::now() >= self.votes_from
    }

    /// Does all that is asked of a node, in one round trip.
    async fn try_out(&mut self) -> RedisResult<()> {
        let give_back = Script::new(GIVE_BACK);
        let mut connection = match self.connection.take() {
            Some(connection) => connection,
            None => self.connect(&give_back).await?,
        };
        let (ttl, unique) = (millis(self.config.ttl), format!("{:016x}", fastrand::u64(..)));
        let (key, list) = (self.config.key("probe", &unique), self.config.key("probe-wake", &unique));
        let mut trial = redis::pipe();
        // `PING` counts the looks in the node's own statistics.
        trial.ping().ignore().cmd("SET").arg(&key).arg(&unique).arg("NX").arg("PX").arg(ttl).ignore();
        // The token is there, so that nothing waits; where it is refused, no longer than this.
        push_token(&mut trial, &list, ttl).ignore().blpop(&list, 0.001).ignore();
        trial.cmd("EVALSHA").arg(give_back.get_hash()).arg(1).arg(key).arg(unique);
        if trial.query_async::<(u32,)>(&mut connection).await? == (0,) {
            return Err((ErrorKind::UnexpectedReturnType, "a key that was set is gone at once").into());
        }
        self.connection = Some(connection);
        Ok(())
    }

    /// Connects, and notes whether this is still the process that was seen before: a restart breaks every connection.
    async fn connect(&mut self, give_back: &Script) -> RedisResult<MultiplexedConnection> {
        let mut connection = connect(&self.client).await?;
        let info: InfoDict = redis::cmd("INFO").arg("server").query_async(&mut connection).await?;
        give_back.prepare_invoke().load_async(&mut connection).await?;
        let run_id = info.get("run_id");
        let is_first = self.run_id.is_none() && self.up;
        if self.run_id != run_id && !is_first {
            // It has forgotten the locks it granted, or one that was lost before it was seen may have. It votes when those have expired.
            self.votes_from = Instant::now() + self.config.ttl;
        }
        self.run_id = run_id;
        Ok(connection)
    }
}

/// What `look` comes to within twice the limit. A busy process sees its time-outs late, and before the answer that lies in the socket: so
/// four punctual ones are needed, or ten.
async fn in_time<T>(limit: Duration, look: impl Future<Output = RedisResult<T>>) -> RedisResult<T> {
    let (mut look, mut punctual) = (pin!(look), 0);
    for _ in 0..10 {
        let asked = Instant::now();
        if let Ok(seen) = timeout(limit / 2, &mut look).await {
            return seen;
        }
        punctual += u32::from(asked.elapsed() < limit);
        if punctual == 4 {
            break;
        }
    }
    Err(std::io::Error::from(std::io::ErrorKind::TimedOut).into())
}

/// The first word of a server's refusal, such as `oom`, `readonly`, `noperm`; or `silent`, `unreachable`, `other`.
fn kind(error: &RedisError) -> String {
    match error.clone().into_server_errors().as_deref() {
        Some([(_, first), ..]) => first.code().to_lowercase(),
        _ if error.kind() == ErrorKind::AuthenticationFailed => "noauth".to_owned(),
        _ if error.is_timeout() => "silent".to_owned(),
        _ if error.is_io_error() => "unreachable".to_owned(),
        _ => "other".to_owned(),
    }
}

/// A time in the unit of Redis' `PX`.
pub(super) fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_millis(40);

    #[tokio::test]
    async fn an_answer_that_a_busy_process_reads_after_its_time_out_counts() {
        let (tell, told) = tokio::sync::oneshot::channel();
        tokio::spawn(async move {
            for _ in 0..3 {
                let started = Instant::now();
                while started.elapsed() < 3 * LIMIT {}
                tokio::task::yield_now().await;
            }
            let _ = tell.send("PONG");
        });

        assert_eq!(in_time(LIMIT, async { Ok(told.await) }).await, Ok(Ok("PONG")));
    }

    #[tokio::test]
    async fn a_node_that_does_not_answer_is_given_up() {
        let started = Instant::now();

        let seen = in_time(LIMIT, std::future::pending::<RedisResult<()>>()).await;

        assert_eq!(seen.map_err(|error| kind(&error)), Err("silent".to_owned()));
        assert!(started.elapsed() < 10 * LIMIT, "{:?}", started.elapsed());
    }
}
