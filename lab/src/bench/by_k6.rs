//! What k6 measures: the crowd of 10,000, and an open model, to compare our own loader with.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, ensure};

use super::list::CROSS_CHECK;
use crate::measure::k6::{Summary, of_scenario, with_knobs};
use crate::measure::sample::Sample;
use crate::measure::stage::Stage;
use crate::script;

const USERS: u32 = 10_000;
/// The scenario of arrival.js that is measured.
const ARRIVAL: &str = "arrival";

/// 10,000 users who all come at once, each with a connection of its own, to stock that most of them do not get.
pub async fn rush(stage: &mut Stage) -> anyhow::Result<Sample> {
    // The crowd asks for whatever there is.
    stage.withdraw().await?;
    let before = stage.before().await?;
    let (summary, ended) = k6(stage, "rush", &[("USERS", USERS.to_string()), ("VUS", USERS.to_string())]).await?;
    let after = stage.look().await?;
    let mut sample = sample(&summary, None);
    sample.count(stage, &before, &after, 0.0)?;
    // k6 is none of the parts, but it is no stranger either; so nobody's share is known.
    sample.quiet.others = 0.0;
    sample.cpu_seconds.clear();
    // Also "busy" is a 5xx. A reset and an answer that never came are unexpected, as k6 counts.
    let unserved = summary.number("coupon_unexpected", "count") + summary.number("coupon_busy", "count");
    sample.unserved = Some(unserved);
    // What was not served is a missed budget; anything else that k6 or the verdict minds is a broken promise.
    if unserved == 0.0 && !ended.is_empty() {
        sample.broken = Some(ended);
    }
    Ok(sample)
}

/// A fixed rate.
pub async fn arrival(stage: &mut Stage) -> anyhow::Result<Sample> {
    let (rate, time) = CROSS_CHECK;
    let knobs =
        [("RATE", rate.to_string()), ("DURATION", format!("{}s", time.as_secs())), ("DROPS", "allow".to_owned())];
    stage.withdraw().await?;
    let before = stage.before().await?;
    // What k6 cannot send is a lower rate, and nothing of the service.
    let (summary, ended) = k6(stage, "arrival", &knobs).await?;
    let after = stage.look().await?;
    ensure!(summary.has(&of_scenario("http_reqs", ARRIVAL)), "k6 told nothing about the scenario {ARRIVAL}");
    let mut sample = sample(&summary, Some((ARRIVAL, time)));
    sample.quiet.speed = stage.speed(&before, &after);
    sample.broken = (!ended.is_empty()).then_some(ended);
    Ok(sample)
}

/// Figures of a whole run, or of a scenario of it and the time in which its requests were sent. A whole run has no rate: k6
/// divides by setup, warm-up and teardown, too.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "counts of one run")]
fn sample(summary: &Summary, part: Option<(&str, Duration)>) -> Sample {
    let number = |metric: &str, field| match part {
        Some((scenario, _)) => summary.number(&of_scenario(metric, scenario), field),
        None => summary.number(metric, field),
    };
    let mut sample = Sample::default();
    let answered = number("http_reqs", "count");
    if let Some((_, time)) = part {
        (sample.seconds, sample.rate) = (time.as_secs_f64(), answered / time.as_secs_f64());
    }
    (sample.answered, sample.issued) = (answered as u64, number("coupon_issued", "count") as u64);
    let latency = |field| number("http_req_duration", field);
    (sample.latency.p50, sample.latency.p99, sample.latency.max) = (latency("med"), latency("p(99)"), latency("max"));
    sample
}

/// Runs a script of the project; the second is empty when k6 and the verdict on the tables are content.
async fn k6(stage: &Stage, name: &str, knobs: &[(&str, String)]) -> anyhow::Result<(Summary, String)> {
    let (root, environment, interrupt) = stage.script();
    let mut environment = with_knobs(environment, knobs);
    let lab = std::env::current_exe().context("where is this program?")?;
    environment.insert("COUPON_LAB_BIN".to_owned(), lab.display().to_string());
    let into = Path::new(&environment["CLUSTER_DIR"]).join("runs").join(name);
    let folder = into.display().to_string();
    let done = script::run(root, &["local/k6", name, "--into", &folder], &environment, Some(interrupt)).await?;
    let summary = Summary::read(&into).with_context(|| done.output.clone())?;
    let last = done.output.lines().rev().find(|line| line.contains("verdict")).unwrap_or("k6 failed");
    let why = format!("{last}; {}", summary.broken_thresholds().join(", "));
    Ok((summary, if done.status.success() { String::new() } else { why }))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A run with a warm-up of 5 s before, so that k6's own rates are of 15 s and more.
    fn summary() -> Summary {
        let text = r#"{"metrics":{
            "http_reqs":{"count":15004,"rate":937.7}, "http_reqs{scenario:arrival}":{"count":10001,"rate":625.1},
            "coupon_issued":{"count":15000}, "coupon_issued{scenario:arrival}":{"count":10000},
            "http_req_duration":{"med":2.0,"p(99)":80.0,"max":90.0},
            "http_req_duration{scenario:arrival}":{"med":1.0,"p(99)":8.0,"max":9.0}}}"#;
        serde_json::from_str(text).unwrap()
    }

    #[test]
    fn the_rate_of_arrivals_is_theirs_alone_over_the_time_in_which_they_were_sent() {
        let sample = sample(&summary(), Some((ARRIVAL, Duration::from_secs(10))));

        assert_eq!((sample.answered, sample.issued, sample.seconds), (10_001, 10_000, 10.0));
        assert!((sample.rate - 1_000.1).abs() < 1e-9, "{}", sample.rate);
        assert_eq!((sample.latency.p50, sample.latency.p99, sample.latency.max), (1.0, 8.0, 9.0));
    }

    #[test]
    fn a_rush_has_counts_and_no_rate() {
        let sample = sample(&summary(), None);

        assert_eq!((sample.answered, sample.issued), (15_004, 15_000));
        assert!(sample.rate == 0.0 && sample.seconds == 0.0);
    }
}
