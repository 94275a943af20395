//! One lock node hangs for a long time, under a steady load: how many requests notice?

use std::fmt::{self, Display, Formatter};
use std::time::Duration;

use anyhow::{Context, ensure};
use serde::Serialize;

use crate::admin::Admin;
use crate::load::{Pace, Plan, Requests, Until, Users, load};
use crate::strategy::Strategy;

/// The coupon that is asked for, and more pieces than anybody wants.
const CODE: &str = "W-HUNG";
const PIECES: u32 = 1_000_000;
/// Requests per second: far below what the service can do, so that a late answer is the node's fault.
const RATE: f64 = 300.0;
const CONNECTIONS: usize = 200;
/// An answer that takes longer is late.
const LATE: Duration = Duration::from_millis(500);
/// One request at a time behind each lock: slower strategies are asked less often.
const RATE_SINGLE: f64 = 100.0;

/// What was seen.
#[derive(Clone, Copy, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Hung {
    pub seconds: f64,
    pub asked: u64,
    /// Those that were not answered with 201 within half a second of when they were due, or not at all.
    pub late: u64,
    /// 99 of 100 were answered within so many milliseconds.
    pub p99_ms: f64,
    pub max_ms: f64,
}

impl Hung {
    /// Sends a steady load for so long, while a node hangs that somebody else keeps hanging.
    pub async fn measure(admin: &Admin, url: &str, strategy: Strategy, lasts: Duration) -> anyhow::Result<Self> {
        admin.put_coupon(CODE, PIECES).await?;
        let plan = Plan {
            url: url.to_owned(),
            connections: CONNECTIONS,
            pace: Pace::Open(if strategy == Strategy::Batched { RATE } else { RATE_SINGLE }),
            until: Until::Elapsed(lasts),
            requests: Requests::Issue {
                codes: vec![CODE.to_owned()],
                users: Users::New { prefix: "hung".to_owned() },
                key: "hung".to_owned(),
            },
            expect: vec![201],
            keep_acks: false,
        };
        let outcome = load(plan).await.context("cannot ask while a lock node hangs")?;
        let asked = outcome.answered() + outcome.errors.sum() + outcome.unsent;
        ensure!(outcome.with_status(201) > 0, "nothing was issued while a lock node hung:\n{outcome}");
        let in_time = outcome.latency.count_between(0, u64::try_from(LATE.as_micros())?);
        let (p99_ms, max_ms) = (outcome.latency_ms(0.99), outcome.latency_ms(1.0));
        Ok(Self { seconds: lasts.as_secs_f64(), asked, late: asked.saturating_sub(in_time), p99_ms, max_ms })
    }

    /// How many of a hundred were late.
    #[expect(clippy::cast_precision_loss, reason = "counts of one run")]
    pub fn late_percent(self) -> f64 {
        100.0 * self.late as f64 / self.asked.max(1) as f64
    }
}

impl Display for Hung {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> fmt::Result {
        let Self { seconds, asked, late, p99_ms, max_ms } = self;
        write!(
            formatter,
            "one lock node hung for {seconds:.0} s: {late} of {asked} requests had no 201 within {} ms; p99 {p99_ms:.1} ms, \
             max {max_ms:.0} ms",
            LATE.as_millis()
        )
    }
}
