//! What a sweep measures and in which order. Pure.
//!
//! The order is random, within what spares restarts: a cluster of another strategy or distance is begun with its fewest replicas,
//! because the script restarts those that are there one after the other, and starts new ones side by side; the balance is a
//! matter of nginx alone, which reads it anew.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::{self, Display, Formatter};
use std::time::Duration;

use clap::{Args, ValueEnum};
use fastrand::Rng;
use serde::{Deserialize, Serialize};

use crate::cluster::private::{BALANCE, DISTANCE_MS, Knobs, inherited};
use crate::load::Pace;
use crate::measure::{ANSWERS, Contests, FEW, MANY, Scenario, WARM_UP, plenty};
use crate::numbers::within;
use crate::strategy::Strategy;

/// Seconds of a cell that pass beside its load, as measured: change of the cluster, new rounds, verdicts; and what strategies that do not
/// keep up still answer after their window.
const AROUND: Duration = Duration::from_millis(4_500);

/// Coupons that have homes by chance, letters of their names, and who asks for them.
const CODES: usize = 8;
const NAME: usize = 8;
const USERS: usize = 200;

/// An open model does not wait for answers, so it needs a connection for whatever may be under way.
const CONNECTIONS_MAX: usize = 10_000;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum, Serialize, Deserialize, strum::Display)]
#[serde(rename_all = "lowercase")]
#[strum(serialize_all = "lowercase")]
pub enum Shape {
    /// A closed loop of 64 users for one coupon.
    Few,
    /// A closed loop of 1,000 users for one coupon.
    Crowd,
    /// An open model: a fixed rate for one coupon.
    Rate,
    /// A closed loop of 200 users for eight coupons in turn, which have other names in each repeat, and so other homes.
    Codes,
    /// The same rate for tiny coupons, which sell out one after the other: who overtakes whom?
    Contests,
}

/// Where the orders for a code go, as `BALANCE` says it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum, Serialize, Deserialize, strum::Display)]
#[serde(rename_all = "lowercase")]
#[strum(serialize_all = "lowercase")]
pub enum Balance {
    Home,
    Scattered,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Cell {
    pub shape: Shape,
    pub strategy: Strategy,
    pub replicas: u32,
    /// `Home` where there is one replica, to which everything goes.
    pub balance: Balance,
    /// The round trip that is added between the replicas and their servers.
    pub distance_ms: u32,
    /// From 1.
    pub repeat: u32,
}

impl Display for Cell {
    /// Also the name of its folder.
    fn fmt(&self, formatter: &mut Formatter<'_>) -> fmt::Result {
        let Self { shape, strategy, replicas, balance, distance_ms, repeat } = self;
        formatter.pad(&format!("{shape}-{strategy}-x{replicas}-{balance}-{distance_ms}ms-r{repeat}"))
    }
}

// The values whose every combination is a cell. (A doc comment would become the command's own.)
#[derive(Args)]
pub struct Axes {
    /// How many replicas there are, in turn; with --quick 1,2,4
    #[arg(long, value_name = "N,N", value_delimiter = ',', default_value = "1,2,4,8", default_value_if("quick", "true", "1,2,4"), value_parser = clap::value_parser!(u32).range(1..=20))]
    replicas: Vec<u32>,
    /// How they issue; with --quick pessimistic,redlock,batched
    #[arg(long, value_name = "NAME,NAME", value_delimiter = ',', default_values_t = Strategy::value_variants(), default_value_if("quick", "true", "pessimistic,redlock,batched"))]
    strategies: Vec<Strategy>,
    /// Where the orders for a code go; with one replica there is no difference
    #[arg(long, value_name = "NAME,NAME", value_delimiter = ',', default_values_t = [Balance::Home, Balance::Scattered])]
    balances: Vec<Balance>,
    /// Milliseconds of a round trip between the replicas and their servers; with --quick 0
    #[arg(long, value_name = "MS,MS", value_delimiter = ',', default_value = "0,1", default_value_if("quick", "true", "0"), value_parser = clap::value_parser!(u32).range(0..=100))]
    distances: Vec<u32>,
    /// What is asked: one coupon in a closed loop of 64 or 1,000 users, or at a fixed rate; or tiny ones; with --quick few
    #[arg(long, value_name = "NAME,NAME", value_delimiter = ',', default_values_t = [Shape::Few, Shape::Crowd, Shape::Rate], default_value_if("quick", "true", "few"))]
    shapes: Vec<Shape>,
    /// How often everything is measured; with 1 the spread is only that within a run
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=20))]
    repeats: u32,
}

// What does not differ between cells.
#[derive(Args, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Settings {
    /// Requests a second in the open model
    #[arg(long, value_name = "N", default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(10..=20_000))]
    pub rate: u32,
    /// Measured seconds of a cell
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=600))]
    pub seconds: u32,
    /// Tiny coupons that are fought for in a cell of contests
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(10..=999))]
    pub contests: u32,
    /// Processors that each replica has for itself [default: all share the machine]; 0.1 is a tenth of one; needs root
    #[arg(long, value_name = "N", value_parser = within(0.01..=64.0))]
    pub shares: Option<f64>,
    /// The order of the cells, and the names of coupons; the same seed is the same order
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub seed: u64,
    /// Knobs that the cluster was given beside: `POOL_SIZE` and the like.
    #[arg(skip = given())]
    pub knobs: BTreeMap<String, String>,
}

#[derive(Clone, Serialize, Deserialize)]
pub struct Grid {
    pub settings: Settings,
    /// In this order.
    pub cells: Vec<Cell>,
}

/// What a person has set, but for what each cell sets by itself.
pub fn given() -> BTreeMap<String, String> {
    let mut knobs = inherited();
    knobs.retain(|name, _| ![BALANCE, DISTANCE_MS].contains(&name.as_str()));
    knobs
}

impl Grid {
    /// Every combination once in each repeat, however often its values are given. The same seed gives the same order.
    pub fn new(axes: &Axes, settings: Settings) -> Self {
        let mut random = Rng::with_seed(settings.seed);
        let cells = (1..=axes.repeats).flat_map(|repeat| axes.repeat(repeat, &mut random)).collect();
        Self { settings, cells }
    }

    /// How long these cells are guessed to take.
    pub fn estimate(&self, cells: &[Cell]) -> Duration {
        cells.iter().map(|cell| WARM_UP + self.settings.time(cell.shape) + AROUND).sum()
    }
}

impl Axes {
    fn repeat(&self, repeat: u32, random: &mut Rng) -> Vec<Cell> {
        let mut cells = Vec::new();
        let clusters =
            self.strategies.iter().flat_map(|&strategy| self.distances.iter().map(move |&it| (strategy, it)));
        for (strategy, distance_ms) in shuffled(clusters, random) {
            let mut counts = shuffled(self.replicas.iter().copied(), random);
            let fewest = counts.iter().enumerate().min_by_key(|(_, count)| **count).map_or(0, |(place, _)| place);
            counts.swap(0, fewest);
            for replicas in counts {
                let balances = if replicas == 1 { &[Balance::Home][..] } else { &self.balances };
                for balance in shuffled(balances.iter().copied(), random) {
                    let cell = |shape| Cell { shape, strategy, replicas, balance, distance_ms, repeat };
                    cells.extend(shuffled(self.shapes.iter().copied(), random).into_iter().map(cell));
                }
            }
        }
        cells
    }
}

/// Each value once.
fn shuffled<T: Ord>(values: impl Iterator<Item = T>, random: &mut Rng) -> Vec<T> {
    let mut values = Vec::from_iter(values.collect::<BTreeSet<_>>());
    random.shuffle(&mut values);
    values
}

/// Eight codes, by chance; the same seed and repeat give the same ones.
fn names(seed: u64, repeat: u32) -> Vec<String> {
    let mut random = Rng::with_seed(Rng::with_seed(seed).u64(..).wrapping_add(repeat.into()));
    (0..CODES).map(|_| (0..NAME).map(|_| random.alphanumeric()).collect()).collect()
}

impl Settings {
    fn contests(&self) -> Contests {
        Contests { coupons: self.contests, pieces: 20, over: 2, rate: self.rate }
    }

    /// The window.
    fn time(&self, shape: Shape) -> Duration {
        if shape == Shape::Contests { self.contests().time() } else { Duration::from_secs(self.seconds.into()) }
    }

    /// The load of a cell.
    pub fn load(&self, cell: Cell) -> Scenario {
        let times = [WARM_UP, self.time(cell.shape)];
        let issues = |connections, pace| Scenario::issues(plenty(1), connections, pace, times);
        // At most a connection for each request.
        let all = (WARM_UP + self.time(cell.shape)).as_millis() * u128::from(self.rate) / 1_000;
        let open = usize::try_from(all).map_or(CONNECTIONS_MAX, |all| all.min(CONNECTIONS_MAX));
        let load = match cell.shape {
            Shape::Few => issues(FEW, Pace::Closed),
            Shape::Crowd => issues(MANY, Pace::Closed),
            Shape::Rate => issues(open, Pace::Open(self.rate.into())),
            Shape::Contests => self.contests().scenario(open, WARM_UP),
            Shape::Codes => Scenario::issues(names(self.seed, cell.repeat), USERS, Pace::Closed, times),
        };
        // Refusals are answers here, and how many there are is one of the results.
        Scenario { expect: ANSWERS.into(), ..load }
    }
}

impl Cell {
    pub fn knobs(self) -> Knobs {
        Knobs::new(self.strategy, self.replicas).with(BALANCE, self.balance).with(DISTANCE_MS, self.distance_ms)
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    /// Every strategy, one replica and three counts with two balances, two distances, three shapes.
    const ALL: usize = 6 * (1 + 3 * 2) * 2 * 3;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        sweep: crate::sweep::Command,
    }

    fn grid(words: &str) -> Grid {
        Line::parse_from(["sweep"].into_iter().chain(words.split_whitespace())).sweep.grid()
    }

    #[test]
    fn every_repeat_has_every_cell_once_in_an_order_of_its_own() {
        let grid = grid("--repeats 2");
        let (one, other) = grid.cells.split_at(ALL);
        let again: Vec<_> = other.iter().map(|cell| Cell { repeat: cell.repeat - 1, ..*cell }).collect();

        assert!(one.iter().all(|cell| cell.repeat == 1));
        assert_ne!(one, again);
        assert_eq!(one.iter().collect::<BTreeSet<_>>(), again.iter().collect());
        assert_eq!(grid.cells.iter().map(ToString::to_string).collect::<BTreeSet<_>>().len(), 2 * ALL);
    }

    #[test]
    fn the_order_is_the_seed_s() {
        let cells = |words| grid(words).cells;

        assert_eq!(cells("--seed 1"), cells(""));
        assert_ne!(cells("--seed 2"), cells(""));
    }

    #[test]
    fn a_cluster_is_changed_once_for_each_count_and_begun_with_the_fewest() {
        let cells = grid("").cells;
        let cluster = |cell: &Cell| (cell.strategy, cell.distance_ms);
        let changes = |of: fn(&Cell, &Cell) -> bool| cells.windows(2).filter(|two| of(&two[0], &two[1])).count() + 1;

        assert_eq!(changes(|one, other| (one.strategy, one.distance_ms) != (other.strategy, other.distance_ms)), 12);
        assert_eq!(changes(|one, other| one.knobs() != other.knobs()), 12 * (1 + 3 * 2));
        for two in cells.windows(2).filter(|two| cluster(&two[0]) != cluster(&two[1])) {
            assert_eq!(two[1].replicas, 1, "{}", two[1]);
        }
    }

    #[test]
    fn with_one_replica_there_is_one_balance() {
        let names = |words| grid(words).cells.iter().map(ToString::to_string).collect::<BTreeSet<_>>();
        let scattered =
            names("--strategies batched --replicas 1,2 --balances scattered --distances 3 --shapes rate,rate");

        assert_eq!(
            scattered,
            ["rate-batched-x1-home-3ms-r1", "rate-batched-x2-scattered-3ms-r1"].map(String::from).into()
        );
        assert_eq!(names("--quick").len(), 15);
    }

    #[test]
    fn every_repeat_has_eight_codes_of_its_own_and_the_same_ones_at_the_same_seed() {
        let sets = |seed| (1..=10).map(|repeat| BTreeSet::from_iter(names(seed, repeat))).collect::<BTreeSet<_>>();

        assert!(sets(1).iter().all(|set| set.len() == CODES));
        assert_eq!(sets(1).iter().flatten().collect::<BTreeSet<_>>().len(), 10 * CODES);
        assert_eq!(sets(1), sets(1));
        assert!(sets(1).is_disjoint(&sets(2)));
    }

    #[test]
    fn a_share_is_a_part_of_a_processor_or_some_of_them() {
        assert_eq!(grid("--shares 0.1").settings.shares, Some(0.1));
        assert_eq!(grid("").settings.shares, None);
        for wrong in ["0", "-1", "NaN", "much"] {
            assert!(Line::try_parse_from(["sweep", "--shares", wrong]).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_full_sweep_takes_about_half_an_hour() {
        let grid = grid("");
        let minutes = grid.estimate(&grid.cells).as_secs() / 60;

        assert!((30..=36).contains(&minutes), "{minutes}");
    }
}
