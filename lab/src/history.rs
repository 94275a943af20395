//! What clients asked and were answered, attempt by attempt: written while a cluster is disturbed, judged when it is well
//! again, and what an administrator did meanwhile. One JSON object a line. Nothing is judged here.

use std::collections::BTreeMap;
use std::fs;
use std::ops::RangeInclusive;
use std::path::Path;
use std::time::Instant;

use anyhow::{Context, ensure};
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

/// All that happened to one cluster, by one clock.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct History {
    /// In any order.
    pub attempts: Vec<Attempt>,
    /// In their order, beginning with the situation before the first attempt. Empty: the situation is what the tables show.
    pub(crate) changes: Vec<Change>,
    /// In any order.
    pub(crate) looks: Vec<Look>,
}

impl From<Vec<Attempt>> for History {
    fn from(attempts: Vec<Attempt>) -> Self {
        Self { attempts, ..Self::default() }
    }
}

/// A look of a user at its wallet. Looking again is another one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Look {
    pub user: String,
    /// By the clock of the attempts.
    pub asked: u64,
    pub answered: u64,
    pub shown: Shown,
}

/// What a look came to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Shown {
    /// 200: all that was in it.
    Entries(Vec<Ack>),
    /// Any other answer.
    Refused { status: u16 },
    /// 503.
    Retryable,
    /// No answer.
    Nothing,
}

impl Shown {
    /// What a whole answer shows. One that cannot be read is one that nobody described.
    pub(crate) fn of(status: u16, retry_after: &str, body: &[u8]) -> Self {
        let refused = Self::Refused { status };
        match status {
            200 => serde_json::from_slice(body).map_or(refused, Self::Entries),
            503 if says_when(retry_after) => Self::Retryable,
            _ => refused,
        }
    }

    /// Whether looking again would show nothing else.
    pub(crate) fn is_final(&self) -> bool {
        matches!(self, Self::Entries(_) | Self::Refused { .. })
    }
}

/// What an administrator did. It took effect at some moment between the two times.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Change {
    /// When it was first asked for.
    pub asked: u64,
    /// When its answer was in.
    pub answered: u64,
    /// What is so from then on.
    pub after: Situation,
}

/// What an administrator decides.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Situation {
    pub round: u32,
    /// The round's rule: one coupon per user over the whole event.
    pub exclusive: bool,
    /// Whether the event's window is open.
    pub open: bool,
    /// The coupons that exist, by code.
    pub coupons: BTreeMap<String, Stock>,
}

/// One coupon in a situation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Stock {
    /// Pieces in the round.
    pub total: u32,
    /// Whether its own window is open.
    pub open: bool,
}

/// One request of one user: asked once, answered at most once. Asking again is another attempt.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attempt {
    /// The user that asks.
    pub user: String,
    /// For which coupon.
    pub code: String,
    /// The `Idempotency-Key`: the same for every attempt of one wish.
    pub key: String,
    /// When the first byte went out: microseconds of one monotonic clock for the whole history.
    pub asked: u64,
    /// When the last byte of the answer was in, by the same clock; for [`Told::Nothing`] when the client gave up.
    pub answered: u64,
    /// What the client was told.
    pub told: Told,
}

/// What an attempt came to, as its client saw it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "kind")]
pub enum Told {
    /// 201: this request has got the coupon now.
    Issued(Ack),
    /// 200: it had got it before.
    Replayed(Ack),
    /// 409: the user holds this entry by another request; its code may be another one when the round is exclusive.
    AlreadyIssued(Ack),
    /// 410.
    SoldOut,
    /// Any other answer: final, and not expected of a well-formed request for an open coupon.
    Refused {
        /// The status.
        status: u16,
    },
    /// 503: not now.
    Retryable,
    /// No answer: the connection broke, or the client hung up or lost patience. It may have been carried out, or will yet be.
    Nothing,
}

/// A wallet entry that a client was answered with. It reads from the API's own JSON.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Ack {
    /// The coupon's code.
    pub code: String,
    /// The holder.
    pub user_id: String,
    /// `None` only under the `unlocked` strategy.
    pub serial: Option<u32>,
    /// The round it was issued in.
    pub round: u32,
    /// The request that got it, in hexadecimal digits.
    pub request_id: String,
    /// When it was issued, by the database's clock.
    #[serde(with = "time::serde::rfc3339")]
    pub issued_at: OffsetDateTime,
}

impl Attempt {
    /// From asking to the answer.
    pub(crate) fn lasted(&self) -> RangeInclusive<u64> {
        self.asked..=self.answered
    }
}

impl Look {
    /// From asking to the answer.
    pub(crate) fn lasted(&self) -> RangeInclusive<u64> {
        self.asked..=self.answered
    }

    /// What was in the wallet, as far as it was shown.
    pub(crate) fn entries(&self) -> &[Ack] {
        if let Shown::Entries(entries) = &self.shown { entries } else { &[] }
    }
}

impl Told {
    /// What a whole answer tells. One that cannot be read is one that nobody described. `retry_after` is the header's text, empty where
    /// there is none.
    pub fn of(status: u16, retry_after: &str, body: &[u8]) -> Self {
        #[derive(Deserialize)]
        struct Problem {
            entry: Ack,
        }
        let refused = Self::Refused { status };
        match status {
            200 => serde_json::from_slice(body).map_or(refused, Self::Replayed),
            201 => serde_json::from_slice(body).map_or(refused, Self::Issued),
            409 => serde_json::from_slice(body).map_or(refused, |Problem { entry }| Self::AlreadyIssued(entry)),
            410 => Self::SoldOut,
            503 if says_when(retry_after) => Self::Retryable,
            _ => refused,
        }
    }

    /// Whether asking again would change nothing.
    pub fn is_final(&self) -> bool {
        !matches!(self, Self::Retryable | Self::Nothing)
    }

    /// The entry that was told: the request's own, or the one that the user holds by another.
    pub fn entry(&self) -> Option<&Ack> {
        if let Self::AlreadyIssued(entry) = self { Some(entry) } else { self.own() }
    }

    /// The entry that the request itself got, now or before.
    pub(crate) fn own(&self) -> Option<&Ack> {
        match self {
            Self::Issued(entry) | Self::Replayed(entry) => Some(entry),
            _ => None,
        }
    }
}

/// "Not now" says in how many seconds to ask again: a crowd that is not told comes back at once.
fn says_when(retry_after: &str) -> bool {
    retry_after.parse().is_ok_and(|seconds: u32| seconds > 0)
}

/// Microseconds since the beginning of a history.
pub(crate) fn micros(began: Instant) -> u64 {
    u64::try_from(began.elapsed().as_micros()).unwrap_or(u64::MAX)
}

#[derive(Deserialize)]
#[serde(untagged, expecting = "it is no attempt, no change and no look")]
enum Line {
    Attempt(Attempt),
    Change(Change),
    Look(Look),
}

/// Reads a file with one attempt, change or look a line. Anything else in it is an error: evidence must not get lost silently.
pub fn read(path: &Path) -> anyhow::Result<History> {
    let text = fs::read_to_string(path)
        .with_context(|| format!("cannot read {}; give a history that `lab chaos` wrote", path.display()))?;
    let mut history = History::default();
    for (index, line) in text.lines().enumerate() {
        let line = serde_json::from_str(line);
        match line.with_context(|| format!("line {} of {} is no part of a history", index + 1, path.display()))? {
            Line::Attempt(attempt) => history.attempts.push(attempt),
            Line::Change(change) => history.changes.push(change),
            Line::Look(look) => history.looks.push(look),
        }
    }
    ensure!(
        !history.attempts.is_empty() && !history.changes.is_empty(),
        "{} holds no attempt, or no situation to begin with; give a history that `lab chaos` wrote",
        path.display()
    );
    Ok(history)
}

/// One part of a history a line, as [`read`] reads it.
pub fn text(History { attempts, changes, looks }: &History) -> serde_json::Result<String> {
    let (changes, attempts) = (changes.iter().map(serde_json::to_string), attempts.iter().map(serde_json::to_string));
    let lines: Result<Vec<_>, _> = changes.chain(attempts).chain(looks.iter().map(serde_json::to_string)).collect();
    Ok(lines?.into_iter().map(|line| line + "\n").collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn not_now_is_an_answer_only_with_a_word_on_when() {
        for (retry_after, is_one) in [("1", true), ("", false), ("0", false), ("soon", false)] {
            let refused = (Told::Refused { status: 503 }, Shown::Refused { status: 503 });
            let expected = if is_one { (Told::Retryable, Shown::Retryable) } else { refused };

            assert_eq!(
                (Told::of(503, retry_after, b"{}"), Shown::of(503, retry_after, b"{}")),
                expected,
                "{retry_after:?}"
            );
        }
    }

    #[test]
    fn a_history_reads_as_it_was_written() {
        let [user, code, key, request_id] = ["u-1", "A001", "k", "0f"].map(str::to_owned);
        let coupons = [(code.clone(), Stock { total: 3, open: true })].into();
        let after = Situation { round: 3, exclusive: true, open: false, coupons };
        let (user_id, issued_at) = (user.clone(), OffsetDateTime::UNIX_EPOCH);
        let entry = Ack { code: code.clone(), user_id, serial: Some(7), round: 3, request_id, issued_at };
        let look = |shown| Look { user: user.clone(), asked: 3, answered: 4, shown };
        let refused = Shown::Refused { status: 500 };
        let looks = [Shown::Entries(vec![entry.clone()]), refused, Shown::Retryable, Shown::Nothing].map(look).into();
        let with_entry = [Told::Issued, Told::Replayed, Told::AlreadyIssued].map(|told| told(entry.clone()));
        let without = [Told::SoldOut, Told::Refused { status: 403 }, Told::Retryable, Told::Nothing];
        let attempt = Attempt { user, code, key, asked: 1, answered: 9, told: Told::Nothing };
        let tolds = with_entry.into_iter().chain(without);
        let attempts = tolds.map(|told| Attempt { told, ..attempt.clone() }).collect();
        let history = History { attempts, changes: vec![Change { asked: 1, answered: 2, after }], looks };
        let path = std::env::temp_dir().join(format!("coupon-lab-history-{}", std::process::id()));

        fs::write(&path, text(&history).unwrap()).unwrap();
        let found = read(&path);
        fs::write(&path, "half an att").unwrap();
        let damaged = read(&path);
        fs::write(&path, text(&history.attempts.clone().into()).unwrap()).unwrap();
        let without_situation = read(&path);
        fs::remove_file(&path).unwrap();

        assert_eq!(found.unwrap(), history);
        assert!(damaged.unwrap_err().to_string().starts_with("line 1 of "));
        assert!(without_situation.unwrap_err().to_string().contains("no situation"));
    }
}
