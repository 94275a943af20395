//! The cells by their place in the grid, and what several observations of one place come to.

use crate::strategy::Strategy;
use crate::sweep::folder::Setting;
use crate::sweep::found::{Found, Part};
use crate::sweep::plan::{Plan, Shape};

/// Everything that the report is made of.
#[derive(Debug)]
pub struct Data {
    /// What was meant to be measured.
    pub plan: Plan,
    /// Where.
    pub setting: Setting,
    /// What was, in the order of the plan.
    pub found: Vec<Found>,
}

/// The median over repeats, and the least and the most that was seen in any part of any repeat.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Point {
    /// Median.
    pub value: f64,
    /// Least and most; equal to the value where there is one observation only.
    pub low: f64,
    /// See above.
    pub high: f64,
}

impl Data {
    /// The shapes that were measured.
    pub fn shapes(&self) -> Vec<Shape> {
        Shape::ALL.into_iter().filter(|shape| self.found.iter().any(|it| it.cell.shape == *shape)).collect()
    }

    /// The strategies that were measured under a shape.
    pub fn strategies(&self, shape: Shape) -> Vec<Strategy> {
        let is_there = |strategy: &Strategy| self.of_shape(shape).any(|it| it.cell.strategy == *strategy);
        Strategy::ALL.into_iter().filter(is_there).collect()
    }

    /// The numbers of replicas that were measured under a shape.
    pub fn replicas(&self, shape: Shape) -> Vec<u32> {
        let mut replicas: Vec<u32> = self.of_shape(shape).map(|it| it.cell.replicas).collect();
        replicas.sort_unstable();
        replicas.dedup();
        replicas
    }

    /// All cells of a shape.
    pub fn of_shape(&self, shape: Shape) -> impl Iterator<Item = &Found> {
        self.found.iter().filter(move |it| it.cell.shape == shape)
    }

    /// All repeats of one place in the grid.
    pub fn at(&self, shape: Shape, strategy: Strategy, replicas: u32) -> Vec<&Found> {
        let cells = self.of_shape(shape);
        cells.filter(|it| it.cell.strategy == strategy && it.cell.replicas == replicas).collect()
    }

    /// A figure of the window at one place; `None` where it was not measured.
    pub fn point(
        &self,
        shape: Shape,
        strategy: Strategy,
        replicas: u32,
        figure: fn(&Part) -> Option<f64>,
    ) -> Option<Point> {
        let cells = self.at(shape, strategy, replicas);
        let wholes: Vec<f64> = cells.iter().filter_map(|it| figure(&it.whole)).collect();
        let parts: Vec<f64> = cells.iter().flat_map(|it| &it.parts).filter_map(figure).collect();
        Point::of(wholes, &parts)
    }

    /// Coupons a second at one place.
    pub fn throughput(&self, shape: Shape, strategy: Strategy, replicas: u32) -> Option<Point> {
        let cells = self.at(shape, strategy, replicas);
        Point::of(cells.iter().map(|it| it.throughput()).collect(), &parts_issued(&cells))
    }

    /// Every observation of throughput with its number of replicas.
    pub fn observations(&self, shape: Shape, strategy: Strategy) -> Vec<(f64, f64)> {
        let mut found = Vec::new();
        for replicas in self.replicas(shape) {
            let cells = self.at(shape, strategy, replicas);
            let mut seen = parts_issued(&cells);
            if seen.is_empty() {
                seen = cells.iter().map(|it| it.throughput()).collect();
            }
            found.extend(seen.into_iter().map(|issued| (f64::from(replicas), issued)));
        }
        found
    }
}

fn parts_issued(cells: &[&Found]) -> Vec<f64> {
    cells.iter().flat_map(|it| &it.parts).map(|part| part.issued).collect()
}

impl Point {
    /// `None` without a value.
    fn of(mut wholes: Vec<f64>, parts: &[f64]) -> Option<Self> {
        wholes.sort_by(f64::total_cmp);
        let value = median(&wholes)?;
        let all = || wholes.iter().chain(parts).copied();
        Some(Self { value, low: all().fold(value, f64::min), high: all().fold(value, f64::max) })
    }

    /// Whether all that was seen here lies above all that was seen there.
    pub fn is_above(&self, other: &Self) -> bool {
        self.low > other.high
    }
}

/// Of sorted values.
pub fn median(sorted: &[f64]) -> Option<f64> {
    let middle = sorted.len() / 2;
    match sorted.len() {
        0 => None,
        count if count % 2 == 1 => Some(sorted[middle]),
        _ => Some(f64::midpoint(sorted[middle - 1], sorted[middle])),
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::sweep::found::{Jump, Processors, Times, Verdict};
    use crate::sweep::plan::tests::settings;
    use crate::sweep::plan::{Cell, Grid};

    /// A sweep of one shape, each cell made from its place.
    pub fn data(shape: Shape, strategies: &[Strategy], replicas: &[u32], change: impl Fn(&mut Found)) -> Data {
        let grid = Grid { replicas: replicas.into(), strategies: strategies.into(), shapes: vec![shape], repeats: 1 };
        let plan = Plan::new(&grid, settings(1));
        let found = plan.cells.iter().map(|cell| found(*cell, &change)).collect();
        Data { plan, setting: Setting::default(), found }
    }

    fn found(cell: Cell, change: impl Fn(&mut Found)) -> Found {
        let times = Times { p50: 1.0, p95: 2.0, p99: 3.0 };
        let part =
            Part { seconds: 3.0, issued: 1_000.0, answered: 1_000.0, lock_wait: Some(times), latency: Some(times) };
        let clean = Verdict { clean: true, ..Verdict::default() };
        let mut found = Found {
            cell,
            started: String::new(),
            took_seconds: 30.0,
            commit: "abc".to_owned(),
            whole: part.clone(),
            parts: vec![part; 4],
            client: times,
            outcomes: [("issued".to_owned(), 12_000)].into(),
            sent: 12_000,
            dropped: 0,
            drain: None,
            processors: Processors { all: 2.0, generator: 0.2, service: 0.3, ..Processors::default() },
            batch_size: None,
            shares: std::collections::BTreeMap::default(),
            fairness: crate::sweep::found::Fairness { verdict: clean.clone(), ..Default::default() },
            verdict: clean,
            remarks: Vec::new(),
        };
        found.fairness.rounds = 200;
        found.fairness.played = 200;
        found.fairness.jump = Some(Jump { p50: 0.0, p95: 4.0, max: 9.0 });
        change(&mut found);
        found
    }

    #[test]
    fn a_point_is_the_median_with_all_that_was_seen_around_it() {
        let point = Point::of(vec![3.0, 1.0, 2.0], &[0.5, 2.5]).unwrap();

        assert_eq!(point, Point { value: 2.0, low: 0.5, high: 3.0 });
        assert_eq!(Point::of(vec![], &[1.0]), None);
        assert_eq!(median(&[1.0, 2.0, 4.0, 9.0]), Some(3.0));
    }

    #[test]
    fn spreads_that_touch_are_no_difference() {
        let point = |low, high| Point { value: low, low, high };

        assert!(point(2.0, 3.0).is_above(&point(1.0, 1.9)));
        assert!(!point(2.0, 3.0).is_above(&point(1.0, 2.0)));
    }

    #[test]
    fn every_part_is_an_observation() {
        let data = data(Shape::Hot, &[Strategy::Batched], &[1, 2], |_| ());

        assert_eq!(data.observations(Shape::Hot, Strategy::Batched).len(), 8);
        assert_eq!(data.throughput(Shape::Hot, Strategy::Batched, 2).map(|it| it.value), Some(1_000.0));
        assert_eq!(data.throughput(Shape::Rush, Strategy::Batched, 2), None);
    }
}
