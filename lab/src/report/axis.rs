//! Axes: where a value stands, and which values are written beside the axis.

/// A step of a linear axis is at least a tenth of it.
const TICKS_MAX: u32 = 10;

/// A stretch of values on a stretch of pixels.
#[derive(Clone, Copy, Debug)]
pub struct Axis {
    is_log: bool,
    low: f64,
    high: f64,
    from: f64,
    to: f64,
}

impl Axis {
    /// From zero to a round number that is not below `high`.
    pub fn linear(high: f64, from: f64, to: f64) -> Self {
        let high = if high > 0.0 { high } else { 1.0 };
        let step = step(high);
        Self { is_log: false, low: 0.0, high: (high / step - 1e-9).ceil() * step, from, to }
    }

    /// From zero to exactly `high`.
    pub fn exact(high: f64, from: f64, to: f64) -> Self {
        Self { is_log: false, low: 0.0, high, from, to }
    }

    /// Logarithmic, from a 1, 2 or 5 that is not above `low` to one that is not below `high`; both are positive.
    pub fn log(low: f64, high: f64, from: f64, to: f64) -> Self {
        let (low, mut high) = (round(low, false), round(high, true));
        if high <= low {
            high = round(low * 1.5, true);
        }
        Self { is_log: true, low, high, from, to }
    }

    /// Logarithmic to the base of two, for numbers of replicas and their ratios.
    pub fn doubling(low: f64, high: f64, from: f64, to: f64) -> Self {
        let high = if high > low { high } else { low * 2.0 };
        Self { is_log: true, low, high, from, to }
    }

    /// Where a value stands; one beyond the end stands at the end.
    pub fn at(&self, value: f64) -> f64 {
        let share = if self.is_log {
            (value.max(f64::MIN_POSITIVE) / self.low).ln() / (self.high / self.low).ln()
        } else {
            (value - self.low) / (self.high - self.low)
        };
        self.from + (self.to - self.from) * share.clamp(0.0, 1.0)
    }

    /// The values to write beside it: four to seven of them.
    pub fn ticks(&self) -> Vec<f64> {
        if !self.is_log {
            let step = step(self.high);
            return (0..=TICKS_MAX)
                .map(|number| step * f64::from(number))
                .filter(|tick| *tick <= self.high * 1.001)
                .collect();
        }
        let decades = (self.high / self.low).log10();
        let digits: &[f64] = if decades > 3.0 { &[1.0] } else { &[1.0, 2.0, 5.0] };
        let digits = if decades > 1.8 && decades <= 3.0 { &digits[..1] } else { digits };
        let mut ticks = Vec::new();
        let mut power = 10_f64.powf(self.low.log10().floor());
        while power <= self.high * 1.001 {
            ticks.extend(digits.iter().map(|digit| digit * power));
            power *= 10.0;
        }
        ticks.retain(|tick| (self.low * 0.999..=self.high * 1.001).contains(tick));
        ticks
    }
}

/// 1, 2 or 5 times a power of ten, so that a few of them reach `high`.
fn step(high: f64) -> f64 {
    round(high / 5.0, true)
}

/// The next 1, 2 or 5 times a power of ten.
fn round(value: f64, up: bool) -> f64 {
    let power = 10_f64.powf((value * (1.0 + 1e-12)).log10().floor());
    let digit = value / power;
    let digits = [1.0, 2.0, 5.0, 10.0];
    let found = if up {
        digits.into_iter().find(|it| *it >= digit - 1e-9)
    } else {
        digits.into_iter().rev().find(|it| *it <= digit + 1e-9)
    };
    found.unwrap_or(1.0) * power
}

/// Milliseconds as people say them.
pub fn milliseconds(value: f64) -> String {
    match value {
        value if value >= 1_000.0 => format!("{} s", short(value / 1_000.0)),
        value => format!("{} ms", short(value)),
    }
}

/// Two or three digits that count, without useless zeros.
pub fn short(value: f64) -> String {
    let text = match value.abs() {
        size if size >= 99.5 => format!("{value:.0}"),
        size if size >= 9.95 => format!("{value:.1}"),
        size if size >= 0.995 => format!("{value:.2}"),
        _ => format!("{value:.3}"),
    };
    let cut = if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.') } else { &text };
    cut.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ends_are_round_numbers_around_the_values() {
        let ticks = Axis::linear(734.0, 0.0, 1.0).ticks();
        assert_eq!(ticks, [0.0, 200.0, 400.0, 600.0, 800.0]);

        let axis = Axis::log(3.7, 812.0, 0.0, 1.0);
        assert_eq!(axis.ticks(), [10.0, 100.0, 1_000.0]);
        assert!((axis.at(2.0) - 0.0).abs() < 1e-9 && (axis.at(1_000.0) - 1.0).abs() < 1e-9);
    }

    #[test]
    fn a_short_logarithmic_axis_has_more_ticks_and_a_long_one_fewer() {
        assert_eq!(Axis::log(1.0, 50.0, 0.0, 1.0).ticks(), [1.0, 2.0, 5.0, 10.0, 20.0, 50.0]);
        assert_eq!(Axis::log(0.1, 5_000.0, 0.0, 1.0).ticks(), [0.1, 1.0, 10.0, 100.0, 1_000.0]);
    }

    #[test]
    fn one_value_alone_has_an_axis_too() {
        let axis = Axis::log(5.0, 5.0, 0.0, 1.0);

        assert!(axis.at(5.0).is_finite() && !axis.ticks().is_empty());
        assert!(Axis::linear(0.0, 0.0, 1.0).at(0.0).is_finite());
    }

    #[test]
    fn numbers_are_short() {
        let texts = [0.25, 1.0, 12.34, 345.6, 1_234.0].map(short);
        assert_eq!(texts, ["0.25", "1", "12.3", "346", "1234"]);
        assert_eq!([milliseconds(20.0), milliseconds(2_500.0)], ["20 ms", "2.5 s"]);
    }
}
