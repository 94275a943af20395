//! Every cell in one row of `cells.csv`, which `report/` draws. A name has its unit; an empty field was not measured.

use super::cell::Measured;
use crate::measure::fairness::{Inversions, QueueJump};
use crate::measure::numbers::float;
use crate::measure::sample::Times;
use crate::measure::scenario::ANSWERS;

/// A column: its name with the unit, and what stands in it; `None` is an empty field.
type Column = (&'static str, fn(&Measured) -> Option<String>);

/// All columns, those first that name the cell.
const COLUMNS: [Column; 44] = [
    ("shape", |it| Some(it.cell.shape.to_string())),
    ("strategy", |it| Some(it.cell.strategy.to_string())),
    ("replicas", |it| Some(it.cell.replicas.to_string())),
    ("repeat", |it| Some(it.cell.repeat.to_string())),
    ("offered /s", |it| it.load.offered.map(|requests| number(requests / it.load.seconds, 0))),
    ("sent /s", |it| Some(number(float(it.load.sent) / it.load.seconds, 1))),
    ("issued /s", |it| Some(number(it.throughput(), 1))),
    ("answered /s", |it| Some(number(it.load.replicas.answered, 1))),
    ("late", |it| it.load.offered.map(|_| it.load.late.to_string())),
    ("unsent", |it| it.load.offered.map(|_| it.load.unsent.to_string())),
    ("lock wait p50 ms", |it| lock_wait(it).map(|wait| number(wait.p50, 2))),
    ("lock wait p95 ms", |it| lock_wait(it).map(|wait| number(wait.p95, 2))),
    ("lock wait p99 ms", |it| lock_wait(it).map(|wait| number(wait.p99, 2))),
    ("latency p50 ms", |it| Some(number(it.load.latency.p50, 2))),
    ("latency p95 ms", |it| Some(number(it.load.latency.p95, 2))),
    ("latency p99 ms", |it| Some(number(it.load.latency.p99, 2))),
    ("batch size", |it| it.load.replicas.batch_size.map(|size| number(size, 1))),
    ("issued", |it| Some(answers(it, &[201]))),
    ("replayed", |it| Some(answers(it, &[200]))),
    ("already issued", |it| Some(answers(it, &[409]))),
    ("sold out", |it| Some(answers(it, &[410]))),
    ("not open", |it| Some(answers(it, &[403]))),
    ("busy", |it| Some(answers(it, &[503]))),
    ("unexpected", |it| Some(unexpected(it).to_string())),
    ("queue-jump p50 ms", |it| jump(it).map(|jump| number(jump.p50, 0))),
    ("queue-jump p95 ms", |it| jump(it).map(|jump| number(jump.p95, 0))),
    ("queue-jump max ms", |it| jump(it).map(|jump| number(jump.max, 0))),
    ("contests", |it| it.contests.fairness.as_ref().map(|it| it.decided.to_string())),
    ("pairs out of order %", |it| inversions(it).map(|pairs| number(pairs.share() * 100.0, 2))),
    ("largest share %", |it| {
        it.contests.replicas.shares.values().copied().reduce(f64::max).map(|it| number(it * 100.0, 1))
    }),
    ("loader CPU", |it| Some(processors(it, "loader"))),
    ("nginx CPU", |it| Some(processors(it, "nginx"))),
    ("replicas CPU", |it| Some(processors(it, "replicas"))),
    ("database CPU", |it| Some(processors(it, "mysqld"))),
    ("Redis CPU", |it| Some(processors(it, "redis"))),
    ("watching CPU", |it| Some(processors(it, "watching"))),
    ("others CPU", |it| Some(processors(it, "others"))),
    ("host CPU", |it| Some(processors(it, "host"))),
    ("processors", |it| Some(number(it.load.quiet.all / it.load.watched, 0))),
    ("speed %", |it| it.load.quiet.speed.map(|speed| number(speed * 100.0, 0))),
    ("lost updates", |it| Some(it.lost_updates().to_string())),
    ("promises", |it| Some(promises(it).to_owned())),
    ("commit", |it| Some(it.commit.clone())),
    ("started", |it| Some(it.started.clone())),
];

/// With so many decimals.
fn number(value: f64, decimals: usize) -> String {
    format!("{value:.decimals$}")
}

fn lock_wait(measured: &Measured) -> Option<Times> {
    measured.load.replicas.lock_wait
}

fn jump(measured: &Measured) -> Option<QueueJump> {
    measured.contests.fairness.as_ref()?.queue_jump
}

fn inversions(measured: &Measured) -> Option<Inversions> {
    measured.contests.fairness.as_ref()?.inversions
}

fn answers(measured: &Measured, statuses: &[u16]) -> String {
    measured.load.with_status(statuses).to_string()
}

/// Answers that nobody expected, and requests that got none.
fn unexpected(measured: &Measured) -> u64 {
    let load = &measured.load;
    load.answered - load.with_status(&ANSWERS) + load.errors.sum()
}

/// Those in use on average.
fn processors(measured: &Measured, part: &str) -> String {
    number(measured.load.cpu(part) / measured.load.watched, 3)
}

fn promises(measured: &Measured) -> &'static str {
    match (measured.is_clean(), measured.is_broken()) {
        (true, _) => "kept",
        (false, true) => "BROKEN",
        (false, false) => "broken on purpose",
    }
}

/// The cells as they were measured, one a line.
pub fn csv(cells: &[Measured]) -> String {
    let header: Vec<&str> = COLUMNS.iter().map(|(name, _)| *name).collect();
    let row = |measured: &Measured| {
        let fields: Vec<String> = COLUMNS.iter().map(|(_, value)| value(measured).unwrap_or_default()).collect();
        fields.join(",")
    };
    let lines: Vec<String> = std::iter::once(header.join(",")).chain(cells.iter().map(row)).collect();
    lines.join("\n") + "\n"
}
