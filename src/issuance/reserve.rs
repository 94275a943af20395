//! How much of its time an order keeps for the work itself.
//!
//! Under overload the queue is as long as the deadline: the next order has waited for almost all of it. Without a reserve work then
//! begins for callers that leave before it ends, and coupons go to users that were told "not now".

use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

/// After so long half of the longest time is forgotten. By the clock and not by the number of batches, so that many quick
/// ones for one code do not hide the slow one of another.
const HALF_LIFE: Duration = Duration::from_secs(4);

/// Watches how long the work takes of late.
pub(super) struct Reserve {
    /// The longest, and when it ended.
    longest: Mutex<(Duration, Instant)>,
    most: Duration,
}

impl Reserve {
    /// Never more than half of the deadline: work that takes longer than that must still begin, or it could never be seen to have
    /// become faster.
    pub(super) fn new(deadline: Duration) -> Self {
        Self { longest: Mutex::new((Duration::ZERO, Instant::now())), most: deadline / 2 }
    }

    /// Records work that took so long.
    pub(super) fn took(&self, time: Duration) {
        let mut longest = self.longest.lock();
        let now = Instant::now();
        *longest = (time.min(self.most).max(faded(*longest, now)), now);
    }

    /// When work that begins now will have ended: an order whose caller leaves before is not worth beginning. Reckoned with twice the
    /// longest time of late, because work takes longer now and then.
    pub(super) fn end(&self) -> Instant {
        let now = Instant::now();
        now + (2 * faded(*self.longest.lock(), now)).min(self.most)
    }
}

/// What is left of a time after it has been forgotten for a while.
fn faded((time, ended): (Duration, Instant), now: Instant) -> Duration {
    time.mul_f64(0.5_f64.powf((now - ended).as_secs_f64() / HALF_LIFE.as_secs_f64()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEADLINE: Duration = Duration::from_secs(5);

    fn reserved(reserve: &Reserve) -> u128 {
        (reserve.end() - Instant::now()).as_millis()
    }

    #[tokio::test(start_paused = true)]
    async fn the_longest_work_of_late_decides_however_much_quick_work_comes_after_it() {
        let reserve = Reserve::new(DEADLINE);
        assert_eq!(reserved(&reserve), 0);

        for millis in [300, 100, 10, 10, 10, 10, 10, 10, 10, 10, 10, 10, 10, 10] {
            reserve.took(Duration::from_millis(millis));
        }

        assert_eq!(reserved(&reserve), 600);
    }

    #[tokio::test(start_paused = true)]
    async fn half_of_it_is_forgotten_in_four_seconds_and_in_the_end_all() {
        let reserve = Reserve::new(DEADLINE);
        reserve.took(Duration::from_millis(300));

        tokio::time::advance(HALF_LIFE).await;
        let half = reserved(&reserve);
        tokio::time::advance(20 * HALF_LIFE).await;

        assert_eq!((half, reserved(&reserve)), (300, 0));
    }

    #[tokio::test(start_paused = true)]
    async fn half_of_the_time_is_always_left_for_waiting() {
        let reserve = Reserve::new(DEADLINE);
        reserve.took(Duration::from_mins(1));

        assert_eq!(reserved(&reserve), 2_500);
    }
}
