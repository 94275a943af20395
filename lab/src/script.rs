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
use tokio::task::JoinHandle;

use crate::interrupt::Interrupt;

/// A script that was asked to end stops what it started; one that needs longer than this is killed.
const GRACE: Duration = Duration::from_secs(90);

/// Between two looks at a script that was asked to end.
const PAUSE: Duration = Duration::from_millis(20);

/// How many lines of a failed script's output its error repeats.
const LINES_MAX: usize = 15;

/// What a script did.
#[derive(Clone, Debug)]
pub struct Done {
    /// How it ended.
    pub status: ExitStatus,
    /// What it printed, to both streams.
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
#[derive(Debug)]
pub struct Running {
    child: Child,
    reading: JoinHandle<(String, String)>,
}

/// Starts `root`/`words[0]` with the rest as arguments and `environment` on top of our own; what is empty there is taken out.
pub fn start(root: &Path, words: &[&str], environment: &BTreeMap<String, String>) -> anyhow::Result<Running> {
    let (name, arguments) = words.split_first().context("a script needs a name")?;
    let mut command = Command::new(root.join(name));
    for (name, value) in environment {
        if value.is_empty() {
            command.env_remove(name)
        } else {
            command.env(name, value)
        };
    }
    let mut child = command
        .args(arguments)
        .current_dir(root)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .spawn()
        .with_context(|| format!("cannot run {name}; the laboratory runs in the project's folder"))?;
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    let reading = tokio::spawn(async move { tokio::join!(text(stdout), text(stderr)) });
    Ok(Running { child, reading })
}

impl Running {
    /// Its process id, `None` once it has ended.
    pub fn id(&self) -> Option<u32> {
        self.child.id()
    }

    /// Waits for its end. With an interrupt, it is dropped as soon as somebody asks us to stop, and the error is
    /// [`crate::interrupt::Interrupted`]; without one it runs to its end whatever happens, which is right for scripts that put
    /// things in order.
    pub async fn end(mut self, interrupt: Option<&Interrupt>) -> anyhow::Result<Done> {
        let waiting = async { Ok(self.child.wait().await?) };
        let status = match interrupt {
            None => waiting.await?,
            Some(interrupt) => interrupt.or(waiting).await?,
        };
        let (stdout, stderr) = (&mut self.reading).await.context("cannot read what a script prints")?;
        Ok(Done { status, output: stdout + &stderr })
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let Some(group) = self.child.id().map(|id| Pid::from_raw(id.cast_signed())) else { return };
        let _ = killpg(group, Signal::SIGINT);
        let deadline = Instant::now() + GRACE;
        while Instant::now() < deadline {
            // An error means that there is nothing to wait for any more.
            if !matches!(self.child.try_wait(), Ok(None)) {
                return;
            }
            std::thread::sleep(PAUSE);
        }
        let _ = killpg(group, Signal::SIGKILL);
    }
}

/// [`start`] and [`Running::end`].
pub async fn run(
    root: &Path,
    words: &[&str],
    environment: &BTreeMap<String, String>,
    interrupt: Option<&Interrupt>,
) -> anyhow::Result<Done> {
    start(root, words, environment)?.end(interrupt).await
}

async fn text(stream: Option<impl AsyncRead + Unpin>) -> String {
    let mut bytes = Vec::new();
    if let Some(mut stream) = stream {
        // What was read before an error is all there is to show.
        let _ = stream.read_to_end(&mut bytes).await;
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn shell(line: &str) -> Done {
        run(Path::new("/bin"), &["sh", "-c", line], &BTreeMap::new(), None).await.unwrap()
    }

    #[tokio::test]
    async fn a_failed_script_tells_its_last_words() {
        let done = shell("seq 1 99; echo the cure >&2; exit 3").await;

        let error = done.must("sh").unwrap_err().to_string();

        assert!(error.contains("exit status: 3") && error.ends_with("the cure"), "{error}");
        assert!(!error.contains("\n50\n"), "{error}");
    }

    #[tokio::test]
    async fn what_is_empty_is_not_in_a_scripts_environment() {
        let environment = [("PATH".to_owned(), String::new()), ("KNOB".to_owned(), "7".to_owned())].into();

        let done = run(Path::new("/bin"), &["sh", "-c", "/usr/bin/env"], &environment, None).await.unwrap();

        let has = |name: &str| done.output.lines().any(|line| line.starts_with(name));
        assert!(has("KNOB=7") && !has("PATH="), "{}", done.output);
    }

    #[tokio::test]
    async fn a_script_runs_in_a_group_of_its_own() {
        let ours = nix::unistd::getpgrp().to_string();

        let theirs = shell("cut -d' ' -f5 /proc/self/stat").await.output;

        assert_ne!(theirs.trim(), ours);
    }

    #[tokio::test]
    async fn a_script_that_nobody_waits_for_is_ended() {
        let running = start(Path::new("/bin"), &["sh", "-c", "sleep 60"], &BTreeMap::new()).unwrap();
        let process = format!("/proc/{}", running.id().unwrap());

        drop(running);

        assert!(!Path::new(&process).exists());
    }

    #[tokio::test]
    async fn a_missing_script_names_the_folder_it_belongs_to() {
        let error = run(Path::new("/nowhere"), &["local/cluster"], &BTreeMap::new(), None).await.unwrap_err();

        assert!(error.to_string().contains("project's folder"), "{error}");
    }
}
