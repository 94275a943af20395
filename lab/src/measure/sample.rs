//! What one measurement found, as it is kept.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::fairness::Fairness;
use super::histogram::{Histogram, Pages, counted};
use super::quiet::Quiet;
use super::stage::{Moment, Stage};
use crate::load::{Errors, Outcome, Pace};
use crate::numbers::float;
use crate::processes::Used;

/// Of so many requests that were due in the window one may go after it: the last ones are due at its very end.
const SHORT_SHARE: f64 = 0.001;

/// One measurement of one scenario in one repeat.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Sample {
    pub scenario: String,
    /// From 1. What is measured once is in repeat 0.
    pub repeat: u32,
    /// Seconds that the rate is taken over; 0 where there is none.
    pub seconds: f64,
    pub rate: f64,
    /// Open model: requests that were due in the window; `None` in a closed one.
    pub offered: Option<f64>,
    /// Requests that went in the window.
    pub sent: u64,
    /// Open model: sent late, and never sent.
    pub late: u64,
    pub unsent: u64,
    /// All answers, those that came after the window too.
    pub answered: u64,
    pub issued: u64,
    pub by_status: BTreeMap<u16, u64>,
    pub errors: Errors,
    /// Of the answers that count, as the loader saw it; in an open model from when a request was due. `None` without any.
    pub latency: Option<Times>,
    pub replicas: Replicas,
    /// Seconds between the two looks at the counters.
    pub watched: f64,
    /// Processor seconds by part, meanwhile; `loader`, and `laboratory` for the rest of us, too.
    pub cpu_seconds: Used,
    /// Seconds that each replica stood still meanwhile, because it had used up its share of the processors; empty where it has none.
    pub throttled: Used,
    pub quiet: Quiet,
    /// Commands on all lock nodes, the replicas' own probes among them.
    pub redis_commands: u64,
    pub statements: u64,
    /// The highest that any replica's memory came to.
    pub peak_mebibytes: Option<f64>,
    /// Those of the cluster that its scenario asked for.
    pub knobs: BTreeMap<String, String>,
    /// Requests that k6's users were not served: resets, 5xx, unanswered.
    pub unserved: Option<f64>,
    pub fairness: Option<Fairness>,
    /// Seconds without an issue, at most, where something was broken to see that.
    pub longest_gap: Option<f64>,
    /// Of the tables; `None` where nobody asked for a coupon.
    pub verdict: Option<Verdict>,
    /// Why there is no figure: a broken promise, answers that nobody expected, a lock that was bypassed.
    pub broken: Option<String>,
}

/// Milliseconds that a share of all did not exceed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Times {
    pub p50: f64,
    pub p95: f64,
    pub p99: f64,
    pub p999: f64,
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
    /// Batches that were settled without the lock.
    pub bypassed: f64,
    /// Looks at a lock node that found it of no use.
    pub missed_looks: f64,
    /// Share of each replica in the issues; empty when nothing was issued.
    pub shares: BTreeMap<String, f64>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Verdict {
    pub clean: bool,
    pub text: String,
    pub lost_updates: i64,
}

fn since(then: &Used, now: &Used) -> Used {
    now.iter().map(|(part, used)| (part.clone(), used - then.get(part).copied().unwrap_or(0.0))).collect()
}

impl Times {
    pub fn of(at: impl Fn(f64) -> Option<f64>) -> Option<Self> {
        Some(Self { p50: at(0.5)?, p95: at(0.95)?, p99: at(0.99)?, p999: at(0.999)?, max: at(1.0)? })
    }
}

impl Replicas {
    fn between(before: &Pages, after: &Pages, seconds: f64) -> Self {
        let sum = |name, label| counted(before, after, name, label).values().sum::<f64>();
        let by_replica = counted(before, after, "coupon_issue_total", "outcome=\"issued\"");
        let (issued, batches) = (by_replica.values().sum::<f64>(), sum("coupon_batch_size_count", ""));
        let waits = Histogram::between(before, after, "coupon_lock_wait_seconds", "result=\"granted\"");
        Self {
            issued: issued / seconds,
            answered: sum("coupon_issue_total", "") / seconds,
            lock_wait: Times::of(|quantile| waits.quantile(quantile).map(|seconds| seconds * 1_000.0)),
            bypassed: sum("coupon_lock_bypassed_total", ""),
            missed_looks: sum("coupon_redis_refusals_total", ""),
            batch_size: (batches > 0.0).then(|| sum("coupon_batch_size_sum", "") / batches),
            shares: by_replica.into_iter().filter(|_| issued > 0.0).map(|(name, it)| (name, it / issued)).collect(),
        }
    }
}

impl Sample {
    /// What a load can tell by itself.
    pub fn of(pace: Pace, outcome: &Outcome) -> Self {
        let offered = match pace {
            Pace::Closed => None,
            Pace::Open(rate) => Some((rate * outcome.seconds).floor()),
        };
        Self {
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
            latency: Times::of(|quantile| (!outcome.latency.is_empty()).then(|| outcome.latency_ms(quantile))),
            ..Self::default()
        }
    }

    /// Adds what all counters say, of which the load itself used `loader` seconds of a processor.
    pub fn count(&mut self, stage: &Stage, before: &Moment, after: &Moment, loader: f64) -> anyhow::Result<()> {
        self.watched = (after.at - before.at).as_secs_f64();
        self.replicas = Replicas::between(&before.pages, &after.pages, self.watched);
        self.cpu_seconds = since(&before.used, &after.used);
        self.throttled = since(&before.throttled, &after.throttled);
        let parts: f64 = self.cpu_seconds.values().sum();
        let (machine, own) = (after.machine.since(before.machine), after.own - before.own);
        self.quiet = Quiet {
            all: machine.all,
            idle: machine.idle,
            others: (machine.all - machine.idle - machine.stolen - parts - own).max(0.0),
            stolen: machine.stolen,
            speed: stage.gauge.between(before.mark..after.mark),
        };
        self.cpu_seconds.insert("loader".to_owned(), loader);
        self.cpu_seconds.insert("laboratory".to_owned(), (own - loader).max(0.0));
        self.peak_mebibytes = stage.parts.peak()?.map(|bytes| float(bytes) / 1_048_576.0);
        // Without what the asking itself cost.
        self.redis_commands = (after.commands - before.commands).saturating_sub(stage.cluster.redis.len() as u64);
        self.statements = (after.statements - before.statements).saturating_sub(1);
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

    pub fn queue_jump(&self) -> Option<Times> {
        self.fairness.as_ref()?.queue_jump
    }

    pub fn with_status(&self, statuses: &[u16]) -> u64 {
        statuses.iter().filter_map(|status| self.by_status.get(status)).sum()
    }

    /// So many for each issued coupon, or for each answer where nothing was issued.
    pub fn each(&self, total: u64) -> f64 {
        float(total) / float(if self.issued > 0 { self.issued } else { self.answered.max(1) })
    }

    /// Why it is no measurement of a strategy that has a lock, in words; `None` when the lock was held for every batch.
    pub fn bypass(&self) -> Option<String> {
        let bypassed = self.replicas.bypassed;
        (bypassed > 0.0).then(|| format!("WITHOUT THE LOCK: {bypassed} batches were settled so"))
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
    fn a_bypass_between_the_looks_fails_the_sample_and_one_before_does_not() {
        let page = |of_grant: u32| {
            let series = |reason, count| format!("coupon_lock_bypassed_total{{reason=\"{reason}\"}} {count}\n");
            Pages::from([("replica-1".to_owned(), series("no-quorum", 5) + &series("no-grant", of_grant))])
        };
        let bypass = |before, after| {
            let replicas = Replicas::between(&page(before), &page(after), 1.0);
            Sample { replicas, ..Sample::default() }.bypass()
        };

        assert_eq!(bypass(2, 2), None);
        assert_eq!(bypass(2, 5).as_deref(), Some("WITHOUT THE LOCK: 3 batches were settled so"));
    }

    #[test]
    fn shares_add_up_to_one() {
        let page = |(name, issued): (&str, u32)| {
            (name.to_owned(), format!("coupon_issue_total{{outcome=\"issued\"}} {issued}\n"))
        };
        let pages = |one, other| Pages::from([("one", one), ("other", other)].map(page));
        let shares = |before: Pages| Replicas::between(&before, &pages(100, 100), 1.0).shares;

        assert_eq!(shares(pages(70, 90)), BTreeMap::from([("one".to_owned(), 0.75), ("other".to_owned(), 0.25)]));
        assert!(shares(pages(100, 100)).is_empty());
    }
}
