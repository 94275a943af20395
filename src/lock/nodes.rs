//! The Redis nodes and the prober that keeps a hung one, or one that refuses, from slowing the rest.
//!
//! rslock waits for every node, up to half a second for one that hangs. So a task tries each node out on a connection of its own
//! ([`super::probe`]). One that is of no use gets replaced, in a fresh lock manager, by a client that
//! fails at once: the number of nodes, and so the quorum, stays what it was. A fresh manager also looks the nodes' names up anew.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::ensure;
use arc_swap::ArcSwap;
use redis::io::tcp::TcpSettings;
use redis::{Client, ConnectionAddr, IntoConnectionInfo, RedisResult, TlsCertificates};
use rslock::LockManager;
use tokio_util::sync::CancellationToken;

use super::probe::Probe;
use super::{LockConfig, key_of};
use crate::metrics::LockMetrics;

/// Time between two looks at a node.
const PROBE_INTERVAL: Duration = Duration::from_millis(75);

/// What was sent and is not acknowledged for so long breaks its connection: a firewall may have forgotten it, and the kernel
/// would go on for a quarter of an hour. A node that merely hangs has a kernel that acknowledges.
const UNACKNOWLEDGED_MAX: Duration = Duration::from_secs(2);

/// A Unix socket that does not exist: connecting to it fails in microseconds.
const NOWHERE: &str = "redis+unix:///nonexistent/coupon-rush.sock";

/// The nodes and which of them can be used now.
pub struct Nodes {
    clients: Vec<Client>,
    current: ArcSwap<Current>,
    /// For each node, whether a client slept there when it last answered.
    sleepers: Vec<AtomicBool>,
    pub(super) config: LockConfig,
}

/// One state of the nodes with the lock manager made for it.
struct Current {
    up: Vec<bool>,
    manager: LockManager,
}

impl Nodes {
    /// Opens clients for independent nodes; all are taken for up until the prober says otherwise.
    pub async fn new(config: LockConfig) -> anyhow::Result<Arc<Self>> {
        let open = |url: &String| client(url, config.ca.as_deref());
        let clients = config.urls.iter().map(open).collect::<Result<Vec<_>, _>>()?;
        ensure!(are_different(&clients), "the same server twice is not two independent servers");
        let up = vec![true; clients.len()];
        let manager = manager(&clients, &up, &config).await?;
        let sleepers = clients.iter().map(|_| AtomicBool::default()).collect();
        Ok(Arc::new(Self { clients, current: ArcSwap::from_pointee(Current { up, manager }), sleepers, config }))
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

    /// Whether a client slept at the node when it last answered.
    pub(super) fn has_sleepers(&self, place: usize) -> bool {
        self.sleepers[place].load(Ordering::Relaxed)
    }

    /// Watches the nodes until `stopped`.
    pub async fn watch(self: Arc<Self>, metrics: LockMetrics, stopped: CancellationToken) {
        let nodes = self.clients.iter().enumerate();
        let mut probes: Vec<_> = nodes.map(|(place, client)| Probe::new(place, client, &self.config)).collect();
        while !stopped.is_cancelled() {
            let verdicts = futures_util::future::join_all(probes.iter_mut().map(|probe| probe.look(&metrics))).await;
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
        // A node that hangs meanwhile would hold up the prober for two seconds, and every attempt through a manager that is not
        // connected to it yet.
        match tokio::time::timeout(6 * self.config.probe_timeout, manager(&self.clients, up, &self.config)).await {
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
/// its connections to be made.
async fn manager(clients: &[Client], up: &[bool], config: &LockConfig) -> RedisResult<LockManager> {
    let nowhere = Client::open(NOWHERE)?;
    let usable = clients.iter().zip(up).map(|(client, &up)| if up { client.clone() } else { nowhere.clone() });
    let mut manager = LockManager::from_clients(usable.collect());
    // One attempt; rslock panics on a pause of zero even though it never pauses then.
    manager.set_retry(1, Duration::from_millis(1));
    let key = key_of(config, "warm", &format!("{:016x}", fastrand::u64(..)));
    if let Ok(lock) = manager.lock(key.as_bytes(), Duration::from_secs(1)).await {
        lock.release().await;
    }
    Ok(manager)
}
