//! What was found; for people an aligned table, then one line a finding.

use std::fmt::{self, Formatter};

use strum::Display;

use super::{Coupon, Event};
use crate::table::Table;

/// What one look at the tables shows.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// The current round and its rule.
    pub(super) event: Event,
    /// In the order of their codes.
    pub(super) coupons: Vec<Books>,
    pub(super) users: usize,
    /// How clients' knowledge compares; `None` when no acks were given.
    pub(super) acknowledged: Option<Acknowledged>,
    /// What the history holds; `None` when none was given.
    pub(crate) heard: Option<Heard>,
    /// Every broken promise; empty when the tables are clean.
    pub findings: Vec<Finding>,
}

/// A coupon and its issued pieces in the judged round.
#[derive(Clone, Debug)]
pub(super) struct Books {
    pub(super) coupon: Coupon,
    pub(super) rows: usize,
    pub(super) users: usize,
    /// The lowest and the highest; `None` without rows, and under `unlocked`, which gives none.
    pub(super) serials: Option<(u32, u32)>,
    /// `rows - (total - remaining)`: decrements that overwrote each other. Negative: pieces taken from stock that
    /// nobody holds.
    pub(super) lost_updates: i64,
}

/// What clients were answered, against what the wallet holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Acknowledged {
    /// Answers that carried an entry.
    pub(super) answers: usize,
    /// Different coupons of the current round among them.
    pub(super) coupons: usize,
    /// Coupons in the wallet of which no client knows: it may have vanished before the answer. No broken promise.
    pub(super) unacknowledged: usize,
}

/// What clients asked and were answered, counted by [`Told`](crate::history::Told).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Heard {
    pub(crate) attempts: usize,
    pub(crate) users: usize,
    pub(crate) issued: usize,
    pub(crate) already_issued: usize,
    pub(crate) sold_out: usize,
    pub(crate) refused: usize,
    pub(crate) retryable: usize,
    pub(crate) nothing: usize,
    /// The longest from asking to the answer, or to giving up, in microseconds.
    pub(crate) slowest: u64,
}

/// One broken promise about one code, or about the event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// What is wrong.
    pub kind: Kind,
    /// The coupon; `None` when it is about the whole event.
    pub(crate) code: Option<String>,
    /// How many rows, serials, users or answers show it.
    pub(crate) count: usize,
    /// A few examples.
    pub(crate) evidence: String,
}

/// The ways in which a promise can be broken, in the order of the promises.
#[expect(missing_docs, reason = "most names say it; the rules are in docs/CHAOS.md")]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Display)]
#[strum(serialize_all = "kebab-case")]
pub enum Kind {
    // P1
    Oversold,
    SerialMissing,
    SerialTwice,
    SerialGap,
    SerialOutOfRange,
    NextSerial,
    /// A serial that was told before another request was even made is higher than that request's.
    OutOfOrder,
    /// Two users were promised the same piece.
    AckSerialTwice,
    // P2
    /// A user holds two coupons where one is allowed.
    UserTwice,
    /// A row outside its round's scope, where the primary key cannot keep its user from a second coupon.
    WrongScope,
    /// Two requests of one user were both told that they got a coupon, where one is allowed.
    IssuedTwice,
    // P3
    AckLost,
    AckOtherUser,
    AckOtherRound,
    /// A wallet was shown without an entry that its user had been told of before it looked.
    WalletOfThePast,
    // P4
    /// Stock is left although the run was expected to issue everything.
    NotSoldOut,
    /// "Sold out" was told before enough requests had been made to take all pieces.
    FalseSoldOut,
    /// A request that was first made after somebody was told "sold out" got a piece.
    SoldOutThenIssued,
    /// A user was told "sold out" for a coupon that it holds.
    SoldOutHolder,
    /// A client was told something that is neither a coupon nor a lack of it, about an open coupon or of its wallet.
    Refused,
    NotOpenWhileOpen,
    UnknownWhileThere,
    /// Fewer coupons were issued than there were pieces and users who asked.
    Unserved,
    // P5
    UnknownCoupon,
    /// A coupon's copy of the event's round or rule differs from the event.
    OutOfStep,
    /// `total` is not `remaining` plus rows.
    Conservation,
    /// What an administrator changed is not so any more.
    ChangeLost,
    /// A user holds a coupon that it never asked for.
    Unasked,
    // P6
    AckOtherSerial,
    AckOtherRequest,
    AckOtherCode,
    /// What was told of an entry's time is not what the row has.
    AckOtherTime,
    /// A request was told that it got a coupon now, and had been told before that it had it.
    IssuedAnew,
    /// A user was told that another request of its got a coupon, when that had not been made.
    AlreadyUnfounded,
    /// A user was told of an entry of a round that was over before it asked, or had not begun.
    EntryOfAnotherTime,
    /// "Not open" was told to a user who had been told of its coupon.
    NotOpenHolder,
    // P7
    /// A user's last answer, about a coupon or of its wallet, is "not now", or none.
    NeverFinal,
    TooSlow,
}

impl Kind {
    /// `P1` to `P7`.
    fn promise(self) -> &'static str {
        match self {
            _ if self <= Self::AckSerialTwice => "P1",
            _ if self <= Self::IssuedTwice => "P2",
            _ if self <= Self::WalletOfThePast => "P3",
            _ if self <= Self::Unserved => "P4",
            _ if self <= Self::Unasked => "P5",
            _ if self <= Self::NotOpenHolder => "P6",
            _ => "P7",
        }
    }
}

impl Finding {
    pub(crate) fn new(kind: Kind, code: Option<&str>, count: usize, evidence: String) -> Self {
        Self { kind, code: code.map(str::to_owned), count, evidence }
    }

    /// Without its evidence.
    fn text(&self) -> String {
        let Self { kind, code, count, .. } = self;
        format!("{} {} {kind} ({count})", kind.promise(), code.as_deref().unwrap_or("event"))
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
        let coupons = self.coupons.iter().map(|it| &it.coupon);
        for Coupon { code, total, remaining, .. } in coupons.filter(|it| it.open && it.remaining > 0) {
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
        let lost = self.lost_updates();
        let lost = (lost > 0).then(|| format!("{lost} lost updates"));
        let parts: Vec<_> = lost.into_iter().chain(self.findings.iter().map(Finding::text)).collect();
        format!("BROKEN: {}", parts.join(", "))
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Event { round, exclusive } = self.event;
        writeln!(f, "round {round}, one coupon per user{}", if exclusive { "" } else { " and code" })?;
        let mut table = Table::new(&["code", "total", "remaining", "rows", "users", "serials", "lost"]);
        for Books { coupon: Coupon { code, total, remaining, .. }, rows, users, serials, lost_updates } in &self.coupons
        {
            let serials = serials.map_or("-".to_owned(), |(lowest, highest)| format!("{lowest}..{highest}"));
            let cells: [&dyn fmt::Display; 7] = [code, total, remaining, rows, users, &serials, lost_updates];
            table.row(cells);
        }
        write!(f, "{}", table.text())?;
        if let Some(Acknowledged { answers, coupons, unacknowledged }) = self.acknowledged {
            writeln!(f, "{answers} answers name {coupons} coupons; {unacknowledged} coupons are known to no client")?;
        }
        if let Some(heard) = self.heard {
            writeln!(f, "{}", heard.text())?;
        }
        for finding in &self.findings {
            writeln!(f, "{finding}")?;
        }
        write!(f, "verdict: {}", self.verdict())
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.text(), self.evidence)
    }
}

impl Heard {
    fn text(self) -> String {
        let Self { attempts, users, issued, already_issued, sold_out, refused, retryable, nothing, slowest } = self;
        format!(
            "{attempts} attempts of {users} users: {issued} issued, {already_issued} already issued, {sold_out} sold out, \
             {refused} refused, {retryable} not now, {nothing} without an answer; the slowest took {} ms",
            slowest / 1_000
        )
    }
}
