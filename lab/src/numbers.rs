//! Medians, and numbers as people read them.

use std::ops::RangeInclusive;

use indicatif::HumanFloatCount;
use serde::Serialize;

/// The median of several repeats, with the lowest and the highest.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Spread {
    /// The middle one, or the mean of the two in the middle.
    pub median: f64,
    pub min: f64,
    pub max: f64,
    pub repeats: usize,
}

impl Spread {
    pub fn of(values: impl IntoIterator<Item = f64>) -> Option<Self> {
        let mut values: Vec<f64> = values.into_iter().collect();
        values.sort_by(f64::total_cmp);
        let (min, max, repeats) = (*values.first()?, *values.last()?, values.len());
        let median = f64::midpoint(values[(repeats - 1) / 2], values[repeats / 2]);
        Some(Self { median, min, max, repeats })
    }
}

/// As many digits as a figure deserves.
pub fn number(value: f64) -> String {
    match value.abs() {
        _ if value == 0.0 => "0".to_owned(),
        1_000.0.. => format!("{:.0}", HumanFloatCount(value)),
        100.0.. => format!("{value:.0}"),
        10.0.. => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

/// The same, or a dash where there is none.
pub fn shown(value: Option<f64>) -> String {
    value.map_or("-".to_owned(), number)
}

/// Reads a number on the command line.
pub fn within(bounds: RangeInclusive<f64>) -> impl Fn(&str) -> Result<f64, String> + Clone + Send + Sync + 'static {
    move |text: &str| {
        let number = text.parse().ok().filter(|number| bounds.contains(number));
        number.ok_or_else(|| format!("give a number from {} to {}", bounds.start(), bounds.end()))
    }
}

/// A figure that is zero where nobody measured it.
pub fn measured(value: f64) -> Option<f64> {
    (value > 0.0).then_some(value)
}

/// A count as a figure to calculate with.
#[expect(clippy::cast_precision_loss, reason = "counts of one measurement")]
pub fn float(count: u64) -> f64 {
    count as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_spread_is_the_middle_with_both_ends() {
        let odd = Spread::of([3.0, 1.0, 9.0]).unwrap();
        assert_eq!((odd.median, odd.min, odd.max, odd.repeats), (3.0, 1.0, 9.0, 3));
        let median = |values: &[f64]| Spread::of(values.iter().copied()).map(|it| it.median);
        assert_eq!(median(&[4.0, 1.0, 9.0, 2.0]), Some(3.0));
        assert_eq!(median(&[5.0]), Some(5.0));
        assert_eq!(Spread::of([]), None);
    }

    #[test]
    fn numbers_have_as_many_digits_as_they_deserve() {
        let shown: Vec<_> = [0.0, 0.357, 9.99, 12.34, 123.4, 22_900.4, 1_234_567.0].map(number).into();

        assert_eq!(shown, ["0", "0.36", "9.99", "12.3", "123", "22,900", "1,234,567"]);
    }
}
