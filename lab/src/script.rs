//! Runs the project's own scripts, each in a process group of its own: a Ctrl-C at the terminal reaches the laboratory
//! alone, which then asks the script to end and waits until it did.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::process::{Child, Command};

/// A script that was asked to end stops what it started; one that needs longer than this is killed.
const GRACE: Duration = Duration::from_secs(90);
/// Between two looks at a script that was asked to end.
const PAUSE: Duration = Duration::from_millis(20);
/// How many lines of a failed script's output its error repeats.
const LINES_MAX: usize = 15;

/// What a script did, and what it printed to both streams.
#[derive(Debug)]
pub struct Done {
    pub status: ExitStatus,
    pub output: String,
}

impl Done {
    /// The error of a script that should have succeeded, with its last lines.
    pub fn must(self, name: &str) -> anyhow::Result<Self> {
        let lines: Vec<&str> = self.output.trim_end().lines().collect();
        let last = lines[lines.len().saturating_sub(LINES_MAX)..].join("\n");
        ensure!(self.status.success(), "{name} failed ({}):\n{last}", self.status);
        Ok(self)
    }
}

/// A script on its way. Dropped before its end, it is asked to end and the thread waits until it did: nothing is left behind.
struct Running(Child);

/// Runs `root`/`words[0]` with the rest as arguments and `environment` on top of our own; what is empty there is taken out. Work that
/// somebody interrupts drops this future, and so ends the script.
pub async fn run(root: &Path, words: &[&str], environment: &BTreeMap<String, String>) -> anyhow::Result<Done> {
    let mut running = start(root, words, environment)?;
    // Its child keeps them open, so that a script which is asked to end can still print.
    let Child { stdout, stderr, .. } = &mut running.0;
    let (stdout, stderr) = tokio::join!(text(stdout), text(stderr));
    Ok(Done { status: running.0.wait().await?, output: stdout + &stderr })
}

fn start(root: &Path, words: &[&str], environment: &BTreeMap<String, String>) -> anyhow::Result<Running> {
    let (name, arguments) = words.split_first().context("a script needs a name")?;
    let (unset, set): (Vec<_>, Vec<_>) = environment.iter().partition(|(_, value)| value.is_empty());
    let mut command = Command::new(root.join(name));
    for (name, _) in unset {
        command.env_remove(name);
    }
    let child = command
        .envs(set)
        .args(arguments)
        .current_dir(root)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .spawn()
        .with_context(|| format!("cannot run {name}; the laboratory runs in the project's folder"))?;
    Ok(Running(child))
}

impl Drop for Running {
    fn drop(&mut self) {
        let Some(group) = self.0.id().map(|id| Pid::from_raw(id.cast_signed())) else { return };
        // Not SIGINT: interpreters catch that one, and lose what they caught when they become another program.
        let _ = killpg(group, Signal::SIGTERM);
        let deadline = Instant::now() + GRACE;
        while Instant::now() < deadline {
            // An error means that there is nothing to wait for any more.
            if !matches!(self.0.try_wait(), Ok(None)) {
                return;
            }
            std::thread::sleep(PAUSE);
        }
        let _ = killpg(group, Signal::SIGKILL);
    }
}

async fn text(stream: &mut Option<impl AsyncRead + Unpin>) -> String {
    let mut bytes = Vec::new();
    if let Some(stream) = stream {
        // What was read before an error is all there is to show.
        let _ = stream.read_to_end(&mut bytes).await;
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn shell(line: &str) -> Done {
        // `PATH` is empty, so it is taken out: the shell looks where it looks by itself.
        let environment = [("PATH".to_owned(), String::new()), ("KNOB".to_owned(), "7".to_owned())].into();
        run(Path::new("/bin"), &["sh", "-c", line], &environment).await.unwrap()
    }

    #[tokio::test]
    async fn a_failed_script_tells_its_last_words() {
        let done = shell("seq 1 99; echo the cure >&2; exit 3").await;

        let error = done.must("sh").unwrap_err().to_string();

        assert!(error.contains("exit status: 3") && error.ends_with("the cure"), "{error}");
        assert!(!error.contains("\n50\n"), "{error}");
    }

    #[tokio::test]
    async fn a_script_runs_in_a_group_of_its_own_without_what_is_empty_in_its_environment() {
        let ours = nix::unistd::getpgrp().to_string();

        let Done { output, .. } = shell("cut -d' ' -f5 /proc/self/stat; exec /usr/bin/env").await;

        assert_ne!(output.lines().next().unwrap(), ours);
        let has = |name: &str| output.lines().any(|line| line.starts_with(name));
        assert!(has("KNOB=7") && !has("PATH="), "{output}");
    }

    #[tokio::test]
    async fn a_script_that_nobody_waits_for_is_ended_however_young_it_is() {
        for microseconds in (0..2000).step_by(20) {
            let running = start(Path::new("/bin"), &["sh", "-c", "sleep 600"], &BTreeMap::new()).unwrap();
            let (process, begun) = (format!("/proc/{}", running.0.id().unwrap()), Instant::now());

            std::thread::sleep(Duration::from_micros(microseconds));
            drop(running);

            assert!(begun.elapsed() < GRACE, "it was killed");
            assert!(!Path::new(&process).exists());
        }
    }
}
