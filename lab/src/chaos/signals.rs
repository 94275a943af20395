//! Signals to single processes, by their ids.

use std::time::Duration;

use anyhow::Context;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::time::sleep;

/// Stops processes for a while.
pub async fn freeze(pids: &[Pid], lasts: Duration) -> anyhow::Result<()> {
    let frozen = Frozen(pids.to_vec());
    for pid in &frozen.0 {
        send(*pid, Signal::SIGSTOP)?;
    }
    sleep(lasts).await;
    Ok(())
}

/// Processes that go on when this is dropped.
pub struct Frozen(pub Vec<Pid>);

impl Drop for Frozen {
    fn drop(&mut self) {
        for pid in &self.0 {
            // One that has ended needs it no more.
            let _ = send(*pid, Signal::SIGCONT);
        }
    }
}

pub fn send(pid: Pid, signal: Signal) -> anyhow::Result<()> {
    kill(pid, signal).with_context(|| format!("cannot send {signal} to process {pid}"))
}
