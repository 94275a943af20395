//! What k6 measures: the crowd of 10,000, and the open model once more by another loader than ours.

use std::path::Path;
use std::time::Duration;

use anyhow::Context;

use super::plan::{CROSS_CHECK_RATE, Step};
use super::sample::Sample;
use crate::k6::Summary;
use crate::script;
use crate::stage::Stage;

const USERS: u32 = 10_000;
/// How long requests are sent at a rate, by either loader.
pub const ARRIVAL_TIME: Duration = Duration::from_secs(10);

/// 10,000 users who all come at once, each with a connection of its own, to stock that most of them do not get.
pub async fn rush(stage: &mut Stage, step: Step) -> anyhow::Result<Sample> {
    let before = stage.before().await?;
    let (summary, ended) = k6(stage, "rush", &[("USERS", USERS.to_string()), ("VUS", USERS.to_string())]).await?;
    let after = stage.look().await?;
    let mut sample = sample(step, &summary);
    sample.quiet.speed = stage.speed(&before, &after);
    let machine = after.machine.since(before.machine);
    (sample.quiet.all, sample.quiet.idle, sample.quiet.stolen) = (machine.all, machine.idle, machine.stolen);
    sample.memory = stage.parts().memory()?;
    // Also "busy" is a 5xx. A reset and an answer that never came are unexpected, as k6 counts.
    let unserved = summary.number("coupon_unexpected", "count") + summary.number("coupon_busy", "count");
    sample.figures.insert("unserved", unserved);
    // What was not served is a missed budget; anything else that k6 or the verdict minds is a broken promise.
    if unserved == 0.0 && !ended.is_empty() {
        sample.broken = Some(ended);
    }
    Ok(sample)
}

/// A thousand requests a second.
pub async fn arrival(stage: &mut Stage, step: Step) -> anyhow::Result<Sample> {
    let knobs = [("RATE", CROSS_CHECK_RATE.to_string()), ("DURATION", format!("{}s", ARRIVAL_TIME.as_secs()))];
    let before = stage.before().await?;
    let (summary, ended) = k6(stage, "arrival", &knobs).await?;
    let after = stage.look().await?;
    let mut sample = sample(step, &summary);
    sample.quiet.speed = stage.speed(&before, &after);
    sample.broken = (!ended.is_empty()).then_some(ended);
    Ok(sample)
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "counts of one run")]
fn sample(step: Step, summary: &Summary) -> Sample {
    let scoped = "http_req_duration{scenario:arrival}";
    let latency = if summary.has(scoped) { scoped } else { "http_req_duration" };
    let mut sample = Sample { scenario: step.scenario.to_string(), round: step.round, ..Sample::default() };
    sample.rate = summary.number("http_reqs", "rate");
    sample.answered = summary.number("http_reqs", "count") as u64;
    sample.issued = summary.number("coupon_issued", "count") as u64;
    (sample.latency.p50, sample.latency.p99) = (summary.number(latency, "med"), summary.number(latency, "p(99)"));
    sample.latency.max = summary.number(latency, "max");
    sample
}

/// Runs a script of the project; the second is empty when k6 and the verdict on the tables are content.
async fn k6(stage: &Stage, name: &str, knobs: &[(&str, String)]) -> anyhow::Result<(Summary, String)> {
    let (root, mut environment, interrupt) = stage.script();
    environment.extend(knobs.iter().map(|(name, value)| ((*name).to_owned(), value.clone())));
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
