//! Windows that open and close while people ask.

use std::time::{Duration, Instant};

use coupon_rush::coupons::Timestamp;
use futures_util::future::join_all;
use serde_json::{Value, json};
use sqlx::{AssertSqlSafe, Executor};

use crate::rounds::{PLENTY, event, stock};
use crate::support::documented::assert_problem;
use crate::support::{Cluster, SOUND, Setup, eventually, in_each};

/// The database's clock.
async fn now(cluster: &Cluster) -> Timestamp {
    Timestamp(cluster.number("SELECT TIMESTAMPDIFF(MICROSECOND, '1970-01-01', UTC_TIMESTAMP(6))").await)
}

/// The owner of a window.
#[derive(Clone, Copy, Debug)]
enum Whose {
    Coupon,
    Event,
}

async fn put_window(cluster: &Cluster, whose: Whose, opens_at: Option<Timestamp>, closes_at: Option<Timestamp>) {
    let text = |time: Option<Timestamp>| time.map(|time| time.to_string());
    let (path, mut body) = match whose {
        Whose::Coupon => ("/admin/coupons/A", stock(PLENTY)),
        Whose::Event => ("/admin/event", event(false)),
    };
    body["opensAt"] = json!(text(opens_at));
    body["closesAt"] = json!(text(closes_at));
    let answer = cluster.admin(0, "PUT", path, Some(body)).await;
    assert_eq!((answer.status, answer.member("opensAt")), (200, json!(text(opens_at))), "{}", answer.text);
}

/// Newcomers are refused, and the holder gets its entry.
async fn assert_not_open(cluster: &Cluster, entry: &Value, retry_after: std::ops::RangeInclusive<u64>) {
    for replica in 0..2 {
        let newcomer = cluster.issue(replica, "A", "newcomer", "k").await;
        assert_eq!((newcomer.status, newcomer.member("type")), (403, json!("/problems/not-open")), "{}", newcomer.text);
        let seconds = newcomer.header("retry-after").parse().unwrap_or(0);
        assert!(retry_after.contains(&seconds), "{seconds}");
        let again = cluster.issue(replica, "A", "holder", "k").await;
        let other = cluster.issue(replica, "A", "holder", "another").await;
        assert_eq!((again.status, again.json()), (200, entry.clone()));
        assert_eq!((other.status, other.member("entry")), (409, entry.clone()));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_window_opens_and_closes_for_newcomers_and_holders_keep_their_answers() {
    join_all([Whose::Coupon, Whose::Event].map(|whose| async move {
        let cluster = Setup::new("batched").coupons([("A", PLENTY)]).start().await;
        let entry = cluster.issue(0, "A", "holder", "k").await.json();

        let opens = now(&cluster).await + Duration::from_secs(3);
        put_window(&cluster, whose, Some(opens), None).await;
        assert_not_open(&cluster, &entry, 1..=2).await;
        assert_eq!(cluster.get(1, "/coupons/A").await.member("state"), "scheduled");

        let mut first = None;
        eventually("it opens", async || {
            let answer = cluster.issue(1, "A", "early", "k").await;
            first = (answer.status == 201).then(|| answer.member("issuedAt"));
            first.is_some()
        })
        .await;
        let issued_at = Timestamp::parse(first.unwrap().as_str().unwrap()).unwrap();
        assert!(issued_at >= opens, "{whose:?}: {issued_at} before {opens}");

        let closes = now(&cluster).await + Duration::from_millis(1_400);
        put_window(&cluster, whose, None, Some(closes)).await;
        let mut users = 0;
        let started = Instant::now();
        eventually("it closes", async || {
            users += 1;
            cluster.issue(0, "A", &format!("u-{users}"), "k").await.status == 403
        })
        .await;
        assert!(started.elapsed() < Duration::from_secs(3));
        let late = format!(
            "SELECT COUNT(*) FROM wallet WHERE issued_at >= TIMESTAMPADD(MICROSECOND, {}, '1970-01-01')",
            closes.0
        );
        assert_eq!(cluster.number(&late).await, 0, "{whose:?}");
        assert_not_open(&cluster, &entry, 0..=0).await;
        assert_eq!(cluster.get(1, "/coupons/A").await.member("state"), "closed");

        put_window(&cluster, whose, None, None).await;
        assert_eq!(cluster.issue(1, "A", "newcomer", "k").await.status, 201, "{whose:?}");
        cluster.finish().await;
    }))
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_order_that_waits_for_its_row_while_a_window_closes_gets_nothing() {
    let setup = |strategy: &str| Setup::new(strategy).coupons([("A", 10), ("B", 10)]);
    in_each(SOUND, setup, |strategy, cluster| async move {
        for (code, closing) in [("A", "closes_at"), ("B", "event_closes_at")] {
            let mut admin = cluster.sql().await;
            let close = format!("UPDATE coupon SET {closing} = '2020-01-01' WHERE code = '{code}'");
            admin.execute("START TRANSACTION").await.unwrap();
            admin.execute(AssertSqlSafe(close)).await.unwrap();
            let (late, ()) = tokio::join!(cluster.issue(0, code, "late", "k"), async {
                eventually("the order waits", async || cluster.waiting_for_rows().await == 1).await;
                admin.execute("COMMIT").await.unwrap();
            });
            assert_eq!(
                (late.status, late.member("type")),
                (403, json!("/problems/not-open")),
                "{strategy}, {closing}: {}",
                late.text
            );
        }
        assert_eq!(cluster.number("SELECT COUNT(*) FROM wallet").await, 0, "{strategy}");
        cluster.finish().await;
    })
    .await;
}

/// A replica's memory reads the event itself, of which nothing is changed here. The coupon's copy of its window is what the
/// database goes by.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_database_by_itself_refuses_outside_the_events_window() {
    let setup = |strategy: &str| Setup::new(strategy).replicas(1);
    in_each(SOUND.into_iter().chain(["unlocked"]), setup, |strategy, cluster| async move {
        let opening = "'2999-01-01'";
        // The second one closes before it opens.
        for (opens_at, closes_at, is_ahead) in
            [("NULL", "'2020-01-01'", false), (opening, "'2998-01-01'", false), (opening, "NULL", true)]
        {
            let window = format!("event_opens_at = {opens_at}, event_closes_at = {closes_at}");
            cluster.run(&format!("UPDATE coupon SET {window}")).await;
            let refused = cluster.issue(0, "A", "u-1", "k").await;
            let known = cluster.get(0, "/coupons/A").await;

            assert_problem(&refused, 403, "/problems/not-open");
            assert_eq!(refused.header("retry-after").is_empty(), !is_ahead, "{strategy}: {window}");
            assert_eq!(known.member("state"), "open", "{strategy}: the memory would not have refused");
        }
        assert_eq!(cluster.number("SELECT COUNT(*) FROM wallet").await, 0, "{strategy}");
        cluster.run("UPDATE coupon SET event_opens_at = NULL").await;
        assert_eq!(cluster.issue(0, "A", "u-1", "k").await.status, 201, "{strategy}");
        cluster.finish().await;
    })
    .await;
}
