//! Every cell in one row of `cells.csv`, which `report/` draws. A name has its unit; an empty field was not measured.

use super::found::{Found, Processors};
use super::plan::Settings;

/// A column: its name with the unit, and what stands in it; `None` is an empty field.
type Column = (&'static str, fn(&Found, &Settings) -> Option<String>);

/// All columns, those first that name the cell.
const COLUMNS: [Column; 43] = [
    ("shape", |it, _| Some(it.cell.shape.to_string())),
    ("strategy", |it, _| Some(it.cell.strategy.to_string())),
    ("replicas", |it, _| Some(it.cell.replicas.to_string())),
    ("repeat", |it, _| Some(it.cell.repeat.to_string())),
    ("offered /s", |it, settings| it.offered(settings.rate).map(|rate| number(rate, 0))),
    ("issued /s", |it, _| Some(number(it.throughput(), 1))),
    ("answered /s", |it, _| Some(number(it.whole.answered, 1))),
    ("dropped", |it, _| Some(it.dropped.to_string())),
    ("lock wait p50 ms", |it, _| it.whole.lock_wait.map(|wait| number(wait.p50, 2))),
    ("lock wait p95 ms", |it, _| it.whole.lock_wait.map(|wait| number(wait.p95, 2))),
    ("lock wait p99 ms", |it, _| it.whole.lock_wait.map(|wait| number(wait.p99, 2))),
    ("latency p50 ms", |it, _| Some(number(it.client.p50, 2))),
    ("latency p95 ms", |it, _| Some(number(it.client.p95, 2))),
    ("latency p99 ms", |it, _| Some(number(it.client.p99, 2))),
    ("batch size", |it, _| it.batch_size.map(|size| number(size, 1))),
    ("issued", |it, _| outcome(it, "issued")),
    ("sold out", |it, _| outcome(it, "sold out")),
    ("replayed", |it, _| outcome(it, "replayed")),
    ("already issued", |it, _| outcome(it, "already issued")),
    ("not open", |it, _| outcome(it, "not open")),
    ("busy", |it, _| outcome(it, "busy")),
    ("gave up", |it, _| outcome(it, "gave up")),
    ("unexpected", |it, _| outcome(it, "unexpected")),
    ("queue-jump p50 ms", |it, _| it.fairness.jump.map(|jump| number(jump.p50, 0))),
    ("queue-jump p95 ms", |it, _| it.fairness.jump.map(|jump| number(jump.p95, 0))),
    ("queue-jump max ms", |it, _| it.fairness.jump.map(|jump| number(jump.max, 0))),
    ("fairness rounds", |it, _| Some(it.fairness.rounds.to_string())),
    ("pairs out of order %", |it, _| it.fairness.inversions.map(|pairs| number(pairs.share() * 100.0, 2))),
    ("largest share %", |it, _| it.fairness.shares.values().copied().reduce(f64::max).map(|it| number(it * 100.0, 1))),
    ("k6 CPU", |it, _| processors(it, "k6")),
    ("nginx CPU", |it, _| processors(it, "nginx")),
    ("replicas CPU", |it, _| processors(it, "replicas")),
    ("database CPU", |it, _| processors(it, "database")),
    ("Redis CPU", |it, _| processors(it, "Redis")),
    ("watching CPU", |it, _| processors(it, "watching")),
    ("others CPU", |it, _| processors(it, "others")),
    ("host CPU", |it, _| processors(it, "host")),
    ("processors", |it, _| Some(number(it.processors.all, 0))),
    ("speed %", |it, _| it.processors.speed.map(|speed| number(speed * 100.0, 0))),
    ("lost updates", |it, _| Some((it.verdict.lost_updates + it.fairness.verdict.lost_updates).to_string())),
    ("promises", |it, _| Some(promises(it))),
    ("commit", |it, _| Some(it.commit.clone())),
    ("started", |it, _| Some(it.started.clone())),
];

/// With so many decimals.
fn number(value: f64, decimals: usize) -> String {
    format!("{value:.decimals$}")
}

fn outcome(found: &Found, name: &str) -> Option<String> {
    found.outcomes.get(name).map(ToString::to_string)
}

fn processors(found: &Found, name: &str) -> Option<String> {
    let used = Processors::named(&found.processors).into_iter().find(|(it, _)| *it == name)?.1;
    Some(number(used, 3))
}

fn promises(found: &Found) -> String {
    let kept = found.verdict.clean && found.fairness.verdict.clean;
    let word = match (kept, found.cell.strategy.keeps_promises()) {
        (true, _) => "kept",
        (false, true) => "BROKEN",
        (false, false) => "broken on purpose",
    };
    word.to_owned()
}

/// The cells as they were measured, one a line.
pub fn csv(cells: &[Found], settings: &Settings) -> String {
    let header: Vec<&str> = COLUMNS.iter().map(|(name, _)| *name).collect();
    let row = |found: &Found| {
        let fields: Vec<String> = COLUMNS.iter().map(|(_, value)| value(found, settings).unwrap_or_default()).collect();
        fields.join(",")
    };
    let lines: Vec<String> = std::iter::once(header.join(",")).chain(cells.iter().map(row)).collect();
    lines.join("\n") + "\n"
}
