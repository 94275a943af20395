//! The line before a lock: a waiter gets a turn, and a replica that is alone keeps the lease.

use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use coupon_lab::distance;
use coupon_rush::lock::{LockConfig, Locks, Nodes};
use coupon_rush::metrics::Metrics;
use futures_util::future::{Either, join_all, select};
use parking_lot::Mutex;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::support::{self, Cluster, PrivateRedis, Setup, eventually, free_port, pace};

/// The usual life of a lock.
const TTL: Duration = Duration::from_millis(1_500);

/// What a busy machine may add to any time.
const SLACK: Duration = Duration::from_millis(500);

/// A caller that makes so many orders, one after the other.
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
    let cluster = setup.coupons([("A", 100_000)]).start().await;
    let batches = async || cluster.metric(0, "coupon_batch_size_count").await;
    let leases = async || cluster.metric(0, r#"coupon_lock_attempts_total{result="granted"}"#).await;

    let callers = join_all((0..20).map(|caller| orders(&cluster, 0, caller, usize::MAX)));
    // On a busy machine the question whether the lease may stay is often too late, and then it goes back.
    let stays = eventually("twenty batches needed no lease of their own", async || {
        batches().await - leases().await - cluster.bypassed(0).await >= 20.0
    });
    before_the_end(callers, stays).await;

    cluster.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lease_may_stay_until_somebody_else_lines_up() {
    const TTL: Duration = Duration::from_mins(1);
    let redis = PrivateRedis::start().await;
    let (holder, waiter) = (locks(&redis.urls(), TTL).await, locks(&redis.urls(), TTL).await);
    let lease = holder.acquire("A", || true).await.unwrap();
    assert!(holder.may_stay(&lease).await && holder.may_stay(&lease).await);

    let hold = async {
        eventually("the holder sees the other", async || !holder.may_stay(&lease).await).await;
        holder.hand_over(lease).await;
    };
    let (theirs, ()) = tokio::join!(waiter.acquire("A", || true), hold);

    waiter.hand_over(theirs.unwrap()).await;
}

/// The question whether a lease may stay is given up where the node is far away, after every batch.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_question_to_a_far_node_that_is_given_up_costs_no_connection() {
    const QUESTIONS: usize = 20;
    let nodes = support::Nodes::so_many(1).await;
    let any_port = ([127, 0, 0, 1], 0).into();
    let far = distance::start(any_port, nodes.address(0), Duration::from_millis(10)).await.unwrap();
    let locks = locks_within(&format!("redis://{far}/"), Duration::from_mins(1), Duration::from_millis(400)).await;
    let made = async || nodes.counted("total_connections_received").await;
    let lease = locks.acquire("A", || true).await.unwrap();
    assert!(locks.may_stay(&lease).await);
    let before = made().await;

    for _ in 0..QUESTIONS {
        assert!(timeout(Duration::from_millis(2), locks.may_stay(&lease)).await.is_err(), "the node is not far away");
    }

    assert!(locks.may_stay(&lease).await);
    assert_eq!(made().await, before);
    locks.hand_over(lease).await;
}

/// Where replicas take turns, a waiter that is woken finds the lock free. On a busy machine a wake-up may overtake the release, and a turn
/// may take longer than a sleep; where replicas do not wait for turns, every wave of orders shows it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replicas_that_want_the_same_lock_take_turns_and_rarely_ask_in_vain() {
    const CALLERS: usize = 20;
    const ORDERS: usize = 25;
    const WAVES: usize = 10;
    let cluster = Setup::new("batched").coupons([("A", 100_000)]).start().await;
    let attempts = async |result: &str| {
        let series = format!("coupon_lock_attempts_total{{result=\"{result}\"}}");
        cluster.metric(0, &series).await + cluster.metric(1, &series).await
    };
    for wave in 1.. {
        let (granted, contended) = (attempts("granted").await, attempts("contended").await);
        let callers = (0..2 * CALLERS).map(|caller| orders(&cluster, caller % 2, wave * 2 * CALLERS + caller, ORDERS));
        join_all(callers).await;
        let (granted, contended) = (attempts("granted").await - granted, attempts("contended").await - contended);
        if granted > 20.0 && contended < granted / 4.0 {
            break;
        }
        assert!(wave < WAVES, "{contended} in vain for {granted} turns");
    }
    cluster.finish().await;
}

/// A hundred callers keep a replica busy without a pause, so that it could keep its lease for ever. While orders are made at another, one
/// after the other, it settles a few batches for most of them. Not for each: a busy machine may stop a replica for longer than its
/// place in line lasts.
async fn assert_a_few_batches_for_an_order(cluster: &Cluster) {
    const ORDERS: usize = 30;
    let batches = async || cluster.metric(0, "coupon_batch_size_count").await;
    let busy = join_all((0..100).map(|caller| orders(cluster, 0, caller, usize::MAX)));
    let others = async {
        eventually("the first replica is at work", async || batches().await > 20.0).await;
        let mut counts = Vec::new();
        for order in 0..ORDERS {
            let before = batches().await;
            orders(cluster, 1, order, 1).await;
            counts.push(batches().await - before);
        }
        counts
    };
    let mut counts = before_the_end(busy, others).await;
    counts.sort_unstable_by(f64::total_cmp);
    assert!(counts[ORDERS / 2] < 5.0, "batches of the first replica while the second made an order: {counts:?}");
}

/// What comes of `work` beside something that is never done.
async fn before_the_end<T>(never_done: impl Future, work: impl Future<Output = T>) -> T {
    match select(pin!(never_done), pin!(work)).await {
        Either::Left(_) => unreachable!("it is never done"),
        Either::Right((result, _)) => result,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_that_lines_up_waits_for_few_batches_of_one_that_is_never_done() {
    let redis = PrivateRedis::start().await;
    let setup = Setup::new("batched").set("--redis-urls", redis.urls());
    let cluster = setup.coupons([("A", 100_000)]).start().await;

    assert_a_few_batches_for_an_order(&cluster).await;

    cluster.finish().await;
}

/// The second replica leaves its note at another node than the one that the first asks. So patience alone ends its wait, once; from then
/// on its orders wait no longer than a moment, and now and then.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_that_cannot_reach_the_first_node_waits_for_the_end_of_patience_and_then_no_more() {
    let redis = PrivateRedis::start().await;
    let setup = Setup::new("batched").replicas(1).set("--redis-urls", redis.urls());
    let mut cluster = setup.coupons([("A", 100_000)]).start().await;
    cluster.join_with("--redis-urls", without_the_first(&redis)).await;
    let up = async || cluster.metric(1, "coupon_redis_node_up{node=\"1\"}").await;
    eventually("the second replica takes the node for lost", async || up().await == 0.0).await;

    let busy = join_all((0..100).map(|caller| orders(&cluster, 0, caller, usize::MAX)));
    let mut times = before_the_end(busy, async {
        let mut times = Vec::new();
        for order in 0..30 {
            let asked = Instant::now();
            orders(&cluster, 1, order, 1).await;
            times.push(asked.elapsed());
        }
        times
    })
    .await;

    times.sort_unstable();
    assert!(times[29] < 2 * TTL + SLACK && times[15] < SLACK, "{times:?}");
    cluster.finish().await;
}

/// The line is at the second node while the first one hangs, and moves back. On a busy machine no waiter may sleep in that moment, so it
/// comes several times.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_waiter_follows_the_line_to_a_node_that_is_back() {
    const MOVES: usize = 4;
    let nodes = support::Nodes::start().await;
    let (busy, other) = (locks(&nodes.urls(), TTL).await, locks(&nodes.urls(), TTL).await);
    let never_done = async {
        loop {
            turn(&busy, Duration::from_millis(20)).await;
        }
    };
    let moves = async {
        let mut longest = Vec::new();
        for _ in 0..MOVES {
            nodes.signal(0, "STOP");
            longest_wait(&other, Duration::from_secs(1)).await;
            nodes.signal(0, "CONT");
            longest.push(longest_wait(&other, Duration::from_secs(1)).await);
        }
        longest
    };

    let longest = before_the_end(never_done, moves).await;

    assert!(longest.iter().all(|wait| *wait < SLACK), "the longest waits after each move: {longest:?}");
}

/// Takes the lock, and gives it back after this long. Returns how long it waited.
async fn turn(locks: &Locks, lasts: Duration) -> Duration {
    let asked = Instant::now();
    let lease = locks.acquire("A", || true).await.unwrap();
    let waited = asked.elapsed();
    pace(lasts).tick().await;
    locks.hand_over(lease).await;
    waited
}

/// The longest wait for a turn of turns that are had meanwhile.
async fn longest_wait(locks: &Locks, meanwhile: Duration) -> Duration {
    let (started, mut longest) = (Instant::now(), Duration::ZERO);
    while started.elapsed() < meanwhile {
        longest = longest.max(turn(locks, Duration::from_millis(2)).await);
    }
    longest
}

/// The nodes as a replica sees them that cannot reach the first.
fn without_the_first(redis: &PrivateRedis) -> String {
    let urls = redis.urls();
    let (_, others) = urls.split_once(',').unwrap();
    format!("redis://127.0.0.1:{}/,{others}", free_port())
}

/// Four replicas of which each wants the lock again as soon as it has given it back. Three turns are a little longer than a sleep here, so
/// that every replica asks by itself before its turn.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_waiter_that_asks_before_its_turn_keeps_its_place_in_line() {
    let redis = PrivateRedis::start().await;
    let urls = redis.urls();
    let replicas = join_all((0..4).map(|_| locks(&urls, TTL))).await;

    let turns = turns(&replicas, 300).await;

    let longest = waits(&turns, 4)[0];
    assert!(longest <= 12, "a waiter waited for {longest} turns of three others");
}

/// Which replica has each of so many turns of some 40 ms. Each wants the next one at once.
async fn turns(replicas: &[Arc<Locks>], many: usize) -> Vec<usize> {
    const TURN: Duration = Duration::from_millis(40);
    let turns = Mutex::new(Vec::new());
    join_all(replicas.iter().enumerate().map(async |(replica, locks)| {
        let mut random = fastrand::Rng::with_seed(replica as u64);
        while turns.lock().len() < many {
            let lease = locks.acquire("A", || true).await.unwrap();
            turns.lock().push(replica);
            pace(TURN.mul_f64(0.7 + 0.6 * random.f64())).tick().await;
            locks.hand_over(lease).await;
        }
    }))
    .await;
    turns.into_inner()
}

/// How many turns in a row one of so many replicas saw others have: each wait for a turn, the longest first.
fn waits(turns: &[usize], replicas: usize) -> Vec<usize> {
    let waits = |replica| turns.split(move |&turn| turn == replica).map(<[usize]>::len);
    let mut waits: Vec<_> = (0..replicas).flat_map(waits).collect();
    waits.sort_unstable_by(|one, other| other.cmp(one));
    waits
}

/// The locks of one replica.
pub async fn locks(urls: &str, ttl: Duration) -> Arc<Locks> {
    locks_within(urls, ttl, Duration::from_millis(40)).await
}

/// The same with nodes that may take so long to answer.
pub async fn locks_within(urls: &str, ttl: Duration, probe_timeout: Duration) -> Arc<Locks> {
    let urls: Vec<_> = urls.split(',').map(str::to_owned).collect();
    let metrics = Metrics::new("batched", urls.len()).lock;
    let prefix = "test:".to_owned();
    let nodes = Nodes::new(LockConfig { urls, ca: None, ttl, prefix, probe_timeout }, &metrics).await.unwrap();
    tokio::spawn(Arc::clone(&nodes).watch(metrics.clone(), CancellationToken::new()));
    Locks::new(nodes, metrics)
}
