//! The budgets: what is promised, and whether the samples keep it. Pure; a figure of several rounds is their median, with
//! the lowest and the highest beside it.

use serde::Serialize;

use super::sample::Sample;

/// The median of several rounds, with the lowest and the highest.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Spread {
    /// The middle one, or the mean of the two in the middle.
    pub median: f64,
    /// The lowest.
    pub min: f64,
    /// The highest.
    pub max: f64,
    /// How many rounds.
    pub rounds: usize,
}

impl Spread {
    /// `None` without values.
    pub fn of(values: impl IntoIterator<Item = f64>) -> Option<Self> {
        let mut values: Vec<f64> = values.into_iter().collect();
        values.sort_by(f64::total_cmp);
        let (min, max, rounds) = (*values.first()?, *values.last()?, values.len());
        let median = f64::midpoint(values[(rounds - 1) / 2], values[rounds / 2]);
        Some(Self { median, min, max, rounds })
    }
}

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
pub enum Verdict {
    /// The target is kept, and the stretch too.
    Stretch,
    /// The target is kept.
    Met,
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
    /// What is promised; `None` for a figure that only has a stretch.
    pub target: Option<Bound>,
    /// What would be better still.
    pub stretch: Option<Bound>,
    /// What was found.
    pub figure: Option<Spread>,
    /// Whether it is kept.
    pub verdict: Verdict,
}

type Value = fn(&Sample) -> Option<f64>;

/// How a figure comes from the samples of one round.
enum Figure {
    /// The rate of a scenario by that of another.
    Ratio(&'static str, &'static str),
    /// A sample's own.
    Own(&'static str, Value),
}

struct Budget {
    name: &'static str,
    unit: &'static str,
    figure: Figure,
    target: Option<Bound>,
    stretch: Option<Bound>,
}

const fn ratio(name: &'static str, of: &'static str, by: &'static str, bounds: [Option<f64>; 2]) -> Budget {
    let [target, stretch] = bounds;
    Budget { name, unit: "", figure: Figure::Ratio(of, by), target: least(target), stretch: least(stretch) }
}

const fn own(
    name: &'static str,
    unit: &'static str,
    of: &'static str,
    value: Value,
    bounds: [Option<f64>; 2],
) -> Budget {
    let [target, stretch] = bounds;
    Budget { name, unit, figure: Figure::Own(of, value), target: most(target), stretch: most(stretch) }
}

const fn least(bound: Option<f64>) -> Option<Bound> {
    match bound {
        Some(bound) => Some(Bound::AtLeast(bound)),
        None => None,
    }
}

const fn most(bound: Option<f64>) -> Option<Bound> {
    match bound {
        Some(bound) => Some(Bound::AtMost(bound)),
        None => None,
    }
}

fn p50(sample: &Sample) -> Option<f64> {
    (sample.answered > 0).then_some(sample.latency.p50)
}

fn p99(sample: &Sample) -> Option<f64> {
    (sample.answered > 0).then_some(sample.latency.p99)
}

fn lock_wait(sample: &Sample) -> Option<f64> {
    sample.lock_wait_p99
}

fn jump(sample: &Sample) -> Option<f64> {
    sample.figures.get("jumpP95").copied()
}

fn jump_by_wait(sample: &Sample) -> Option<f64> {
    Some(jump(sample)? / sample.lock_wait_p99?)
}

fn unserved(sample: &Sample) -> Option<f64> {
    sample.figures.get("unserved").copied()
}

fn memory(sample: &Sample) -> Option<f64> {
    sample.peak_mebibytes()
}

/// Target and stretch of each. Trivial is GET /version with as many connections in the same round. That 32 codes
/// do as well as one is asked at a fixed rate and at the peak; docs/EXPERIMENTS.md says what they cost.
#[rustfmt::skip]
const BUDGETS: [Budget; 17] = [
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
    ratio("issues of 32 codes ÷ of one, 1,000 connections", "issue-32-codes", "issue-1000", [Some(0.95), None]),
    own("10,000 users at once: resets, 5xx, unanswered", "", "rush", unserved, [Some(0.0), None]),
    own("memory of a replica under that", "MiB", "rush", memory, [Some(64.0), Some(48.0)]),
];

/// Judges every budget. `planned` tells whether a scenario was to be measured.
pub fn judge(samples: &[Sample], planned: impl Fn(&str) -> bool) -> Vec<Line> {
    BUDGETS.iter().map(|budget| line(budget, samples, &planned)).collect()
}

fn line(budget: &Budget, samples: &[Sample], planned: &impl Fn(&str) -> bool) -> Line {
    let Budget { name, unit, target, stretch, ref figure } = *budget;
    let needs: Vec<&str> = match *figure {
        Figure::Ratio(of, by) => vec![of, by],
        Figure::Own(of, _) => vec![of],
    };
    let is_broken = samples.iter().any(|it| needs.contains(&it.scenario.as_str()) && it.broken.is_some());
    let found = Spread::of(values(figure, samples));
    let verdict = match found {
        _ if !needs.iter().all(|scenario| planned(scenario)) => Verdict::LeftOut,
        _ if is_broken => Verdict::Broken,
        None => Verdict::Unmeasured,
        Some(spread) if target.is_some_and(|bound| !bound.holds(spread.median)) => Verdict::Missed,
        Some(spread) if stretch.is_some_and(|bound| bound.holds(spread.median)) => Verdict::Stretch,
        Some(_) => Verdict::Met,
    };
    Line { name, unit, target, stretch, figure: found, verdict }
}

/// One value for each round in which all was measured that it needs.
fn values(figure: &Figure, samples: &[Sample]) -> Vec<f64> {
    let good = |scenario: &'static str| samples.iter().filter(move |it| it.scenario == scenario && it.broken.is_none());
    match *figure {
        Figure::Own(scenario, value) => good(scenario).filter_map(value).collect(),
        Figure::Ratio(of, by) => {
            let by_round = |round| good(by).find(|it| it.round == round);
            good(of).filter_map(|it| Some(it.rate / by_round(it.round)?.rate)).collect()
        }
    }
}

/// The exit status of a run: 0 every budget that was to be measured is met, 1 one is missed or a measurement for it failed or
/// broke a promise, 2 one was not measured.
pub fn exit(lines: &[Line]) -> u8 {
    let any = |wanted: &[Verdict]| lines.iter().any(|line| wanted.contains(&line.verdict));
    if any(&[Verdict::Missed, Verdict::Broken]) {
        return 1;
    }
    if any(&[Verdict::Unmeasured]) { 2 } else { 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(scenario: &str, round: u32, rate: f64) -> Sample {
        Sample { scenario: scenario.to_owned(), round, rate, ..Sample::default() }
    }

    fn verdict(samples: &[Sample], name: &str) -> (Verdict, Option<f64>) {
        let line = judge(samples, |_| true).into_iter().find(|line| line.name == name).unwrap();
        (line.verdict, line.figure.map(|figure| figure.median))
    }

    fn ratio_of(rates: &[(f64, f64)]) -> (Verdict, Option<f64>) {
        let both = |(round, (issues, trivial)): (u32, &(f64, f64))| {
            [sample("issue-200", round, *issues), sample("version-200", round, *trivial)]
        };
        let samples: Vec<_> = (1..).zip(rates).flat_map(both).collect();
        verdict(&samples, "issues ÷ trivial, 200 connections")
    }

    #[test]
    fn a_spread_is_the_middle_with_both_ends() {
        let odd = Spread::of([3.0, 1.0, 9.0]).unwrap();
        assert_eq!((odd.median, odd.min, odd.max, odd.rounds), (3.0, 1.0, 9.0, 3));
        let median = |values: &[f64]| Spread::of(values.iter().copied()).map(|it| it.median);
        assert_eq!(median(&[4.0, 1.0, 9.0, 2.0]), Some(3.0));
        assert_eq!(median(&[5.0]), Some(5.0));
        assert_eq!(Spread::of([]), None);
    }

    #[test]
    fn a_ratio_is_taken_within_each_round() {
        // The machine was half as fast in the second round; that is no change of the ratio.
        assert_eq!(ratio_of(&[(40.0, 100.0), (20.0, 50.0), (39.0, 100.0)]), (Verdict::Met, Some(0.4)));
    }

    #[test]
    fn the_median_decides_and_the_bound_itself_is_met() {
        assert_eq!(ratio_of(&[(0.0, 100.0), (36.0, 100.0), (90.0, 100.0)]).0, Verdict::Met);
        assert_eq!(ratio_of(&[(90.0, 100.0), (35.0, 100.0), (35.0, 100.0)]).0, Verdict::Missed);
        assert_eq!(ratio_of(&[(50.0, 100.0)]).0, Verdict::Stretch);
    }

    #[test]
    fn most_is_met_from_below() {
        let mut alone = sample("alone", 1, 1.0);
        alone.answered = 1;
        for (p50, expected) in [(0.9, Verdict::Stretch), (1.5, Verdict::Met), (1.51, Verdict::Missed)] {
            alone.latency.p50 = p50;
            assert_eq!(verdict(&[alone.clone()], "one user alone, p50 of an issue").0, expected, "{p50}");
        }
    }

    #[test]
    fn a_broken_promise_has_no_figure_and_is_no_pass() {
        let mut broken = sample("issue-200", 1, 50.0);
        broken.broken = Some("oversold".to_owned());

        assert_eq!(
            verdict(&[broken, sample("version-200", 1, 100.0)], "issues ÷ trivial, 200 connections"),
            (Verdict::Broken, None)
        );
    }

    #[test]
    fn what_was_not_to_be_measured_is_left_out_and_what_failed_is_not() {
        let judged = judge(&[], |scenario| scenario == "alone");
        let of = |name: &str| judged.iter().find(|line| line.name.starts_with(name)).unwrap().verdict;

        assert_eq!(of("one user alone"), Verdict::Unmeasured);
        assert_eq!(of("issues ÷ trivial"), Verdict::LeftOut);
        assert_eq!(exit(&judged), 2);
    }

    #[test]
    fn a_missed_budget_outweighs_an_unmeasured_one() {
        let mut lines = judge(&[], |_| true);
        assert_eq!(exit(&lines), 2);
        lines[0].verdict = Verdict::Missed;
        assert_eq!(exit(&lines), 1);
        for line in &mut lines {
            line.verdict = Verdict::Met;
        }
        assert_eq!(exit(&lines), 0);
    }
}
