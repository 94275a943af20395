//! A timer with the kernel's resolution: tokio's own know whole milliseconds, which are long for a request.

use std::io;
use std::os::fd::AsFd;
use std::time::Instant;

use nix::sys::time::TimeSpec;
use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe::Receiver;

/// It reads as the end of a pipe does: eight bytes each time it went off.
pub struct Alarm {
    timer: TimerFd,
    rings: Receiver,
}

impl Alarm {
    pub fn new() -> io::Result<Self> {
        let timer = TimerFd::new(ClockId::CLOCK_MONOTONIC, TimerFlags::TFD_NONBLOCK | TimerFlags::TFD_CLOEXEC)?;
        let rings = Receiver::from_owned_fd_unchecked(timer.as_fd().try_clone_to_owned()?)?;
        Ok(Self { timer, rings })
    }

    /// Returns at once when that moment is over.
    pub async fn wait_until(&mut self, due: Instant) -> io::Result<()> {
        let left = due.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(());
        }
        self.timer.set(Expiration::OneShot(TimeSpec::from_duration(left)), TimerSetTimeFlags::empty())?;
        // More room than it fills: so tokio knows at once that nothing else is there.
        self.rings.read(&mut [0; 16]).await.map(drop)
    }
}
