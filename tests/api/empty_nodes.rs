//! Lock nodes that come back empty: they have forgotten the locks that they granted, so they vote only when those have expired.

use std::time::{Duration, Instant};

use crate::lock_faults::until_seen;
use crate::support::{Cluster, Nodes, Setup, eventually, until};

/// Longer than a node needs to be taken for well again.
const LONG_TTL: Duration = Duration::from_secs(3);

async fn with_long_locks(nodes: &Nodes) -> Cluster {
    let setup = Setup::new("batched").coupons([("A", 1_000)]).set("--redis-urls", nodes.urls());
    setup.set("--lock-ttl-ms", LONG_TTL.as_millis()).start().await
}

/// The second node ends and starts again. Issues go on all the time, and none of them asks it before it may vote.
async fn assert_votes_late(cluster: &Cluster, nodes: &mut Nodes) {
    nodes.kill(1).await;
    until_seen(cluster, 1, 0.0).await;
    let restarted = Instant::now();
    nodes.restart(1).await;
    let series = "coupon_redis_node_up{node=\"2\"}";
    let mut asks = 0;
    // A busy machine may lose it again afterwards.
    until("it votes again", (5 * LONG_TTL).saturating_sub(restarted.elapsed()), async || {
        asks += 1;
        assert_eq!(cluster.issue(asks % 2, "A", &format!("u-{asks}"), "k").await.status, 201);
        let (sets, up) = (nodes.sets(1).await, [cluster.metric(0, series).await, cluster.metric(1, series).await]);
        if sets == 0 && up == [0.0, 0.0] {
            return Err("down at both replicas, and not asked");
        }
        assert!(restarted.elapsed() >= LONG_TTL, "{up:?}, {sets} sets {:?} after its restart", restarted.elapsed());
        Ok(())
    })
    .await;
    until_seen(cluster, 1, 1.0).await;
    let before = nodes.sets(1).await;
    eventually("it is asked", async || {
        asks += 1;
        assert_eq!(cluster.issue(0, "A", &format!("u-{asks}"), "k").await.status, 201);
        nodes.sets(1).await > before
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_restarted_empty_does_not_vote_until_its_locks_have_expired() {
    let mut nodes = Nodes::start().await;
    let cluster = with_long_locks(&nodes).await;
    assert_eq!(cluster.issue(0, "A", "u-0", "k").await.status, 201);
    assert_votes_late(&cluster, &mut nodes).await;
    cluster.finish().await;
}

/// A replica that never saw it cannot tell whether it is the process that has granted locks.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_was_lost_before_it_was_seen_does_not_vote_either() {
    let mut nodes = Nodes::start().await;
    nodes.signal(1, "STOP");
    let cluster = with_long_locks(&nodes).await;
    until_seen(&cluster, 1, 0.0).await;
    assert_votes_late(&cluster, &mut nodes).await;
    cluster.finish().await;
}
