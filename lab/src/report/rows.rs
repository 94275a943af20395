//! A row a cell: bars that add up, and ranges.

use super::axis::{Axis, short};
use super::svg::{Anchor, Svg};
use crate::strategy::Strategy;

const WIDTH: f64 = 440.0;
const LEFT: f64 = 112.0;
const RIGHT: f64 = 416.0;
const TOP: f64 = 8.0;
const ROW: f64 = 17.0;
const BAR: f64 = 12.0;
/// Between two strategies.
const GAP: f64 = 7.0;

/// Which cell a row is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Name {
    /// Its strategy.
    pub strategy: Strategy,
    /// Its number of replicas.
    pub replicas: u32,
}

/// A piece of a bar.
#[derive(Clone, Debug, PartialEq)]
pub struct Piece {
    /// Its class in the page's style.
    pub class: String,
    /// What it stands for.
    pub name: String,
    /// How long it is.
    pub value: f64,
}

/// Milliseconds in the middle, near the end, and at the end.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Range {
    /// Half had no more.
    pub p50: f64,
    /// 95 of 100.
    pub p95: f64,
    /// The most.
    pub max: f64,
}

/// Bars of pieces. `high` is where the axis ends, `unit` how a value is said.
pub fn bars(title: &str, rows: &[(Name, Vec<Piece>)], high: f64, label: &str, unit: fn(f64) -> String) -> String {
    let names: Vec<Name> = rows.iter().map(|(name, _)| *name).collect();
    let (mut svg, bottom) = sheet(&names);
    let x = Axis::exact(high, LEFT, RIGHT);
    scale(&mut svg, bottom, &x, label, unit);
    for ((name, pieces), top) in rows.iter().zip(tops(&names)) {
        let mut sum = 0.0;
        for piece in pieces.iter().filter(|piece| piece.value > 0.0) {
            let (from, to) = (x.at(sum), x.at(sum + piece.value));
            let title = format!("{} \u{d7}{}: {} {}", name.strategy, name.replicas, piece.name, unit(piece.value));
            svg.bar(&piece.class, (from, top + (ROW - BAR) / 2.0), (to - from, BAR), &title);
            sum += piece.value;
        }
    }
    svg.finish(title)
}

/// Ranges from the middle to the most, on a logarithmic axis that has a place for zero.
pub fn ranges(title: &str, rows: &[(Name, Range)], unit: fn(f64) -> String) -> Option<String> {
    let names: Vec<Name> = rows.iter().map(|(name, _)| *name).collect();
    let high = rows.iter().map(|(_, range)| range.max).reduce(f64::max)?;
    let (mut svg, bottom) = sheet(&names);
    let zero = LEFT + 12.0;
    let x = Axis::log(1.0, high.max(10.0), LEFT + 40.0, RIGHT);
    let at = |value: f64| if value < 1.0 { zero } else { x.at(value) };
    svg.line("grid", (zero, TOP), (zero, bottom));
    svg.text("tick", (zero, bottom + 16.0), Anchor::Middle, "0");
    scale(&mut svg, bottom, &x, "queue-jump (stamps have a resolution of 1 ms)", unit);
    for ((name, range), top) in rows.iter().zip(tops(&names)) {
        let middle = top + ROW / 2.0;
        let Range { p50, p95, max } = *range;
        let said = format!(
            "{} \u{d7}{}: p50 {}, p95 {}, max {}",
            name.strategy,
            name.replicas,
            unit(p50),
            unit(p95),
            unit(max)
        );
        svg.colored(&format!("s-{}", name.strategy), |svg| {
            svg.line("spread", (at(p50), middle), (at(max), middle));
            svg.line("end", (at(max), middle - 4.0), (at(max), middle + 4.0));
            svg.bar("thick", (at(p50), middle - 2.5), ((at(p95) - at(p50)).max(1.0), 5.0), &said);
            svg.mark(0, (at(p50), middle), &said);
        });
    }
    Some(svg.finish(title))
}

/// An empty picture with the rows' names, and where it ends.
fn sheet(names: &[Name]) -> (Svg, f64) {
    let tops = tops(names);
    let bottom = tops.last().map_or(TOP, |top| top + ROW) + 2.0;
    let mut svg = Svg::new(WIDTH, bottom + 40.0);
    let mut before = None;
    for (name, top) in names.iter().zip(&tops) {
        let base = top + ROW / 2.0 + 4.0;
        if before != Some(name.strategy) {
            svg.colored(&format!("s-{}", name.strategy), |svg| {
                svg.text("name", (2.0, base), Anchor::Start, name.strategy.name());
            });
        }
        svg.text("tick", (LEFT - 6.0, base), Anchor::End, &format!("\u{d7}{}", name.replicas));
        before = Some(name.strategy);
    }
    (svg, bottom)
}

fn tops(names: &[Name]) -> Vec<f64> {
    let mut tops = Vec::new();
    let mut top = TOP;
    for (place, name) in names.iter().enumerate() {
        if place > 0 && names[place - 1].strategy != name.strategy {
            top += GAP;
        }
        tops.push(top);
        top += ROW;
    }
    tops
}

fn scale(svg: &mut Svg, bottom: f64, x: &Axis, label: &str, unit: fn(f64) -> String) {
    for tick in x.ticks() {
        svg.line("grid", (x.at(tick), TOP), (x.at(tick), bottom));
        svg.text("tick", (x.at(tick), bottom + 16.0), Anchor::Middle, &unit(tick));
    }
    svg.text("note", (f64::midpoint(LEFT, RIGHT), bottom + 34.0), Anchor::Middle, label);
}

/// A share of one as people say it.
pub fn percent(value: f64) -> String {
    format!("{} %", short((value * 1_000.0).round() / 10.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(strategy: Strategy, replicas: u32) -> Name {
        Name { strategy, replicas }
    }

    #[test]
    fn rows_of_one_strategy_stand_together() {
        let tops = tops(&[name(Strategy::Redlock, 1), name(Strategy::Redlock, 2), name(Strategy::Batched, 1)]);

        assert_eq!(tops, [TOP, TOP + ROW, TOP + 2.0 * ROW + GAP]);
    }

    #[test]
    fn nothing_is_no_piece_and_a_piece_says_what_it_is() {
        let piece = |name: &str, value| Piece { class: "o-x".to_owned(), name: name.to_owned(), value };
        let rows = [(name(Strategy::Batched, 2), vec![piece("issued", 0.25), piece("busy", 0.0)])];

        let text = bars("outcomes", &rows, 1.0, "share", percent);

        assert!(text.contains("batched \u{d7}2: issued 25 %") && !text.contains("busy"), "{text}");
    }

    #[test]
    fn zero_has_a_place_on_the_logarithmic_axis() {
        let rows = [(name(Strategy::Batched, 2), Range { p50: 0.0, p95: 0.0, max: 0.0 })];

        let text = ranges("jump", &rows, short).unwrap();

        assert!(!text.contains("NaN") && !text.contains("inf"), "{text}");
        assert_eq!(ranges("jump", &[], short), None);
    }
}
