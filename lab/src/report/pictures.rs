//! The pictures of one shape of load, each with what it shows.

use super::axis::milliseconds;
use super::data::{Data, Point};
use super::findings;
use super::lines::{self, Line, Reference, Scale, plain};
use super::rows::{self, Name, Piece, Range, percent};
use super::usl;
use crate::strategy::Strategy;
use crate::sweep::found::{Found, Part};
use crate::sweep::plan::Shape;

/// Points of a fitted curve between two numbers of replicas.
const CURVE_POINTS: u32 = 60;

/// What k6 counts, in the order of a bar.
const OUTCOMES: [&str; 7] = ["issued", "sold out", "already issued", "replayed", "not open", "busy", "unexpected"];

/// A figure of a stretch of time.
type OfPart = fn(&Part) -> Option<f64>;

/// A picture with its words.
#[derive(Debug)]
pub struct Figure {
    /// What it shows.
    pub title: &'static str,
    /// How to read it.
    pub note: String,
    /// Classes and names of the colours, where they are not written into the picture.
    pub key: Vec<(String, String)>,
    /// SVG.
    pub picture: String,
}

/// All that can be drawn of a shape.
pub fn all(data: &Data, shape: Shape) -> Vec<Figure> {
    let mut figures = Vec::new();
    let times: [(&str, &str, OfPart); 4] = [
        ("Lock wait, p50", LOCK_WAIT, |it| it.lock_wait.map(|wait| wait.p50)),
        ("Lock wait, p99", LOCK_WAIT, |it| it.lock_wait.map(|wait| wait.p99)),
        ("Latency, p50", LATENCY, |it| it.latency.map(|latency| latency.p50)),
        ("Latency, p99", LATENCY, |it| it.latency.map(|latency| latency.p99)),
    ];
    for (title, note, figure) in times {
        let lines = lines_of(data, shape, |strategy, n| data.point(shape, strategy, n, figure));
        let picture = lines::draw(title, &lines, Scale::Log, milliseconds, Reference::Nothing);
        figures.extend(picture.map(|picture| Figure { title, note: note.to_owned(), key: Vec::new(), picture }));
    }
    figures.extend(throughput(data, shape));
    figures.extend(speed_up(data, shape));
    let cells = cells(data, shape);
    figures.push(outcomes(&cells));
    figures.extend(queue_jump(&cells));
    figures.push(processors(&cells));
    figures
}

const LOCK_WAIT: &str = "From a request's entry to its exclusive right, at the replicas; logarithmic.";
const LATENCY: &str = "From a request's head to its answer, at the replicas, refusals too; logarithmic.";

fn lines_of(data: &Data, shape: Shape, point: impl Fn(Strategy, u32) -> Option<Point>) -> Vec<Line> {
    let line = |strategy| {
        let points = data.replicas(shape).into_iter().filter_map(|n| Some((n, point(strategy, n)?)));
        Line { strategy, points: points.collect(), curve: Vec::new() }
    };
    data.strategies(shape).into_iter().map(line).filter(|line| !line.points.is_empty()).collect()
}

fn throughput(data: &Data, shape: Shape) -> Option<Figure> {
    let mut lines = lines_of(data, shape, |strategy, n| data.throughput(shape, strategy, n));
    for line in &mut lines {
        line.curve = curve(data, shape, line.strategy);
    }
    let reference = match shape {
        Shape::Rush => Reference::Nothing,
        _ => Reference::Level(data.plan.settings.rate.into(), "offered"),
    };
    let title = "Throughput";
    let picture = lines::draw(title, &lines, Scale::Linear, plain, reference)?;
    let fitted =
        if lines.iter().any(|line| !line.curve.is_empty()) { " Dashed: the Universal Scalability Law." } else { "" };
    Some(Figure { title, note: format!("Coupons issued a second.{fitted}"), key: Vec::new(), picture })
}

/// Only between the numbers of replicas that were measured, and only where it is near to what was.
fn curve(data: &Data, shape: Shape, strategy: Strategy) -> Vec<(f64, f64)> {
    let Some(fit) = findings::law(data, shape, strategy).ok().filter(usl::Fit::describes) else { return Vec::new() };
    let replicas = data.replicas(shape);
    let (Some(first), Some(last)) = (replicas.first(), replicas.last()) else { return Vec::new() };
    let (first, last) = (f64::from(*first), f64::from(*last));
    let place = |number| first * (last / first).powf(f64::from(number) / f64::from(CURVE_POINTS));
    (0..=CURVE_POINTS).map(|number| (place(number), fit.law.at(place(number)))).collect()
}

/// Against the smallest number of replicas, so that one ideal line holds for all strategies.
fn speed_up(data: &Data, shape: Shape) -> Option<Figure> {
    let first = *data.replicas(shape).first()?;
    let mut lines = lines_of(data, shape, |strategy, n| {
        let base = data.throughput(shape, strategy, first)?.value;
        let point = data.throughput(shape, strategy, n)?;
        (base > 0.0).then(|| Point { value: point.value / base, low: point.low / base, high: point.high / base })
    });
    // With one number of replicas there is nothing to compare.
    lines.retain(|line| line.points.len() > 1);
    let title = "Throughput against the ideal";
    let picture =
        lines::draw(title, &lines, Scale::Doubling, |value| format!("{}\u{d7}", plain(value)), Reference::Ideal)?;
    let bound = lines.iter().any(|line| findings::is_rate_bound(data, shape, line.strategy));
    let bound = if bound { " A line at 1\u{d7} may only mean that the offered rate was reached." } else { "" };
    let note = format!("Times that of {first} replica{}.{bound}", if first == 1 { "" } else { "s" });
    Some(Figure { title, note, key: Vec::new(), picture })
}

/// Every place of the grid with its median repeat: the one whose throughput is in the middle.
fn cells(data: &Data, shape: Shape) -> Vec<(Name, &Found)> {
    let mut cells = Vec::new();
    for strategy in data.strategies(shape) {
        for replicas in data.replicas(shape) {
            let mut repeats = data.at(shape, strategy, replicas);
            repeats.sort_by(|one, other| one.throughput().total_cmp(&other.throughput()));
            let middle = repeats.get(repeats.len() / 2);
            cells.extend(middle.map(|found| (Name { strategy, replicas }, *found)));
        }
    }
    cells
}

#[expect(clippy::cast_precision_loss, reason = "answers of one run")]
fn outcomes(cells: &[(Name, &Found)]) -> Figure {
    let class = |name: &str| format!("o-{}", name.replace(' ', "-"));
    let pieces = |found: &Found| {
        let mut counts: Vec<(&str, u64)> =
            OUTCOMES.iter().map(|name| (*name, found.outcomes.get(*name).copied().unwrap_or(0))).collect();
        counts.push(("not sent", found.dropped));
        let sum = counts.iter().map(|(_, count)| count).sum::<u64>().max(1) as f64;
        let piece =
            |(name, count): (&str, u64)| Piece { class: class(name), name: name.to_owned(), value: count as f64 / sum };
        counts.into_iter().map(piece).collect::<Vec<_>>()
    };
    let rows: Vec<(Name, Vec<Piece>)> = cells.iter().map(|(name, found)| (*name, pieces(found))).collect();
    let title = "Outcomes";
    Figure {
        title,
        note: "What became of the requests. Not sent: every virtual user still waited.".to_owned(),
        key: key(&rows),
        picture: rows::bars(title, &rows, 1.0, "share of the requests", percent),
    }
}

fn queue_jump(cells: &[(Name, &Found)]) -> Option<Figure> {
    let range = |(name, found): &(Name, &Found)| {
        let jump = found.fairness.jump.filter(|_| found.fairness.is_enough())?;
        Some((*name, Range { p50: jump.p50, p95: jump.p95, max: jump.max }))
    };
    let rows: Vec<(Name, Range)> = cells.iter().filter_map(range).collect();
    let title = "Fairness: queue-jump";
    let picture = rows::ranges(title, &rows, milliseconds)?;
    let played = cells.first().map_or(0, |(_, found)| found.fairness.played);
    let missing = cells.len() - rows.len();
    let missing =
        if missing > 0 { format!(" Too few sold out in {missing} cells, which are not drawn.") } else { String::new() };
    let note = format!(
        "How much later than the first who was refused the last winner had come. Mark: p50; thick to p95; thin to the most. Of \
         {played} small rounds a cell those count that sold out.{missing}"
    );
    Some(Figure { title, note, key: Vec::new(), picture })
}

fn processors(cells: &[(Name, &Found)]) -> Figure {
    let piece = |(name, used): (&str, f64)| Piece {
        class: format!("c-{}", name.to_lowercase()),
        name: name.to_owned(),
        value: used,
    };
    let rows: Vec<(Name, Vec<Piece>)> =
        cells.iter().map(|(name, found)| (*name, found.processors.named().into_iter().map(piece).collect())).collect();
    let all = cells.iter().map(|(_, found)| found.processors.all.round()).fold(1.0, f64::max);
    let title = "Who used the processors";
    Figure {
        title,
        note: "The axis ends where the machine does. Watching: Prometheus and the laboratory. Others: what belongs to no sweep."
            .to_owned(),
        key: key(&rows),
        picture: rows::bars(title, &rows, all, "processors", plain),
    }
}

/// The colours that are seen.
fn key(rows: &[(Name, Vec<Piece>)]) -> Vec<(String, String)> {
    let mut key: Vec<(String, String)> = Vec::new();
    let Some((_, first)) = rows.first() else { return key };
    for (place, piece) in first.iter().enumerate() {
        if rows.iter().any(|(_, pieces)| pieces[place].value > 0.0) {
            key.push((piece.class.clone(), piece.name.clone()));
        }
    }
    key
}

#[cfg(test)]
mod tests {
    use super::super::data::tests::data;
    use super::*;
    use crate::sweep::cell;

    #[test]
    fn a_bar_of_outcomes_has_every_answer_in_a_colour_of_its_own() {
        // A caller that gave up was told "busy" before, and is counted there.
        let counted: Vec<&str> =
            cell::OUTCOMES.iter().map(|(name, _)| *name).filter(|name| *name != "gave up").collect();
        for name in counted {
            let data = data(Shape::Hot, &[Strategy::Batched], &[1], |found| {
                found.outcomes = [("issued".to_owned(), 30), (name.to_owned(), 70)].into();
            });

            let figure = outcomes(&cells(&data, Shape::Hot));

            let class = format!("o-{}", name.replace(' ', "-"));
            assert!(figure.key.contains(&(class.clone(), name.to_owned())), "{name}: {:?}", figure.key);
            assert!(include_str!("style.css").contains(&format!(".{class} {{")), "{name}");
        }
    }
}
