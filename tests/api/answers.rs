//! Every answer of the API, as documented, from a real replica.

use coupon_rush::coupons::Timestamp;
use serde_json::{Value, json};

use crate::support::documented::{
    JSON, assert_named, assert_no_new_series, assert_problem, books, keys, order, send, series,
};
use crate::support::{Answer, Balancer, Cluster, Replica, SOUND, Setup, eventually, free_port, in_each};

/// Bodies that are no order, with their answer.
fn refused_bodies() -> Vec<(u16, &'static str, Vec<u8>)> {
    let (malformed, invalid) = ("/problems/malformed", "/problems/invalid-request");
    let mut all: Vec<(u16, &str, Vec<u8>)> = [
        "",
        "{",
        "nonsense",
        r#"{"code":"A","userId":"u-1"} more"#,
        r#"{"code":"A","userId":"u-1"}{"code":"A","userId":"u-2"}"#,
        r#"{code:"A",userId:"u-1"}"#,
        r#"{"code":"A","userId":"u-1",}"#,
    ]
    .into_iter()
    .map(|body| (400, malformed, body.as_bytes().to_vec()))
    .collect();
    all.push((400, malformed, b"{\"code\":\"A\",\"userId\":\"u-\xff\"}".to_vec()));
    let wrong_values = [
        json!([]),
        json!(["A", "u-1"]),
        json!("A"),
        json!(null),
        json!({}),
        json!({"code": "A"}),
        json!({"userId": "u-1"}),
        json!({"code": 1, "userId": "u-1"}),
        json!({"code": "A", "userId": null}),
        json!({"code": "A", "userId": ["u-1"]}),
        json!({"code": "A", "userId": "u-1", "quantity": 2}),
        json!({"code": "A", "user_id": "u-1"}),
    ];
    let twice = br#"{"code":"A","userId":"u-1","userId":"u-2"}"#.to_vec();
    all.push((422, invalid, twice));
    all.extend(wrong_values.iter().map(|body| (422, invalid, body.to_string().into_bytes())));
    let too_long = "x".repeat(37);
    let ids = ["", " ", "u 1", " u-1", "u-1 ", "\u{fc}ser", "o'neil", "say\"so", "u\0", "u\n1", "u/1", "u%201"];
    for id in ids.into_iter().chain([".", "..", &too_long]) {
        all.push((422, invalid, json!({"code": "A", "userId": id}).to_string().into_bytes()));
        all.push((422, invalid, json!({"code": id, "userId": "u-1"}).to_string().into_bytes()));
    }
    for size in [17 * 1024, 1024 * 1024] {
        let body = json!({"code": "A", "userId": "x".repeat(size)}).to_string().into_bytes();
        all.push((413, "/problems/payload-too-large", body));
    }
    all
}

#[tokio::test]
async fn the_first_ask_is_201_and_the_same_again_200_with_the_same_entry() {
    let setup = |strategy: &str| Setup::new(strategy);
    in_each(SOUND.into_iter().chain(["unlocked"]), setup, |strategy, cluster| async move {
        let first = cluster.issue(0, "A", "u-1", "k").await;
        let again = cluster.issue(1, "A", "u-1", "k").await;

        assert_eq!((first.status, again.status), (201, 200), "{strategy}: {} {}", first.text, again.text);
        assert_eq!(first.json(), again.json(), "{strategy}");
        let serial = if strategy == "unlocked" { Value::Null } else { json!(1) };
        assert_eq!(first.member("serial"), serial, "{strategy}");
        cluster.finish().await;
    })
    .await;
}

#[tokio::test]
async fn an_entry_has_six_members_and_is_the_same_everywhere() {
    let cluster = Setup::new("batched").start().await;
    let start = cluster.number("SELECT TIMESTAMPDIFF(MICROSECOND, '1970-01-01', UTC_TIMESTAMP(6))").await;

    let issued = cluster.issue(0, "A", "u-1", "k").await;
    let held = cluster.issue(1, "A", "u-1", "another key").await;
    let wallet = cluster.get(1, "/users/u-1/coupons").await;

    let entry = issued.json();
    assert_eq!(issued.header("content-type"), "application/json");
    assert_eq!(keys(&entry), ["code", "issuedAt", "requestId", "round", "serial", "userId"]);
    assert_eq!(
        (&entry["code"], &entry["userId"], &entry["serial"], &entry["round"]),
        (&json!("A"), &json!("u-1"), &json!(1), &json!(1))
    );
    let request = entry["requestId"].as_str().unwrap();
    assert!(request.len() == 32 && request.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b)));
    let issued_at = entry["issuedAt"].as_str().unwrap();
    let time = Timestamp::parse(issued_at).unwrap();
    assert!(issued_at.ends_with('Z') && (start..start + 60_000_000).contains(&time.0), "{issued_at}");
    assert_problem(&held, 409, "/problems/already-issued");
    assert_eq!(held.member("entry"), entry);
    assert_eq!(wallet.json(), json!([entry]));
    cluster.finish().await;
}

#[tokio::test]
async fn what_is_no_order_is_refused_and_changes_nothing() {
    let cluster = Setup::new("batched").replicas(1).start().await;
    assert_eq!(cluster.issue(0, "A", "u-0", "k").await.status, 201);
    let (books_before, series_before) = (books(&cluster).await, series(&cluster).await);

    for (status, kind, body) in refused_bodies() {
        let answer = send(&cluster, "POST", "/coupons/issue", &[JSON], body.clone()).await;
        let body = String::from_utf8_lossy(&body[..body.len().min(80)]).into_owned();
        assert_eq!((answer.status, answer.member("type")), (status, json!(kind)), "{body}: {}", answer.text);
        assert_problem(&answer, status, kind);
        assert_named(&answer, true);
    }
    let good = json!({"code": "A", "userId": "u-1"}).to_string().into_bytes();
    for headers in [&[][..], &[("content-type", "text/plain")], &[("content-type", "application/jsonx")]] {
        let answer = send(&cluster, "POST", "/coupons/issue", headers, good.clone()).await;
        assert_problem(&answer, 415, "/problems/unsupported-media-type");
        assert_named(&answer, true);
    }
    for key in ["", "a\tb", &"k".repeat(256)] {
        let answer = order(&cluster, &[("idempotency-key", key)], "A", "u-1").await;
        assert_problem(&answer, 422, "/problems/invalid-request");
        assert_named(&answer, true);
    }
    let two_keys = order(&cluster, &[("idempotency-key", "k"), ("idempotency-key", "another")], "A", "u-1").await;
    assert_problem(&two_keys, 422, "/problems/invalid-request");
    for code in ["B", "a", "A-", "other", &"x".repeat(36)] {
        let answer = order(&cluster, &[], code, "u-1").await;
        assert_problem(&answer, 404, "/problems/unknown-coupon");
        assert_named(&answer, true);
    }

    assert_eq!(books(&cluster).await, books_before);
    assert_no_new_series(&cluster, &series_before).await;
    cluster.finish().await;
}

#[tokio::test]
async fn other_pages_and_other_methods_have_their_answers_and_no_series_of_their_own() {
    let cluster = Setup::new("batched").replicas(1).start().await;
    let series_before = series(&cluster).await;
    let paths =
        ["/", "/nowhere", "/coupons/", "/coupons/A/more", "/users", "/users/u-1", "/admin/reset", "/metrics", "/livez"];
    for path in paths {
        for method in ["GET", "POST", "PUT", "DELETE"] {
            let answer = send(&cluster, method, path, &[], vec![]).await;
            assert_problem(&answer, 404, "/problems/not-found");
            assert_named(&answer, false);
        }
    }
    let pages = ["/coupons", "/coupons/A", "/users/u-1/coupons", "/version", "/openapi.json"];
    for (path, allowed) in pages.map(|path| (path, "GET,HEAD")).into_iter().chain([("/coupons/issue", "POST")]) {
        for method in ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "BREW"] {
            if allowed.contains(method) {
                continue;
            }
            let answer = send(&cluster, method, path, &[], vec![]).await;
            assert_problem(&answer, 405, "/problems/method-not-allowed");
            assert_named(&answer, false);
            assert_eq!(answer.header("allow"), allowed, "{method} {path}");
        }
    }
    for path in pages {
        let head = send(&cluster, "HEAD", path, &[], vec![]).await;
        assert_eq!((head.status, head.text.as_str()), (200, ""), "{path}");
        assert_named(&head, false);
    }
    let docs = cluster.get(0, "/docs/").await;
    assert!(docs.status == 200 && docs.header("content-type").starts_with("text/html"), "{}", docs.status);
    assert_named(&docs, false);

    assert_no_new_series(&cluster, &series_before).await;
    cluster.finish().await;
}

#[tokio::test]
async fn ids_of_36_plain_characters_are_users_and_case_tells_them_apart() {
    let cluster = Setup::new("batched").coupons([("A", 10), ("Z.9_a:b-", 10)]).start().await;
    let long = "x".repeat(36);
    let users = [&long, "u", "U", "u-1", "U-1", "0", "...", "_", "null"];

    for (place, user) in users.iter().enumerate() {
        let answer = cluster.issue(place % 2, "Z.9_a:b-", user, "k").await;
        assert_eq!((answer.status, answer.member("serial")), (201, json!(place + 1)), "{user}: {}", answer.text);
        assert_eq!(answer.member("userId"), json!(user));
    }
    assert_eq!(cluster.get(0, "/users/U/coupons").await.json().as_array().unwrap().len(), 1);
    cluster.finish().await;
}

/// Clients and proxies take them for folders and remove them from a path: what they name could not be asked for.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dot_and_two_dots_are_nobodys_id_and_what_is_stored_under_them_stays_readable() {
    let cluster = Setup::new("batched").coupons([("A", 1), (".", 1), ("..", 0)]).start().await;
    let balancer = Balancer::start(&cluster, &[&cluster.replicas[0].url]).await;
    for id in [".", "..", "%2e", "%2E%2e", ".%2e"] {
        for url in [&cluster.replicas[1].url, &balancer.url] {
            for path in [format!("/coupons/{id}"), format!("/users/{id}/coupons")] {
                let answer = cluster.client.get(&format!("{url}{path}")).await;
                assert_problem(&answer, 422, "/problems/invalid-request");
                assert_named(&answer, false);
            }
        }
        let change = json!({"discountPercent": 10, "total": 1, "opensAt": null, "closesAt": null});
        let put = cluster.admin(0, "PUT", &format!("/admin/coupons/{id}"), Some(change)).await;
        assert_problem(&put, 422, "/problems/invalid-request");
    }

    // As an earlier release would have left it.
    cluster
        .run(
            "INSERT INTO wallet (round, scope, user_id, coupon_id, serial, request_id, issued_at) \
             SELECT round, scope, '..', id, 1, REPEAT('x', 16), UTC_TIMESTAMP(6) FROM coupon WHERE code = '.'",
        )
        .await;
    cluster.run("UPDATE coupon SET remaining = 0, next_serial = 2 WHERE code = '.'").await;
    let codes =
        cluster.get(0, "/coupons").await.json().as_array().unwrap().iter().map(|it| it["code"].clone()).collect();
    assert_eq!(Value::Array(codes), json!([".", "..", "A"]));
    let audit = cluster.admin(0, "GET", "/admin/audit", None).await;
    assert_eq!((audit.status, audit.json()["coupons"].as_array().unwrap().len()), (200, 3), "{}", audit.text);
    assert_eq!(cluster.issue(0, "A", "u-1", "k").await.status, 201);
    balancer.stop().await;
    cluster.finish().await;
}

#[tokio::test]
async fn a_key_has_one_to_255_visible_characters_and_json_may_name_its_charset() {
    let cluster = Setup::new("batched").replicas(1).start().await;
    let longest = "k".repeat(255);
    for (place, key) in ["k", "with a space", "!\"#~", &longest].into_iter().enumerate() {
        let user = format!("u-{place}");
        let first = order(&cluster, &[("idempotency-key", key)], "A", &user).await;
        let again = order(&cluster, &[("idempotency-key", key)], "A", &user).await;
        assert_eq!((first.status, again.status), (201, 200), "{key}");
    }
    let body = json!({"code": "A", "userId": "u"}).to_string().into_bytes();
    let charset = ("content-type", "application/json; charset=utf-8");
    assert_eq!(send(&cluster, "POST", "/coupons/issue", &[charset], body).await.status, 201);
    cluster.finish().await;
}

#[tokio::test]
async fn the_request_id_is_nginxs_or_a_new_one() {
    let cluster = Setup::new("batched").replicas(1).start().await;
    let given = "00112233445566778899aabbccddeeff";
    let kept = order(&cluster, &[("x-request-id", given)], "A", "u-1").await;
    assert_eq!((kept.header("x-request-id"), kept.member("requestId")), (given, json!(given)));
    let two =
        order(&cluster, &[("x-request-id", given), ("x-request-id", "ffeeddccbbaa99887766554433221100")], "A", "u-2")
            .await;
    assert_eq!(two.member("requestId"), two.header("x-request-id"));
    for bad in ["short", "00112233445566778899aabbccddeeXY", &"0".repeat(33)] {
        let renamed = order(&cluster, &[("x-request-id", bad)], "A", &format!("u-{}", bad.len())).await;
        assert_ne!(renamed.header("x-request-id"), bad);
        assert_named(&renamed, true);
    }
    cluster.discard().await;
}

/// Asks as the holder with the key of its entry and with another one, and as another user.
async fn three_asks(cluster: &Cluster, replica: usize) -> [Answer; 3] {
    [
        cluster.issue(replica, "A", "holder", "k").await,
        cluster.issue(replica, "A", "holder", "other").await,
        cluster.issue(replica, "A", "nobody", "k").await,
    ]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_follow_their_precedence_in_every_strategy() {
    let setup = |strategy: &str| Setup::new(strategy).coupons([("A", 1)]);
    in_each(SOUND, setup, |strategy, cluster| async move {
        let invalid = cluster.issue(0, "B", "no user", "k").await;
        let unknown = cluster.issue(0, "B", "holder", "k").await;
        let entry = cluster.issue(0, "A", "holder", "k").await;
        let sold_out = [three_asks(&cluster, 0).await, three_asks(&cluster, 1).await];
        let close = json!({"discountPercent": 10, "total": 1, "opensAt": null, "closesAt": "2020-01-01T00:00:00Z"});
        assert_eq!(cluster.admin(0, "PUT", "/admin/coupons/A", Some(close)).await.status, 200);
        let closed = [three_asks(&cluster, 0).await, three_asks(&cluster, 1).await];

        assert_problem(&invalid, 422, "/problems/invalid-request");
        assert_problem(&unknown, 404, "/problems/unknown-coupon");
        assert_eq!(entry.status, 201, "{strategy}");
        for (answers, status, kind) in [(sold_out, 410, "/problems/sold-out"), (closed, 403, "/problems/not-open")] {
            for [replay, other, nobody] in answers {
                assert_eq!((replay.status, replay.json()), (200, entry.json()), "{strategy}");
                assert_problem(&other, 409, "/problems/already-issued");
                assert_eq!(other.member("entry"), entry.json(), "{strategy}");
                assert_problem(&nobody, status, kind);
                assert_eq!(nobody.header("retry-after"), "", "{strategy}");
            }
        }
        cluster.finish().await;
    })
    .await;
}

#[tokio::test]
async fn coupons_are_listed_by_code_with_their_state() {
    let cluster = Setup::new("batched").coupons([("C", 3), ("A", 1), ("B", 0), ("D", 2), ("E", 2)]).start().await;
    cluster
        .run("UPDATE coupon SET opens_at = '2999-01-01', closes_at = '2999-01-02 00:00:00.5' WHERE code = 'D'")
        .await;
    cluster.run("UPDATE coupon SET closes_at = '2020-01-01' WHERE code = 'E'").await;
    assert_eq!(cluster.issue(0, "A", "u-1", "k").await.status, 201);
    assert_eq!(cluster.issue(0, "C", "u-1", "k").await.status, 201);
    for replica in 0..2 {
        let coupon = |code: &str, total: u32, remaining: u32, window: [Option<&str>; 2], state: &str| {
            json!({"code": code, "discountPercent": 10, "total": total, "remaining": remaining,
                   "opensAt": window[0], "closesAt": window[1], "state": state})
        };
        let expected = json!([
            coupon("A", 1, 0, [None, None], "sold-out"),
            coupon("B", 0, 0, [None, None], "sold-out"),
            coupon("C", 3, 2, [None, None], "open"),
            coupon("D", 2, 2, [Some("2999-01-01T00:00:00Z"), Some("2999-01-02T00:00:00.5Z")], "scheduled"),
            coupon("E", 2, 2, [None, Some("2020-01-01T00:00:00Z")], "closed"),
        ]);

        let seen = async || cluster.get(replica, "/coupons").await.json() == expected;
        eventually("the replica lists all of it", seen).await;
        let list = cluster.get(replica, "/coupons").await;

        assert_eq!((list.status, list.json()), (200, expected.clone()));
        assert_named(&list, false);
        for coupon in expected.as_array().unwrap() {
            let path = format!("/coupons/{}", coupon["code"].as_str().unwrap());
            assert_eq!(cluster.get(replica, &path).await.json(), *coupon);
        }
    }
    assert_problem(&cluster.get(0, "/coupons/X").await, 404, "/problems/unknown-coupon");
    for path in ["/coupons/a%20b", "/coupons/%FF", "/users/%20/coupons", "/users/%C3%BC/coupons", "/users/%FF/coupons"]
    {
        let answer = cluster.get(0, path).await;
        assert_problem(&answer, 422, "/problems/invalid-request");
        assert_named(&answer, false);
    }
    let empty = cluster.get(0, "/users/nobody/coupons").await;
    assert_eq!((empty.status, empty.json()), (200, json!([])));
    assert_named(&empty, false);
    let version = cluster.get(0, "/version").await;
    let this = json!({"name": "coupon-rush", "version": env!("CARGO_PKG_VERSION"), "strategy": "batched"});
    assert_eq!((version.status, version.json()), (200, this));
    assert_named(&version, false);
    cluster.discard().await;
}

#[tokio::test]
async fn not_now_is_503_with_a_time_to_ask_again() {
    let cluster = Setup::new("batched").replicas(1).set("--request-deadline-ms", 150).start().await;
    let lock = cluster.hold_lock("A").await;
    let busy = cluster.issue(0, "A", "u-1", "k").await;
    lock.release().await;
    let issued = cluster.decided(0, "A", "u-2").await;

    assert_problem(&busy, 503, "/problems/busy");
    assert_named(&busy, true);
    // 200 when an answer before it came too late.
    assert!(matches!(issued.status, 200 | 201), "{}", issued.text);
    assert_eq!(issued.member("serial"), json!(1));
    cluster.finish().await;
}

#[tokio::test]
async fn without_a_database_whatever_needs_it_is_503() {
    let mut cluster = Setup::new("batched").replicas(0).start().await;
    let mut arguments = cluster.arguments();
    let (_, file) = arguments.iter_mut().find(|(flag, _)| flag == "--database-url-file").unwrap();
    *file += ".nowhere";
    std::fs::write(file, format!("mysql://coupon:none@127.0.0.1:{}/none", free_port())).unwrap();
    cluster.replicas.push(Replica::start(arguments).await);

    for path in ["/coupons", "/coupons/A", "/users/u-1/coupons"] {
        assert_problem(&cluster.get(0, path).await, 503, "/problems/unavailable");
    }
    let issue = cluster.issue(0, "A", "u-1", "k").await;
    assert_problem(&issue, 503, "/problems/unavailable");
    assert_named(&issue, true);
    assert_eq!(cluster.get(0, "/version").await.status, 200);
    let ready = cluster.client.get(&format!("{}/readyz", cluster.replicas[0].ops_url)).await;
    assert_eq!((ready.status, ready.member("database")), (503, json!(false)));
    cluster.discard().await;
}
