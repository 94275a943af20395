//! One way to measure, for the budgets of `bench`, the grid of `sweep` and `fairness`: a scenario says what is asked of which
//! cluster; its load is sent between two looks at every counter; the tables are judged; what was found is a sample. Which
//! scenarios there are, and what is good, is not said here.

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::Context;
use tokio::time::{Instant, sleep_until};

mod fairness;
mod histogram;
pub mod quiet;
mod sample;
mod scenario;
mod speed;
mod stage;

use crate::load::{Load, Outcome, Pace, Plan, Requests, Until, Users, load};
use crate::verify::{Ack, verify};
pub use fairness::Fairness;
pub use sample::{Sample, Times, Verdict};
pub use scenario::{ANSWERS, Contests, FEW, MANY, Scenario, Stock, WARM_UP, holders, issues, plenty};
use stage::Moment;
pub use stage::{Stage, both};

/// How long users are sent away before a measurement of that, so that every replica remembers that all is gone.
const REFUSING: Duration = Duration::from_millis(700);

/// Measures a scenario on the cluster as it is. When the verdict is not clean, what clients were promised goes into the file
/// `evidence`.
pub async fn measure(stage: &mut Stage, scenario: &Scenario, evidence: Option<&Path>) -> anyhow::Result<Sample> {
    stage.prepare(&scenario.stock).await?;
    let plan = plan(stage, scenario)?;
    let mut acks = match &scenario.stock {
        Stock::Gone(code, pieces) => give_away(&plan, code, *pieces).await?,
        _ => Vec::new(),
    };
    let load = Load::connect(plan).await?;
    let (outcome, before, after) = send(stage, scenario, load).await?;
    let mut sample = Sample::of(scenario.pace, &outcome);
    sample.count(stage, &before, &after, outcome.cpu_seconds)?;
    sample.broken = doubt(scenario, &outcome).or_else(|| sample.bypass());
    if scenario.stock.is_touched() {
        acks.extend(outcome.acks()?);
        let report = verify(&mut stage.database, Some(&acks)).await?;
        let (clean, text, lost_updates) = (report.is_clean(), report.verdict(), report.lost_updates());
        if !clean {
            sample.broken = Some(text.clone());
            if let Some(path) = evidence {
                fs::write(path, outcome.promised()).with_context(|| format!("cannot write {}", path.display()))?;
            }
        }
        sample.verdict = Some(Verdict { clean, text, lost_updates });
        if scenario.is_contest() {
            sample.fairness = Some(Fairness::read(stage).await?);
        }
    }
    Ok(sample)
}

pub fn plan(stage: &Stage, scenario: &Scenario) -> anyhow::Result<Plan> {
    Ok(Plan {
        url: stage.cluster.url()?,
        connections: scenario.connections,
        pace: scenario.pace,
        until: Until::Elapsed(scenario.time),
        requests: scenario.requests.clone(),
        expect: scenario.expect.clone(),
        keep_acks: scenario.stock.is_touched(),
    })
}

/// Everybody who can have a piece gets one, and then some strangers are told that all is gone.
async fn give_away(plan: &Plan, code: &str, pieces: u32) -> anyhow::Result<Vec<Ack>> {
    let asks = |users, key: &str| Requests::Issue { codes: vec![code.to_owned()], users, key: key.to_owned() };
    let holders = asks(holders(pieces), "given");
    let strangers = asks(Users::new("stranger"), "first");
    let closed = Plan { pace: Pace::Closed, ..plan.clone() };
    let given = load(Plan { requests: holders, until: Until::Sent(pieces.into()), ..closed.clone() }).await?;
    load(Plan { requests: strangers, until: Until::Elapsed(REFUSING), ..closed }).await?;
    given.acks()
}

/// Sends the load and looks at all counters at both edges of the measured window. What is late is still awaited after it.
async fn send(stage: &mut Stage, scenario: &Scenario, load: Load) -> anyhow::Result<(Outcome, Moment, Moment)> {
    let begin = Instant::now() + scenario.warm_up;
    let looks = async {
        sleep_until(begin).await;
        let before = stage.begin().await?;
        sleep_until(begin + scenario.time).await;
        anyhow::Ok((before, stage.end().await?))
    };
    let (outcome, (before, after)) = tokio::try_join!(load.run_warmed(scenario.warm_up), looks)?;
    Ok((outcome, before, after))
}

/// Why a load has no figure; a fast refusal is no fast service.
fn doubt(scenario: &Scenario, outcome: &Outcome) -> Option<String> {
    let is_fine = |status: &u16| scenario.expect.contains(status) || scenario.tolerate.contains(status);
    if let Some((status, count)) = outcome.by_status.iter().find(|(status, _)| !is_fine(status)) {
        return Some(format!("{count} answers with {status}"));
    }
    if outcome.errors.sum() > 0 {
        return Some(format!("{:?}", outcome.errors));
    }
    (outcome.answers == 0).then(|| "no answer that counts".to_owned())
}
