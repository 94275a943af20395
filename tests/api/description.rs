//! The `OpenAPI` description, against the answers of a real replica.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::support::documented::{JSON, keys, send};
use crate::support::{Setup, eventually};

/// The status to expect, the route, the path, the headers and the body.
type Ask<'a> = (u16, &'a str, &'a str, &'a [(&'a str, &'a str)], Vec<u8>);

/// The described answers of one operation: by status, the members that the body may have, or must have for a success.
fn described<'a>(api: &'a Value, path: &str, method: &str, status: u16) -> (&'a str, Vec<&'a str>) {
    let answer = &api["paths"][path][method]["responses"][status.to_string()];
    let (content_type, content) = answer["content"]
        .as_object()
        .and_then(|content| content.iter().next())
        .unwrap_or_else(|| panic!("{method} {path} may answer {status}, which is not described"));
    let schema = &content["schema"];
    let name = schema["$ref"].as_str().or(schema["items"]["$ref"].as_str()).unwrap();
    let schema = api.pointer(name.strip_prefix('#').unwrap()).unwrap();
    (content_type, keys(&schema["properties"]))
}

#[tokio::test]
async fn the_description_lists_exactly_the_public_calls_and_every_answer_they_give() {
    let setup = Setup::new("batched").patient().replicas(1).coupons([("A", 1), ("B", 1), ("C", 1)]);
    let cluster = setup.set("--request-deadline-ms", 1_000).start().await;
    cluster.run("UPDATE coupon SET opens_at = '2999-01-01' WHERE code = 'B'").await;
    let scheduled = async || cluster.get(0, "/coupons/B").await.member("state") == "scheduled";
    eventually("the window is seen", scheduled).await;

    let api = cluster.get(0, "/openapi.json").await.json();

    let calls: BTreeSet<(String, String)> =
        api["paths"].as_object().unwrap().iter().fold(BTreeSet::new(), |mut all, (path, item)| {
            all.extend(keys(item).into_iter().map(|method| (method.to_owned(), path.clone())));
            all
        });
    let public = [
        ("post", "/coupons/issue"),
        ("get", "/coupons"),
        ("get", "/coupons/{code}"),
        ("get", "/users/{userId}/coupons"),
        ("get", "/version"),
    ];
    assert_eq!(calls, public.map(|(method, path)| (method.to_owned(), path.to_owned())).into());
    let issue = |code: &str, user: &str| json!({"code": code, "userId": user}).to_string().into_bytes();
    let key = &[JSON, ("idempotency-key", "k")][..];
    let lock = cluster.hold_lock("C").await;
    let asks: [Ask; 18] = [
        (201, "/coupons/issue", "/coupons/issue", key, issue("A", "u-1")),
        (200, "/coupons/issue", "/coupons/issue", key, issue("A", "u-1")),
        (409, "/coupons/issue", "/coupons/issue", &[JSON], issue("A", "u-1")),
        (410, "/coupons/issue", "/coupons/issue", key, issue("A", "u-2")),
        (403, "/coupons/issue", "/coupons/issue", key, issue("B", "u-1")),
        (404, "/coupons/issue", "/coupons/issue", key, issue("X", "u-1")),
        (422, "/coupons/issue", "/coupons/issue", key, issue("A", "u 1")),
        (400, "/coupons/issue", "/coupons/issue", key, vec![]),
        (415, "/coupons/issue", "/coupons/issue", &[], issue("A", "u-1")),
        (413, "/coupons/issue", "/coupons/issue", key, issue("A", &"x".repeat(20_000))),
        (503, "/coupons/issue", "/coupons/issue", key, issue("C", "u-1")),
        (200, "/coupons", "/coupons", &[], vec![]),
        (200, "/coupons/{code}", "/coupons/A", &[], vec![]),
        (404, "/coupons/{code}", "/coupons/X", &[], vec![]),
        (422, "/coupons/{code}", "/coupons/a%20b", &[], vec![]),
        (200, "/users/{userId}/coupons", "/users/u-1/coupons", &[], vec![]),
        (422, "/users/{userId}/coupons", "/users/a%20b/coupons", &[], vec![]),
        (200, "/version", "/version", &[], vec![]),
    ];
    for (status, route, path, headers, body) in asks {
        let method = if route == "/coupons/issue" { "post" } else { "get" };
        let answer = send(&cluster, &method.to_uppercase(), path, headers, body).await;
        assert_eq!(answer.status, status, "{path}: {}", answer.text);
        let (content_type, members) = described(&api, route, method, status);
        assert_eq!(answer.header("content-type"), content_type, "{path}");
        let json = answer.json();
        let body = json.as_array().map_or(&json, |all| &all[0]);
        let given = keys(body);
        assert!(given.iter().all(|member| members.contains(member)), "{path}: {given:?} of {members:?}");
        assert!(status >= 400 || given.len() == members.len(), "{path}: {given:?} of {members:?}");
    }
    lock.release().await;
    for (path, method) in [("/coupons", "get"), ("/coupons/{code}", "get"), ("/users/{userId}/coupons", "get")] {
        described(&api, path, method, 503);
    }
    cluster.discard().await;
}
