//! Every cell in one row of `cells.csv`, which `report/` draws. A name has its unit; an empty field was not measured.

use super::cell::Measured;
use super::grid::Cell;
use crate::measure::{ANSWERS, float};

/// A number's column: its name with the unit, with how many decimals it is told, and where it comes from.
type Column = (&'static str, usize, fn(&Measured) -> Option<f64>);

const NUMBERS: [Column; 36] = [
    ("offered /s", 0, |it| Some(it.load.offered? / it.load.seconds)),
    ("sent /s", 1, |it| Some(float(it.load.sent) / it.load.seconds)),
    ("issued /s", 1, |it| Some(it.throughput())),
    ("answered /s", 1, |it| Some(it.load.replicas.answered)),
    ("late", 0, |it| it.load.offered.map(|_| float(it.load.late))),
    ("unsent", 0, |it| it.load.offered.map(|_| float(it.load.unsent))),
    ("lock wait p50 ms", 2, |it| Some(it.load.replicas.lock_wait?.p50)),
    ("lock wait p95 ms", 2, |it| Some(it.load.replicas.lock_wait?.p95)),
    ("lock wait p99 ms", 2, |it| Some(it.load.replicas.lock_wait?.p99)),
    ("latency p50 ms", 2, |it| Some(it.load.latency.p50)),
    ("latency p95 ms", 2, |it| Some(it.load.latency.p95)),
    ("latency p99 ms", 2, |it| Some(it.load.latency.p99)),
    ("batch size", 1, |it| it.load.replicas.batch_size),
    ("issued", 0, |it| Some(answers(it, 201))),
    ("replayed", 0, |it| Some(answers(it, 200))),
    ("already issued", 0, |it| Some(answers(it, 409))),
    ("sold out", 0, |it| Some(answers(it, 410))),
    ("not open", 0, |it| Some(answers(it, 403))),
    ("busy", 0, |it| Some(answers(it, 503))),
    ("unexpected", 0, |it| Some(float(unexpected(it)))),
    ("queue-jump p50 ms", 0, |it| Some(it.contests.queue_jump()?.p50)),
    ("queue-jump p95 ms", 0, |it| Some(it.contests.queue_jump()?.p95)),
    ("queue-jump max ms", 0, |it| Some(it.contests.queue_jump()?.max)),
    ("contests", 0, |it| Some(float(it.contests.fairness.as_ref()?.decided as u64))),
    ("pairs out of order %", 2, |it| Some(it.contests.fairness.as_ref()?.inversions?.share() * 100.0)),
    ("largest share %", 1, |it| Some(it.contests.replicas.shares.values().copied().reduce(f64::max)? * 100.0)),
    ("loader CPU", 3, |it| Some(processors(it, "loader"))),
    ("nginx CPU", 3, |it| Some(processors(it, "nginx"))),
    ("replicas CPU", 3, |it| Some(processors(it, "replicas"))),
    ("database CPU", 3, |it| Some(processors(it, "mysqld"))),
    ("Redis CPU", 3, |it| Some(processors(it, "redis"))),
    ("watching CPU", 3, |it| Some(processors(it, "watching"))),
    ("others CPU", 3, |it| Some(processors(it, "others"))),
    ("host CPU", 3, |it| Some(processors(it, "host"))),
    ("processors", 0, |it| Some(it.load.quiet.all / it.load.watched)),
    ("speed %", 0, |it| Some(it.load.quiet.speed? * 100.0)),
];

fn answers(measured: &Measured, status: u16) -> f64 {
    float(measured.load.with_status(&[status]))
}

/// Answers that nobody expected, and requests that got none.
fn unexpected(measured: &Measured) -> u64 {
    let load = &measured.load;
    load.answered - load.with_status(&ANSWERS) + load.errors.sum()
}

/// Those in use on average.
fn processors(measured: &Measured, part: &str) -> f64 {
    measured.load.cpu(part) / measured.load.watched
}

/// The cells as they were measured, one a line.
pub fn csv(cells: &[Measured]) -> String {
    let numbers = NUMBERS.map(|(name, ..)| name).join(",");
    let header = format!("shape,strategy,replicas,repeat,{numbers},lost updates,promises,commit,started\n");
    std::iter::once(header).chain(cells.iter().map(row)).collect()
}

fn row(it: &Measured) -> String {
    let told = |(_, decimals, value): Column| value(it).map(|it| format!("{it:.decimals$}")).unwrap_or_default();
    let promises = match (it.is_clean(), it.is_broken()) {
        (true, _) => "kept",
        (false, true) => "BROKEN",
        (false, false) => "broken on purpose",
    };
    let Cell { shape, strategy, replicas, repeat } = it.cell;
    let (numbers, lost, commit, started) = (NUMBERS.map(told).join(","), it.lost_updates(), &it.commit, &it.started);
    format!("{shape},{strategy},{replicas},{repeat},{numbers},{lost},{promises},{commit},{started}\n")
}
