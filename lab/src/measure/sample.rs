//! What one measurement found, as it is kept.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::fairness::Fairness;
use super::histogram::{Histogram, Pages, counter};
use super::numbers::float;
use super::quiet::Quiet;
use super::scenario::Scenario;
use super::stage::{Moment, Stage};
use crate::load::{Errors, Outcome, Pace};
use crate::processes::Used;
use crate::verify::Report;

/// Of so many requests that were due in the window one may go after it: the last ones are due at its very end.
const SHORT_SHARE: f64 = 0.001;

/// One measurement of one scenario in one repeat.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Sample {
    /// What was measured.
    pub scenario: String,
    /// In which repeat, from 1. What is measured once is in repeat 0.
    pub repeat: u32,
    /// Seconds that the rate is taken over; 0 where there is none.
    pub seconds: f64,
    /// Answers that count, per second.
    pub rate: f64,
    /// Open model: requests that were due in the window; `None` in a closed one.
    pub offered: Option<f64>,
    /// Requests that went in the window.
    pub sent: u64,
    /// Open model: sent late, and never sent.
    pub late: u64,
    /// See above.
    pub unsent: u64,
    /// All answers, those that came after the window too.
    pub answered: u64,
    /// Coupons issued.
    pub issued: u64,
    /// All answers by status.
    pub by_status: BTreeMap<u16, u64>,
    /// What went wrong below HTTP.
    pub errors: Errors,
    /// Of the answers that count, as the loader saw it; in an open model from when a request was due.
    pub latency: Times,
    /// What the replicas counted in the window.
    pub replicas: Replicas,
    /// Seconds between the two looks at the counters.
    pub watched: f64,
    /// Processor seconds by part, meanwhile; `loader`, and `laboratory` for the rest of us, too.
    pub cpu_seconds: Used,
    /// The rest of the machine.
    pub quiet: Quiet,
    /// Commands on all lock nodes, the replicas' own probes among them.
    pub redis_commands: u64,
    /// Statements that the database was sent.
    pub statements: u64,
    /// The highest that any replica's memory came to.
    pub peak_mebibytes: Option<f64>,
    /// `POOL_SIZE` of the replicas, where it matters.
    pub pool_size: Option<u32>,
    /// Requests that k6's users were not served: resets, 5xx, unanswered.
    pub unserved: Option<f64>,
    /// What came of contests.
    pub fairness: Option<Fairness>,
    /// Of the tables; `None` where nobody asked for a coupon.
    pub verdict: Option<Verdict>,
    /// Why there is no figure: a broken promise, answers that nobody expected.
    pub broken: Option<String>,
}

/// Milliseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Times {
    /// Half took no longer.
    pub p50: f64,
    /// 95 of 100.
    pub p95: f64,
    /// 99 of 100.
    pub p99: f64,
    /// 999 of 1,000.
    pub p999: f64,
    /// The longest.
    pub max: f64,
}

/// What all replicas counted between two looks at their metrics.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Replicas {
    /// Coupons a second.
    pub issued: f64,
    /// Answers to issue requests a second.
    pub answered: f64,
    /// From a request's entry to its exclusive right; `None` where nobody waited or the strategy knows no such wait.
    pub lock_wait: Option<Times>,
    /// Orders in one call, on average; `None` where nothing is batched.
    pub batch_size: Option<f64>,
    /// Share of each replica in the issues.
    pub shares: BTreeMap<String, f64>,
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

impl Times {
    /// `at` says which time a share of all did not exceed.
    fn of(at: impl Fn(f64) -> Option<f64>) -> Option<Self> {
        Some(Self { p50: at(0.5)?, p95: at(0.95)?, p99: at(0.99)?, p999: at(0.999)?, max: at(1.0)? })
    }
}

impl Replicas {
    fn between(before: &Pages, after: &Pages, seconds: f64) -> Self {
        let sum = |name: &str, labels: &[&str]| {
            let of = |pages: &Pages| pages.values().map(|page| counter(page, name, labels)).sum::<f64>();
            of(after) - of(before)
        };
        let waits = Histogram::between(before, after, "coupon_lock_wait_seconds", "result=\"granted\"");
        let batches = sum("coupon_batch_size_count", &[]);
        Self {
            issued: sum("coupon_issue_total", &[ISSUED]) / seconds,
            answered: sum("coupon_issue_total", &[]) / seconds,
            lock_wait: Times::of(|quantile| waits.quantile(quantile).map(|seconds| seconds * 1_000.0)),
            batch_size: (batches > 0.0).then(|| sum("coupon_batch_size_sum", &[]) / batches),
            shares: shares(before, after),
        }
    }
}

const ISSUED: &str = "outcome=\"issued\"";

/// Each replica's share in the issues between two looks; empty when nothing was issued.
fn shares(before: &Pages, after: &Pages) -> BTreeMap<String, f64> {
    let count = |page: &String| counter(page, "coupon_issue_total", &[ISSUED]);
    let since = |(name, page): (&String, &String)| (name.clone(), count(page) - before.get(name).map_or(0.0, count));
    let issued: BTreeMap<String, f64> = after.iter().map(since).collect();
    let sum: f64 = issued.values().sum();
    issued.into_iter().filter(|_| sum > 0.0).map(|(name, issued)| (name, issued / sum)).collect()
}

impl Sample {
    /// What a load can tell by itself.
    pub fn of(scenario: &Scenario, outcome: &Outcome) -> Self {
        let offered = match scenario.pace {
            Pace::Closed => None,
            Pace::Open(rate) => Some((rate * outcome.seconds).floor()),
        };
        Self {
            scenario: scenario.name.clone(),
            seconds: outcome.seconds,
            rate: outcome.rate(),
            offered,
            sent: outcome.sent,
            late: outcome.late,
            unsent: outcome.unsent,
            answered: outcome.answered(),
            issued: outcome.with_status(201),
            by_status: outcome.by_status.clone(),
            errors: outcome.errors,
            latency: Times::of(|quantile| Some(outcome.latency_ms(quantile))).unwrap_or_default(),
            ..Self::default()
        }
    }

    /// Adds what all counters say, of which the load itself used `loader` seconds of a processor.
    pub fn count(&mut self, stage: &Stage, before: &Moment, after: &Moment, loader: f64) -> anyhow::Result<()> {
        self.watched = (after.at - before.at).as_secs_f64();
        self.replicas = Replicas::between(&before.pages, &after.pages, self.watched);
        self.cpu_seconds = after.used.clone();
        for (part, used) in &mut self.cpu_seconds {
            *used -= before.used.get(part).copied().unwrap_or(0.0);
        }
        let parts: f64 = self.cpu_seconds.values().sum();
        let (machine, own) = (after.machine.since(before.machine), after.own - before.own);
        self.quiet = Quiet {
            all: machine.all,
            idle: machine.idle,
            others: (machine.all - machine.idle - machine.stolen - parts - own).max(0.0),
            stolen: machine.stolen,
            speed: stage.speed(before, after),
        };
        self.cpu_seconds.insert("loader".to_owned(), loader);
        self.cpu_seconds.insert("laboratory".to_owned(), (own - loader).max(0.0));
        self.peak_mebibytes = stage.parts().peak()?.map(|bytes| float(bytes) / 1_048_576.0);
        let (redis, mysql) = after.asked.since(before.asked, stage.cluster().redis.len());
        (self.redis_commands, self.statements) = (redis, mysql.questions);
        Ok(())
    }

    /// Processor seconds of a part; the replicas together are `replicas`.
    pub fn cpu(&self, part: &str) -> f64 {
        match part {
            "replicas" => self.cpu_seconds.iter().filter(|(name, _)| name.starts_with("replica-")).map(|it| it.1).sum(),
            "others" => self.quiet.others,
            "idle" => self.quiet.idle,
            "host" => self.quiet.stolen,
            "watching" => self.cpu("prometheus") + self.cpu("laboratory"),
            part => self.cpu_seconds.get(part).copied().unwrap_or(0.0),
        }
    }

    /// Answers with one of these statuses.
    pub fn with_status(&self, statuses: &[u16]) -> u64 {
        statuses.iter().filter_map(|status| self.by_status.get(status)).sum()
    }

    /// Share of the answers that were no coupon.
    pub fn refused(&self) -> f64 {
        1.0 - float(self.issued) / float(self.answered.max(1))
    }

    /// Open model: share of the requests that went late.
    pub fn late_share(&self) -> f64 {
        float(self.late) / float(self.answered.max(1))
    }

    /// So many for each issued coupon, or for each answer where nothing was issued.
    pub fn each(&self, total: u64) -> f64 {
        float(total) / float(if self.issued > 0 { self.issued } else { self.answered.max(1) })
    }

    /// Why it is no measurement of what was offered, in words; `None` when all of that went in time.
    pub fn short(&self) -> Option<String> {
        let offered = self.offered?;
        let missing = offered - float(self.sent);
        let is_short = self.unsent > 0 || missing > offered * SHORT_SHARE;
        is_short.then(|| format!("SHORT: {} of {offered} requests went in time, {} never", self.sent, self.unsent))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_load_that_fell_behind_says_so() {
        let of = |offered, sent, unsent| Sample { offered, sent, unsent, ..Sample::default() }.short();

        assert_eq!(of(Some(12_000.0), 11_999, 0), None);
        assert_eq!(of(None, 7, 0), None, "nothing is offered in a closed model");
        assert!(of(Some(12_000.0), 11_000, 0).is_some());
        assert!(of(Some(12_000.0), 11_999, 1).is_some());
    }

    #[test]
    fn shares_add_up_to_one() {
        let page = |issued| format!("coupon_issue_total{{outcome=\"issued\"}} {issued}\n");
        let pages =
            |one, other| Pages::from([("replica-1".to_owned(), page(one)), ("replica-2".to_owned(), page(other))]);

        let found = shares(&pages(70, 90), &pages(100, 100));

        assert_eq!(found, BTreeMap::from([("replica-1".to_owned(), 0.75), ("replica-2".to_owned(), 0.25)]));
        assert_eq!(shares(&pages(7, 9), &pages(7, 9)), BTreeMap::new());
    }
}
