//! What a person reads at the end: the budgets, the strategies, what each request costs, everything that was measured.

use super::budgets::{Bound, Line, Spread, Verdict};
use super::plan::Scenario;
use super::sample::Sample;
use crate::strategy::Strategy;
use crate::table::Table;

/// Everything, in the order in which it matters.
pub fn text(lines: &[Line], samples: &[Sample], superseded: usize, noise: &[String]) -> String {
    let mut parts = vec![budgets(lines)];
    parts.push(strategies(samples));
    parts.push(costs(samples));
    parts.push(measurements(samples));
    if superseded > 0 {
        parts.push(format!("{superseded} measurements on slowed processors were made again; bench.json has them\n"));
    }
    let broken: Vec<String> = scenarios(samples).iter().filter_map(|scenario| broken(samples, scenario)).collect();
    if !broken.is_empty() {
        parts.push(format!("measurements without a figure\n{}\n", broken.join("\n")));
    }
    if !noise.is_empty() {
        parts.push(format!("DO NOT TRUST THESE FIGURES:\n  {}\n", noise.join("\n  ")));
    }
    parts.retain(|part| !part.is_empty());
    parts.join("\n")
}

/// Why a scenario has no figure in some of its rounds, by the first of them.
fn broken(samples: &[Sample], scenario: &str) -> Option<String> {
    let all = samples.iter().filter(|it| it.scenario == scenario);
    let broken: Vec<&Sample> = all.clone().filter(|it| it.broken.is_some()).collect();
    let why = broken.first()?.broken.as_ref()?;
    Some(format!("  {scenario}, {} of {}: {why}", broken.len(), all.count()))
}

fn budgets(lines: &[Line]) -> String {
    let mut table = Table::new(&["budget", "target", "figure", "min", "max", "rounds", "verdict", "stretch"]);
    for line in lines {
        let spread = |value: fn(&Spread) -> f64| line.figure.as_ref().map_or("-".to_owned(), |it| number(value(it)));
        let name = if line.unit.is_empty() { line.name.to_owned() } else { format!("{}, {}", line.name, line.unit) };
        table.row([
            name,
            bound(line.target),
            spread(|it| it.median),
            spread(|it| it.min),
            spread(|it| it.max),
            line.figure.map_or("-".to_owned(), |it| it.rounds.to_string()),
            verdict(line).to_owned(),
            bound(line.stretch),
        ]);
    }
    table.text()
}

fn verdict(line: &Line) -> &'static str {
    match line.verdict {
        Verdict::Stretch => "met, and the stretch",
        Verdict::Met if line.target.is_none() => "no target",
        Verdict::Met => "met",
        Verdict::Missed => "MISSED",
        Verdict::Broken => "BROKEN",
        Verdict::Unmeasured => "NOT MEASURED",
        Verdict::LeftOut => "left out",
    }
}

fn bound(bound: Option<Bound>) -> String {
    match bound {
        Some(Bound::AtLeast(value)) => format!("≥ {}", number(value)),
        Some(Bound::AtMost(value)) => format!("≤ {}", number(value)),
        None => String::new(),
    }
}

/// As many digits as a figure deserves.
fn number(value: f64) -> String {
    match value.abs() {
        _ if value == 0.0 => "0".to_owned(),
        1_000.0.. => thousands(value),
        100.0.. => format!("{value:.0}"),
        10.0.. => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

fn percent(share: f64) -> String {
    if share == 0.0 { String::new() } else { format!("{:.1} %", share * 100.0) }
}

fn thousands(value: f64) -> String {
    let digits = format!("{value:.0}");
    let mut text = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) && digit.is_ascii_digit() {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// The samples of one scenario that have a figure.
fn of<'a>(samples: &'a [Sample], scenario: &str) -> Vec<&'a Sample> {
    samples.iter().filter(|it| it.scenario == scenario && it.broken.is_none()).collect()
}

fn median(samples: &[&Sample], value: impl Fn(&Sample) -> f64) -> Option<f64> {
    Spread::of(samples.iter().map(|sample| value(sample))).map(|spread| spread.median)
}

fn shown(value: Option<f64>) -> String {
    value.map_or("-".to_owned(), number)
}

/// The one's rate by the other's, in each round in which both were measured.
fn ratio(some: &[&Sample], others: &[&Sample]) -> Option<f64> {
    let by = |round| others.iter().find(|it| it.round == round);
    Spread::of(some.iter().filter_map(|it| Some(it.rate / by(it.round)?.rate))).map(|spread| spread.median)
}

/// How often the service asks again: `src/lock.rs`, `src/issuance.rs` and `src/issuance/optimistic.rs`.
const RETRIES: &str = "retries: redlock after 1 ms, then 1.5 times as long each, up to 25 ms, jittered, until its caller's deadline;\n\
    optimistic up to 50 transactions, the others up to 3 when the database reports a conflict\n";

/// 200 connections; each strategy with the pool that was best in the probes.
fn strategies(samples: &[Sample]) -> String {
    let (trivial, batched) = (of(samples, "version-200"), of(samples, "issue-200"));
    let head = [
        "strategy, 200 connections",
        "pool size",
        "issues/s",
        "÷ trivial",
        "batched ÷ it",
        "p50 ms",
        "p99 ms",
        "refused",
        "Redis each",
        "SQL each",
    ];
    let mut table = Table::new(&head);
    let mut any = false;
    for strategy in Strategy::ALL {
        let name = if strategy == Strategy::Batched { "issue-200" } else { strategy.name() };
        let all: Vec<&Sample> = samples.iter().filter(|it| it.scenario == name).collect();
        let Some(first) = all.first() else { continue };
        any |= strategy != Strategy::Batched;
        let good = of(samples, name);
        let note = if good.is_empty() { " (broken)" } else { "" };
        table.row([
            format!("{strategy}{note}"),
            first.pool_size.map_or("own lanes".to_owned(), |size| size.to_string()),
            shown(median(&good, |it| it.rate)),
            shown(ratio(&good, &trivial)),
            shown(ratio(&batched, &good)),
            shown(median(&good, |it| it.latency.p50)),
            shown(median(&good, |it| it.latency.p99)),
            median(&good, Sample::refused).map_or("-".to_owned(), percent),
            shown(median(&good, |it| it.each(it.redis_commands))),
            shown(median(&good, |it| it.each(it.mysql.questions))),
        ]);
    }
    if any { table.text() + RETRIES } else { String::new() }
}

/// Processor time for each answer.
fn costs(samples: &[Sample]) -> String {
    const PARTS: [&str; 8] = ["loader", "nginx", "replicas", "mysqld", "redis", "prometheus", "others", "idle"];
    let mut head = vec!["processor time of an answer, µs"];
    head.extend(PARTS);
    head.push("sum");
    let mut table = Table::new(&head);
    for scenario in scenarios(samples) {
        let good = of(samples, &scenario);
        if good.iter().all(|it| it.cpu_seconds.is_empty()) {
            continue;
        }
        let parts: Vec<f64> = PARTS.iter().filter_map(|part| median(&good, |it| it.micros(part))).collect();
        let sum: f64 = parts.iter().sum();
        let mut row = vec![scenario];
        row.extend(parts.iter().map(|part| number(*part)));
        row.push(number(sum));
        table.row(row);
    }
    if table.has_rows() { table.text() } else { String::new() }
}

const EXPLAINED: &str = "each: for an issued coupon, or for an answer where none was issued\n\
    speed: of the processors meanwhile, 1 being the fastest that was seen\n";

/// Each scenario once, in the order in which it was first measured, without the probes.
fn scenarios(samples: &[Sample]) -> Vec<String> {
    let mut found: Vec<String> = Vec::new();
    for sample in samples {
        if !found.contains(&sample.scenario) && !sample.scenario.contains("-pool-") {
            found.push(sample.scenario.clone());
        }
    }
    found
}

fn measurements(samples: &[Sample]) -> String {
    let head = [
        "measurement",
        "answers/s",
        "min",
        "max",
        "p50 ms",
        "p99 ms",
        "p99.9 ms",
        "lock wait p99 ms",
        "late",
        "Redis each",
        "SQL each",
        "replica MiB",
        "speed",
    ];
    let mut table = Table::new(&head);
    for scenario in scenarios(samples) {
        let good = of(samples, &scenario);
        // k6 does not tell everything; what nobody measured is no zero.
        let rate = Spread::of(good.iter().map(|it| it.rate).filter(|it| *it > 0.0));
        let told = |value: fn(&Sample) -> f64| shown(median(&good, value).filter(|it| *it > 0.0));
        let wait = Spread::of(good.iter().filter_map(|it| it.lock_wait_p99)).map(|it| it.median);
        table.row([
            scenario,
            shown(rate.map(|it| it.median)),
            shown(rate.map(|it| it.min)),
            shown(rate.map(|it| it.max)),
            told(|it| it.latency.p50),
            told(|it| it.latency.p99),
            told(|it| it.latency.p999),
            shown(wait),
            median(&good, Sample::late_share).map_or("-".to_owned(), percent),
            told(|it| it.each(it.redis_commands)),
            told(|it| it.each(it.mysql.questions)),
            shown(Spread::of(good.iter().filter_map(|it| it.peak_mebibytes())).map(|it| it.median)),
            shown(Spread::of(good.iter().filter_map(|it| it.quiet.speed)).map(|it| it.median)),
        ]);
    }
    format!("{}{EXPLAINED}", table.text())
}

/// One line about a sample, for whoever watches.
pub fn line(scenario: Scenario, sample: &Sample) -> String {
    if let Some(why) = &sample.broken {
        return format!("{scenario}: no figure: {why}");
    }
    let rate = if sample.rate > 0.0 { format!("{}/s, ", number(sample.rate)) } else { String::new() };
    format!("{scenario}: {rate}p50 {} ms, p99 {} ms", number(sample.latency.p50), number(sample.latency.p99))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_as_many_digits_as_they_deserve() {
        let shown: Vec<_> = [0.0, 0.357, 9.99, 12.34, 123.4, 22_900.4, 1_234_567.0].map(number).into();

        assert_eq!(shown, ["0", "0.36", "9.99", "12.3", "123", "22,900", "1,234,567"]);
    }

    #[test]
    fn columns_line_up_whatever_is_in_them() {
        let mut table = Table::new(&["name", "≥"]);
        table.row(["a longer name".to_owned(), "1".to_owned()]);
        table.row(["÷".to_owned(), "1,000".to_owned()]);

        assert_eq!(table.text(), "name               ≥\na longer name      1\n÷              1,000\n");
    }
}
