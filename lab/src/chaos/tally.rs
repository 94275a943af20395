//! What one wave came to, in figures.

use std::collections::BTreeMap;
use std::fmt::{self, Display, Formatter};
use std::time::{Duration, Instant};

use serde::Serialize;

use super::fault::Fault;
use super::strike::Struck;
use super::wave::Wave;
use crate::history::Attempt;
use crate::verify::{Finding, Heard, Report};

/// The name of waves in which two parts broke.
pub const TWO: &str = "two at once";

/// What one wave came to.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Tally {
    pub wave: u32,
    pub faults: Vec<Fault>,
    /// Faults that broke nothing: a process did not get as far as the step at which they were to strike, or there was nothing for
    /// them to take hold of.
    pub missed: usize,
    /// Coupons that were offered; where no promise was broken, all of them sold out. None in a wave in which an administrator gave
    /// out more.
    pub coupons: usize,
    pub users: usize,
    pub issued: usize,
    pub answers: Heard,
    /// Seconds from a wish's first attempt to its final answer, at most.
    pub longest_wait: f64,
    /// Seconds from the end of the fault to the final answer of the last user that waited then.
    pub after_fault: f64,
    pub findings: Vec<Finding>,
}

impl Tally {
    /// Counts what came of a wave that began at that moment.
    pub fn new(wave: &Wave, attempts: &[Attempt], struck: &[Struck], began: Instant, report: Report) -> Self {
        let mended = struck.iter().map(|it| it.mended - began).max().unwrap_or_default();
        let (longest_wait, after_fault) = waits(attempts, mended);
        Self {
            wave: wave.number,
            faults: wave.faults.iter().map(|it| it.fault).collect(),
            missed: struck.iter().filter(|it| !it.hit).count(),
            coupons: if wave.has(Fault::Administration) { 0 } else { wave.crowds.len() },
            users: wave.crowds.iter().map(|crowd| crowd.users.len()).sum(),
            issued: report.rows(),
            answers: report.heard.unwrap_or_default(),
            longest_wait,
            after_fault,
            findings: report.findings,
        }
    }

    /// The fault, or that there were two.
    pub fn name(&self) -> &'static str {
        if let [fault] = self.faults[..] { fault.name() } else { TWO }
    }

    pub fn violations(&self) -> usize {
        self.findings.iter().map(|finding| finding.count).sum()
    }
}

impl Display for Tally {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> fmt::Result {
        let Self { users, issued, longest_wait, .. } = self;
        write!(formatter, "{users} users, {issued} pieces, longest wait {longest_wait:.2} s, ")?;
        match self.violations() {
            0 => write!(formatter, "clean"),
            count => write!(formatter, "BROKEN: {count}"),
        }
    }
}

/// The longest time from the first attempt of a wish to its final answer, and from `mended` for the users that waited then; in
/// seconds. A wish without a final answer waits to the end of its last attempt.
#[expect(clippy::cast_precision_loss, reason = "microseconds of a minute")]
fn waits(attempts: &[Attempt], mended: Duration) -> (f64, f64) {
    let mended = u64::try_from(mended.as_micros()).unwrap_or(u64::MAX);
    let mut wishes: BTreeMap<_, (u64, Option<u64>, u64)> = BTreeMap::new();
    for attempt in attempts {
        let wish = (attempt.user.as_str(), attempt.code.as_str(), attempt.key.as_str());
        let (asked, settled, last) = wishes.entry(wish).or_insert((attempt.asked, None, attempt.answered));
        *asked = (*asked).min(attempt.asked);
        *last = (*last).max(attempt.answered);
        if attempt.told.is_final() {
            *settled = Some(settled.map_or(attempt.answered, |before| before.min(attempt.answered)));
        }
    }
    let (mut longest, mut after) = (0, 0);
    for (asked, settled, last) in wishes.into_values() {
        let settled = settled.unwrap_or(last);
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

    const REPORT: Report = Report {
        round: 1,
        exclusive: false,
        coupons: Vec::new(),
        users: 0,
        acknowledged: None,
        heard: None,
        findings: Vec::new(),
    };

    fn attempt(user: &str, asked: u64, answered: u64, told: Told) -> Attempt {
        let (user, code, key) = (user.to_owned(), "A".to_owned(), "k".to_owned());
        Attempt { user, code, round: 1, key, asked, answered, told }
    }

    #[test]
    fn a_fault_that_found_nothing_to_break_is_counted_as_missed() {
        let wave = Wave { number: 3, faults: Vec::new(), exclusive: false, crowds: Vec::new() };
        let began = Instant::now();
        let struck = [true, false].map(|hit| Struck { mended: began, hit });

        assert_eq!(Tally::new(&wave, &[], &struck, began, REPORT).missed, 1);
    }

    #[test]
    fn a_wait_is_from_the_first_attempt_to_the_first_final_answer() {
        let attempts = [
            attempt("u-1", 1_000_000, 2_000_000, Told::Nothing),
            attempt("u-1", 2_100_000, 4_000_000, Told::SoldOut),
            attempt("u-1", 2_100_000, 9_000_000, Told::SoldOut),
            attempt("u-2", 5_000_000, 5_500_000, Told::SoldOut),
        ];

        let (longest, after) = waits(&attempts, Duration::from_millis(3_500));

        assert_eq!((longest, after), (3.0, 0.5));
    }

    #[test]
    fn a_user_without_a_final_answer_waited_to_the_end() {
        let attempts =
            [attempt("u-1", 0, 1_000_000, Told::Nothing), attempt("u-1", 1_000_000, 8_000_000, Told::Retryable)];

        assert_eq!(waits(&attempts, Duration::ZERO), (8.0, 0.0));
    }
}
