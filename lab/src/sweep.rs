//! `lab sweep`: what lock wait and latency become as replicas are added, for every strategy and shape of load, measured on a
//! cluster of the laboratory's own and kept in one folder. What is measured is in `grid`, how in `crate::measure`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process;

use anyhow::{Context, bail, ensure};
use clap::Args;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use time::macros::format_description;

mod cell;
mod folder;
mod grid;
mod table;
mod versions;

use crate::cluster::inherited::inherited;
use crate::cluster::private::users_own;
use crate::interrupt::{Interrupt, Interrupted};
use crate::machine::Machine;
use crate::measure::stage::Stage;
use crate::progress::{Progress, minutes};
use crate::strategy::Strategy;
use cell::Measured;
use folder::{Folder, Setting};
use grid::{Axes, Cell, Grid, Settings, Shape};

/// After so many failures in a row the next cell will fail, too.
const FAILURES_MAX: usize = 3;

/// What the plan of a resumed sweep says already.
const PLANNED: [&str; 11] =
    ["quick", "replicas", "strategies", "shapes", "repeats", "rate", "seconds", "warm_up", "users", "contests", "seed"];

/// Measure every strategy at several numbers of replicas under several shapes of load, and draw it
#[derive(Args)]
pub struct Command {
    /// Nine cells in under ten minutes: one hot coupon, three strategies, 1, 2 and 4 replicas
    #[arg(long)]
    quick: bool,
    /// Print the plan and how long it takes, and start nothing
    #[arg(long)]
    dry_run: bool,
    /// How many replicas there are, in turn [default: 1,2,4,8, with --quick 1,2,4]
    #[arg(long, value_name = "N,N", value_delimiter = ',', value_parser = clap::value_parser!(u32).range(1..=20))]
    replicas: Vec<u32>,
    /// How they issue [default: all, with --quick pessimistic,redlock,batched]
    #[arg(long, value_name = "NAME,NAME", value_delimiter = ',')]
    strategies: Vec<Strategy>,
    /// What is asked: one coupon or 32 at a fixed rate, or the seeded stock in a closed loop [default: all, with
    /// --quick hot]
    #[arg(long, value_name = "NAME,NAME", value_delimiter = ',')]
    shapes: Vec<Shape>,
    /// How often everything is measured; with 1 the spread is only that within a run
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=20))]
    repeats: u32,
    /// Requests a second in the open model, and in the contests
    #[arg(long, value_name = "N", default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(10..=20_000))]
    rate: u32,
    /// Measured seconds of a cell
    #[arg(long, value_name = "N", default_value_t = 12, value_parser = clap::value_parser!(u32).range(4..=600))]
    seconds: u32,
    /// Seconds of the same load before, in the open model
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=60))]
    warm_up: u32,
    /// Users of the closed model
    #[arg(long, value_name = "N", default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(10..=10_000))]
    users: u32,
    /// Tiny coupons that are fought for in each cell, to see whether first come is first served
    #[arg(long, alias = "rounds", value_name = "N", default_value_t = 200, value_parser = clap::value_parser!(u32).range(10..=999))]
    contests: u32,
    /// The order of the cells; the same seed is the same order
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
    /// Keep everything in this folder [default: results/ and the time]
    #[arg(long, value_name = "FOLDER", conflicts_with = "resume")]
    into: Option<PathBuf>,
    /// Go on with the sweep in this folder, by its own plan
    #[arg(long, value_name = "FOLDER", conflicts_with_all = PLANNED)]
    resume: Option<PathBuf>,
    /// Moves every port of the cluster, so that it fits beside others
    #[arg(long, env = "SWEEP_PORT_OFFSET", default_value_t = 11_000, value_parser = clap::value_parser!(u16).range(..=50_000))]
    port_offset: u16,
}

impl Command {
    /// Measures what is left of the plan and has it drawn. The exit status: 0 all went well, 1 a promise was broken that
    /// the strategy means to keep, 2 a cell could not be measured, 130 interrupted; what was measured is kept in any case.
    pub async fn run(&self, root: &Path, interrupt: Interrupt) -> anyhow::Result<u8> {
        let resumed = self.resume.as_deref().map(Folder::open).transpose()?;
        let grid = resumed.as_ref().map_or_else(|| self.grid(), |(_, grid)| grid.clone());
        let left = match &resumed {
            Some((folder, grid)) => folder.done_and_left(grid)?.1,
            None => grid.cells.clone(),
        };
        if self.dry_run {
            print_plan(&grid, &left);
            return Ok(0);
        }
        self.refuse_other_knobs(&grid)?;
        if let Some(running) = users_own(root) {
            eprintln!("warning: a cluster runs in {} and takes its share of the processors", running.display());
        }
        let started = OffsetDateTime::now_utc();
        let folder = match resumed {
            Some((folder, _)) => folder,
            None => Folder::create(&self.folder(root, started)?, &grid, &setting(root, started)?)?,
        };
        let measured = self.measure(root, &folder, &grid, &left, interrupt).await;
        conclude(root, &folder, measured)
    }

    fn grid(&self) -> Grid {
        let or = |given: &[u32], default: &[u32]| if given.is_empty() { default.to_vec() } else { given.to_vec() };
        let quick = [Strategy::Pessimistic, Strategy::Redlock, Strategy::Batched];
        let strategies: &[Strategy] = if self.quick { &quick } else { &Strategy::ALL };
        let shapes: &[Shape] = if self.quick { &[Shape::Hot] } else { &Shape::ALL };
        let mut axes = Axes {
            replicas: or(&self.replicas, if self.quick { &[1, 2, 4] } else { &[1, 2, 4, 8] }),
            strategies: if self.strategies.is_empty() { strategies.to_vec() } else { self.strategies.clone() },
            shapes: if self.shapes.is_empty() { shapes.to_vec() } else { self.shapes.clone() },
            repeats: self.repeats,
        };
        axes.in_order();
        Grid::new(&axes, self.settings())
    }

    fn settings(&self) -> Settings {
        Settings {
            rate: self.rate,
            warm_up: self.warm_up,
            seconds: self.seconds,
            users: self.users,
            contests: self.contests,
            seed: self.seed,
            knobs: inherited(),
        }
    }

    /// Cells that were measured with other knobs do not belong into one report.
    fn refuse_other_knobs(&self, grid: &Grid) -> anyhow::Result<()> {
        let (now, then) = (inherited(), &grid.settings.knobs);
        ensure!(
            self.resume.is_none() || now == *then,
            "the sweep began with {then:?}, now it is {now:?}: set the same variables, or begin a new sweep"
        );
        Ok(())
    }

    fn folder(&self, root: &Path, started: OffsetDateTime) -> anyhow::Result<PathBuf> {
        let name = started.format(format_description!("[year][month][day]T[hour][minute][second]Z"))?;
        Ok(self.into.clone().unwrap_or_else(|| root.join("results").join(name)))
    }

    async fn measure(
        &self,
        root: &Path,
        folder: &Folder,
        grid: &Grid,
        left: &[Cell],
        interrupt: Interrupt,
    ) -> anyhow::Result<Vec<Cell>> {
        let Some(first) = left.first() else { return Ok(Vec::new()) };
        eprintln!(
            "cells to measure: {}, about {}; kept in {}",
            left.len(),
            time_of(grid.estimate_all(left)),
            shown(folder.path(), root)
        );
        let mut stage = Stage::start(root, "sweep", self.port_offset, first.knobs(), interrupt.clone()).await?;
        let measured = interrupt.or(all(&mut stage, root, folder, grid, left)).await;
        stage.stop().await.context("cannot stop the cluster")?;
        measured
    }
}

/// Writes the tables of what there is, whatever the sweep came to, and has them drawn.
fn conclude(root: &Path, folder: &Folder, measured: anyhow::Result<Vec<Cell>>) -> anyhow::Result<u8> {
    let (_, grid) = Folder::open(folder.path())?;
    let (done, _) = folder.done_and_left(&grid)?;
    folder.write("cells.json", &(serde_json::to_string_pretty(&done)? + "\n"))?;
    folder.write("cells.csv", &table::csv(&done))?;
    let broken = done.iter().filter(|measured| measured.is_broken()).count();
    let short = done.iter().filter(|measured| measured.load.short().is_some()).count();
    let place = shown(folder.path(), root);
    let status = match measured {
        Ok(failed) if failed.is_empty() => u8::from(broken > 0),
        Ok(failed) => {
            eprintln!("{} cells could not be measured; try them again by make sweep RESUME={place}", failed.len());
            2
        }
        Err(error) if error.is::<Interrupted>() => {
            eprintln!("interrupted; go on by make sweep RESUME={place}");
            Interrupted::STATUS
        }
        Err(error) => return Err(error.context(format!("what was measured is in {place}"))),
    };
    println!(
        "{} of {} cells measured, {broken} with a broken promise, {short} short of what was offered: {place}",
        done.len(),
        grid.cells.len()
    );
    draw(root, folder.path());
    Ok(status)
}

/// Pictures are worth a try and no more: the figures are kept, and can be drawn at any time.
fn draw(root: &Path, folder: &Path) {
    let python = root.join(".cluster/report-venv/bin/python");
    let drawn = process::Command::new(python).arg("report/draw.py").arg(folder).current_dir(root).status();
    if !drawn.is_ok_and(|status| status.success()) {
        eprintln!("not drawn: make report FOLDER={}", shown(folder, root));
    }
}

/// Measures cell by cell and keeps each when it is complete. Returns those that failed.
async fn all(stage: &mut Stage, root: &Path, folder: &Folder, grid: &Grid, left: &[Cell]) -> anyhow::Result<Vec<Cell>> {
    let mut setting = folder.setting()?;
    if setting.versions.is_empty() {
        setting.versions = versions::read(root, stage.cluster());
        folder.write("setting.json", &(serde_json::to_string_pretty(&setting)? + "\n"))?;
    }
    let commit = Machine::describe(root).commit;
    let (mut failed, mut in_a_row) = (Vec::new(), 0);
    let mut progress = Progress::new(left.len(), grid.estimate_all(left));
    for &cell in left {
        progress.begins(&cell.to_string());
        let into = folder.begin(cell)?;
        match Measured::now(stage, cell, &grid.settings, &into, &commit).await {
            Ok(measured) => {
                folder.keep(&measured)?;
                progress.ended(grid.estimate(cell), &measured.line());
                in_a_row = 0;
            }
            Err(error) if error.is::<Interrupted>() => return Err(error),
            Err(error) => {
                fs::write(into.join("error.txt"), format!("{error:#}\n"))?;
                progress.ended(grid.estimate(cell), &format!("{cell:<24} FAILED: {error:#}"));
                failed.push(cell);
                in_a_row += 1;
                if in_a_row == FAILURES_MAX {
                    bail!("{FAILURES_MAX} cells in a row failed, the last one with: {error:#}");
                }
            }
        }
    }
    Ok(failed)
}

fn setting(root: &Path, started: OffsetDateTime) -> anyhow::Result<Setting> {
    Ok(Setting { started: started.format(&Rfc3339)?, machine: Machine::describe(root), versions: Vec::new() })
}

fn print_plan(grid: &Grid, left: &[Cell]) {
    let mut passed = 0.0;
    for (place, cell) in (1..).zip(left) {
        println!("{place:>4}  {:>6}  {cell}", time_of(passed));
        passed += grid.estimate(*cell);
    }
    let Settings { rate, warm_up, seconds, users, contests, seed, .. } = &grid.settings;
    println!(
        "{} cells, about {} minutes: {warm_up} s warm-up and {seconds} s measured, {rate}/s in the open model, {users} users in \
         the closed one, {contests} contests each; order by seed {seed}",
        left.len(),
        time_of(passed)
    );
}

fn time_of(seconds: f64) -> String {
    minutes(std::time::Duration::from_secs_f64(seconds))
}

/// As a person in the project's folder would type it.
fn shown(path: &Path, root: &Path) -> String {
    let root = root.canonicalize().unwrap_or_else(|_| root.to_owned());
    path.strip_prefix(root).unwrap_or(path).display().to_string()
}
