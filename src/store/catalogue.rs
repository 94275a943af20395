//! What a replica remembers, as it is read: all coupons with the event, and the entries of one scope.
#![expect(clippy::disallowed_methods, reason = "this is where SQL lives")]

use sqlx::Row;
use sqlx::mysql::MySqlRow;
use tokio::time::Instant;

use super::session::takes_writes;
use super::wallet::{entry, entry_columns};
use super::{Lane, StoreError, time};
use crate::coupons::{Code, Coupon, Entry, Timestamp, Window};

/// Event and coupons in one statement, so that they belong to one moment and one generation.
const CATALOGUE: &str = concat!(
    "SELECT CAST(e.generation AS UNSIGNED), e.round, \
       TIMESTAMPDIFF(MICROSECOND, '1970-01-01', UTC_TIMESTAMP(6)), \
       c.code, c.scope, c.discount_percent, c.total, c.remaining, c.next_serial, \
       TIMESTAMPDIFF(MICROSECOND, '1970-01-01', c.opens_at), TIMESTAMPDIFF(MICROSECOND, '1970-01-01', c.closes_at), \
       TIMESTAMPDIFF(MICROSECOND, '1970-01-01', e.opens_at), TIMESTAMPDIFF(MICROSECOND, '1970-01-01', e.closes_at), ",
    takes_writes!(),
    " \
  FROM event AS e LEFT JOIN coupon AS c ON c.code IS NOT NULL ORDER BY c.id"
);

/// All entries of a scope in a round.
const OF_SCOPE: &str = concat!(
    "SELECT ",
    entry_columns!("c"),
    " \
  FROM wallet AS w JOIN coupon AS c ON c.id = w.coupon_id WHERE w.round = ? AND w.scope = ?"
);

/// Waits for every transaction that is still at work on a coupon of the scope. A scope is a coupon's id or, where there is but one,
/// 0: found by its key, a coupon waits for no other one's row.
const FENCE: &str = "SELECT id FROM coupon WHERE id = ? LOCK IN SHARE MODE";

/// The same for all coupons.
const FENCE_ALL: &str = "SELECT id FROM coupon LOCK IN SHARE MODE";

/// The whole state of the event at one moment.
#[derive(Debug)]
pub struct Catalogue {
    /// Just before the statement was sent: the state is at least as new as this.
    pub asked: Instant,
    /// Just after its answer was in: the database's clock was read between the two.
    pub answered: Instant,
    /// The database's clock when it answered.
    pub now: Timestamp,
    /// Grows with every administrative change.
    pub generation: u64,
    /// The current round.
    pub round: u32,
    /// The coupons, each with the scope of its holders.
    pub coupons: Vec<(Coupon, u16)>,
}

/// Where a memory reads: a lane, or in tests a model of one.
pub trait Source: Send {
    /// Reads everything but the holders, from a server that takes writes. One round trip.
    fn catalogue(&mut self) -> impl Future<Output = Result<Catalogue, StoreError>> + Send;

    /// Reads all entries of one scope in one round. Transactions that were issuing when a window closed have committed before. Two
    /// round trips, and in a group the proof of a majority before them.
    fn entries(&mut self, round: u32, scope: u16) -> impl Future<Output = Result<Vec<Entry>, StoreError>> + Send;
}

impl Source for Lane {
    async fn catalogue(&mut self) -> Result<Catalogue, StoreError> {
        let mut connection = self.take().await?;
        let asked = Instant::now();
        connection.prove().await?;
        let rows = connection.ask(async |sql| sqlx::query(CATALOGUE).fetch_all(sql).await).await?;
        let answered = Instant::now();
        let takes_writes = rows.first().map(|first| first.try_get::<u64, _>(13)).transpose()?;
        if takes_writes == Some(0) {
            return Err(connection.leave_the_server());
        }
        self.keep(connection);
        let first = rows.first().ok_or(StoreError::NoEvent)?;
        Ok(Catalogue {
            asked,
            answered,
            now: Timestamp(first.try_get(2)?),
            generation: first.try_get(0)?,
            round: first.try_get(1)?,
            coupons: rows.iter().filter_map(|row| coupon(row).transpose()).collect::<Result<_, _>>()?,
        })
    }

    async fn entries(&mut self, round: u32, scope: u16) -> Result<Vec<Entry>, StoreError> {
        let fence = if scope == 0 { sqlx::query(FENCE_ALL) } else { sqlx::query(FENCE).bind(scope) };
        let mut connection = self.take().await?;
        connection.prove().await?;
        connection.ask(async |sql| fence.fetch_all(sql).await).await?;
        let query = sqlx::query(OF_SCOPE).bind(round).bind(scope);
        let rows = connection.ask(async |sql| query.fetch_all(sql).await).await?;
        self.keep(connection);
        rows.iter().map(|row| Ok(entry(row)?)).collect()
    }
}

/// The coupon of a catalogue row; `None` when the event has no coupons at all.
fn coupon(row: &MySqlRow) -> Result<Option<(Coupon, u16)>, sqlx::Error> {
    let Some(code) = row.try_get::<Option<String>, _>(3)?.as_deref().and_then(Code::stored) else {
        return Ok(None);
    };
    let window = Window { opens_at: time(row, 9)?, closes_at: time(row, 10)? };
    let event = Window { opens_at: time(row, 11)?, closes_at: time(row, 12)? };
    let coupon = Coupon {
        code,
        discount_percent: row.try_get(5)?,
        total: row.try_get(6)?,
        remaining: row.try_get(7)?,
        next_serial: row.try_get(8)?,
        window,
        effective: window.intersection(event),
    };
    Ok(Some((coupon, row.try_get(4)?)))
}
