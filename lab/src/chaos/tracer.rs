//! strace, which puts faults into the system calls of a running process.

use std::ffi::OsStr;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use anyhow::Context;
use nix::sys::signal::Signal;
use nix::unistd::Pid;
use tokio::process::{Child, Command};
use tokio::time::timeout;

use super::signals::send;

/// strace with a fault to inject. Dropped, it is killed, and the kernel lets go of what it traced.
pub struct Tracer(Child);

/// Whether this machine lets strace take hold of a process; many containers do not.
pub async fn can_trace() -> anyhow::Result<bool> {
    let mut sleeper = Command::new("sleep").arg("60").kill_on_drop(true).spawn()?;
    let pid = Pid::from_raw(i32::try_from(sleeper.id().context("sleep has ended")?)?);
    let mut tracer = Tracer::start(pid, "fsync", "delay_enter=1", &[])?;
    // One that may not says so at once.
    let ended = timeout(Duration::from_millis(500), tracer.0.wait()).await.is_ok();
    sleeper.kill().await?;
    Ok(!ended)
}

impl Tracer {
    /// Injects `fault` into these system calls of a process; where `paths` are given, only into those on these files.
    pub fn start(pid: Pid, calls: &str, fault: &str, paths: &[PathBuf]) -> anyhow::Result<Self> {
        let child = Command::new("strace")
            .args(["-f", "-qq", "-o", "/dev/null", "-p", &pid.to_string()])
            .args(paths.iter().flat_map(|path| [OsStr::new("-P"), path.as_os_str()]))
            .args(["-e", &format!("trace={calls}"), "-e", &format!("inject={calls}:{fault}")])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .context("cannot run strace; `make chaos` installs it")?;
        Ok(Self(child))
    }

    /// Lets the process go. Tells whether it was held until now: strace ends by itself when what it traces has ended, and when
    /// it may not trace.
    pub async fn end(mut self) -> anyhow::Result<bool> {
        let held = self.0.try_wait()?.is_none();
        if let Some(id) = self.0.id() {
            let _ = send(Pid::from_raw(i32::try_from(id)?), Signal::SIGTERM);
        }
        self.0.wait().await?;
        Ok(held)
    }
}
