//! The lock under faults: Redis nodes that hang, restart empty or vanish, a lock that every replica gets, a holder that stalls.
//! The database keeps every promise by itself; the lock only decides how fast it goes.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::support::{Answer, Cluster, Held, Nodes, Process, SOON, Setup, eventually, redis_connection, sample, until};

/// Pieces per race.
const STOCK: u32 = 5;
/// Users per race.
const USERS: usize = 12;

/// Waits until all replicas see a node as up (1) or down (0).
pub async fn until_seen(cluster: &Cluster, node: usize, up: f64) {
    let series = format!("coupon_redis_node_up{{node=\"{}\"}}", node + 1);
    for replica in 0..cluster.replicas.len() {
        eventually("the node is seen", async || cluster.metric(replica, &series).await == up).await;
    }
}

/// Every user asks both replicas for every code at once; each code's stock is given out exactly, and each winner has one
/// entry, told twice.
async fn race(cluster: &Cluster, codes: &[String]) {
    let asks =
        codes.iter().flat_map(|code| (0..USERS).flat_map(move |user| [(code, user, 0), (code, user, 1)])).map(
            |(code, user, replica)| async move {
                (code.clone(), cluster.decided(replica, code, &format!("u-{user}")).await)
            },
        );
    let answers: Vec<(String, Answer)> = join_all(asks).await;
    for code in codes {
        let winners: Vec<_> = answers.iter().filter(|(of, it)| of == code && it.status < 300).collect();
        let serials: HashSet<_> = winners.iter().map(|(_, it)| it.member("serial").as_u64()).collect();
        assert_eq!((winners.len(), serials.len()), (2 * STOCK as usize, STOCK as usize), "{code}");
        let losers = answers.iter().filter(|(of, it)| of == code && it.status == 410).count();
        assert_eq!(losers, 2 * (USERS - STOCK as usize), "{code}");
    }
}

fn codes(name: &str) -> Vec<String> {
    (0..6).map(|race| format!("{name}{race}")).collect()
}

fn stock(codes: &[String]) -> Vec<(String, u32)> {
    codes.iter().map(|code| (code.clone(), STOCK)).collect()
}

/// Waits for `count` more issues, at most `within`, and returns how many came to an end a second.
async fn issues(what: &str, done: &AtomicUsize, count: usize, within: Duration) -> usize {
    let (before, started) = (done.load(Ordering::Relaxed), Instant::now());
    let more = until(what, within, async || {
        let more = done.load(Ordering::Relaxed) - before;
        if more >= count { Ok(more) } else { Err(format!("{more} of {count} issues")) }
    })
    .await;
    more * 1_000 / usize::try_from(started.elapsed().as_millis()).unwrap().max(1)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hung_node_is_one_blip_and_then_the_old_speed() {
    let nodes = Nodes::start().await;
    let setup = Setup::new("batched").coupons([("A", 1_000_000)]).set("--redis-urls", nodes.urls());
    let cluster = setup.start().await;
    let (done, stop) = (AtomicUsize::new(0), CancellationToken::new());
    let clients = (0..16).map(|client| {
        let (cluster, done, stop) = (&cluster, &done, &stop);
        async move {
            let mut ask = 0;
            while !stop.is_cancelled() {
                let answer = cluster.issue(client % 2, "A", &format!("u-{client}-{ask}"), "k").await;
                assert_eq!(answer.status, 201, "{}", answer.text);
                ask += 1;
                done.fetch_add(1, Ordering::Relaxed);
            }
        }
    });
    let observe = async {
        let second = Duration::from_secs(1);
        issues("it is at work", &done, 100, SOON).await;
        // Without the prober every lock and every release would take half a second: at most 16 issues a second.
        let before = issues("enough to tell", &done, 501, 5 * second).await;
        let usual = 65.max(before / 5 + 1);
        // The first node carries the wake-ups, too.
        nodes.signal(0, "STOP");
        issues("the blip", &done, 17, second).await;
        until_seen(&cluster, 0, 0.0).await;
        issues("while it hangs", &done, usual, second).await;
        nodes.signal(0, "CONT");
        until_seen(&cluster, 0, 1.0).await;
        issues("when it is back", &done, usual, second).await;
        stop.cancel();
    };
    tokio::join!(join_all(clients), observe);
    // Two nodes of three are a quorum, as long as the machine is not too busy to hear them.
    for replica in 0..2 {
        let bypassed = cluster.bypassed(replica).await;
        let granted = cluster.metric(replica, "coupon_lock_attempts_total{result=\"granted\"}").await;
        assert!(bypassed < granted / 2.0, "{bypassed} bypassed, {granted} granted");
    }
    cluster.finish().await;
}

/// As Redis does by default after it could not save its data. It answers all the same.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_takes_no_writes_is_taken_for_lost() {
    let nodes = Nodes::start().await;
    let cluster = Setup::new("batched").set("--redis-urls", nodes.urls()).start().await;
    until_seen(&cluster, 0, 1.0).await;
    let mut node = redis_connection(&nodes.url(0)).await;

    let () = redis::cmd("CONFIG").arg("SET").arg("save").arg("3600 1").query_async(&mut node).await.unwrap();
    let () = redis::cmd("BGSAVE").query_async(&mut node).await.unwrap();

    until_seen(&cluster, 0, 0.0).await;
    assert_eq!(cluster.issue(0, "A", "u-1", "k").await.status, 201);
    let () = redis::cmd("CONFIG").arg("SET").arg("save").arg("").query_async(&mut node).await.unwrap();
    until_seen(&cluster, 0, 1.0).await;
    cluster.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_quorum_batched_goes_on_with_the_row_lock_and_keeps_every_promise() {
    let mut nodes = Nodes::start().await;
    let (hung, gone, back) = (codes("H"), codes("G"), codes("B"));
    let all: Vec<_> = [&hung, &gone, &back].into_iter().flat_map(|codes| stock(codes)).collect();
    let cluster = Setup::new("batched").coupons(all).set("--redis-urls", nodes.urls()).start().await;
    let bypassed = async || {
        let counts = [0, 1].map(|replica| cluster.bypassed(replica));
        join_all(counts).await
    };
    assert_eq!(bypassed().await, [0.0, 0.0]);
    // The quorum hangs in the middle of a race, while a holder waits for its row.
    let row = cluster.hold(&hung[0]).await;
    let stop = async {
        eventually("a holder waits for the row", async || cluster.waiting_for_rows().await > 0).await;
        nodes.signal(0, "STOP");
        nodes.signal(1, "STOP");
        row.release().await;
    };
    tokio::join!(race(&cluster, &hung), stop);
    until_seen(&cluster, 0, 0.0).await;
    until_seen(&cluster, 1, 0.0).await;
    nodes.kill(0).await;
    nodes.kill(1).await;
    let before = bypassed().await;
    race(&cluster, &gone).await;
    let after = bypassed().await;
    assert!(after[0] > before[0] && after[1] > before[1], "{before:?} {after:?}");
    nodes.restart(0).await;
    nodes.restart(1).await;
    until_seen(&cluster, 0, 1.0).await;
    until_seen(&cluster, 1, 1.0).await;
    let before = bypassed().await;
    race(&cluster, &back).await;
    assert_eq!(bypassed().await, before, "the lock is back, and is used");
    cluster.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_quorum_refuse_and_redlock_answer_503_until_it_is_back() {
    join_all([("batched", "refuse"), ("redlock", "bypass")].map(|(strategy, loss)| async move {
        let mut nodes = Nodes::start().await;
        let setup = Setup::new(strategy).set("--redis-urls", nodes.urls()).set("--on-lock-loss", loss);
        let cluster = setup.start().await;
        nodes.kill(0).await;
        nodes.kill(2).await;
        until_seen(&cluster, 0, 0.0).await;
        until_seen(&cluster, 2, 0.0).await;
        for replica in 0..2 {
            let answer = cluster.issue(replica, "A", "u-1", "k").await;
            let told = (answer.status, answer.member("type"));
            assert_eq!(told, (503, "/problems/unavailable".into()), "{strategy}");
            assert_ne!(answer.header("retry-after"), "", "{strategy}");
            assert_eq!(cluster.bypassed(replica).await, 0.0, "{strategy}");
            assert!(cluster.metric(replica, "coupon_lock_attempts_total{result=\"unavailable\"}").await > 0.0);
            // What needs no lock goes on, and so does the balancer.
            assert_eq!(cluster.get(replica, "/coupons").await.status, 200, "{strategy}");
            cluster.until_ready(replica).await;
        }
        assert_eq!(cluster.number("SELECT COUNT(*) FROM wallet").await, 0, "{strategy}");
        nodes.restart(0).await;
        nodes.restart(2).await;
        assert_eq!(cluster.decided(0, "A", "u-1").await.status, 201, "{strategy}");
        cluster.finish().await;
    }))
    .await;
}

/// `redlock` issues nothing without the lock, so that every coupon shows a quorum.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_lock_node_of_one_is_a_quorum_and_three_of_five_are() {
    join_all([(1, 0), (5, 2)].map(|(count, spare)| async move {
        let mut nodes = Nodes::so_many(count).await;
        let cluster = Setup::new("redlock").set("--redis-urls", nodes.urls()).start().await;
        assert_eq!(cluster.decided(0, "A", "u-1").await.status, 201, "{count} nodes");
        for node in 0..count {
            assert!(nodes.sets(node).await > 0, "node {node} of {count} was not asked");
        }
        for node in 0..spare {
            nodes.kill(node).await;
            until_seen(&cluster, node, 0.0).await;
        }
        assert_eq!(cluster.decided(1, "A", "u-2").await.status, 201, "{count} nodes");
        nodes.kill(spare).await;
        until_seen(&cluster, spare, 0.0).await;
        let refused = cluster.issue(0, "A", "u-3", "k").await;
        assert_eq!((refused.status, refused.member("type")), (503, "/problems/unavailable".into()), "{count} nodes");
        cluster.finish().await;
    }))
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_starts_without_any_lock_node_and_finds_them_later() {
    let (mut nodes, codes) = (Nodes::start().await, codes("R"));
    let urls = nodes.urls();
    for node in 0..3 {
        nodes.kill(node).await;
    }
    let mut stock = stock(&codes);
    stock.push(("A".to_owned(), 10));
    let cluster = Setup::new("batched").coupons(stock).set("--redis-urls", urls).start().await;
    until_seen(&cluster, 0, 0.0).await;
    race(&cluster, &codes).await;
    for node in 0..3 {
        nodes.restart(node).await;
    }
    for node in 0..3 {
        until_seen(&cluster, node, 1.0).await;
    }
    let before = cluster.metric(0, "coupon_lock_attempts_total{result=\"granted\"}").await;
    assert_eq!(cluster.issue(0, "A", "u-1", "k").await.status, 201);
    assert!(cluster.metric(0, "coupon_lock_attempts_total{result=\"granted\"}").await > before);
    cluster.finish().await;
}

/// To connect to a node that hangs takes a second, for one code after the other.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_that_starts_while_nodes_hang_lets_no_order_wait_for_them() {
    for hung in [&[0][..], &[0, 2]] {
        let (nodes, codes) = (Nodes::start().await, codes("S"));
        for node in hung {
            nodes.signal(*node, "STOP");
        }
        let setup = Setup::new("batched").replicas(1).coupons(stock(&codes));
        let cluster = setup.set("--redis-urls", nodes.urls()).start().await;
        let asked = Instant::now();
        for answer in join_all(codes.iter().map(|code| cluster.issue(0, code, "u", "k"))).await {
            assert_eq!(answer.status, 201, "{}", answer.text);
        }
        assert!(asked.elapsed() < Duration::from_secs(1), "{hung:?} hung, {:?}", asked.elapsed());
        cluster.finish().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lock_that_everybody_gets_breaks_no_promise() {
    for strategy in ["batched", "redlock"] {
        let codes = codes("R");
        let mut cluster = Setup::new(strategy).replicas(0).coupons(stock(&codes)).start().await;
        for _ in 0..2 {
            cluster.join_with_own_lock().await;
        }
        race(&cluster, &codes).await;
        cluster.finish().await;
    }
}

/// A holder with three users in its batch; the row it needs is locked by the test.
async fn stalled(cluster: &Cluster, holder: &Arc<Process>) -> JoinSet<(&'static str, Answer)> {
    let lock = cluster.hold_lock("A").await;
    let asks = ["s-0", "s-1", "s-2"].map(|user| {
        let (client, holder) = (cluster.client.clone(), Arc::clone(holder));
        async move { (user, holder.issue(&client, "A", user).await) }
    });
    let asks = asks.into_iter().collect();
    let queued = async || sample(&cluster.client, &holder.ops_url, "coupon_queue_depth").await == 3.0;
    eventually("all three wait", queued).await;
    lock.release().await;
    eventually("the call waits for the row", async || cluster.waiting_for_rows().await == 1).await;
    holder.signal("STOP");
    asks
}

/// Lets the stopped holder's call have its row. InnoDB may have sent it away before, for it waits no longer than a second; then the holder
/// makes it wait once more.
async fn go_through(cluster: &Cluster, holder: &Process, mut row: Held) {
    loop {
        row.release().await;
        // The test's turn comes when the call is done.
        row = cluster.hold("A").await;
        if cluster.number("SELECT COUNT(*) FROM wallet").await == 3 {
            return row.release().await;
        }
        holder.signal("CONT");
        eventually("the call waits for the row again", async || cluster.waiting_for_rows().await == 1).await;
        holder.signal("STOP");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_holder_stopped_past_its_lease_whose_call_goes_through_does_no_harm() {
    let cluster = Setup::new("batched").replicas(1).coupons([("A", STOCK)]).start().await;
    let holder = Arc::new(Process::replica(&cluster.arguments()).await);
    let row = cluster.hold("A").await;
    let asks = stalled(&cluster, &holder).await;
    // The call is carried out for a holder that does not hear of it. Another takes over when the lease has expired.
    go_through(&cluster, &holder, row).await;
    for user in ["o-0", "o-1"] {
        assert_eq!(cluster.issue(0, "A", user, "k").await.status, 201);
    }
    assert_eq!(cluster.decided(0, "A", "o-2").await.status, 410);
    holder.signal("CONT");
    for (user, answer) in asks.join_all().await {
        // A holder that woke too late for the answer has run its call again, and has found its entries.
        assert!(matches!(answer.status, 200 | 201 | 503), "{}", answer.text);
        let again = cluster.decided(0, "A", user).await;
        assert_eq!(again.status, 200, "{}", again.text);
        if answer.status != 503 {
            assert_eq!(again.json(), answer.json());
        }
    }
    let lost = async || sample(&cluster.client, &holder.ops_url, "coupon_lock_lost_total").await == 1.0;
    eventually("the lost lease is counted", lost).await;
    cluster.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_holder_stopped_past_its_lease_that_runs_its_call_again_does_no_harm() {
    let cluster = Setup::new("batched").replicas(1).coupons([("A", STOCK)]).start().await;
    let holder = Arc::new(Process::replica(&cluster.arguments()).await);
    let row = cluster.hold("A").await;
    let asks = stalled(&cluster, &holder).await;
    eventually("the call has given up", async || cluster.waiting_for_rows().await == 0).await;
    row.release().await;
    // Two pieces are left when the holder wakes: it runs its call again without a lease.
    for user in ["o-0", "o-1", "o-2"] {
        assert_eq!(cluster.decided(0, "A", user).await.status, 201);
    }
    holder.signal("CONT");
    let mut had = 0;
    for (user, answer) in asks.join_all().await {
        assert!(matches!(answer.status, 201 | 410 | 503), "{}", answer.text);
        let again = cluster.decided(0, "A", user).await;
        assert!(matches!(again.status, 200 | 201 | 410), "{}", again.text);
        had += u32::from(again.status < 300);
    }
    assert_eq!(had, 2);
    cluster.finish().await;
}
