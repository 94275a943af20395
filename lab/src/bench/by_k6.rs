//! What k6 measures: the crowd of 10,000, and an open model, to compare our own loader with.

use std::fs;

use anyhow::{Context, ensure};
use serde_json::Value;

use super::list::CROSS_CHECK;
use crate::measure::{Sample, Stage, Times};

const USERS: u32 = 10_000;
/// What k6 adds to the name of a metric over the measured scenario of arrival.js alone, without setup and warm-up.
const ARRIVAL: &str = "{scenario:arrival}";

/// 10,000 users who all come at once, each with a connection of its own, to stock that most of them do not get.
pub async fn rush(stage: &mut Stage) -> anyhow::Result<Sample> {
    // The crowd asks for whatever there is.
    stage.withdraw().await?;
    let before = stage.begin().await?;
    let (summary, complaint) = k6(stage, "rush", &[("USERS", USERS.to_string()), ("VUS", USERS.to_string())]).await?;
    let after = stage.end().await?;
    let mut sample = sample(&summary, "", None);
    sample.count(stage, &before, &after, 0.0)?;
    // k6 is none of the parts, but it is no stranger either; so nobody's share is known.
    sample.quiet.others = 0.0;
    sample.cpu_seconds.clear();
    // Also "busy" is a 5xx. A reset and an answer that never came are unexpected, as k6 counts.
    let unserved = number(&summary, "coupon_unexpected", "count") + number(&summary, "coupon_busy", "count");
    sample.unserved = Some(unserved);
    // What was not served is a missed budget; anything else that k6 or the verdict minds is a broken promise.
    sample.broken = complaint.filter(|_| unserved == 0.0);
    Ok(sample)
}

pub async fn arrival(stage: &mut Stage) -> anyhow::Result<Sample> {
    let (rate, time) = CROSS_CHECK;
    // What k6 cannot send is a lower rate, and nothing of the service.
    let knobs =
        [("RATE", rate.to_string()), ("DURATION", format!("{}s", time.as_secs())), ("DROPS", "allow".to_owned())];
    stage.withdraw().await?;
    let from = stage.gauge.mark();
    let (summary, complaint) = k6(stage, "arrival", &knobs).await?;
    let is_told = summary["metrics"][format!("http_reqs{ARRIVAL}")].is_object();
    ensure!(is_told, "k6 told nothing about the scenario of arrival.js");
    let mut sample = sample(&summary, ARRIVAL, Some(time.as_secs_f64()));
    sample.quiet.speed = stage.gauge.between(from..stage.gauge.mark());
    sample.broken = complaint;
    Ok(sample)
}

/// Runs a script of the project. The second says why k6 or the verdict on the tables is not content.
async fn k6(stage: &Stage, name: &str, knobs: &[(&str, String)]) -> anyhow::Result<(Value, Option<String>)> {
    let private = stage.private.as_ref().context("k6 measures on a cluster of the laboratory's own")?;
    let (done, folder) = private.k6(name, knobs).await?;
    let summary = fs::read_to_string(folder.join("summary.json")).context("k6 wrote no summary");
    let summary = serde_json::from_str(&summary.with_context(|| done.output.clone())?);
    let summary: Value = summary.context("what k6 wrote is no summary")?;
    let last = done.output.lines().rev().find(|line| line.contains("verdict")).unwrap_or("k6 failed");
    let complaint = format!("{last}; {}", broken_thresholds(&summary).join(", "));
    Ok((summary, (!done.status.success()).then_some(complaint)))
}

/// Zero when k6 had nothing to say about it.
fn number(summary: &Value, metric: &str, field: &str) -> f64 {
    summary["metrics"][metric][field].as_f64().unwrap_or(0.0)
}

/// Figures of a part of a run. Without the seconds in which its requests were sent there is no rate: k6 divides by setup, warm-up
/// and teardown, too.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "counts of one run")]
fn sample(summary: &Value, part: &str, seconds: Option<f64>) -> Sample {
    let number = |metric: &str, field| number(summary, &format!("{metric}{part}"), field);
    let [p50, p99, max] = ["med", "p(99)", "max"].map(|field| number("http_req_duration", field));
    let (answered, issued) = (number("http_reqs", "count"), number("coupon_issued", "count"));
    Sample {
        seconds: seconds.unwrap_or(0.0),
        rate: seconds.map_or(0.0, |seconds| answered / seconds),
        answered: answered as u64,
        issued: issued as u64,
        latency: Some(Times { p50, p99, max, ..Times::default() }),
        ..Sample::default()
    }
}

/// The thresholds that the run did not keep, as `metric: threshold`.
fn broken_thresholds(summary: &Value) -> Vec<String> {
    let mut broken = Vec::new();
    for (metric, fields) in summary["metrics"].as_object().into_iter().flatten() {
        let thresholds = fields["thresholds"].as_object().into_iter().flatten();
        // In this export, true means that it was crossed.
        let crossed = thresholds.filter(|(_, is_crossed)| is_crossed.as_bool() == Some(true));
        broken.extend(crossed.map(|(threshold, _)| format!("{metric}: {threshold}")));
    }
    broken
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A run with a warm-up of 5 s before, so that k6's own rates are of 15 s and more.
    fn summary() -> Value {
        let text = r#"{"metrics":{
            "http_reqs":{"count":15004,"rate":937.7}, "http_reqs{scenario:arrival}":{"count":10001,"rate":625.1},
            "coupon_issued":{"count":15000}, "coupon_issued{scenario:arrival}":{"count":10000},
            "http_req_duration":{"med":2.0,"p(99)":80.0,"max":90.0},
            "http_req_duration{scenario:arrival}":{"med":1.0,"p(99)":8.0,"max":9.0},
            "coupon_unexpected":{"count":2,"thresholds":{"count==0":true}},"checks":{"thresholds":{"rate==1":false}}}}"#;
        serde_json::from_str(text).unwrap()
    }

    #[test]
    fn the_rate_of_arrivals_is_theirs_alone_over_the_time_in_which_they_were_sent() {
        let sample = sample(&summary(), ARRIVAL, Some(10.0));

        assert_eq!((sample.answered, sample.issued, sample.seconds), (10_001, 10_000, 10.0));
        assert!((sample.rate - 1_000.1).abs() < 1e-9, "{}", sample.rate);
        assert_eq!(sample.latency, Some(Times { p50: 1.0, p99: 8.0, max: 9.0, ..Times::default() }));
    }

    #[test]
    fn a_whole_run_has_counts_and_no_rate_and_what_k6_never_touched_is_zero() {
        let summary = summary();
        let sample = sample(&summary, "", None);

        assert_eq!((sample.answered, sample.issued), (15_004, 15_000));
        assert!(sample.rate == 0.0 && sample.seconds == 0.0);
        let counts = ["coupon_unexpected", "coupon_busy"].map(|metric| number(&summary, metric, "count"));
        assert_eq!(counts.to_vec(), [2.0, 0.0]);
        assert_eq!(broken_thresholds(&summary), ["coupon_unexpected: count==0"]);
    }
}
