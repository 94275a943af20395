//! The domain: codes, users, orders, coupons, outcomes; beside it windows, and the rule that turns a settled batch into
//! outcomes. No I/O, no clock, no SQL, no HTTP: every rule here has an instant test.

mod settlement;
mod window;

use std::fmt;
use std::time::Duration;

use arrayvec::ArrayString;
use serde::{Serialize, Serializer};

pub use settlement::Settlement;
pub use window::{Timestamp, Window};

/// Longest code and longest user id, in characters.
pub const ID_LENGTH_MAX: usize = 36;

/// Whether `text` may be a code or a user id: `^[A-Za-z0-9._:-]{1,36}$`, but for `.` and `..`, which clients and proxies take for
/// folders and remove from a path. Nothing else reaches the database, whose collations would otherwise fold case, accents or
/// trailing spaces of two different users into one.
pub fn is_id(text: &str) -> bool {
    is_plain(text) && !matches!(text, "." | "..")
}

fn is_plain(text: &str) -> bool {
    (1..=ID_LENGTH_MAX).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b':' | b'-'))
}

macro_rules! id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
        #[serde(transparent)]
        pub struct $name(ArrayString<ID_LENGTH_MAX>);

        impl $name {
            /// From a caller; `None` when `text` is no id, as [`is_id`] says.
            pub fn parse(text: &str) -> Option<Self> {
                if is_id(text) { Self::stored(text) } else { None }
            }

            /// From the database, where an earlier release may have put `.` or `..`: what is there must stay readable.
            pub fn stored(text: &str) -> Option<Self> {
                if is_plain(text) { ArrayString::from(text).ok().map(Self) } else { None }
            }

            /// The text as the caller wrote it.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl std::borrow::Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }
    };
}

id! {
    /// The name of a coupon, such as `A001`.
    Code
}
id! {
    /// The name of a user. Not authenticated here: a gateway in front does that.
    UserId
}

/// Identifies what a caller asked for: the same request asked again gets the same entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct RequestId(pub [u8; 16]);

impl RequestId {
    /// From 32 hex digits; `None` for anything else.
    pub fn parse(hex: &str) -> Option<Self> {
        let digits = hex.as_bytes();
        if digits.len() != 32 || !digits.iter().all(u8::is_ascii_hexdigit) {
            return None;
        }
        u128::from_str_radix(hex, 16).ok().map(|number| Self(number.to_be_bytes()))
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", u128::from_be_bytes(self.0))
    }
}

impl Serialize for RequestId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// One request for one piece of a coupon, valid by construction.
#[derive(Clone, Debug)]
pub struct Order {
    /// The coupon asked for.
    pub code: Code,
    /// The user that asks.
    pub user: UserId,
    /// What makes asking again the same request.
    pub request: RequestId,
    /// Milliseconds since 1970 when nginx saw the request; `None` without nginx.
    pub arrived_ms: Option<u64>,
}

/// A wallet entry: an issued piece.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Entry {
    /// The coupon.
    pub code: Code,
    /// The holder.
    pub user_id: UserId,
    /// 1, 2, 3 ... per coupon and round without gaps; `None` only under the `unlocked` strategy.
    pub serial: Option<u32>,
    /// The round it was issued in.
    pub round: u32,
    /// The request that got it.
    pub request_id: RequestId,
    /// When, by the database's clock.
    pub issued_at: Timestamp,
}

impl Entry {
    /// What asking for `order` gets when its user already holds this entry.
    pub fn answer(self, order: &Order) -> Outcome {
        if self.request_id == order.request { Outcome::Replayed(self) } else { Outcome::AlreadyIssued(self) }
    }
}

/// Where a coupon stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    /// Its window, or the event's, has not opened yet.
    Scheduled,
    /// It can be had.
    Open,
    /// Its window, or the event's, is over.
    Closed,
    /// Nothing is left in this round.
    SoldOut,
}

/// A coupon as the database had it at one moment.
#[derive(Clone, Debug)]
pub struct Coupon {
    /// Its name.
    pub code: Code,
    /// 1 to 100.
    pub discount_percent: u8,
    /// Pieces in this round.
    pub total: u32,
    /// Pieces not issued yet.
    pub remaining: u32,
    /// The serial of the next piece. Within a round it only grows.
    pub next_serial: u32,
    /// Its own window.
    pub window: Window,
    /// Its window together with the event's: when it can really be had.
    pub effective: Window,
}

impl Coupon {
    /// The state at `now`.
    pub fn state(&self, now: Timestamp) -> State {
        if self.effective.is_over(now) {
            State::Closed
        } else if self.effective.is_ahead(now) {
            State::Scheduled
        } else if self.remaining == 0 {
            State::SoldOut
        } else {
            State::Open
        }
    }
}

/// The answer to an order. A refusal is an answer too; errors are for "no decision was reached".
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The user has it from now on.
    Issued(Entry),
    /// The user has it since the same request was made before.
    Replayed(Entry),
    /// The user holds this entry already, from another request.
    AlreadyIssued(Entry),
    /// Nothing is left. Final for the round unless stock is topped up.
    SoldOut,
    /// Outside the window; the time until it opens, `None` when it is over.
    NotOpen(Option<Duration>),
    /// There is no such coupon.
    UnknownCoupon,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_one_to_36_plain_characters() {
        for good in ["u", "A.b_c:d-9", "...", ".a", "a.", ":", &"x".repeat(36)] {
            assert!(is_id(good), "{good}");
        }
        for bad in ["", " u", "u ", "ü", "a'b", "a\"b", "a\0", ".", "..", &"x".repeat(37)] {
            assert!(!is_id(bad), "{bad}");
        }
    }

    #[test]
    fn what_the_api_refuses_as_an_id_today_is_read_where_it_is_stored() {
        for old in [".", ".."] {
            assert_eq!(UserId::stored(old).unwrap().as_str(), old);
            assert_eq!((UserId::parse(old), Code::parse(old)), (None, None));
        }
        for never in ["", "u ", "ü", &"x".repeat(37)] {
            assert_eq!(UserId::stored(never), None);
        }
    }

    proptest::proptest! {
        #[test]
        fn an_id_is_what_a_path_keeps_as_it_is(text in "[.]{0,3}|[./A-Za-z0-9_:-]{0,40}") {
            let kept = !text.contains('/') && !["", ".", ".."].contains(&text.as_str());
            proptest::prop_assert_eq!(is_id(&text), kept && text.len() <= ID_LENGTH_MAX);
        }
    }
}
