//! The nodes of a lock, for a test that breaks them.

use std::collections::HashMap;
use std::net::SocketAddr;

use futures_util::future::join_all;
use redis::aio::MultiplexedConnection;
use tokio::sync::Mutex;

use super::counts::calls_at;
use super::{Process, free_port, redis_connection};

/// Redis servers of the test's own, which come and go.
pub struct Nodes {
    ports: Vec<u16>,
    running: Vec<Option<Process>>,
    /// Connections that a node serves also when it lets nobody new in.
    admins: Mutex<HashMap<usize, MultiplexedConnection>>,
}

impl Nodes {
    pub async fn start() -> Self {
        Self::so_many(3).await
    }

    pub async fn so_many(nodes: usize) -> Self {
        let ports: Vec<_> = (0..nodes).map(|_| free_port()).collect();
        let running = join_all(ports.iter().map(|port| Process::redis(*port))).await.into_iter().map(Some).collect();
        Self { ports, running, admins: Mutex::default() }
    }

    pub fn address(&self, node: usize) -> SocketAddr {
        ([127, 0, 0, 1], self.ports[node]).into()
    }

    pub fn url(&self, node: usize) -> String {
        format!("redis://{}/", self.address(node))
    }

    /// The value of `--redis-urls`.
    pub fn urls(&self) -> String {
        let urls: Vec<_> = (0..self.ports.len()).map(|node| self.url(node)).collect();
        urls.join(",")
    }

    pub fn signal(&self, node: usize, signal: &str) {
        self.running[node].as_ref().unwrap().signal(signal);
    }

    /// A connection of the test's own, always the same.
    pub async fn admin(&self, node: usize) -> MultiplexedConnection {
        let mut admins = self.admins.lock().await;
        if let Some(admin) = admins.get(&node) {
            return admin.clone();
        }
        let admin = redis_connection(&self.url(node)).await;
        admins.insert(node, admin.clone());
        admin
    }

    /// A number of `INFO` at each node.
    pub async fn counted(&self, name: &str) -> Vec<u64> {
        join_all((0..self.ports.len()).map(|node| async move {
            let info: redis::InfoDict =
                redis::cmd("INFO").arg("stats").query_async(&mut self.admin(node).await).await.unwrap();
            info.get(name).unwrap()
        }))
        .await
    }

    pub async fn kill(&mut self, node: usize) {
        let mut process = self.running[node].take().unwrap();
        process.signal("KILL");
        process.ended().await;
    }

    /// Starts a killed node again; it has forgotten everything.
    pub async fn restart(&mut self, node: usize) {
        self.running[node] = Some(Process::redis(self.ports[node]).await);
    }

    /// How often a node was asked to set a key since it started.
    pub async fn sets(&self, node: usize) -> u64 {
        calls_at(&self.url(node)).await.get("set").copied().unwrap_or(0)
    }
}
