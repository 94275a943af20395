//! Ctrl-C and its relatives, as something that work can wait for: whoever is interrupted still puts things in order.

use std::fmt::{self, Display, Formatter};

use anyhow::Context;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

/// Tells whether somebody asked the program to stop. Clones watch the same signals.
#[derive(Clone, Debug)]
pub struct Interrupt {
    asked: watch::Receiver<bool>,
}

/// The error of work that was interrupted; look for it with `error.is::<Interrupted>()`.
#[derive(Clone, Copy, Debug)]
pub struct Interrupted;

impl Interrupted {
    /// The exit status of a program that was interrupted, as shells have it for Ctrl-C.
    pub const STATUS: u8 = 130;
}

impl Display for Interrupted {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> fmt::Result {
        formatter.write_str("interrupted")
    }
}

impl std::error::Error for Interrupted {}

impl Interrupt {
    /// Watches SIGINT, SIGTERM and SIGHUP from now on, which then no longer end the program by themselves.
    pub fn watch() -> anyhow::Result<Self> {
        let listen = |kind| signal(kind).context("cannot watch for signals");
        let mut signals =
            [listen(SignalKind::interrupt())?, listen(SignalKind::terminate())?, listen(SignalKind::hangup())?];
        let (tell, asked) = watch::channel(false);
        tokio::spawn(async move {
            loop {
                let [interrupt, terminate, hangup] = &mut signals;
                tokio::select! {
                    _ = interrupt.recv() => {}
                    _ = terminate.recv() => {}
                    _ = hangup.recv() => {}
                }
                if tell.send_replace(true) {
                    eprintln!("still putting things in order");
                }
            }
        });
        Ok(Self { asked })
    }

    /// Returns once somebody asked; at once when that was before.
    pub async fn asked(&self) {
        if self.asked.clone().wait_for(|asked| *asked).await.is_err() {
            // The watcher never ends; without one nobody can ask any more.
            std::future::pending::<()>().await;
        }
    }

    /// Whether somebody asked already.
    pub fn is_asked(&self) -> bool {
        *self.asked.borrow()
    }

    /// Runs `work` unless and until somebody asks; it is dropped where it stands then.
    pub async fn or<T>(&self, work: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
        tokio::select! {
            biased;
            () = self.asked() => Err(Interrupted.into()),
            done = work => done,
        }
    }
}
