//! What Prometheus saw of a cell, kept raw beside it: what no picture shows can be looked up there.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::{Duration, SystemTime};

use anyhow::Context;

use crate::cluster::Cluster;
use crate::prometheus::{Prometheus, Series};

/// Prometheus looks this often.
const STEP: Duration = Duration::from_secs(2);

/// A name and a question.
const QUESTIONS: [(&str, &str); 12] = [
    ("lockWaitBuckets", "sum by (le, result) (coupon_lock_wait_seconds_bucket)"),
    ("lockWaitP50", "histogram_quantile(0.50, sum by (le) (rate(coupon_lock_wait_seconds_bucket[6s])))"),
    ("lockWaitP95", "histogram_quantile(0.95, sum by (le) (rate(coupon_lock_wait_seconds_bucket[6s])))"),
    ("lockWaitP99", "histogram_quantile(0.99, sum by (le) (rate(coupon_lock_wait_seconds_bucket[6s])))"),
    ("latencyBuckets", "sum by (le, status) (http_request_duration_seconds_bucket{route=\"/coupons/issue\"})"),
    (
        "latencyP99",
        "histogram_quantile(0.99, sum by (le) (rate(http_request_duration_seconds_bucket{route=\"/coupons/issue\"}[6s])))",
    ),
    ("outcomes", "sum by (replica, outcome) (coupon_issue_total)"),
    ("issuedPerSecond", "sum by (replica) (rate(coupon_issue_total{outcome=\"issued\"}[6s]))"),
    ("batchSizeBuckets", "sum by (le) (coupon_batch_size_bucket)"),
    ("queueDepth", "coupon_queue_depth"),
    ("lockAttempts", "sum by (replica, result) (coupon_lock_attempts_total)"),
    ("k6Requests", "sum by (scenario) (k6_http_reqs_total)"),
];

/// Asks everything from `since` until now and writes the answers to `prometheus.json`.
pub async fn keep(cluster: &Cluster, since: SystemTime, folder: &Path) -> anyhow::Result<()> {
    let prometheus = Prometheus::new(cluster)?;
    let now = SystemTime::now();
    let mut answers: BTreeMap<&str, Vec<Series>> = BTreeMap::new();
    for (name, question) in QUESTIONS {
        answers.insert(name, prometheus.range(question, since, now, STEP).await?);
    }
    let path = folder.join("prometheus.json");
    fs::write(&path, serde_json::to_string(&answers)?).with_context(|| format!("cannot write {}", path.display()))
}
