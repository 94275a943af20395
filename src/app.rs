//! Builds the parts of a replica and runs them. `main` and the tests both start here.

mod watchers;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, anyhow};
use axum::Router;
use axum::serve::ListenerExt;
use sha2::{Digest, Sha256};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use self::watchers::Watchers;
use crate::config::Serve;
use crate::http::{self, Api};
use crate::issuance::{Issuer, IssuerConfig};
use crate::lock::{Locks, Nodes};
use crate::memory::Memory;
use crate::metrics::Metrics;
use crate::store::Store;

/// Without a database a replica opens all the same, so that its clients are told "not now".
const FIRST_LOOK: Duration = Duration::from_secs(3);
const LOOK_AGAIN: Duration = Duration::from_millis(5);

/// A listener at work.
type Server = JoinHandle<std::io::Result<()>>;

/// One replica.
pub struct App {
    api: Arc<Api>,
    lame_duck: Duration,
    drain: Duration,
    watchers: Watchers,
    stopped: CancellationToken,
}

impl Drop for App {
    /// A replica that ends before it serves, as one whose port is taken, has lost no watcher.
    fn drop(&mut self) {
        self.stopped.cancel();
    }
}

impl App {
    /// Builds the replica and starts its two watchers, of the database and of the lock nodes. The replica starts whether or not
    /// database and nodes are there; `/readyz` tells.
    pub async fn start(settings: &Serve) -> anyhow::Result<Arc<Self>> {
        let lock = settings.lock()?;
        let metrics = Metrics::new(settings.strategy.name(), lock.urls.len());
        let store = Store::new(&settings.database.url()?, settings.pool_size).context("DATABASE_URL")?;
        if store.may_be_overheard() {
            tracing::warn!("DATABASE_URL: the database is on another host, and ssl-mode does not insist on TLS");
        }
        let nodes = Nodes::new(lock, &metrics.lock).await.context("REDIS_URLS, REDIS_CA_FILE")?;
        let memory = Arc::new(Memory::default());
        let locks = Locks::new(Arc::clone(&nodes), metrics.lock.clone());
        let config = IssuerConfig {
            strategy: settings.strategy,
            on_lock_loss: settings.on_lock_loss,
            deadline: settings.request_deadline(),
        };
        let watchers = Watchers::default();
        let api = Api {
            replica: settings.replica.clone(),
            strategy: settings.strategy,
            issuer: Issuer::new(&config, store.clone(), locks, Arc::clone(&memory), &metrics),
            store,
            memory,
            metrics,
            nodes,
            admin_tokens: settings.admin_tokens()?.iter().map(|token| Sha256::digest(token).into()).collect(),
            request_deadline: settings.request_deadline(),
            leaving: AtomicBool::new(false),
            lost_watcher: watchers.lost(),
        };
        let (lame_duck, drain) = (settings.lame_duck(), settings.drain());
        let app = Self { api: Arc::new(api), lame_duck, drain, watchers, stopped: CancellationToken::new() };
        app.watch();
        let api = Arc::clone(&app.api);
        tokio::spawn(async move { api.issuer.warm().await });
        Ok(Arc::new(app))
    }

    fn watch(&self) {
        let Api { memory, metrics, store, nodes, .. } = &*self.api;
        let (memory, issue, lanes) = (Arc::clone(memory), metrics.issue.clone(), store.memory.clone());
        let stopped = self.stopped.clone();
        let database = async move { memory.watch([lanes.free().await, lanes.free().await], issue, stopped).await };
        self.watch_over("the watcher of the database", database);
        let nodes = Arc::clone(nodes).watch(metrics.lock.clone(), self.stopped.clone());
        self.watch_over("the watcher of the lock nodes", nodes);
    }

    /// Waits until the database was read for the first time, or could not be for three seconds.
    pub async fn first_look(&self) {
        let look = async {
            while self.api.memory.fresh().is_none() && !self.api.memory.lacks_event() {
                tokio::time::sleep(LOOK_AGAIN).await;
            }
        };
        let _ = tokio::time::timeout(FIRST_LOOK, look).await;
    }

    /// The routes of the public listener.
    pub fn router(&self) -> Router {
        http::router(Arc::clone(&self.api))
    }

    /// The routes of the ops listener.
    pub fn operations(&self) -> Router {
        http::operations(Arc::clone(&self.api))
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
        let (closing, drained) = (CancellationToken::new(), CancellationToken::new());
        // The ops listener serves until the end: a balancer watches the drain there, and an administrative call under way is answered.
        let operations = axum::serve(ops, self.operations());
        let mut operations =
            tokio::spawn(operations.with_graceful_shutdown(drained.clone().cancelled_owned()).into_future());
        let mut server = self.open(public, stop, closing.clone());
        tokio::select! {
            // When told to stop, the listener ends, too, and its end must not cut the drain off.
            biased;
            () = closing.cancelled() => self.finish(&mut server, &mut operations, &drained).await,
            ended = &mut server => ended?.context("the public listener failed")?,
        }
        self.stopped.cancel();
        operations.abort();
        let lost = *self.api.lost_watcher.borrow();
        lost.map_or(Ok(()), |watcher| Err(anyhow!("{watcher} has ended")))
    }

    /// Tells by `/readyz` that this replica is leaving, and serves on for as long as its balancer needs to see that, or until `hurry`.
    pub async fn lame_duck(&self, hurry: impl Future<Output = ()>) {
        self.api.leaving.store(true, Ordering::Relaxed);
        tracing::info!(lame_duck = ?self.lame_duck, "leaving");
        let _ = tokio::time::timeout(self.lame_duck, hurry).await;
    }

    /// Accepts clients until `stop`, and says so by `closing`.
    fn open(
        &self,
        public: TcpListener,
        stop: impl Future<Output = ()> + Send + 'static,
        closing: CancellationToken,
    ) -> Server {
        let public = public.tap_io(|connection| {
            let _ = connection.set_nodelay(true);
        });
        let api = Arc::clone(&self.api);
        let stop = async move {
            stop.await;
            api.leaving.store(true, Ordering::Relaxed);
            closing.cancel();
        };
        // A bare router would be copied, all of its routes, for every connection.
        let router = self.router().into_make_service();
        let public = http::Explained::new(public, self.api.metrics.http.clone());
        tokio::spawn(axum::serve(public, router).with_graceful_shutdown(stop).into_future())
    }

    /// Brings to its end what has begun, within the drain time: requests, queued orders, administrative calls.
    async fn finish(&self, server: &mut Server, operations: &mut Server, drained: &CancellationToken) {
        let finish = async {
            let _ = server.await;
            self.api.issuer.drain().await;
            drained.cancel();
            let _ = operations.await;
        };
        if tokio::time::timeout(self.drain, finish).await.is_err() {
            tracing::warn!("stopping with work unfinished: the drain time is over");
        }
    }

    /// Waits until a watcher has ended.
    pub async fn has_lost_a_watcher(&self) {
        // An error would mean that the sender is gone, which is in `self`.
        let _ = self.watchers.lost().wait_for(Option::is_some).await;
    }
}
