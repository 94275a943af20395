//! `lab fairness`: tiny coupons on a running cluster, sold out one after the other, and who overtook whom.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use crate::cluster::Cluster;
use crate::interrupt::Interrupt;
use crate::measure::{Contests, Fairness, Sample, Stage, both, measure};
use crate::say;

const WARM_UP: Duration = Duration::from_secs(2);
const CONNECTIONS: usize = 1_000;

/// Sell out tiny coupons one after the other on a running cluster, and say who overtook whom
///
/// Exit status: 0 all went well, 1 a promise was broken, 2 it could not be found out, 130 interrupted.
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
    /// broken, or the lock bypassed.
    pub async fn run(&self, interrupt: Interrupt) -> anyhow::Result<u8> {
        let Self { contests: coupons, pieces, over, rate, .. } = *self;
        let scenario = Contests { coupons, pieces, over, rate }.scenario(CONNECTIONS, WARM_UP);
        let mut stage = Stage::visit(Cluster::read(&self.cluster)?).await?;
        let measured = interrupt.or(measure(&mut stage, &scenario, None)).await;
        let sample = both(measured, stage.withdraw().await)?;
        say::result(self.text(&sample).trim_end());
        Ok(u8::from(sample.broken.is_some()))
    }

    fn text(&self, sample: &Sample) -> String {
        let Self { contests, pieces, over, rate, .. } = self;
        let Some(fairness) = &sample.fairness else { return sample.broken.clone().unwrap_or_default() + "\n" };
        let Fairness { played, decided, queue_jump, inversions } = fairness;
        let percent = |share: f64| format!("{:.1} %", share * 100.0);
        let jump = queue_jump.map_or("not known".to_owned(), |it| {
            format!("p50 {:.0} ms, p95 {:.0} ms, most {:.0} ms", it.p50, it.p95, it.max)
        });
        let pairs = inversions.map_or("not known, for there are no serials".to_owned(), |it| {
            format!("{}, {} of {}", percent(it.share()), it.inverted, it.pairs)
        });
        let shares = sample.replicas.shares.iter().map(|(name, share)| format!("{name} {}", percent(*share)));
        let verdict = sample.broken.as_deref().or(sample.verdict.as_ref().map(|it| it.text.as_str()));
        format!(
            "{contests} coupons of {pieces} pieces, each asked for by {} users, {rate} a second\n\
             queue-jump            {jump}; {decided} of {played} coupons sold out and refused somebody\n\
             pairs out of order    {pairs}\n\
             issued by             {}\n{}{}\n",
            pieces * over,
            shares.collect::<Vec<_>>().join(", "),
            sample.short().map(|short| short + "\n").unwrap_or_default(),
            verdict.unwrap_or_default()
        )
    }
}
