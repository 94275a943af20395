//! The administrative calls: the tokens that they need, what they refuse, and the books that they show.

use serde_json::{Value, json};
use sqlx::Executor;

use crate::support::documented::{assert_no_new_series, assert_problem, books, order, series};
use crate::support::{ADMIN_TOKEN, Answer, Cluster, SOON, Setup, eventually, until};

/// What no coupon can be.
fn bad_coupons(good: &Value) -> Vec<Value> {
    let change = |member: &str, value: Value| {
        let mut change = good.clone();
        change[member] = value;
        change
    };
    vec![
        change("discountPercent", json!(0)),
        change("discountPercent", json!(101)),
        change("discountPercent", json!(-1)),
        change("total", json!(-1)),
        change("total", json!(1_000_001)),
        change("total", json!(1.5)),
        change("total", json!("300")),
        change("opensAt", json!("tomorrow")),
        change("opensAt", json!("1969-12-31T23:59:59Z")),
        change("closesAt", json!("9999-12-31T23:59:59-12:00")),
        change("closesAt", json!(17)),
        change("more", json!(1)),
        json!([100, 300, null, null]),
        json!({"discountPercent": 100, "total": 1, "opensAt": "2030-01-01T00:00:00Z", "closesAt": "2030-01-01T00:00:00Z"}),
        json!({"discountPercent": 100, "total": 1, "opensAt": "2030-01-01T00:00:00Z", "closesAt": "2029-01-01T00:00:00Z"}),
    ]
}

#[tokio::test]
async fn administration_needs_the_token_and_refuses_what_is_no_change() {
    let cluster = Setup::new("batched").coupons([("A", 5)]).start().await;
    assert_eq!(cluster.issue(0, "A", "u-1", "k").await.status, 201);
    let (books_before, series_before) = (books(&cluster).await, series(&cluster).await);
    let ops = &cluster.replicas[0].ops_url;
    let good = json!({"discountPercent": 100, "total": 300, "opensAt": null, "closesAt": null});
    let calls = [
        ("PUT", "/admin/coupons/A"),
        ("GET", "/admin/event"),
        ("PUT", "/admin/event"),
        ("POST", "/admin/reset"),
        ("DELETE", "/admin/coupons/A"),
        ("GET", "/admin/audit"),
    ];
    let wrong = [String::new(), "Bearer ".to_owned(), format!("Bearer {ADMIN_TOKEN}x"), format!("Basic {ADMIN_TOKEN}")];
    for (method, path) in calls {
        for token in &wrong {
            let headers = [("authorization", token.as_str())];
            let headers = if token.is_empty() { &[][..] } else { &headers };
            let answer = cluster.client.send(method, &format!("{ops}{path}"), headers, Some(&good)).await;
            assert_problem(&answer, 401, "/problems/unauthorized");
            assert_eq!(answer.header("www-authenticate"), "Bearer");
        }
    }
    for body in bad_coupons(&good) {
        let answer = cluster.admin(0, "PUT", "/admin/coupons/A", Some(body.clone())).await;
        assert_eq!(answer.status, 422, "{body}: {}", answer.text);
        assert_problem(&answer, 422, "/problems/invalid-request");
    }
    let bad_path = cluster.admin(0, "PUT", "/admin/coupons/a%20b", Some(good.clone())).await;
    assert_problem(&bad_path, 422, "/problems/invalid-request");
    let hidden = cluster.admin(0, "PUT", "/admin/coupons/issue", Some(good.clone())).await;
    assert_problem(&hidden, 422, "/problems/invalid-request");
    for body in [
        json!({}),
        json!({"exclusive": "yes"}),
        json!({"exclusive": true, "opensAt": null, "closesAt": null, "round": 7}),
    ] {
        let answer = cluster.admin(0, "PUT", "/admin/event", Some(body)).await;
        assert_problem(&answer, 422, "/problems/invalid-request");
    }
    let none = json!({"discountPercent": 10, "total": 0, "opensAt": null, "closesAt": null});
    let below = cluster.admin(0, "PUT", "/admin/coupons/A", Some(none)).await;
    assert_problem(&below, 409, "/problems/below-issued");
    for body in
        [json!({}), json!({"round": "1"}), json!({"round": null}), json!({"round": -1}), json!({"round": 1, "more": 1})]
    {
        let answer = cluster.admin(0, "POST", "/admin/reset", Some(body)).await;
        assert_problem(&answer, 422, "/problems/invalid-request");
    }
    let unsaid = cluster.admin(0, "POST", "/admin/reset", None).await;
    assert_problem(&unsaid, 415, "/problems/unsupported-media-type");
    assert_problem(&cluster.admin(0, "GET", "/admin/nothing", None).await, 404, "/problems/not-found");
    assert_problem(&cluster.admin(0, "DELETE", "/admin/event", None).await, 405, "/problems/method-not-allowed");

    assert_eq!(books(&cluster).await, books_before);
    assert_eq!(cluster.number("SELECT generation FROM event").await, 1);
    assert_no_new_series(&cluster, &series_before).await;
    cluster.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_name_of_a_scheme_has_no_case() {
    let cluster = Setup::new("batched").replicas(1).start().await;
    let token = format!("bearer {ADMIN_TOKEN}");
    let url = format!("{}/admin/event", cluster.replicas[0].ops_url);
    let answer = cluster.client.send("GET", &url, &[("authorization", &*token)], None).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    cluster.finish().await;
}

#[tokio::test]
async fn a_change_that_leaves_a_member_out_is_refused_by_its_name_and_changes_nothing() {
    let cluster = Setup::new("batched").replicas(1).start().await;
    let changes = [
        (
            "/admin/coupons/A",
            json!({"discountPercent": 10, "total": 5, "opensAt": "2999-01-01T00:00:00Z", "closesAt": null}),
        ),
        ("/admin/event", json!({"exclusive": false, "opensAt": null, "closesAt": "2999-01-01T00:00:00Z"})),
    ];
    for (path, whole) in changes {
        assert_eq!(cluster.admin(0, "PUT", path, Some(whole.clone())).await.status, 200);
        let before = (books(&cluster).await, cluster.number("SELECT generation FROM event").await);
        for member in whole.as_object().unwrap().keys() {
            let mut change = whole.clone();
            change.as_object_mut().unwrap().remove(member);
            let answer = cluster.admin(0, "PUT", path, Some(change)).await;
            assert_problem(&answer, 422, "/problems/invalid-request");
            let detail = answer.member("detail");
            assert!(detail.as_str().unwrap().contains(&format!("`{member}`")), "{detail}");

            let mut change = whole.clone();
            change[member] = json!({"wrong": true});
            let detail = cluster.admin(0, "PUT", path, Some(change)).await.member("detail");
            assert!(detail.as_str().unwrap().starts_with(&format!("{member}: ")), "{detail}");
        }
        assert_eq!((books(&cluster).await, cluster.number("SELECT generation FROM event").await), before);
    }
    let coupon = cluster.get(0, "/coupons/A").await;
    assert_eq!((coupon.member("state"), coupon.member("total")), (json!("scheduled"), json!(5)));
    cluster.finish().await;
}

#[tokio::test]
async fn the_audit_has_the_books_of_the_round_and_the_arrivals_at_its_edge() {
    let cluster = Setup::new("batched").replicas(1).coupons([("A", 2), ("B", 3)]).start().await;
    for (user, arrival) in [("u-1", "t=1700000000.100"), ("u-2", "t=1700000000.200"), ("u-3", "t=1700000000.150")] {
        order(&cluster, &[("x-request-start", arrival)], "A", user).await;
    }

    let audit = cluster.admin(0, "GET", "/admin/audit", None).await;

    let a = json!({"code": "A", "total": 2, "remaining": 0, "rows": 2, "distinctUsers": 2, "lowestSerial": 1,
                   "highestSerial": 2, "latestWinnerArrival": "2023-11-14T22:13:20.2Z",
                   "earliestLoserArrival": "2023-11-14T22:13:20.15Z"});
    let b = json!({"code": "B", "total": 3, "remaining": 3, "rows": 0, "distinctUsers": 0, "lowestSerial": null,
                   "highestSerial": null, "latestWinnerArrival": null, "earliestLoserArrival": null});
    assert_eq!(audit.json(), json!({"round": 1, "exclusive": false, "coupons": [a, b]}));
    cluster.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_audit_during_a_reset_has_the_round_of_its_books() {
    let cluster = Setup::new("batched").replicas(1).coupons([("A", 2)]).start().await;
    assert_eq!(cluster.issue(0, "A", "u-1", "k").await.status, 201);

    let audit = until("the audit is answered", SOON, async || {
        let answer = audit_and_reset(&cluster).await;
        if answer.status == 200 { Ok(answer.json()) } else { Err(answer.text) }
    })
    .await;

    let round = cluster.number("SELECT round FROM event").await;
    assert_eq!((&audit["round"], &audit["coupons"][0]["rows"]), (&json!(round), &json!(0)));
    cluster.finish().await;
}

/// Asks for the audit, which meets a table that is locked, and ends the round before it gets on. Where that takes longer than the audit waits
/// for a table, it is refused.
async fn audit_and_reset(cluster: &Cluster) -> Answer {
    let mut table = cluster.sql().await;
    table.execute("LOCK TABLES coupon WRITE").await.unwrap();
    let reset = async {
        eventually("the audit waits", async || cluster.runs("DISTINCT w.user_id").await).await;
        cluster.run("UPDATE event SET round = round + 1, generation = generation + 1").await;
        table.execute("UPDATE coupon SET round = round + 1, remaining = total, next_serial = 1").await.unwrap();
        table.execute("UNLOCK TABLES").await.unwrap();
    };
    tokio::join!(cluster.admin(0, "GET", "/admin/audit", None), reset).0
}
