//! Removes what old rounds left in the wallet, beside a running one: small steps along the primary key, each a transaction of its
//! own, with pauses longer than the work. Safe to interrupt, and to repeat.
#![expect(clippy::disallowed_methods, reason = "this is where SQL lives")]

use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use sqlx::Executor;
use tokio::time::timeout;

use super::StoreError;
use super::migrate::{connect, database};

/// Rows of one step. Orders wait for the disk behind its commit: of a thousand rows that was felt.
const STEP: u64 = 250;

/// Longest a step may take.
const STEP_TIMEOUT: Duration = Duration::from_secs(10);

/// Shortest pause between two steps, so that a million rows take some minutes, and how many times as long as the work it is.
const PAUSE_MIN: Duration = Duration::from_millis(60);
const PAUSE_FACTOR: u32 = 2;

const REMOVE: &str = "DELETE FROM wallet WHERE round < ? ORDER BY round, scope, user_id LIMIT ?";

/// Removes all rounds but the last `keep`, the current one among them. `progress` is told after every step how many rows are
/// gone; their number is returned.
pub async fn purge(
    admin_url: &str,
    service_url: &str,
    keep: u32,
    mut progress: impl FnMut(u64),
) -> anyhow::Result<u64> {
    ensure!(keep >= 1, "the current round cannot be removed");
    let mut connection = connect(admin_url, Some(&database(service_url)?)).await?;
    // For a locked row it tries again; a locked table outlasts a step, and ends it.
    connection.execute("SET SESSION innodb_lock_wait_timeout = 1, lock_wait_timeout = 60").await?;
    let round: Option<u32> = sqlx::query_scalar("SELECT round FROM event").fetch_optional(&mut connection).await?;
    let first_kept = (round.ok_or(StoreError::NoEvent)? + 1).saturating_sub(keep);
    let mut removed = 0;
    loop {
        let started = Instant::now();
        let step =
            timeout(STEP_TIMEOUT, sqlx::query(REMOVE).bind(first_kept).bind(STEP).execute(&mut connection)).await;
        match step.map_or(Err(StoreError::Unknown(None)), |step| Ok(step?.rows_affected())) {
            Err(StoreError::Contended(_)) => {}
            rows => {
                let rows = rows.with_context(|| format!("broke off after {removed} rows; it may be run again"))?;
                removed += rows;
                progress(removed);
                if rows < STEP {
                    return Ok(removed);
                }
            }
        }
        tokio::time::sleep((started.elapsed() * PAUSE_FACTOR).max(PAUSE_MIN)).await;
    }
}
