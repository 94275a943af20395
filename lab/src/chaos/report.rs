//! What a person reads at the end of a run: one row a fault, then the targets.

use super::Results;
use super::fault::{Fault, Ground};
use super::tally::{TWO, Tally};
use crate::table::Table;

/// What a target is called, and its bound.
type Bound = (&'static str, f64);

/// The target that every run has.
const BROKEN: Bound = ("broken promises", 0.0);
const COUPONS: Bound = ("coupons that sold out, at least", 2_000.0);
/// For the waves in which a home was killed, which only a process can be: the lock's time to live and one second.
const DIED: Bound = ("longest wait when a home died, s", 2.5);
/// For those in which it fell silent: nginx gives it up after six seconds, and another replica has its own deadline.
const FROZE: Bound = ("longest wait when a home fell silent, s", 11.0);
/// From the moment at which the database takes connections to the answer of the last user that waited.
const RECOVERED: Bound = ("wait after a restarted database greeted, s", 3.0);
/// Eight seconds until another member of the group takes writes, and a client's own pauses.
const FAILED_OVER: Bound = ("longest wait when the primary died, s", 9.0);
/// For a run in which a lock node hangs.
const LATE: Bound = ("late answers with one hung lock node, %", 1.0);

/// What a column says of some waves.
type Figure = fn(&[&Tally]) -> String;

/// The columns of the table, and what each shows of some waves.
const COLUMNS: [(&str, Figure); 14] = [
    ("waves", |all| all.len().to_string()),
    ("not hit", |all| sum(all, |it| it.missed)),
    ("coupons", |all| sum(all, |it| it.coupons)),
    ("shared", |all| sum(all, |it| it.shared)),
    ("pieces", |all| sum(all, |it| it.issued)),
    ("200/201", |all| sum(all, |it| it.answers.issued)),
    ("409", |all| sum(all, |it| it.answers.already_issued)),
    ("410", |all| sum(all, |it| it.answers.sold_out)),
    ("503", |all| sum(all, |it| it.answers.retryable)),
    ("none", |all| sum(all, |it| it.answers.nothing)),
    ("other", |all| sum(all, |it| it.answers.refused)),
    ("violations", |all| sum(all, Tally::violations)),
    ("longest wait, s", |all| most(all, |it| it.longest_wait)),
    ("after the fault, s", |all| most(all, |it| it.after_fault)),
];

fn sum(all: &[&Tally], count: fn(&Tally) -> usize) -> String {
    all.iter().map(|tally| count(tally)).sum::<usize>().to_string()
}

fn most(all: &[&Tally], seconds: fn(&Tally) -> f64) -> String {
    format!("{:.2}", all.iter().map(|tally| seconds(tally)).fold(0.0, f64::max))
}

pub struct Target {
    pub name: &'static str,
    /// At most, for coupons at least, for late answers less than so much.
    pub bound: f64,
    /// What was seen; `None` when nothing that would show it took place.
    pub figure: Option<f64>,
    /// Whether that will do. What was not measured does not.
    pub met: bool,
}

impl Target {
    fn new((name, bound): Bound, figure: Option<f64>, holds: fn(&f64, &f64) -> bool) -> Self {
        Self { name, bound, figure, met: figure.is_some_and(|figure| holds(&figure, &bound)) }
    }

    fn verdict(&self, is_whole: bool) -> &'static str {
        match self {
            Self { figure: None, .. } => "not measured",
            _ if !is_whole && self.name != BROKEN.0 => "not judged",
            Self { met: true, .. } => "met",
            _ => "MISSED",
        }
    }
}

/// What was asked of a whole run. Times are judged in waves with one fault, for two may well take longer, and where the fault
/// did strike.
#[expect(clippy::cast_precision_loss, reason = "counts of one run")]
pub fn targets(results: &Results) -> Vec<Target> {
    let tallies = &results.tallies;
    let coupons: usize = tallies.iter().filter(|tally| tally.findings.is_empty()).map(|tally| tally.coupons).sum();
    let longest = |faults: &[Fault], seconds: fn(&Tally) -> f64| {
        let is_alone = |tally: &&Tally| matches!(tally.faults[..], [fault] if faults.contains(&fault));
        tallies.iter().filter(is_alone).filter(|tally| tally.missed == 0).map(seconds).reduce(f64::max)
    };
    let deaths = longest(&[Fault::HomeKilled, Fault::HomeKilledAtAStep], |tally| tally.longest_wait);
    let silent = [Fault::HomeFrozen, Fault::HomeFrozenAtAStep, Fault::HomePaused, Fault::HomeHostLost];
    let freezes = longest(&silent, |tally| tally.longest_wait);
    let recovery = longest(&[Fault::DatabaseKilled, Fault::DatabaseHostLost], |tally| tally.after_fault);
    let failovers = longest(&[Fault::PrimaryKilled], |tally| tally.longest_wait);
    let broken = (!results.is_empty()).then_some(results.violations() as f64);
    let late = results.hung.as_ref().map(|hung| hung.late_percent);
    let Ground { hosts, group } = results.ground;
    let targets = [
        (true, Target::new(BROKEN, broken, f64::le)),
        (true, Target::new(COUPONS, Some(coupons as f64), f64::ge)),
        (!hosts, Target::new(DIED, deaths, f64::le)),
        (group, Target::new(FAILED_OVER, failovers, f64::le)),
        (!group, Target::new(FROZE, freezes, f64::le)),
        (!group, Target::new(RECOVERED, recovery, f64::le)),
        (results.hangs, Target::new(LATE, late, f64::lt)),
    ];
    targets.into_iter().filter_map(|(is_asked, target)| is_asked.then_some(target)).collect()
}

/// The table and what follows from it. Only a whole run has a say in more than broken promises.
pub fn text(results: &Results, targets: &[Target], is_whole: bool) -> String {
    let mut parts = vec![faults(&results.tallies)];
    parts.extend(results.hung.as_ref().map(|hung| format!("{}\n", hung.said)));
    if !results.hung_findings.is_empty() {
        let lines: Vec<String> = results.hung_findings.iter().map(ToString::to_string).collect();
        parts.push(format!("BROKEN WHILE A LOCK NODE HUNG:\n{}\n", lines.join("\n")));
    }
    if results.failed > 0 {
        parts.push(format!("WAVES THAT WERE NOT CARRIED OUT: {}\n", results.failed));
    }
    let mut table = Table::new(&["target", "bound", "figure", "verdict"]);
    for target in targets {
        let figure = target.figure.map_or("-".to_owned(), |figure| format!("{figure:.2}"));
        let verdict = target.verdict(is_whole).to_owned();
        table.row([target.name.to_owned(), target.bound.to_string(), figure, verdict]);
    }
    parts.push(table.text());
    parts.join("\n")
}

fn faults(tallies: &[Tally]) -> String {
    let heads: Vec<&str> = ["fault"].into_iter().chain(COLUMNS.map(|(head, _)| head)).collect();
    let mut table = Table::new(&heads);
    let mut row = |name: &str, all: Vec<&Tally>| {
        table.row([name.to_owned()].into_iter().chain(COLUMNS.map(|(_, value)| value(&all))));
    };
    for name in Fault::ALL.iter().map(|fault| fault.name()).chain([TWO]) {
        let same: Vec<_> = tallies.iter().filter(|tally| tally.name() == name).collect();
        if !same.is_empty() {
            row(name, same);
        }
    }
    row("all", tallies.iter().collect());
    table.text()
}

#[cfg(test)]
mod tests {
    use super::super::hung::Hung;
    use super::*;

    fn tally(faults: &[Fault], missed: usize, longest_wait: f64) -> Tally {
        Tally { faults: faults.to_vec(), missed, coupons: 10, longest_wait, ..Tally::default() }
    }

    /// Figure and verdict of a target.
    fn of(results: &Results, (name, _): Bound) -> (Option<f64>, &'static str) {
        let targets = targets(results);
        let target = targets.iter().find(|target| target.name == name).unwrap();
        assert_eq!(target.met, target.verdict(true) == "met");
        (target.figure, target.verdict(true))
    }

    #[test]
    fn a_target_whose_wave_never_happened_is_not_measured() {
        let found = Results { tallies: vec![tally(&[Fault::RedisKilled], 0, 9.0)], ..Results::default() };

        assert_eq!(of(&found, DIED), (None, "not measured"));
        assert_eq!(of(&found, FROZE), (None, "not measured"));
        assert_eq!(of(&found, RECOVERED), (None, "not measured"));
        assert_eq!(of(&found, BROKEN), (Some(0.0), "met"));
        assert_eq!(of(&found, COUPONS), (Some(10.0), "MISSED"));
        let nothing_was_judged = Results { failed: 42, ..Results::default() };
        assert_eq!(of(&nothing_was_judged, BROKEN), (None, "not measured"));
        assert!(text(&nothing_was_judged, &targets(&nothing_was_judged), false).contains("not measured"));
    }

    #[test]
    fn only_waves_with_one_fault_that_struck_count_for_a_time() {
        let step = Fault::HomeKilledAtAStep;
        let tallies = vec![
            tally(&[Fault::HomeKilled], 0, 1.5),
            tally(&[Fault::HomeFrozen], 0, 11.5),
            tally(&[step], 0, 2.0),
            tally(&[step], 1, 9.0),
            tally(&[step, Fault::RedisHung], 0, 9.0),
        ];

        let found = Results { tallies, ..Results::default() };
        assert_eq!(of(&found, DIED), (Some(2.0), "met"));
        assert_eq!(of(&found, FROZE), (Some(11.5), "MISSED"));
        let tallies = vec![tally(&[step], 1, 0.1)];
        assert_eq!(of(&Results { tallies, ..Results::default() }, DIED), (None, "not measured"));
    }

    #[test]
    fn the_hung_node_s_target_is_listed_whenever_it_was_to_hang() {
        let found = |hangs, late: Option<f64>| {
            let hung = late.map(|late_percent| Hung { said: String::new(), late_percent });
            Results { hangs, hung, ..Results::default() }
        };

        assert_eq!(targets(&found(false, None)).len(), 5);
        assert_eq!(of(&found(true, None), LATE), (None, "not measured"));
        assert_eq!(of(&found(true, Some(1.0)), LATE), (Some(1.0), "MISSED"));
        assert_eq!(of(&found(true, Some(0.9)), LATE), (Some(0.9), "met"));
    }
}
