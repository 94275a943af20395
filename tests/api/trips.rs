//! Round trips of one issue, counted by the servers: the numbers in the strategies' docs.

use std::collections::BTreeMap;

use futures_util::future::join_all;

use crate::support::{PrivateRedis, Setup, added, eventually};

/// What each strategy sends to the database for one issue.
const STRATEGIES: [(&str, &[&str]); 6] = [
    ("unlocked", &["START", "SELECT", "UPDATE", "INSERT", "COMMIT"]),
    ("conditional", &["START", "UPDATE", "INSERT", "COMMIT"]),
    ("optimistic", &["START", "SELECT", "UPDATE", "INSERT", "COMMIT"]),
    ("pessimistic", &["START", "SELECT", "UPDATE", "INSERT", "COMMIT"]),
    ("redlock", &["START", "UPDATE", "INSERT", "COMMIT"]),
    ("batched", &["CALL"]),
];

/// Where each strategy says what it costs.
const SOURCES: [(&str, &str); 6] = [
    ("unlocked", include_str!("../../src/issuance/unlocked.rs")),
    ("conditional", include_str!("../../src/issuance/conditional.rs")),
    ("optimistic", include_str!("../../src/issuance/optimistic.rs")),
    ("pessimistic", include_str!("../../src/issuance/pessimistic.rs")),
    ("redlock", include_str!("../../src/issuance/redlock.rs")),
    ("batched", include_str!("../../src/issuance/batched.rs")),
];

const README: &str = include_str!("../../README.md");

/// Lock and unlock on one node; the script that unlocks compares before it deletes.
const LOCK: [&str; 4] = ["set", "evalsha", "get", "del"];

/// The wake-up, which goes to one node.
const WAKE: [&str; 3] = ["lpush", "ltrim", "pexpire"];

fn once(commands: &[&str]) -> BTreeMap<String, u64> {
    commands.iter().map(|command| ((*command).to_owned(), 1)).collect()
}

/// The commands of one issue on each of three nodes.
fn commands(strategy: &str) -> Vec<BTreeMap<String, u64>> {
    match strategy {
        "batched" => vec![once(&[&LOCK[..], &WAKE].concat()), once(&LOCK), once(&LOCK)],
        "redlock" => vec![once(&LOCK); 3],
        _ => vec![BTreeMap::new(); 3],
    }
}

fn total(nodes: &[BTreeMap<String, u64>]) -> u64 {
    nodes.iter().flat_map(BTreeMap::values).sum()
}

/// The numbers counted below, as the strategies' docs and the README's table write them.
#[test]
fn the_documents_name_the_round_trips_that_are_counted() {
    for ((strategy, statements), (of, source)) in STRATEGIES.into_iter().zip(SOURCES) {
        assert_eq!(strategy, of);
        let trips = statements.len();
        let to_redis = if commands(strategy)[0].is_empty() { 0 } else { 2 };
        let said = source.split_once("Round trips: ").unwrap().1;
        assert!(said.starts_with(&format!("{trips} ")), "{strategy}: {trips}, but its doc says {said:.60}");
        assert_eq!(said.contains("2 to Redis"), to_redis == 2, "{strategy}: its doc on Redis");
        let row = README.lines().find(|line| line.starts_with(&format!("| `{strategy}`"))).unwrap();
        assert!(row.contains(&format!("| {trips} + {to_redis}")), "{strategy}: {trips} + {to_redis}, but: {row}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_issue_makes_as_many_round_trips_as_its_strategy_says() {
    let redis = PrivateRedis::start().await;
    for (strategy, statements) in STRATEGIES {
        let setup = Setup::new(strategy).replicas(1).set("--redis-urls", redis.urls()).set("--pool-size", 1);
        let cluster = setup.start().await;
        // The first issue makes the connections and prepares the statements.
        let first = cluster.issue(0, "A", "u-1", "k").await;
        assert_eq!(first.status, 201, "{strategy}: {}", first.text);
        let mut calls = redis.calls().await;
        eventually("the first lease is given back", async || {
            let before = std::mem::replace(&mut calls, redis.calls().await);
            before == calls
        })
        .await;

        let (second, sent) = cluster.statements_during(cluster.issue(0, "A", "u-2", "k")).await;

        assert_eq!(second.status, 201, "{strategy}: {}", second.text);
        assert_eq!(sent, statements, "{strategy}");
        let expected = commands(strategy);
        let mut more = Vec::new();
        eventually("the second lease is given back", async || {
            more = added(&calls, &redis.calls().await);
            total(&more) >= total(&expected)
        })
        .await;
        assert_eq!(more, expected, "{strategy}");
        cluster.finish().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_orders_that_wait_together_cost_batched_one_call_and_one_lock() {
    let cluster = Setup::new("batched").patient().replicas(1).coupons([("A", 200)]).start().await;
    assert_eq!(cluster.issue(0, "A", "first", "k").await.status, 201);
    let lock = cluster.hold_lock("A").await;
    let users: Vec<_> = (0..100).map(|user| format!("u-{user}")).collect();
    let asks = join_all(users.iter().map(|user| cluster.issue(0, "A", user, "k")));
    let granted = cluster.metric(0, r#"coupon_lock_attempts_total{result="granted"}"#).await;

    let release = async {
        let all = async || cluster.metric(0, "coupon_queue_depth").await >= 100.0;
        eventually("all of them wait", all).await;
        lock.release().await;
    };
    let ((answers, ()), sent) = cluster.statements_during(async { tokio::join!(asks, release) }).await;

    assert!(answers.iter().all(|answer| answer.status == 201));
    assert_eq!(sent, ["CALL"]);
    let more = cluster.metric(0, r#"coupon_lock_attempts_total{result="granted"}"#).await - granted;
    assert!((more - 1.0).abs() < f64::EPSILON, "{more} locks");
    cluster.finish().await;
}
