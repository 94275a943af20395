//! One cell: a load on the cluster as it is to be, then tiny coupons that are fought for, each with its own verdict.

use std::time::Instant;

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::folder::Folder;
use super::grid::{Cell, Shape};
use crate::database;
use crate::measure::{Sample, Stage, Verdict, measure, shown};

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
    pub load: Sample,
    pub sell_out: Option<SellOut>,
    pub contests: Sample,
}

#[derive(Clone, Copy, Serialize, Deserialize)]
pub struct SellOut {
    pub issued: u32,
    /// From the first issue to the last, by the database's clock.
    pub seconds: f64,
}

impl Measured {
    /// Measures a cell. What it finds is complete, or the error says why there is none.
    pub async fn now(stage: &mut Stage, cell: Cell, to: &Folder, commit: &str) -> anyhow::Result<Self> {
        let (settings, folder) = (&to.grid.settings, to.of(cell));
        let (began, started) = (Instant::now(), OffsetDateTime::now_utc().format(&Rfc3339)?);
        stage.set(&cell.knobs()).await?;
        let scenario = settings.load(cell.shape, stage.seeded().await?);
        let load = measure(stage, &scenario, Some(&folder.join("acks.log"))).await?;
        let load = Sample { scenario: cell.to_string(), ..load };
        let mut sell_out = None;
        if cell.shape == Shape::Rush {
            let (issued, time) = database::drain(&mut stage.database).await?;
            sell_out = Some(SellOut { issued, seconds: time.as_secs_f64() });
        }
        let contests = measure(stage, &settings.fought(), Some(&folder.join("acks-of-contests.log"))).await?;
        let contests = Sample { scenario: "contests".to_owned(), ..contests };
        let (commit, took_seconds) = (commit.to_owned(), began.elapsed().as_secs_f64());
        Ok(Self { cell, started, took_seconds, commit, load, sell_out, contests })
    }

    /// Coupons a second: in the window; of a rush, while it had stock.
    pub fn throughput(&self) -> f64 {
        match self.sell_out {
            Some(SellOut { issued, seconds }) if seconds > 0.0 => f64::from(issued) / seconds,
            _ => self.load.replicas.issued,
        }
    }

    /// Whether no promise was broken, in the load and in the contests.
    pub fn is_clean(&self) -> bool {
        self.verdicts().all(|verdict| verdict.clean)
    }

    /// Decrements that overwrote each other.
    pub fn lost_updates(&self) -> i64 {
        self.verdicts().map(|verdict| verdict.lost_updates).sum()
    }

    fn verdicts(&self) -> impl Iterator<Item = &Verdict> {
        [&self.load, &self.contests].into_iter().filter_map(|sample| sample.verdict.as_ref())
    }

    /// Whether a promise was broken that this strategy means to keep.
    pub fn is_broken(&self) -> bool {
        self.cell.strategy.keeps_promises() && !self.is_clean()
    }

    pub fn line(&self) -> String {
        let wait = shown(self.load.replicas.lock_wait.map(|wait| wait.p99));
        let jump = shown(self.contests.queue_jump().map(|jump| jump.p95));
        let broken = self.verdicts().find(|verdict| !verdict.clean);
        let verdict = match (broken, self.is_broken()) {
            (None, _) => self.load.broken.clone().unwrap_or("promises kept".to_owned()),
            (Some(verdict), true) => verdict.text.clone(),
            (Some(_), false) => format!("{} lost updates, as expected", self.lost_updates()),
        };
        let short = self.load.short().map(|short| format!("  {short}")).unwrap_or_default();
        format!(
            "{:<24} {:>6.0}/s issued  p99 {:>7.1} ms  lock wait p99 {wait:>7} ms  queue-jump p95 {jump:>4} ms  {verdict}{short}",
            self.cell.to_string(),
            self.throughput(),
            self.load.latency.p99,
        )
    }
}
