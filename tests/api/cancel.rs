//! Clients that hang up: while they wait they take nothing, and once their order is being settled nothing is left behind.

use crate::support::{Cluster, Setup, eventually};

/// A lease that is left behind outlives every test.
const LONG_TTL_MS: u32 = 60_000;

/// Sends an order, lets `reached` come true, and hangs up.
async fn vanish(cluster: &Cluster, user: &str, reached: impl AsyncFnMut() -> bool) {
    tokio::select! {
        answer = cluster.issue(0, "A", user, "k") => panic!("{user} was answered: {} {}", answer.status, answer.text),
        () = eventually("the order has got that far", reached) => {}
    }
}

async fn queued(cluster: &Cluster) -> f64 {
    cluster.metric(0, "coupon_queue_depth").await
}

async fn expired(cluster: &Cluster) -> f64 {
    cluster.metric(0, r#"coupon_lock_wait_seconds_count{result="expired"}"#).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_hangs_up_while_the_lock_is_awaited_takes_nothing_and_the_next_gets_its_place() {
    for strategy in ["batched", "redlock"] {
        let setup = Setup::new(strategy).replicas(1).coupons([("A", 2)]).set("--lock-ttl-ms", LONG_TTL_MS);
        let cluster = setup.start().await;
        let lock = cluster.hold_lock("A").await;
        for user in ["gone-1", "gone-2", "gone-3"] {
            let asks = async || cluster.metric(0, r#"coupon_lock_attempts_total{result="contended"}"#).await;
            let before = asks().await;
            vanish(&cluster, user, async || asks().await > before).await;
            let noticed = async || cluster.metric(0, "coupon_in_flight").await < 0.5;
            eventually("the replica notices that the client has left", noticed).await;
        }
        lock.release().await;
        eventually("the orders are forgotten", async || expired(&cluster).await > 2.5).await;

        for (user, serial) in [("u-1", 1), ("u-2", 2)] {
            let answer = cluster.issue(0, "A", user, "k").await;
            assert_eq!((answer.status, answer.member("serial")), (201, serial.into()), "{strategy}: {}", answer.text);
        }
        assert_eq!(cluster.issue(0, "A", "gone-1", "k").await.status, 410, "{strategy}");
        cluster.finish().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_that_hang_up_among_others_that_wait_leave_no_gap_between_them() {
    let cluster = Setup::new("batched").patient().replicas(1).coupons([("A", 4)]).start().await;
    let lock = cluster.hold_lock("A").await;
    let (stays, gone) = (["u-0", "u-1", "u-2", "u-3"], ["gone-0", "gone-1", "gone-2"]);
    let leaving = async {
        let all_wait = async || queued(&cluster).await > 6.5;
        let leavers = futures_util::future::join_all(gone.map(|user| cluster.issue(0, "A", user, "k")));
        tokio::select! {
            _ = leavers => panic!("an order was answered while the lock was held"),
            () = eventually("all of them wait", all_wait) => {}
        }
    };
    let staying = futures_util::future::join_all(stays.map(|user| cluster.issue(0, "A", user, "k")));
    let (answers, ()) = tokio::join!(staying, async {
        leaving.await;
        let noticed = async || cluster.metric(0, "coupon_in_flight").await < 4.5;
        eventually("the replica notices that some have left", noticed).await;
        lock.release().await;
    });

    let mut serials: Vec<_> = answers.iter().map(|answer| answer.member("serial").as_u64()).collect();
    serials.sort_unstable();
    assert_eq!(serials, [Some(1), Some(2), Some(3), Some(4)]);
    assert_eq!(cluster.number("SELECT COUNT(*) FROM wallet WHERE user_id LIKE 'gone%'").await, 0);
    cluster.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_hangs_up_while_it_waits_for_a_connection_takes_nothing() {
    for strategy in ["pessimistic", "conditional", "optimistic", "redlock"] {
        let cluster = Setup::new(strategy).replicas(1).coupons([("A", 2)]).set("--pool-size", 1).start().await;
        let row = cluster.hold("A").await;
        let first = cluster.issue(0, "A", "u-1", "k");
        let leaving = async {
            eventually("the first order waits for the row", async || cluster.waiting_for_rows().await == 1).await;
            vanish(&cluster, "gone", async || queued(&cluster).await > 1.5).await;
            eventually("the second order is forgotten", async || queued(&cluster).await < 1.5).await;
            row.release().await;
        };
        let (first, ()) = tokio::join!(first, leaving);
        let second = cluster.issue(0, "A", "u-2", "k").await;

        assert_eq!((first.status, second.status), (201, 201), "{strategy}: {} {}", first.text, second.text);
        assert_eq!(cluster.issue(0, "A", "gone", "k").await.status, 410, "{strategy}");
        cluster.finish().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_hangs_up_while_its_order_is_settled_keeps_its_coupon_and_no_lock() {
    for strategy in ["batched", "redlock", "pessimistic"] {
        let cluster = Setup::new(strategy).coupons([("A", 5)]).set("--lock-ttl-ms", LONG_TTL_MS).start().await;
        let row = cluster.hold("A").await;
        vanish(&cluster, "gone", async || cluster.waiting_for_rows().await == 1).await;
        let held = cluster.redis_keys().await.contains(&cluster.lock_key("A"));
        assert_eq!(held, strategy != "pessimistic", "{strategy}");
        row.release().await;

        // The other replica is served at once: it does not wait for the end of a lease.
        let next = cluster.issue(1, "A", "u-1", "k").await;
        let again = cluster.issue(1, "A", "gone", "k").await;

        assert_eq!((next.status, again.status), (201, 200), "{strategy}: {} {}", next.text, again.text);
        assert_eq!((again.member("serial"), next.member("serial")), (1.into(), 2.into()), "{strategy}");
        let key = cluster.lock_key("A");
        eventually("the lease is given back", async || !cluster.redis_keys().await.contains(&key)).await;
        cluster.finish().await;
    }
}
