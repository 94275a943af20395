//! "First come, first served", told by tiny coupons that sold out one after the other: who overtook whom.

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

use super::sample::Times;
use super::scenario::FOUGHT;
use super::stage::Stage;
use crate::admin::Audited;
use crate::database::{self, Winner};
use crate::numbers::float;

/// Far beyond what a request may take.
const JUMP_MAX_MS: u64 = 60_000;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Fairness {
    pub played: usize,
    /// Those that can say something: sold out, with a winner and a loser.
    pub decided: u64,
    /// How much later than the first who was refused the last who won had reached nginx, over the decided contests. Zero when nobody
    /// overtook, `None` when none was decided.
    pub queue_jump: Option<Times>,
    /// `None` without serials: then there is no order that could be wrong.
    pub inversions: Option<Inversions>,
}

/// Pairs of winners of one coupon.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Inversions {
    /// Of which the later got the lower serial.
    pub inverted: u64,
    pub pairs: u64,
}

impl Fairness {
    /// Reads it from the wallet and from every replica's audit of the current round.
    pub async fn read(stage: &mut Stage) -> anyhow::Result<Self> {
        let mut audited = stage.admin.audit().await?;
        audited.retain(|coupon| coupon.code.starts_with(FOUGHT));
        let winners = database::winners(&mut stage.database, FOUGHT).await?;
        let jumps = jumps(&audited);
        let queue_jump = Times::of(|share| (!jumps.is_empty()).then(|| float(jumps.value_at_quantile(share))));
        Ok(Self { played: audited.len(), decided: jumps.len(), queue_jump, inversions: inversions(&winners) })
    }
}

impl Inversions {
    /// Share of the pairs, 0 to 1.
    pub fn share(self) -> f64 {
        float(self.inverted) / float(self.pairs.max(1))
    }
}

/// The queue-jump of each decided contest, in milliseconds as nginx stamps them.
fn jumps(audited: &[Audited]) -> Histogram<u64> {
    let mut jumps = Histogram::new_with_max(JUMP_MAX_MS, 3).expect("these bounds are valid");
    let sold_out = audited.iter().filter(|coupon| coupon.remaining == 0);
    for jump in sold_out.filter_map(|it| Some(it.latest_winner_arrival? - it.earliest_loser_arrival?)) {
        jumps.saturating_record(jump.whole_milliseconds().try_into().unwrap_or(0));
    }
    jumps
}

/// Looks at every pair of winners of one coupon. Two that arrived in one millisecond are in order either way.
fn inversions(winners: &[Winner]) -> Option<Inversions> {
    let mut found = Inversions::default();
    for coupon in winners.chunk_by(|one, other| one.code == other.code) {
        let mut stamps = Vec::new();
        for winner in coupon {
            winner.serial?;
            stamps.extend(winner.arrived_ms);
        }
        for (place, one) in stamps.iter().enumerate() {
            found.pairs += (stamps.len() - place - 1) as u64;
            found.inverted += stamps[place..].iter().filter(|later| one > *later).count() as u64;
        }
    }
    (!winners.is_empty()).then_some(found)
}

#[cfg(test)]
mod tests {
    use time::{Duration, OffsetDateTime};

    use super::*;

    /// How many jumps these coupons say, the least and the most. Each is what is left of it, when its last winner arrived, when its first
    /// loser.
    fn jumps_of<const N: usize>(coupons: [(u32, Option<i64>, Option<i64>); N]) -> (u64, u64, u64) {
        let at = |ms: i64| OffsetDateTime::UNIX_EPOCH + Duration::milliseconds(ms);
        let audited = coupons.map(|(remaining, winner, loser)| Audited {
            code: "F".to_owned(),
            remaining,
            latest_winner_arrival: winner.map(at),
            earliest_loser_arrival: loser.map(at),
        });
        let jumps = jumps(&audited);
        (jumps.len(), jumps.min(), jumps.max())
    }

    #[test]
    fn only_who_overtook_counts_and_without_a_loser_or_with_stock_left_a_coupon_tells_nothing() {
        assert_eq!(jumps_of([(0, Some(110), Some(100)), (0, Some(90), Some(100))]), (2, 0, 10));
        assert_eq!(jumps_of([(0, Some(1), None), (0, None, Some(1)), (1, Some(9), Some(1))]).0, 0);
    }

    fn winners(code: &str, stamps: &[u64]) -> Vec<Winner> {
        let winner = |(place, at)| Winner { code: code.to_owned(), serial: Some(place), arrived_ms: Some(at) };
        (1..).zip(stamps.iter().copied()).map(winner).collect()
    }

    #[test]
    fn inversions_are_counted_exactly() {
        let of = |stamps: &[u64]| {
            let found = inversions(&winners("F-001", stamps)).unwrap();
            (found.inverted, found.pairs)
        };
        assert_eq!(of(&[1, 2, 3, 4]), (0, 6));
        assert_eq!(of(&[4, 3, 2, 1]), (6, 6));
        assert_eq!(of(&[2, 1, 3, 5, 4]), (2, 10));
        assert_eq!(of(&[7]), (0, 0));
        assert_eq!(of(&[5, 5, 5]), (0, 3), "one millisecond is in order either way");
    }

    #[test]
    fn winners_of_different_coupons_are_no_pair_and_without_serials_there_is_no_order() {
        let mut both = [winners("F-001", &[9, 10]), winners("F-002", &[1, 2])].concat();
        assert_eq!(inversions(&both), Some(Inversions { inverted: 0, pairs: 2 }));

        both[0].serial = None;
        assert_eq!(inversions(&both), None);
        assert_eq!(inversions(&[]), None);
    }
}
