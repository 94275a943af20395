//! What a person reads at the end: the budgets, the strategies, what each request costs, everything that was measured.

use std::collections::BTreeSet;

use super::budgets::{Bound, Budget};
use super::list::{BALANCE, POOL};
use crate::measure::{Sample, Spread, float, number, shown};
use crate::strategy::Strategy;
use crate::table::Table;

/// Parts of the machine, in the order of a request's way.
const PARTS: [&str; 8] = ["loader", "nginx", "replicas", "mysqld", "redis", "prometheus", "others", "idle"];

/// A column: its head, and what a sample has to say there. k6 does not tell everything; what nobody measured is no zero.
type Column = (&'static str, fn(&Sample) -> Option<f64>);

const P50: Column = ("p50 ms", |it| measured(it.latency.p50));
const P99: Column = ("p99 ms", |it| measured(it.latency.p99));
const REDIS: Column = ("Redis each", |it| measured(it.each(it.redis_commands)));
const SQL: Column = ("SQL each", |it| measured(it.each(it.statements)));

const OF_STRATEGIES: [Column; 6] =
    [("issues/s", |it| Some(it.rate)), P50, P99, ("refused %", |it| Some(100.0 - percent(it.issued, it))), REDIS, SQL];

const OF_ALL: [Column; 9] = [
    P50,
    P99,
    ("p99.9 ms", |it| measured(it.latency.p999)),
    ("lock wait p99 ms", |it| it.replicas.lock_wait.map(|wait| wait.p99)),
    ("late %", |it| it.offered.map(|_| percent(it.late, it))),
    REDIS,
    SQL,
    ("replica MiB", |it| it.peak_mebibytes),
    ("speed", |it| it.quiet.speed),
];

const EXPLAINED: &str = "each: for an issued coupon, or for an answer where none was issued\n\
    speed: of the processors meanwhile, 1 being the fastest that was seen\n";

/// How often the service asks again: `src/lock.rs`, `src/issuance.rs` and `src/issuance/optimistic.rs`.
const RETRIES: &str = "retries: redlock after 1 ms, then 1.5 times as long each, up to 25 ms, jittered, until its caller's deadline;\n\
    optimistic up to 50 transactions, the others up to 3 when the database reports a conflict\n";

fn measured(value: f64) -> Option<f64> {
    (value > 0.0).then_some(value)
}

/// Of all answers.
fn percent(count: u64, sample: &Sample) -> f64 {
    100.0 * float(count) / float(sample.answered.max(1))
}

/// Everything, in the order in which it matters.
pub fn text(lines: &[Budget], samples: &[Sample], noise: &[String]) -> String {
    let mut parts = vec![budgets(lines), strategies(samples), costs(samples), measurements(samples)];
    let broken: Vec<String> = scenarios(samples).into_iter().filter_map(|scenario| broken(samples, scenario)).collect();
    if !broken.is_empty() {
        parts.push(format!("measurements without a figure\n{}\n", broken.join("\n")));
    }
    if !noise.is_empty() {
        parts.push(format!("DO NOT TRUST THESE FIGURES:\n  {}\n", noise.join("\n  ")));
    }
    parts.retain(|part| !part.is_empty());
    parts.join("\n")
}

pub fn line(sample: &Sample) -> String {
    let scenario = &sample.scenario;
    if let Some(why) = &sample.broken {
        return format!("{scenario}: no figure: {why}");
    }
    let short = sample.short().map(|short| format!("  {short}")).unwrap_or_default();
    let [rate, p50, p99] = [sample.rate, sample.latency.p50, sample.latency.p99].map(number);
    format!("{scenario}: {rate}/s, p50 {p50} ms, p99 {p99} ms{short}")
}

/// Why a scenario has no figure in some of its repeats, by the first of them.
fn broken(samples: &[Sample], scenario: &str) -> Option<String> {
    let all = samples.iter().filter(|it| it.scenario == scenario);
    let broken: Vec<&String> = all.clone().filter_map(|it| it.broken.as_ref()).collect();
    Some(format!("  {scenario}, {} of {}: {}", broken.len(), all.count(), broken.first()?))
}

fn budgets(lines: &[Budget]) -> String {
    let mut table = Table::new(&["budget", "target", "figure", "min", "max", "repeats", "verdict", "stretch"]);
    let mut explained = Vec::new();
    for line in lines {
        let spread = |value: fn(&Spread) -> f64| shown(line.figure.as_ref().map(value));
        let name = if line.unit.is_empty() { line.name.to_owned() } else { format!("{}, {}", line.name, line.unit) };
        table.row([
            name,
            bound(line.target),
            spread(|it| it.median),
            spread(|it| it.min),
            spread(|it| it.max),
            line.figure.map_or("-".to_owned(), |it| it.repeats.to_string()),
            line.standing.to_string(),
            bound(line.stretch),
        ]);
        if let (Some(why), Some(_)) = (line.explanation, line.figure) {
            explained.push(format!("{}: {why}\n", line.name));
        }
    }
    table.text() + &explained.concat()
}

fn bound(bound: Option<Bound>) -> String {
    match bound {
        Some(Bound::AtLeast(value)) => format!("≥ {}", number(value)),
        Some(Bound::AtMost(value)) => format!("≤ {}", number(value)),
        None => String::new(),
    }
}

/// The samples of one scenario that have a figure.
fn of<'a>(samples: &'a [Sample], scenario: &str) -> Vec<&'a Sample> {
    samples.iter().filter(|it| it.scenario == scenario && it.broken.is_none()).collect()
}

fn median(samples: &[&Sample], value: impl Fn(&Sample) -> Option<f64>) -> Option<f64> {
    Spread::of(samples.iter().filter_map(|sample| value(sample))).map(|spread| spread.median)
}

/// The one's rate by the other's, in each repeat in which both were measured.
fn ratio(some: &[&Sample], others: &[&Sample]) -> Option<f64> {
    median(some, |it| Some(it.rate / others.iter().find(|other| other.repeat == it.repeat)?.rate))
}

/// Each scenario once, in the order in which it was first measured, without the probes.
fn scenarios(samples: &[Sample]) -> Vec<&str> {
    let mut seen = BTreeSet::new();
    let all = samples.iter().map(|it| it.scenario.as_str());
    all.filter(|name| !name.contains("-pool-") && seen.insert(*name)).collect()
}

fn table(first: &[&str], columns: &[Column]) -> Table {
    let heads: Vec<&str> = first.iter().copied().chain(columns.iter().map(|(head, _)| *head)).collect();
    Table::new(&heads)
}

fn cells(samples: &[&Sample], columns: &[Column]) -> impl Iterator<Item = String> {
    columns.iter().map(|(_, value)| shown(median(samples, value)))
}

/// 200 connections; each strategy with the pool and the balance that were best in the probes.
fn strategies(samples: &[Sample]) -> String {
    let (trivial, batched) = (of(samples, "version-200"), of(samples, "issue-200"));
    let mut table =
        table(&["strategy, 200 connections", "pool size", "balance", "÷ trivial", "batched ÷ it"], &OF_STRATEGIES);
    let mut any = false;
    for strategy in Strategy::ALL {
        let name = if strategy == Strategy::Batched { "issue-200" } else { strategy.name() };
        let Some(first) = samples.iter().find(|it| it.scenario == name) else { continue };
        let knob = |name, default: &str| first.knobs.get(name).cloned().unwrap_or_else(|| default.to_owned());
        any |= strategy != Strategy::Batched;
        let good = of(samples, name);
        let note = if good.is_empty() { " (broken)" } else { "" };
        let mut row = vec![
            format!("{strategy}{note}"),
            if strategy == Strategy::Batched { "own lanes".to_owned() } else { knob(POOL, "?") },
            knob(BALANCE, "home"),
            shown(ratio(&good, &trivial)),
            shown(ratio(&batched, &good)),
        ];
        row.extend(cells(&good, &OF_STRATEGIES));
        table.row(row);
    }
    if any { table.text() + RETRIES } else { String::new() }
}

fn costs(samples: &[Sample]) -> String {
    let mut table = table(&[&["processor time of an answer, µs"][..], &PARTS[..], &["sum"][..]].concat(), &[]);
    for scenario in scenarios(samples) {
        let good = of(samples, scenario);
        let micros = |part| {
            median(&good, |it| (!it.cpu_seconds.is_empty()).then(|| it.cpu(part) * 1e6 / float(it.answered.max(1))))
        };
        let parts: Vec<f64> = PARTS.into_iter().filter_map(micros).collect();
        if !parts.is_empty() {
            let sum = parts.iter().sum();
            let row = [scenario.to_owned()].into_iter().chain(parts.into_iter().chain([sum]).map(number));
            table.row(row.collect::<Vec<_>>());
        }
    }
    if table.has_rows() { table.text() } else { String::new() }
}

fn measurements(samples: &[Sample]) -> String {
    let mut table = table(&["measurement", "answers/s", "min", "max"], &OF_ALL);
    for scenario in scenarios(samples) {
        let good = of(samples, scenario);
        let rate = Spread::of(good.iter().filter_map(|it| measured(it.rate)));
        let spread = [rate.map(|it| it.median), rate.map(|it| it.min), rate.map(|it| it.max)].map(shown);
        table.row([scenario.to_owned()].into_iter().chain(spread).chain(cells(&good, &OF_ALL)).collect::<Vec<_>>());
    }
    table.text() + EXPLAINED
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up_whatever_is_in_them() {
        let mut table = Table::new(&["name", "≥"]);
        table.row(["a longer name".to_owned(), "1".to_owned()]);
        table.row(["÷".to_owned(), "1,000".to_owned()]);

        assert_eq!(table.text(), "name               ≥\na longer name      1\n÷              1,000\n");
    }
}
