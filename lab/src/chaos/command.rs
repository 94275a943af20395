//! Commands of the system that break something, and those that mend it whatever happens in between.

use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

use anyhow::{Context, ensure};

/// Where the commands of root are, which are not on everybody's path.
const ROOTS_FOLDERS: &str = ":/usr/sbin:/sbin";

/// Runs a command to its end and returns what it said.
pub async fn run(words: &[String]) -> anyhow::Result<String> {
    let done = tokio::process::Command::from(command(words)).output().await;
    let done = done.with_context(|| format!("cannot run {}", words[0]))?;
    let said = String::from_utf8_lossy(&done.stderr);
    ensure!(done.status.success(), "`{}` failed: {}", words.join(" "), said.trim());
    Ok(String::from_utf8_lossy(&done.stdout).into_owned())
}

/// In a group of its own, a Ctrl-C at the terminal does not reach it.
fn command(words: &[String]) -> Command {
    let mut path = std::env::var_os("PATH").unwrap_or_default();
    path.push(ROOTS_FOLDERS);
    let mut command = Command::new(&words[0]);
    command.args(&words[1..]).env("PATH", path).stdin(Stdio::null()).process_group(0);
    command
}

/// The words of a line.
pub fn words(line: &str) -> Vec<String> {
    line.split_whitespace().map(str::to_owned).collect()
}

/// A command that mends what is about to be broken: in its time, or when this is dropped before.
pub struct Mend(Option<Vec<String>>);

impl Mend {
    pub fn by(words: Vec<String>) -> Self {
        Self(Some(words))
    }

    pub async fn now(mut self) -> anyhow::Result<()> {
        if let Some(words) = &self.0 {
            run(words).await?;
        }
        self.0 = None;
        Ok(())
    }
}

impl Drop for Mend {
    fn drop(&mut self) {
        if let Some(words) = &self.0 {
            // There may be nothing to be mended yet or any more.
            let _ = command(words).output();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[tokio::test]
    async fn a_failed_command_says_why() {
        let error = run(&["sh", "-c", "echo the cure >&2; exit 3"].map(str::to_owned)).await.unwrap_err().to_string();

        assert!(error.ends_with("failed: the cure"), "{error}");
        assert!(run(&words("no-such-command")).await.unwrap_err().to_string().contains("no-such-command"));
    }

    #[tokio::test]
    async fn what_is_broken_is_mended_once_whatever_happens() {
        let file = std::env::temp_dir().join(format!("coupon-lab-mend-{}", std::process::id()));
        let mend = || Mend::by(["sh", "-c", &format!("echo mended >> {}", file.display())].map(str::to_owned).into());
        let said = || fs::read_to_string(&file).unwrap_or_default();

        mend().now().await.unwrap();
        assert_eq!(said(), "mended\n");
        drop(mend());
        assert_eq!(said(), "mended\nmended\n");
        fs::remove_file(file).unwrap();
    }
}
