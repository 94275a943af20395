//! How much of its time an order keeps for the work itself.
//!
//! Under overload the queue is as long as the deadline: whoever is next has waited for almost all of it. Without a reserve
//! work then begins for callers who leave before it ends, and the coupons go to those who were told "not now".

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::Instant;

/// What is forgotten of the longest time with every shorter one: an eighth.
const FORGETTING: u64 = 8;

/// Watches how long the work takes of late.
pub(super) struct Reserve {
    /// Microseconds.
    longest_of_late: AtomicU64,
    most: Duration,
}

impl Reserve {
    /// Never more than half of the deadline: work that takes longer than that must still begin, or nobody would ever see
    /// that it has become faster.
    pub(super) fn new(deadline: Duration) -> Self {
        Self { longest_of_late: AtomicU64::new(0), most: deadline / 2 }
    }

    /// Records work that took so long. Of two who record at once one may be lost; the next batch tells the same.
    pub(super) fn took(&self, time: Duration) {
        let before = self.longest_of_late.load(Ordering::Relaxed);
        let time = u64::try_from(time.min(self.most).as_micros()).unwrap_or(u64::MAX);
        self.longest_of_late.store(time.max(before - before / FORGETTING), Ordering::Relaxed);
    }

    /// An order whose caller leaves before this would be settled for nobody.
    pub(super) fn end(&self) -> Instant {
        Instant::now() + self.time()
    }

    /// Twice the usual time, because work takes longer now and then.
    fn time(&self) -> Duration {
        let usual = Duration::from_micros(self.longest_of_late.load(Ordering::Relaxed));
        (2 * usual).min(self.most)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEADLINE: Duration = Duration::from_secs(5);

    fn reserved_ms(times: impl IntoIterator<Item = u64>) -> u128 {
        let reserve = Reserve::new(DEADLINE);
        for time in times {
            reserve.took(Duration::from_millis(time));
        }
        reserve.time().as_millis()
    }

    #[test]
    fn the_longest_work_of_late_decides() {
        assert_eq!(reserved_ms([]), 0);
        assert_eq!(reserved_ms([100]), 200);
        assert_eq!(reserved_ms([100, 300, 300, 10]), 525, "an eighth of 300 is forgotten");
        assert_eq!(reserved_ms([300].into_iter().chain([10; 60])), 20, "in the end all of it");
    }

    #[test]
    fn half_of_the_time_is_always_left_for_waiting() {
        assert_eq!(reserved_ms([60_000]), 2_500);
        assert_eq!(reserved_ms([60_000].into_iter().chain([10; 60])), 20);
    }
}
