//! Administration while people ask: new rounds, another rule, more or less stock.

use std::sync::atomic::{AtomicBool, Ordering};

use coupon_lab::verify::Ack;
use futures_util::future::join_all;
use serde_json::{Value, json};

use crate::support::documented::assert_problem;
use crate::support::{Answer, Cluster, SOUND, Setup, eventually, in_each};

/// Stock that no test uses up.
pub const PLENTY: u32 = 100_000;

/// A change of a coupon's stock.
pub fn stock(total: u32) -> Value {
    json!({"discountPercent": 10, "total": total, "opensAt": null, "closesAt": null})
}

/// A change of the event.
pub fn event(exclusive: bool) -> Value {
    json!({"exclusive": exclusive, "opensAt": null, "closesAt": null})
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reset_starts_a_clean_round_in_every_strategy() {
    let setup = |strategy: &str| Setup::new(strategy).exclusive().coupons([("A", 2), ("B", 3)]);
    in_each(SOUND.into_iter().chain(["unlocked"]), setup, |strategy, cluster| async move {
        for user in ["u-1", "u-2", "u-3"] {
            cluster.decided(0, "A", user).await;
        }
        cluster.until_state("A", "sold-out").await;
        cluster.run("UPDATE coupon SET remaining = 1, version = 7 WHERE code = 'B'").await;

        assert_eq!(cluster.reset(1).await, 2, "{strategy}");

        for replica in 0..2 {
            let coupons = cluster.get(replica, "/coupons").await.json();
            let remaining: Vec<_> = coupons.as_array().unwrap().iter().map(|it| it["remaining"].clone()).collect();
            assert_eq!(remaining, [2, 3], "{strategy}");
            assert_eq!(cluster.get(replica, "/users/u-1/coupons").await.json(), json!([]), "{strategy}");
        }
        for (place, user) in ["u-3", "u-1"].into_iter().enumerate() {
            let answer = cluster.issue(place, "A", user, "k").await;
            let serial = if strategy == "unlocked" { Value::Null } else { json!(place + 1) };
            assert_eq!(answer.status, 201, "{strategy}: {}", answer.text);
            assert_eq!((answer.member("round"), answer.member("serial")), (json!(2), serial), "{strategy}");
        }
        assert_eq!(cluster.issue(0, "A", "u-2", "k").await.status, 410, "{strategy}");
        assert_eq!(cluster.number("SELECT COUNT(*) FROM wallet WHERE round = 1").await, 2, "{strategy}");
        cluster.finish().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reset_ends_the_round_that_it_names_and_no_other_one() {
    let cluster = Setup::new("batched").coupons([("A", 5)]).start().await;
    let reset = async |replica, round: u32| {
        cluster.admin(replica, "POST", "/admin/reset", Some(json!({ "round": round }))).await
    };
    assert_eq!(cluster.issue(0, "A", "u-1", "k").await.status, 201);
    for not_yet in [0, 2, u32::MAX] {
        let answer = reset(0, not_yet).await;
        assert_problem(&answer, 409, "/problems/another-round");
        assert_eq!(answer.member("round"), json!(1));
    }
    assert_eq!(cluster.number("SELECT generation FROM event").await, 1);

    // A caller that gets no answer asks again, here at once and at both replicas; then the event goes on.
    let answers = join_all((0..6).map(|ask| reset(ask % 2, 1))).await;
    let (began, refused): (Vec<_>, Vec<_>) = answers.iter().partition(|answer| answer.status == 200);
    assert_eq!(cluster.issue(1, "A", "u-2", "k").await.status, 201);
    let late = reset(0, 1).await;

    assert_eq!(began.iter().map(|answer| answer.member("round")).collect::<Vec<_>>(), [json!(2)]);
    for answer in refused.into_iter().chain([&late]) {
        assert_problem(answer, 409, "/problems/another-round");
        assert_eq!((answer.member("round"), answer.member("detail")), (json!(2), json!("the current round is 2")));
    }
    assert_eq!(cluster.number("SELECT COUNT(*) FROM wallet JOIN event ON event.round = wallet.round").await, 1);
    cluster.finish().await;
}

/// A reset has changed the first row and waits for the second; the order waits for the first. Returns the new round and what the order was
/// told.
async fn ask_during_a_reset(cluster: &Cluster, user: &str) -> (u64, Answer) {
    let (second, is_answered) = (cluster.hold("B").await, AtomicBool::new(false));
    let order = async {
        let answer = cluster.issue(0, "A", user, "k").await;
        is_answered.store(true, Ordering::Relaxed);
        answer
    };
    let release = async {
        let both = async || cluster.waiting_for_rows().await == 2;
        eventually("the order waits, too", async || is_answered.load(Ordering::Relaxed) || both().await).await;
        second.release().await;
    };
    let asking = async {
        eventually("the reset waits", async || cluster.waiting_for_rows().await == 1).await;
        tokio::join!(order, release).0
    };
    tokio::join!(cluster.reset(1), asking)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_order_that_waits_for_its_row_while_the_round_changes_gets_nothing() {
    const ATTEMPTS: u64 = 3;
    let setup = |strategy: &str| Setup::new(strategy).coupons([("A", 5), ("B", 5)]);
    in_each(SOUND.into_iter().chain(["unlocked"]), setup, |strategy, cluster| async move {
        assert_eq!(cluster.issue(0, "A", "early", "k").await.status, 201, "{strategy}");
        let mut attempt = 0;
        let late = loop {
            attempt += 1;
            let (round, late) = ask_during_a_reset(&cluster, "late").await;
            assert_eq!(round, attempt + 1, "{strategy}");
            let rows = format!("SELECT COUNT(*) FROM wallet WHERE round = {round}");
            assert_eq!(cluster.number(&rows).await, 0, "{strategy}");
            assert_eq!(cluster.number("SELECT remaining FROM coupon WHERE code = 'A'").await, 5, "{strategy}");
            // InnoDB lets the reset wait for a second. If the test looks away for so long, the order comes before the reset's next run.
            let came_before = late.status == 201 && late.member("round") == round - 1;
            if !came_before || attempt == ATTEMPTS {
                break late;
            }
        };
        assert_eq!(late.status, 503, "{strategy}: {}", late.text);
        assert_eq!(cluster.issue(0, "A", "late", "k").await.status, 201, "{strategy}");
        cluster.finish().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn orders_that_wait_for_the_lock_while_the_round_changes_get_nothing() {
    let setup = |strategy: &str| Setup::new(strategy).patient().coupons([("A", 5)]);
    in_each(["batched", "redlock"], setup, |strategy, cluster| async move {
        let lock = cluster.hold_lock("A").await;
        let users = ["u-1", "u-2", "u-3", "u-4"];
        let asks = join_all(users.iter().enumerate().map(|(place, user)| cluster.issue(place % 2, "A", user, "k")));
        let (answers, round) = tokio::join!(asks, async {
            let queued = async |replica| cluster.metric(replica, "coupon_queue_depth").await;
            eventually("all of them wait", async || queued(0).await + queued(1).await > 3.5).await;
            let round = cluster.reset(0).await;
            lock.release().await;
            round
        });

        assert_eq!(round, 2);
        assert!(answers.iter().all(|answer| answer.status == 503 && answer.member("type") == "/problems/busy"));
        assert_eq!(cluster.number("SELECT COUNT(*) FROM wallet").await, 0, "{strategy}");
        let again = cluster.issue(1, "A", "u-1", "k").await;
        assert_eq!((again.status, again.member("serial")), (201, json!(1)), "{strategy}");
        cluster.finish().await;
    })
    .await;
}

/// New users ask without pause until `stop`; returns all answers.
async fn storm(cluster: &Cluster, stop: &AtomicBool) -> Vec<Answer> {
    let askers = (0..16).map(|asker| async move {
        let mut answers = vec![];
        while !stop.load(Ordering::Relaxed) {
            let user = format!("u-{asker}-{}", answers.len());
            answers.push(cluster.issue(asker % 2, ["A", "B"][asker / 2 % 2], &user, "k").await);
        }
        answers
    });
    join_all(askers).await.concat()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reset_in_the_middle_of_a_storm_leaves_both_rounds_clean() {
    let setup = |strategy: &str| Setup::new(strategy).coupons([("A", PLENTY), ("B", PLENTY)]);
    in_each(SOUND, setup, |strategy, cluster| async move {
        let stop = AtomicBool::new(false);
        let issued =
            async |round: u64| cluster.number(&format!("SELECT COUNT(*) FROM wallet WHERE round = {round}")).await;
        let (answers, round) = tokio::join!(storm(&cluster, &stop), async {
            eventually("the first round is under way", async || issued(1).await > 20).await;
            let round = cluster.reset(0).await;
            eventually("the second round is under way", async || issued(2).await > 20).await;
            stop.store(true, Ordering::Relaxed);
            round
        });

        assert_eq!(round, 2);
        let others: Vec<_> = answers.iter().filter(|answer| !matches!(answer.status, 201 | 503)).collect();
        assert!(others.is_empty(), "{strategy}: {others:?}");
        let acks: Vec<Ack> = answers
            .iter()
            .filter(|answer| answer.status == 201)
            .map(|answer| serde_json::from_value(answer.json()).unwrap())
            .collect();
        let report = coupon_lab::verify(&mut cluster.sql().await, Some(&acks)).await.unwrap();
        assert!(report.is_clean(), "{strategy}: {}", report.verdict());
        let acknowledged = i64::try_from(acks.len()).unwrap();
        assert_eq!(acknowledged, issued(1).await + issued(2).await, "{strategy}: nobody left, so all rows are known");
        let gaps = "SELECT COUNT(*) FROM (SELECT 1 FROM wallet GROUP BY coupon_id, round \
                     HAVING COUNT(DISTINCT serial) <> MAX(serial) OR COUNT(*) <> MAX(serial)) AS g";
        assert_eq!(cluster.number(gaps).await, 0, "{strategy}");
        cluster.finish().await;
    })
    .await;
}

/// Resets while one user asks both replicas again and again, with one key, for the only piece of A.
const RESETS: u64 = 3;

/// One user asks without pause until `stop`, four at once; returns all answers.
async fn keep_asking(cluster: &Cluster, user: &str, stop: &AtomicBool) -> Vec<Answer> {
    let askers = (0..4).map(|asker| async move {
        let mut answers = vec![];
        while !stop.load(Ordering::Relaxed) {
            answers.push(cluster.issue(asker % 2, "A", user, "k").await);
        }
        answers
    });
    join_all(askers).await.concat()
}

/// The only piece of A goes to `holder` in every round, and whatever the holder asks meanwhile is answered with its own piece, or "not
/// now".
async fn assert_holder_keeps_its_answers(cluster: &Cluster, strategy: &str) {
    let stop = AtomicBool::new(false);
    let (answers, ()) = tokio::join!(keep_asking(cluster, "holder", &stop), async {
        for _ in 0..RESETS {
            cluster.until_state("A", "sold-out").await;
            cluster.reset(0).await;
        }
        cluster.until_state("A", "sold-out").await;
        stop.store(true, Ordering::Relaxed);
    });

    let others: Vec<_> = answers.iter().filter(|answer| !matches!(answer.status, 200 | 201 | 503)).collect();
    assert!(others.is_empty(), "{strategy}: {} of {}: {:?}", others.len(), answers.len(), others[0]);
    let issued = answers.iter().filter(|answer| answer.status == 201).map(|answer| answer.member("round"));
    let mut rounds: Vec<_> = issued.map(|round| round.as_u64().unwrap()).collect();
    rounds.sort_unstable();
    assert!(rounds.iter().copied().eq(1..=RESETS + 1), "{strategy}: {rounds:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_holder_is_not_told_sold_out_while_a_reset_commits() {
    for exclusive in [true, false] {
        let setup = |strategy: &str| {
            let setup = Setup::new(strategy).coupons([("A", 1), ("B", PLENTY)]);
            if exclusive { setup.exclusive() } else { setup }
        };
        in_each(SOUND, setup, |strategy, cluster| async move {
            assert_holder_keeps_its_answers(&cluster, strategy).await;
            cluster.finish().await;
        })
        .await;
    }
}

#[tokio::test]
async fn another_rule_holds_from_the_next_round_on() {
    let cluster = Setup::new("batched").coupons([("A", 5), ("B", 5)]).start().await;
    assert_eq!(cluster.issue(0, "A", "u-1", "k").await.status, 201);

    let changed = cluster.admin(0, "PUT", "/admin/event", Some(event(true))).await;
    let same_round = cluster.issue(1, "B", "u-1", "k").await;
    cluster.reset(0).await;
    let first = cluster.issue(1, "A", "u-1", "k").await;
    let second = cluster.issue(0, "B", "u-1", "k").await;
    let later = cluster.admin(1, "GET", "/admin/event", None).await;

    let body = |round: u32, exclusive: bool| {
        json!({"name": "chicken", "round": round, "exclusive": exclusive, "exclusiveNext": true,
               "opensAt": null, "closesAt": null})
    };
    assert_eq!((changed.status, changed.json()), (200, body(1, false)));
    assert_eq!(same_round.status, 201, "{}", same_round.text);
    assert_eq!((first.status, second.status), (201, 409), "{}", second.text);
    assert_eq!(second.member("entry"), first.json());
    assert_eq!(later.json(), body(2, true));
    cluster.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_a_top_up_was_answered_nobody_is_told_sold_out_while_stock_is_left() {
    let cluster = Setup::new("batched").replicas(3).coupons([("A", 3)]).start().await;
    for user in ["u-1", "u-2", "u-3"] {
        assert_eq!(cluster.issue(0, "A", user, "k").await.status, 201);
    }
    cluster.until_state("A", "sold-out").await;
    for (total, round) in [(33, 1), (63, 2)] {
        let change = cluster.admin(round % 3, "PUT", "/admin/coupons/A", Some(stock(total))).await;
        let seen = join_all((0..3).map(|replica| cluster.get(replica, "/coupons/A"))).await;
        let users: Vec<_> = (0..30).map(|user| format!("more-{round}-{user}")).collect();
        let asks = users.iter().enumerate().map(|(place, user)| cluster.issue(place % 3, "A", user, "k"));
        let answers = join_all(asks).await;
        let late = join_all((0..3).map(|replica| cluster.issue(replica, "A", "late", "k"))).await;

        assert_eq!((change.status, change.member("remaining")), (200, json!(30)));
        assert!(seen.iter().all(|coupon| coupon.member("remaining") == 30), "{seen:?}");
        assert!(answers.iter().all(|answer| answer.status == 201), "{answers:?}");
        assert!(late.iter().all(|answer| answer.status == 410), "{late:?}");
    }
    cluster.finish().await;
}

#[tokio::test]
async fn less_stock_is_taken_from_what_remains_and_never_from_what_is_issued() {
    let cluster = Setup::new("batched").start().await;
    for user in ["u-1", "u-2", "u-3"] {
        assert_eq!(cluster.issue(0, "A", user, "k").await.status, 201);
    }
    let below = cluster.admin(0, "PUT", "/admin/coupons/A", Some(stock(2))).await;
    assert_eq!((below.status, below.member("detail")), (409, json!("3 are issued")));
    assert_eq!(cluster.number("SELECT total * 100 + remaining FROM coupon").await, 1_007);

    let exact = cluster.admin(0, "PUT", "/admin/coupons/A", Some(stock(3))).await;
    let refused = [cluster.issue(0, "A", "u-4", "k").await, cluster.issue(1, "A", "u-4", "k").await];
    let more = cluster.admin(1, "PUT", "/admin/coupons/A", Some(stock(4))).await;
    let issued = cluster.issue(0, "A", "u-4", "k").await;

    assert_eq!((exact.status, exact.member("state")), (200, json!("sold-out")));
    assert!(refused.iter().all(|answer| answer.status == 410));
    assert_eq!((more.status, more.member("state")), (200, json!("open")));
    assert_eq!((issued.status, issued.member("serial")), (201, json!(4)));
    cluster.finish().await;
}

#[tokio::test]
async fn a_new_coupon_is_there_for_every_replica_when_its_making_is_answered() {
    let cluster = Setup::new("batched").exclusive().start().await;
    let unknown = cluster.issue(1, "NEW", "u-1", "k").await;
    let made = cluster.admin(0, "PUT", "/admin/coupons/NEW", Some(stock(1))).await;
    let issued = cluster.issue(1, "NEW", "u-1", "k").await;
    let held = cluster.issue(0, "A", "u-1", "k").await;

    let body = json!({"code": "NEW", "discountPercent": 10, "total": 1, "remaining": 1,
                      "opensAt": null, "closesAt": null, "state": "open"});
    assert_eq!(unknown.status, 404);
    assert_eq!((made.status, made.json()), (201, body));
    assert_eq!((issued.status, held.status), (201, 409));
    assert_eq!(held.member("entry"), issued.json());
    cluster.finish().await;
}
