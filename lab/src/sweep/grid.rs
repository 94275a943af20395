//! What a sweep measures and in which order. Pure.
//!
//! Every repeat is a block: each cell once, in a random order of its own. So a machine that becomes slower meanwhile does so
//! to all strategies and counts alike, and what an interrupted sweep has is spread over the whole grid. Restarts between two
//! cells cost seconds, which is not worth an order that could bias.

use std::collections::BTreeMap;
use std::fmt::{self, Display, Formatter};
use std::time::Duration;

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

use crate::cluster::private::Knobs;
use crate::load::Pace;
use crate::measure::scenario::{ANSWERS, Contests, Scenario, Stock, issues};
use crate::strategy::Strategy;

/// Seconds of a cell that pass without load, as measured: change of the cluster, coupons, new rounds, verdicts; and what strategies that
/// do not keep up still answer after their window.
const OVERHEAD: f64 = 14.0;

/// An open model does not wait for answers, so it needs a connection for whatever may be under way: the service's deadline is 5 s.
const DEADLINE_SECONDS: u32 = 6;
const CONNECTIONS_MIN: u32 = 200;
const CONNECTIONS_MAX: u32 = 10_000;

/// What is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Shape {
    /// Open model at a fixed rate, one coupon.
    Hot,
    /// Open model at the same rate, 32 coupons.
    Many,
    /// Closed model: users who come back at once, for the seeded stock.
    Rush,
}

impl Shape {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Hot, Self::Many, Self::Rush];

    /// In names of cells and on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Hot => "hot",
            Self::Many => "many",
            Self::Rush => "rush",
        }
    }
}

impl Display for Shape {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> fmt::Result {
        formatter.pad(self.name())
    }
}

/// One point of the grid in one repeat.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Cell {
    /// What is asked.
    pub shape: Shape,
    /// How the replicas issue.
    pub strategy: Strategy,
    /// How many there are.
    pub replicas: u32,
    /// From 1.
    pub repeat: u32,
}

impl Display for Cell {
    /// Also the name of its folder.
    fn fmt(&self, formatter: &mut Formatter<'_>) -> fmt::Result {
        let Self { shape, strategy, replicas, repeat } = self;
        formatter.pad(&format!("{shape}-{strategy}-x{replicas}-r{repeat}"))
    }
}

/// What does not differ between cells.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Settings {
    /// Requests a second in the open model.
    pub rate: u32,
    /// Before anything is measured in the open model, in seconds.
    pub warm_up: u32,
    /// Measured, in seconds.
    pub seconds: u32,
    /// Users of the closed model.
    pub users: u32,
    /// Tiny coupons that are fought for after each load.
    pub contests: u32,
    /// Of the order of the cells.
    pub seed: u64,
    /// Knobs that the replicas were given beside: `POOL_SIZE` and the like.
    pub knobs: BTreeMap<String, String>,
}

/// The values whose every combination is a cell.
#[derive(Clone, Debug, PartialEq)]
pub struct Axes {
    /// How many replicas there are.
    pub replicas: Vec<u32>,
    /// How they issue.
    pub strategies: Vec<Strategy>,
    /// What is asked.
    pub shapes: Vec<Shape>,
    /// How often everything is measured.
    pub repeats: u32,
}

/// A sweep, cell by cell.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Grid {
    /// What does not differ between cells.
    pub settings: Settings,
    /// In this order.
    pub cells: Vec<Cell>,
}

impl Grid {
    /// Every combination once in each repeat. The same seed gives the same order.
    pub fn new(axes: &Axes, settings: Settings) -> Self {
        let mut random = fastrand::Rng::with_seed(settings.seed);
        let mut cells = Vec::new();
        for repeat in 1..=axes.repeats {
            let mut block = axes.block(repeat);
            random.shuffle(&mut block);
            cells.extend(block);
        }
        Self { settings, cells }
    }

    /// Seconds that a cell is guessed to take.
    pub fn estimate(&self, cell: Cell) -> f64 {
        let [warm_up, time] = self.settings.times(cell.shape);
        OVERHEAD + (warm_up + time + self.settings.contests().time()).as_secs_f64()
    }

    /// The same for these.
    pub fn estimate_all(&self, cells: &[Cell]) -> f64 {
        cells.iter().map(|cell| self.estimate(*cell)).sum()
    }
}

impl Settings {
    /// What is fought for after each load.
    pub fn contests(&self) -> Contests {
        Contests { coupons: self.contests, pieces: 20, over: 2, rate: self.rate }
    }

    /// Connections of an open model.
    fn connections(&self) -> usize {
        (self.rate * DEADLINE_SECONDS).clamp(CONNECTIONS_MIN, CONNECTIONS_MAX) as usize
    }

    /// Warm-up and window. A rush is one burst, and begins cold.
    fn times(&self, shape: Shape) -> [Duration; 2] {
        let warm_up = if shape == Shape::Rush { 0 } else { self.warm_up };
        [warm_up, self.seconds].map(|seconds| Duration::from_secs(seconds.into()))
    }

    /// The load of a cell; a rush asks for what every database begins with.
    pub fn load(&self, cell: Cell, seeded: Vec<String>) -> Scenario {
        let open = Pace::Open(self.rate.into());
        let load =
            |many, connections, pace| Scenario::issues(cell.knobs(), many, connections, pace, self.times(cell.shape));
        let scenario = match cell.shape {
            Shape::Hot => load(false, self.connections(), open),
            Shape::Many => load(true, self.connections(), open),
            Shape::Rush => {
                let load = load(false, self.users as usize, Pace::Closed);
                Scenario { stock: Stock::Seeded, requests: issues(seeded), ..load }
            }
        };
        // Refusals are answers here, and how many there are is one of the results.
        Scenario { name: cell.to_string(), expect: ANSWERS.into(), ..scenario }
    }

    /// The contests that follow it.
    pub fn fought(&self, cell: Cell) -> Scenario {
        let contests = self.contests().scenario(cell.knobs(), self.connections(), Duration::ZERO);
        Scenario { expect: ANSWERS.into(), ..contests }
    }
}

impl Cell {
    /// Its cluster. The exporters would cost a part of the processors that is not the service's.
    pub fn knobs(self) -> Knobs {
        let others = [("EXPORTERS".to_owned(), "off".to_owned())].into();
        Knobs { strategy: self.strategy, replicas: self.replicas, others }
    }
}

impl Axes {
    /// Each value once, so that no cell is measured twice under one name.
    pub fn in_order(&mut self) {
        self.replicas.sort_unstable();
        self.replicas.dedup();
        self.strategies.sort_unstable();
        self.strategies.dedup();
        self.shapes.sort_unstable();
        self.shapes.dedup();
    }

    fn block(&self, repeat: u32) -> Vec<Cell> {
        let mut block = Vec::new();
        for &shape in &self.shapes {
            for &strategy in &self.strategies {
                block.extend(self.replicas.iter().map(|&replicas| Cell { shape, strategy, replicas, repeat }));
            }
        }
        block
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn settings(seed: u64) -> Settings {
        Settings { rate: 1_000, warm_up: 3, seconds: 12, users: 1_000, contests: 200, seed, knobs: BTreeMap::new() }
    }

    fn axes(repeats: u32) -> Axes {
        Axes { replicas: vec![1, 2, 4, 8], strategies: Strategy::ALL.into(), shapes: Shape::ALL.into(), repeats }
    }

    #[test]
    fn every_repeat_is_a_block_that_has_every_cell_once() {
        let grid = Grid::new(&axes(2), settings(7));

        assert_eq!(grid.cells.len(), 144);
        for (block, repeat) in grid.cells.chunks(72).zip(1..) {
            assert!(block.iter().all(|cell| cell.repeat == repeat));
            assert_eq!(block.iter().collect::<BTreeSet<_>>().len(), 72);
        }
    }

    #[test]
    fn the_order_is_random_and_the_seed_s() {
        let order = |seed| Grid::new(&axes(1), settings(seed)).cells;
        let mut sorted = order(1);
        sorted.sort();

        assert_eq!(order(1), order(1));
        assert_ne!(order(1), order(2));
        assert_ne!(order(1), sorted);
    }

    #[test]
    fn two_repeats_have_two_orders() {
        let grid = Grid::new(&axes(2), settings(7));
        let (one, other) = grid.cells.split_at(72);
        let points = |cells: &[Cell]| cells.iter().map(|cell| Cell { repeat: 1, ..*cell }).collect::<Vec<_>>();

        assert_ne!(points(one), points(other));
    }

    #[test]
    fn names_of_cells_are_unique() {
        let grid = Grid::new(&axes(2), settings(7));

        assert_eq!(grid.cells.iter().map(ToString::to_string).collect::<BTreeSet<_>>().len(), 144);
        assert_eq!(
            Cell { shape: Shape::Hot, strategy: Strategy::Batched, replicas: 4, repeat: 1 }.to_string(),
            "hot-batched-x4-r1"
        );
    }

    #[test]
    fn a_full_sweep_takes_three_quarters_of_an_hour() {
        let grid = Grid::new(&axes(1), settings(7));

        let minutes = grid.estimate_all(&grid.cells) / 60.0;

        assert!((35.0..45.0).contains(&minutes), "{minutes}");
    }
}
