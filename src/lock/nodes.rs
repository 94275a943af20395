//! The Redis nodes and the prober that keeps a hung one from slowing the rest.
//!
//! rslock waits for every node, up to half a second for one that hangs. So a task asks each node on a connection of its own
//! whether it is there, and whether anybody sleeps at it. One that is not there gets replaced, in a fresh lock manager, by a client that
//! fails at once: the number of nodes, and so the quorum, stays what it was.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::ensure;
use arc_swap::ArcSwap;
use futures_util::FutureExt;
use redis::aio::MultiplexedConnection;
use redis::io::tcp::TcpSettings;
use redis::{AsyncConnectionConfig, Client, InfoDict, IntoConnectionInfo, RedisResult};
use rslock::LockManager;
use tokio_util::sync::CancellationToken;

use crate::metrics::LockMetrics;

/// Time between two looks at a node.
const PROBE_INTERVAL: Duration = Duration::from_millis(75);

/// Longest wait of a probe for its connection.
const PROBE_CONNECT_TIMEOUT: Duration = Duration::from_millis(60);

/// Longest wait of a probe for its answer.
const PROBE_RESPONSE_TIMEOUT: Duration = Duration::from_millis(40);

/// A time-out that comes later than this tells that this process got no CPU, and nothing about the node.
const PROBE_LATE: Duration = Duration::from_millis(150);

/// A node that missed this many probes in a row is replaced.
const MISSES_MAX: u32 = 2;

/// A node that answered this many probes in a row comes back.
const HITS_MIN: u32 = 3;

/// Longest wait for the connections of a new lock manager. A node that hangs meanwhile would keep the prober for two seconds, and
/// everybody who asks a manager whose connection to it is missing.
const WARM_UP_TIMEOUT: Duration = Duration::from_millis(250);

/// What was sent and is not acknowledged for so long breaks its connection: a firewall may have forgotten it, and the kernel
/// would go on for a quarter of an hour. A node that merely hangs has a kernel that acknowledges.
const UNACKNOWLEDGED_MAX: Duration = Duration::from_secs(2);

/// A Unix socket that does not exist: connecting to it fails in microseconds.
const NOWHERE: &str = "redis+unix:///nonexistent/coupon-rush.sock";

/// The nodes and which of them can be used now.
pub struct Nodes {
    clients: Vec<Client>,
    current: ArcSwap<Current>,
    /// Whether somebody slept at each node when it last answered.
    sleepers: Vec<AtomicBool>,
    ttl: Duration,
}

/// One state of the nodes with the lock manager made for it.
struct Current {
    up: Vec<bool>,
    manager: LockManager,
}

impl Nodes {
    /// Opens clients for the `urls` of independent nodes; all are taken for up until the prober says otherwise.
    pub async fn new(urls: &[String], ttl: Duration) -> anyhow::Result<Arc<Self>> {
        let clients = urls.iter().map(|url| client(url)).collect::<Result<Vec<_>, _>>()?;
        ensure!(are_different(&clients), "the same server twice is not two independent servers");
        let up = vec![true; clients.len()];
        let manager = manager(&clients, &up).await?;
        let sleepers = clients.iter().map(|_| AtomicBool::default()).collect();
        Ok(Arc::new(Self { clients, current: ArcSwap::from_pointee(Current { up, manager }), sleepers, ttl }))
    }

    /// The lock manager of now; `None` when fewer nodes than a majority are up.
    pub(super) fn manager(&self) -> Option<LockManager> {
        let current = self.current.load();
        self.is_quorum(&current.up).then(|| current.manager.clone())
    }

    /// Whether a majority of the nodes is up.
    pub fn has_quorum(&self) -> bool {
        self.is_quorum(&self.current.load().up)
    }

    fn is_quorum(&self, up: &[bool]) -> bool {
        up.iter().filter(|&&up| up).count() > self.clients.len() / 2
    }

    pub(super) fn count(&self) -> usize {
        self.clients.len()
    }

    pub(super) fn client(&self, place: usize) -> &Client {
        &self.clients[place]
    }

    /// The places of the nodes that are up. The first of them carries the wake-ups.
    pub(super) fn up(&self) -> Vec<usize> {
        let current = self.current.load();
        (0..self.count()).filter(|&place| current.up[place]).collect()
    }

    /// Whether somebody slept at the node when it last answered.
    pub(super) fn has_sleepers(&self, place: usize) -> bool {
        self.sleepers[place].load(Ordering::Relaxed)
    }

    /// Watches the nodes until `stopped`.
    pub async fn watch(self: Arc<Self>, metrics: LockMetrics, stopped: CancellationToken) {
        let mut probes: Vec<Probe> = self.clients.iter().map(Probe::new).collect();
        while !stopped.is_cancelled() {
            let verdicts = futures_util::future::join_all(probes.iter_mut().map(|probe| probe.look(self.ttl))).await;
            for (seen, probe) in self.sleepers.iter().zip(&probes) {
                seen.store(probe.sleepers, Ordering::Relaxed);
            }
            self.publish(verdicts, &metrics).await;
            let _ = tokio::time::timeout(PROBE_INTERVAL, stopped.cancelled()).await;
        }
    }

    /// Makes a manager for what was seen, if it differs from what is in use, and then tells so.
    async fn publish(&self, up: Vec<bool>, metrics: &LockMetrics) {
        if self.current.load().up != up {
            self.renew(&up).await;
        }
        for (place, up) in up.into_iter().enumerate() {
            metrics.node_up(place, up);
        }
    }

    async fn renew(&self, up: &[bool]) {
        tracing::warn!(?up, "the set of usable lock nodes has changed");
        match tokio::time::timeout(WARM_UP_TIMEOUT, manager(&self.clients, up)).await {
            Ok(Ok(manager)) => self.current.store(Arc::new(Current { up: up.to_vec(), manager })),
            Ok(Err(error)) => tracing::error!(%error, "cannot make a lock manager"),
            // The next look tells whether another node hangs, too.
            Err(_) => tracing::warn!("a lock manager is not ready in time"),
        }
    }
}

/// Whether no two of them lead to the same server, whichever database of it.
fn are_different(clients: &[Client]) -> bool {
    let addresses: Vec<_> = clients.iter().map(|client| client.get_connection_info().addr()).collect();
    (1..addresses.len()).all(|place| !addresses[..place].contains(&addresses[place]))
}

/// A client without Nagle's delay.
fn client(url: &str) -> RedisResult<Client> {
    let settings = TcpSettings::default().set_nodelay(true);
    #[cfg(target_os = "linux")]
    let settings = settings.set_user_timeout(UNACKNOWLEDGED_MAX);
    Client::open(url.into_connection_info()?.set_tcp_settings(settings))
}

/// A lock manager whose down nodes fail at once. It takes one lock before it is published, so that no request waits for
/// its connections to be made.
async fn manager(clients: &[Client], up: &[bool]) -> RedisResult<LockManager> {
    let nowhere = Client::open(NOWHERE)?;
    let usable = clients.iter().zip(up).map(|(client, &up)| if up { client.clone() } else { nowhere.clone() });
    let mut manager = LockManager::from_clients(usable.collect());
    // One attempt; rslock panics on a pause of zero even though it never pauses then.
    manager.set_retry(1, Duration::from_millis(1));
    let key = format!("warm:{:016x}", fastrand::u64(..));
    if let Ok(lock) = manager.lock(key.as_bytes(), Duration::from_secs(1)).await {
        lock.release().await;
    }
    Ok(manager)
}

/// Whether anybody sleeps at a node, before whichever lock. Fails at a node that refuses writes after a failed save, which `PING`
/// tells and `INFO` does not.
pub(super) async fn ask_for_sleepers(connection: &mut MultiplexedConnection) -> RedisResult<bool> {
    let (clients,): (InfoDict,) =
        redis::pipe().cmd("PING").ignore().cmd("INFO").arg("clients").query_async(connection).await?;
    Ok(clients.get("blocked_clients") != Some(0))
}

/// The answer of a node, or `None` if it takes too long. A busy process sees its time-out before the answer that lies in the
/// socket. So that gets a turn each to be sent, received and handed over, and then, for what other threads have in hand, three times
/// as long as the time-out was late; at most as long as it had already.
async fn in_time<T>(answer: impl Future<Output = T>) -> Option<T> {
    let (mut answer, asked) = (pin!(answer), Instant::now());
    if let Ok(answer) = tokio::time::timeout(PROBE_RESPONSE_TIMEOUT, &mut answer).await {
        return Some(answer);
    }
    let late = asked.elapsed().saturating_sub(PROBE_RESPONSE_TIMEOUT);
    for _ in 0..3 {
        tokio::task::yield_now().await;
        if let Some(answer) = answer.as_mut().now_or_never() {
            return Some(answer);
        }
    }
    tokio::time::timeout((3 * late).min(PROBE_RESPONSE_TIMEOUT), answer).await.ok()
}

/// What is known of one node.
struct Probe {
    client: Client,
    connection: Option<MultiplexedConnection>,
    run_id: Option<String>,
    votes_from: Instant,
    misses: u32,
    hits: u32,
    up: bool,
    sleepers: bool,
}

impl Probe {
    fn new(client: &Client) -> Self {
        Self {
            client: client.clone(),
            connection: None,
            run_id: None,
            votes_from: Instant::now(),
            misses: 0,
            hits: 0,
            up: true,
            sleepers: false,
        }
    }

    /// Asks the node once and returns whether it may be used.
    async fn look(&mut self, ttl: Duration) -> bool {
        let asked = Instant::now();
        if self.answers(ttl).await {
            (self.hits, self.misses) = (self.hits + 1, 0);
            self.up |= self.hits >= HITS_MIN;
        } else if asked.elapsed() < PROBE_LATE {
            (self.hits, self.misses) = (0, self.misses + 1);
            self.up &= self.misses < MISSES_MAX;
        }
        // A node that restarted has forgotten the locks it granted; it votes again when those have expired.
        self.up && Instant::now() >= self.votes_from
    }

    async fn answers(&mut self, ttl: Duration) -> bool {
        if self.connection.is_none() && !self.connect(ttl).await {
            return false;
        }
        let Some(connection) = &mut self.connection else { return false };
        match in_time(ask_for_sleepers(connection)).await {
            Some(Ok(sleepers)) => {
                self.sleepers = sleepers;
                true
            }
            Some(Err(_)) => {
                self.connection = None;
                false
            }
            // The connection is kept: the node may only be slow, and its answers stay in order.
            None => false,
        }
    }

    /// Connects and notes whether this is still the process that was seen before: a restart always breaks the connection.
    async fn connect(&mut self, ttl: Duration) -> bool {
        let config =
            AsyncConnectionConfig::new().set_connection_timeout(Some(PROBE_CONNECT_TIMEOUT)).set_response_timeout(None);
        let Ok(mut connection) = self.client.get_multiplexed_async_connection_with_config(&config).await else {
            return false;
        };
        let info = in_time(redis::cmd("INFO").arg("server").query_async::<String>(&mut connection)).await;
        let Some(Ok(info)) = info else { return false };
        let run_id = info.lines().find_map(|line| line.strip_prefix("run_id:")).map(str::to_owned);
        if self.run_id.is_some() && self.run_id != run_id {
            self.votes_from = Instant::now() + ttl;
        }
        self.run_id = run_id;
        self.connection = Some(connection);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_answer_that_a_busy_process_reads_after_its_time_out_counts() {
        let (tell, told) = tokio::sync::oneshot::channel();
        tokio::spawn(async move {
            let started = Instant::now();
            while started.elapsed() < PROBE_RESPONSE_TIMEOUT * 3 / 2 {}
            for _ in 0..2 {
                tokio::task::yield_now().await;
            }
            let _ = tell.send("PONG");
        });

        assert_eq!(in_time(told).await, Some(Ok("PONG")));
    }

    #[tokio::test]
    async fn a_node_that_does_not_answer_is_given_up() {
        assert_eq!(in_time(std::future::pending::<()>()).await, None);
    }
}
