//! Reads what a round left in the tables, in one snapshot, and has it judged. It never writes, so it may run beside a
//! rush. The rules are in `rules` and know no SQL; this file knows no rule.

#![expect(clippy::disallowed_methods, reason = "the laboratory's SQL lives here and in database")]

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use anyhow::Context;
use sqlx::{FromRow, MySqlConnection};

pub use crate::history::Ack;
use crate::history::History;

mod acks;
mod history;
mod report;
mod rules;

pub use acks::read_acks;
pub(crate) use report::Heard;
pub use report::{Finding, Kind, Report};
use rules::judge;

/// Longest that an answer may take: the service's deadline and a second.
pub const PATIENCE: Duration = Duration::from_secs(6);
/// A level below would ignore the snapshot, and the session's default may be one.
const LEVEL: &str = "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ";
const SNAPSHOT: &str = "START TRANSACTION WITH CONSISTENT SNAPSHOT, READ ONLY";
const EVENT: &str = "SELECT round, exclusive FROM event WHERE id = 1";
const COUPONS: &str = "SELECT id, code, total, remaining, next_serial, round, scope, \
     COALESCE(opens_at <= UTC_TIMESTAMP(6), TRUE) AND COALESCE(closes_at > UTC_TIMESTAMP(6), TRUE) \
     AND COALESCE(event_opens_at <= UTC_TIMESTAMP(6), TRUE) AND COALESCE(event_closes_at > UTC_TIMESTAMP(6), TRUE) \
     AS open FROM coupon WHERE code IS NOT NULL ORDER BY code";
const RETIRED: &str = "SELECT id, retired_code FROM coupon WHERE code IS NULL";
const HOLDINGS: &str = "SELECT round, scope, user_id, coupon_id, serial, LOWER(HEX(request_id)) AS request_id, \
     TIMESTAMPDIFF(MICROSECOND, '1970-01-01', issued_at) AS issued_at FROM wallet WHERE round = ?";

/// Judges the current round, and every coupon that `acks` says a client was promised.
///
/// `acks` are the entries that clients were answered with 201 or 200; `None` skips the rules about them. Repeating is
/// safe: everything is read in one read-only transaction. A caller that drops the future must close the connection.
pub async fn verify(connection: &mut MySqlConnection, acks: Option<&[Ack]>) -> anyhow::Result<Report> {
    let tables = snapshot(connection, acks.unwrap_or_default().iter().map(|ack| ack.round)).await?;
    Ok(judge(&tables, acks))
}

/// Judges the current round as [`verify`] does, and the tables of every round in the history against all that its clients asked
/// and were answered, and against what others were promised. `patience` is the longest that an answer may take.
///
/// The history must be whole: every attempt at the codes that it names, and whatever an administrator did meanwhile. Where it names no
/// situation, it is that of the tables.
pub async fn verify_history(
    connection: &mut MySqlConnection,
    acks: Option<&[Ack]>,
    history: &History,
    patience: Duration,
) -> anyhow::Result<Report> {
    let mut all = acks.unwrap_or_default().to_vec();
    all.extend(history::acks(history));
    let rounds = all.iter().map(|ack| ack.round).chain(history.changes.iter().map(|change| change.after.round));
    let tables = snapshot(connection, rounds).await?;
    let mut report = judge(&tables, Some(&all));
    history::judge(&tables, history, patience, &mut report);
    Ok(report)
}

async fn snapshot(connection: &mut MySqlConnection, rounds: impl Iterator<Item = u32>) -> anyhow::Result<Tables> {
    for statement in [LEVEL, SNAPSHOT] {
        sqlx::raw_sql(statement).execute(&mut *connection).await.context("cannot read in one snapshot")?;
    }
    let tables = read(connection, rounds).await;
    // Whatever happened, the caller gets the connection back without a transaction in it.
    sqlx::raw_sql("ROLLBACK").execute(connection).await.context("the connection broke while reading the tables")?;
    tables.context("cannot read the tables; `make up` creates them")
}

/// What one snapshot holds.
#[derive(Clone, Debug)]
struct Tables {
    event: Event,
    /// In the order of their codes.
    coupons: Vec<Coupon>,
    /// Codes of retired coupons, by their id: nobody holds one in the current round, and clients may have been promised one before.
    retired: Vec<(u16, String)>,
    /// The wallet, of the current round and of every older one that a client was promised something in.
    holdings: Vec<Holding>,
}

impl Tables {
    /// The code of every coupon that was ever made, by its id.
    fn codes(&self) -> HashMap<u16, &str> {
        let retired = self.retired.iter().map(|(id, code)| (*id, code.as_str()));
        self.coupons.iter().map(|coupon| (coupon.id, coupon.code.as_str())).chain(retired).collect()
    }
}

#[derive(Clone, Copy, Debug, Default, FromRow)]
struct Event {
    round: u32,
    exclusive: bool,
}

impl Event {
    /// The scope of a coupon's rows, by which the primary key keeps the round's rule.
    fn scope(self, coupon_id: u16) -> u16 {
        if self.exclusive { 0 } else { coupon_id }
    }
}

#[derive(Clone, Debug, FromRow)]
struct Coupon {
    id: u16,
    code: String,
    total: u32,
    remaining: u32,
    next_serial: u32,
    round: u32,
    scope: u16,
    /// Whether both windows, the coupon's and the event's, are open at the time of the snapshot.
    open: bool,
}

#[derive(Clone, Debug, FromRow)]
struct Holding {
    round: u32,
    scope: u16,
    user_id: String,
    coupon_id: u16,
    serial: Option<u32>,
    /// In hexadecimal digits, as clients know it.
    request_id: String,
    /// Microseconds since 1970.
    issued_at: i64,
}

async fn read(connection: &mut MySqlConnection, rounds: impl Iterator<Item = u32>) -> sqlx::Result<Tables> {
    let event: Event = sqlx::query_as(EVENT).fetch_one(&mut *connection).await?;
    let coupons = sqlx::query_as(COUPONS).fetch_all(&mut *connection).await?;
    let retired = sqlx::query_as(RETIRED).fetch_all(&mut *connection).await?;
    // A client may have been answered just before a reset; its coupon is in the older round.
    let rounds: BTreeSet<u32> = rounds.chain([event.round]).collect();
    let mut holdings = Vec::new();
    for round in rounds {
        let rows: Vec<Holding> = sqlx::query_as(HOLDINGS).bind(round).fetch_all(&mut *connection).await?;
        holdings.extend(rows);
    }
    Ok(Tables { event, coupons, retired, holdings })
}
