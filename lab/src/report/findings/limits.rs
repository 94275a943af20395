//! Where the generator, the machine or the way of measuring was the limit, and what figures cannot say.

use std::collections::BTreeSet;

use super::{
    Data, Found, Shape, highest, is_rate_bound, milliseconds, named, of_cells, per_second, percent, processors,
};
use crate::speed::SPEED_MIN;
use crate::strategy::Strategy;

/// A generator beyond this share of one processor per processor of the machine takes what the service would need.
const GENERATOR_MAX: f64 = 0.25;
/// From here on the processors have nothing to give.
const BUSY_MIN: f64 = 0.9;
/// Shares of the processors that others may use, and that the host may take away.
const OTHERS_MAX: f64 = 0.05;
const STOLEN_MAX: f64 = 0.01;
/// Share of the requests that may stay unsent without a word.
const DROPPED_MAX: f64 = 0.001;
/// How much longer than at the replica an answer may take for k6, as a ratio and in milliseconds.
const OUTSIDE_RATIO: f64 = 1.5;
const OUTSIDE_MS: f64 = 5.0;

/// The sentences, those that doubt the most first.
pub fn find(data: &Data) -> Vec<String> {
    let rules: [fn(&Data) -> Option<String>; 12] =
        [unfinished, commits, others, stolen, slowed, busy, generator, dropped, outside, rate, no_lock_wait, spread];
    let mut found: Vec<String> = rules.into_iter().filter_map(|rule| rule(data)).collect();
    found.push(
        "Percentiles at the replica come from buckets that grow by 1.5: a value is exact to its bucket, and within it values are \
         taken as evenly spread."
            .to_owned(),
    );
    found
}

fn unfinished(data: &Data) -> Option<String> {
    let (done, planned) = (data.found.len(), data.plan.cells.len());
    (done < planned).then(|| format!("The sweep is not complete: {} were measured.", of_cells(done, planned)))
}

fn commits(data: &Data) -> Option<String> {
    let commits: BTreeSet<&str> = data.found.iter().map(|found| found.commit.as_str()).collect();
    if commits.len() > 1 {
        let list: Vec<&str> = commits.into_iter().collect();
        return Some(format!("Cells were measured with different versions of the code: {}.", list.join(", ")));
    }
    let only = commits.first()?;
    only.ends_with('+')
        .then(|| format!("The code had changes that commit {} does not hold.", only.trim_end_matches('+')))
}

fn others(data: &Data) -> Option<String> {
    let share = |it: &Found| it.processors.others / it.processors.all.max(f64::EPSILON);
    let loud = data.found.iter().filter(|it| share(it) > OTHERS_MAX).count();
    let worst = highest(&data.found, share).filter(|_| loud > 0)?;
    Some(format!(
        "The machine was not left alone: programs that belong to no sweep (and the kernel on its own account) used more than {} of \
         the processors in {}, at most {} ({}). Latencies and throughput there are worse than the service's own.",
        percent(OTHERS_MAX),
        of_cells(loud, data.found.len()),
        percent(share(worst)),
        named(worst)
    ))
}

fn stolen(data: &Data) -> Option<String> {
    let share = |it: &Found| it.processors.stolen / it.processors.all.max(f64::EPSILON);
    let loud = data.found.iter().filter(|it| share(it) > STOLEN_MAX).count();
    let worst = highest(&data.found, share).filter(|_| loud > 0)?;
    Some(format!(
        "The host took away more than {} of the processors in {}, at most {} ({}).",
        percent(STOLEN_MAX),
        of_cells(loud, data.found.len()),
        percent(share(worst)),
        named(worst)
    ))
}

fn slowed(data: &Data) -> Option<String> {
    let lost = |it: &Found| it.processors.speed.map_or(0.0, |speed| 1.0 - speed);
    let slow = data.found.iter().filter(|it| lost(it) > 1.0 - SPEED_MIN).count();
    let worst = highest(&data.found, lost).filter(|_| slow > 0)?;
    Some(format!(
        "The processors had less than {} of their full speed in {}, {} at the least ({}), as they do when the host lets others share \
         their cores. Times there are longer than the service's own, and cells compare only where their speeds do.",
        percent(SPEED_MIN),
        of_cells(slow, data.found.len()),
        percent(1.0 - lost(worst)),
        named(worst)
    ))
}

fn busy(data: &Data) -> Option<String> {
    let share = |it: &Found| it.processors.busy() / it.processors.all.max(f64::EPSILON);
    let full: Vec<&Found> = data.found.iter().filter(|it| share(it) >= BUSY_MIN).collect();
    if full.is_empty() {
        let most = highest(&data.found, share)?;
        return Some(format!(
            "The processors were never the limit: they were busy {} at most ({}).",
            percent(share(most)),
            named(most)
        ));
    }
    let all = full[0].processors.all.round();
    Some(format!(
        "The {all} processors were busy {} or more in {}. Everything runs on them, the generator too, so more replicas cannot \
         raise throughput there: they share what there is.",
        percent(BUSY_MIN),
        of_cells(full.len(), data.found.len())
    ))
}

fn generator(data: &Data) -> Option<String> {
    let used = |it: &Found| it.processors.generator;
    let most = highest(&data.found, used)?;
    let all = most.processors.all;
    let heavy = data.found.iter().filter(|it| used(it) > GENERATOR_MAX * it.processors.all).count();
    let text = format!("The load generator used up to {} ({})", processors(used(most), all), named(most));
    if heavy == 0 {
        return Some(format!("{text}; nowhere more than {} of the machine.", percent(GENERATOR_MAX)));
    }
    Some(format!(
        "{text}, and more than {} of the machine in {}. It takes them from the service: figures there are what both reach \
         together, not the service's limit.",
        percent(GENERATOR_MAX),
        of_cells(heavy, data.found.len())
    ))
}

#[expect(clippy::cast_precision_loss, reason = "requests of one cell")]
fn dropped(data: &Data) -> Option<String> {
    let share = |it: &Found| it.dropped as f64 / ((it.sent + it.dropped) as f64).max(1.0);
    let short = data.found.iter().filter(|it| share(it) > DROPPED_MAX).count();
    let worst = highest(&data.found, share).filter(|_| short > 0)?;
    Some(format!(
        "In {} some requests could not even be sent, because every virtual user still waited: up to {} ({}). Nobody waited for \
         those, so the latencies there are better than the truth, and the load was a closed one in effect.",
        of_cells(short, data.found.len()),
        percent(share(worst)),
        named(worst)
    ))
}

fn outside(data: &Data) -> Option<String> {
    let replica = |it: &Found| it.whole.latency.map_or(f64::INFINITY, |latency| latency.p99);
    let open = || data.found.iter().filter(|it| it.cell.shape != Shape::Rush);
    let more = |it: &Found| it.client.p99 - replica(it);
    let far = |it: &&Found| it.client.p99 > OUTSIDE_RATIO * replica(it) && more(it) > OUTSIDE_MS;
    let count = open().filter(far).count();
    let worst = highest(open().filter(far), more)?;
    Some(format!(
        "For k6 the p99 was more than {OUTSIDE_RATIO} times that at the replicas in {}, at most {} against {} ({}): the difference \
         is waiting in k6, nginx and the kernel. The pictures show the replicas' own, the table has k6's.",
        of_cells(count, open().count()),
        milliseconds(worst.client.p99),
        milliseconds(replica(worst)),
        named(worst)
    ))
}

fn rate(data: &Data) -> Option<String> {
    let mut bound: Vec<String> = Vec::new();
    for shape in data.shapes() {
        let names: Vec<&str> = data
            .strategies(shape)
            .into_iter()
            .filter(|it| is_rate_bound(data, shape, *it))
            .map(Strategy::name)
            .collect();
        if !names.is_empty() {
            bound.push(format!("{} ({shape})", names.join(", ")));
        }
    }
    (!bound.is_empty()).then(|| {
        format!(
            "The offered {} were reached by {}. There the throughput is the rate's and says nothing about what the service could do.",
            per_second(data.plan.settings.rate.into()),
            bound.join("; ")
        )
    })
}

fn no_lock_wait(data: &Data) -> Option<String> {
    let measured: BTreeSet<_> = data.found.iter().map(|it| it.cell.strategy).collect();
    let without: Vec<&str> = measured.into_iter().filter(|it| !it.has_lock_wait()).map(Strategy::name).collect();
    (!without.is_empty()).then(|| {
        format!(
            "No lock wait is drawn for {}: they wait for no exclusive right before they write.",
            without.join(" and ")
        )
    })
}

fn spread(data: &Data) -> Option<String> {
    let repeats = data.found.iter().map(|it| it.cell.repeat).max()?;
    let has_rush = data.found.iter().any(|it| it.cell.shape == Shape::Rush);
    let text = if repeats > 1 {
        format!(
            "The bars show the least and the most of {repeats} runs and of the four parts of each; points are the median run."
        )
    } else {
        let rush = if has_rush { " A rush is one burst and has no parts, so it shows no spread." } else { "" };
        format!("Each cell was measured once: the bars show the four parts of one run, not how runs differ.{rush}")
    };
    Some(text)
}

#[cfg(test)]
mod tests {
    use super::super::super::data::tests::data;
    use super::*;

    fn said(change: impl Fn(&mut Found)) -> String {
        find(&data(Shape::Hot, &[Strategy::Redlock, Strategy::Unlocked], &[1, 2], change)).join("\n")
    }

    #[test]
    fn a_calm_sweep_is_told_its_usual_limits_only() {
        let text = said(|_| ());

        for silent in
            ["not complete", "left alone", "took away", "could not even be sent", "For k6", "different versions"]
        {
            assert!(!text.contains(silent), "{silent}: {text}");
        }
        assert!(text.contains("never the limit: they were busy 25 % at most"), "{text}");
        assert!(text.contains("No lock wait is drawn for unlocked"), "{text}");
    }

    #[test]
    fn busy_processors_are_named_as_the_limit() {
        let text = said(|found| found.processors.database = if found.cell.replicas == 2 { 1.4 } else { 0.0 });

        assert!(text.contains("The 2 processors were busy 90 % or more in 2 of 4 cells"), "{text}");
    }

    #[test]
    fn a_heavy_generator_is_named_as_the_limit() {
        let text = said(|found| found.processors.generator = if found.cell.replicas == 2 { 1.25 } else { 0.1 });

        assert!(text.contains("used up to 1.25 of 2 processors") && text.contains("in 2 of 4 cells"), "{text}");
    }

    #[test]
    fn requests_that_were_not_sent_make_latencies_optimistic() {
        let text = said(|found| found.dropped = if found.cell.strategy == Strategy::Redlock { 4_000 } else { 0 });

        assert!(
            text.contains("In 2 of 4 cells") && text.contains("up to 25 %") && text.contains("better than the truth"),
            "{text}"
        );
    }

    #[test]
    fn a_slowed_machine_is_named_and_one_that_nobody_looked_at_is_not() {
        let text = said(|found| found.processors.speed = Some(if found.cell.replicas == 2 { 0.55 } else { 0.95 }));

        assert!(text.contains("less than 90 % of their full speed in 2 of 4 cells, 55 % at the least"), "{text}");
        assert!(!said(|found| found.processors.speed = None).contains("full speed"));
    }

    #[test]
    fn a_loud_machine_is_named() {
        assert!(said(|found| found.processors.others = 1.0).contains("at most 50 %"));
    }

    #[test]
    fn two_versions_and_uncommitted_changes_are_named() {
        let two = said(|found| found.commit = format!("c{}", found.cell.replicas));
        let dirty = said(|found| found.commit = "abc+".to_owned());

        assert!(two.contains("different versions of the code: c1, c2"), "{two}");
        assert!(dirty.contains("commit abc does not hold"), "{dirty}");
    }

    #[test]
    fn a_sweep_that_is_not_complete_says_so() {
        let mut data = data(Shape::Hot, &[Strategy::Redlock], &[1, 2], |_| ());
        data.found.pop();

        assert!(find(&data)[0].contains("1 of 2 cells"));
    }
}
