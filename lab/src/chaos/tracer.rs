//! strace, which puts faults into the system calls of a running process.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{Read, Seek};
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use anyhow::Context;
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::signal::Signal;
use nix::unistd::Pid;
use tokio::process::{Child, Command};
use tokio::time::timeout;

use super::supervised::send;

/// strace with a fault to inject. Dropped, it is killed, and the kernel lets go of what it traced.
pub struct Tracer {
    strace: Child,
    said: File,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Traced {
    /// Whether it held the process until now: strace ends by itself when what it traces has ended, and when it may not trace.
    pub held: bool,
    /// Whether a call failed or was delayed. A signal that was injected does not show here.
    pub injected: bool,
}

/// Whether this machine lets strace take hold of a process; many containers do not.
pub async fn can_trace() -> anyhow::Result<bool> {
    let mut sleeper = Command::new("sleep").arg("60").kill_on_drop(true).spawn()?;
    let pid = Pid::from_raw(i32::try_from(sleeper.id().context("sleep has ended")?)?);
    let mut tracer = Tracer::start(pid, "fsync", "delay_enter=1", &[])?;
    // One that may not says so at once.
    let ended = timeout(Duration::from_millis(500), tracer.strace.wait()).await.is_ok();
    sleeper.kill().await?;
    Ok(!ended)
}

impl Tracer {
    /// Injects `fault` into these system calls of a process; where `paths` are given, only into those on these files.
    pub fn start(pid: Pid, calls: &str, fault: &str, paths: &[PathBuf]) -> anyhow::Result<Self> {
        let said = File::from(memfd_create("strace", MFdFlags::MFD_CLOEXEC).context("cannot keep what strace says")?);
        let strace = Command::new("strace")
            .args(["-f", "-qq", "-p", &pid.to_string()])
            .args(paths.iter().flat_map(|path| [OsStr::new("-P"), path.as_os_str()]))
            .args(["-e", &format!("trace={calls}"), "-e", &format!("inject={calls}:{fault}")])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(said.try_clone()?)
            .kill_on_drop(true)
            .spawn()
            .context("cannot run strace; `make chaos` installs it")?;
        Ok(Self { strace, said })
    }

    pub async fn end(mut self) -> anyhow::Result<Traced> {
        let held = self.strace.try_wait()?.is_none();
        if let Some(id) = self.strace.id() {
            let _ = send(Pid::from_raw(i32::try_from(id)?), Signal::SIGTERM);
        }
        self.strace.wait().await?;
        let mut said = Vec::new();
        self.said.rewind()?;
        self.said.read_to_end(&mut said)?;
        Ok(Traced { held, injected: injected(&String::from_utf8_lossy(&said)) })
    }
}

/// Whether a line says that its call failed or was late on purpose.
fn injected(said: &str) -> bool {
    said.lines().any(|line| line.ends_with("(INJECTED)") || line.ends_with("(DELAYED)"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_that_failed_or_was_late_on_purpose_is_told_from_the_others() {
        for line in [
            "write(3, \"x\", 1) = -1 ENOSPC (No space left on device) (INJECTED)",
            "[pid  1207] <... fsync resumed>)        = 0 (DELAYED)",
        ] {
            assert!(injected(&format!("fsync(4) = 0\n{line}\nfsync(4) = 0\n")), "{line}");
        }
        assert!(!injected("fsync(4) = 0\nwrite(3, \"(INJECTED)\", 10) = 10\n"));
        assert!(!injected(""));
    }
}
