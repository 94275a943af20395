//! What was found, for people (`Display`: an aligned table, then one line a finding) and for programs (`Serialize`).

use std::fmt::{self, Formatter};

use serde::Serialize;
use strum::Display;

use crate::table::Table;

/// What one look at the tables shows.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// The round that was judged: the event's current one.
    pub round: u32,
    /// The rule of that round: one coupon per user over the whole event, else one per code.
    pub exclusive: bool,
    /// In the order of their codes.
    pub coupons: Vec<CouponReport>,
    /// How many different users hold a coupon of the round.
    pub users: usize,
    /// How clients' knowledge compares; `None` when no acks were given.
    pub acknowledged: Option<Acknowledged>,
    /// What the history holds; `None` when none was given.
    pub heard: Option<Heard>,
    /// Every broken promise; empty when the tables are clean.
    pub findings: Vec<Finding>,
}

/// One kind of coupon in the judged round.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct CouponReport {
    /// Its code.
    pub code: String,
    /// Pieces in the round.
    pub total: u32,
    /// Pieces that the counter says are left.
    pub remaining: u32,
    /// Issued pieces in the wallet.
    pub rows: usize,
    /// How many different users hold them.
    pub users: usize,
    /// The lowest serial; `None` without rows, and under `unlocked`, which gives none.
    pub lowest_serial: Option<u32>,
    /// The highest serial; `None` as above.
    pub highest_serial: Option<u32>,
    /// `rows - (total - remaining)`: decrements that overwrote each other. Negative: pieces taken from stock that
    /// nobody holds.
    pub lost_updates: i64,
    /// Whether its window and the event's are open; others are not expected to sell out.
    pub open: bool,
}

/// What clients were answered, against what the wallet holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Acknowledged {
    /// Answers that carried an entry.
    pub answers: usize,
    /// Different coupons of the current round among them.
    pub coupons: usize,
    /// Coupons in the wallet of which no client knows: it may have vanished before the answer. No broken promise.
    pub unacknowledged: usize,
}

/// What clients asked and were answered, counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Heard {
    /// Requests that were sent.
    pub attempts: usize,
    /// How many different users sent them.
    pub users: usize,
    /// Answers by kind: 201 and 200.
    pub issued: usize,
    /// 409.
    pub already_issued: usize,
    /// 410.
    pub sold_out: usize,
    /// Any other answer.
    pub refused: usize,
    /// 503.
    pub retryable: usize,
    /// No answer.
    pub nothing: usize,
    /// The longest from asking to the answer, or to giving up, in microseconds.
    pub slowest: u64,
}

/// One broken promise about one code, or about the event.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Finding {
    /// What is wrong.
    pub kind: Kind,
    /// The promise that it breaks, `P1` to `P7`.
    pub promise: &'static str,
    /// The coupon; `None` when it is about the whole event.
    pub code: Option<String>,
    /// How many rows, serials, users or answers show it.
    pub count: usize,
    /// What shows it, with a few examples.
    pub evidence: String,
}

/// The ways in which a promise can be broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Display)]
#[serde(rename_all = "kebab-case")]
#[strum(serialize_all = "kebab-case")]
pub enum Kind {
    /// More rows than pieces.
    Oversold,
    /// A user holds two coupons where one is allowed.
    UserTwice,
    /// A row outside its round's scope, where the primary key cannot keep its user from a second coupon.
    WrongScope,
    /// A row of a coupon that does not exist.
    UnknownCoupon,
    /// A coupon's copy of the event's round or rule differs from the event.
    OutOfStep,
    /// `total` is not `remaining` plus rows.
    Conservation,
    /// A row without a serial among rows with one.
    SerialMissing,
    /// Two rows with the same serial.
    SerialTwice,
    /// A serial of 1 to the number of rows that no row has.
    SerialGap,
    /// A serial below 1 or above the number of rows.
    SerialOutOfRange,
    /// The next serial is not the number of rows plus one.
    NextSerial,
    /// A client was promised a coupon that nobody holds.
    AckLost,
    /// A client was promised a coupon that another user holds.
    AckOtherUser,
    /// A client was promised a coupon in one round and holds it in another.
    AckOtherRound,
    /// A client was promised another serial than it holds.
    AckOtherSerial,
    /// A client was told another request than the one that got its coupon.
    AckOtherRequest,
    /// Two users were promised the same piece.
    AckSerialTwice,
    /// Stock is left although the run was expected to issue everything.
    NotSoldOut,
    /// Two requests of one user were both told that they got a coupon, where one is allowed.
    IssuedTwice,
    /// A client was told of another coupon than the one it asked for.
    AckOtherCode,
    /// A user holds a coupon that it never asked for.
    Unasked,
    /// A user was told that another request of its got a coupon, when no other had been made.
    AlreadyUnfounded,
    /// "Sold out" was told before enough requests had been made to take all pieces.
    FalseSoldOut,
    /// A request that was first made after somebody was told "sold out" got a piece.
    SoldOutThenIssued,
    /// A user was told "sold out" for a coupon that it holds.
    SoldOutHolder,
    /// A client was told something that is neither a coupon nor a lack of it, about an open coupon.
    Refused,
    /// A user was told of an entry of a round that was over before it asked, or had not begun.
    EntryOfAnotherTime,
    /// "Not open" was told while it was open.
    NotOpenWhileOpen,
    /// "Not open" was told to a user who had been told of its coupon.
    NotOpenHolder,
    /// "Unknown" was told of a coupon that existed.
    UnknownWhileThere,
    /// Fewer coupons were issued than there were pieces and users who asked.
    Unserved,
    /// A serial that was told before another request was even made is higher than that request's.
    OutOfOrder,
    /// A user's last answer is "not now", or none.
    NeverFinal,
    /// An answer took longer than it may.
    TooSlow,
}

impl Kind {
    fn promise(self) -> &'static str {
        match self {
            Self::Oversold
            | Self::SerialMissing
            | Self::SerialTwice
            | Self::SerialGap
            | Self::SerialOutOfRange
            | Self::NextSerial
            | Self::OutOfOrder
            | Self::AckSerialTwice => "P1",
            Self::UserTwice | Self::WrongScope | Self::IssuedTwice => "P2",
            Self::AckLost | Self::AckOtherUser | Self::AckOtherRound => "P3",
            Self::NotSoldOut
            | Self::FalseSoldOut
            | Self::SoldOutThenIssued
            | Self::SoldOutHolder
            | Self::Refused
            | Self::NotOpenWhileOpen
            | Self::UnknownWhileThere
            | Self::Unserved => "P4",
            Self::UnknownCoupon | Self::OutOfStep | Self::Conservation | Self::Unasked => "P5",
            Self::AckOtherSerial
            | Self::AckOtherRequest
            | Self::AckOtherCode
            | Self::AlreadyUnfounded
            | Self::EntryOfAnotherTime
            | Self::NotOpenHolder => "P6",
            Self::NeverFinal | Self::TooSlow => "P7",
        }
    }
}

impl Finding {
    pub(super) fn new(kind: Kind, code: Option<&str>, count: usize, evidence: String) -> Self {
        Self { kind, promise: kind.promise(), code: code.map(str::to_owned), count, evidence }
    }
}

impl Report {
    /// No promise is broken.
    pub fn is_clean(&self) -> bool {
        self.findings.is_empty()
    }

    /// Issued pieces of the round, over all codes.
    pub fn rows(&self) -> usize {
        self.coupons.iter().map(|coupon| coupon.rows).sum()
    }

    /// Lost updates over all codes. Pieces that nobody holds at one code do not make up for them at another.
    pub fn lost_updates(&self) -> i64 {
        self.coupons.iter().map(|coupon| coupon.lost_updates.max(0)).sum()
    }

    /// Adds a finding for each open coupon that has stock left; for a run that is meant to issue everything.
    pub fn expect_sold_out(&mut self) {
        for coupon in self.coupons.iter().filter(|coupon| coupon.open && coupon.remaining > 0) {
            let CouponReport { code, total, remaining, .. } = coupon;
            let evidence = format!("{remaining} of {total} pieces are left after a run that should have issued all");
            self.findings.push(Finding::new(Kind::NotSoldOut, Some(code), *remaining as usize, evidence));
        }
    }

    /// One line: clean and how much was issued, or broken and by what.
    pub fn verdict(&self) -> String {
        if self.is_clean() {
            let (rows, users) = (self.rows(), self.users);
            return format!("clean: {rows} coupons, {users} users, none oversold, doubled or lost");
        }
        let mut parts = Vec::new();
        if self.lost_updates() > 0 {
            parts.push(format!("{} lost updates", self.lost_updates()));
        }
        for finding in &self.findings {
            let Finding { kind, promise, code, count, .. } = finding;
            let code = code.as_deref().unwrap_or("event");
            parts.push(format!("{promise} {code} {kind} ({count})"));
        }
        format!("BROKEN: {}", parts.join(", "))
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let rule = if self.exclusive { "one coupon per user" } else { "one coupon per user and code" };
        writeln!(f, "round {}, {rule}", self.round)?;
        let mut table = Table::new(&["code", "total", "remaining", "rows", "users", "serials", "lost"]);
        for coupon in &self.coupons {
            let CouponReport { code, total, remaining, rows, users, lost_updates, .. } = coupon;
            let serials = match (coupon.lowest_serial, coupon.highest_serial) {
                (Some(lowest), Some(highest)) => format!("{lowest}..{highest}"),
                _ => "-".to_owned(),
            };
            let [total, remaining, lost] =
                [i64::from(*total), i64::from(*remaining), *lost_updates].map(|it| it.to_string());
            table.row([code.clone(), total, remaining, rows.to_string(), users.to_string(), serials, lost]);
        }
        write!(f, "{}", table.text())?;
        if let Some(Acknowledged { answers, coupons, unacknowledged }) = self.acknowledged {
            writeln!(f, "{answers} answers name {coupons} coupons; {unacknowledged} coupons are known to no client")?;
        }
        if let Some(heard) = self.heard {
            writeln!(f, "{heard}")?;
        }
        for finding in &self.findings {
            writeln!(f, "{finding}")?;
        }
        write!(f, "verdict: {}", self.verdict())
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Self { kind, promise, code, evidence, .. } = self;
        write!(f, "{promise} {} {kind}: {evidence}", code.as_deref().unwrap_or("event"))
    }
}

impl fmt::Display for Heard {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Self { attempts, users, issued, already_issued, sold_out, refused, retryable, nothing, slowest } = self;
        write!(
            f,
            "{attempts} attempts of {users} users: {issued} issued, {already_issued} already issued, {sold_out} sold out, \
             {refused} refused, {retryable} not now, {nothing} without an answer; the slowest took {} ms",
            slowest / 1_000
        )
    }
}
