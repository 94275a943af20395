//! What a cell found, as `cell.json` keeps it. Times are in milliseconds unless a name says otherwise.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::plan::{Cell, Shape};
use crate::histogram::Histogram;
use crate::verify::Report;

/// One measured cell.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Found {
    /// Which.
    pub cell: Cell,
    /// When it began, RFC 3339.
    pub started: String,
    /// All of it, the change of the cluster and the fairness run too.
    pub took_seconds: f64,
    /// What was measured; with `+` when the folder differed from it.
    pub commit: String,
    /// The whole measured window.
    pub whole: Part,
    /// The window in equal parts: how much it varies within the run. Empty where the load is one burst.
    pub parts: Vec<Part>,
    /// As k6 saw it, queues of kernel and nginx in it; over the window, or over the whole rush.
    pub client: Times,
    /// k6's answers by what they said, over the same time.
    pub outcomes: BTreeMap<String, u64>,
    /// Requests that k6 sent, over the same time.
    pub sent: u64,
    /// Requests of the open model that k6 could not send, because every virtual user still waited.
    pub dropped: u64,
    /// How the stock of a rush went.
    pub drain: Option<Drain>,
    /// Who used the processors in the window.
    pub processors: Processors,
    /// Orders in one call, on average; `None` where nothing is batched.
    pub batch_size: Option<f64>,
    /// Share of each replica in the issues of the window.
    pub shares: BTreeMap<String, f64>,
    /// "First come".
    pub fairness: Fairness,
    /// Of the tables after the load.
    pub verdict: Verdict,
    /// What k6's own thresholds minded.
    pub remarks: Vec<String>,
}

/// What the replicas counted in a stretch of time.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Part {
    /// How long it was.
    pub seconds: f64,
    /// Coupons a second.
    pub issued: f64,
    /// Answers to issue requests a second.
    pub answered: f64,
    /// From a request's entry to its exclusive right; `None` where nobody waited or the strategy knows no such wait.
    pub lock_wait: Option<Times>,
    /// From a request's head to its answer, at the replica.
    pub latency: Option<Times>,
}

/// Percentiles.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Times {
    /// Half took no longer.
    pub p50: f64,
    /// 95 of 100.
    pub p95: f64,
    /// 99 of 100.
    pub p99: f64,
}

impl Times {
    /// From a histogram of seconds; `None` when it is empty.
    pub fn of(histogram: &Histogram) -> Option<Self> {
        let at = |quantile| histogram.quantile(quantile).map(|seconds| seconds * 1_000.0);
        Some(Self { p50: at(0.5)?, p95: at(0.95)?, p99: at(0.99)? })
    }
}

/// How the stock of a rush went.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Drain {
    /// Coupons issued.
    pub issued: u32,
    /// From the first issue to the last, by the database's clock.
    pub seconds: f64,
    /// Whether nothing was left.
    pub sold_out: bool,
}

/// Processors in use on average: 1.5 is one and a half of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Processors {
    /// How many the machine has.
    pub all: f64,
    /// k6.
    pub generator: f64,
    /// The replicas.
    pub service: f64,
    /// nginx.
    pub proxy: f64,
    /// The database.
    pub database: f64,
    /// The lock nodes.
    pub locks: f64,
    /// Prometheus and the laboratory.
    pub watching: f64,
    /// Everything that belongs to no sweep, and the kernel on its own account.
    pub others: f64,
    /// Taken away by the host.
    pub stolen: f64,
    /// Their mean speed, as a share of the fastest that the sweep had seen until then. `None`: nobody looked.
    #[serde(default)]
    pub speed: Option<f64>,
}

impl Processors {
    /// Those in use, by anybody.
    pub fn busy(&self) -> f64 {
        self.named().iter().map(|(_, used)| used).sum()
    }

    /// Who uses them, in the order of a request's way.
    pub fn named(&self) -> [(&'static str, f64); 8] {
        [
            ("k6", self.generator),
            ("nginx", self.proxy),
            ("replicas", self.service),
            ("database", self.database),
            ("Redis", self.locks),
            ("watching", self.watching),
            ("others", self.others),
            ("host", self.stolen),
        ]
    }
}

/// "First come", measured with many tiny rounds on the same cluster.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Fairness {
    /// Rounds that sold out and refused somebody, so that they can say something.
    pub rounds: usize,
    /// Rounds that were played.
    pub played: usize,
    /// How much later than the first who was refused the last winner had come; `None` without rounds.
    pub jump: Option<Jump>,
    /// Pairs of winners of one coupon of whom the later got the lower serial; `None` without serials.
    pub inversions: Option<Inversions>,
    /// Share of each replica in the issues.
    pub shares: BTreeMap<String, f64>,
    /// The wait for the exclusive right in these rounds.
    pub lock_wait: Option<Times>,
    /// Of the tables after these rounds.
    pub verdict: Verdict,
}

/// Queue-jump over rounds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Jump {
    /// Half of the rounds had no more.
    pub p50: f64,
    /// 95 of 100.
    pub p95: f64,
    /// The most.
    pub max: f64,
}

/// Pairs of winners.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Inversions {
    /// In the wrong order.
    pub inverted: u64,
    /// All of them.
    pub pairs: u64,
}

impl Inversions {
    /// Share of the pairs, 0 to 1.
    #[expect(clippy::cast_precision_loss, reason = "pairs of a few thousand winners")]
    pub fn share(self) -> f64 {
        self.inverted as f64 / self.pairs.max(1) as f64
    }
}

/// What `verify` said.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Verdict {
    /// No promise is broken.
    pub clean: bool,
    /// In words.
    pub text: String,
    /// Decrements that overwrote each other.
    pub lost_updates: i64,
}

impl From<&Report> for Verdict {
    fn from(report: &Report) -> Self {
        Self { clean: report.is_clean(), text: report.verdict(), lost_updates: report.lost_updates() }
    }
}

impl Found {
    /// Coupons a second: in the window; of a rush, while it had stock.
    pub fn throughput(&self) -> f64 {
        match self.drain {
            Some(drain) if drain.seconds > 0.0 => f64::from(drain.issued) / drain.seconds,
            _ => self.whole.issued,
        }
    }

    /// Whether a promise was broken that this strategy means to keep.
    pub fn is_broken(&self) -> bool {
        self.cell.strategy.keeps_promises() && !(self.verdict.clean && self.fairness.verdict.clean)
    }

    /// What is seen of it while the sweep runs.
    pub fn line(&self) -> String {
        let wait = self.whole.lock_wait.map_or("-".to_owned(), |wait| format!("{:.1}", wait.p99));
        let jump = self.fairness.jump.map_or("-".to_owned(), |jump| format!("{:.0}", jump.p95));
        let verdict = match (self.is_broken(), self.verdict.lost_updates) {
            (true, _) => format!("BROKEN: {}", self.verdict.text),
            (false, 0) => "promises kept".to_owned(),
            (false, lost) => format!("{lost} lost updates, as expected"),
        };
        format!(
            "{:<24} {:>6.0}/s issued  p99 {:>7.1} ms  lock wait p99 {wait:>7} ms  queue-jump p95 {jump:>4} ms  {verdict}",
            self.cell.to_string(),
            self.throughput(),
            self.client.p99,
        )
    }

    /// Requests a second that were meant to come, `None` in a closed model.
    pub fn offered(&self, rate: u32) -> Option<f64> {
        (self.cell.shape != Shape::Rush).then(|| f64::from(rate))
    }
}
