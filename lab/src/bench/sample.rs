//! What one measurement found, as `bench.json` keeps it.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::database::Statements;
use crate::load::{Errors, Outcome};
use crate::processes::{Memory, Used};
use crate::speed::SPEED_MIN;

/// One measurement of one scenario in one round.
#[derive(Clone, Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Sample {
    /// What was measured; see `plan`.
    pub scenario: String,
    /// In which round, from 1. What is measured once is in round 0.
    pub round: u32,
    /// Seconds that the rate is taken over; 0 where there is none, and then neither is kept.
    #[serde(skip_serializing_if = "is_zero")]
    pub seconds: f64,
    /// Answers that count, per second.
    #[serde(skip_serializing_if = "is_zero")]
    pub rate: f64,
    /// All answers.
    pub answered: u64,
    /// Coupons issued.
    pub issued: u64,
    /// All answers by status.
    pub by_status: BTreeMap<u16, u64>,
    /// What went wrong below HTTP.
    pub errors: Errors,
    /// Open model: sent late, and never sent.
    pub late: u64,
    /// See above.
    pub unsent: u64,
    /// Milliseconds.
    pub latency: Latency,
    /// Milliseconds from a request's entry to the exclusive right, over all replicas; `None` where nobody waited.
    pub lock_wait_p99: Option<f64>,
    /// Processor seconds by part, the loader too.
    pub cpu_seconds: Used,
    /// The rest of the machine.
    pub quiet: Quiet,
    /// Commands on all lock nodes, the replicas' own probes among them.
    pub redis_commands: u64,
    /// What the database was asked.
    pub mysql: Statements,
    /// By replica.
    pub memory: BTreeMap<String, Memory>,
    /// `POOL_SIZE` of the replicas, where it matters.
    pub pool_size: Option<u32>,
    /// Figures that only this scenario has.
    pub figures: BTreeMap<&'static str, f64>,
    /// Why there is no figure: a broken promise, answers that nobody expected.
    pub broken: Option<String>,
}

/// Milliseconds of the answers that count.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Latency {
    /// Half of them took no longer.
    pub p50: f64,
    /// 99 of 100.
    pub p99: f64,
    /// 999 of 1,000.
    pub p999: f64,
    /// The longest.
    pub max: f64,
}

/// How quiet the machine was: processor seconds of everything that was not measured, and the processors' speed.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Quiet {
    /// All processors together, over the measurement.
    pub all: f64,
    /// Nothing to do.
    pub idle: f64,
    /// Processes that belong neither to the cluster nor to the laboratory, and the kernel on its own account.
    pub others: f64,
    /// Taken away by the host.
    pub stolen: f64,
    /// Mean speed of the processors; 1 is the fastest that the run had seen until then, see `speed`. `None`: nobody looked.
    pub speed: Option<f64>,
}

impl Quiet {
    /// Whether the host made the processors slower than a measurement should have them.
    pub fn is_slowed(&self) -> bool {
        self.slowness() > 1.0 - SPEED_MIN
    }

    /// Share of their speed that the processors did not have.
    pub fn slowness(&self) -> f64 {
        self.speed.map_or(0.0, |speed| 1.0 - speed)
    }
}

impl Sample {
    /// What a load can tell by itself.
    pub fn of(scenario: String, round: u32, outcome: &Outcome) -> Self {
        let [p50, p99, p999, max] = [0.5, 0.99, 0.999, 1.0].map(|quantile| outcome.latency_ms(quantile));
        Self {
            scenario,
            round,
            seconds: outcome.seconds,
            rate: outcome.rate(),
            answered: outcome.answered(),
            issued: outcome.with_status(201),
            by_status: outcome.by_status.iter().copied().collect(),
            errors: outcome.errors,
            late: outcome.late,
            unsent: outcome.unsent,
            latency: Latency { p50, p99, p999, max },
            ..Self::default()
        }
    }

    /// Processor microseconds of a part for each answer; the replicas together are `replicas`.
    pub fn micros(&self, part: &str) -> f64 {
        let seconds: f64 = match part {
            "replicas" => self.cpu_seconds.iter().filter(|(name, _)| name.starts_with("replica-")).map(|it| it.1).sum(),
            "others" => self.quiet.others,
            "idle" => self.quiet.idle,
            part => self.cpu_seconds.get(part).copied().unwrap_or(0.0),
        };
        seconds * 1e6 / count(self.answered.max(1))
    }

    /// The highest that any replica's memory came to.
    pub fn peak_mebibytes(&self) -> Option<f64> {
        self.memory.values().map(|memory| count(memory.peak) / 1_048_576.0).reduce(f64::max)
    }

    /// Share of the answers that were no coupon.
    pub fn refused(&self) -> f64 {
        1.0 - count(self.by_status.get(&201).copied().unwrap_or(0)) / count(self.answered.max(1))
    }

    /// Open model: share of the requests that went late.
    pub fn late_share(&self) -> f64 {
        count(self.late) / count(self.answered.max(1))
    }

    /// So many for each issued coupon, or for each answer where nothing was issued.
    pub fn each(&self, total: u64) -> f64 {
        count(total) / count(if self.issued > 0 { self.issued } else { self.answered.max(1) })
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks so")]
fn is_zero(number: &f64) -> bool {
    *number == 0.0
}

#[expect(clippy::cast_precision_loss, reason = "counts of one measurement")]
fn count(number: u64) -> f64 {
    number as f64
}
