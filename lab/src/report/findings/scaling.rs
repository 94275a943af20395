//! What more replicas, another strategy and the lock were worth.

use super::{
    Data, Point, Shape, Strategy, highest, law, milliseconds, named, of_cells, per_second, percent, rate_bound_at,
    short, spread, under,
};
use crate::sweep::found::{Found, Part};

/// About the whole sweep.
pub fn overall(data: &Data) -> Vec<String> {
    let mut found = vec![promises(data)];
    found.extend(lost_updates(data));
    for shape in data.shapes() {
        found.extend(worth_of_the_lock(data, shape));
        found.extend(worth_of_batches(data, shape));
        found.extend(fairness(data, shape));
    }
    found
}

/// What more replicas did to one strategy.
pub fn of_strategy(data: &Data, shape: Shape, strategy: Strategy) -> Option<String> {
    let rules = [lock_wait(data, shape, strategy), throughput(data, shape, strategy), fitted(data, shape, strategy)];
    let said: Vec<String> = rules.into_iter().flatten().collect();
    (!said.is_empty()).then(|| format!("{strategy}: {}.", said.join("; ")))
}

fn promises(data: &Data) -> String {
    let judged: Vec<_> = data.found.iter().filter(|it| it.cell.strategy.keeps_promises()).collect();
    let broken: Vec<String> = judged.iter().filter(|it| it.is_broken()).map(|it| named(it)).collect();
    if judged.is_empty() {
        return "No cell has been measured whose strategy means to keep the promises: nothing is shown about them."
            .to_owned();
    }
    if broken.is_empty() {
        return format!("Every promise was kept in all {} cells whose strategy means to keep them.", judged.len());
    }
    format!("A promise was BROKEN in {}: {}.", of_cells(broken.len(), judged.len()), broken.join("; "))
}

fn lost_updates(data: &Data) -> Option<String> {
    let lost = |it: &Found| it.verdict.lost_updates + it.fairness.verdict.lost_updates;
    let unlocked: Vec<_> = data.found.iter().filter(|it| it.cell.strategy == Strategy::Unlocked).collect();
    let sum: i64 = unlocked.iter().map(|it| lost(it)).sum();
    let with = unlocked.iter().filter(|it| lost(it) > 0).count();
    (!unlocked.is_empty()).then(|| {
        format!("unlocked lost {sum} updates in {}: that is what it is here to show.", of_cells(with, unlocked.len()))
    })
}

/// The ends of the grid: the fewest and the most replicas with their points.
fn ends(data: &Data, shape: Shape, point: impl Fn(u32) -> Option<Point>) -> Option<((u32, Point), (u32, Point))> {
    let replicas = data.replicas(shape);
    let mut points = replicas.into_iter().filter_map(|n| Some((n, point(n)?)));
    let first = points.next()?;
    points.last().map(|last| (first, last))
}

fn lock_wait(data: &Data, shape: Shape, strategy: Strategy) -> Option<String> {
    let p99 = |part: &Part| part.lock_wait.map(|wait| wait.p99);
    let (first, last) = ends(data, shape, |n| data.point(shape, strategy, n, p99))?;
    Some(format!("lock wait p99 {}", change(first, last, milliseconds)))
}

fn throughput(data: &Data, shape: Shape, strategy: Strategy) -> Option<String> {
    if let Some(n) = rate_bound_at(data, shape, strategy) {
        return Some(format!("the offered rate was reached at \u{d7}{n}, so throughput says nothing"));
    }
    let (first, last) = ends(data, shape, |n| data.throughput(shape, strategy, n))?;
    let ideal = short(f64::from(last.0) / f64::from(first.0));
    let ideal = if last.1.is_above(&first.1) { format!(", where {ideal} times would be ideal") } else { String::new() };
    Some(format!("throughput {}{ideal}", change(first, last, per_second)))
}

/// What became of a figure from the fewest replicas to the most.
fn change((few, before): (u32, Point), (many, after): (u32, Point), unit: fn(f64) -> String) -> String {
    let (from, to) = (spread(before, unit), spread(after, unit));
    if before.low >= before.high && after.low >= after.high {
        return format!(
            "{from} at \u{d7}{few}, {to} at \u{d7}{many}, each seen once: whether that is a difference cannot be told"
        );
    }
    if after.is_above(&before) {
        let times = short(after.value / before.value);
        return format!("rose from {from} at \u{d7}{few} to {to} at \u{d7}{many}, {times} times");
    }
    if before.is_above(&after) {
        return format!("fell from {from} at \u{d7}{few} to {to} at \u{d7}{many}");
    }
    format!("did not change beyond its spread: {from} at \u{d7}{few}, {to} at \u{d7}{many}")
}

fn fitted(data: &Data, shape: Shape, strategy: Strategy) -> Option<String> {
    let fit = law(data, shape, strategy).ok()?;
    if !fit.describes() {
        return Some(format!(
            "the Universal Scalability Law does not describe it, being {} off on average",
            percent(fit.error)
        ));
    }
    let most = f64::from(*data.replicas(shape).last()?);
    let peak = fit.law.peak().filter(|peak| *peak <= most);
    let peak = peak.map_or(String::new(), |peak| format!(", highest at about {} replicas", short(peak.max(1.0))));
    Some(format!(
        "the Universal Scalability Law fits with a contention σ of {} (90 %: {} to {}) and a coherence κ of {} ({} to {}), {} off on \
         average{peak}",
        short(fit.law.sigma),
        short(fit.low.sigma),
        short(fit.high.sigma),
        short(fit.law.kappa),
        short(fit.low.kappa),
        short(fit.high.kappa),
        percent(fit.error)
    ))
}

/// Where a lock per request costs more than it gives: against one `WHERE` without any lock.
fn worth_of_the_lock(data: &Data, shape: Shape) -> Option<String> {
    compare(
        data,
        shape,
        Strategy::Conditional,
        Strategy::Redlock,
        "one WHERE without any lock",
        "a Redlock per request",
    )
}

fn worth_of_batches(data: &Data, shape: Shape) -> Option<String> {
    compare(data, shape, Strategy::Batched, Strategy::Redlock, "a Redlock per batch", "a Redlock per request")
}

/// At how many numbers of replicas one issues more than the other, or as much with a lower p99.
fn compare(data: &Data, shape: Shape, one: Strategy, other: Strategy, is: &str, than: &str) -> Option<String> {
    let p99 = |part: &Part| part.latency.map(|latency| latency.p99);
    let mut lines = Vec::new();
    for n in data.replicas(shape) {
        let (Some(a), Some(b)) = (data.throughput(shape, one, n), data.throughput(shape, other, n)) else { continue };
        let pair = |a: Point, b: Point, unit: fn(f64) -> String| {
            format!("\u{d7}{n}: {} against {}", unit(a.value), unit(b.value))
        };
        if a.is_above(&b) || b.is_above(&a) {
            lines.push(pair(a, b, per_second));
        } else if let (Some(a), Some(b)) = (data.point(shape, one, n, p99), data.point(shape, other, n, p99))
            && (a.is_above(&b) || b.is_above(&a))
        {
            lines.push(pair(a, b, milliseconds) + " at p99");
        }
    }
    (!lines.is_empty())
        .then(|| format!("{}, {one} ({is}) against {other} ({than}): {}.", under(shape), lines.join("; ")))
}

fn fairness(data: &Data, shape: Shape) -> Option<String> {
    let most = *data.replicas(shape).last()?;
    let mut lines = Vec::new();
    for strategy in data.strategies(shape) {
        let jump = |it: &Found| it.fairness.jump.map_or(-1.0, |jump| jump.p95);
        if let Some(worst) = highest(data.at(shape, strategy, most), jump) {
            lines.extend(fairness_of(worst));
        }
    }
    (!lines.is_empty())
        .then(|| format!("{}, fairness with {most} replicas, queue-jump p95: {}.", under(shape), lines.join("; ")))
}

fn fairness_of(found: &Found) -> Option<String> {
    let (fairness, strategy) = (&found.fairness, found.cell.strategy);
    let rounds = format!("{} of {} rounds", fairness.rounds, fairness.played);
    if !fairness.is_enough() {
        return Some(format!("{strategy} not known, for only {rounds} sold out"));
    }
    let jump = fairness.jump?;
    let mut said = vec![format!("{strategy} {}", milliseconds(jump.p95))];
    if let Some(wait) = fairness.lock_wait.filter(|wait| wait.p99 > 0.0) {
        said.push(format!("{} times the lock wait p99", short(jump.p95 / wait.p99)));
    }
    if let Some(pairs) = fairness.inversions {
        said.push(format!("{} of pairs out of order", percent(pairs.share())));
    }
    if fairness.rounds < fairness.played {
        said.push(format!("in the {rounds} that sold out"));
    }
    Some(said.join(", "))
}

#[cfg(test)]
mod tests {
    use super::super::super::data::tests::data;
    use super::*;

    fn waits(ms: f64) -> impl Fn(&mut Found) {
        move |found| {
            let grown = ms * f64::from(found.cell.replicas);
            let set = |part: &mut Part, by: f64| {
                part.lock_wait.as_mut().unwrap().p99 = grown * by;
            };
            set(&mut found.whole, 1.0);
            found.parts.iter_mut().zip([0.9, 1.0, 1.0, 1.1]).for_each(|(part, by)| set(part, by));
        }
    }

    #[test]
    fn a_rise_beyond_the_spread_is_said_with_both() {
        let text =
            lock_wait(&data(Shape::Hot, &[Strategy::Redlock], &[1, 4], waits(10.0)), Shape::Hot, Strategy::Redlock)
                .unwrap();

        assert_eq!(
            text,
            "lock wait p99 rose from 10 ms (9 ms to 11 ms) at \u{d7}1 to 40 ms (36 ms to 44 ms) at \u{d7}4, 4 times"
        );
    }

    #[test]
    fn a_change_within_the_spread_is_none() {
        let data = data(Shape::Hot, &[Strategy::Redlock], &[1, 4], |found| {
            found.parts[0].lock_wait.as_mut().unwrap().p99 = if found.cell.replicas == 1 { 30.0 } else { 1.0 };
        });

        assert!(lock_wait(&data, Shape::Hot, Strategy::Redlock).unwrap().contains("did not change beyond its spread"));
    }

    #[test]
    fn who_issues_nothing_under_a_lock_has_no_lock_wait() {
        let data = data(Shape::Hot, &[Strategy::Unlocked], &[1, 4], |found| {
            found.whole.lock_wait = None;
            found.parts.iter_mut().for_each(|part| part.lock_wait = None);
        });

        assert_eq!(lock_wait(&data, Shape::Hot, Strategy::Unlocked), None);
    }

    #[test]
    fn a_rate_that_was_reached_says_nothing_about_throughput() {
        let data = data(Shape::Hot, &[Strategy::Batched], &[1, 4], |_| ());

        assert!(throughput(&data, Shape::Hot, Strategy::Batched).unwrap().contains("says nothing"));
    }

    #[test]
    fn runs_seen_once_are_not_compared() {
        let data = data(Shape::Rush, &[Strategy::Batched], &[1, 4], |found| {
            found.parts.clear();
            found.whole.issued = f64::from(found.cell.replicas) * 100.0;
        });

        assert!(throughput(&data, Shape::Rush, Strategy::Batched).unwrap().contains("cannot be told"));
    }

    #[test]
    fn the_lock_is_compared_with_none_where_they_differ() {
        let data = data(Shape::Hot, &[Strategy::Conditional, Strategy::Redlock], &[1, 2], |found| {
            if found.cell.strategy == Strategy::Redlock && found.cell.replicas == 2 {
                found.whole.issued = 200.0;
                found.parts.iter_mut().for_each(|part| part.issued = 200.0);
            }
        });

        let text = worth_of_the_lock(&data, Shape::Hot).unwrap();

        assert!(text.contains("\u{d7}2: 1000/s against 200/s") && !text.contains("\u{d7}1"), "{text}");
    }

    #[test]
    fn a_broken_promise_is_shouted_and_unlocked_s_are_expected() {
        let both = [Strategy::Unlocked, Strategy::Redlock];
        let kept = data(Shape::Hot, &both, &[1], |found| {
            if found.cell.strategy == Strategy::Unlocked {
                found.verdict.clean = false;
                found.verdict.lost_updates = 7;
            }
        });
        let broken = data(Shape::Hot, &both, &[1], |found| found.verdict.clean = false);

        assert_eq!(promises(&kept), "Every promise was kept in all 1 cells whose strategy means to keep them.");
        assert_eq!(
            lost_updates(&kept).unwrap(),
            "unlocked lost 7 updates in 1 of 1 cells: that is what it is here to show."
        );
        assert_eq!(promises(&broken), "A promise was BROKEN in 1 of 1 cells: redlock \u{d7}1, hot.");
    }

    #[test]
    fn fairness_names_the_rounds_it_could_use() {
        let data = data(Shape::Hot, &[Strategy::Redlock], &[1, 4], |found| found.fairness.rounds = 150);

        let text = fairness(&data, Shape::Hot).unwrap();

        assert!(text.contains("with 4 replicas") && text.contains("in the 150 of 200 rounds that sold out"), "{text}");
    }
}
