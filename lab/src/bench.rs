//! `lab bench`: every budget of the service, measured in one interleaved run on a cluster of our own, judged, printed and
//! kept. Nothing is tuned here; what a measurement needs of the cluster is in `plan`, what is asked of it in `measure`.

use std::collections::BTreeMap;
use std::fs;
use std::io::{Write, stdout};
use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::Args;
use serde::Serialize;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use time::macros::format_description;

mod budgets;
mod crowd;
mod measure;
mod noise;
mod plan;
mod report;
mod sample;
mod tries;

use crate::cluster::inherited::inherited;
use crate::cluster::private::users_own;
use crate::interrupt::Interrupt;
use crate::machine::Machine;
use crate::progress::Progress;
use crate::stage::Stage;
use crate::strategy::Strategy;
use budgets::Line;
use plan::{POOL_SIZE, POOL_SIZES, Scenario, Step};
use sample::Sample;
use tries::Tries;

/// Measure every budget on a cluster of the laboratory's own
#[derive(Args)]
pub struct Command {
    /// The yardsticks and batched issues alone, in under two minutes
    #[arg(long)]
    quick: bool,
    /// How often everything is measured; the median counts [default: 5, with --quick 3]
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=50))]
    rounds: Option<u32>,
    /// Only the measurements whose names begin with one of these, and what they are compared with
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    only: Vec<String>,
    /// How often a measurement is made at most while the host slows the processors down; the fastest processors count
    /// [default: 3, with --quick 1]
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=50))]
    tries: Option<u32>,
    /// Keep bench.json and bench.txt here [default: a new folder in .cluster/runs]
    #[arg(long, value_name = "FOLDER")]
    into: Option<PathBuf>,
    /// Moves every port of the cluster, so that it fits beside others
    #[arg(long, env = "BENCH_PORT_OFFSET", default_value_t = 10_000, value_parser = clap::value_parser!(u16).range(..=50_000))]
    port_offset: u16,
}

/// What `bench.json` holds.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Kept<'a> {
    started: String,
    seconds: f64,
    machine: &'a Machine,
    database: String,
    rounds: u32,
    quick: bool,
    tries: u32,
    settings: Settings,
    best_pool_size: &'a BTreeMap<Strategy, u32>,
    noise: &'a [String],
    budgets: &'a [Line],
    samples: &'a [Sample],
    /// Measured on slowed processors, and then again.
    superseded: &'a [Sample],
}

/// What all rounds have in common.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Settings {
    replicas: u32,
    rate_of_replicas: f64,
    cross_check_rate: u32,
    pool_size: u32,
    pool_sizes_tried: [u32; POOL_SIZES.len()],
    seconds: BTreeMap<&'static str, f64>,
    /// Knobs of the cluster that a person has set.
    knobs: BTreeMap<String, String>,
}

impl Settings {
    fn with(knobs: BTreeMap<String, String>) -> Self {
        Self {
            replicas: plan::REPLICAS,
            rate_of_replicas: plan::RATE,
            cross_check_rate: plan::CROSS_CHECK_RATE,
            pool_size: POOL_SIZE,
            pool_sizes_tried: POOL_SIZES,
            seconds: measure::TIMES.map(|(name, time)| (name, time.as_secs_f64())).into(),
            knobs,
        }
    }
}

/// What a run found.
#[derive(Default)]
struct Found {
    samples: Vec<Sample>,
    superseded: Vec<Sample>,
    best_pool_size: BTreeMap<Strategy, u32>,
    database: String,
}

impl Command {
    /// Measures, prints and keeps everything. The exit status is that of `budgets::exit`. A run that could not go on is an error, but
    /// what it measured until then is printed and kept.
    pub async fn run(&self, root: &Path, interrupt: Interrupt) -> anyhow::Result<u8> {
        let started = OffsetDateTime::now_utc();
        let rounds = self.rounds.unwrap_or(if self.quick { 3 } else { 5 });
        if let Some((word, names)) = plan::unknown(self.quick, &self.only) {
            anyhow::bail!("--only {word}: no measurement's name begins with that; there are {}", names.join(", "));
        }
        let steps = plan::steps(rounds, self.quick, &self.only);
        let machine = Machine::describe(root);
        let tries = Tries(self.tries.unwrap_or(if self.quick { 1 } else { 3 }));
        let mut stage = Stage::start(root, "bench", self.port_offset, plan::start(), interrupt.clone()).await?;
        let mut found = Found::default();
        let measured = interrupt.or(all(&mut stage, tries, &steps, &mut found)).await;
        // Said later: what was measured is worth more than how the cluster ended.
        let stopped = stage.stop().await.context("cannot stop the cluster");
        if let (Err(_), Err(error)) = (&measured, &stopped) {
            eprintln!("lab: {error:#}");
        }
        if let (true, Err(error)) = (found.samples.is_empty(), &measured) {
            anyhow::bail!("nothing was measured: {error:#}");
        }
        let mut noise = noise::noise(&machine, &found.samples);
        noise.extend(users_own(root).map(|folder| format!("another cluster runs in {}", folder.display())));
        let knobs = plan::knobs_of_others(inherited());
        noise.extend(noise::remark(&knobs));
        let planned = |name: &str| steps.iter().any(|step| step.scenario.to_string() == name);
        let lines = budgets::judge(&found.samples, planned);
        let text = report::text(&lines, &found.samples, found.superseded.len(), &noise);
        let kept = Kept {
            started: started.format(&Rfc3339)?,
            seconds: (OffsetDateTime::now_utc() - started).as_seconds_f64(),
            machine: &machine,
            database: found.database.clone(),
            rounds,
            quick: self.quick,
            tries: tries.0,
            settings: Settings::with(knobs),
            best_pool_size: &found.best_pool_size,
            noise: &noise,
            budgets: &lines,
            samples: &found.samples,
            superseded: &found.superseded,
        };
        let folder = keep(&self.folder(root, started)?, &kept, &text)?;
        // Kept first: a reader that went away must not cost the figures.
        let _ = writeln!(stdout(), "{text}\nkept in {}", folder.display());
        measured.and(stopped).map(|()| budgets::exit(&lines))
    }

    fn folder(&self, root: &Path, started: OffsetDateTime) -> anyhow::Result<PathBuf> {
        let name = started.format(format_description!("[year][month][day]T[hour][minute][second]Z-bench"))?;
        Ok(self.into.clone().unwrap_or_else(|| root.join(".cluster/runs").join(name)))
    }
}

fn keep(folder: &Path, kept: &Kept, text: &str) -> anyhow::Result<PathBuf> {
    fs::create_dir_all(folder).with_context(|| format!("cannot write to {}", folder.display()))?;
    fs::write(folder.join("bench.json"), serde_json::to_string_pretty(kept)? + "\n")?;
    fs::write(folder.join("bench.txt"), text)?;
    Ok(folder.to_owned())
}

/// Measures all steps. A step that fails is a measurement without a figure; only an interrupt, or a cluster that cannot be
/// changed, ends the run.
async fn all(stage: &mut Stage, tries: Tries, steps: &[Step], found: &mut Found) -> anyhow::Result<()> {
    if let Some(mysql) = &stage.cluster().mysql {
        found.database = format!("{} {}", mysql.engine, mysql.version.as_deref().unwrap_or("?"));
    }
    let mut progress = Progress::new(steps.len(), steps.iter().map(|step| step.scenario.estimate()).sum());
    for step in steps {
        progress.begins(&format!("round {}: {}", step.round, step.scenario));
        let pool_size = pool_size(found, step.scenario);
        let (strategy, replicas) = step.scenario.cluster();
        stage.set(plan::knobs(strategy, replicas, pool_size)).await?;
        if !matches!(step.scenario, Scenario::Rush | Scenario::Arrival) {
            // All of them at once, so that the last round finds what the first one found. k6 brings its own.
            stage.offer(steps.iter().flat_map(|step| measure::coupons(step.scenario)).collect()).await?;
        }
        let peak = peak(found, step.round);
        let (mut sample, others) = tries.measure(stage, *step, peak, &progress).await;
        found.superseded.extend(others);
        if step.scenario.is_strategy() {
            sample.pool_size = Some(pool_size);
        }
        let line = report::line(step.scenario, &sample);
        progress.ended(step.scenario.estimate(), &format!("round {}: {line}", step.round));
        found.samples.push(sample);
        found.best_pool_size = best_pool_sizes(&found.samples);
    }
    Ok(())
}

/// The highest rate of issues that a round saw so far.
fn peak(found: &Found, round: u32) -> Option<f64> {
    let of_round = found.samples.iter().filter(|it| it.round == round && it.broken.is_none());
    of_round.filter(|it| it.scenario.starts_with("issue-")).map(|it| it.rate).reduce(f64::max)
}

/// For each strategy the size at which its probe issued most. Promises that `unlocked` breaks do not make it slower.
fn best_pool_sizes(samples: &[Sample]) -> BTreeMap<Strategy, u32> {
    let rate = |strategy: Strategy, size: u32| {
        let name = Scenario::Probe(strategy, size).to_string();
        samples.iter().filter(|it| it.scenario == name).map(|it| it.rate).reduce(f64::max)
    };
    let best = |strategy: Strategy| {
        let tried = POOL_SIZES.iter().filter_map(|size| Some((*size, rate(strategy, *size)?)));
        Some((strategy, tried.max_by(|one, other| one.1.total_cmp(&other.1))?.0))
    };
    Strategy::ALL.into_iter().filter_map(best).collect()
}

/// What a step's replicas run with: a probe's own, the best that the probes found, or the default.
fn pool_size(found: &Found, scenario: Scenario) -> u32 {
    match scenario {
        Scenario::Probe(_, size) => size,
        Scenario::Best(strategy) => found.best_pool_size.get(&strategy).copied().unwrap_or(POOL_SIZE),
        _ => POOL_SIZE,
    }
}
