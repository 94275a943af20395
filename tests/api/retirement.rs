//! Coupons that are retired: what that takes, what is left of them, and the way back.

use std::sync::atomic::{AtomicBool, Ordering};

use futures_util::future::join_all;
use serde_json::{Value, json};

use crate::support::documented::assert_problem;
use crate::support::{Answer, Cluster, SOUND, Setup, eventually, in_each};

fn stock(total: u32) -> Value {
    json!({"discountPercent": 10, "total": total, "opensAt": null, "closesAt": null})
}

async fn put(cluster: &Cluster, code: &str, total: u32) -> Answer {
    cluster.admin(0, "PUT", &format!("/admin/coupons/{code}"), Some(stock(total))).await
}

async fn retire(cluster: &Cluster, replica: usize, code: &str) -> Answer {
    cluster.admin(replica, "DELETE", &format!("/admin/coupons/{code}"), None).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_coupon_that_nobody_holds_in_the_current_round_is_retired_for_every_replica() {
    let setup = |strategy: &str| Setup::new(strategy).exclusive().coupons([("A", 1), ("B", 5)]);
    in_each(SOUND.into_iter().chain(["unlocked"]), setup, |strategy, cluster| async move {
        assert_eq!(cluster.issue(0, "B", "holder", "k").await.status, 201, "{strategy}");
        let held = retire(&cluster, 0, "B").await;
        assert_problem(&held, 409, "/problems/held");
        assert_eq!(cluster.number("SELECT generation FROM event").await, 1, "{strategy}");

        let retired = retire(&cluster, 1, "A").await;
        let again = retire(&cluster, 0, "A").await;

        assert_eq!((retired.status, &*retired.text), (204, ""), "{strategy}");
        assert_problem(&again, 404, "/problems/unknown-coupon");
        for replica in 0..2 {
            let listed = cluster.get(replica, "/coupons").await.json();
            assert_eq!(listed.as_array().unwrap().iter().map(|coupon| &coupon["code"]).collect::<Vec<_>>(), ["B"]);
            assert_problem(&cluster.get(replica, "/coupons/A").await, 404, "/problems/unknown-coupon");
            for user in ["new", "holder"] {
                let told = cluster.issue(replica, "A", user, "k").await;
                assert_problem(&told, 404, "/problems/unknown-coupon");
            }
            let audit = cluster.admin(replica, "GET", "/admin/audit", None).await.json();
            assert_eq!(audit["coupons"].as_array().unwrap().len(), 1, "{strategy}");
        }
        cluster.reset(0).await;
        assert_eq!(retire(&cluster, 0, "B").await.status, 204, "{strategy}: nobody holds it in the new round");
        assert_eq!(cluster.number("SELECT COUNT(*) FROM wallet").await, 1, "{strategy}: the old round's row stays");
        cluster.finish().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_code_that_was_retired_and_is_made_again_starts_afresh() {
    let setup = |strategy: &str| Setup::new(strategy).coupons([("A", 2)]);
    in_each(SOUND, setup, |strategy, cluster| async move {
        let id = cluster.number("SELECT id FROM coupon").await;
        let old = cluster.issue(0, "A", "u-1", "k").await;
        assert_eq!(old.status, 201, "{strategy}");
        for life in 1..=3 {
            cluster.reset(0).await;
            assert_eq!(retire(&cluster, 0, "A").await.status, 204, "{strategy}");
            let made = put(&cluster, "A", 1).await;
            assert_eq!((made.status, made.member("remaining")), (201, json!(1)), "{strategy}");
            let issued = cluster.decided(1, "A", "u-1").await;
            let told = (issued.status, issued.member("serial"), issued.member("round"));
            assert_eq!(told, (201, json!(1), json!(life + 1)), "{strategy}: {}", issued.text);
            assert_eq!(cluster.decided(0, "A", "u-2").await.status, 410, "{strategy}");
        }
        let coupons = cluster.number("SELECT COUNT(*) * 1000 + MAX(id) FROM coupon").await;
        assert_eq!(coupons, 1_000 + id, "{strategy}: no number is used up by a code that comes back");
        let told = serde_json::from_value(old.json()).unwrap();
        let report = coupon_lab::verify(&mut cluster.sql().await, Some(&[told])).await.unwrap();
        assert!(report.is_clean(), "{strategy}: {}", report.verdict());
        cluster.finish().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_coupon_is_retired_or_somebody_gets_it_and_never_both() {
    const LIVES: usize = 8;
    let setup = |strategy: &str| Setup::new(strategy).coupons([("A", 3)]);
    in_each(SOUND.into_iter().chain(["unlocked"]), setup, |strategy, cluster| async move {
        let held = format!(
            "SELECT COUNT(*) FROM wallet AS w JOIN event AS e ON e.round = w.round WHERE w.coupon_id = {}",
            cluster.number("SELECT id FROM coupon").await
        );
        for life in 0..LIVES {
            let is_over = AtomicBool::new(false);
            // Every second time orders come first, and the retirement meets them where it may.
            let orders = join_all((0..6).map(|asker| {
                let (cluster, is_over) = (&cluster, &is_over);
                async move {
                    let mut told = vec![];
                    while !is_over.load(Ordering::Relaxed) && told.len() < 50 {
                        tokio::time::sleep(std::time::Duration::from_millis((life % 4) as u64 * asker)).await;
                        let user = format!("u-{life}-{asker}-{}", told.len());
                        told.push(cluster.issue(asker as usize % 2, "A", &user, "k").await);
                    }
                    told
                }
            }));
            let (answers, retired) = tokio::join!(orders, async {
                let retired = retire(&cluster, life % 2, "A").await;
                is_over.store(true, Ordering::Relaxed);
                retired
            });
            let told: Vec<u16> = answers.concat().iter().map(|answer| answer.status).collect();
            let rows = cluster.number(&held).await;
            match retired.status {
                204 => {
                    assert_eq!(rows, 0, "{strategy}: {told:?}");
                    assert!(told.iter().all(|status| matches!(status, 404 | 503)), "{strategy}: {told:?}");
                    assert_eq!(put(&cluster, "A", 3).await.status, 201, "{strategy}");
                }
                409 => {
                    assert!(rows > 0, "{strategy}: {told:?}");
                    assert!(!told.contains(&404), "{strategy}: {told:?}");
                }
                other => panic!("{strategy}: {other} {}", retired.text),
            }
            cluster.reset(0).await;
        }
        cluster.discard().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_order_that_waits_for_its_row_while_the_coupon_is_retired_finds_none() {
    let setup = |strategy: &str| Setup::new(strategy).coupons([("A", 3)]);
    in_each(SOUND.into_iter().chain(["unlocked"]), setup, |strategy, cluster| async move {
        let row = cluster.hold("A").await;
        let waiting = async |number: i64| {
            eventually("they wait for the row", async || cluster.waiting_for_rows().await == number).await;
        };
        let (retired, (late, ())) = tokio::join!(retire(&cluster, 1, "A"), async {
            waiting(1).await;
            tokio::join!(cluster.issue(0, "A", "late", "k"), async {
                waiting(2).await;
                row.release().await;
            })
        });
        match retired.status {
            204 => assert_problem(&late, 404, "/problems/unknown-coupon"),
            // InnoDB lets the retirement wait for a second. If the test looks away for so long, the order comes first.
            _ => assert_eq!((retired.status, late.status), (409, 201), "{strategy}: {}", late.text),
        }
        cluster.finish().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_label_of_a_retired_coupon_is_free_for_another() {
    let codes = (0..32).map(|number| (format!("C-{number:02}"), 5));
    let cluster = Setup::new("batched").coupons(codes.chain([("LATE".to_owned(), 5)])).start().await;
    let of = async |replica: usize, code: &str| -> Vec<String> {
        let (ops, label) = (&cluster.replicas[replica].ops_url, format!("code=\"{code}\""));
        let page = cluster.client.get(&format!("{ops}/metrics")).await.text;
        page.lines().filter(|series| series.contains(&label)).map(str::to_owned).collect()
    };
    for replica in 0..2 {
        assert_eq!((of(replica, "C-07").await.len(), of(replica, "LATE").await.len()), (9, 0));
    }
    assert_eq!(retire(&cluster, 0, "C-07").await.status, 204);
    assert_eq!(cluster.issue(1, "C-07", "u-1", "k").await.status, 404);
    assert_eq!(cluster.issue(1, "LATE", "u-1", "k").await.status, 201);
    for replica in 0..2 {
        assert_eq!((of(replica, "C-07").await, of(replica, "LATE").await.len()), (vec![], 9));
    }
    assert_eq!(cluster.metric(1, "coupon_issue_total{code=\"LATE\",outcome=\"issued\"}").await as u64, 1);
    cluster.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_coupon_by_the_name_of_the_others_takes_no_count_of_theirs_with_it() {
    let cluster = Setup::new("batched").replicas(1).coupons([("other", 5)]).start().await;
    let unknown = async || cluster.metric(0, "coupon_issue_total{code=\"other\",outcome=\"unknown-coupon\"}").await;
    assert_eq!(cluster.issue(0, "nothing", "u-1", "k").await.status, 404);
    assert_eq!(unknown().await as u64, 1);

    assert_eq!(retire(&cluster, 0, "other").await.status, 204);

    assert_eq!(unknown().await as u64, 1);
    cluster.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn when_no_number_is_left_for_a_new_code_the_refusal_says_so_and_a_retired_one_can_be_made() {
    let cluster = Setup::new("batched").coupons([("A", 5), ("B", 5)]).start().await;
    assert_eq!(retire(&cluster, 0, "B").await.status, 204);
    cluster.run("ALTER TABLE coupon AUTO_INCREMENT = 65535").await;
    assert_eq!(put(&cluster, "LAST", 5).await.status, 201);

    assert_problem(&put(&cluster, "MORE", 5).await, 409, "/problems/no-room");

    assert_eq!(put(&cluster, "B", 5).await.status, 201);
    for code in ["A", "B", "LAST"] {
        assert_eq!(cluster.issue(1, code, "u-1", "k").await.status, 201, "{code}");
    }
    cluster.finish().await;
}
