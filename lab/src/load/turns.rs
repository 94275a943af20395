//! When the next request may go, and from when its latency counts.

use std::cell::Cell;
use std::time::{Duration, Instant};

use tokio::sync::Notify;

use super::{Pace, Until};
use crate::alarm::Alarm;

/// A request that went so much later than it was due was late: all connections were busy, or the loader was.
const LATE: Duration = Duration::from_millis(1);

/// Hands out turns to the connections of one run.
pub(super) struct Turns {
    start: Instant,
    /// The end of the warm-up: what is due, or goes, before this is no part of the figures.
    pub(super) measured_from: Instant,
    pace: Pace,
    end: Option<Instant>,
    /// How many turns there are in all; `None` when only time ends them.
    total: Option<u64>,
    taken: Cell<u64>,
    pub(super) late: Cell<u64>,
    due: Notify,
}

impl Turns {
    pub(super) fn new(pace: Pace, until: Until, warm_up: Duration) -> Self {
        let start = Instant::now();
        let measured_from = start + warm_up;
        let (end, total) = match (pace, until) {
            (_, Until::Sent(count)) => (None, Some(count)),
            (Pace::Closed, Until::Elapsed(time)) => (Some(measured_from + time), None),
            // Every request that is due within the time is owed, however late the server makes it.
            (Pace::Open(rate), Until::Elapsed(time)) => (None, Some(count(rate, warm_up + time))),
        };
        Self { start, measured_from, pace, end, total, taken: Cell::new(0), late: Cell::new(0), due: Notify::new() }
    }

    /// When the measured turns that nobody took were due.
    pub(super) fn unsent(&self) -> impl Iterator<Item = Instant> {
        let due = |turn| self.due_at(turn).unwrap_or(self.measured_from);
        (self.taken.get()..self.total.unwrap_or(0)).map(due).filter(|due| *due >= self.measured_from)
    }

    pub(super) fn over(&self) -> bool {
        self.total.is_some_and(|total| self.taken.get() >= total) || self.end.is_some_and(|end| Instant::now() >= end)
    }

    /// Waits for a turn. Returns when the latency begins: now, or when the request was due. `None`: the run is over.
    pub(super) async fn next(&self) -> Option<Instant> {
        while !self.over() {
            let (now, turn) = (Instant::now(), self.taken.get());
            let due = self.due_at(turn);
            if due.is_none_or(|due| due <= now) {
                return Some(self.take(turn, due, now));
            }
            self.due.notified().await;
        }
        None
    }

    fn take(&self, turn: u64, due: Option<Instant>, now: Instant) -> Instant {
        self.taken.set(turn + 1);
        if self.total == Some(turn + 1) {
            // Nothing will be due any more: who waits may go home.
            self.due.notify_waiters();
        }
        let Some(due) = due else { return now };
        if now - due > LATE && due >= self.measured_from {
            self.late.set(self.late.get() + 1);
        }
        due
    }

    /// When a turn is due; `None` when it is due as soon as somebody is free.
    fn due_at(&self, turn: u64) -> Option<Instant> {
        match self.pace {
            Pace::Closed => None,
            #[expect(clippy::cast_precision_loss, reason = "a run has far fewer requests than 2^52")]
            Pace::Open(rate) => Some(self.start + Duration::from_secs_f64(turn as f64 / rate)),
        }
    }

    /// Wakes a connection for each turn when it is due; in a closed loop none is.
    pub(super) async fn keep_time(&self) {
        let mut alarm = Alarm::new().expect("Linux has timers");
        for due in (0..self.total.unwrap_or(0)).map_while(|turn| self.due_at(turn)) {
            alarm.wait_until(due).await.expect("a timer can be read");
            self.due.notify_one();
        }
    }
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a positive number of requests")]
fn count(rate: f64, time: Duration) -> u64 {
    (rate * time.as_secs_f64()).floor() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn turns(rate: f64, seconds: f64) -> Turns {
        Turns::new(Pace::Open(rate), Until::Elapsed(Duration::from_secs_f64(seconds)), Duration::ZERO)
    }

    #[tokio::test]
    async fn what_is_due_while_nobody_is_free_counts_from_then_and_what_never_goes_is_known_with_its_time() {
        let turns = turns(1_000.0, 0.05);
        let since = |due: Instant| (due - turns.measured_from).as_micros();
        // All connections are busy until every request is overdue.
        tokio::time::sleep(Duration::from_millis(60)).await;

        let mut due = Vec::new();
        for _ in 0..40 {
            due.push(since(turns.next().await.unwrap()));
        }

        let expected: Vec<u128> = (0..50).map(|turn| turn * 1_000).collect();
        assert_eq!((due.as_slice(), turns.late.get()), (&expected[..40], 40));
        assert_eq!(turns.unsent().map(since).collect::<Vec<_>>(), expected[40..]);
    }

    #[tokio::test]
    async fn requests_go_when_they_are_due_and_not_before() {
        let turns = turns(2_000.0, 0.1);
        let ask = async {
            let mut asked = 0;
            while let Some(due) = turns.next().await {
                assert!(Instant::now() >= due, "request {asked} went early");
                asked += 1;
            }
            asked
        };

        let ((), asked) = tokio::join!(turns.keep_time(), ask);

        assert_eq!(asked, 200);
        assert!(turns.measured_from.elapsed() >= Duration::from_micros(99_500));
    }

    #[tokio::test]
    async fn everybody_who_waits_learns_of_the_end() {
        let turns = turns(1_000.0, 0.003);
        let ask = || async { while turns.next().await.is_some() {} };

        let all = async { tokio::join!(turns.keep_time(), ask(), ask(), ask(), ask(), ask()) };

        tokio::time::timeout(Duration::from_secs(5), all).await.expect("all of them end");
    }
}
