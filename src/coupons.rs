//! The domain: codes, users, orders, coupons, outcomes, and the rule that turns a settled batch into outcomes.
//! No I/O, no clock, no SQL, no HTTP: every rule here has an instant test.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::time::Duration;

use serde::{Serialize, Serializer};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// Longest code and longest user id, in characters.
pub const ID_LENGTH_MAX: usize = 36;

/// Whether `text` may be a code or a user id: `^[A-Za-z0-9._:-]{1,36}$`. Nothing else reaches the database, whose collations
/// would otherwise fold case, accents or trailing spaces of two different users into one.
pub fn is_id(text: &str) -> bool {
    (1..=ID_LENGTH_MAX).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b':' | b'-'))
}

macro_rules! id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
        #[serde(transparent)]
        pub struct $name(Box<str>);

        impl $name {
            /// `None` when `text` does not match `^[A-Za-z0-9._:-]{1,36}$`.
            pub fn parse(text: &str) -> Option<Self> {
                is_id(text).then(|| Self(text.into()))
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
    /// Who asks. Not authenticated here: a gateway in front does that.
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

/// Microseconds since 1970 in UTC by the database's clock; RFC 3339 in JSON.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Timestamp(pub i64);

impl Timestamp {
    /// From RFC 3339 text with any offset; `None` when it is no such text.
    pub fn parse(text: &str) -> Option<Self> {
        let parsed = OffsetDateTime::parse(text, &Rfc3339).ok()?;
        i64::try_from(parsed.unix_timestamp_nanos() / 1_000).ok().map(Self)
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
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Window {
    /// First instant inside.
    pub opens_at: Option<Timestamp>,
    /// First instant no longer inside.
    pub closes_at: Option<Timestamp>,
}

impl Window {
    /// Whether `now` lies inside.
    pub fn contains(self, now: Timestamp) -> bool {
        self.opens_at.is_none_or(|opens| now >= opens) && self.closes_at.is_none_or(|closes| now < closes)
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

/// One request for one coupon, valid by construction.
#[derive(Clone, Debug)]
pub struct Order {
    /// The coupon asked for.
    pub code: Code,
    /// Who asks.
    pub user: UserId,
    /// What makes asking again the same request.
    pub request: RequestId,
    /// Milliseconds since 1970 when nginx saw the request; `None` without nginx.
    pub arrived_ms: Option<u64>,
}

/// A wallet entry: an issued coupon.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Entry {
    /// The coupon.
    pub code: Code,
    /// Who holds it.
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
    /// Its own window.
    pub window: Window,
    /// Its window together with the event's: when it can really be had.
    pub effective: Window,
}

impl Coupon {
    /// The state at `now`.
    pub fn state(&self, now: Timestamp) -> State {
        if self.effective.closes_at.is_some_and(|closes| now >= closes) {
            State::Closed
        } else if self.effective.opens_at.is_some_and(|opens| now < opens) {
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

/// What the database did with a batch of orders for one code.
#[derive(Debug, Default)]
pub struct Settlement {
    /// Whether the code exists.
    pub known: bool,
    /// The round of the coupon row when it was locked.
    pub round: u32,
    /// Whether the window was open.
    pub open: bool,
    /// The time until the window opens; `None` when it is open or over.
    pub opens_in: Option<Duration>,
    /// The serial of the first coupon issued here.
    pub first_serial: u32,
    /// How many were issued.
    pub issued: u32,
    /// Whether some user held a coupon already or asked twice: then only `held` tells who got one.
    pub repaired: bool,
    /// Stock after the batch.
    pub remaining: u32,
    /// When the batch was settled, by the database's clock.
    pub issued_at: Option<Timestamp>,
    /// What the batch's users hold now; complete whenever `repaired` or fewer were issued than asked for.
    pub held: HashMap<UserId, Entry>,
}

impl Settlement {
    /// One outcome per order, in their order; `None` where the settlement explains nothing, which no sound database does.
    pub fn outcomes(&self, orders: &[Order]) -> Vec<Option<Outcome>> {
        let mut winners: HashSet<&UserId> = HashSet::new();
        orders
            .iter()
            .enumerate()
            .map(|(place, order)| {
                if !self.known {
                    return Some(Outcome::UnknownCoupon);
                }
                if !self.repaired && place < self.issued as usize {
                    return self.in_sequence(place, order).map(Outcome::Issued);
                }
                match self.held.get(&order.user) {
                    Some(entry) if self.is_new(entry, order) && winners.insert(&order.user) => {
                        Some(Outcome::Issued(entry.clone()))
                    }
                    Some(entry) => Some(entry.clone().answer(order)),
                    None if !self.open => Some(Outcome::NotOpen(self.opens_in)),
                    None if self.remaining == 0 => Some(Outcome::SoldOut),
                    None => None,
                }
            })
            .collect()
    }

    /// The entry of the order at `place` when the orders were issued one after the other.
    fn in_sequence(&self, place: usize, order: &Order) -> Option<Entry> {
        Some(Entry {
            code: order.code.clone(),
            user_id: order.user.clone(),
            serial: Some(self.first_serial + u32::try_from(place).ok()?),
            round: self.round,
            request_id: order.request,
            issued_at: self.issued_at?,
        })
    }

    /// Whether `entry` was issued by this very settlement to this very request.
    fn is_new(&self, entry: &Entry, order: &Order) -> bool {
        self.repaired
            && entry.request_id == order.request
            && entry.code == order.code
            && entry.serial.is_some_and(|serial| serial >= self.first_serial)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn order(user: &str, request: u8) -> Order {
        Order {
            code: Code::parse("A001").unwrap(),
            user: UserId::parse(user).unwrap(),
            request: RequestId([request; 16]),
            arrived_ms: None,
        }
    }

    fn entry(order: &Order, serial: u32) -> Entry {
        Entry {
            code: order.code.clone(),
            user_id: order.user.clone(),
            serial: Some(serial),
            round: 1,
            request_id: order.request,
            issued_at: Timestamp(0),
        }
    }

    fn settlement(issued: u32, remaining: u32) -> Settlement {
        Settlement {
            known: true,
            round: 1,
            open: true,
            first_serial: 7,
            issued,
            remaining,
            issued_at: Some(Timestamp(0)),
            ..Settlement::default()
        }
    }

    #[test]
    fn an_id_is_one_to_36_plain_characters() {
        for good in ["u", "A.b_c:d-9", &"x".repeat(36)] {
            assert!(is_id(good), "{good}");
        }
        for bad in ["", " u", "u ", "ü", "a'b", "a\"b", "a\0", &"x".repeat(37)] {
            assert!(!is_id(bad), "{bad}");
        }
    }

    #[test]
    fn serials_follow_the_order_of_arrival() {
        let orders = [order("a", 1), order("b", 2)];
        let outcomes = settlement(2, 5).outcomes(&orders);
        assert_eq!(outcomes[0], Some(Outcome::Issued(entry(&orders[0], 7))));
        assert_eq!(outcomes[1], Some(Outcome::Issued(entry(&orders[1], 8))));
    }

    #[test]
    fn whoever_comes_after_the_last_piece_is_told_sold_out() {
        let outcomes = settlement(1, 0).outcomes(&[order("a", 1), order("b", 2)]);
        assert_eq!(outcomes[1], Some(Outcome::SoldOut));
    }

    #[test]
    fn a_double_click_in_one_batch_is_issued_once_and_then_replayed() {
        let orders = [order("a", 1), order("a", 1), order("a", 2)];
        let mut settled = settlement(1, 5);
        settled.repaired = true;
        settled.held.insert(orders[0].user.clone(), entry(&orders[0], 7));
        let outcomes = settled.outcomes(&orders);
        assert!(matches!(outcomes[0], Some(Outcome::Issued(_))));
        assert!(matches!(outcomes[1], Some(Outcome::Replayed(_))));
        assert!(matches!(outcomes[2], Some(Outcome::AlreadyIssued(_))));
    }

    #[test]
    fn an_entry_of_an_earlier_batch_is_a_replay() {
        let orders = [order("a", 1)];
        let mut settled = settlement(0, 5);
        settled.repaired = true;
        settled.held.insert(orders[0].user.clone(), entry(&orders[0], 3));
        assert!(matches!(settled.outcomes(&orders)[0], Some(Outcome::Replayed(_))));
    }

    #[test]
    fn a_holder_is_told_so_before_sold_out_and_before_not_open() {
        let orders = [order("a", 9)];
        for (open, remaining) in [(true, 0), (false, 5)] {
            let mut settled = settlement(0, remaining);
            settled.open = open;
            settled.held.insert(orders[0].user.clone(), entry(&order("a", 1), 1));
            assert!(matches!(settled.outcomes(&orders)[0], Some(Outcome::AlreadyIssued(_))));
        }
    }

    #[test]
    fn stock_left_and_no_entry_is_no_answer() {
        assert_eq!(settlement(0, 5).outcomes(&[order("a", 1)]), [None]);
    }

    #[test]
    fn a_window_contains_its_opening_but_not_its_closing() {
        let window = Window { opens_at: Some(Timestamp(10)), closes_at: Some(Timestamp(20)) };
        assert!([9, 10, 19, 20].map(|t| window.contains(Timestamp(t))) == [false, true, true, false]);
        let later = Window { opens_at: Some(Timestamp(15)), closes_at: None };
        assert_eq!(
            window.intersection(later),
            Window { opens_at: Some(Timestamp(15)), closes_at: Some(Timestamp(20)) }
        );
    }

    #[test]
    fn timestamps_are_rfc_3339_in_utc() {
        let time = Timestamp::parse("2026-11-23T10:00:00.25+01:00").unwrap();
        assert_eq!(time.to_string(), "2026-11-23T09:00:00.25Z");
        assert!(Timestamp::parse("yesterday").is_none());
    }
}
