//! What became of a load: answers by status, how long they took, and what clients were promised.

use std::fmt::{self, Display, Formatter};
use std::time::{Duration, Instant};

use anyhow::Context;
use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

use super::connection::Broken;
use crate::verify::Ack;

/// One more than the highest status.
const STATUSES: usize = 600;
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
    pub by_status: Vec<(u16, u64)>,
    /// Microseconds of the expected answers, and of the requests that were never sent: so long they would have waited
    /// at the least.
    pub latency: Histogram<u64>,
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
    /// The connection ended before the answer.
    pub closed: u64,
    /// What came was no answer.
    pub malformed: u64,
    /// A new connection was refused.
    pub refused: u64,
    /// Nothing had come when patience ended.
    pub unanswered: u64,
}

impl Errors {
    /// All of them.
    pub fn sum(&self) -> u64 {
        self.closed + self.malformed + self.refused + self.unanswered
    }
}

impl Outcome {
    /// Expected answers per second.
    #[expect(clippy::cast_precision_loss, reason = "counts of one run")]
    pub fn rate(&self) -> f64 {
        self.answers as f64 / self.seconds
    }

    /// All answers.
    pub fn answered(&self) -> u64 {
        self.by_status.iter().map(|(_, count)| count).sum()
    }

    /// Answers with this status.
    pub fn with_status(&self, status: u16) -> u64 {
        self.by_status.iter().find(|(it, _)| *it == status).map_or(0, |(_, count)| *count)
    }

    /// The latency that this share of the requests did not exceed, in milliseconds.
    #[expect(clippy::cast_precision_loss, reason = "at most a minute")]
    pub fn latency_ms(&self, quantile: f64) -> f64 {
        self.latency.value_at_quantile(quantile) as f64 / 1_000.0
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
        #[expect(clippy::cast_precision_loss, reason = "counts of one run")]
        let each = cpu_seconds * 1e6 / (self.answered().max(1) as f64);
        write!(f, "loader    {cpu_seconds:.2} s of one processor, {each:.1} µs a request")
    }
}

/// Counts while the load runs.
pub(super) struct Tally {
    expect: Vec<u16>,
    keep_acks: bool,
    /// Requests before this are not counted.
    start: Instant,
    /// Answers after this time are not in the rate.
    window: Option<Duration>,
    last: Option<Instant>,
    sent: u64,
    sent_in_window: u64,
    answered: u64,
    in_window: u64,
    by_status: Vec<u64>,
    latency: Histogram<u64>,
    errors: Errors,
    promised: Vec<u8>,
}

impl Tally {
    pub(super) fn new(expect: &[u16], keep_acks: bool, start: Instant, window: Option<Duration>) -> Self {
        let latency = Histogram::new_with_max(LATENCY_MAX_MICROS, DIGITS).expect("these bounds are valid");
        Self {
            expect: expect.to_vec(),
            keep_acks,
            start,
            window,
            last: None,
            sent: 0,
            sent_in_window: 0,
            answered: 0,
            in_window: 0,
            by_status: vec![0; STATUSES],
            latency,
            errors: Errors::default(),
            promised: Vec::new(),
        }
    }

    /// `from` is when a request's latency begins, here and below.
    pub(super) fn sent(&mut self, from: Instant) {
        if from >= self.start {
            self.sent += 1;
            self.sent_in_window += u64::from(self.is_in_window(Instant::now()));
        }
    }

    fn is_in_window(&self, now: Instant) -> bool {
        self.window.is_none_or(|window| now <= self.start + window)
    }

    pub(super) fn answered(&self) -> u64 {
        self.answered
    }

    pub(super) fn answer(&mut self, status: u16, body: &[u8], from: Instant) {
        if self.keep_acks && matches!(status, 200 | 201) {
            self.promised.extend_from_slice(body);
            self.promised.push(b'\n');
        }
        if from < self.start {
            return;
        }
        let now = Instant::now();
        self.answered += 1;
        self.last = Some(now);
        if let Some(count) = self.by_status.get_mut(usize::from(status)) {
            *count += 1;
        }
        if self.expect.contains(&status) {
            self.in_window += u64::from(self.is_in_window(now));
            self.waited(now - from);
        }
    }

    /// A request took, or had to wait, so long.
    pub(super) fn waited(&mut self, time: Duration) {
        self.latency.saturating_record(u64::try_from(time.as_micros()).unwrap_or(u64::MAX));
    }

    pub(super) fn broken(&mut self, broken: &Broken, from: Instant) {
        if from < self.start {
            return;
        }
        match broken {
            Broken::Closed => self.errors.closed += 1,
            Broken::Malformed => self.errors.malformed += 1,
        }
    }

    pub(super) fn refused(&mut self) {
        self.errors.refused += 1;
    }

    /// What was counted; nothing of it stays here.
    pub(super) fn finish(&mut self, unsent: Unsent, cpu_seconds: f64) -> Outcome {
        let until_last = self.last.map_or(Duration::ZERO, |last| last - self.start);
        let Errors { closed, malformed, .. } = self.errors;
        let Unsent { unsent, late } = unsent;
        let by_status = (0u16..).zip(std::mem::take(&mut self.by_status)).filter(|(_, count)| *count > 0).collect();
        Outcome {
            seconds: self.window.unwrap_or(until_last).as_secs_f64().max(f64::EPSILON),
            answers: self.in_window,
            by_status,
            latency: self.latency.clone(),
            errors: Errors { unanswered: self.sent - self.answered - closed - malformed, ..self.errors },
            sent: self.sent_in_window,
            late,
            unsent,
            cpu_seconds,
            promised: std::mem::take(&mut self.promised),
        }
    }
}

/// What the open model could not send in time.
#[derive(Clone, Copy)]
pub(super) struct Unsent {
    pub(super) unsent: u64,
    pub(super) late: u64,
}
