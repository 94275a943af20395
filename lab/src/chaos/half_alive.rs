//! Lock nodes that answer and do not do what the lock needs.

use std::time::Instant;

use anyhow::Context;
use futures_util::future::try_join_all;
use redis::aio::MultiplexedConnection;
use tokio::time::sleep_until;

use super::supervised::{ALL, MOST, from};
use crate::cluster::Server;

/// What makes a lock node half alive, and what makes it whole.
pub type Orders = [&'static str; 2];

/// The second is the memory that every node of a cluster is started with.
pub const MEMORY_FULL: Orders = ["CONFIG SET maxmemory 1", "CONFIG SET maxmemory 64mb"];
pub const READ_ONLY: Orders = ["REPLICAOF 127.0.0.1 1", "REPLICAOF NO ONE"];
pub const SCRIPTS_FORBIDDEN: Orders = ["ACL SETUSER default -@scripting", "ACL SETUSER default +@scripting"];
pub const WRITES_PAUSED: Orders = ["CLIENT PAUSE 60000 WRITE", "CLIENT UNPAUSE"];

/// Makes most of the nodes half alive, or all of them, until then.
pub async fn halve(nodes: &[Server], [breaks, mends]: Orders, pick: u32, until: Instant) -> anyhow::Result<()> {
    let many = if pick.is_multiple_of(2) { MOST } else { ALL };
    let some = from(nodes.iter().collect(), pick / 2).into_iter().take(many(nodes.len()));
    let mut halved = try_join_all(some.map(Server::connect_redis)).await?;
    let broken = tell(&mut halved, breaks).await;
    sleep_until(until.into()).await;
    // Whatever became of that.
    tell(&mut halved, mends).await.and(broken)
}

/// Tells all of them, also when one does not obey.
async fn tell(nodes: &mut [MultiplexedConnection], order: &str) -> anyhow::Result<()> {
    let mut command = redis::Cmd::new();
    command.arg(order.split(' ').collect::<Vec<_>>());
    let mut told = Ok(());
    for node in nodes {
        told = told.and(command.query_async::<()>(node).await);
    }
    told.with_context(|| format!("a lock node does not obey {order}"))
}
