//! The budgets: what is promised, and whether the samples keep it; and figures that promise nothing, each with its explanation.
//! Pure. A figure of several repeats is their median, with the lowest and the highest beside it.

use serde::Serialize;

use crate::measure::numbers::Spread;
use crate::measure::sample::Sample;

/// What must hold of a figure.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Bound {
    /// Not less.
    AtLeast(f64),
    /// Not more.
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

/// What became of a budget.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Standing {
    /// The target is kept, and the stretch too.
    Stretch,
    /// The target is kept.
    Met,
    /// Nothing was promised.
    Figure,
    /// The target is not kept.
    Missed,
    /// A measurement broke a promise or was answered with what nobody expected: it has no figure.
    Broken,
    /// It was to be measured and was not.
    Unmeasured,
    /// This run was not to measure it.
    LeftOut,
}

/// One line of the budgets' table.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Line {
    /// What is bounded.
    pub name: &'static str,
    /// Its unit; empty for a ratio.
    pub unit: &'static str,
    /// What is promised; `None` where that is nothing.
    pub target: Option<Bound>,
    /// What would be better still.
    pub stretch: Option<Bound>,
    /// What was found.
    pub figure: Option<Spread>,
    /// Whether it is kept.
    pub standing: Standing,
    /// What must be known to read it.
    pub explanation: Option<&'static str>,
}

type Value = fn(&Sample) -> Option<f64>;

/// How a figure comes from the samples of one repeat.
enum Figure {
    /// The value of a scenario by that of another.
    Ratio(&'static str, &'static str, Value),
    /// A sample's own.
    Own(&'static str, Value),
}

struct Budget {
    name: &'static str,
    unit: &'static str,
    figure: Figure,
    target: Option<Bound>,
    stretch: Option<Bound>,
    explanation: Option<&'static str>,
}

/// A rate by another one, which is to be at least so high.
fn ratio(name: &'static str, of: &'static str, by: &'static str, [target, stretch]: [Option<f64>; 2]) -> Budget {
    let [target, stretch] = [target, stretch].map(|bound| bound.map(Bound::AtLeast));
    Budget { name, unit: "", figure: Figure::Ratio(of, by, rate), target, stretch, explanation: None }
}

/// A sample's own value, which is to be at most so high.
fn own(name: &'static str, unit: &'static str, of: &'static str, value: Value, bounds: [Option<f64>; 2]) -> Budget {
    let [target, stretch] = bounds.map(|bound| bound.map(Bound::AtMost));
    Budget { name, unit, figure: Figure::Own(of, value), target, stretch, explanation: None }
}

/// A value by another one, which promises nothing.
fn figure(name: &'static str, [of, by]: [&'static str; 2], value: Value, explanation: &'static str) -> Budget {
    let figure = Figure::Ratio(of, by, value);
    Budget { name, unit: "", figure, target: None, stretch: None, explanation: Some(explanation) }
}

fn rate(sample: &Sample) -> Option<f64> {
    (sample.rate > 0.0).then_some(sample.rate)
}

fn p50(sample: &Sample) -> Option<f64> {
    (sample.answered > 0).then_some(sample.latency.p50)
}

fn p99(sample: &Sample) -> Option<f64> {
    (sample.answered > 0).then_some(sample.latency.p99)
}

fn lock_wait(sample: &Sample) -> Option<f64> {
    sample.replicas.lock_wait.map(|wait| wait.p99)
}

fn jump(sample: &Sample) -> Option<f64> {
    sample.fairness.as_ref()?.queue_jump.map(|jump| jump.p95)
}

fn jump_by_wait(sample: &Sample) -> Option<f64> {
    Some(jump(sample)? / lock_wait(sample)?)
}

fn unserved(sample: &Sample) -> Option<f64> {
    sample.unserved
}

fn memory(sample: &Sample) -> Option<f64> {
    sample.peak_mebibytes
}

const SMALL_BATCHES: &str = "1,000 users over 32 codes leave a batch a tenth of the orders that it has with one code, and each batch costs a \
                             lock and a commit, however many orders are in it";
const LOADERS: &str = "the same load by k6 and by ours: far from 1, one of them measures itself";

/// Target and stretch of each. Trivial is GET /version with as many connections in the same repeat.
#[rustfmt::skip]
fn all() -> Vec<Budget> {
    vec![
        ratio("issues ÷ trivial, 200 connections", "issue-200", "version-200", [Some(0.36), Some(0.50)]),
        ratio("issues ÷ trivial, 1,000 connections", "issue-1000", "version-1000", [Some(0.55), Some(0.68)]),
        own("p99 at the peak, 200 connections", "ms", "issue-200", p99, [Some(40.0), Some(20.0)]),
        own("p99 at the peak, 1,000 connections", "ms", "issue-1000", p99, [Some(120.0), Some(60.0)]),
        ratio("issues ÷ pessimistic at its best", "issue-200", "pessimistic", [Some(15.0), Some(25.0)]),
        ratio("sold-out answers ÷ trivial", "sold-out", "version-200", [Some(0.85), Some(0.95)]),
        ratio("already-issued answers ÷ trivial", "already-issued", "version-200", [Some(0.85), Some(0.95)]),
        own("one user alone, p50 of an issue", "ms", "alone", p50, [Some(1.5), Some(1.0)]),
        own("open model, p99 at a third of the peak", "ms", "open-third", p99, [Some(30.0), Some(15.0)]),
        own("lock wait p99 at 3,000/s, 1 replica", "ms", "rate-3000-of-1", lock_wait, [Some(3.0), Some(2.0)]),
        own("lock wait p99 at 3,000/s, 8 replicas", "ms", "rate-3000-of-8", lock_wait, [Some(60.0), Some(20.0)]),
        own("queue-jump p95 ÷ lock wait p99, 4 replicas", "", "jump", jump_by_wait, [Some(2.0), None]),
        own("queue-jump p95, 4 replicas", "ms", "jump", jump, [None, Some(10.0)]),
        ratio("issues of 32 codes ÷ of one, 3,000/s", "rate-3000-32-codes", "rate-3000-of-4", [Some(0.95), None]),
        own("10,000 users at once: resets, 5xx, unanswered", "", "rush", unserved, [Some(0.0), None]),
        own("memory of a replica under that", "MiB", "rush", memory, [Some(64.0), Some(48.0)]),
        figure("issues of 32 codes ÷ of one, 1,000 connections", ["issue-32-codes", "issue-1000"], rate, SMALL_BATCHES),
        figure("k6 ÷ lab load: answers at 1,000/s", ["arrival-1000-k6", "arrival-1000"], rate, LOADERS),
        figure("k6 ÷ lab load: p50 at 1,000/s", ["arrival-1000-k6", "arrival-1000"], p50, LOADERS),
    ]
}

/// Judges every budget. `planned` tells whether a scenario was to be measured.
pub fn judge(samples: &[Sample], planned: impl Fn(&str) -> bool) -> Vec<Line> {
    all().iter().map(|budget| line(budget, samples, &planned)).collect()
}

fn line(budget: &Budget, samples: &[Sample], planned: &impl Fn(&str) -> bool) -> Line {
    let Budget { name, unit, target, stretch, ref figure, explanation } = *budget;
    let needs: Vec<&str> = match *figure {
        Figure::Ratio(of, by, _) => vec![of, by],
        Figure::Own(of, _) => vec![of],
    };
    let is_broken = samples.iter().any(|it| needs.contains(&it.scenario.as_str()) && it.broken.is_some());
    let found = Spread::of(values(figure, samples));
    let standing = match found {
        _ if !needs.iter().all(|scenario| planned(scenario)) => Standing::LeftOut,
        _ if is_broken => Standing::Broken,
        None => Standing::Unmeasured,
        Some(spread) if target.is_some_and(|bound| !bound.holds(spread.median)) => Standing::Missed,
        Some(spread) if stretch.is_some_and(|bound| bound.holds(spread.median)) => Standing::Stretch,
        Some(_) if target.is_none() => Standing::Figure,
        Some(_) => Standing::Met,
    };
    Line { name, unit, target, stretch, figure: found, standing, explanation }
}

/// One value for each repeat in which all was measured that it needs.
fn values(figure: &Figure, samples: &[Sample]) -> Vec<f64> {
    let good = |scenario: &'static str| samples.iter().filter(move |it| it.scenario == scenario && it.broken.is_none());
    match *figure {
        Figure::Own(scenario, value) => good(scenario).filter_map(value).collect(),
        Figure::Ratio(of, by, value) => {
            let other = |repeat| good(by).find(|it| it.repeat == repeat);
            good(of).filter_map(|it| Some(value(it)? / value(other(it.repeat)?)?)).collect()
        }
    }
}

/// The exit status of a run: 0 every budget that was to be measured is met, 1 one is missed or a measurement for it failed or
/// broke a promise, 2 one was not measured.
pub fn exit(lines: &[Line]) -> u8 {
    let any = |wanted: &[Standing]| lines.iter().any(|line| wanted.contains(&line.standing));
    if any(&[Standing::Missed, Standing::Broken]) {
        return 1;
    }
    if any(&[Standing::Unmeasured]) { 2 } else { 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(scenario: &str, repeat: u32, rate: f64) -> Sample {
        Sample { scenario: scenario.to_owned(), repeat, rate, ..Sample::default() }
    }

    fn standing(samples: &[Sample], name: &str) -> (Standing, Option<f64>) {
        let line = judge(samples, |_| true).into_iter().find(|line| line.name == name).unwrap();
        (line.standing, line.figure.map(|figure| figure.median))
    }

    fn ratio_of(rates: &[(f64, f64)]) -> (Standing, Option<f64>) {
        let both = |(repeat, (issues, trivial)): (u32, &(f64, f64))| {
            [sample("issue-200", repeat, *issues), sample("version-200", repeat, *trivial)]
        };
        let samples: Vec<_> = (1..).zip(rates).flat_map(both).collect();
        standing(&samples, "issues ÷ trivial, 200 connections")
    }

    #[test]
    fn a_ratio_is_taken_within_each_repeat() {
        // The machine was half as fast in the second repeat; that is no change of the ratio.
        assert_eq!(ratio_of(&[(40.0, 100.0), (20.0, 50.0), (39.0, 100.0)]), (Standing::Met, Some(0.4)));
    }

    #[test]
    fn the_median_decides_and_the_bound_itself_is_met() {
        assert_eq!(ratio_of(&[(1.0, 100.0), (36.0, 100.0), (90.0, 100.0)]).0, Standing::Met);
        assert_eq!(ratio_of(&[(90.0, 100.0), (35.0, 100.0), (35.0, 100.0)]).0, Standing::Missed);
        assert_eq!(ratio_of(&[(50.0, 100.0)]).0, Standing::Stretch);
    }

    #[test]
    fn most_is_met_from_below() {
        let mut alone = sample("alone", 1, 1.0);
        alone.answered = 1;
        for (p50, expected) in [(0.9, Standing::Stretch), (1.5, Standing::Met), (1.51, Standing::Missed)] {
            alone.latency.p50 = p50;
            assert_eq!(standing(&[alone.clone()], "one user alone, p50 of an issue").0, expected, "{p50}");
        }
    }

    #[test]
    fn a_broken_promise_has_no_figure_and_is_no_pass() {
        let mut broken = sample("issue-200", 1, 50.0);
        broken.broken = Some("oversold".to_owned());

        assert_eq!(
            standing(&[broken, sample("version-200", 1, 100.0)], "issues ÷ trivial, 200 connections"),
            (Standing::Broken, None)
        );
    }

    #[test]
    fn what_was_not_to_be_measured_is_left_out_and_what_failed_is_not() {
        let judged = judge(&[], |scenario| scenario == "alone");
        let of = |name: &str| judged.iter().find(|line| line.name.starts_with(name)).unwrap().standing;

        assert_eq!(of("one user alone"), Standing::Unmeasured);
        assert_eq!(of("issues ÷ trivial"), Standing::LeftOut);
        assert_eq!(exit(&judged), 2);
    }

    #[test]
    fn a_figure_that_promises_nothing_is_no_budget() {
        let samples = [sample("issue-32-codes", 1, 50.0), sample("issue-1000", 1, 100.0)];

        assert_eq!(standing(&samples, "issues of 32 codes ÷ of one, 1,000 connections"), (Standing::Figure, Some(0.5)));
        let mut judged = judge(&samples, |_| true);
        judged.retain(|line| line.standing == Standing::Figure);
        assert_eq!((judged.len(), exit(&judged)), (1, 0));
    }

    #[test]
    fn a_missed_budget_outweighs_an_unmeasured_one() {
        let mut lines = judge(&[], |_| true);
        assert_eq!(exit(&lines), 2);
        lines[0].standing = Standing::Missed;
        assert_eq!(exit(&lines), 1);
        for line in &mut lines {
            line.standing = Standing::Met;
        }
        assert_eq!(exit(&lines), 0);
    }
}
