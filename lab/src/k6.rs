//! What k6 wrote down about a run: the numbers of its summary.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::Context;
use serde::Deserialize;
use serde_json::Value;

/// k6's summary: each metric with its numbers. One of a scenario alone is called as [`of_scenario`] says.
#[derive(Debug, Deserialize)]
pub struct Summary {
    metrics: BTreeMap<String, BTreeMap<String, Value>>,
}

/// The name of a metric over one scenario alone, without setup and warm-up: `http_reqs{scenario:arrival}`.
pub fn of_scenario(metric: &str, scenario: &str) -> String {
    format!("{metric}{{scenario:{scenario}}}")
}

impl Summary {
    /// The one in the folder of a run.
    pub fn read(folder: &Path) -> anyhow::Result<Self> {
        let path = folder.join("summary.json");
        let text = fs::read_to_string(&path).with_context(|| format!("k6 wrote no {}", path.display()))?;
        serde_json::from_str(&text).with_context(|| format!("{} is no summary of k6", path.display()))
    }

    /// Whether k6 has anything to say about it.
    pub fn has(&self, metric: &str) -> bool {
        self.metrics.contains_key(metric)
    }

    /// Zero when k6 had nothing to say about it.
    pub fn number(&self, metric: &str, field: &str) -> f64 {
        self.metrics.get(metric).and_then(|it| it.get(field)?.as_f64()).unwrap_or(0.0)
    }

    /// The thresholds that the run did not keep, as `metric: threshold`.
    pub fn broken_thresholds(&self) -> Vec<String> {
        let mut broken = Vec::new();
        for (metric, fields) in &self.metrics {
            let thresholds = fields.get("thresholds").and_then(Value::as_object);
            for (threshold, is_broken) in thresholds.into_iter().flatten() {
                // In this export, true means that it was crossed.
                if is_broken == &Value::Bool(true) {
                    broken.push(format!("{metric}: {threshold}"));
                }
            }
        }
        broken
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_metric_that_was_never_touched_is_zero() {
        let text = r#"{"metrics":{"http_reqs":{"count":7,"rate":1.5},
            "coupon_unexpected":{"count":2,"thresholds":{"count==0":true}},"checks":{"thresholds":{"rate==1":false}}}}"#;
        let summary: Summary = serde_json::from_str(text).unwrap();

        assert_eq!((summary.number("http_reqs", "count"), summary.number("coupon_busy", "count")), (7.0, 0.0));
        assert_eq!(summary.broken_thresholds(), ["coupon_unexpected: count==0"]);
        assert!(summary.has("http_reqs") && !summary.has("coupon_busy"));
    }
}
