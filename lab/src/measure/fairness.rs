//! "First come, first served", told by tiny coupons that sold out one after the other: who overtook whom.

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

use super::numbers::{float, percent};
use super::scenario::FOUGHT;
use super::stage::Stage;
use crate::admin::Audited;
use crate::database::{self, Winner};

/// What came of contests.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Fairness {
    /// Contests that were played.
    pub played: usize,
    /// Those that can say something: sold out, with a winner and a loser.
    pub decided: usize,
    /// `None` when none was decided.
    pub queue_jump: Option<QueueJump>,
    /// `None` without serials: then there is no order that could be wrong.
    pub inversions: Option<Inversions>,
}

/// How much later than the first who was refused the last who won had reached nginx, over the decided contests, in
/// milliseconds. Zero when nobody overtook.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct QueueJump {
    /// Half of the contests had no more.
    pub p50: f64,
    /// 95 of 100.
    pub p95: f64,
    /// The most.
    pub max: f64,
}

/// Pairs of winners of one coupon.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Inversions {
    /// Of which the later got the lower serial.
    pub inverted: u64,
    /// All of them.
    pub pairs: u64,
}

impl Fairness {
    /// Reads it from the wallet and from every replica's audit of the current round.
    pub async fn read(stage: &mut Stage) -> anyhow::Result<Self> {
        let mut audited = stage.admin().audit().await?.coupons;
        audited.retain(|coupon| coupon.code.starts_with(FOUGHT));
        let winners = database::winners(stage.database(), FOUGHT).await?;
        let jumps = jumps(&audited);
        let at = |percent: usize| jumps.get((jumps.len() * percent).div_ceil(100).checked_sub(1)?).copied();
        let queue_jump = at(50).zip(at(95)).zip(at(100)).map(|((p50, p95), max)| QueueJump { p50, p95, max });
        Ok(Self { played: audited.len(), decided: jumps.len(), queue_jump, inversions: inversions(&winners) })
    }

    /// For a person.
    pub fn text(&self) -> String {
        let Self { played, decided, queue_jump, inversions } = self;
        let jump = queue_jump.map_or("not known".to_owned(), |it| {
            format!("p50 {:.0} ms, p95 {:.0} ms, most {:.0} ms", it.p50, it.p95, it.max)
        });
        let pairs = inversions.map_or("not known, for there are no serials".to_owned(), |it| {
            format!("{}, {} of {}", percent(it.share()), it.inverted, it.pairs)
        });
        format!(
            "queue-jump            {jump}; {decided} of {played} coupons sold out and refused somebody\n\
             pairs out of order    {pairs}\n"
        )
    }
}

impl Inversions {
    /// Share of the pairs, 0 to 1.
    pub fn share(self) -> f64 {
        float(self.inverted) / float(self.pairs.max(1))
    }
}

/// The queue-jump of each decided contest, in order.
fn jumps(audited: &[Audited]) -> Vec<f64> {
    let sold_out = audited.iter().filter(|coupon| coupon.remaining == 0);
    let mut jumps: Vec<f64> =
        sold_out.filter_map(|it| Some(jump(it.latest_winner_arrival?, it.earliest_loser_arrival?))).collect();
    jumps.sort_by(f64::total_cmp);
    jumps
}

fn jump(latest_winner: OffsetDateTime, earliest_loser: OffsetDateTime) -> f64 {
    ((latest_winner - earliest_loser).as_seconds_f64() * 1_000.0).max(0.0)
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

        assert_eq!(jumps(&codes), [0.0, 10.0]);
    }

    #[test]
    fn a_code_without_a_loser_or_with_stock_left_tells_nothing() {
        let codes = [audited(0, Some(1), None), audited(0, None, Some(1)), audited(1, Some(9), Some(1))];

        assert!(jumps(&codes).is_empty());
    }

    fn winners(code: &str, stamps: &[u64]) -> Vec<Winner> {
        let winner = |(serial, stamp): (u32, &u64)| Winner {
            code: code.to_owned(),
            serial: Some(serial),
            arrived_ms: Some(*stamp),
        };
        (1..).zip(stamps).map(winner).collect()
    }

    fn of(stamps: &[u64]) -> (u64, u64) {
        let found = inversions(&winners("F-001", stamps)).unwrap();
        (found.inverted, found.pairs)
    }

    #[test]
    fn inversions_are_counted_exactly() {
        assert_eq!(of(&[1, 2, 3, 4]), (0, 6));
        assert_eq!(of(&[4, 3, 2, 1]), (6, 6));
        assert_eq!(of(&[2, 1, 3, 5, 4]), (2, 10));
        assert_eq!(of(&[7]), (0, 0));
        assert_eq!(of(&[5, 5, 5]), (0, 3), "one millisecond is in order either way");
    }

    #[test]
    fn winners_of_different_coupons_are_no_pair() {
        let both = [winners("F-001", &[9, 10]), winners("F-002", &[1, 2])].concat();

        assert_eq!(inversions(&both), Some(Inversions { inverted: 0, pairs: 2 }));
    }

    #[test]
    fn without_serials_there_is_no_order() {
        let mut unlocked = winners("F-001", &[2, 1]);
        unlocked[0].serial = None;

        assert_eq!(inversions(&unlocked), None);
        assert_eq!(inversions(&[]), None);
    }
}
