//! What the cells say, in sentences made by plain rules from the numbers alone. A rule that has nothing to say is silent; a
//! difference within the spread is none.

use super::axis::{milliseconds, short};
use super::data::{Data, Point};
use super::rows::percent;
use super::usl;
use crate::strategy::Strategy;
use crate::sweep::found::Found;
use crate::sweep::plan::Shape;

mod limits;
mod scaling;

/// What is said of the whole sweep.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Findings {
    /// What was found.
    pub results: Vec<String>,
    /// What makes figures less than they look.
    pub limits: Vec<String>,
}

/// Everything that the rules find about the whole sweep.
pub fn all(data: &Data) -> Findings {
    Findings { results: scaling::overall(data), limits: limits::find(data) }
}

/// What more replicas did under one shape of load: a line a strategy that there is something to say about.
pub fn of_shape(data: &Data, shape: Shape) -> Vec<String> {
    data.strategies(shape).into_iter().filter_map(|strategy| scaling::of_strategy(data, shape, strategy)).collect()
}

/// "3 of 24 cells".
fn of_cells(some: usize, all: usize) -> String {
    format!("{some} of {all} cells")
}

/// The cell where a figure is highest.
fn highest<'a>(cells: impl IntoIterator<Item = &'a Found>, figure: impl Fn(&Found) -> f64) -> Option<&'a Found> {
    cells.into_iter().max_by(|one, other| figure(one).total_cmp(&figure(other)))
}

/// As people call a cell.
fn named(found: &Found) -> String {
    format!("{} \u{d7}{}, {}", found.cell.strategy, found.cell.replicas, found.cell.shape)
}

/// A shape at the beginning of a sentence.
fn under(shape: Shape) -> &'static str {
    match shape {
        Shape::Hot => "One hot coupon",
        Shape::Many => "32 coupons",
        Shape::Rush => "The rush",
    }
}

/// Whether the open model's rate was reached everywhere, so that throughput is the rate's and not the service's.
pub fn is_rate_bound(data: &Data, shape: Shape, strategy: Strategy) -> bool {
    rate_bound_at(data, shape, strategy).is_some()
}

/// The smallest number of replicas at which the offered rate was reached.
fn rate_bound_at(data: &Data, shape: Shape, strategy: Strategy) -> Option<u32> {
    const REACHED: f64 = 0.97;
    if shape == Shape::Rush {
        return None;
    }
    let rate = f64::from(data.plan.settings.rate);
    let reached = |n: &u32| data.throughput(shape, strategy, *n).is_some_and(|it| it.value >= REACHED * rate);
    data.replicas(shape).into_iter().find(reached)
}

/// Why there is no fit of the law, or the fit.
pub fn law(data: &Data, shape: Shape, strategy: Strategy) -> Result<usl::Fit, String> {
    let observations = data.observations(shape, strategy);
    let mut replicas: Vec<f64> = observations.iter().map(|(n, _)| *n).collect();
    replicas.dedup();
    if replicas.len() < usl::REPLICAS_MIN {
        return Err(format!("it takes {} numbers of replicas, here are {}", usl::REPLICAS_MIN, replicas.len()));
    }
    if let Some(n) = rate_bound_at(data, shape, strategy) {
        return Err(format!(
            "the offered rate was reached with {n} replicas: the throughput is the rate's, not the service's"
        ));
    }
    if observations.len() < usl::OBSERVATIONS_MIN {
        return Err("one observation each: as many parameters fit any curve; measure with REPEATS=2 or more".to_owned());
    }
    usl::fit(&observations).ok_or_else(|| "a throughput of zero".to_owned())
}

/// "a (b to c)", or "a" alone.
fn spread(point: Point, unit: fn(f64) -> String) -> String {
    if point.low < point.high {
        format!("{} ({} to {})", unit(point.value), unit(point.low), unit(point.high))
    } else {
        unit(point.value)
    }
}

/// A rate in a sentence.
fn per_second(value: f64) -> String {
    format!("{}/s", short(value))
}

/// Processors in a sentence.
fn processors(used: f64, all: f64) -> String {
    format!("{} of {} processors", short((used * 100.0).round() / 100.0), short(all.round()))
}

#[cfg(test)]
mod tests {
    use super::super::data::tests::data;
    use super::*;

    #[test]
    fn a_rate_that_was_reached_is_no_law() {
        let data = data(Shape::Hot, &[Strategy::Batched], &[1, 2, 4, 8], |_| ());

        assert!(is_rate_bound(&data, Shape::Hot, Strategy::Batched));
        assert!(law(&data, Shape::Hot, Strategy::Batched).unwrap_err().contains("the rate's"));
    }

    #[test]
    fn three_numbers_of_replicas_are_no_law() {
        let data = data(Shape::Hot, &[Strategy::Redlock], &[1, 2, 4], |found| found.whole.issued = 300.0);

        assert!(law(&data, Shape::Hot, Strategy::Redlock).unwrap_err().ends_with("here are 3"));
    }

    #[test]
    fn a_strategy_below_the_rate_has_a_law() {
        let data = data(Shape::Hot, &[Strategy::Redlock], &[1, 2, 4, 8], |found| {
            let issued = 300.0 / f64::from(found.cell.replicas).sqrt();
            found.whole.issued = issued;
            found.parts.iter_mut().zip([0.98, 1.0, 1.01, 1.02]).for_each(|(part, by)| part.issued = issued * by);
        });

        let fit = law(&data, Shape::Hot, Strategy::Redlock).unwrap();
        assert!((fit.law.lambda - 300.0).abs() < 30.0, "{fit:?}");
    }

    #[test]
    fn a_rush_seen_once_is_no_law() {
        let data = data(Shape::Rush, &[Strategy::Redlock], &[1, 2, 4, 8], |found| found.parts.clear());

        assert!(law(&data, Shape::Rush, Strategy::Redlock).unwrap_err().contains("REPEATS=2"));
    }
}
