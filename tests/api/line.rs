//! The line before a lock: who waits gets a turn, and who is alone keeps the lease.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use coupon_rush::lock::{Locks, Nodes, Patience};
use coupon_rush::metrics::Metrics;
use futures_util::future::{Either, join_all, select};

use crate::support::{Cluster, PrivateRedis, Setup, eventually, free_port, pace};

/// A caller who makes so many orders, one after the other.
async fn orders(cluster: &Cluster, replica: usize, caller: usize, many: usize) {
    for order in 0..many {
        let answer = cluster.issue(replica, "A", &format!("u-{replica}-{caller}-{order}"), "k").await;
        assert_eq!(answer.status, 201, "{}", answer.text);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_that_is_alone_settles_batch_after_batch_under_one_lease() {
    let redis = PrivateRedis::start().await;
    let setup = Setup::new("batched").replicas(1).set("--redis-urls", redis.urls());
    let cluster = setup.coupons([("A", 500)]).start().await;

    join_all((0..20).map(|caller| orders(&cluster, 0, caller, 25))).await;

    let batches = cluster.metric(0, "coupon_batch_size_count").await;
    let leases = cluster.metric(0, r#"coupon_lock_attempts_total{result="granted"}"#).await;
    assert!(batches >= 25.0 && leases < batches / 2.0, "{leases} leases for {batches} batches");
    cluster.finish().await;
}

/// As long as the lock goes round, whoever is woken finds it free.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replicas_that_want_the_same_lock_take_turns_and_rarely_ask_in_vain() {
    const CALLERS: usize = 20;
    const ORDERS: usize = 25;
    let stock = u32::try_from(2 * CALLERS * ORDERS).unwrap();
    let cluster = Setup::new("batched").coupons([("A", stock)]).start().await;
    join_all((0..2 * CALLERS).map(|caller| orders(&cluster, caller % 2, caller, ORDERS))).await;
    let attempts = async |result: &str| {
        let series = format!("coupon_lock_attempts_total{{result=\"{result}\"}}");
        cluster.metric(0, &series).await + cluster.metric(1, &series).await
    };
    let (granted, contended) = (attempts("granted").await, attempts("contended").await);
    assert!(granted > 20.0 && contended < granted / 4.0, "{contended} in vain for {granted} turns");
    cluster.finish().await;
}

/// How many batches a replica settles that a hundred callers keep busy without a pause, so that it could keep its lease for ever,
/// while so many orders are made at another.
async fn batches_meanwhile(cluster: &Cluster, many: usize) -> f64 {
    let batches = async || cluster.metric(0, "coupon_batch_size_count").await;
    let busy = join_all((0..100).map(|caller| orders(cluster, 0, caller, usize::MAX)));
    let others = async {
        eventually("the first replica is at work", async || batches().await > 20.0).await;
        let before = batches().await;
        orders(cluster, 1, 0, many).await;
        batches().await - before
    };
    match select(pin!(busy), pin!(others)).await {
        Either::Left(_) => unreachable!("they are never done"),
        Either::Right((batches, _)) => batches,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_that_lines_up_waits_for_few_batches_of_one_that_is_never_done() {
    const ORDERS: u32 = 30;
    let redis = PrivateRedis::start().await;
    let setup = Setup::new("batched").set("--redis-urls", redis.urls());
    let cluster = setup.coupons([("A", 100_000)]).start().await;

    let batches = batches_meanwhile(&cluster, ORDERS as usize).await;

    assert!(
        batches < 5.0 * f64::from(ORDERS),
        "{batches} batches of the first replica while the second made {ORDERS} orders"
    );
    cluster.finish().await;
}

/// It sleeps at another node than the one that carries the other's wake-ups, so that nobody wakes it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_that_cannot_reach_the_first_node_gets_its_turns_all_the_same() {
    let redis = PrivateRedis::start().await;
    let urls = redis.urls();
    let setup = Setup::new("batched").replicas(1).set("--redis-urls", &urls);
    let mut cluster = setup.coupons([("A", 100_000)]).start().await;
    let (_, others) = urls.split_once(',').unwrap();
    cluster.join_with("--redis-urls", format!("redis://127.0.0.1:{}/,{others}", free_port())).await;
    let up = async || cluster.metric(1, "coupon_redis_node_up{node=\"1\"}").await;
    eventually("the second replica takes the node for lost", async || up().await == 0.0).await;

    batches_meanwhile(&cluster, 5).await;

    cluster.finish().await;
}

/// Four replicas of which each wants the lock again as soon as it has given it back: it is in turn when the three others have been. Three
/// turns are a little longer than a sleep here, so that everybody asks by himself before it is his turn.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_asks_before_it_is_his_turn_keeps_his_place_in_line() {
    const TURNS: usize = 300;
    const TURN: Duration = Duration::from_millis(40);
    let redis = PrivateRedis::start().await;
    let (turns, longest) = (AtomicUsize::new(0), AtomicUsize::new(0));

    join_all((0..4).map(async |replica| {
        let (locks, mut random) = (locks(&redis).await, fastrand::Rng::with_seed(replica));
        while turns.load(Ordering::Relaxed) < TURNS {
            let before = turns.load(Ordering::Relaxed);
            let lease = locks.acquire("A", Patience::Wake, || true).await.unwrap();
            longest.fetch_max(turns.fetch_add(1, Ordering::Relaxed) - before, Ordering::Relaxed);
            pace(TURN.mul_f64(0.7 + 0.6 * random.f64())).tick().await;
            locks.release(lease).await;
        }
    }))
    .await;

    let longest = longest.into_inner();
    assert!(longest <= 12, "somebody waited for {longest} turns of three others");
}

/// The locks of one replica.
async fn locks(redis: &PrivateRedis) -> Locks {
    const TTL: Duration = Duration::from_millis(1_500);
    let urls: Vec<_> = redis.urls().split(',').map(str::to_owned).collect();
    let nodes: Arc<Nodes> = Nodes::new(&urls, TTL).await.unwrap();
    Locks::new(nodes, TTL, "test:", Metrics::new("batched", urls.len()).lock)
}
