//! What clients notice while a member of the database's group fails: how long nobody gets a coupon, and how long one takes.

use std::time::Duration;

use anyhow::Context;
use tokio::time::sleep;

use crate::chaos::fault::Fault;
use crate::chaos::group::Group;
use crate::load::Load;
use crate::measure::{Sample, Scenario, Stage, plan};
use crate::verify::verify;

/// How long after its beginning the load is disturbed.
const STRIKES_AFTER: Duration = Duration::from_secs(3);

/// Sends the load, breaks something meanwhile, judges the tables when the group is whole again. The counters of the parts are not read:
/// one of them dies.
pub async fn measure(stage: &mut Stage, fault: Fault, scenario: &Scenario) -> anyhow::Result<Sample> {
    stage.prepare(&scenario.stock).await?;
    let load = Load::connect(plan(stage, scenario)?).await?;
    let private = stage.private.as_ref().context("members fail in a cluster of the laboratory's own only")?;
    let strike = async {
        sleep(scenario.warm_up + STRIKES_AFTER).await;
        Group::of(private, &stage.cluster).await?.breaks(fault, Duration::ZERO, 0).await
    };
    let (outcome, ()) = tokio::try_join!(load.run_warmed(scenario.warm_up), strike)?;
    stage.renew().await?;
    let mut sample = Sample::of(scenario.pace, &outcome);
    sample.longest_gap = Some(outcome.longest_gap.as_secs_f64());
    let report = verify(&mut stage.database, Some(&outcome.acks()?)).await?;
    sample.broken = (!report.is_clean()).then(|| report.verdict());
    Ok(sample)
}
