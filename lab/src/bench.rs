//! `lab bench`: every budget of the service, measured in interleaved repeats on a cluster of our own, judged, printed and kept.
//! Nothing is tuned here; what is measured is in `list`, how in `crate::measure`.

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
mod by_k6;
mod list;
mod report;

use crate::cluster::inherited::inherited;
use crate::cluster::private::{Knobs, users_own};
use crate::interrupt::{Interrupt, Interrupted};
use crate::load::Pace;
use crate::machine::Machine;
use crate::measure::measure;
use crate::measure::quiet;
use crate::measure::sample::Sample;
use crate::measure::scenario::Scenario;
use crate::measure::stage::Stage;
use crate::progress::Progress;
use crate::strategy::Strategy;
use budgets::Line;
use list::{Item, POOL_SIZES, Step, What};

/// Measure every budget on a cluster of the laboratory's own
#[derive(Args)]
pub struct Command {
    /// The yardsticks and batched issues alone, in under two minutes
    #[arg(long)]
    quick: bool,
    /// How often everything is measured; the median counts [default: 5, with --quick 3]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=50))]
    repeats: Option<u32>,
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
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Kept<'a> {
    started: String,
    seconds: f64,
    machine: &'a Machine,
    database: &'a str,
    repeats: u32,
    quick: bool,
    /// Knobs of the cluster that a person has set.
    knobs: &'a BTreeMap<String, String>,
    best_pool_size: &'a BTreeMap<Strategy, u32>,
    noise: &'a [String],
    budgets: &'a [Line],
    samples: &'a [Sample],
}

/// What was found so far.
#[derive(Default)]
struct Found {
    samples: Vec<Sample>,
    best_pool_size: BTreeMap<Strategy, u32>,
    database: String,
}

impl Command {
    /// Measures, prints and keeps everything. The exit status is that of `budgets::exit`, or 130 after an interrupt. What was
    /// measured until then is printed and kept, also when the run could not go on, which is an error.
    pub async fn run(&self, root: &Path, interrupt: Interrupt) -> anyhow::Result<u8> {
        let started = OffsetDateTime::now_utc();
        if let Some((word, names)) = list::unknown(self.quick, &self.only) {
            anyhow::bail!("--only {word}: no measurement's name begins with that; there are {}", names.join(", "));
        }
        let steps = list::steps(self.repeats(), self.quick, &self.only);
        let machine = Machine::describe(root);
        let mut found = Found::default();
        let measured = self.measure(root, interrupt, &steps, &mut found).await;
        let is_interrupted = measured.as_ref().is_err_and(anyhow::Error::is::<Interrupted>);
        if found.samples.is_empty() {
            return if is_interrupted {
                Ok(Interrupted::STATUS)
            } else {
                measured.context("nothing was measured").map(|()| 0)
            };
        }
        let lines = budgets::judge(&found.samples, |name| steps.iter().any(|step| step.item.name == name));
        self.conclude(root, started, &machine, &found, &lines)?;
        if is_interrupted {
            return Ok(Interrupted::STATUS);
        }
        measured.map(|()| budgets::exit(&lines))
    }

    fn repeats(&self) -> u32 {
        self.repeats.unwrap_or(if self.quick { 3 } else { 5 })
    }

    async fn measure(
        &self,
        root: &Path,
        interrupt: Interrupt,
        steps: &[Step],
        found: &mut Found,
    ) -> anyhow::Result<()> {
        let mut stage = Stage::start(root, "bench", self.port_offset, list::usual(), interrupt.clone()).await?;
        let measured = interrupt.or(all(&mut stage, steps, found)).await;
        let stopped = stage.stop().await.context("cannot stop the cluster");
        if let (Err(_), Err(error)) = (&measured, &stopped) {
            eprintln!("lab: {error:#}");
        }
        measured.and(stopped)
    }

    /// Prints and keeps what there is.
    fn conclude(
        &self,
        root: &Path,
        started: OffsetDateTime,
        machine: &Machine,
        found: &Found,
        lines: &[Line],
    ) -> anyhow::Result<()> {
        let knobs = list::knobs_of_others(inherited());
        let mut noise = quiet::noise(machine, &found.samples);
        noise.extend(users_own(root).map(|folder| format!("another cluster runs in {}", folder.display())));
        noise.extend(quiet::remark(&knobs));
        let text = report::text(lines, &found.samples, &noise);
        let kept = Kept {
            started: started.format(&Rfc3339)?,
            seconds: (OffsetDateTime::now_utc() - started).as_seconds_f64(),
            machine,
            database: &found.database,
            repeats: self.repeats(),
            quick: self.quick,
            knobs: &knobs,
            best_pool_size: &found.best_pool_size,
            noise: &noise,
            budgets: lines,
            samples: &found.samples,
        };
        let name = started.format(format_description!("[year][month][day]T[hour][minute][second]Z-bench"))?;
        let folder = self.into.clone().unwrap_or_else(|| root.join(".cluster/runs").join(name));
        keep(&folder, &kept, &text)?;
        // Kept first: a reader that went away must not cost the figures.
        let _ = writeln!(stdout(), "{text}\nkept in {}", folder.display());
        Ok(())
    }
}

fn keep(folder: &Path, kept: &Kept, text: &str) -> anyhow::Result<()> {
    fs::create_dir_all(folder).with_context(|| format!("cannot write to {}", folder.display()))?;
    fs::write(folder.join("bench.json"), serde_json::to_string_pretty(kept)? + "\n")?;
    fs::write(folder.join("bench.txt"), text)?;
    Ok(())
}

/// Measures all steps. A step that fails is a measurement without a figure; only an interrupt, or a cluster that cannot be
/// changed, ends the run.
async fn all(stage: &mut Stage, steps: &[Step], found: &mut Found) -> anyhow::Result<()> {
    if let Some(mysql) = &stage.cluster().mysql {
        found.database = format!("{} {}", mysql.engine, mysql.version.as_deref().unwrap_or("?"));
    }
    let coupons = steps.iter().filter_map(|step| Some(step.item.scenario()?.stock.coupons())).flatten();
    let coupons: BTreeMap<String, u32> = coupons.collect();
    let mut progress = Progress::new(steps.len(), steps.iter().map(|step| step.item.estimate()).sum());
    for Step { item, repeat } in steps {
        progress.begins(&format!("repeat {repeat}: {}", item.name));
        let knobs = knobs(item, found);
        stage.set(knobs.clone()).await?;
        if item.scenario().is_some() {
            // All of them at once, so that the last repeat finds what the first one found. k6 brings its own.
            stage.offer(coupons.clone().into_iter().collect()).await?;
        }
        let mut sample = match one(stage, item, peak(found, *repeat)).await {
            Ok(sample) => sample,
            Err(error) if error.is::<Interrupted>() => return Err(error),
            Err(error) => Sample { broken: Some(format!("{error:#}")), ..Sample::default() },
        };
        (sample.scenario, sample.repeat) = (item.name.clone(), *repeat);
        if knobs.strategy != Strategy::Batched {
            sample.pool_size = knobs.others["POOL_SIZE"].parse().ok();
        }
        progress.ended(item.estimate(), &format!("repeat {repeat}: {}", report::line(&sample)));
        found.samples.push(sample);
        found.best_pool_size = best_pool_sizes(&found.samples);
    }
    Ok(())
}

/// Measures one item. `peak` is the highest rate of issues in this repeat so far.
async fn one(stage: &mut Stage, item: &Item, peak: Option<f64>) -> anyhow::Result<Sample> {
    match &item.what {
        What::Load(scenario) | What::Best(_, scenario) => measure(stage, scenario, None).await,
        What::OfPeak(share, scenario) => {
            let peak = peak.context("the peak is not known: it was not measured in this repeat")?;
            let pace = Pace::Open(peak / f64::from(*share));
            measure(stage, &Scenario { pace, ..scenario.clone() }, None).await
        }
        What::Rush => by_k6::rush(stage).await,
        What::Arrival => by_k6::arrival(stage).await,
    }
}

/// The cluster that an item needs, with the pool that the probes found best.
fn knobs(item: &Item, found: &Found) -> Knobs {
    let usual = || item.scenario().map_or_else(list::usual, |scenario| scenario.knobs.clone());
    match item.what {
        What::Best(strategy, _) => match found.best_pool_size.get(&strategy) {
            Some(size) => list::knobs(strategy, usual().replicas, *size),
            None => usual(),
        },
        _ => usual(),
    }
}

/// The highest rate of issues that a repeat saw so far.
fn peak(found: &Found, repeat: u32) -> Option<f64> {
    let of_repeat = found.samples.iter().filter(|it| it.repeat == repeat && it.broken.is_none());
    of_repeat.filter(|it| it.scenario.starts_with("issue-")).map(|it| it.rate).reduce(f64::max)
}

/// For each strategy the size at which its probe issued most. Promises that `unlocked` breaks do not make it slower.
fn best_pool_sizes(samples: &[Sample]) -> BTreeMap<Strategy, u32> {
    let rate = |strategy: Strategy, size: u32| {
        let name = list::probe(strategy, size);
        samples.iter().filter(|it| it.scenario == name).map(|it| it.rate).reduce(f64::max)
    };
    let best = |strategy: Strategy| {
        let tried = POOL_SIZES.iter().filter_map(|size| Some((*size, rate(strategy, *size)?)));
        Some((strategy, tried.max_by(|one, other| one.1.total_cmp(&other.1))?.0))
    };
    Strategy::ALL.into_iter().filter_map(best).collect()
}
