//! What a person reads at the end: the budgets, the strategies, what each request costs, everything that was measured.

use std::collections::BTreeSet;

use clap::ValueEnum;

use super::budgets::{Bound, Budget};
use super::list::POOL;
use crate::cluster::private::BALANCE;
use crate::measure::Sample;
use crate::numbers::{Spread, float, measured, number, shown};
use crate::strategy::Strategy;
use crate::table::Table;

/// Parts of the machine, in the order of a request's way.
const PARTS: &[&str] = &["loader", "nginx", "replicas", "mysqld", "redis", "prometheus", "others", "idle"];

/// A column: its head, and what a sample has to say there. k6 does not tell everything; what nobody measured is no zero.
type Column = (&'static str, fn(&Sample) -> Option<f64>);

/// A row: words, and the samples whose medians follow.
type Row<'a> = (Vec<String>, Vec<&'a Sample>);

const P50: Column = ("p50 ms", |it| Some(it.latency?.p50));
const P99: Column = ("p99 ms", |it| Some(it.latency?.p99));
const REDIS: Column = ("Redis each", |it| measured(it.each(it.redis_commands)));
const SQL: Column = ("SQL each", |it| measured(it.each(it.statements)));

const OF_STRATEGIES: [Column; 6] =
    [("issues/s", |it| Some(it.rate)), P50, P99, ("refused %", |it| Some(100.0 - percent(it.issued, it))), REDIS, SQL];

const OF_ALL: [Column; 9] = [
    P50,
    P99,
    ("p99.9 ms", |it| measured(it.latency?.p999)),
    ("lock wait p99 ms", |it| Some(it.replicas.lock_wait?.p99)),
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

/// Of all answers.
fn percent(count: u64, sample: &Sample) -> f64 {
    100.0 * float(count) / float(sample.answered.max(1))
}

/// Everything, in the order in which it matters.
pub fn text(lines: &[Budget], samples: &[Sample], noise: &[String]) -> String {
    let mut parts = vec![budgets(lines), strategies(samples), costs(samples), measurements(samples)];
    let broken: Vec<String> = scenarios(samples).filter_map(|scenario| broken(samples, scenario)).collect();
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
    let [p50, p99] = [P50, P99].map(|(_, value)| shown(value(sample)));
    format!("{scenario}: {}/s, p50 {p50} ms, p99 {p99} ms{short}", number(sample.rate))
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
        let name = if line.unit.is_empty() { line.name.to_owned() } else { format!("{}, {}", line.name, line.unit) };
        let [median, min, max] = spread(line.figure);
        let repeats = line.figure.map_or("-".to_owned(), |it| it.repeats.to_string());
        let [target, stretch] = [line.target, line.stretch].map(bound);
        table.row([name, target, median, min, max, repeats, line.standing.to_string(), stretch]);
        if let (Some(why), Some(_)) = (line.explanation, line.figure) {
            explained.push(format!("{}: {why}\n", line.name));
        }
    }
    table.text() + &explained.concat()
}

fn spread(figure: Option<Spread>) -> [String; 3] {
    [figure.map(|it| it.median), figure.map(|it| it.min), figure.map(|it| it.max)].map(shown)
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
fn scenarios(samples: &[Sample]) -> impl Iterator<Item = &str> {
    let mut seen = BTreeSet::new();
    let all = samples.iter().map(|it| it.scenario.as_str());
    all.filter(move |name| !name.contains("-pool-") && seen.insert(*name))
}

/// Empty without rows.
fn table<'a>(
    words: &[&str],
    columns: &[(&str, impl Fn(&Sample) -> Option<f64>)],
    rows: impl Iterator<Item = Row<'a>>,
) -> String {
    let heads: Vec<&str> = words.iter().copied().chain(columns.iter().map(|(head, _)| *head)).collect();
    let mut table = Table::new(&heads);
    for (mut row, samples) in rows {
        row.extend(columns.iter().map(|(_, value)| shown(median(&samples, value))));
        table.row(row);
    }
    if table.has_rows() { table.text() } else { String::new() }
}

/// 200 connections; each strategy with the pool and the balance that were best in the probes.
fn strategies(samples: &[Sample]) -> String {
    let (trivial, batched) = (of(samples, "version-200"), of(samples, "issue-200"));
    let row = |strategy: &Strategy| {
        let is_batched = *strategy == Strategy::Batched;
        let name = if is_batched { "issue-200".to_owned() } else { strategy.to_string() };
        let first = samples.iter().find(|it| it.scenario == name)?;
        let knob = |name, default: &str| first.knobs.get(name).cloned().unwrap_or_else(|| default.to_owned());
        let good = of(samples, &name);
        let words = vec![
            format!("{strategy}{}", if good.is_empty() { " (broken)" } else { "" }),
            if is_batched { "own lanes".to_owned() } else { knob(POOL, "?") },
            knob(BALANCE, "home"),
            shown(ratio(&good, &trivial)),
            shown(ratio(&batched, &good)),
        ];
        Some((words, good))
    };
    let rows: Vec<Row> = Strategy::value_variants().iter().filter_map(row).collect();
    // A strategy alone is compared with nothing.
    if rows.len() < 2 {
        return String::new();
    }
    let words = ["strategy, 200 connections", "pool size", "balance", "÷ trivial", "batched ÷ it"];
    table(&words, &OF_STRATEGIES, rows.into_iter()) + RETRIES
}

fn costs(samples: &[Sample]) -> String {
    let column = |parts: &'static [&'static str]| {
        move |it: &Sample| {
            let seconds = parts.iter().map(|part| it.cpu(part)).sum::<f64>();
            (!it.cpu_seconds.is_empty()).then(|| seconds * 1e6 / float(it.answered.max(1)))
        }
    };
    let mut columns: Vec<_> = PARTS.chunks(1).map(|part| (part[0], column(part))).collect();
    columns.push(("sum", column(PARTS)));
    let rows = scenarios(samples).map(|scenario| (vec![scenario.to_owned()], of(samples, scenario)));
    let known = rows.filter(|(_, good)| good.iter().any(|it| !it.cpu_seconds.is_empty()));
    table(&["processor time of an answer, µs"], &columns, known)
}

fn measurements(samples: &[Sample]) -> String {
    let row = |scenario: &str| {
        let good = of(samples, scenario);
        let rate = spread(Spread::of(good.iter().filter_map(|it| measured(it.rate))));
        ([scenario.to_owned()].into_iter().chain(rate).collect::<Vec<_>>(), good)
    };
    table(&["measurement", "answers/s", "min", "max"], &OF_ALL, scenarios(samples).map(row)) + EXPLAINED
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
