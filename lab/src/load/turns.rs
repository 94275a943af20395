//! When the next request may go, and from when its latency counts.

use std::cell::Cell;
use std::io;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use nix::sys::time::TimeSpec;
use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe::Receiver;
use tokio::sync::Notify;

use super::{Pace, Until};

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

    /// Wakes a connection for each turn when it is due. tokio's own timer would round to milliseconds.
    pub(super) async fn keep_time(&self) {
        let (Pace::Open(_), Some(total)) = (self.pace, self.total) else { return };
        let mut alarm = Alarm::new().expect("Linux has timers");
        let mut turn = 0;
        while turn < total {
            let due = self.due_at(turn).unwrap_or(self.start);
            match due.checked_duration_since(Instant::now()) {
                Some(wait) if !wait.is_zero() => alarm.wait(wait).await.expect("a timer can be read"),
                _ => {
                    self.due.notify_one();
                    turn += 1;
                }
            }
        }
    }
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a positive number of requests")]
fn count(rate: f64, time: Duration) -> u64 {
    (rate * time.as_secs_f64()).floor() as u64
}

/// A timer with the kernel's resolution. It reads as the end of a pipe does: eight bytes each time it went off.
struct Alarm {
    timer: TimerFd,
    rings: Receiver,
}

impl Alarm {
    fn new() -> io::Result<Self> {
        let timer = TimerFd::new(ClockId::CLOCK_MONOTONIC, TimerFlags::TFD_NONBLOCK | TimerFlags::TFD_CLOEXEC)?;
        let rings = Receiver::from_owned_fd_unchecked(timer.as_fd().try_clone_to_owned()?)?;
        Ok(Self { timer, rings })
    }

    async fn wait(&mut self, time: Duration) -> io::Result<()> {
        self.timer.set(Expiration::OneShot(TimeSpec::from_duration(time)), TimerSetTimeFlags::empty())?;
        // More room than it fills: so tokio knows at once that nothing else is there.
        self.rings.read(&mut [0; 16]).await.map(drop)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn turns(rate: f64, seconds: f64) -> Turns {
        Turns::new(Pace::Open(rate), Until::Elapsed(Duration::from_secs_f64(seconds)), Duration::ZERO)
    }

    #[tokio::test]
    async fn what_is_due_while_nobody_is_free_counts_from_when_it_was_due() {
        let turns = turns(1_000.0, 0.05);
        // All connections are busy until every request is overdue.
        tokio::time::sleep(Duration::from_millis(60)).await;

        let mut due = Vec::new();
        while let Some(from) = turns.next().await {
            due.push((from - turns.measured_from).as_micros());
        }

        let expected: Vec<u128> = (0..50).map(|turn| turn * 1_000).collect();
        assert_eq!(due, expected);
        assert_eq!(turns.late.get(), 50);
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

    #[tokio::test]
    async fn what_was_never_sent_is_known_with_its_time() {
        let turns = turns(1_000.0, 0.01);
        tokio::time::sleep(Duration::from_millis(5)).await;
        for _ in 0..4 {
            turns.next().await.unwrap();
        }

        let unsent: Vec<u128> = turns.unsent().map(|due| (due - turns.measured_from).as_millis()).collect();

        assert_eq!(unsent, [4, 5, 6, 7, 8, 9]);
    }
}
