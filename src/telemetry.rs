//! The log: one line per event on standard error.

use anyhow::Context;
use tracing_subscriber::EnvFilter;

/// Starts logging what `filter` lets through. The first caller in a process wins.
pub fn start(filter: &str) -> anyhow::Result<()> {
    let filter =
        EnvFilter::try_new(filter).context("LOG: is no tracing filter, such as `warn` or `info,coupon_rush=debug`")?;
    let _ = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(false).try_init();
    Ok(())
}
