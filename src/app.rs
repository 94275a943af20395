//! Builds the parts of a replica and runs them. `main` and the tests both start here.

mod watchers;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, anyhow};
use axum::serve::ListenerExt;
use sha2::{Digest, Sha256};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use self::watchers::Watchers;
use crate::config::Serve;
use crate::http;
use crate::issuance::{Issuer, IssuerConfig, Strategy};
use crate::lock::{Locks, Nodes};
use crate::memory::Memory;
use crate::metrics::Metrics;
use crate::store::Store;

/// A listener at work.
type Server = JoinHandle<std::io::Result<()>>;

/// One replica.
pub struct App {
    /// Its name.
    pub replica: String,
    /// How it makes issues exclusive.
    pub strategy: Strategy,
    /// Issues coupons.
    pub issuer: Issuer,
    /// The database, for what is not an issue.
    pub store: Store,
    /// What the replica remembers.
    pub memory: Arc<Memory>,
    /// What it tells about itself.
    pub metrics: Metrics,
    /// The nodes of the lock.
    pub nodes: Arc<Nodes>,
    /// Digests of the tokens for administrative calls: comparing digests tells nothing about a token's length.
    pub admin_tokens: Vec<[u8; 32]>,
    /// Longest time a request may take, body included.
    pub request_deadline: Duration,
    lame_duck: Duration,
    drain: Duration,
    draining: AtomicBool,
    watchers: Watchers,
    stopped: CancellationToken,
}

impl App {
    /// Builds the replica and starts its two watchers: of the database and of the lock nodes. The replica starts whether or
    /// not they are there; `/readyz` tells.
    pub async fn start(settings: &Serve) -> anyhow::Result<Arc<Self>> {
        let lock = settings.lock()?;
        let metrics = Metrics::new(settings.strategy.name(), lock.urls.len());
        let store = Store::new(&settings.database.url()?, settings.pool_size).context("DATABASE_URL")?;
        if store.may_be_overheard() {
            tracing::warn!("DATABASE_URL: the database is on another host, and ssl-mode does not insist on TLS");
        }
        let nodes = Nodes::new(lock).await.context("REDIS_URLS, REDIS_CA_FILE")?;
        let memory = Arc::new(Memory::default());
        let locks = Locks::new(Arc::clone(&nodes), metrics.lock.clone());
        let config = IssuerConfig {
            strategy: settings.strategy,
            on_lock_loss: settings.on_lock_loss,
            deadline: settings.request_deadline(),
        };
        let app = Arc::new(Self {
            replica: settings.replica.clone(),
            strategy: settings.strategy,
            issuer: Issuer::new(&config, store.clone(), locks, Arc::clone(&memory), &metrics),
            store,
            memory,
            metrics,
            nodes,
            admin_tokens: settings.admin_tokens()?.iter().map(|token| Sha256::digest(token).into()).collect(),
            request_deadline: settings.request_deadline(),
            lame_duck: settings.lame_duck(),
            drain: settings.drain(),
            draining: AtomicBool::new(false),
            watchers: Watchers::default(),
            stopped: CancellationToken::new(),
        });
        app.watch();
        let warmed = Arc::clone(&app);
        tokio::spawn(async move { warmed.issuer.warm().await });
        Ok(app)
    }

    fn watch(&self) {
        let (memory, metrics, stopped) = (Arc::clone(&self.memory), self.metrics.issue.clone(), self.stopped.clone());
        let lanes = self.store.memory.clone();
        let database = async move { memory.watch([lanes.free().await, lanes.free().await], metrics, stopped).await };
        self.watch_over("the watcher of the database", database);
        let nodes = Arc::clone(&self.nodes).watch(self.metrics.lock.clone(), self.stopped.clone());
        self.watch_over("the watcher of the lock nodes", nodes);
    }

    /// Runs a task without which the replica is not alive, until it is stopped.
    pub fn watch_over(&self, watcher: &'static str, work: impl Future<Output = ()> + Send + 'static) {
        self.watchers.spawn(watcher, work, self.stopped.clone());
    }

    /// Serves both listeners until `stop`, then finishes what has begun, within the drain time.
    pub async fn serve(
        self: Arc<Self>,
        public: TcpListener,
        ops: TcpListener,
        stop: impl Future<Output = ()> + Send + 'static,
    ) -> anyhow::Result<()> {
        let (draining, drained) = (CancellationToken::new(), CancellationToken::new());
        // Until the end: whoever watches the drain looks here, and an administrative call under way is answered.
        let operations = axum::serve(ops, http::operations(Arc::clone(&self)));
        let mut operations =
            tokio::spawn(operations.with_graceful_shutdown(drained.clone().cancelled_owned()).into_future());
        let mut server = self.open(public, stop, draining.clone());
        tokio::select! {
            // When told to stop, the listener ends, too, and its end alone must not be taken for the drain.
            biased;
            () = draining.cancelled() => self.finish(&mut server, &mut operations, &drained).await,
            ended = &mut server => ended?.context("the public listener failed")?,
        }
        self.stopped.cancel();
        operations.abort();
        self.lost_watcher().map_or(Ok(()), |watcher| Err(anyhow!("{watcher} has ended")))
    }

    /// Tells by `/readyz` that this replica is leaving, and lets everybody in for as long as its balancer needs to see that,
    /// or until `hurry`.
    pub async fn lame_duck(&self, hurry: impl Future<Output = ()>) {
        self.draining.store(true, Ordering::Relaxed);
        tracing::info!(lame_duck = ?self.lame_duck, "leaving");
        let _ = tokio::time::timeout(self.lame_duck, hurry).await;
    }

    /// Accepts clients until `stop`, and says so by `draining`.
    fn open(
        self: &Arc<Self>,
        public: TcpListener,
        stop: impl Future<Output = ()> + Send + 'static,
        draining: CancellationToken,
    ) -> Server {
        let public = public.tap_io(|connection| {
            let _ = connection.set_nodelay(true);
        });
        let app = Arc::clone(self);
        let stop = async move {
            stop.await;
            app.draining.store(true, Ordering::Relaxed);
            draining.cancel();
        };
        // A bare router would be copied, all of its routes, for every connection.
        let router = http::router(Arc::clone(self)).into_make_service();
        let public = http::Explained::new(public, self.metrics.http.clone());
        tokio::spawn(axum::serve(public, router).with_graceful_shutdown(stop).into_future())
    }

    /// Brings to its end what has begun, within the drain time: requests, queued orders, administrative calls.
    async fn finish(&self, server: &mut Server, operations: &mut Server, drained: &CancellationToken) {
        let finish = async {
            let _ = server.await;
            self.issuer.drain().await;
            drained.cancel();
            let _ = operations.await;
        };
        if tokio::time::timeout(self.drain, finish).await.is_err() {
            tracing::warn!("stopping with work unfinished: the drain time is over");
        }
    }

    /// Whether the replica is about to stop.
    pub fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Relaxed)
    }

    /// Whether the replica can do its work: the database answers, its watchers live and it is not about to stop.
    pub fn is_ready(&self) -> bool {
        !self.is_draining() && self.lost_watcher().is_none() && self.memory.fresh().is_some()
    }

    /// The watcher that has ended before the replica did: with it the replica grows blind, and only another process sees again.
    pub fn lost_watcher(&self) -> Option<&'static str> {
        self.watchers.lost()
    }

    /// Waits until a watcher has ended.
    pub async fn has_lost_a_watcher(&self) {
        self.watchers.has_lost_one().await;
    }
}
