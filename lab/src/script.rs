//! Runs the project's own scripts, each in a process group of its own: a Ctrl-C at the terminal reaches the laboratory
//! alone, which then asks the script to end and waits until it did.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context, ensure};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::process::{Child, Command};

use crate::interrupt::{Interrupt, Interrupted};

/// A script that was asked to end stops what it started; one that needs longer than this is killed.
const GRACE: Duration = Duration::from_secs(90);

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

/// Runs `root`/`words[0]` with the rest as arguments and `environment` on top of our own.
///
/// With an interrupt, the script is asked to end as soon as somebody asks us to, and the error is [`Interrupted`]; without
/// one it runs to its end whatever happens, which is right for scripts that put things in order.
pub async fn run(
    root: &Path,
    words: &[&str],
    environment: &BTreeMap<String, String>,
    interrupt: Option<&Interrupt>,
) -> anyhow::Result<Done> {
    let (name, arguments) = words.split_first().context("a script needs a name")?;
    let mut child = Command::new(root.join(name))
        .args(arguments)
        .envs(environment)
        .current_dir(root)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .spawn()
        .with_context(|| format!("cannot run {name}; the laboratory runs in the project's folder"))?;
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    let reading = tokio::spawn(async move { tokio::join!(text(stdout), text(stderr)) });
    let status = match interrupt {
        None => child.wait().await?,
        Some(interrupt) => tokio::select! {
            status = child.wait() => status?,
            () = interrupt.asked() => {
                end(&mut child).await?;
                return Err(Interrupted.into());
            }
        },
    };
    let (stdout, stderr) = reading.await.context("cannot read what a script prints")?;
    Ok(Done { status, output: stdout + &stderr })
}

async fn text(stream: Option<impl AsyncRead + Unpin>) -> String {
    let mut bytes = Vec::new();
    if let Some(mut stream) = stream {
        // What was read before an error is all there is to show.
        let _ = stream.read_to_end(&mut bytes).await;
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Asks the script's whole group to end and waits for it.
async fn end(child: &mut Child) -> anyhow::Result<()> {
    let Some(id) = child.id() else { return Ok(()) };
    let group = Pid::from_raw(i32::try_from(id)?);
    // A group that has ended meanwhile is what we want.
    let _ = killpg(group, Signal::SIGINT);
    if tokio::time::timeout(GRACE, child.wait()).await.is_err() {
        let _ = killpg(group, Signal::SIGKILL);
        child.wait().await?;
    }
    Ok(())
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
    async fn a_script_runs_in_a_group_of_its_own() {
        let ours = nix::unistd::getpgrp().to_string();

        let theirs = shell("cut -d' ' -f5 /proc/self/stat").await.output;

        assert_ne!(theirs.trim(), ours);
    }

    #[tokio::test]
    async fn a_missing_script_names_the_folder_it_belongs_to() {
        let error = run(Path::new("/nowhere"), &["local/cluster"], &BTreeMap::new(), None).await.unwrap_err();

        assert!(error.to_string().contains("project's folder"), "{error}");
    }
}
