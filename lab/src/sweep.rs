//! `lab sweep`: what lock wait, latency and throughput become as replicas are added, for every strategy, balance, distance and shape
//! of load, measured on a cluster of the laboratory's own and kept in one folder. What is measured is in `grid`, how in `crate::measure`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process;

use anyhow::{Context, ensure};
use clap::Args;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use time::macros::format_description;

mod cell;
mod folder;
mod grid;
mod table;

use crate::cluster::private::{Private, users_own};
use crate::cluster::shares::Shares;
use crate::interrupt::{Interrupt, Interrupted};
use crate::machine::Machine;
use crate::measure::Stage;
use crate::progress::{Progress, minutes};
use crate::say;
use cell::Measured;
use folder::{Folder, Setting, versions};
use grid::{Axes, Cell, Grid, Settings, given};

/// After so many failures in a row the next cell will fail, too.
const FAILURES_MAX: usize = 3;

/// Measure lock wait and latency against replicas, strategies and shapes of load; keeps one folder and draws it
///
/// Exit status: 0 all went well, 1 a promise was broken, 2 something could not be measured, 130 interrupted.
#[derive(Args)]
pub struct Command {
    /// Fifteen cells in two minutes: 64 users, three strategies, 1, 2 and 4 replicas, no distance
    #[arg(long)]
    quick: bool,
    /// Print the plan and how long it takes, and start nothing
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    axes: Axes,
    #[command(flatten)]
    settings: Settings,
    /// Keep everything in this folder [default: results/ and the time]
    #[arg(long, value_name = "FOLDER", conflicts_with = "resume")]
    into: Option<PathBuf>,
    /// Go on with the sweep in this folder, by its own plan
    #[arg(long, value_name = "FOLDER", conflicts_with_all = ["quick", "Axes", "Settings"])]
    resume: Option<PathBuf>,
    /// Moves every port of the cluster, so that it fits beside others
    #[arg(long, env = "SWEEP_PORT_OFFSET", default_value_t = 11_000, value_parser = clap::value_parser!(u16).range(..=50_000))]
    port_offset: u16,
}

impl Command {
    /// Measures what is left of the plan and has it drawn. The exit status: 0 all went well, 1 a promise was broken that
    /// the strategy means to keep, or a strategy went on without its lock, 2 a cell could not be measured; what was measured is kept
    /// in any case.
    pub async fn run(&self, root: &Path, interrupt: Interrupt) -> anyhow::Result<u8> {
        let mut folder = match &self.resume {
            Some(path) => Folder::open(path)?,
            None => Folder { path: self.folder(root)?, grid: self.grid() },
        };
        let (_, left) = folder.done_and_left()?;
        if self.dry_run {
            print_plan(&folder.grid, &left);
            return Ok(0);
        }
        // Cells that were measured with other knobs do not belong into one report.
        let (now, then) = (given(), &folder.grid.settings.knobs);
        ensure!(
            now == *then,
            "the sweep began with {then:?}, now it is {now:?}: set the same variables, or begin a new sweep"
        );
        if let Some(running) = users_own(root) {
            say::aside(format_args!(
                "warning: a cluster runs in {} and takes its share of the processors",
                running.display()
            ));
        }
        if self.resume.is_none() {
            folder.create()?;
        }
        let measured = self.measure(root, &folder, &left, interrupt).await;
        conclude(root, &folder, measured)
    }

    fn grid(&self) -> Grid {
        Grid::new(&self.axes, self.settings.clone())
    }

    fn folder(&self, root: &Path) -> anyhow::Result<PathBuf> {
        let format = format_description!("[year][month][day]T[hour][minute][second]Z");
        let name = OffsetDateTime::now_utc().format(format)?;
        Ok(self.into.clone().unwrap_or_else(|| root.join("results").join(name)))
    }

    /// Returns how many cells failed.
    async fn measure(&self, root: &Path, to: &Folder, left: &[Cell], interrupt: Interrupt) -> anyhow::Result<usize> {
        let Some(first) = left.first() else { return Ok(0) };
        let time = minutes(to.grid.estimate(left));
        say::aside(format_args!("cells to measure: {}, about {time}; kept in {}", left.len(), shown(&to.path, root)));
        let (started, machine) = (OffsetDateTime::now_utc().format(&Rfc3339)?, Machine::describe(root));
        let commit = machine.commit.clone();
        let shares = to.grid.settings.shares.map(|share| Shares::new(share, self.port_offset)).transpose()?;
        let mut private = interrupt.or(Private::start(root, "sweep", self.port_offset, first.knobs())).await?;
        if let Some(shares) = shares {
            private.share(shares)?;
        }
        let mut stage = Stage::of(private).await?;
        if !to.path.join("setting.json").exists() {
            let versions = versions(root, &stage.cluster);
            to.write("setting.json", &Setting { started, machine, versions })?;
        }
        let measured = interrupt.or(Box::pin(all(&mut stage, to, left, &commit))).await;
        stage.stop(measured).await
    }
}

/// Writes the tables of what there is, whatever the sweep came to, and has them drawn.
fn conclude(root: &Path, folder: &Folder, measured: anyhow::Result<usize>) -> anyhow::Result<u8> {
    let (done, _) = folder.done_and_left()?;
    folder.write("cells.json", &done)?;
    fs::write(folder.path.join("cells.csv"), table::csv(&done, folder.grid.settings.shares))
        .context("cannot write cells.csv")?;
    let place = shown(&folder.path, root);
    let count = |is_one: fn(&Measured) -> bool| done.iter().filter(|it| is_one(it)).count();
    let (broken, short) = (count(Measured::is_broken), count(|it| it.sample.short().is_some()));
    // Then it is no measurement of a strategy that has a lock.
    let bypassed = count(|it| it.sample.bypass().is_some());
    say::result(format_args!(
        "{} of {} cells measured, {broken} with a broken promise, {bypassed} without their lock at times, {short} short of what was \
         offered: {place}",
        done.len(),
        folder.grid.cells.len()
    ));
    draw(root, &folder.path);
    match measured {
        Ok(0) => Ok(u8::from(broken + bypassed > 0)),
        Ok(failed) => {
            say::aside(format_args!(
                "{failed} cells could not be measured; try them again by make sweep RESUME={place}"
            ));
            Ok(2)
        }
        Err(error) => {
            let is_interrupted = error.is::<Interrupted>();
            say::aside(format_args!(
                "{}; go on by make sweep RESUME={place}",
                if is_interrupted { "interrupted" } else { "failed" }
            ));
            Err(error)
        }
    }
}

/// Pictures are worth a try and no more: the figures are kept, and can be drawn at any time.
fn draw(root: &Path, folder: &Path) {
    let python = root.join(".cluster/report-venv/bin/python");
    let drawn = process::Command::new(python).arg("report/draw.py").arg(folder).current_dir(root).status();
    if !drawn.is_ok_and(|status| status.success()) {
        say::aside(format_args!("not drawn: make report FOLDER={}", shown(folder, root)));
    }
}

/// Measures cell by cell and keeps each when it is complete. Returns how many failed.
async fn all(stage: &mut Stage, folder: &Folder, left: &[Cell], commit: &str) -> anyhow::Result<usize> {
    let (mut failed, mut in_a_row) = (0, 0);
    let mut progress = Progress::new(left.len(), folder.grid.estimate(left).as_secs_f64());
    for &cell in left {
        progress.begins(&cell.to_string());
        folder.clear(cell)?;
        let measured = Measured::now(stage, cell, folder, commit).await;
        let said = match &measured {
            Ok(measured) => measured.line(),
            Err(error) => format!("{cell:<38} FAILED: {error:#}"),
        };
        progress.ended(folder.grid.estimate(&[cell]).as_secs_f64(), &said);
        if let Ok(measured) = measured {
            folder.keep(&measured)?;
            in_a_row = 0;
            continue;
        }
        fs::write(folder.of(cell).join("error.txt"), &said)?;
        (failed, in_a_row) = (failed + 1, in_a_row + 1);
        ensure!(in_a_row < FAILURES_MAX, "{FAILURES_MAX} cells in a row failed, the last one: {said}");
    }
    Ok(failed)
}

fn print_plan(grid: &Grid, left: &[Cell]) {
    for (place, cell) in left.iter().enumerate() {
        say::result(format_args!("{:>4}  {:>6}  {cell}", place + 1, minutes(grid.estimate(&left[..place]))));
    }
    let Settings { rate, seconds, seed, .. } = &grid.settings;
    say::result(format_args!(
        "{} cells, about {} minutes: {seconds} s measured of each, {rate}/s in the open model; order by seed {seed}",
        left.len(),
        minutes(grid.estimate(left))
    ));
}

/// As a person in the project's folder would type it.
fn shown(path: &Path, root: &Path) -> String {
    let root = root.canonicalize().unwrap_or_else(|_| root.to_owned());
    path.strip_prefix(root).unwrap_or(path).display().to_string()
}
