//! One lock node hangs for a long time, under a steady load: how many requests notice?

use std::time::Duration;

use anyhow::{Context, ensure};

use crate::admin::Admin;
use crate::load::{Pace, Plan, Requests, Until, Users, load};
use crate::strategy::Strategy;

/// The coupon that is asked for, and more pieces than anybody wants.
pub const CODE: &str = "W-HUNG";
const PIECES: u32 = 1_000_000;
/// Requests per second: far below what the service can do, so that a late answer is the node's fault.
const RATE: f64 = 300.0;
const CONNECTIONS: usize = 200;
/// An answer that takes longer is late.
const LATE: Duration = Duration::from_millis(500);
/// One request at a time behind each lock: slower strategies are asked less often.
const RATE_SINGLE: f64 = 100.0;

/// What was seen, in words, and how many of a hundred requests were not answered with 201 in time, or not at all.
pub struct Hung {
    pub said: String,
    pub late_percent: f64,
}

impl Hung {
    /// Sends a steady load for so long, while a node hangs that somebody else keeps hanging.
    pub async fn measure(admin: &Admin, url: &str, strategy: Strategy, lasts: Duration) -> anyhow::Result<Self> {
        admin.put_coupon(CODE, PIECES).await?;
        let (codes, users) = (vec![CODE.to_owned()], Users::new("hung"));
        let requests = Requests::Issue { codes, users, key: "hung".to_owned() };
        let plan = Plan {
            url: url.to_owned(),
            connections: CONNECTIONS,
            pace: Pace::Open(if strategy == Strategy::Batched { RATE } else { RATE_SINGLE }),
            until: Until::Elapsed(lasts),
            requests,
            expect: vec![201],
            keep_acks: false,
        };
        let outcome = load(plan).await.context("cannot ask while a lock node hangs")?;
        let asked = outcome.answered() + outcome.errors.sum() + outcome.unsent;
        ensure!(outcome.with_status(201) > 0, "nothing was issued while a lock node hung:\n{outcome}");
        let in_time = outcome.latency.count_between(0, u64::try_from(LATE.as_micros())?);
        let (late, p99, max) = (asked.saturating_sub(in_time), outcome.latency_ms(0.99), outcome.latency_ms(1.0));
        let said = format!(
            "one lock node hung for {:.0} s: {late} of {asked} requests had no 201 within {} ms; p99 {p99:.1} ms, max {max:.0} ms",
            lasts.as_secs_f64(),
            LATE.as_millis()
        );
        #[expect(clippy::cast_precision_loss, reason = "counts of one run")]
        let late_percent = 100.0 * late as f64 / asked.max(1) as f64;
        Ok(Self { said, late_percent })
    }
}
