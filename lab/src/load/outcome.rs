//! What became of a load: answers by status, how long they took, and what clients were promised.

use std::collections::BTreeMap;
use std::fmt::{self, Display, Formatter};
use std::io;
use std::time::{Duration, Instant};

use anyhow::Context;
use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

use super::{Plan, Until};
use crate::numbers::float;
use crate::verify::Ack;

/// Latencies are kept in microseconds with three digits, up to a minute.
const LATENCY_MAX_MICROS: u64 = 60_000_000;
const DIGITS: u8 = 3;

/// What became of a load.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// Seconds that the rate is taken over.
    pub seconds: f64,
    /// Expected answers that came within them.
    pub answers: u64,
    /// All answers, also those that came after the end.
    pub by_status: BTreeMap<u16, u64>,
    /// Microseconds of the expected answers, and of the requests that were never sent: so long they would have waited
    /// at the least.
    pub latency: Histogram<u64>,
    /// The longest time within [`Outcome::seconds`] without an expected answer.
    pub longest_gap: Duration,
    /// What went wrong below HTTP.
    pub errors: Errors,
    /// Requests that went within [`Outcome::seconds`]; in an open model fewer than were due when the load fell behind.
    pub sent: u64,
    /// Open model: requests that went over a millisecond after they were due.
    pub late: u64,
    /// Open model: requests that were due and never went, because no connection became free.
    pub unsent: u64,
    /// Processor time that the load itself used.
    pub cpu_seconds: f64,
    promised: Vec<u8>,
}

/// What went wrong below HTTP.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Errors {
    /// Before the answer.
    pub(crate) closed: u64,
    pub(crate) malformed: u64,
    /// New connections.
    pub(crate) refused: u64,
    /// When patience ended.
    pub(crate) unanswered: u64,
}

impl Errors {
    /// All of them.
    pub fn sum(&self) -> u64 {
        self.closed + self.malformed + self.refused + self.unanswered
    }
}

impl Outcome {
    /// Expected answers per second.
    pub fn rate(&self) -> f64 {
        float(self.answers) / self.seconds
    }

    /// All answers.
    pub fn answered(&self) -> u64 {
        self.by_status.values().sum()
    }

    /// Answers with this status.
    pub fn with_status(&self, status: u16) -> u64 {
        self.by_status.get(&status).copied().unwrap_or(0)
    }

    /// The latency that this share of the requests did not exceed, in milliseconds.
    pub fn latency_ms(&self, quantile: f64) -> f64 {
        float(self.latency.value_at_quantile(quantile)) / 1_000.0
    }

    /// The coupons that clients were promised, with 201 or 200.
    pub fn acks(&self) -> anyhow::Result<Vec<Ack>> {
        let entries = serde_json::Deserializer::from_slice(&self.promised).into_iter();
        entries.collect::<Result<_, _>>().context("a 201 or 200 carried no wallet entry")
    }

    /// The same, as they came: one JSON entry after the other.
    pub fn promised(&self) -> &[u8] {
        &self.promised
    }
}

impl Display for Outcome {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Self { seconds, answers, by_status, errors, late, unsent, cpu_seconds, .. } = self;
        writeln!(f, "{answers} answers in {seconds:.2} s: {:.0}/s", self.rate())?;
        let statuses: Vec<_> = by_status.iter().map(|(status, count)| format!("{status}: {count}")).collect();
        writeln!(f, "statuses  {}", statuses.join(", "))?;
        let Errors { closed, malformed, refused, unanswered } = errors;
        writeln!(f, "errors    {closed} closed, {malformed} malformed, {refused} refused, {unanswered} unanswered")?;
        if *late + *unsent > 0 {
            writeln!(f, "open      {late} late, {unsent} never sent")?;
        }
        let [p50, p99, p999, max] = [0.5, 0.99, 0.999, 1.0].map(|quantile| self.latency_ms(quantile));
        writeln!(f, "latency   p50 {p50:.2} ms, p99 {p99:.2} ms, p99.9 {p999:.2} ms, max {max:.2} ms")?;
        let each = cpu_seconds * 1e6 / float(self.answered().max(1));
        write!(f, "loader    {cpu_seconds:.2} s of one processor, {each:.1} µs a request")
    }
}

/// Counts while the load runs. Every `from` is when a request's latency begins.
pub(super) struct Tally {
    expect: Vec<u16>,
    keep_acks: bool,
    /// Requests before this are not counted.
    start: Instant,
    /// Answers after this time are not in the rate.
    window: Option<Duration>,
    last: Instant,
    /// When an expected answer last came.
    last_expected: Instant,
    /// Requests that were sent and are not answered yet.
    under_way: u64,
    pub(super) outcome: Outcome,
}

impl Tally {
    pub(super) fn new(plan: &Plan, start: Instant) -> Self {
        let window = match plan.until {
            Until::Elapsed(time) => Some(time),
            Until::Sent(_) => None,
        };
        let outcome = Outcome {
            seconds: 0.0,
            answers: 0,
            by_status: BTreeMap::new(),
            latency: Histogram::new_with_max(LATENCY_MAX_MICROS, DIGITS).expect("these bounds are valid"),
            longest_gap: Duration::ZERO,
            errors: Errors::default(),
            sent: 0,
            late: 0,
            unsent: 0,
            cpu_seconds: 0.0,
            promised: Vec::new(),
        };
        let (expect, keep_acks) = (plan.expect.clone(), plan.keep_acks);
        Self { expect, keep_acks, start, window, last: start, last_expected: start, under_way: 0, outcome }
    }

    pub(super) fn sent(&mut self, from: Instant) {
        if from >= self.start {
            self.under_way += 1;
            self.outcome.sent += u64::from(self.is_in_window(Instant::now()));
        }
    }

    fn is_in_window(&self, now: Instant) -> bool {
        self.window.is_none_or(|window| now <= self.start + window)
    }

    pub(super) fn answer(&mut self, status: u16, body: &[u8], from: Instant) {
        if self.keep_acks && matches!(status, 200 | 201) {
            self.outcome.promised.extend_from_slice(body);
            self.outcome.promised.push(b'\n');
        }
        if from < self.start {
            return;
        }
        self.last = Instant::now();
        self.under_way -= 1;
        *self.outcome.by_status.entry(status).or_default() += 1;
        if self.expect.contains(&status) {
            self.outcome.answers += u64::from(self.is_in_window(self.last));
            self.outcome.longest_gap = self.outcome.longest_gap.max(self.last - self.last_expected);
            self.last_expected = self.last;
            self.waited(self.last - from);
        }
    }

    fn waited(&mut self, time: Duration) {
        self.outcome.latency.saturating_record(u64::try_from(time.as_micros()).unwrap_or(u64::MAX));
    }

    pub(super) fn broken(&mut self, error: &io::Error, from: Instant) {
        if from < self.start {
            return;
        }
        self.under_way -= 1;
        match error.kind() {
            io::ErrorKind::InvalidData => self.outcome.errors.malformed += 1,
            _ => self.outcome.errors.closed += 1,
        }
    }

    /// What was counted. `unsent` are the moments at which the requests were due that never went.
    pub(super) fn finish(&mut self, unsent: impl Iterator<Item = Instant>, late: u64, cpu_seconds: f64) -> Outcome {
        let now = Instant::now();
        for due in unsent {
            self.waited(now - due);
            self.outcome.unsent += 1;
        }
        let took = self.window.unwrap_or(self.last - self.start);
        // What never came to itself again has no answer that would end the time without one.
        let silent = (self.start + took).saturating_duration_since(self.last_expected);
        let longest_gap = self.outcome.longest_gap.max(silent);
        let seconds = took.as_secs_f64().max(f64::EPSILON);
        let errors = Errors { unanswered: self.under_way, ..self.outcome.errors };
        Outcome { seconds, longest_gap, errors, late, cpu_seconds, ..self.outcome.clone() }
    }
}
