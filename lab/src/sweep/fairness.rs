//! "First come", cell by cell: many tiny rounds, then what the wallet and every replica's audit say about their order.

use std::collections::BTreeMap;

use super::cell::{Site, issues_by_replica};
use super::found::{Fairness, Inversions, Jump, Times};
use crate::database::{self, Winner};
use crate::histogram::Histogram;
use crate::jump;

/// The coupons of fairness.js.
const CODES: &str = "F-";

/// Plays the rounds on the cluster as it is.
pub async fn measure(site: &mut Site<'_>) -> anyhow::Result<Fairness> {
    let settings = site.settings;
    let knobs = [
        ("ROUNDS", settings.fairness_rounds.to_string()),
        ("PIECES", settings.fairness_pieces.to_string()),
        ("OVER", settings.fairness_over.to_string()),
        ("RATE", settings.rate.to_string()),
        ("WARMUP", "0s".to_owned()),
        ("DROPS", "allow".to_owned()),
    ];
    let before = site.stage.admin().metrics().await?;
    site.stage.empty_wallets().await?;
    let run = site.start("fairness", &knobs)?;
    site.finish(run).await?;
    let after = site.stage.admin().metrics().await?;
    let audit = site.stage.admin().audit().await?;
    let audited: Vec<_> = audit.coupons.iter().filter(|coupon| coupon.code.starts_with(CODES)).collect();
    let jump = jump::Jump::of(audited.iter().copied());
    let winners = database::winners(site.stage.database(), CODES).await?;
    let verdict = site.judge("fairness").await?;
    Ok(Fairness {
        rounds: jump.map_or(0, |jump| jump.codes),
        played: audited.len(),
        jump: jump.map(|jump| Jump { p50: jump.p50, p95: jump.p95, max: jump.max }),
        inversions: inversions(&winners),
        shares: shares(&issues_by_replica(&before, &after)),
        lock_wait: Times::of(&Histogram::between(&before, &after, "coupon_lock_wait_seconds", "result=\"granted\"")),
        verdict,
    })
}

/// Each one's share of the sum; empty when there is none.
pub fn shares(issues: &BTreeMap<String, f64>) -> BTreeMap<String, f64> {
    let sum: f64 = issues.values().sum();
    let share = |(name, issued): (&String, &f64)| (*issued >= 0.0 && sum > 0.0).then(|| (name.clone(), issued / sum));
    issues.iter().filter_map(share).collect()
}

/// Counts every pair of winners of one coupon of whom the lower serial arrived later. Two that arrived in one millisecond are
/// in order either way. `None` when a winner has no serial: then there is no order that could be wrong.
fn inversions(winners: &[Winner]) -> Option<Inversions> {
    let mut found = Inversions::default();
    for coupon in winners.chunk_by(|one, other| one.code == other.code) {
        let mut stamps = Vec::new();
        for winner in coupon {
            winner.serial?;
            stamps.extend(winner.arrived_ms);
        }
        let count = stamps.len() as u64;
        found.pairs += count * count.saturating_sub(1) / 2;
        found.inverted += sort_and_count(&mut stamps);
    }
    (!winners.is_empty()).then_some(found)
}

/// Merge sort: whenever a later element goes first, it jumps over all that are left of the first half.
fn sort_and_count(stamps: &mut [u64]) -> u64 {
    if stamps.len() < 2 {
        return 0;
    }
    let (left, right) = stamps.split_at_mut(stamps.len() / 2);
    let mut inverted = sort_and_count(left) + sort_and_count(right);
    let mut merged = Vec::with_capacity(left.len() + right.len());
    let (mut i, mut j) = (0, 0);
    while i < left.len() || j < right.len() {
        if j == right.len() || (i < left.len() && left[i] <= right[j]) {
            merged.push(left[i]);
            i += 1;
        } else {
            merged.push(right[j]);
            j += 1;
            inverted += (left.len() - i) as u64;
        }
    }
    stamps.copy_from_slice(&merged);
    inverted
}

#[cfg(test)]
mod tests {
    use super::*;

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
    }

    #[test]
    fn every_pair_looked_at_gives_the_same() {
        let mut random = fastrand::Rng::with_seed(3);
        for _ in 0..50 {
            let stamps: Vec<u64> = (0..random.usize(0..40)).map(|_| random.u64(0..20)).collect();
            let mut inverted = 0;
            for (place, one) in stamps.iter().enumerate() {
                inverted += stamps[place..].iter().filter(|other| one > other).count() as u64;
            }
            assert_eq!(sort_and_count(&mut stamps.clone()), inverted, "{stamps:?}");
        }
    }

    #[test]
    fn who_arrives_in_one_millisecond_is_in_order_either_way() {
        assert_eq!(of(&[5, 5, 5]), (0, 3));
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

    #[test]
    fn shares_add_up_to_one() {
        let issues = BTreeMap::from([("replica-1".to_owned(), 30.0), ("replica-2".to_owned(), 10.0)]);

        assert_eq!(shares(&issues), BTreeMap::from([("replica-1".to_owned(), 0.75), ("replica-2".to_owned(), 0.25)]));
        assert_eq!(shares(&BTreeMap::from([("replica-1".to_owned(), 0.0)])), BTreeMap::new());
    }
}
