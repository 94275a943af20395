//! What a sweep measures and in which order. Pure.
//!
//! Every repeat is a block: each cell once, in a random order of its own. So a machine that becomes slower meanwhile does so
//! to all strategies and counts alike, and what an interrupted sweep has is spread over the whole grid. Restarts between two
//! cells cost seconds, which is not worth an order that could bias.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::{self, Display, Formatter};
use std::time::Duration;

use clap::{Args, ValueEnum};
use serde::{Deserialize, Serialize};

use crate::cluster::private::{Knobs, inherited};
use crate::load::Pace;
use crate::measure::{ANSWERS, Contests, Scenario, Stock, issues};
use crate::strategy::Strategy;

/// Seconds of a cell that pass without load, as measured: change of the cluster, coupons, new rounds, verdicts; and what strategies that
/// do not keep up still answer after their window.
const OVERHEAD: Duration = Duration::from_secs(14);

/// An open model does not wait for answers, so it needs a connection for whatever may be under way: the service's deadline is 5 s.
const DEADLINE_SECONDS: u32 = 6;
const CONNECTIONS_MIN: u32 = 200;
const CONNECTIONS_MAX: u32 = 10_000;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum, Serialize, Deserialize, strum::Display)]
#[serde(rename_all = "lowercase")]
#[strum(serialize_all = "lowercase")]
pub enum Shape {
    /// Open model at a fixed rate, one coupon.
    Hot,
    /// Open model at the same rate, 32 coupons.
    Many,
    /// Closed model: users who come back at once, for the seeded stock.
    Rush,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Cell {
    pub shape: Shape,
    pub strategy: Strategy,
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

// The values whose every combination is a cell. (A doc comment would become the command's own.)
#[derive(Args)]
pub struct Axes {
    /// How many replicas there are, in turn; with --quick 1,2,4
    #[arg(long, value_name = "N,N", value_delimiter = ',', default_value = "1,2,4,8", default_value_if("quick", "true", "1,2,4"), value_parser = clap::value_parser!(u32).range(1..=20))]
    replicas: Vec<u32>,
    /// How they issue; with --quick pessimistic,redlock,batched
    #[arg(long, value_name = "NAME,NAME", value_delimiter = ',', default_values_t = Strategy::ALL, default_value_if("quick", "true", "pessimistic,redlock,batched"))]
    strategies: Vec<Strategy>,
    /// What is asked: one coupon or 32 at a fixed rate, or the seeded stock in a closed loop; with --quick hot
    #[arg(long, value_name = "NAME,NAME", value_delimiter = ',', default_values_t = Shape::value_variants(), default_value_if("quick", "true", "hot"))]
    shapes: Vec<Shape>,
    /// How often everything is measured; with 1 the spread is only that within a run
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=20))]
    repeats: u32,
}

// What does not differ between cells.
#[derive(Args, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Settings {
    /// Requests a second in the open model, and in the contests
    #[arg(long, value_name = "N", default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(10..=20_000))]
    pub rate: u32,
    /// Seconds of the same load before, in the open model
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=60))]
    pub warm_up: u32,
    /// Measured seconds of a cell
    #[arg(long, value_name = "N", default_value_t = 12, value_parser = clap::value_parser!(u32).range(4..=600))]
    pub seconds: u32,
    /// Users of the closed model
    #[arg(long, value_name = "N", default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(10..=10_000))]
    pub users: u32,
    /// Tiny coupons that are fought for in each cell, to see whether first come is first served
    #[arg(long, alias = "rounds", value_name = "N", default_value_t = 200, value_parser = clap::value_parser!(u32).range(10..=999))]
    pub contests: u32,
    /// The order of the cells; the same seed is the same order
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub seed: u64,
    /// Knobs that the replicas were given beside: `POOL_SIZE` and the like.
    #[arg(skip = inherited())]
    pub knobs: BTreeMap<String, String>,
}

#[derive(Clone, Serialize, Deserialize)]
pub struct Grid {
    pub settings: Settings,
    /// In this order.
    pub cells: Vec<Cell>,
}

impl Grid {
    /// Every combination once in each repeat, however often its values are given. The same seed gives the same order.
    pub fn new(axes: &Axes, settings: Settings) -> Self {
        let mut random = fastrand::Rng::with_seed(settings.seed);
        let mut cells = Vec::new();
        for repeat in 1..=axes.repeats {
            let mut block = BTreeSet::new();
            for &shape in &axes.shapes {
                for &strategy in &axes.strategies {
                    block.extend(axes.replicas.iter().map(|&replicas| Cell { shape, strategy, replicas, repeat }));
                }
            }
            let mut block = Vec::from_iter(block);
            random.shuffle(&mut block);
            cells.extend(block);
        }
        Self { settings, cells }
    }

    /// How long these cells are guessed to take.
    pub fn estimate(&self, cells: &[Cell]) -> Duration {
        let of_cell = |cell: &Cell| {
            let [warm_up, time] = self.settings.times(cell.shape);
            OVERHEAD + warm_up + time + self.settings.contests().time()
        };
        cells.iter().map(of_cell).sum()
    }
}

impl Settings {
    fn contests(&self) -> Contests {
        Contests { coupons: self.contests, pieces: 20, over: 2, rate: self.rate }
    }

    fn connections(&self) -> usize {
        (self.rate * DEADLINE_SECONDS).clamp(CONNECTIONS_MIN, CONNECTIONS_MAX) as usize
    }

    /// Warm-up and window. A rush is one burst, and begins cold.
    fn times(&self, shape: Shape) -> [Duration; 2] {
        let warm_up = if shape == Shape::Rush { 0 } else { self.warm_up };
        [warm_up, self.seconds].map(|seconds| Duration::from_secs(seconds.into()))
    }

    /// The load of a cell; a rush asks for what every database begins with.
    pub fn load(&self, shape: Shape, seeded: Vec<String>) -> Scenario {
        let open = |many| Scenario::issues(many, self.connections(), Pace::Open(self.rate.into()), self.times(shape));
        let load = match shape {
            Shape::Hot => open(false),
            Shape::Many => open(true),
            Shape::Rush => {
                let load = Scenario::issues(false, self.users as usize, Pace::Closed, self.times(shape));
                Scenario { stock: Stock::Seeded, requests: issues(seeded), ..load }
            }
        };
        // Refusals are answers here, and how many there are is one of the results.
        Scenario { expect: ANSWERS.into(), ..load }
    }

    pub fn fought(&self) -> Scenario {
        Scenario { expect: ANSWERS.into(), ..self.contests().scenario(self.connections(), Duration::ZERO) }
    }
}

impl Cell {
    pub fn knobs(self) -> Knobs {
        Knobs { strategy: self.strategy, replicas: self.replicas, others: BTreeMap::new() }
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        sweep: crate::sweep::Command,
    }

    fn grid(words: &str) -> Grid {
        Line::parse_from(["sweep"].into_iter().chain(words.split_whitespace())).sweep.grid()
    }

    #[test]
    fn every_repeat_is_a_block_that_has_every_cell_once_in_an_order_of_its_own() {
        let grid = grid("--repeats 2");
        let (one, other) = grid.cells.split_at(72);
        let again: Vec<_> = other.iter().map(|cell| Cell { repeat: cell.repeat - 1, ..*cell }).collect();

        assert!(one.iter().all(|cell| cell.repeat == 1));
        assert_ne!(one, again);
        assert_eq!(one.iter().collect::<BTreeSet<_>>(), again.iter().collect());
        assert_eq!(grid.cells.iter().map(ToString::to_string).collect::<BTreeSet<_>>().len(), 144);
    }

    #[test]
    fn the_order_is_random_and_the_seed_s() {
        let cells = |words| grid(words).cells;

        assert_eq!(cells("--seed 1"), cells(""));
        assert_ne!(cells("--seed 2"), cells(""));
        assert!(!cells("").is_sorted());
    }

    #[test]
    fn what_is_said_twice_is_measured_once_and_quick_is_nine_cells() {
        let mut quick = grid("--quick").cells;
        quick.sort();

        assert_eq!((quick.len(), quick[0].to_string().as_str()), (9, "hot-pessimistic-x1-r1"));
        assert_eq!(quick[8].to_string(), "hot-batched-x4-r1");
        assert_eq!(grid("--quick --replicas 8,8 --strategies batched").cells.len(), 1);
    }

    #[test]
    fn a_full_sweep_takes_three_quarters_of_an_hour() {
        let grid = grid("");
        let minutes = grid.estimate(&grid.cells).as_secs() / 60;

        assert!((35..45).contains(&minutes), "{minutes}");
    }
}
