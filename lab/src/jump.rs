//! Queue-jump: how much later than the first who was refused the last who won had come. Zero when nobody overtook.

use time::OffsetDateTime;

use crate::admin::Audited;

/// Queue-jump over sold-out codes, in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Jump {
    /// Half of the codes had no more.
    pub p50: f64,
    /// 95 of 100.
    pub p95: f64,
    /// The most.
    pub max: f64,
    /// Codes that it was seen at: sold out, with a winner and a loser.
    pub codes: usize,
}

impl Jump {
    /// `None` when no code has both a winner and a loser.
    pub fn of<'a>(audited: impl Iterator<Item = &'a Audited>) -> Option<Self> {
        let sold_out = audited.filter(|coupon| coupon.remaining == 0);
        let mut jumps: Vec<f64> =
            sold_out.filter_map(|it| Some(jump(it.latest_winner_arrival?, it.earliest_loser_arrival?))).collect();
        jumps.sort_by(f64::total_cmp);
        let at = |percent: usize| jumps.get((jumps.len() * percent).div_ceil(100).checked_sub(1)?).copied();
        Some(Self { p50: at(50)?, p95: at(95)?, max: at(100)?, codes: jumps.len() })
    }
}

fn jump(latest_winner: OffsetDateTime, earliest_loser: OffsetDateTime) -> f64 {
    ((latest_winner - earliest_loser).as_seconds_f64() * 1_000.0).max(0.0)
}

#[cfg(test)]
mod tests {
    use time::Duration;

    use super::*;

    fn audited(remaining: u32, winner_ms: Option<i64>, loser_ms: Option<i64>) -> Audited {
        let at = |ms: i64| OffsetDateTime::UNIX_EPOCH + Duration::milliseconds(ms);
        Audited {
            code: "F".to_owned(),
            total: 20,
            remaining,
            rows: 20,
            latest_winner_arrival: winner_ms.map(at),
            earliest_loser_arrival: loser_ms.map(at),
        }
    }

    #[test]
    fn only_who_overtook_counts() {
        let codes = [audited(0, Some(110), Some(100)), audited(0, Some(90), Some(100))];

        let jump = Jump::of(codes.iter()).unwrap();

        assert_eq!(jump, Jump { p50: 0.0, p95: 10.0, max: 10.0, codes: 2 });
    }

    #[test]
    fn percentiles_are_values_that_were_seen() {
        let codes: Vec<_> = (1..=200).map(|ms| audited(0, Some(ms), Some(0))).collect();

        assert_eq!(Jump::of(codes.iter()), Some(Jump { p50: 100.0, p95: 190.0, max: 200.0, codes: 200 }));
    }

    #[test]
    fn a_code_without_a_loser_or_with_stock_left_tells_nothing() {
        let codes = [audited(0, Some(1), None), audited(0, None, Some(1)), audited(1, Some(9), Some(1))];

        assert_eq!(Jump::of(codes.iter()), None);
    }
}
