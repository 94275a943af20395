//! `lab chaos`: small stocks are sold to crowds on a cluster of our own, wave after wave, while its parts are killed, frozen
//! and cut off; with `RUNTIME=docker` each part is a host of its own, with
//! `DB_MEMBERS=3` the database is a group. After each wave all is well again, everybody has a final
//! answer, and the history is judged.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use clap::Args;
use time::OffsetDateTime;
use time::macros::format_description;

mod administration;
mod barrier;
mod command;
mod containers;
mod crowd;
pub(crate) mod fault;
pub(crate) mod group;
mod half_alive;
mod hosts;
mod hung;
mod report;
mod run;
mod strike;
pub(crate) mod supervised;
mod tally;
mod tracer;
mod wave;
mod wires;

use crate::cluster::private::{Knobs, Private, has_members, in_containers};
use crate::interrupt::{Interrupt, Interrupted};
use crate::machine::Machine;
use crate::progress::{Progress, minutes};
use crate::say;
use crate::strategy::Strategy;
use crate::verify::Finding;
use fault::{Fault, Ground};
use hung::Hung;
use report::Target;
use run::Run;
use tally::Tally;
use wave::Wave;
use wires::Wires;

const REPLICAS: u32 = 3;
/// With the hung node, an hour.
const WAVES: u32 = 900;
/// Where each part is a host of its own.
const WAVES_HOSTS: u32 = 300;
/// Where the database is a group.
const WAVES_GROUP: u32 = 500;
/// How often a quick run has each fault.
const EACH_QUICK: usize = 2;
const HUNG_MINUTES: u32 = 10;
/// Always the same, so that what breaks in CI can be seen elsewhere.
const SEED_QUICK: u64 = 1;
/// After so many waves that went wrong there is enough to look at.
const BAD_MAX: usize = 10;

/// Break parts of a cluster of the laboratory's own under load, and prove that nothing was lost
#[derive(Args)]
pub struct ChaosArgs {
    /// Every fault twice, always with the same seed, no long run with a hung lock node; only broken promises count
    #[arg(long)]
    quick: bool,
    /// Where all that is drawn comes from [default: any, with --quick 1]
    #[arg(long)]
    seed: Option<u64>,
    /// How many waves [default: 900, with RUNTIME=docker 300, with a group for a database 500, with --quick every fault twice]
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    waves: Option<u32>,
    /// The first wave's number; with a seed it replays a part of an earlier run
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u32).range(..=1_000_000_000))]
    first: u32,
    /// Only these faults, of those that the cluster can have; a replay needs the same ones
    #[arg(long, value_name = "FAULT", value_delimiter = ',')]
    only: Vec<Fault>,
    /// Minutes under a steady load with one hung lock node, after the waves [default: 10, with --quick, RUNTIME=docker or a group 0]
    #[arg(long, value_parser = clap::value_parser!(u32).range(..=600))]
    hung_minutes: Option<u32>,
    /// What the replicas run
    #[arg(long, env = "STRATEGY", value_enum, default_value = "batched")]
    strategy: Strategy,
    /// Keep chaos.txt and the histories of broken waves here [default: a new folder in .cluster/runs]
    #[arg(long, value_name = "FOLDER")]
    into: Option<PathBuf>,
    /// Moves every port of the cluster, so that it fits beside others
    #[arg(long, env = "CHAOS_PORT_OFFSET", default_value_t = 12_000, value_parser = clap::value_parser!(u16).range(..=50_000))]
    port_offset: u16,
}

/// What a run came to.
#[derive(Default)]
struct Results {
    seed: u64,
    ground: Ground,
    /// What could break.
    faults: Vec<Fault>,
    /// Which one the waves ran on, and its version.
    database: String,
    /// Whether a lock node was to hang after the waves.
    hangs: bool,
    hung: Option<Hung>,
    /// Promises that were broken while the node hung.
    hung_findings: Vec<Finding>,
    /// Waves that could not be carried out.
    failed: usize,
    tallies: Vec<Tally>,
}

impl Results {
    fn is_broken(&self) -> bool {
        self.violations() > 0
    }

    /// Nothing to report: no wave came to its end, and the hung node has shown nothing either.
    fn is_empty(&self) -> bool {
        self.tallies.is_empty() && self.hung.is_none() && !self.is_broken()
    }

    fn violations(&self) -> usize {
        let findings = self.tallies.iter().flat_map(|tally| &tally.findings).chain(&self.hung_findings);
        findings.map(|finding| finding.count).sum()
    }
}

impl ChaosArgs {
    /// Runs all waves, prints and keeps what came of them. The exit status: 0 all is well, 1 a promise was broken or,
    /// without `--quick`, a target was missed, 2 a wave could not be carried out.
    pub async fn run(&self, root: &Path, interrupt: Interrupt) -> anyhow::Result<u8> {
        ensure!(self.strategy.keeps_promises(), "{} breaks its promises without any fault", self.strategy);
        let seed = self.seed.unwrap_or_else(|| if self.quick { SEED_QUICK } else { fastrand::u64(..1_000_000) });
        let ground = Ground { hosts: in_containers(), group: has_members() };
        if ground.hosts {
            barrier::can_be_made().await?;
        }
        let faults = self.faults(ground).await?;
        let (started, mut results) = (Instant::now(), Results { seed, ground, faults, ..Results::default() });
        let (folder, machine) = (self.folder(root)?, Machine::describe(root));
        say::aside(format_args!("seed {seed}; what is found goes to {}", folder.display()));
        let mut done = self.disturb(root, &folder, &mut results, interrupt).await;
        if results.is_empty() {
            done = Ok(done.context("no wave came to its end")?);
        }
        let (targets, took, Machine { commit, .. }) = (report::targets(&results), minutes(started.elapsed()), machine);
        let text = report::text(&results, &targets, self.is_whole());
        let text = format!("{text}\nseed {seed}, {} of {commit} on {}, in {took}", self.strategy, results.database);
        // Kept first, for the reader may have gone away; and printed also when the folder cannot be written to.
        let written = keep(&folder, "chaos.txt", &format!("{text}\n"));
        let place = if written.is_ok() { "kept in" } else { "NOT KEPT in" };
        say::result(format_args!("{text}, {place} {}", folder.display()));
        match done.and(written) {
            Err(error) if results.is_broken() && !error.is::<Interrupted>() => {
                say::aside(format_args!("lab: {error:#}"));
                Ok(1)
            }
            done => done.map(|()| self.exit(&results, &targets)),
        }
    }

    async fn disturb(&self, root: &Path, into: &Path, results: &mut Results, stop: Interrupt) -> anyhow::Result<()> {
        let knobs = Knobs { strategy: self.strategy, replicas: REPLICAS, others: [].into() };
        let name = if results.ground.hosts { "chaos-docker" } else { "chaos" };
        let mut private = stop.or(Private::start(root, name, self.port_offset, knobs)).await?;
        let work = async {
            let wires = if results.ground.hosts { None } else { Some(lay_wires(&mut private).await?) };
            self.all(Run::new(self, into, &private, wires.as_ref())?, results).await
        };
        let done = Box::pin(stop.or(work)).await;
        private.stop().await.context("cannot stop the cluster")?;
        done
    }

    /// Times count only in a whole run: a quick one may share its machine.
    fn exit(&self, results: &Results, targets: &[Target]) -> u8 {
        match results.is_broken() {
            false if results.failed > 0 => 2,
            is_broken => u8::from(is_broken || self.is_whole() && !targets.iter().all(|target| target.met)),
        }
    }

    fn is_whole(&self) -> bool {
        !self.quick && self.only.is_empty() && self.waves.is_none() && self.hung_minutes.is_none()
    }

    fn folder(&self, root: &Path) -> anyhow::Result<PathBuf> {
        let name = OffsetDateTime::now_utc()
            .format(format_description!("[year][month][day]T[hour][minute][second]Z-chaos"))?;
        let folder = self.into.clone().unwrap_or_else(|| root.join(".cluster/runs").join(name));
        fs::create_dir_all(&folder).with_context(|| format!("cannot write to {}", folder.display()))?;
        Ok(folder)
    }

    /// What can be brought about on this machine of what is wanted.
    async fn faults(&self, ground: Ground) -> anyhow::Result<Vec<Fault>> {
        let mut faults = if self.only.is_empty() { Fault::of(ground) } else { self.only.clone() };
        if let Some(fault) = faults.iter().find(|fault| !fault.fits(ground)) {
            let names: Vec<_> = Fault::of(ground).into_iter().map(Fault::name).collect();
            bail!("RUNTIME and DB_MEMBERS as they are have no {fault}; they have {}", names.join(", "));
        }
        if faults.iter().any(|fault| fault.needs_tracer()) && !tracer::can_trace().await? {
            let traced: Vec<_> = faults.extract_if(.., |fault| fault.needs_tracer()).map(Fault::name).collect();
            say::aside(format_args!(
                "strace may not take hold of a process here, so these are left out: {}",
                traced.join(", ")
            ));
        }
        ensure!(!faults.is_empty(), "nothing of this can be done on this machine");
        Ok(faults)
    }

    async fn all(&self, mut run: Run<'_>, results: &mut Results) -> anyhow::Result<()> {
        results.database = run.cluster.database();
        let (count, minutes) = match results.ground {
            _ if self.quick => (u32::try_from(EACH_QUICK * results.faults.len())?, 0),
            Ground { group: true, .. } => (WAVES_GROUP, 0),
            Ground { hosts: true, .. } => (WAVES_HOSTS, 0),
            Ground { .. } => (WAVES, HUNG_MINUTES),
        };
        let hung = Duration::from_mins(self.hung_minutes.unwrap_or(minutes).into());
        results.hangs = !hung.is_zero();
        let count = self.waves.unwrap_or(count);
        let waves: Vec<Wave> = wave::waves(results.seed, &results.faults, self.first, count).collect();
        let steps = waves.len() + usize::from(results.hangs);
        let mut progress = Progress::new(steps, waves.iter().map(Wave::estimate).sum::<f64>() + hung.as_secs_f64());
        let mut bad = 0;
        for wave in &waves {
            let name = wave.name();
            progress.begins(&name);
            let done = run.wave(wave).await;
            let said = done.as_ref().map_or_else(|error| format!("NOT CARRIED OUT: {error:#}"), Tally::said);
            progress.ended(wave.estimate(), &format!("{name}: {said}"));
            if done.as_ref().map_or(true, |tally| !tally.findings.is_empty()) {
                bad += 1;
                say::aside(self.replay(results, wave));
            }
            if done.is_err() {
                run.keep_logs(wave).await;
            }
            results.failed += usize::from(done.is_err());
            results.tallies.extend(done.ok());
            if bad >= BAD_MAX {
                return Ok(());
            }
        }
        if results.hangs {
            progress.begins("one lock node hangs");
            let measured = run.hung(hung, &mut results.hung_findings).await?;
            progress.ended(hung.as_secs_f64(), &measured.said);
            results.hung = Some(measured);
        }
        Ok(())
    }

    /// How to see the same wave again, also on a machine that can bring about more faults than this one.
    fn replay(&self, Results { seed, ground, faults, .. }: &Results, wave: &Wave) -> String {
        let names: Vec<_> = faults.iter().map(|fault| fault.name()).collect();
        let only = if *faults == Fault::of(*ground) { String::new() } else { format!(" ONLY={}", names.join(",")) };
        let (runtime, members) =
            (if ground.hosts { " RUNTIME=docker" } else { "" }, if ground.group { " DB_MEMBERS=3" } else { "" });
        let (number, strategy) = (wave.number, self.strategy);
        format!(
            "wave {number} again: make chaos{runtime}{members} SEED={seed} FIRST={number} WAVES=1 HUNG=0 STRATEGY={strategy}{only}"
        )
    }
}

/// The folder may be gone by now: `make clean ALL=1` deletes all of `.cluster`.
fn keep(folder: &Path, name: &str, text: &str) -> anyhow::Result<()> {
    let written = fs::create_dir_all(folder).and_then(|()| fs::write(folder.join(name), text));
    written.with_context(|| format!("cannot write to {}", folder.display()))
}

/// From here on the first replica reaches the lock nodes through wires of its own.
async fn lay_wires(private: &mut Private) -> anyhow::Result<Wires> {
    let wires = Wires::lay(&private.cluster()?.redis).await?;
    let mut knobs = private.knobs().clone();
    knobs.others.insert("REDIS_URLS_1".to_owned(), wires.urls());
    private.change(knobs).await?;
    Ok(wires)
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::verify::Kind;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        arguments: ChaosArgs,
    }

    #[test]
    fn a_promise_broken_while_a_node_hangs_is_a_broken_promise_of_the_run() {
        let finding = Finding::new(Kind::Oversold, None, 2, "12 rows of 10 pieces".to_owned());
        let results = Results { hung_findings: vec![finding], failed: 1, ..Results::default() };
        let targets = report::targets(&results);

        assert!(results.is_broken() && !results.is_empty());
        assert_eq!((targets[0].figure, targets[0].met), (Some(2.0), false));
        assert_eq!(Line::parse_from(["chaos", "--quick"]).arguments.exit(&results, &targets), 1);
    }
}
