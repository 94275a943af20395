//! What the documents say of every answer and of what a refusal leaves as it was.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::{Answer, Cluster};

pub const JSON: (&str, &str) = ("content-type", "application/json");

pub async fn send(cluster: &Cluster, method: &str, path: &str, headers: &[(&str, &str)], body: Vec<u8>) -> Answer {
    cluster.client.raw(method, &format!("{}{path}", cluster.replicas[0].url), headers, body).await
}

pub async fn order(cluster: &Cluster, headers: &[(&str, &str)], code: &str, user: &str) -> Answer {
    let body = json!({"code": code, "userId": user}).to_string().into_bytes();
    send(cluster, "POST", "/coupons/issue", &[&[JSON], headers].concat(), body).await
}

/// What every refusal has.
pub fn assert_problem(answer: &Answer, status: u16, kind: &str) {
    assert_eq!((answer.status, answer.member("type")), (status, json!(kind)), "{}", answer.text);
    assert_eq!(answer.header("content-type"), "application/problem+json");
    assert_eq!(answer.member("status"), status);
    assert!(answer.member("title").is_string());
    let members: BTreeSet<_> = answer.json().as_object().unwrap().keys().cloned().collect();
    let known = ["detail", "entry", "round", "status", "title", "type"].map(str::to_owned);
    assert!(members.is_subset(&BTreeSet::from(known)), "{}", answer.text);
    let retry_after: Option<u64> = answer.headers.get("retry-after").map(|it| it.to_str().unwrap().parse().unwrap());
    match status {
        503 => assert!(matches!(retry_after, Some(1..=3)), "{retry_after:?}"),
        403 => assert_ne!(retry_after, Some(0)),
        _ => assert_eq!(retry_after, None, "{}", answer.text),
    }
}

/// What every answer has.
pub fn assert_named(answer: &Answer, is_issue: bool) {
    let id = answer.header("x-request-id");
    assert!(id.len() == 32 && id.bytes().all(|b| b.is_ascii_hexdigit()), "`{id}`: {} {}", answer.status, answer.text);
    assert_eq!(answer.header("x-replica"), if is_issue { "replica-1" } else { "" });
}

pub fn keys(value: &Value) -> Vec<&str> {
    let mut keys: Vec<_> = value.as_object().unwrap().keys().map(String::as_str).collect();
    keys.sort_unstable();
    keys
}

/// What must not change when a request is refused.
pub async fn books(cluster: &Cluster) -> (i64, i64) {
    (
        cluster.number("SELECT COUNT(*) FROM wallet").await,
        cluster.number("SELECT SUM(remaining) * 1000000 + SUM(next_serial) FROM coupon").await,
    )
}

/// Names and labels of all series of a replica.
pub async fn series(cluster: &Cluster) -> BTreeSet<String> {
    let answer = cluster.client.get(&format!("{}/metrics", cluster.replicas[0].ops_url)).await;
    let samples = answer.text.lines().filter(|line| !line.starts_with('#'));
    samples.map(|line| line.rsplit_once(' ').unwrap().0.to_owned()).collect()
}

pub async fn assert_no_new_series(cluster: &Cluster, before: &BTreeSet<String>) {
    let after = series(cluster).await;
    let new: Vec<_> = after.difference(before).filter(|it| !it.contains("_bucket")).collect();
    assert!(new.is_empty(), "{new:?}");
}
