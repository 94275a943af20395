//! Lock nodes that answer and do not do what the lock needs.

use std::time::Instant;

use anyhow::Context;
use redis::aio::MultiplexedConnection;
use tokio::time::sleep_until;

use super::fault::Fault;
use crate::cluster::Server;

/// What makes a lock node half alive, and what makes it whole; `None` for other faults.
fn orders(fault: Fault) -> Option<[&'static str; 2]> {
    Some(match fault {
        // With the memory that every node of a cluster is started with.
        Fault::RedisMemoryFull => ["CONFIG SET maxmemory 1", "CONFIG SET maxmemory 64mb"],
        Fault::RedisReadOnly => ["REPLICAOF 127.0.0.1 1", "REPLICAOF NO ONE"],
        Fault::RedisScriptsForbidden => ["ACL SETUSER default -@scripting", "ACL SETUSER default +@scripting"],
        Fault::RedisWritesPaused => ["CLIENT PAUSE 60000 WRITE", "CLIENT UNPAUSE"],
        _ => return None,
    })
}

/// Makes most of the nodes half alive, or all of them, until then. Tells whether this is a fault of this kind.
pub async fn halve(nodes: &[Server], fault: Fault, pick: u32, until: Instant) -> anyhow::Result<bool> {
    let Some([break_it, mend_it]) = orders(fault) else { return Ok(false) };
    let first = (pick / 2) as usize;
    let count = if pick.is_multiple_of(2) { nodes.len() / 2 + 1 } else { nodes.len() };
    let mut halved = Vec::new();
    for place in first..first + count {
        halved.push(nodes[place % nodes.len()].connect_redis().await?);
    }
    let broken = tell(&mut halved, break_it).await;
    sleep_until(until.into()).await;
    // Whatever became of that.
    tell(&mut halved, mend_it).await.and(broken).map(|()| true)
}

/// Tells all of them, also when one does not obey.
async fn tell(nodes: &mut [MultiplexedConnection], order: &str) -> anyhow::Result<()> {
    let mut words = order.split(' ');
    let mut command = redis::cmd(words.next().context("an order without a word")?);
    words.for_each(|word| {
        command.arg(word);
    });
    let mut told = Ok(());
    for node in nodes {
        told = told.and(command.query_async::<()>(node).await);
    }
    told.with_context(|| format!("a lock node does not obey {order}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_fault_of_a_half_alive_node_can_be_mended() {
        let halves: Vec<_> = Fault::ALL.iter().copied().filter_map(orders).collect();

        assert_eq!(halves.len(), 4);
        assert!(halves.iter().all(|[break_it, mend_it]| break_it.split(' ').next() == mend_it.split(' ').next()));
    }
}
