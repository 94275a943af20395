//! Figures against the number of replicas: a line a strategy, with what was seen least and most around each point.

use super::axis::{Axis, short};
use super::data::Point;
use super::svg::{Anchor, Place, Svg};
use crate::strategy::Strategy;

const WIDTH: f64 = 440.0;
const HEIGHT: f64 = 290.0;
const LEFT: f64 = 56.0;
/// Room for the names at the lines' ends.
const RIGHT: f64 = 330.0;
const TOP: f64 = 14.0;
const BOTTOM: f64 = 246.0;
/// Names closer than this would run into each other.
const NAME_GAP: f64 = 14.0;
/// Lines stand this far beside each other, so that their spreads can be told apart.
const BESIDE: f64 = 3.5;

/// One strategy's line.
#[derive(Debug)]
pub struct Line {
    /// Whose.
    pub strategy: Strategy,
    /// By number of replicas, in order.
    pub points: Vec<(u32, Point)>,
    /// A fitted curve.
    pub curve: Vec<(f64, f64)>,
}

/// A line that is no measurement.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Reference {
    /// None.
    Nothing,
    /// The same for every number of replicas.
    Level(f64, &'static str),
    /// Twice as much with twice as many replicas.
    Ideal,
}

/// How values are drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scale {
    /// From zero.
    Linear,
    /// Decades.
    Log,
    /// Twice as much is as far as twice as many replicas.
    Doubling,
}

/// Draws the lines. `title` says what is drawn, `unit` how a value is said.
pub fn draw(
    title: &str,
    lines: &[Line],
    scale: Scale,
    unit: fn(f64) -> String,
    reference: Reference,
) -> Option<String> {
    let replicas = replicas(lines);
    let (first, last) = (*replicas.first()?, *replicas.last()?);
    let x = Axis::doubling(first.into(), last.into(), LEFT + 16.0, RIGHT - 16.0);
    let y = axis(lines, scale, reference, f64::from(last) / f64::from(first))?;
    let mut svg = Svg::new(WIDTH, HEIGHT);
    frame(&mut svg, &replicas, &x, &y, scale, unit);
    match reference {
        Reference::Nothing => {}
        Reference::Level(value, name) => {
            svg.line("reference", (LEFT, y.at(value)), (RIGHT, y.at(value)));
            svg.text("note", (LEFT + 4.0, y.at(value) - 4.0), Anchor::Start, name);
        }
        Reference::Ideal => {
            let ratio = f64::from(last) / f64::from(first);
            svg.line("reference", (x.at(first.into()), y.at(1.0)), (x.at(last.into()), y.at(ratio)));
            svg.text("note", (x.at(last.into()) - 6.0, y.at(ratio) + 4.0), Anchor::End, "ideal");
        }
    }
    let middle = f64::from(u32::try_from(lines.len().saturating_sub(1)).unwrap_or(0)) / 2.0;
    for (number, line) in (0_u32..).zip(lines) {
        let beside = (f64::from(number) - middle) * BESIDE;
        svg.colored(&format!("s-{}", line.strategy), |svg| one(svg, line, &x, &y, beside, unit));
    }
    names(&mut svg, lines, &y);
    Some(svg.finish(title))
}

fn replicas(lines: &[Line]) -> Vec<u32> {
    let mut replicas: Vec<u32> = lines.iter().flat_map(|line| &line.points).map(|(n, _)| *n).collect();
    replicas.sort_unstable();
    replicas.dedup();
    replicas
}

fn axis(lines: &[Line], scale: Scale, reference: Reference, ratio: f64) -> Option<Axis> {
    let points = || lines.iter().flat_map(|line| &line.points).map(|(_, point)| point);
    let high = points().map(|point| point.high).reduce(f64::max)?;
    let high = if let Reference::Level(value, _) = reference { high.max(value) } else { high };
    // A ratio near zero is one bad moment: its bar ends at the axis, so that the others can be told apart.
    let lowest = |point: &Point| if scale == Scale::Doubling { point.value } else { point.low };
    let low = points().map(lowest).filter(|low| *low > 0.0).reduce(f64::min).unwrap_or(high / 10.0);
    Some(match scale {
        Scale::Linear => Axis::linear(high * 1.02, BOTTOM, TOP),
        Scale::Log => Axis::log(low, high.max(low), BOTTOM, TOP),
        Scale::Doubling => {
            Axis::doubling(doubled(low.min(1.0), f64::floor), doubled(high.max(ratio), f64::ceil), BOTTOM, TOP)
        }
    })
}

/// The next power of two, down or up.
fn doubled(value: f64, direction: fn(f64) -> f64) -> f64 {
    direction(value.max(1.0 / 1_024.0).log2()).exp2()
}

fn frame(svg: &mut Svg, replicas: &[u32], x: &Axis, y: &Axis, scale: Scale, unit: fn(f64) -> String) {
    let ticks = if scale == Scale::Doubling { doublings(y) } else { y.ticks() };
    for tick in ticks {
        svg.line("grid", (LEFT, y.at(tick)), (RIGHT, y.at(tick)));
        svg.text("tick", (LEFT - 6.0, y.at(tick) + 4.0), Anchor::End, &unit(tick));
    }
    svg.line("axis", (LEFT, BOTTOM), (RIGHT, BOTTOM));
    for &number in replicas {
        svg.line("axis", (x.at(number.into()), BOTTOM), (x.at(number.into()), BOTTOM + 4.0));
        svg.text("tick", (x.at(number.into()), BOTTOM + 18.0), Anchor::Middle, &number.to_string());
    }
    svg.text("note", (f64::midpoint(LEFT, RIGHT), BOTTOM + 36.0), Anchor::Middle, "replicas");
}

fn doublings(y: &Axis) -> Vec<f64> {
    let all = (-10..=10).map(f64::from).map(f64::exp2);
    // A value beyond the end stands at the end: there only one of them belongs.
    all.filter(|tick| (y.at(*tick) - y.at(tick * 0.99)).abs() > 1e-6 || (y.at(*tick) - y.at(tick * 1.01)).abs() > 1e-6)
        .collect()
}

fn one(svg: &mut Svg, line: &Line, x: &Axis, y: &Axis, beside: f64, unit: fn(f64) -> String) {
    let places: Vec<Place> = line.points.iter().map(|(n, it)| (x.at(f64::from(*n)) + beside, y.at(it.value))).collect();
    let curve: Vec<Place> = line.curve.iter().map(|(n, value)| (x.at(*n), y.at(*value))).collect();
    svg.path("curve", &curve);
    svg.path("line", &places);
    for ((n, point), place) in line.points.iter().zip(&places) {
        svg.line("spread", (place.0, y.at(point.low)), (place.0, y.at(point.high)));
        let values = if point.low < point.high {
            format!("{} ({} to {})", unit(point.value), unit(point.low), unit(point.high))
        } else {
            unit(point.value)
        };
        svg.mark(line.strategy as usize, *place, &format!("{} \u{d7}{n}: {values}", line.strategy));
    }
}

/// Each line's name at its right end, moved apart where they would run into each other.
fn names(svg: &mut Svg, lines: &[Line], y: &Axis) {
    let mut places: Vec<(f64, Strategy)> = lines
        .iter()
        .filter_map(|line| line.points.last().map(|(_, point)| (y.at(point.value) + 4.0, line.strategy)))
        .collect();
    places.sort_by(|one, other| one.0.total_cmp(&other.0));
    for place in 1..places.len() {
        places[place].0 = places[place].0.max(places[place - 1].0 + NAME_GAP);
    }
    let beyond = places.last().map_or(0.0, |last| (last.0 - BOTTOM).max(0.0));
    let mut limit = f64::INFINITY;
    for place in places.iter_mut().rev() {
        place.0 = place.0.min(limit).min(BOTTOM + if beyond > 0.0 { 0.0 } else { NAME_GAP });
        limit = place.0 - NAME_GAP;
    }
    for (at, strategy) in places {
        svg.colored(&format!("s-{strategy}"), |svg| {
            svg.mark(strategy as usize, (RIGHT + 8.0, at - 4.0), strategy.name());
            svg.text("name", (RIGHT + 17.0, at), Anchor::Start, strategy.name());
        });
    }
}

/// A number without a unit.
pub fn plain(value: f64) -> String {
    short(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(strategy: Strategy, values: &[f64]) -> Line {
        let point = |value: &f64| Point { value: *value, low: value * 0.9, high: value * 1.2 };
        Line { strategy, points: [1, 2, 4, 8].into_iter().zip(values.iter().map(point)).collect(), curve: Vec::new() }
    }

    #[test]
    fn without_points_there_is_no_picture() {
        assert_eq!(draw("", &[line(Strategy::Batched, &[])], Scale::Log, plain, Reference::Nothing), None);
    }

    #[test]
    fn names_do_not_run_into_each_other() {
        let lines: Vec<Line> = Strategy::ALL.iter().map(|it| line(*it, &[5.0, 5.0, 5.0, 5.0])).collect();

        let text = draw("same", &lines, Scale::Linear, plain, Reference::Nothing).unwrap();
        let heights: Vec<f64> = text
            .split("class=\"name\"")
            .skip(1)
            .filter_map(|rest| rest.split("y=\"").nth(1)?.split('"').next()?.parse().ok())
            .collect();

        assert_eq!(heights.len(), 6);
        assert!(heights.windows(2).all(|pair| pair[1] - pair[0] >= NAME_GAP - 0.11), "{heights:?}");
    }

    #[test]
    fn a_line_of_one_number_of_replicas_can_be_drawn() {
        let text = draw("one", &[line(Strategy::Redlock, &[7.0])], Scale::Log, plain, Reference::Ideal).unwrap();

        assert!(!text.contains("NaN") && !text.contains("inf"), "{text}");
    }
}
