//! A row that somebody else keeps locked: an order waits for it, or is told so, and nobody loses a coupon.

use futures_util::future::join_all;

use crate::support::{SOUND, Setup, eventually, in_each};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_row_locked_for_longer_than_one_wait_is_only_a_delay() {
    join_all(["batched", "conditional", "pessimistic", "redlock"].map(|strategy| async move {
        let cluster = Setup::new(strategy).sure_of_nodes().start().await;
        let row = cluster.hold("A").await;
        let release = async {
            eventually("a wait has timed out", async || cluster.given_up(0).await > 0.0).await;
            row.release().await;
        };
        let (answer, ()) = tokio::join!(cluster.issue(0, "A", "u-1", "k"), release);
        // A call that was given up without a word of the server may have been carried out; then the next run finds its row.
        let told = if cluster.unknown_outcomes(0).await > 0.0 { 200..=201 } else { 201..=201 };
        assert!(told.contains(&answer.status), "{strategy}: {} {}", answer.status, answer.text);
        cluster.finish().await;
    }))
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_row_that_stays_locked_is_answered_busy_and_is_nobodys_loss() {
    join_all(["batched", "conditional", "pessimistic", "redlock"].map(|strategy| async move {
        let cluster = Setup::new(strategy).sure_of_nodes().start().await;
        let row = cluster.hold("A").await;
        let asks = (0..4).map(|user| {
            let cluster = &cluster;
            async move { cluster.issue(user % 2, "A", &format!("u-{user}"), "k").await }
        });
        let answers = join_all(asks).await;
        row.release().await;
        let mut unavailable = 0.0;
        for answer in &answers {
            match answer.member("type").as_str() {
                Some("/problems/busy") => {}
                Some("/problems/unavailable") => unavailable += 1.0,
                _ => panic!("{strategy}: {}", answer.text),
            }
            assert_eq!(answer.status, 503, "{strategy}");
        }
        // Only where the server itself did not say in time that the row stays locked.
        let unknown = cluster.unknown_outcomes(0).await + cluster.unknown_outcomes(1).await;
        assert!(unavailable <= unknown, "{strategy}: {answers:?}");
        for user in 0..4 {
            let answer = cluster.decided(1, "A", &format!("u-{user}")).await;
            assert!(matches!(answer.status, 200 | 201), "{strategy}: {}", answer.text);
        }
        assert_eq!(cluster.number("SELECT COUNT(*) FROM wallet").await, 4, "{strategy}");
        cluster.finish().await;
    }))
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_caller_that_has_left_is_waited_for_no_longer_than_one_statement_waits_for_its_row() {
    let setup = |strategy: &str| Setup::new(strategy).replicas(1).set("--request-deadline-ms", 500);
    in_each(SOUND, setup, |strategy, cluster| async move {
        let row = cluster.hold("A").await;
        let waiting = async |orders| {
            eventually("so many wait for the row", async || cluster.waiting_for_rows().await == orders).await;
        };
        let (gone, ()) = tokio::join!(cluster.issue(0, "A", "gone", "k"), waiting(1));
        assert_eq!(gone.status, 503, "{strategy}: {}", gone.text);
        waiting(0).await;
        row.release().await;

        let next = cluster.decided(0, "A", "next").await;

        assert_eq!(next.member("serial"), 1, "{strategy}: {}", next.text);
        assert_eq!(cluster.number("SELECT COUNT(*) FROM wallet").await, 1, "{strategy}");
        cluster.finish().await;
    })
    .await;
}
