//! Points in time, by the database's clock, and the windows between them.

use std::fmt;
use std::time::Duration;

use serde::{Serialize, Serializer};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// Microseconds since 1970 in UTC by the database's clock; RFC 3339 in JSON.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Timestamp(pub i64);

impl Timestamp {
    /// From RFC 3339 text with any offset; `None` when it is no such text.
    pub fn parse(text: &str) -> Option<Self> {
        let parsed = OffsetDateTime::parse(text, &Rfc3339).ok()?;
        i64::try_from(parsed.unix_timestamp_nanos() / 1_000).ok().map(Self)
    }

    /// From milliseconds since 1970.
    pub fn from_millis(millis: u64) -> Self {
        Self(i64::try_from(millis.saturating_mul(1_000)).unwrap_or(i64::MAX))
    }

    /// The time until `later`; `None` when `later` is not later.
    pub fn until(self, later: Self) -> Option<Duration> {
        u64::try_from(later.0 - self.0).ok().filter(|&micros| micros > 0).map(Duration::from_micros)
    }
}

impl std::ops::Add<Duration> for Timestamp {
    type Output = Self;

    fn add(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)))
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = OffsetDateTime::from_unix_timestamp_nanos(i128::from(self.0) * 1_000)
            .ok()
            .and_then(|time| time.format(&Rfc3339).ok())
            .ok_or(fmt::Error)?;
        f.write_str(&text)
    }
}

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// When something may be issued: from `opens_at` on, before `closes_at`; `None` is no bound.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Window {
    /// First instant inside.
    pub opens_at: Option<Timestamp>,
    /// First instant no longer inside.
    pub closes_at: Option<Timestamp>,
}

impl Window {
    /// Whether its opening is still to come.
    pub fn is_ahead(self, now: Timestamp) -> bool {
        self.opens_at.is_some_and(|opens| now < opens)
    }

    /// Whether it will never be open again.
    pub fn is_over(self, now: Timestamp) -> bool {
        self.closes_at.is_some_and(|closes| now >= closes)
    }

    /// How long after `now` it opens; `None` when it is open, or will never be.
    pub fn opens_in(self, now: Timestamp) -> Option<Duration> {
        let opens = self.opens_at.filter(|&opens| !self.is_over(opens))?;
        now.until(opens)
    }

    /// What is inside both.
    #[must_use]
    pub fn intersection(self, other: Self) -> Self {
        Self {
            opens_at: self.opens_at.max(other.opens_at),
            closes_at: [self.closes_at, other.closes_at].into_iter().flatten().min(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_contains_its_opening_but_not_its_closing() {
        let window = Window { opens_at: Some(Timestamp(10)), closes_at: Some(Timestamp(20)) };
        let contains = |now| !window.is_ahead(now) && !window.is_over(now);
        assert!([9, 10, 19, 20].map(|t| contains(Timestamp(t))) == [false, true, true, false]);
        let later = Window { opens_at: Some(Timestamp(15)), closes_at: None };
        assert_eq!(
            window.intersection(later),
            Window { opens_at: Some(Timestamp(15)), closes_at: Some(Timestamp(20)) }
        );
    }

    #[test]
    fn a_window_that_closes_before_it_opens_never_opens() {
        let opens_in = |opens, closes: Option<i64>| {
            let window = Window { opens_at: Some(Timestamp(opens)), closes_at: closes.map(Timestamp) };
            window.opens_in(Timestamp(5)).map(|it| it.as_micros())
        };
        assert_eq!([opens_in(10, None), opens_in(10, Some(20)), opens_in(4, Some(20))], [Some(5), Some(5), None]);
        assert_eq!([opens_in(10, Some(10)), opens_in(10, Some(7)), opens_in(10, Some(3))], [None; 3]);
    }

    #[test]
    fn timestamps_are_rfc_3339_in_utc() {
        let time = Timestamp::parse("2026-11-23T10:00:00.25+01:00").unwrap();
        assert_eq!(time.to_string(), "2026-11-23T09:00:00.25Z");
        assert!(Timestamp::parse("yesterday").is_none());
    }
}
