//! `lab fairness`: tiny coupons on a running cluster, sold out one after the other, and who overtook whom.

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;

use crate::cluster::Cluster;
use crate::cluster::private::Knobs;
use crate::interrupt::{Interrupt, Interrupted};
use crate::measure::fairness::Fairness;
use crate::measure::measure;
use crate::measure::numbers::percent;
use crate::measure::sample::Sample;
use crate::measure::scenario::Contests;
use crate::measure::stage::Stage;
use crate::strategy::Strategy;

const WARM_UP: Duration = Duration::from_secs(2);
const CONNECTIONS: usize = 1_000;

/// Sell out tiny coupons one after the other, and say who overtook whom
#[derive(Args)]
pub struct Command {
    /// The description of the cluster that `make up` writes
    #[arg(long, value_name = "FILE", default_value = ".cluster/cluster.json")]
    cluster: PathBuf,
    /// How many coupons
    #[arg(long, value_name = "N", default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..=999))]
    contests: u32,
    /// Pieces of each
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    pieces: u32,
    /// Times as many users ask for each
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(2..=100))]
    over: u32,
    /// Requests a second
    #[arg(long, value_name = "N", default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(10..=20_000))]
    rate: u32,
}

impl Command {
    /// Plays the contests in a round of their own and prints what came of them. The exit status: 0 all went well, 1 a promise was
    /// broken, 130 interrupted.
    pub async fn run(&self, root: &Path, interrupt: Interrupt) -> anyhow::Result<u8> {
        let cluster = Cluster::read(&self.cluster)?;
        // The cluster stays as it is, so nobody looks at these.
        let knobs = Knobs { strategy: Strategy::Batched, replicas: 1, others: [].into() };
        let Self { contests: coupons, pieces, over, rate, .. } = *self;
        let scenario = Contests { coupons, pieces, over, rate }.scenario(knobs, CONNECTIONS, WARM_UP);
        let mut stage = Stage::visit(root, cluster, interrupt.clone()).await?;
        let measured = interrupt.or(measure(&mut stage, &scenario, None)).await;
        let withdrawn = stage.withdraw().await;
        let sample = match measured {
            Err(error) if error.is::<Interrupted>() => return withdrawn.map(|()| Interrupted::STATUS),
            measured => measured?,
        };
        print!("{}", self.text(&sample));
        withdrawn.map(|()| u8::from(sample.broken.is_some()))
    }

    fn text(&self, sample: &Sample) -> String {
        let Self { contests, pieces, over, rate, .. } = self;
        let fairness = sample.fairness.as_ref().map(Fairness::text).unwrap_or_default();
        let shares: Vec<String> =
            sample.replicas.shares.iter().map(|(name, share)| format!("{name} {}", percent(*share))).collect();
        let verdict =
            sample.broken.as_deref().or(sample.verdict.as_ref().map(|it| it.text.as_str())).unwrap_or_default();
        let short = sample.short().map(|short| format!("{short}\n")).unwrap_or_default();
        format!(
            "{contests} coupons of {pieces} pieces, each asked for by {} users, {rate} a second\n{fairness}\
             issued by             {}\n{short}{verdict}\n",
            pieces * over,
            shares.join(", ")
        )
    }
}
