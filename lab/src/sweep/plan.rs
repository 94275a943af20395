//! What a sweep measures and in which order. Pure.
//!
//! Every repeat is a block: each cell once, in a random order of its own. So a machine that becomes slower meanwhile does so
//! to all strategies and counts alike, and what an interrupted sweep has is spread over the whole grid. Restarts between two
//! cells cost seconds, which is not worth an order that could bias.

use std::collections::BTreeMap;
use std::fmt::{self, Display, Formatter};

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

use crate::strategy::Strategy;

/// Seconds of a cell that pass without load, as measured: change of the cluster, two starts of k6, new rounds, verdicts.
const OVERHEAD: f64 = 14.0;

/// fairness.js goes on for so long after its last request was due.
const SPARE: f64 = 2.0;

/// What the crowd does.
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

    /// Coupons that are asked for in an open model.
    pub fn codes(self) -> Option<u32> {
        match self {
            Self::Hot => Some(1),
            Self::Many => Some(32),
            Self::Rush => None,
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
    /// What the crowd does.
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
    /// Tiny rounds, their pieces, and how many times as many users ask.
    pub fairness_rounds: u32,
    /// See above.
    pub fairness_pieces: u32,
    /// See above.
    pub fairness_over: u32,
    /// Of the order of the cells.
    pub seed: u64,
    /// Knobs that the replicas were given beside: `POOL_SIZE` and the like.
    pub knobs: BTreeMap<String, String>,
}

/// The points of a sweep.
#[derive(Clone, Debug, PartialEq)]
pub struct Grid {
    /// How many replicas there are.
    pub replicas: Vec<u32>,
    /// How they issue.
    pub strategies: Vec<Strategy>,
    /// What the crowd does.
    pub shapes: Vec<Shape>,
    /// How often everything is measured.
    pub repeats: u32,
}

/// A sweep, cell by cell.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Plan {
    /// What does not differ between cells.
    pub settings: Settings,
    /// In this order.
    pub cells: Vec<Cell>,
}

impl Plan {
    /// Every point of the grid once in each repeat. The same seed gives the same order.
    pub fn new(grid: &Grid, settings: Settings) -> Self {
        let mut random = fastrand::Rng::with_seed(settings.seed);
        let mut cells = Vec::new();
        for repeat in 1..=grid.repeats {
            let mut block = grid.block(repeat);
            random.shuffle(&mut block);
            cells.extend(block);
        }
        Self { settings, cells }
    }

    /// Seconds that a cell is guessed to take.
    pub fn estimate(&self, cell: Cell) -> f64 {
        let Settings { rate, warm_up, seconds, .. } = self.settings;
        let warm_up = if cell.shape == Shape::Rush { 0 } else { warm_up };
        OVERHEAD + f64::from(warm_up + seconds) + self.settings.fairness_seconds(rate)
    }

    /// The same for these.
    pub fn estimate_all(&self, cells: &[Cell]) -> f64 {
        cells.iter().map(|cell| self.estimate(*cell)).sum()
    }
}

impl Settings {
    fn fairness_seconds(&self, rate: u32) -> f64 {
        let asks = f64::from(self.fairness_rounds) * f64::from(self.fairness_pieces * self.fairness_over);
        (asks / f64::from(rate)).ceil() + SPARE
    }
}

impl Grid {
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
pub(crate) mod tests {
    use std::collections::BTreeSet;

    use super::*;

    pub(crate) fn settings(seed: u64) -> Settings {
        Settings {
            rate: 1_000,
            warm_up: 3,
            seconds: 12,
            users: 1_000,
            fairness_rounds: 200,
            fairness_pieces: 20,
            fairness_over: 2,
            seed,
            knobs: BTreeMap::new(),
        }
    }

    fn grid(repeats: u32) -> Grid {
        Grid { replicas: vec![1, 2, 4, 8], strategies: Strategy::ALL.into(), shapes: Shape::ALL.into(), repeats }
    }

    #[test]
    fn every_repeat_is_a_block_that_has_every_cell_once() {
        let plan = Plan::new(&grid(2), settings(7));

        assert_eq!(plan.cells.len(), 144);
        for (block, repeat) in plan.cells.chunks(72).zip(1..) {
            assert!(block.iter().all(|cell| cell.repeat == repeat));
            assert_eq!(block.iter().collect::<BTreeSet<_>>().len(), 72);
        }
    }

    #[test]
    fn the_order_is_random_and_the_seed_s() {
        let order = |seed| Plan::new(&grid(1), settings(seed)).cells;
        let mut sorted = order(1);
        sorted.sort();

        assert_eq!(order(1), order(1));
        assert_ne!(order(1), order(2));
        assert_ne!(order(1), sorted);
    }

    #[test]
    fn two_repeats_have_two_orders() {
        let plan = Plan::new(&grid(2), settings(7));
        let (one, other) = plan.cells.split_at(72);
        let points = |cells: &[Cell]| cells.iter().map(|cell| Cell { repeat: 1, ..*cell }).collect::<Vec<_>>();

        assert_ne!(points(one), points(other));
    }

    #[test]
    fn names_of_cells_are_unique() {
        let plan = Plan::new(&grid(2), settings(7));

        assert_eq!(plan.cells.iter().map(ToString::to_string).collect::<BTreeSet<_>>().len(), 144);
        assert_eq!(
            Cell { shape: Shape::Hot, strategy: Strategy::Batched, replicas: 4, repeat: 1 }.to_string(),
            "hot-batched-x4-r1"
        );
    }

    #[test]
    fn a_full_sweep_takes_three_quarters_of_an_hour() {
        let plan = Plan::new(&grid(1), settings(7));

        let minutes = plan.estimate_all(&plan.cells) / 60.0;

        assert!((40.0..50.0).contains(&minutes), "{minutes}");
    }
}
