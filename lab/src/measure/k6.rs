//! What k6 wrote down about a run: the numbers of its summary.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::Context;
use serde::Deserialize;
use serde_json::Value;

/// Every knob of the scripts in `k6/`, and `K6_OUT`: a person may have set them for runs of his own.
const KNOBS: &str = "ACKS AFTER BACK_MS BEFORE CODES DROPS DURATION FROM GROWTH ID K6_OUT OVER P99_MS PEAK PIECES RAMP_TO RATE \
                     RESET ROUNDS SEED SPIKE STEP STRICT TO USERS VUS WARMUP";

/// A run's environment with these knobs and none of a person's, nor an option of k6's own: an empty one is not handed on.
pub fn with_knobs(mut environment: BTreeMap<String, String>, knobs: &[(&str, String)]) -> BTreeMap<String, String> {
    let own = KNOBS.split_whitespace().map(str::to_owned);
    let of_k6_itself =
        std::env::vars_os().filter_map(|(name, _)| name.into_string().ok()).filter(|it| it.starts_with("K6_"));
    environment.extend(own.chain(of_k6_itself).map(|name| (name, String::new())));
    environment.extend(knobs.iter().map(|(name, value)| ((*name).to_owned(), value.clone())));
    environment
}

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
    use std::collections::BTreeSet;

    use super::*;

    /// Whatever a script reads, but for what `local/k6` sets itself.
    fn knobs_of_the_scripts() -> BTreeSet<String> {
        let k6 = Path::new(env!("CARGO_MANIFEST_DIR")).join("../k6");
        let files = [k6.join("lib"), k6].into_iter().flat_map(|folder| fs::read_dir(folder).unwrap());
        let scripts =
            files.map(|file| file.unwrap().path()).filter(|path| path.extension().is_some_and(|it| it == "js"));
        let text: String = scripts.map(|path| fs::read_to_string(path).unwrap()).collect();
        let name = |rest: &str| {
            rest.split(|c: char| !c.is_ascii_uppercase() && !c.is_ascii_digit() && c != '_').next().map(str::to_owned)
        };
        let read = ["knobs.count('", "knobs.choice('", "knobs.duration('", "knobs.word('", "__ENV."];
        let names = read.iter().flat_map(|begin| text.split(begin).skip(1).filter_map(name)).collect::<BTreeSet<_>>();
        let given = ["BASE_URL", "OPS_URL", "ADMIN_TOKEN", "STRATEGY", ""].map(str::to_owned);
        names.difference(&given.into()).cloned().collect()
    }

    #[test]
    fn a_run_has_no_knob_of_a_persons_own() {
        let known: BTreeSet<_> = KNOBS.split_whitespace().map(str::to_owned).collect();
        let missing: Vec<_> = knobs_of_the_scripts().difference(&known).cloned().collect();
        assert!(missing.is_empty(), "{missing:?}");
        let persons =
            [("CODES", "8"), ("K6_OUT", "csv"), ("HOME", "/root")].map(|(name, value)| (name.into(), value.into()));

        let environment = with_knobs(persons.into(), &[("VUS", "7".to_owned())]);

        let value = |name: &str| environment[name].as_str();
        assert_eq!(["CODES", "K6_OUT", "RAMP_TO", "VUS", "HOME"].map(value), ["", "", "", "7", "/root"]);
    }

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
