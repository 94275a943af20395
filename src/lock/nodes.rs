//! The Redis nodes, and which of them are used.
//!
//! rslock waits for every node, up to half a second for one that hangs. So a task tries each node out ([`super::probe`]). One that is of no
//! use gets replaced, in a fresh lock manager, by a client that fails at once: the number of nodes, and so the quorum, stays what it was.
//! A fresh manager also looks the nodes' names up anew.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, ensure};
use arc_swap::ArcSwap;
use futures_util::future::join_all;
use redis::aio::MultiplexedConnection;
use redis::io::tcp::TcpSettings;
use redis::{AsyncConnectionConfig, Client, ConnectionAddr, IntoConnectionInfo, RedisResult, TlsCertificates};
use rslock::LockManager;
use tokio::sync::Mutex;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::LockConfig;
use super::probe::{MISSES_MAX, Probe};
use crate::metrics::LockMetrics;

/// Time between two looks at a node.
const PROBE_INTERVAL: Duration = Duration::from_millis(75);
/// What is not acknowledged for so long breaks its connection: a firewall may have forgotten it, and the kernel would go on for a quarter
/// of an hour. A node that merely hangs has a kernel that acknowledges.
const UNACKNOWLEDGED_MAX: Duration = Duration::from_secs(2);
/// A Unix socket that does not exist: connecting to it fails in microseconds.
const NOWHERE: &str = "redis+unix:///nonexistent/coupon-rush.sock";

/// The nodes and which of them can be used now.
pub struct Nodes {
    pub(super) clients: Vec<Client>,
    current: ArcSwap<Current>,
    probes: Mutex<Vec<Probe>>,
    pub(super) config: LockConfig,
}

/// One state of the nodes with the lock manager made for it.
struct Current {
    up: Vec<bool>,
    manager: LockManager,
}

impl Nodes {
    /// Opens clients for independent nodes, and tries these out as often as a lost one must be missed: no manager is made for one that
    /// hangs.
    pub async fn new(config: LockConfig, metrics: &LockMetrics) -> anyhow::Result<Arc<Self>> {
        let open = |url: &String| client(url, config.ca.as_deref());
        let clients = config.urls.iter().map(open).collect::<Result<Vec<_>, _>>()?;
        let addresses: Vec<_> = clients.iter().map(|client| client.get_connection_info().addr()).collect();
        let are_different = (1..addresses.len()).all(|place| !addresses[..place].contains(&addresses[place]));
        ensure!(are_different, "the same server twice is not two independent servers");
        let mut probes: Vec<_> = clients.iter().map(|client| Probe::new(client, &config)).collect();
        let mut up = looks(&mut probes, metrics).await;
        for _ in 1..MISSES_MAX {
            sleep(PROBE_INTERVAL).await;
            up = looks(&mut probes, metrics).await;
        }
        let none = vec![false; clients.len()];
        let current = Current { manager: manager(&clients, &none, &config).await?, up: none };
        let nodes = Self { clients, current: ArcSwap::from_pointee(current), probes: Mutex::new(probes), config };
        // Where this fails there is no quorum yet, and the next look says why.
        let _ = nodes.renew(up).await;
        Ok(Arc::new(nodes))
    }

    /// The lock manager of now; `None` without a quorum.
    pub(super) fn manager(&self) -> Option<LockManager> {
        self.has_quorum().then(|| self.current.load().manager.clone())
    }

    /// Whether a majority of the nodes is up.
    pub fn has_quorum(&self) -> bool {
        is_majority(&self.current.load().up)
    }

    /// The place of the first node that is up: the lines are there.
    pub(super) fn first(&self) -> Option<usize> {
        self.current.load().up.iter().position(|&up| up)
    }

    /// Watches the nodes until `stopped`.
    pub async fn watch(self: Arc<Self>, metrics: LockMetrics, stopped: CancellationToken) {
        while !stopped.is_cancelled() {
            self.look(&metrics).await;
            let _ = timeout(PROBE_INTERVAL, stopped.cancelled()).await;
        }
    }

    /// Tries every node out, and makes a new manager where others are up than before.
    async fn look(&self, metrics: &LockMetrics) {
        let mut probes = self.probes.lock().await;
        let up = looks(&mut probes, metrics).await;
        if self.current.load().up != up {
            tracing::warn!(?up, "the set of usable lock nodes has changed");
            if let Err(error) = self.renew(up).await {
                tracing::warn!(error = &*error as &dyn std::error::Error, "there is no new lock manager yet");
                // A node may serve the connections that it has, and let nobody new in. The next look connects as the manager did.
                probes.iter_mut().for_each(Probe::disconnect);
            }
        }
        for (place, up) in self.current.load().up.iter().enumerate() {
            metrics.node_up(place, *up);
        }
    }

    /// Makes a manager for the nodes that are `up`.
    async fn renew(&self, up: Vec<bool>) -> anyhow::Result<()> {
        // A node that hangs meanwhile would hold up the prober for two seconds, and every attempt through a manager that is not
        // connected to it yet. The next look finds it.
        let manager = timeout(6 * self.config.probe_timeout, manager(&self.clients, &up, &self.config)).await??;
        self.current.store(Arc::new(Current { up, manager }));
        Ok(())
    }
}

/// One look at every node: which of them may be used.
async fn looks(probes: &mut [Probe], metrics: &LockMetrics) -> Vec<bool> {
    join_all(probes.iter_mut().map(|probe| probe.look(metrics))).await
}

/// Whether a majority of the nodes is `up`.
fn is_majority(up: &[bool]) -> bool {
    up.iter().filter(|&&up| up).count() > up.len() / 2
}

/// A connection; the caller limits its time.
pub(super) async fn connect(client: &Client) -> RedisResult<MultiplexedConnection> {
    let unlimited = AsyncConnectionConfig::new().set_connection_timeout(None).set_response_timeout(None);
    client.get_multiplexed_async_connection_with_config(&unlimited).await
}

/// A client without Nagle's delay. Where the URL asks for TLS it trusts `ca` alone, if there is one.
fn client(url: &str, ca: Option<&[u8]>) -> RedisResult<Client> {
    let settings = TcpSettings::default().set_nodelay(true);
    #[cfg(target_os = "linux")]
    let settings = settings.set_user_timeout(UNACKNOWLEDGED_MAX);
    let info = url.into_connection_info()?.set_tcp_settings(settings);
    match info.addr() {
        ConnectionAddr::TcpTls { .. } => {
            Client::build_with_tls(info, TlsCertificates { client_tls: None, root_cert: ca.map(<[u8]>::to_vec) })
        }
        _ => Client::open(info),
    }
}

/// A lock manager whose down nodes fail at once. It takes one lock before it is published, so that no request waits for
/// its connections to be made; one that does not get it where a majority is up is of no use.
async fn manager(clients: &[Client], up: &[bool], config: &LockConfig) -> anyhow::Result<LockManager> {
    let nowhere = Client::open(NOWHERE)?;
    let usable = clients.iter().zip(up).map(|(client, &up)| if up { client.clone() } else { nowhere.clone() });
    let mut manager = LockManager::from_clients(usable.collect());
    // One attempt; rslock panics on a pause of zero even though it never pauses then.
    manager.set_retry(1, Duration::from_millis(1));
    if is_majority(up) {
        let key = config.key("warm", &format!("{:016x}", fastrand::u64(..)));
        manager.lock(key.as_bytes(), config.ttl).await.context("it gets no lock")?.release().await;
    }
    Ok(manager)
}
