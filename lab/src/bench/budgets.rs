//! The budgets: what is promised, and whether the samples keep it; and figures that promise nothing, each with its explanation.
//! Pure. A figure of several repeats is their median, with the lowest and the highest beside it.

use serde::Serialize;
use strum::Display;

use crate::measure::Sample;
use crate::numbers::{Spread, float, measured};

#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Bound {
    AtLeast(f64),
    AtMost(f64),
}

impl Bound {
    fn holds(self, figure: f64) -> bool {
        match self {
            Self::AtLeast(bound) => figure >= bound,
            Self::AtMost(bound) => figure <= bound,
        }
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Display)]
#[serde(rename_all = "camelCase")]
pub enum Standing {
    #[strum(to_string = "met, and the stretch")]
    Stretch,
    #[strum(to_string = "met")]
    Met,
    /// Nothing was promised.
    #[strum(to_string = "a figure")]
    Figure,
    #[strum(to_string = "MISSED")]
    Missed,
    /// A measurement broke a promise or was answered with what nobody expected: it has no figure.
    #[strum(to_string = "BROKEN")]
    Broken,
    /// It was to be measured and was not.
    #[strum(to_string = "NOT MEASURED")]
    Unmeasured,
    /// This run was not to measure it.
    #[default]
    #[strum(to_string = "left out")]
    LeftOut,
}

/// One line of the budgets' table.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Budget {
    pub name: &'static str,
    /// Empty for a ratio.
    pub unit: &'static str,
    /// What is promised; `None` where that is nothing.
    pub target: Option<Bound>,
    pub stretch: Option<Bound>,
    pub figure: Option<Spread>,
    pub standing: Standing,
    /// What must be known to read it.
    pub explanation: Option<&'static str>,
    /// The scenario whose value it is, and behind ` ÷ ` the one of the same repeat by which that is divided.
    #[serde(skip)]
    of: &'static str,
    #[serde(skip)]
    value: Value,
}

type Value = fn(&Sample) -> Option<f64>;

/// A figure that promises nothing.
fn figure(name: &'static str, unit: &'static str, of: &'static str, value: Value) -> Budget {
    let (target, stretch, figure, standing, explanation) = (None, None, None, Standing::default(), None);
    Budget { name, unit, target, stretch, figure, standing, explanation, of, value }
}

/// A rate by another one, which is to be at least so high.
fn ratio(name: &'static str, of: &'static str, bounds: [Option<f64>; 2]) -> Budget {
    let [target, stretch] = bounds.map(|bound| bound.map(Bound::AtLeast));
    Budget { target, stretch, ..figure(name, "", of, rate) }
}

/// A value that is to be at most so high.
fn most(name: &'static str, unit: &'static str, of: &'static str, value: Value, bounds: [Option<f64>; 2]) -> Budget {
    let [target, stretch] = bounds.map(|bound| bound.map(Bound::AtMost));
    Budget { target, stretch, ..figure(name, unit, of, value) }
}

fn rate(sample: &Sample) -> Option<f64> {
    measured(sample.rate)
}

fn p50(sample: &Sample) -> Option<f64> {
    Some(sample.latency?.p50)
}

fn p99(sample: &Sample) -> Option<f64> {
    Some(sample.latency?.p99)
}

fn lock_wait(sample: &Sample) -> Option<f64> {
    Some(sample.replicas.lock_wait?.p99)
}

fn jump(sample: &Sample) -> Option<f64> {
    Some(sample.queue_jump()?.p95)
}

/// Of the database, for each issue.
fn processor_time(sample: &Sample) -> Option<f64> {
    (sample.issued > 0).then(|| sample.cpu("mysqld") / float(sample.issued))
}

/// Answers that were no coupon, and orders that got none.
fn refused(sample: &Sample) -> Option<f64> {
    (sample.sent > 0).then(|| float(sample.answered - sample.issued + sample.errors.sum()))
}

/// Stands between the two scenarios of a ratio.
const BY: &str = " ÷ ";

const ONE_MACHINE: &str = "three servers share the processors that one server has for itself, and the disk";
const LOADERS: &str = "the same load by k6 and by ours: far from 1, one of them measures itself";

/// Target and stretch of each. Trivial is GET /version with as many connections in the same repeat.
#[rustfmt::skip]
fn all() -> Vec<Budget> {
    vec![
        ratio("issues ÷ trivial, 200 connections", "issue-200 ÷ version-200", [Some(0.44), Some(0.55)]),
        ratio("issues ÷ trivial, 1,000 connections", "issue-1000 ÷ version-1000", [Some(0.66), Some(0.75)]),
        most("p99 at the peak, 200 connections", "ms", "issue-200", p99, [Some(40.0), Some(20.0)]),
        most("p99 at the peak, 1,000 connections", "ms", "issue-1000", p99, [Some(120.0), Some(60.0)]),
        ratio("issues ÷ pessimistic at its best", "issue-200 ÷ pessimistic", [Some(15.0), Some(25.0)]),
        ratio("sold-out answers ÷ trivial", "sold-out ÷ version-200", [Some(0.85), Some(0.95)]),
        ratio("already-issued answers ÷ trivial", "already-issued ÷ version-200", [Some(0.85), Some(0.95)]),
        ratio("8 replicas ÷ 1, one code, 64 connections", "issue-64-of-8 ÷ issue-64-of-1", [Some(0.85), Some(0.95)]),
        ratio("8 replicas ÷ 1, one code, 200 connections", "issue-200-of-8 ÷ issue-200-of-1", [Some(0.85), Some(0.95)]),
        ratio("8 replicas ÷ 1, one code, 1,000 connections", "issue-1000-of-8 ÷ issue-1000-of-1", [Some(0.85), Some(0.95)]),
        ratio("8 replicas ÷ 1 at 1 ms, 200 connections", "far-200-of-8 ÷ far-200-of-1", [Some(0.85), Some(0.95)]),
        ratio("home ÷ scattered, 8 replicas, 64 connections", "issue-64-of-8 ÷ scattered-64-of-8", [Some(3.0), Some(6.0)]),
        ratio("home ÷ scattered at 1 ms, 8 replicas, 64", "far-64-of-8 ÷ far-scattered-64-of-8", [Some(4.0), Some(8.0)]),
        most("one user alone, p50 of an issue", "ms", "alone", p50, [Some(1.2), Some(1.0)]),
        most("open model, p99 at a third of the peak", "ms", "open-third", p99, [Some(30.0), Some(15.0)]),
        most("lock wait p99 at 3,000/s, 1 replica", "ms", "rate-3000-of-1", lock_wait, [Some(3.0), Some(2.0)]),
        most("lock wait p99 at 3,000/s, 8 replicas ÷ 1", "", "rate-3000-of-8 ÷ rate-3000-of-1", lock_wait, [Some(1.5), Some(1.1)]),
        most("queue-jump p95, 4 replicas", "ms", "jump-of-4", jump, [None, Some(0.0)]),
        most("queue-jump p95, 8 replicas", "ms", "jump-of-8", jump, [Some(2.0), Some(0.0)]),
        ratio("issues of 32 codes ÷ of one, 3,000/s", "rate-3000-32-codes ÷ rate-3000-of-4", [Some(0.95), None]),
        most("10,000 users at once: resets, 5xx, unanswered", "", "rush", |it| it.unserved, [Some(0.0), None]),
        most("memory of a replica under that", "MiB", "rush", |it| it.peak_mebibytes, [Some(64.0), Some(48.0)]),
        most("the same with 8 replicas: unserved", "", "rush-of-8", |it| it.unserved, [Some(0.0), None]),
        ratio("issues of 32 codes ÷ of one, 1,000 connections", "issue-32-codes ÷ issue-1000-of-4", [Some(0.60), Some(0.75)]),
        Budget { explanation: Some(ONE_MACHINE), ..figure("issues of a group ÷ of one server, 200 connections", "", "group-200 ÷ issue-200", rate) },
        Budget { explanation: Some(ONE_MACHINE), ..figure("processor time of the database, group ÷ one server", "", "group-200 ÷ issue-200", processor_time) },
        most("no issue when the primary was killed", "s", "group-primary-killed", |it| it.longest_gap, [Some(8.0), None]),
        most("no issue when the primary was switched", "s", "group-switched", |it| it.longest_gap, [Some(1.0), None]),
        most("refused when the primary was switched", "", "group-switched", refused, [Some(0.0), None]),
        most("p99 while a secondary was killed ÷ undisturbed", "", "group-secondary-killed ÷ group-undisturbed", p99, [Some(2.0), None]),
        Budget { explanation: Some(LOADERS), ..figure("k6 ÷ lab load: answers at 1,000/s", "", "arrival-1000-k6 ÷ arrival-1000", rate) },
        Budget { explanation: Some(LOADERS), ..figure("k6 ÷ lab load: p50 at 1,000/s", "", "arrival-1000-k6 ÷ arrival-1000", p50) },
    ]
}

/// The scenarios by whose figures those of this one are divided.
pub fn divisors(scenario: &str) -> impl Iterator<Item = &'static str> {
    let ratios = all().into_iter().filter_map(|budget| budget.of.split_once(BY));
    ratios.filter(move |(of, _)| *of == scenario).map(|(_, by)| by)
}

/// Judges every budget. `planned` tells whether a scenario was to be measured.
pub fn judge(samples: &[Sample], planned: impl Fn(&str) -> bool) -> Vec<Budget> {
    let judged = |budget: Budget| {
        let figure = Spread::of(budget.values(samples));
        Budget { figure, standing: budget.standing(figure, samples, &planned), ..budget }
    };
    all().into_iter().map(judged).collect()
}

impl Budget {
    fn standing(&self, figure: Option<Spread>, samples: &[Sample], planned: impl Fn(&str) -> bool) -> Standing {
        let needs = || self.of.split(BY);
        let is_broken = samples.iter().any(|it| needs().any(|name| name == it.scenario) && it.broken.is_some());
        match figure {
            _ if !needs().all(&planned) => Standing::LeftOut,
            _ if is_broken => Standing::Broken,
            None => Standing::Unmeasured,
            Some(spread) if self.target.is_some_and(|bound| !bound.holds(spread.median)) => Standing::Missed,
            Some(spread) if self.stretch.is_some_and(|bound| bound.holds(spread.median)) => Standing::Stretch,
            Some(_) if self.target.is_none() => Standing::Figure,
            Some(_) => Standing::Met,
        }
    }

    /// One value for each repeat in which all was measured that it needs.
    fn values(&self, samples: &[Sample]) -> Vec<f64> {
        let good = |name: &'static str| samples.iter().filter(move |it| it.scenario == name && it.broken.is_none());
        let Some((of, by)) = self.of.split_once(BY) else { return good(self.of).filter_map(self.value).collect() };
        let ratio = |sample: &Sample| {
            let other = good(by).find(|it| it.repeat == sample.repeat)?;
            Some((self.value)(sample)? / (self.value)(other)?)
        };
        good(of).filter_map(ratio).collect()
    }
}

/// The exit status of a run: 0 every budget that was to be measured is met, 1 one is missed or a measurement for it failed or
/// broke a promise, 2 one was not measured.
pub fn exit(lines: &[Budget]) -> u8 {
    let any = |wanted: &[Standing]| lines.iter().any(|line| wanted.contains(&line.standing));
    if any(&[Standing::Missed, Standing::Broken]) {
        return 1;
    }
    if any(&[Standing::Unmeasured]) { 2 } else { 0 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::measure::Times;

    const RATIO: &str = "issues ÷ trivial, 200 connections";

    fn sample(scenario: &str, repeat: u32, rate: f64) -> Sample {
        Sample { scenario: scenario.to_owned(), repeat, rate, ..Sample::default() }
    }

    fn standing(samples: &[Sample], name: &str) -> (Standing, Option<f64>) {
        let line = judge(samples, |_| true).into_iter().find(|line| line.name == name).unwrap();
        (line.standing, line.figure.map(|figure| figure.median))
    }

    #[test]
    fn a_ratio_is_taken_within_each_repeat_the_median_decides_and_the_bound_itself_is_met() {
        let ratio_of = |rates: &[(f64, f64)]| {
            let issues = (1..).zip(rates).map(|(repeat, rates)| sample("issue-200", repeat, rates.0));
            let trivial = (1..).zip(rates).map(|(repeat, rates)| sample("version-200", repeat, rates.1));
            standing(&issues.chain(trivial).collect::<Vec<_>>(), RATIO)
        };
        // The machine was half as fast in the second repeat; that is no change of the ratio.
        assert_eq!(ratio_of(&[(50.0, 100.0), (25.0, 50.0), (49.0, 100.0)]), (Standing::Met, Some(0.5)));
        assert_eq!(ratio_of(&[(1.0, 100.0), (44.0, 100.0), (90.0, 100.0)]).0, Standing::Met);
        assert_eq!(ratio_of(&[(90.0, 100.0), (43.0, 100.0), (43.0, 100.0)]).0, Standing::Missed);
        assert_eq!(ratio_of(&[(55.0, 100.0)]).0, Standing::Stretch);
    }

    #[test]
    fn most_is_met_from_below() {
        let mut alone = sample("alone", 1, 1.0);
        for (p50, expected) in [(0.9, Standing::Stretch), (1.2, Standing::Met), (1.21, Standing::Missed)] {
            alone.latency = Some(Times { p50, ..Times::default() });
            assert_eq!(standing(&[alone.clone()], "one user alone, p50 of an issue").0, expected, "{p50}");
        }
    }

    #[test]
    fn a_broken_promise_has_no_figure_and_is_no_pass() {
        let broken = Sample { broken: Some("oversold".to_owned()), ..sample("issue-200", 1, 50.0) };

        assert_eq!(standing(&[broken, sample("version-200", 1, 100.0)], RATIO), (Standing::Broken, None));
    }

    #[test]
    fn what_was_not_to_be_measured_is_left_out_and_what_failed_is_not() {
        let judged = judge(&[], |scenario| scenario == "alone");
        let of = |name: &str| judged.iter().find(|line| line.name == name).unwrap().standing;

        assert_eq!(of("one user alone, p50 of an issue"), Standing::Unmeasured);
        assert_eq!((of(RATIO), exit(&judged)), (Standing::LeftOut, 2));
    }

    #[test]
    fn a_figure_that_promises_nothing_is_no_budget_and_a_missed_one_outweighs_the_unmeasured() {
        let samples = [sample("arrival-1000-k6", 1, 50.0), sample("arrival-1000", 1, 100.0)];
        assert_eq!(standing(&samples, "k6 ÷ lab load: answers at 1,000/s"), (Standing::Figure, Some(0.5)));

        let mut lines = judge(&samples, |_| true);
        assert_eq!(exit(&lines), 2);
        lines[0].standing = Standing::Missed;
        assert_eq!(exit(&lines), 1);
        lines.retain(|line| line.standing == Standing::Figure);
        assert_eq!((lines.len(), exit(&lines)), (1, 0));
    }
}
