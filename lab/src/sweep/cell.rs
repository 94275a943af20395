//! One cell: a load on the cluster as it is to be, with its verdict.

use std::time::Instant;

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::folder::Folder;
use super::grid::Cell;
use crate::measure::{Sample, Stage, measure, shown};

/// A cell as it was measured, as `cell.json` keeps it.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Measured {
    pub cell: Cell,
    /// When it began, RFC 3339.
    pub started: String,
    /// All of it, the change of the cluster too.
    pub took_seconds: f64,
    /// What was measured; with `+` when the folder differed from it.
    pub commit: String,
    pub sample: Sample,
}

impl Measured {
    /// Measures a cell. What it finds is complete, or the error says why there is none.
    pub async fn now(stage: &mut Stage, cell: Cell, to: &Folder, commit: &str) -> anyhow::Result<Self> {
        let (began, started) = (Instant::now(), OffsetDateTime::now_utc().format(&Rfc3339)?);
        stage.set(&cell.knobs()).await?;
        let evidence = to.of(cell).join("acks.log");
        let sample = measure(stage, &to.grid.settings.load(cell), Some(&evidence)).await?;
        let sample = Sample { scenario: cell.to_string(), ..sample };
        let (commit, took_seconds) = (commit.to_owned(), began.elapsed().as_secs_f64());
        Ok(Self { cell, started, took_seconds, commit, sample })
    }

    /// Whether no promise was broken.
    pub fn is_clean(&self) -> bool {
        self.sample.verdict.as_ref().is_none_or(|verdict| verdict.clean)
    }

    /// Decrements that overwrote each other.
    pub fn lost_updates(&self) -> i64 {
        self.sample.verdict.as_ref().map_or(0, |verdict| verdict.lost_updates)
    }

    /// Whether a promise was broken that this strategy means to keep.
    pub fn is_broken(&self) -> bool {
        self.cell.strategy.keeps_promises() && !self.is_clean()
    }

    /// Whether a strategy that has a lock went on without it: then this is no measurement of it.
    pub fn is_bypassed(&self) -> bool {
        self.sample.bypass().is_some()
    }

    pub fn line(&self) -> String {
        let Self { cell, sample, .. } = self;
        let wait = shown(sample.replicas.lock_wait.map(|wait| wait.p99));
        let jump = sample.queue_jump().map(|jump| format!("queue-jump p95 {:.0} ms  ", jump.p95)).unwrap_or_default();
        let verdict = if self.is_clean() || self.is_broken() {
            sample.broken.clone().unwrap_or("promises kept".to_owned())
        } else {
            format!("{} lost updates, as expected", self.lost_updates())
        };
        let short = sample.short().map(|short| format!("  {short}")).unwrap_or_default();
        format!(
            "{:<38} {:>6.0}/s issued  p99 {:>7.1} ms  lock wait p99 {wait:>7} ms  {jump}{verdict}{short}",
            cell.to_string(),
            sample.replicas.issued,
            sample.latency.p99,
        )
    }
}
