//! One cell: a load on the cluster as it is to be, with its verdict.

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::folder::Folder;
use super::grid::Cell;
use crate::measure::{Sample, Stage, measure};
use crate::numbers::shown;

/// A cell as it was measured, as `cell.json` keeps it.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Measured {
    pub cell: Cell,
    /// When it began, RFC 3339.
    pub started: String,
    /// What was measured; with `+` when the folder differed from it.
    pub commit: String,
    pub sample: Sample,
}

impl Measured {
    /// Measures a cell. What it finds is complete, or the error says why there is none.
    pub async fn now(stage: &mut Stage, cell: Cell, to: &Folder, commit: &str) -> anyhow::Result<Self> {
        let started = OffsetDateTime::now_utc().format(&Rfc3339)?;
        stage.set(&cell.knobs()).await?;
        let evidence = to.of(cell).join("acks.log");
        let sample = measure(stage, &to.grid.settings.load(cell), Some(&evidence)).await?;
        Ok(Self { cell, started, commit: commit.to_owned(), sample: Sample { scenario: cell.to_string(), ..sample } })
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

    pub fn line(&self) -> String {
        let Self { cell, sample, .. } = self;
        let [latency, wait] = [sample.latency, sample.replicas.lock_wait].map(|times| shown(times.map(|it| it.p99)));
        let jump = sample.queue_jump().map(|jump| format!("queue-jump p95 {:.0} ms  ", jump.p95)).unwrap_or_default();
        let verdict = if self.is_clean() || self.is_broken() {
            sample.broken.clone().unwrap_or("promises kept".to_owned())
        } else {
            format!("{} lost updates, as expected", self.lost_updates())
        };
        let short = sample.short().map(|short| format!("  {short}")).unwrap_or_default();
        format!(
            "{cell:<38} {:>6.0}/s issued  p99 {latency:>7} ms  lock wait p99 {wait:>7} ms  {jump}{verdict}{short}",
            sample.replicas.issued,
        )
    }
}
