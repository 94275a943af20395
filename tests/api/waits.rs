//! The wait for the exclusive right, as the metrics tell it: of orders that had it, that left before, and that never wanted it.

use futures_util::future::join_all;
use sqlx::Executor;

use crate::support::{Cluster, Setup, eventually, in_each};

async fn waits(cluster: &Cluster, result: &str) -> f64 {
    cluster.metric(0, &format!("coupon_lock_wait_seconds_count{{result=\"{result}\"}}")).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_issue_counts_one_wait_for_the_exclusive_right_where_its_strategy_has_one() {
    let rights = [
        ("unlocked", 0.0),
        ("conditional", 1.0),
        ("optimistic", 0.0),
        ("pessimistic", 1.0),
        ("redlock", 1.0),
        ("batched", 1.0),
    ];
    let setup = |strategy: &str| Setup::new(strategy).replicas(1);
    in_each(rights.map(|(strategy, _)| strategy), setup, |strategy, cluster| async move {
        let before = waits(&cluster, "granted").await;

        assert_eq!(cluster.issue(0, "A", "u-1", "k").await.status, 201, "{strategy}");

        let expected = rights.iter().find(|(of, _)| *of == strategy).unwrap().1;
        assert_eq!(waits(&cluster, "granted").await - before, expected, "{strategy}");
        cluster.finish().await;
    })
    .await;
}

/// Another transaction holds the user's row of the wallet, so that the order has its right and its run comes to nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_order_that_is_run_again_has_waited_once() {
    let setup = |strategy: &str| Setup::new(strategy).replicas(1);
    in_each(["conditional", "pessimistic", "redlock", "batched"], setup, |strategy, cluster| async move {
        let (before, mut other) = (waits(&cluster, "granted").await, cluster.sql().await);
        let row = "INSERT INTO wallet (round, scope, user_id, coupon_id, serial, request_id, issued_at) \
                   SELECT round, scope, 'u-1', id, 99, UNHEX(REPEAT('0', 32)), UTC_TIMESTAMP(6) FROM coupon";
        other.execute("START TRANSACTION").await.unwrap();
        other.execute(row).await.unwrap();
        let (answer, ()) = tokio::join!(cluster.issue(0, "A", "u-1", "k"), async {
            eventually("a run was given up", async || cluster.given_up(0).await > 0.0).await;
            other.execute("ROLLBACK").await.unwrap();
        });

        // 200 when a run whose outcome is not known was carried out.
        assert!(matches!(answer.status, 200 | 201), "{strategy}: {}", answer.text);
        assert_eq!(waits(&cluster, "granted").await - before, 1.0, "{strategy}");
        cluster.finish().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_order_that_is_refused_without_the_lock_did_not_wait_for_it() {
    let cluster = Setup::new("batched").replicas(1).coupons([("A", 1), ("B", 5)]).exclusive().start().await;
    assert_eq!(cluster.decided(0, "A", "u-1").await.status, 201);
    // B has stock, so that no memory has the holders of this event, and each order for A comes this far.
    eventually("A is known to be sold out", async || {
        let before = waits(&cluster, "granted").await;
        assert_eq!(cluster.decided(0, "A", "loser").await.status, 410);
        waits(&cluster, "granted").await == before
    })
    .await;
    let before = waits(&cluster, "granted").await;
    for user in 0..5 {
        assert_eq!(cluster.decided(0, "A", &format!("late-{user}")).await.status, 410);
    }
    assert_eq!(waits(&cluster, "granted").await, before);
    cluster.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_leaves_while_it_waits_for_a_connection_has_waited_in_vain() {
    const USERS: usize = 4;
    join_all([("conditional", true), ("pessimistic", true), ("unlocked", false)].map(
        |(strategy, has_right)| async move {
            let setup = Setup::new(strategy).replicas(1).set("--pool-size", 1).set("--request-deadline-ms", 500);
            let cluster = setup.start().await;
            let row = cluster.hold("A").await;
            let names: Vec<_> = (0..USERS).map(|user| format!("u-{user}")).collect();
            let asks = names.iter().map(|user| cluster.issue(0, "A", user, "k"));
            for answer in join_all(asks).await {
                assert_eq!(answer.status, 503, "{strategy}: {}", answer.text);
            }
            assert_eq!(waits(&cluster, "expired").await > 0.0, has_right, "{strategy}");
            assert_eq!(cluster.metric(0, "coupon_queue_depth").await, 0.0);
            row.release().await;
            cluster.finish().await;
        },
    ))
    .await;
}
