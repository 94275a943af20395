//! Lock nodes that answer and do not do what the lock needs, and a lock that cannot be had for whatever reason: it costs a moment
//! once, and never an answer.

use std::sync::Arc;
use std::time::{Duration, Instant};

use coupon_lab::distance;
use coupon_rush::lock::LockError;
use futures_util::future::join_all;
use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

use crate::line::{locks, locks_within};
use crate::support::{Cluster, Nodes, SOON, Setup, eventually, pace, until};

/// Until all is issued as usual again after a fault began, or ended.
const WITHIN: Duration = Duration::from_secs(2);

/// Clients of each of the two replicas.
const CLIENTS: usize = 4;

/// A state of some lock nodes.
struct Illness {
    nodes: &'static [usize],
    begins: &'static str,
    ends: &'static str,
    /// What the replicas count; nothing where a node goes on serving the connections that it has.
    refusal: Option<&'static str>,
}

const fn ill(
    nodes: &'static [usize],
    begins: &'static str,
    ends: &'static str,
    refusal: Option<&'static str>,
) -> Illness {
    Illness { nodes, begins, ends, refusal }
}

/// Tells the nodes in a row of words.
async fn tell(nodes: &Nodes, places: &[usize], order: &str) {
    for place in places {
        let mut words = order.split(' ');
        let mut command = redis::cmd(words.next().unwrap());
        words.for_each(|word| {
            command.arg(word);
        });
        command.query_async::<()>(&mut nodes.admin(*place).await).await.unwrap();
    }
}

/// Every order that was issued: when it was, and how long it took.
type Issued = Mutex<Vec<(Instant, Duration)>>;

/// Orders without a pause at both replicas, until `stop`. All of them are issued.
async fn ask(cluster: &Cluster, issued: &Issued, stop: &CancellationToken) {
    join_all((0..2 * CLIENTS).map(|client| async move {
        let mut order = 0;
        while !stop.is_cancelled() {
            let asked = Instant::now();
            let answer = cluster.issue(client % 2, "A", &format!("u-{client}-{order}"), "k").await;
            assert_eq!(answer.status, 201, "{}", answer.text);
            issued.lock().push((Instant::now(), asked.elapsed()));
            order += 1;
        }
    }))
    .await;
}

/// Waits until `count` more orders are issued, and returns the median and the longest of their times.
async fn times(issued: &Issued, count: usize) -> (Duration, Duration) {
    let before = issued.lock().len();
    let lacking = async || {
        let more = issued.lock().len() - before;
        if more >= count { Ok(()) } else { Err(format!("{more} of {count} orders")) }
    };
    until("orders are issued", SOON, lacking).await;
    let mut times: Vec<_> = issued.lock()[before..].iter().map(|(_, took)| *took).collect();
    times.sort_unstable();
    (times[times.len() / 2], times[times.len() - 1])
}

async fn at_both(cluster: &Cluster, series: &str) -> [f64; 2] {
    [cluster.metric(0, series).await, cluster.metric(1, series).await]
}

/// Orders are made all the time, while nodes fall ill and recover.
async fn endure(illness: Illness) {
    let nodes = Nodes::start().await;
    let setup = Setup::new("batched").coupons([("A", 1_000_000)]).set("--redis-urls", nodes.urls());
    let cluster = setup.start().await;
    let (issued, stop) = (Issued::default(), CancellationToken::new());
    let observe = async {
        times(&issued, 50).await;
        let (usual, _) = times(&issued, 200).await;
        tell(&nodes, illness.nodes, illness.begins).await;
        let begun = Instant::now();
        assert_recovers(&issued, begun, usual).await;
        assert_asked_rarely(&nodes, &cluster).await;
        if let Some(kind) = illness.refusal {
            assert_found(&cluster, &illness, kind).await;
        }
        tell(&nodes, illness.nodes, illness.ends).await;
        assert_locks_again(&cluster).await;
        let (median, _) = times(&issued, 100).await;
        assert!(median < 2 * usual + MOMENT, "{median:?} afterwards instead of {usual:?}");
        stop.cancel();
    };
    tokio::join!(ask(&cluster, &issued, &stop), observe);
    cluster.finish().await;
}

/// What a busy machine may add to any time.
const MOMENT: Duration = Duration::from_millis(30);

/// No order takes longer than the time within which all is as usual again, and then it is.
async fn assert_recovers(issued: &Issued, begun: Instant, usual: Duration) {
    let rest = WITHIN.saturating_sub(begun.elapsed());
    tokio::time::sleep(rest).await;
    let (median, _) = times(issued, 200).await;
    assert!(median < 2 * usual + MOMENT, "{median:?} instead of {usual:?}");
    let of_it: Vec<_> = issued.lock().iter().filter(|(at, _)| *at >= begun).map(|(_, took)| *took).collect();
    let longest = *of_it.iter().max().unwrap();
    assert!(longest < WITHIN + 10 * MOMENT, "an order took {longest:?}");
}

/// For a while, no replica connects or asks for the lock in vain hundreds of times a second.
async fn assert_asked_rarely(nodes: &Nodes, cluster: &Cluster) {
    const CONTENDED: &str = r#"coupon_lock_attempts_total{result="contended"}"#;
    let started = Instant::now();
    let connected = nodes.counted("total_connections_received").await;
    let contended: f64 = at_both(cluster, CONTENDED).await.iter().sum();
    pace(Duration::from_millis(500)).tick().await;
    let again = nodes.counted("total_connections_received").await;
    let more = at_both(cluster, CONTENDED).await.iter().sum::<f64>() - contended;
    let seconds = started.elapsed().as_secs_f64();
    for (before, after) in connected.iter().zip(again) {
        let rate = (after - before) as f64 / seconds;
        assert!(rate < 100.0, "{rate:.0} connections a second");
    }
    assert!(more / seconds < 200.0, "{more} attempts in vain in {seconds} s");
}

/// Both replicas have found the ill nodes, say why, and go on without a quorum where there is none.
async fn assert_found(cluster: &Cluster, illness: &Illness, kind: &str) {
    let refusals = at_both(cluster, &format!("coupon_redis_refusals_total{{kind=\"{kind}\"}}")).await;
    assert!(refusals.iter().all(|count| *count >= 2.0), "{refusals:?} refusals: {kind}");
    for node in illness.nodes {
        let up = at_both(cluster, &format!("coupon_redis_node_up{{node=\"{}\"}}", node + 1)).await;
        assert_eq!(up, [0.0, 0.0], "node {node}");
    }
    if illness.nodes.len() > 1 {
        let before = [cluster.bypassed(0).await, cluster.bypassed(1).await];
        assert!(before.iter().all(|count| *count > 0.0), "{before:?} batches without the lock");
    }
}

/// Both replicas get the lock again, and need nothing else.
async fn assert_locks_again(cluster: &Cluster) {
    let cured = Instant::now();
    let counts = async || {
        let granted = at_both(cluster, r#"coupon_lock_attempts_total{result="granted"}"#).await;
        (granted, [cluster.bypassed(0).await, cluster.bypassed(1).await])
    };
    let mut before = counts().await;
    until("both replicas are under lock again", WITHIN + 10 * MOMENT, async || {
        let now = counts().await;
        let granted = (0..2).all(|replica| now.0[replica] > before.0[replica]);
        let is_usual = granted && now.1 == before.1;
        let said = format!("{before:?} {now:?} after {:?}", cured.elapsed());
        before = now;
        if is_usual { Ok(()) } else { Err(said) }
    })
    .await;
}

macro_rules! illnesses {
    ($($name:ident: $illness:expr;)+) => {
        $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $name() {
            endure($illness).await;
        })+
    };
}

illnesses! {
    nodes_without_memory_stop_nobody:
        ill(&[0, 2], "CONFIG SET maxmemory 1", "CONFIG SET maxmemory 0", Some("oom"));
    nodes_that_follow_another_server_stop_nobody:
        ill(&[0, 1], "REPLICAOF 127.0.0.1 1", "REPLICAOF NO ONE", Some("readonly"));
    nodes_that_run_no_scripts_stop_nobody:
        ill(&[0, 1, 2], "ACL SETUSER default -@scripting", "ACL SETUSER default +@scripting", Some("noperm"));
    one_node_that_runs_no_scripts_stops_nobody:
        ill(&[0], "ACL SETUSER default -@scripting", "ACL SETUSER default +@scripting", Some("noperm"));
    one_node_that_keeps_writes_waiting_stops_nobody:
        ill(&[0], "CLIENT PAUSE 60000 WRITE", "CLIENT UNPAUSE", Some("silent"));
    nodes_that_keep_writes_waiting_stop_nobody:
        ill(&[1, 2], "CLIENT PAUSE 60000 WRITE", "CLIENT UNPAUSE", Some("silent"));
    nodes_that_keep_other_keys_stop_nobody:
        ill(&[0, 2], "ACL SETUSER default resetkeys ~other:*", "ACL SETUSER default allkeys", Some("noperm"));
    nodes_that_lack_replicas_stop_nobody:
        ill(&[1, 2], "CONFIG SET min-replicas-to-write 1", "CONFIG SET min-replicas-to-write 0", Some("noreplicas"));
    nodes_that_wake_nobody_stop_nobody:
        ill(&[0, 1, 2], "ACL SETUSER default -@blocking -lpush", "ACL SETUSER default +@all", Some("noperm"));
    nodes_that_let_nobody_new_in_stop_nobody:
        ill(&[0, 1, 2], "CONFIG SET requirepass secret-from-now-on", "ACL SETUSER default nopass", None);
}

/// A key that is set by hand and never ends, which no look at a node can find.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lock_that_is_never_granted_costs_its_time_once_and_is_used_again_when_it_can_be_had() {
    let cluster = Setup::new("batched").coupons([("A", 1_000), ("B", 10)]).start().await;
    let lock = cluster.hold_lock("A").await;
    for replica in 0..2 {
        let asked = Instant::now();
        assert_eq!(cluster.issue(replica, "A", &format!("u-{replica}"), "k").await.status, 201);
        let took = asked.elapsed();
        assert!(took > Duration::from_millis(1_500) && took < 2 * WITHIN, "{took:?}");
        assert!(cluster.metric(replica, r#"coupon_lock_bypassed_total{reason="no-grant"}"#).await > 0.0);
    }
    let asked = Instant::now();
    for order in 0..10 {
        assert_eq!(cluster.issue(order % 2, "A", &format!("next-{order}"), "k").await.status, 201);
    }
    assert!(asked.elapsed() < Duration::from_millis(1_500), "ten orders took {:?}", asked.elapsed());
    let before = cluster.bypassed(0).await;
    assert_eq!(cluster.issue(0, "B", "u", "k").await.status, 201);
    assert_eq!(cluster.bypassed(0).await, before, "the other lock is free, and is used");

    lock.release().await;

    let mut order = 0;
    until("both are under lock again", WITHIN + 10 * MOMENT, async || {
        order += 1;
        let before = [cluster.bypassed(0).await, cluster.bypassed(1).await];
        for replica in 0..2 {
            assert_eq!(
                cluster.issue(replica, "A", &format!("back-{order}"), &replica.to_string()).await.status / 100,
                if replica == 0 { 2 } else { 4 }
            );
        }
        let now = [cluster.bypassed(0).await, cluster.bypassed(1).await];
        if now == before { Ok(()) } else { Err(format!("{before:?} {now:?}")) }
    })
    .await;
    cluster.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_the_lock_is_insisted_upon_an_order_is_refused_when_patience_ends() {
    let setup = Setup::new("batched").replicas(1).set("--on-lock-loss", "refuse");
    let cluster = setup.start().await;
    let lock = cluster.hold_lock("A").await;
    let asked = Instant::now();
    for order in 0..3 {
        let answer = cluster.issue(0, "A", &format!("u-{order}"), "k").await;
        assert_eq!((answer.status, answer.member("type")), (503, "/problems/unavailable".into()));
    }
    assert!(asked.elapsed() < 2 * WITHIN, "{:?}", asked.elapsed());
    assert_eq!(cluster.bypassed(0).await, 0.0);
    lock.release().await;
    assert_eq!(cluster.decided(0, "A", "u-0").await.status, 201);
    cluster.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn eight_replicas_with_a_thousand_users_never_go_on_without_the_lock() {
    const REPLICAS: usize = 8;
    const USERS: usize = 1_000;
    let setup = Setup::new("batched").replicas(REPLICAS).coupons([("A", 10_000)]).set("--pool-size", 2);
    let cluster = setup.start().await;
    let users = (0..USERS).map(|user| {
        let cluster = &cluster;
        async move {
            for ask in 0..5 {
                let answer = cluster.issue((user + ask) % REPLICAS, "A", &format!("u-{user}-{ask}"), "k").await;
                assert_eq!(answer.status, 201, "{}", answer.text);
            }
        }
    });
    join_all(users).await;
    for replica in 0..REPLICAS {
        for reason in ["no-quorum", "no-grant"] {
            let bypassed = cluster.metric(replica, &format!("coupon_lock_bypassed_total{{reason=\"{reason}\"}}")).await;
            assert_eq!(bypassed, 0.0, "replica {replica}: {reason}");
        }
    }
    cluster.finish().await;
}

/// A time-to-live that is soon over.
const SHORT: Duration = Duration::from_millis(400);

/// The key is always another holder's, as if the lock changed hands, and never free.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_waiter_waits_for_ever_for_a_lock_that_changes_hands_among_others() {
    let nodes = Nodes::start().await;
    let locks = locks(&nodes.urls(), SHORT).await;
    let (started, stop) = (Instant::now(), Arc::new(CancellationToken::new()));
    let others = async {
        let mut holder = 0;
        while !stop.is_cancelled() {
            tell(&nodes, &[0, 1, 2], &format!("SET test:lock:A {holder}")).await;
            holder += 1;
        }
    };
    let waits = async {
        eventually("the key is there", async || started.elapsed() > Duration::from_millis(100)).await;
        let acquired = locks.acquire("A", || true).await;
        stop.cancel();
        acquired.err()
    };

    let (refused, ()) = tokio::join!(waits, others);

    assert_eq!(refused, Some(LockError::NotGranted));
    assert!(started.elapsed() > SHORT && started.elapsed() < SHORT + WITHIN, "{:?}", started.elapsed());
}

/// A round trip takes longer than the moment for which a replica tries again where nodes are near.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_lock_of_a_far_node_is_used_again_when_it_can_be_had() {
    const THERE: Duration = Duration::from_millis(60);
    let nodes = Nodes::so_many(1).await;
    let far = distance::start(([127, 0, 0, 1], 0).into(), nodes.address(0), THERE).await.unwrap();
    let locks = locks_within(&format!("redis://{far}/"), SHORT, Duration::from_millis(400)).await;
    tell(&nodes, &[0], "SET test:lock:A another").await;
    assert_eq!(locks.acquire("A", || true).await.err(), Some(LockError::NotGranted));

    tell(&nodes, &[0], "DEL test:lock:A").await;

    until("the lock is granted", WITHIN, async || locks.acquire("A", || true).await.map(drop)).await;
}

/// A password that the replicas were not told: the connections that they have still serve. When another node is lost they need new ones.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_that_let_nobody_new_in_are_found_when_another_is_lost() {
    let nodes = Nodes::start().await;
    let locks = locks(&nodes.urls(), Duration::from_millis(1_500)).await;
    tell(&nodes, &[1, 2], "CONFIG SET requirepass secret-from-now-on").await;
    locks.release(locks.acquire("served", || true).await.unwrap()).await;
    let mut codes = 0;
    let mut next = async || {
        codes += 1;
        locks.acquire(&codes.to_string(), || true).await.map(drop)
    };

    nodes.signal(0, "STOP");

    until("the majority is known to be lost", WITHIN, async || match next().await {
        Err(LockError::QuorumGone) => Ok(()),
        other => Err(format!("{other:?}")),
    })
    .await;
    tell(&nodes, &[1, 2], "ACL SETUSER default nopass").await;
    until("the lock is granted", WITHIN, next).await;
}
