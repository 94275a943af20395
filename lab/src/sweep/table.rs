//! Every cell in one row of `cells.csv`, which `report/` draws. A name has its unit; an empty field was not measured.

use super::cell::Measured;
use super::grid::Cell;
use crate::measure::ANSWERS;
use crate::numbers::float;

/// A number's column: its name with the unit, with how many decimals it is told, and where it comes from.
type Column = (&'static str, usize, fn(&Measured) -> Option<f64>);

const NUMBERS: [Column; 40] = [
    ("offered /s", 0, |it| Some(it.sample.offered? / it.sample.seconds)),
    ("sent /s", 1, |it| Some(float(it.sample.sent) / it.sample.seconds)),
    ("issued /s", 1, |it| Some(it.sample.replicas.issued)),
    ("answered /s", 1, |it| Some(it.sample.replicas.answered)),
    ("late", 0, |it| it.sample.offered.map(|_| float(it.sample.late))),
    ("unsent", 0, |it| it.sample.offered.map(|_| float(it.sample.unsent))),
    ("lock wait p50 ms", 2, |it| Some(it.sample.replicas.lock_wait?.p50)),
    ("lock wait p95 ms", 2, |it| Some(it.sample.replicas.lock_wait?.p95)),
    ("lock wait p99 ms", 2, |it| Some(it.sample.replicas.lock_wait?.p99)),
    ("latency p50 ms", 2, |it| Some(it.sample.latency?.p50)),
    ("latency p95 ms", 2, |it| Some(it.sample.latency?.p95)),
    ("latency p99 ms", 2, |it| Some(it.sample.latency?.p99)),
    ("batch size", 1, |it| it.sample.replicas.batch_size),
    ("issued", 0, |it| Some(answers(it, 201))),
    ("replayed", 0, |it| Some(answers(it, 200))),
    ("already issued", 0, |it| Some(answers(it, 409))),
    ("sold out", 0, |it| Some(answers(it, 410))),
    ("not open", 0, |it| Some(answers(it, 403))),
    ("busy", 0, |it| Some(answers(it, 503))),
    ("unexpected", 0, |it| Some(float(unexpected(it)))),
    ("bypassed", 0, |it| Some(it.sample.replicas.bypassed)),
    ("missed looks", 0, |it| Some(it.sample.replicas.missed_looks)),
    ("throttled %", 1, |it| Some(throttled(it)?.iter().sum::<f64>() / float(throttled(it)?.len() as u64))),
    ("most throttled %", 1, |it| throttled(it)?.into_iter().reduce(f64::max)),
    ("queue-jump p50 ms", 0, |it| Some(it.sample.queue_jump()?.p50)),
    ("queue-jump p95 ms", 0, |it| Some(it.sample.queue_jump()?.p95)),
    ("queue-jump max ms", 0, |it| Some(it.sample.queue_jump()?.max)),
    ("contests", 0, |it| Some(float(it.sample.fairness.as_ref()?.decided))),
    ("pairs out of order %", 2, |it| Some(it.sample.fairness.as_ref()?.inversions?.share() * 100.0)),
    ("largest share %", 1, |it| Some(it.sample.replicas.shares.values().copied().reduce(f64::max)? * 100.0)),
    ("loader CPU", 3, |it| Some(processors(it, "loader"))),
    ("nginx CPU", 3, |it| Some(processors(it, "nginx"))),
    ("replicas CPU", 3, |it| Some(processors(it, "replicas"))),
    ("database CPU", 3, |it| Some(processors(it, "mysqld"))),
    ("Redis CPU", 3, |it| Some(processors(it, "redis"))),
    ("watching CPU", 3, |it| Some(processors(it, "watching"))),
    ("others CPU", 3, |it| Some(processors(it, "others"))),
    ("host CPU", 3, |it| Some(processors(it, "host"))),
    ("processors", 0, |it| Some(it.sample.quiet.all / it.sample.watched)),
    ("speed %", 0, |it| Some(it.sample.quiet.speed? * 100.0)),
];

fn answers(measured: &Measured, status: u16) -> f64 {
    float(measured.sample.with_status(&[status]))
}

/// Answers that nobody expected, and requests that got none.
fn unexpected(measured: &Measured) -> u64 {
    let load = &measured.sample;
    load.answered - load.with_status(&ANSWERS) + load.errors.sum()
}

/// Those in use on average.
fn processors(measured: &Measured, part: &str) -> f64 {
    measured.sample.cpu(part) / measured.sample.watched
}

/// Of each replica, the part of the time in which it stood still; `None` where they share the machine.
fn throttled(measured: &Measured) -> Option<Vec<f64>> {
    let parts: Vec<_> = measured.sample.throttled.values().map(|it| it / measured.sample.watched * 100.0).collect();
    (!parts.is_empty()).then_some(parts)
}

/// The cells as they were measured, one a line; `share` is what each replica had of the processors, in processors.
pub fn csv(cells: &[Measured], share: Option<f64>) -> String {
    let numbers = NUMBERS.map(|(name, ..)| name).join(",");
    let header = format!(
        "shape,strategy,replicas,balance,distance ms,repeat,share,{numbers},lost updates,promises,commit,started\n"
    );
    let share = share.map(|it| it.to_string()).unwrap_or_default();
    std::iter::once(header).chain(cells.iter().map(|it| row(it, &share))).collect()
}

fn row(it: &Measured, share: &str) -> String {
    let told = |(_, decimals, value): Column| value(it).map(|it| format!("{it:.decimals$}")).unwrap_or_default();
    let promises = match (it.is_clean(), it.is_broken()) {
        (true, _) => "kept",
        (false, true) => "BROKEN",
        (false, false) => "broken on purpose",
    };
    let Cell { shape, strategy, replicas, balance, distance_ms, repeat } = it.cell;
    let (numbers, lost, commit, started) = (NUMBERS.map(told).join(","), it.lost_updates(), &it.commit, &it.started);
    format!(
        "{shape},{strategy},{replicas},{balance},{distance_ms},{repeat},{share},{numbers},{lost},{promises},{commit},{started}\n"
    )
}
