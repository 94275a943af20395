//! Ctrl-C and its relatives, as something that work can wait for: work that is interrupted still puts things in order.

use anyhow::Context;
use thiserror::Error;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::say;

/// Tells whether somebody asked the program to stop. Clones watch the same signals.
#[derive(Clone, Debug)]
pub struct Interrupt(CancellationToken);

/// The error of work that was interrupted; look for it with `error.is::<Interrupted>()`.
#[derive(Clone, Copy, Debug, Error)]
#[error("interrupted")]
pub struct Interrupted;

impl Interrupted {
    /// The exit status of a program that was interrupted, as shells have it for Ctrl-C.
    pub const STATUS: u8 = 130;
}

impl Interrupt {
    /// Watches SIGINT, SIGTERM and SIGHUP from now on, which then no longer end the program by themselves.
    pub fn watch() -> anyhow::Result<Self> {
        let token = CancellationToken::new();
        for kind in [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()] {
            let mut signals = signal(kind).context("cannot watch for signals")?;
            let token = token.clone();
            tokio::spawn(async move {
                while signals.recv().await.is_some() {
                    if token.is_cancelled() {
                        say::aside("still putting things in order");
                    }
                    token.cancel();
                }
            });
        }
        Ok(Self(token))
    }

    /// Runs `work` unless and until somebody asks; it is dropped where it stands then.
    pub async fn or<T>(&self, work: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
        self.0.run_until_cancelled(work).await.unwrap_or_else(|| Err(Interrupted.into()))
    }
}
