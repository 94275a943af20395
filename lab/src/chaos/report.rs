//! What a person reads at the end of a run: one row a fault, then the targets.

use std::collections::BTreeMap;

use serde::Serialize;

use super::Found;
use super::fault::Fault;
use super::hung::Hung;
use super::tally::Tally;
use crate::table::Table;
use crate::verify::Heard;

/// Seconds that the others may stall after a replica's death: the lock's time to live and one second.
const STALL_MAX: f64 = 2.5;
/// Seconds from the moment at which a restarted database takes connections to the answer of the last who waited.
const RECOVERY_MAX: f64 = 3.0;
/// Coupons that an hour's run sells.
const COUPONS_MIN: usize = 2_000;
/// The target that every run has.
const BROKEN: &str = "broken promises";
/// The target of a run in which a lock node hangs, and the percentage of late answers that it stays below.
const LATE: &str = "late answers with one hung lock node, %";
const LATE_MAX: f64 = 1.0;
/// The row of waves in which two parts broke.
const TWO: &str = "two at once";

/// One thing that was asked of a run.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Target {
    /// What.
    pub name: &'static str,
    /// At most, for coupons at least, for late answers less than so much.
    pub bound: f64,
    /// What was seen; `None` when nothing that would show it took place.
    pub figure: Option<f64>,
    /// Whether that will do. What was not measured does not.
    pub met: bool,
}

impl Target {
    fn most(name: &'static str, figure: Option<f64>, bound: f64) -> Self {
        Self { name, bound, figure, met: figure.is_some_and(|figure| figure <= bound) }
    }

    fn least(name: &'static str, figure: f64, bound: f64) -> Self {
        Self { name, bound, figure: Some(figure), met: figure >= bound }
    }

    fn verdict(&self, is_whole: bool) -> &'static str {
        match self {
            Self { figure: None, .. } => "not measured",
            _ if !is_whole && self.name != BROKEN => "not judged",
            Self { met: true, .. } => "met",
            _ => "MISSED",
        }
    }
}

/// All waves with the same fault.
#[derive(Default)]
struct Row {
    waves: usize,
    coupons: usize,
    issued: usize,
    missed: usize,
    answers: Heard,
    longest_wait: f64,
    after_fault: f64,
    violations: usize,
}

impl Row {
    fn add(&mut self, tally: &Tally) {
        self.waves += 1;
        self.coupons += tally.coupons;
        self.issued += tally.issued;
        self.missed += tally.missed;
        self.answers = self.answers.and(tally.answers);
        self.longest_wait = self.longest_wait.max(tally.longest_wait);
        self.after_fault = self.after_fault.max(tally.after_fault);
        self.violations += tally.violations();
    }

    fn cells(&self, name: &str) -> Vec<String> {
        let Heard { issued, already_issued, sold_out, retryable, nothing, refused, .. } = self.answers;
        let counts = [
            self.waves,
            self.missed,
            self.coupons,
            self.issued,
            issued,
            already_issued,
            sold_out,
            retryable,
            nothing,
            refused,
        ];
        let mut cells = vec![name.to_owned()];
        cells.extend(counts.map(|count| count.to_string()));
        cells.extend([self.longest_wait, self.after_fault].map(|seconds| format!("{seconds:.2}")));
        cells.push(self.violations.to_string());
        cells
    }
}

/// What was asked of a whole run. Times are judged in waves with one fault, for two may well take longer, and where the fault
/// did strike.
#[expect(clippy::cast_precision_loss, reason = "counts of one run")]
pub fn targets(found: &Found) -> Vec<Target> {
    let tallies = &found.tallies;
    let coupons: usize = tallies.iter().filter(|tally| tally.findings.is_empty()).map(|tally| tally.coupons).sum();
    let longest = |faults: &[Fault], seconds: fn(&Tally) -> f64| {
        let is_alone = |tally: &&Tally| matches!(tally.faults[..], [name] if named(faults, name));
        tallies.iter().filter(is_alone).filter(|tally| tally.missed == 0).map(seconds).reduce(f64::max)
    };
    let deaths = longest(&[Fault::ReplicaKilled, Fault::ReplicaKilledAtAStep], |tally| tally.longest_wait);
    let recovery = longest(&[Fault::DatabaseKilled], |tally| tally.after_fault);
    let mut targets = vec![
        Target::most(BROKEN, (!found.is_empty()).then_some(found.violations() as f64), 0.0),
        Target::least("coupons that sold out, at least", coupons as f64, COUPONS_MIN as f64),
        Target::most("longest wait when a replica died, s", deaths, STALL_MAX),
        Target::most("wait after a restarted database greeted, s", recovery, RECOVERY_MAX),
    ];
    if found.hangs {
        let figure = found.hung.map(Hung::late_percent);
        let met = figure.is_some_and(|figure| figure < LATE_MAX);
        targets.push(Target { name: LATE, bound: LATE_MAX, figure, met });
    }
    targets
}

fn named(faults: &[Fault], name: &str) -> bool {
    faults.iter().any(|fault| fault.name() == name)
}

/// The table and what follows from it. Only a whole run has a say in more than broken promises.
pub fn text(found: &Found, targets: &[Target], is_whole: bool) -> String {
    let mut parts = vec![faults(&found.tallies)];
    parts.extend(found.hung.map(|hung| format!("{hung}\n")));
    if !found.hung_findings.is_empty() {
        let lines: Vec<String> = found.hung_findings.iter().map(ToString::to_string).collect();
        parts.push(format!("BROKEN WHILE A LOCK NODE HUNG:\n{}\n", lines.join("\n")));
    }
    if found.failed > 0 {
        parts.push(format!("WAVES THAT WERE NOT CARRIED OUT: {}\n", found.failed));
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
    let head = [
        "fault",
        "waves",
        "not hit",
        "coupons",
        "pieces",
        "200/201",
        "409",
        "410",
        "503",
        "none",
        "other",
        "longest wait, s",
        "after the fault, s",
        "violations",
    ];
    let (mut rows, mut all): (BTreeMap<&str, Row>, Row) = (BTreeMap::new(), Row::default());
    for tally in tallies {
        let name = if let [name] = tally.faults[..] { name } else { TWO };
        rows.entry(name).or_default().add(tally);
        all.add(tally);
    }
    let mut table = Table::new(&head);
    for name in Fault::ALL.map(Fault::name).into_iter().chain([TWO]) {
        if let Some(row) = rows.get(name) {
            table.row(row.cells(name));
        }
    }
    table.row(all.cells("all"));
    table.text()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tally(faults: &[Fault], missed: usize, longest_wait: f64) -> Tally {
        Tally {
            wave: 0,
            faults: faults.iter().map(|fault| fault.name()).collect(),
            missed,
            coupons: 10,
            users: 100,
            issued: 50,
            answers: Heard::default(),
            longest_wait,
            after_fault: 0.5,
            findings: Vec::new(),
        }
    }

    /// Figure and verdict of the target whose name begins so.
    fn of(found: &Found, name: &str) -> (Option<f64>, &'static str) {
        let targets = targets(found);
        let target = targets.iter().find(|target| target.name.starts_with(name)).unwrap();
        assert_eq!(target.met, target.verdict(true) == "met");
        (target.figure, target.verdict(true))
    }

    #[test]
    fn a_target_whose_wave_never_happened_is_not_measured() {
        let found = Found { tallies: vec![tally(&[Fault::RedisKilled], 0, 9.0)], ..Found::default() };

        assert_eq!(of(&found, "longest wait"), (None, "not measured"));
        assert_eq!(of(&found, "wait after"), (None, "not measured"));
        assert_eq!(of(&found, "broken"), (Some(0.0), "met"));
        assert_eq!(of(&found, "coupons"), (Some(10.0), "MISSED"));
    }

    #[test]
    fn only_waves_with_one_fault_that_struck_count_for_a_time() {
        let step = Fault::ReplicaKilledAtAStep;
        let tallies = vec![
            tally(&[Fault::ReplicaKilled], 0, 1.5),
            tally(&[step], 0, 2.0),
            tally(&[step], 1, 9.0),
            tally(&[step, Fault::RedisHung], 0, 9.0),
        ];

        assert_eq!(of(&Found { tallies, ..Found::default() }, "longest wait"), (Some(2.0), "met"));
        let tallies = vec![tally(&[step], 1, 0.1)];
        assert_eq!(of(&Found { tallies, ..Found::default() }, "longest wait"), (None, "not measured"));
    }

    #[test]
    fn the_hung_node_s_target_is_listed_whenever_it_was_to_hang() {
        let hung = Hung { seconds: 600.0, asked: 1_000, late: 10, p99_ms: 1.0, max_ms: 2.0 };
        let found = |hangs, hung| Found { hangs, hung, ..Found::default() };

        assert_eq!(targets(&found(false, None)).len(), 4);
        assert_eq!(of(&found(true, None), "late"), (None, "not measured"));
        assert_eq!(of(&found(true, Some(hung)), "late"), (Some(1.0), "MISSED"));
        assert_eq!(of(&found(true, Some(Hung { late: 9, ..hung })), "late"), (Some(0.9), "met"));
    }

    #[test]
    fn a_run_in_which_nothing_was_judged_has_kept_no_promise() {
        let found = Found { failed: 42, ..Found::default() };

        assert_eq!(of(&found, "broken"), (None, "not measured"));
        assert!(text(&found, &targets(&found), false).contains("not measured"));
    }
}
