//! The log: one line per event on standard error, as text or as JSON.
//!
//! A thread of its own writes it, so that a reader that is slow, or gone, cannot hold up the service: lines that find the
//! queue full are dropped and counted. Like tracing's own subscriber the log is the process's, not a replica's.

use std::backtrace::{Backtrace, BacktraceStatus};
use std::fs::File;
use std::io::{BufWriter, Write};
use std::os::fd::AsFd;
use std::panic::PanicHookInfo;
use std::sync::OnceLock;
use std::sync::mpsc;
use std::time::Duration;

use anyhow::Context;
use clap::ValueEnum;
use tracing_appender::non_blocking::{ErrorCounter, NonBlocking, NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::EnvFilter;

/// The target of the one line per request, which is written only where it is asked for: `LOG=info,access=info`.
pub const ACCESS: &str = "access";

/// What holds unless the filter says otherwise.
const UNASKED: &str = "error,access=off";

/// Lines that may wait to be written; with some 200 bytes each less than 2 MB.
const LINES_MAX: usize = 8_192;

/// How long the end of the process waits for the reader of the log.
const LAST_WORDS_MAX: Duration = Duration::from_secs(1);

/// Counts the lines that were dropped.
static DROPPED: OnceLock<ErrorCounter> = OnceLock::new();

/// How a line of the log is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// For people.
    Text,
    /// An object per line, for programs.
    Json,
}

/// The log of this process. To drop it is the process's last act: what still waits is written, as far as its reader takes it within a
/// second.
#[must_use]
pub struct Log {
    writing: Option<WorkerGuard>,
    last_words: String,
}

/// Starts logging what `filter` lets through, and panics with it. The first caller in a process wins.
pub fn start(filter: &str, format: LogFormat) -> anyhow::Result<Log> {
    let filter = EnvFilter::try_new(format!("{UNASKED},{filter}"))
        .context("LOG: is no tracing filter, such as `warn` or `info,coupon_rush=debug`")?;
    let (writer, writing) = writer()?;
    let lines = tracing_subscriber::fmt().with_env_filter(filter).with_writer(writer).with_ansi(false);
    // What it would say of itself goes to standard error directly, and that may block.
    let lines = lines.log_internal_errors(false);
    let started = match format {
        LogFormat::Text => lines.try_init(),
        LogFormat::Json => lines.json().flatten_event(true).with_span_list(false).try_init(),
    };
    if started.is_ok() {
        std::panic::set_hook(Box::new(panicked));
    }
    Ok(Log { writing: Some(writing), last_words: String::new() })
}

/// A writer to a copy of standard error: a thread that waits there for its reader does not hold the lock of `std::io::stderr`.
fn writer() -> anyhow::Result<(NonBlocking, WorkerGuard)> {
    let stderr = std::io::stderr().as_fd().try_clone_to_owned().context("cannot write to standard error")?;
    let builder = NonBlockingBuilder::default().lossy(true).buffered_lines_limit(LINES_MAX).thread_name("log");
    let (writer, writing) = builder.finish(BufWriter::new(File::from(stderr)));
    let _ = DROPPED.set(writer.error_counter());
    Ok((writer, writing))
}

/// Logs a panic, which by default the panicking thread would write, and could wait for ever.
fn panicked(panic: &PanicHookInfo<'_>) {
    let backtrace = Backtrace::capture();
    let backtrace = (backtrace.status() == BacktraceStatus::Captured).then(|| tracing::field::display(&backtrace));
    let (message, place) = (panic.payload_as_str(), panic.location().map(tracing::field::display));
    tracing::error!(target: "panic", message, place, backtrace);
}

/// Lines that were dropped because the queue was full.
pub fn dropped_lines() -> u64 {
    DROPPED.get().map_or(0, |dropped| dropped.dropped_lines().try_into().unwrap_or(u64::MAX))
}

impl Log {
    /// Ends the log with the error that the process ends with, if there is one.
    pub fn end(mut self, error: Option<&anyhow::Error>) {
        self.last_words = error.map(|error| format!("coupon-rush: {error:#}\n")).unwrap_or_default();
    }
}

impl Drop for Log {
    fn drop(&mut self) {
        let (writing, last_words) = (self.writing.take(), std::mem::take(&mut self.last_words));
        let (done, written) = mpsc::channel();
        std::thread::spawn(move || {
            drop(writing);
            let _ = std::io::stderr().write_all(last_words.as_bytes());
            let _ = done.send(());
        });
        let _ = written.recv_timeout(LAST_WORDS_MAX);
    }
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};
    use std::time::Instant;

    use super::*;

    /// Longest a child may take; one that nothing holds up needs a moment.
    const SOON: Duration = Duration::from_secs(15);

    /// Not a test: what the children of the test below do.
    #[test]
    #[ignore = "it panics on purpose, in a process of its own"]
    fn panics() {
        let log = start("info", LogFormat::Json).unwrap();
        let span = tracing::error_span!("request", trace_id = "abc");
        let panicked = std::thread::spawn(move || span.in_scope(|| panic!("on\npurpose"))).join();
        assert!(panicked.is_err());
        log.end(Some(&anyhow::anyhow!("the last words")));
    }

    /// A process that panics while it writes its log to `out`; whether it ends.
    fn panicking(out: impl Into<Stdio>) -> bool {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--ignored", "--exact", "telemetry::tests::panics"])
            .stdout(Stdio::null())
            .stderr(out)
            .spawn()
            .unwrap();
        let started = Instant::now();
        while child.try_wait().unwrap().is_none() && started.elapsed() < SOON {
            std::thread::sleep(Duration::from_millis(10));
        }
        let has_ended = child.try_wait().unwrap().is_some();
        let _ = child.kill();
        child.wait().unwrap();
        has_ended
    }

    #[test]
    fn a_panic_gets_out_as_one_line_and_the_last_words_follow_it() {
        let (mut reader, writer) = std::io::pipe().unwrap();
        assert!(panicking(writer));
        let said = std::io::read_to_string(&mut reader).unwrap();
        let lines: Vec<&str> = said.lines().collect();
        let panic: serde_json::Value = serde_json::from_str(lines[0]).unwrap();
        assert_eq!((&panic["target"], &panic["message"]), (&"panic".into(), &"on\npurpose".into()), "{said}");
        assert!(panic["place"].as_str().unwrap().contains("telemetry.rs"), "{said}");
        assert_eq!(panic["span"]["trace_id"], "abc", "{said}");
        assert_eq!(lines[1..], ["coupon-rush: the last words"], "{said}");
    }

    #[test]
    fn a_panic_that_nobody_reads_holds_up_nobody() {
        let (_unread, writer) = std::io::pipe().unwrap();
        let mut filler = Command::new("head");
        filler.args(["-c", "65536", "/dev/zero"]).stdout(writer.try_clone().unwrap());
        assert!(filler.status().unwrap().success());
        assert!(panicking(writer));
    }

    #[test]
    fn a_filter_that_asks_for_nothing_lets_errors_through_and_no_requests() {
        for (given, asked) in [("", "off"), ("info", "off"), ("access=info", "info"), ("warn,access=debug", "debug")] {
            let filter = EnvFilter::try_new(format!("{UNASKED},{given}")).unwrap().to_string();
            assert!(filter.split(',').any(|one| one == format!("access={asked}")), "{given}: {filter}");
            assert_eq!(filter.matches("access=").count(), 1, "{given}: {filter}");
        }
    }
}
