//! Asking again: the same request gets the same entry, at any replica and whatever happened meanwhile.

use futures_util::future::join_all;
use serde_json::json;

use crate::support::{Answer, Cluster, SOUND, Setup, in_each};

/// Asks one replica with these headers.
async fn ask(cluster: &Cluster, replica: usize, user: &str, headers: &[(&str, &str)]) -> Answer {
    let url = format!("{}/coupons/issue", cluster.replicas[replica].url);
    cluster.client.send("POST", &url, headers, Some(&json!({"code": "A", "userId": user}))).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_gets_its_entry_from_any_replica_before_and_after_the_sell_out_and_the_closing() {
    let setup = |strategy: &str| Setup::new(strategy).coupons([("A", 3)]);
    in_each(SOUND, setup, |strategy, cluster| async move {
        let entry = cluster.issue(0, "A", "u-1", "k").await;
        assert_eq!(entry.status, 201, "{strategy}: {}", entry.text);
        let mut later = vec![];
        for stage in ["open", "sold out", "closed"] {
            match stage {
                "sold out" => {
                    join_all(["u-2", "u-3"].map(|user| cluster.issue(0, "A", user, "k"))).await;
                    cluster.until_state("A", "sold-out").await;
                }
                "closed" => {
                    let body =
                        json!({"discountPercent": 10, "total": 9, "opensAt": null, "closesAt": "2020-01-01T00:00:00Z"});
                    assert_eq!(cluster.admin(1, "PUT", "/admin/coupons/A", Some(body)).await.status, 200);
                }
                _ => {}
            }
            for replica in 0..2 {
                let again = cluster.issue(replica, "A", "u-1", "k").await;
                let other = cluster.issue(replica, "A", "u-1", "another").await;
                later.push((stage, again, other));
            }
        }

        for (stage, again, other) in later {
            assert_eq!((again.status, again.json()), (200, entry.json()), "{strategy}, {stage}");
            assert_eq!((other.status, other.member("entry")), (409, entry.json()), "{strategy}, {stage}");
        }
        cluster.finish().await;
    })
    .await;
}

#[tokio::test]
async fn the_same_key_for_another_code_is_another_request() {
    let cluster = Setup::new("batched").coupons([("A", 3), ("B", 3)]).start().await;
    let a = cluster.issue(0, "A", "u-1", "k").await;
    let b = cluster.issue(1, "B", "u-1", "k").await;
    assert_eq!((a.status, b.status), (201, 201));
    assert_ne!(a.member("requestId"), b.member("requestId"));
    assert_eq!(cluster.get(0, "/users/u-1/coupons").await.json(), json!([a.json(), b.json()]));
    cluster.finish().await;

    let cluster = Setup::new("batched").exclusive().coupons([("A", 3), ("B", 3)]).start().await;
    let a = cluster.issue(0, "A", "u-1", "k").await;
    let b = cluster.issue(1, "B", "u-1", "k").await;
    assert_eq!((a.status, b.status), (201, 409));
    assert_eq!(b.member("entry"), a.json());
    cluster.finish().await;
}

#[tokio::test]
async fn the_same_key_of_another_user_is_another_request() {
    let cluster = Setup::new("batched").start().await;
    let (one, two) = tokio::join!(cluster.issue(0, "A", "u-1", "k"), cluster.issue(1, "A", "u-2", "k"));
    assert_eq!((one.status, two.status), (201, 201));
    assert_ne!(one.member("requestId"), two.member("requestId"));
    cluster.finish().await;
}

#[tokio::test]
async fn without_a_key_nginxs_id_names_the_request_and_without_both_each_ask_is_its_own() {
    let cluster = Setup::new("batched").start().await;
    let id = "0123456789abcdef0123456789ABCDEF";
    let first = ask(&cluster, 0, "u-1", &[("x-request-id", id)]).await;
    let nginx_again = ask(&cluster, 1, "u-1", &[("x-request-id", id)]).await;
    let anew = ask(&cluster, 1, "u-1", &[]).await;
    let keyed = ask(&cluster, 0, "u-2", &[("x-request-id", id), ("idempotency-key", "k")]).await;
    let keyed_again = ask(&cluster, 1, "u-2", &[("idempotency-key", "k")]).await;

    assert_eq!((first.status, first.member("requestId")), (201, json!(id.to_lowercase())));
    assert_eq!((nginx_again.status, nginx_again.json()), (200, first.json()));
    assert_eq!((anew.status, anew.member("entry")), (409, first.json()));
    assert_eq!((keyed.status, keyed_again.status), (201, 200));
    assert_eq!(keyed.json(), keyed_again.json());
    cluster.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_asks_at_once_with_one_key_get_one_coupon_and_one_answer() {
    for strategy in ["batched", "pessimistic"] {
        let setup = Setup::new(strategy).coupons([("A", 5_000)]);
        let cluster = setup.set("--request-deadline-ms", 60_000).start().await;
        let answers = join_all((0..1_000).map(|ask| cluster.issue(ask % 2, "A", "u-1", "k"))).await;

        let issued = answers.iter().filter(|answer| answer.status == 201).count();
        assert_eq!(issued, 1, "{strategy}");
        for answer in &answers {
            assert!(matches!(answer.status, 200 | 201), "{strategy}: {} {}", answer.status, answer.text);
            assert_eq!(answer.json(), answers[0].json(), "{strategy}");
        }
        assert_eq!(cluster.number("SELECT COUNT(*) FROM wallet").await, 1, "{strategy}");
        cluster.finish().await;
    }
}
