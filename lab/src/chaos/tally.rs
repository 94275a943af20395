//! What one wave came to, in figures.

use std::collections::BTreeMap;
use std::time::Duration;

use super::fault::Fault;
use super::strike::Struck;
use super::wave::{COUPONS, Disturbance, Wave};
use crate::history::Attempt;
use crate::verify::{Finding, Heard, Report};

/// The name of waves in which two parts broke.
pub const TWO: &str = "two at once";

#[derive(Default)]
pub struct Tally {
    pub faults: Vec<Fault>,
    /// Faults that broke nothing: a process did not get as far as the step at which they were to strike, or there was nothing for
    /// them to take hold of.
    pub missed: usize,
    /// Coupons that were offered; where no promise was broken, all of them sold out. None in a wave in which an administrator gave
    /// out more.
    pub coupons: usize,
    pub issued: usize,
    /// Coupons that several replicas served.
    pub shared: usize,
    pub answers: Heard,
    /// Seconds from a wish's first attempt to its final answer, at most.
    pub longest_wait: f64,
    /// Seconds from the end of the fault to the final answer of the last user that waited then.
    pub after_fault: f64,
    pub findings: Vec<Finding>,
}

impl Tally {
    pub fn new(wave: &Wave, attempts: &[Attempt], shared: usize, struck: &[Struck], report: Report) -> Self {
        let hit = |(it, struck): &(&Disturbance, &Struck)| struck.hit && (shared > 0 || !it.fault.spreads_codes());
        let mended = struck.iter().map(|it| it.mended).max().unwrap_or_default();
        let (longest_wait, after_fault) = waits(attempts, mended);
        Self {
            faults: wave.faults.iter().map(|it| it.fault).collect(),
            missed: wave.faults.iter().zip(struck).filter(|both| !hit(both)).count(),
            coupons: if wave.administration().is_some() { 0 } else { COUPONS.len() },
            shared,
            issued: report.rows(),
            answers: report.heard.unwrap_or_default(),
            longest_wait,
            after_fault,
            findings: report.findings,
        }
    }

    pub fn name(&self) -> &'static str {
        if let [fault] = self.faults[..] { fault.name() } else { TWO }
    }

    pub fn violations(&self) -> usize {
        self.findings.iter().map(|finding| finding.count).sum()
    }

    /// For a person.
    pub fn said(&self) -> String {
        let Self { answers: Heard { users, .. }, issued, longest_wait, .. } = self;
        let broken = self.violations();
        let verdict = if broken == 0 { "clean".to_owned() } else { format!("BROKEN: {broken}") };
        format!("{users} users, {issued} pieces, longest wait {longest_wait:.2} s, {verdict}")
    }
}

/// The longest time from the first attempt of a wish to its final answer, and from `mended` for the users that waited then; in
/// seconds. A wish without a final answer waits to the end of its last attempt.
#[expect(clippy::cast_precision_loss, reason = "microseconds of a minute")]
fn waits(attempts: &[Attempt], mended: Duration) -> (f64, f64) {
    let mended = u64::try_from(mended.as_micros()).unwrap_or(u64::MAX);
    let mut wishes: BTreeMap<_, Vec<&Attempt>> = BTreeMap::new();
    for attempt in attempts {
        wishes.entry((&attempt.user, &attempt.code, &attempt.key)).or_default().push(attempt);
    }
    let (mut longest, mut after) = (0, 0);
    for asks in wishes.values() {
        let asked = asks.iter().map(|it| it.asked).min().unwrap_or(0);
        let settled = asks.iter().filter(|it| it.told.is_final()).map(|it| it.answered).min();
        let settled = settled.or(asks.iter().map(|it| it.answered).max()).unwrap_or(asked);
        longest = longest.max(settled - asked);
        if asked < mended {
            after = after.max(settled.saturating_sub(mended));
        }
    }
    (longest as f64 / 1e6, after as f64 / 1e6)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::Told;

    fn attempt(user: &str, asked: u64, answered: u64, told: Told) -> Attempt {
        let (user, code, key) = (user.to_owned(), "A".to_owned(), "k".to_owned());
        Attempt { user, code, round: 1, key, asked, answered, told }
    }

    #[test]
    fn a_fault_that_found_nothing_to_break_is_counted_as_missed() {
        let disturbance = |fault| Disturbance { fault, at: Duration::ZERO, lasts: Duration::ZERO, pick: 0, code: "A" };
        let faults = [Fault::RedisHung, Fault::HomesMoved].map(disturbance).to_vec();
        let wave = Wave { number: 3, faults, exclusive: false, users: Vec::new() };
        let missed = |shared, hits: [bool; 2]| {
            let struck = hits.map(|hit| Struck { mended: Duration::ZERO, hit });
            Tally::new(&wave, &[], shared, &struck, Report::default()).missed
        };

        assert_eq!((missed(1, [true, true]), missed(1, [false, true])), (0, 1));
        assert_eq!(missed(0, [true, true]), 1, "no code left its home");
    }

    #[test]
    fn a_wait_is_from_the_first_attempt_to_the_first_final_answer() {
        let attempts = [
            attempt("u-1", 1_000_000, 2_000_000, Told::Nothing),
            attempt("u-1", 2_100_000, 4_000_000, Told::SoldOut),
            attempt("u-1", 2_100_000, 9_000_000, Told::SoldOut),
            attempt("u-2", 5_000_000, 5_500_000, Told::SoldOut),
        ];

        assert_eq!(waits(&attempts, Duration::from_millis(3_500)), (3.0, 0.5));
        let unanswered =
            [attempt("u-1", 0, 1_000_000, Told::Nothing), attempt("u-1", 1_000_000, 8_000_000, Told::Retryable)];
        assert_eq!(waits(&unanswered, Duration::ZERO), (8.0, 0.0), "without one it is to the end of the last attempt");
    }
}
