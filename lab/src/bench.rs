//! `lab bench`: every budget of the service, measured in interleaved repeats on a cluster of our own, judged, printed and kept.
//! Nothing is tuned here; what is measured is in `list`, how in `crate::measure`.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::Args;
use serde::Serialize;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use time::macros::format_description;

mod budgets;
mod by_k6;
mod failover;
mod list;
mod report;

use crate::cluster::private::{Knobs, Private, inherited, users_own};
use crate::interrupt::Interrupt;
use crate::load::Pace;
use crate::machine::Machine;
use crate::measure::{Sample, Scenario, Stage, measure, quiet};
use crate::progress::Progress;
use crate::say;
use budgets::Budget;
use list::{Item, POOL, What};

/// Measure every budget on a cluster of the laboratory's own; prints one table and keeps it in bench.json
///
/// Exit status: 0 all budgets are met, 1 one is missed or a measurement for it failed or broke a promise, 2 the run could not go on
/// or a figure is missing, 130 interrupted.
#[derive(Args)]
pub struct Command {
    /// The yardsticks and batched issues alone, in under two minutes
    #[arg(long)]
    quick: bool,
    /// How often everything is measured; the median counts; with --quick 3
    #[arg(long, value_name = "N", default_value_t = 5, default_value_if("quick", "true", "3"), value_parser = clap::value_parser!(u32).range(1..=50))]
    repeats: u32,
    /// Only the measurements whose names begin with one of these, and what they are compared with
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    only: Vec<String>,
    /// Keep bench.json and bench.txt here [default: a new folder in .cluster/runs]
    #[arg(long, value_name = "FOLDER")]
    into: Option<PathBuf>,
    /// Moves every port of the cluster, so that it fits beside others
    #[arg(long, env = "BENCH_PORT_OFFSET", default_value_t = 10_000, value_parser = clap::value_parser!(u16).range(..=50_000))]
    port_offset: u16,
}

/// What `bench.json` holds.
#[derive(Default, Serialize)]
#[serde(rename_all = "camelCase")]
struct Kept {
    started: String,
    seconds: f64,
    machine: Machine,
    database: String,
    repeats: u32,
    quick: bool,
    /// Knobs of the cluster that a person has set.
    knobs: BTreeMap<String, String>,
    noise: Vec<String>,
    budgets: Vec<Budget>,
    samples: Vec<Sample>,
}

impl Command {
    /// Measures, prints and keeps everything. The exit status is that of `budgets::exit`. What was measured until then is printed
    /// and kept, also when the run could not go on, which is an error.
    pub async fn run(&self, root: &Path, interrupt: Interrupt) -> anyhow::Result<u8> {
        let started = OffsetDateTime::now_utc();
        let Self { repeats, quick, .. } = *self;
        let items = list::items(repeats, quick, &self.only)?;
        let (folder, machine) = (self.folder(root, started)?, Machine::describe(root));
        let mut kept = Kept { started: started.format(&Rfc3339)?, machine, repeats, quick, ..Kept::default() };
        let measured = self.measure(root, interrupt, &items, &mut kept).await;
        if kept.samples.is_empty() {
            return measured.context("nothing was measured").map(|()| 0);
        }
        kept.seconds = (OffsetDateTime::now_utc() - started).as_seconds_f64();
        kept.budgets = budgets::judge(&kept.samples, |name| items.iter().any(|item| item.name == name));
        conclude(root, &folder, &mut kept)?;
        measured.map(|()| budgets::exit(&kept.budgets))
    }

    async fn measure(&self, root: &Path, interrupt: Interrupt, items: &[Item], kept: &mut Kept) -> anyhow::Result<()> {
        let Some(first) = items.first() else { return Ok(()) };
        let private = interrupt.or(Private::start(root, "bench", self.port_offset, first.knobs.clone())).await?;
        let mut stage = Stage::of(private).await?;
        kept.database = stage.cluster.database();
        let measured = interrupt.or(all(&mut stage, items, kept)).await;
        stage.stop(measured).await
    }

    /// Made before anything is measured, so that half an hour is not spent in vain.
    fn folder(&self, root: &Path, started: OffsetDateTime) -> anyhow::Result<PathBuf> {
        let name = started.format(format_description!("[year][month][day]T[hour][minute][second]Z-bench"))?;
        let folder = self.into.clone().unwrap_or_else(|| root.join(".cluster/runs").join(name));
        fs::create_dir_all(&folder).with_context(|| format!("cannot write to {}", folder.display()))?;
        Ok(folder)
    }
}

/// Prints and keeps what there is.
fn conclude(root: &Path, folder: &Path, kept: &mut Kept) -> anyhow::Result<()> {
    kept.knobs = inherited();
    kept.knobs.remove(POOL);
    kept.noise = quiet::noise(&kept.machine, &kept.samples);
    kept.noise.extend(users_own(root).map(|folder| format!("another cluster runs in {}", folder.display())));
    kept.noise.extend(quiet::remark(&kept.knobs));
    let text = report::text(&kept.budgets, &kept.samples, &kept.noise);
    // `make clean ALL=1` may have deleted it meanwhile.
    fs::create_dir_all(folder)?;
    fs::write(folder.join("bench.json"), serde_json::to_string_pretty(kept)? + "\n")?;
    fs::write(folder.join("bench.txt"), &text)?;
    // Kept first: a reader that went away must not cost the figures.
    say::result(format_args!("{text}\nkept in {}", folder.display()));
    Ok(())
}

/// Measures all items. One that fails is a measurement without a figure; only a cluster that cannot be changed ends the run.
async fn all(stage: &mut Stage, items: &[Item], kept: &mut Kept) -> anyhow::Result<()> {
    let coupons = items.iter().filter_map(|item| Some(item.scenario()?.stock.coupons())).flatten();
    let coupons: BTreeMap<String, u32> = coupons.collect();
    let mut progress = Progress::new(items.len(), items.iter().map(Item::estimate).sum());
    for item in items {
        progress.begins(&format!("repeat {}: {}", item.repeat, item.name));
        let knobs = knobs(item, &kept.samples);
        stage.set(&knobs).await?;
        if item.scenario().is_some() {
            // All of them at once, so that the last repeat finds what the first one found. k6 brings its own.
            stage.offer(coupons.clone().into_iter().collect()).await?;
        }
        let failed = |error| Sample { broken: Some(format!("{error:#}")), ..Sample::default() };
        let mut sample = one(stage, item, &kept.samples).await.unwrap_or_else(failed);
        (sample.scenario, sample.repeat) = (item.name.clone(), item.repeat);
        sample.knobs = knobs.others;
        progress.ended(item.estimate(), &format!("repeat {}: {}", item.repeat, report::line(&sample)));
        kept.samples.push(sample);
    }
    Ok(())
}

async fn one(stage: &mut Stage, item: &Item, before: &[Sample]) -> anyhow::Result<Sample> {
    match &item.what {
        What::Load(scenario) | What::Best(scenario) => measure(stage, scenario, None).await,
        What::OfPeak(share, scenario) => {
            let peak =
                peak(before, item.repeat).context("the peak is not known: it was not measured in this repeat")?;
            measure(stage, &Scenario { pace: Pace::Open(peak / share), ..scenario.clone() }, None).await
        }
        What::Struck(fault, scenario) => Box::pin(failover::measure(stage, *fault, scenario)).await,
        What::Rush => by_k6::rush(stage).await,
        What::Arrival => by_k6::arrival(stage).await,
    }
}

/// The cluster that an item needs: for a strategy at its best, that of the probe that issued most. Promises that `unlocked` breaks do not
/// make it slower.
fn knobs(item: &Item, before: &[Sample]) -> Knobs {
    let name = list::probe(item.knobs.strategy);
    let probes = before.iter().filter(|it| it.scenario.starts_with(&name));
    match (&item.what, probes.max_by(|one, other| one.rate.total_cmp(&other.rate))) {
        (What::Best(_), Some(best)) => Knobs { others: best.knobs.clone(), ..item.knobs },
        _ => item.knobs.clone(),
    }
}

/// The highest rate of issues that a repeat saw so far.
fn peak(samples: &[Sample], repeat: u32) -> Option<f64> {
    let of_repeat = samples.iter().filter(|it| it.repeat == repeat && it.broken.is_none());
    of_repeat.filter(|it| it.scenario.starts_with("issue-")).map(|it| it.rate).reduce(f64::max)
}
