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
/// The row of waves in which two parts broke.
const TWO: &str = "two at once";

/// One thing that was asked of a run.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Target {
    /// What.
    pub name: &'static str,
    /// At most, or for coupons at least, so much.
    pub bound: f64,
    /// What was seen.
    pub figure: f64,
    /// Whether that will do.
    pub met: bool,
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

/// What was asked of a whole run. Times are judged in waves with one fault, for two may well take longer.
pub fn targets(found: &Found) -> Vec<Target> {
    let tallies = &found.tallies;
    let coupons: usize = tallies.iter().filter(|tally| tally.findings.is_empty()).map(|tally| tally.coupons).sum();
    let longest = |faults: &[Fault], seconds: fn(&Tally) -> f64| {
        let alone = tallies.iter().filter(|tally| matches!(tally.faults[..], [name] if named(faults, name)));
        alone.map(seconds).fold(0.0, f64::max)
    };
    let deaths = [Fault::ReplicaKilled, Fault::ReplicaKilledAtAStep];
    let most = |name, figure, bound| Target { name, bound, figure, met: figure <= bound };
    #[expect(clippy::cast_precision_loss, reason = "counts of one run")]
    let mut targets = vec![
        most(BROKEN, found.violations() as f64, 0.0),
        Target {
            name: "coupons that sold out, at least",
            bound: COUPONS_MIN as f64,
            figure: coupons as f64,
            met: coupons >= COUPONS_MIN,
        },
        most("longest wait when a replica died, s", longest(&deaths, |tally| tally.longest_wait), STALL_MAX),
        most(
            "wait after a restarted database greeted, s",
            longest(&[Fault::DatabaseKilled], |it| it.after_fault),
            RECOVERY_MAX,
        ),
    ];
    targets.extend(found.hung.as_ref().map(Hung::target));
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
        let lines: String = found.hung_findings.iter().map(|finding| format!("{finding}\n")).collect();
        parts.push(format!("BROKEN WHILE A LOCK NODE HUNG:\n{lines}"));
    }
    if found.failed > 0 {
        parts.push(format!("WAVES THAT WERE NOT CARRIED OUT: {}\n", found.failed));
    }
    let mut table = Table::new(&["target", "bound", "figure", "verdict"]);
    for Target { name, bound, figure, met } in targets {
        let verdict = match met {
            _ if !is_whole && *name != BROKEN => "not judged",
            true => "met",
            false => "MISSED",
        };
        table.row([(*name).to_owned(), format!("{bound}"), format!("{figure:.2}"), verdict.to_owned()]);
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
