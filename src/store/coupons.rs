//! SQL on `coupon` as the strategies without batches see it: one row, one piece.
#![expect(clippy::disallowed_methods, reason = "this is where SQL lives")]

use std::time::Duration;

use sqlx::Row;
use sqlx::mysql::MySqlRow;

use super::wallet::{entry_columns, held};
use super::{Lane, StoreError, Tx, time};
use crate::coupons::{Code, Entry, Order, Timestamp, Window};

/// Whether the window of a coupon row, and the event's, is open now. `SYSDATE` is the time of its evaluation, after the row
/// was locked; the other clocks stand still from the statement's start, and the wait for the row may cross the closing. It
/// speaks the session's time zone, which sqlx sets to UTC.
macro_rules! open {
    () => {
        "(coupon.opens_at IS NULL OR coupon.opens_at <= SYSDATE(6)) \
         AND (coupon.closes_at IS NULL OR coupon.closes_at > SYSDATE(6)) \
         AND (coupon.event_opens_at IS NULL OR coupon.event_opens_at <= SYSDATE(6)) \
         AND (coupon.event_closes_at IS NULL OR coupon.event_closes_at > SYSDATE(6))"
    };
}

/// The columns that [`locked`] reads from the table `coupon`, with the clock.
macro_rules! row_columns {
    () => {
        concat!(
            "coupon.round, coupon.remaining, CAST(coupon.version AS UNSIGNED), CAST((",
            open!(),
            ") AS UNSIGNED), TIMESTAMPDIFF(MICROSECOND, '1970-01-01', SYSDATE(6)), \
             TIMESTAMPDIFF(MICROSECOND, '1970-01-01', GREATEST(COALESCE(coupon.opens_at, coupon.event_opens_at), \
               COALESCE(coupon.event_opens_at, coupon.opens_at))), \
             TIMESTAMPDIFF(MICROSECOND, '1970-01-01', LEAST(COALESCE(coupon.closes_at, coupon.event_closes_at), \
               COALESCE(coupon.event_closes_at, coupon.closes_at)))"
        )
    };
}

/// How many columns these are.
const ROW_COLUMNS: usize = 7;

/// One coupon row as a single-issue strategy reads it.
macro_rules! read {
    ($lock:literal) => {
        concat!("SELECT ", row_columns!(), " FROM coupon WHERE code = ?", $lock)
    };
}

/// The same and, in the same statement and so at the same moment, what a user holds in the coupon's scope.
const STANDING: &str = concat!(
    "SELECT ",
    row_columns!(),
    ", ",
    entry_columns!("held"),
    " \
  FROM coupon LEFT JOIN (wallet AS w JOIN coupon AS held ON held.id = w.coupon_id) \
    ON w.round = coupon.round AND w.scope = coupon.scope AND w.user_id = ? \
 WHERE coupon.code = ?"
);

/// Takes one piece if everything allows it; the serial comes back as the last insert id.
const TAKE_IF_LEFT: &str = concat!(
    "UPDATE coupon SET remaining = remaining - 1, next_serial = LAST_INSERT_ID(next_serial) + 1 \
      WHERE code = ? AND round = ? AND remaining >= 1 AND ",
    open!()
);

/// Takes one piece of a row of which none was taken since it was read, if the window is still open.
const TAKE_IF_UNCHANGED: &str = concat!(
    "UPDATE coupon \
   SET remaining = remaining - 1, version = version + 1, next_serial = LAST_INSERT_ID(next_serial) + 1 \
 WHERE code = ? AND round = ? AND version = ? AND remaining >= 1 AND ",
    open!()
);

/// Takes one piece of a row that this transaction has locked.
const TAKE: &str =
    "UPDATE coupon SET remaining = remaining - 1, next_serial = LAST_INSERT_ID(next_serial) + 1 WHERE code = ?";

/// Writes the count that was computed from an earlier read: the lost update, on purpose.
const OVERWRITE: &str = "UPDATE coupon SET remaining = ? WHERE code = ? AND round = ?";

/// A coupon row as one transaction sees it.
#[derive(Clone, Copy, Debug)]
pub struct LockedCoupon {
    /// The round of the row.
    pub round: u32,
    /// Pieces left.
    pub remaining: u32,
    /// The optimistic strategy's counter.
    pub version: u64,
    /// Whether its window is open now.
    pub open: bool,
    /// The time until it opens; `None` when it is open or over.
    pub opens_in: Option<Duration>,
    /// The database's clock.
    pub now: Timestamp,
}

/// Where an order stands at one moment: its coupon's row, and what its user holds in the scope.
#[derive(Clone, Debug)]
pub struct Standing {
    /// The row, which nothing locks.
    pub coupon: LockedCoupon,
    /// The user's entry in the row's round.
    pub held: Option<Entry>,
}

impl Lane {
    /// Where the order stands; `None` when there is no such coupon. One round trip, no lock.
    pub async fn standing(&mut self, order: &Order) -> Result<Option<Standing>, StoreError> {
        let query = || sqlx::query(STANDING).bind(order.user.as_str()).bind(order.code.as_str());
        let rows = self.read(query).await?;
        let standing = |row: &MySqlRow| Ok(Standing { coupon: locked(row)?, held: held(row, ROW_COLUMNS)? });
        rows.first().map(standing).transpose()
    }
}

impl Tx<'_> {
    /// Reads the coupon without locking it.
    pub async fn read(&mut self, code: &Code) -> Result<Option<LockedCoupon>, StoreError> {
        let row = self.fetch_optional(sqlx::query(read!("")).bind(code.as_str())).await?;
        row.map(|row| Ok(locked(&row)?)).transpose()
    }

    /// Reads the coupon and locks its row until the transaction ends.
    pub async fn read_for_update(&mut self, code: &Code) -> Result<Option<LockedCoupon>, StoreError> {
        let row = self.fetch_optional(sqlx::query(read!(" FOR UPDATE")).bind(code.as_str())).await?;
        row.map(|row| Ok(locked(&row)?)).transpose()
    }

    /// Takes one piece and returns its serial if the round is `round`, the window is open and one is left; else `None`.
    pub async fn take_if_left(&mut self, code: &Code, round: u32) -> Result<Option<u32>, StoreError> {
        let update = sqlx::query(TAKE_IF_LEFT).bind(code.as_str()).bind(round);
        Ok(serial(&self.execute(update).await?))
    }

    /// Takes one piece and returns its serial if the row has the round and the version of `seen`, and one is left; else `None`.
    pub async fn take_if_unchanged(&mut self, code: &Code, seen: LockedCoupon) -> Result<Option<u32>, StoreError> {
        let update = sqlx::query(TAKE_IF_UNCHANGED).bind(code.as_str()).bind(seen.round).bind(seen.version);
        Ok(serial(&self.execute(update).await?))
    }

    /// Takes one piece of the locked row and returns its serial; `None` if the row is gone.
    pub async fn take(&mut self, code: &Code) -> Result<Option<u32>, StoreError> {
        Ok(serial(&self.execute(sqlx::query(TAKE).bind(code.as_str())).await?))
    }

    /// Sets the count to `remaining` whatever it is now; returns whether the round is still `round`.
    pub async fn overwrite(&mut self, code: &Code, round: u32, remaining: u32) -> Result<bool, StoreError> {
        let update = sqlx::query(OVERWRITE).bind(remaining).bind(code.as_str()).bind(round);
        Ok(self.execute(update).await?.rows_affected() > 0)
    }
}

/// The serial that an `UPDATE` with `LAST_INSERT_ID(next_serial)` took; `None` when its condition did not hold.
fn serial(result: &sqlx::mysql::MySqlQueryResult) -> Option<u32> {
    if result.rows_affected() == 0 {
        return None;
    }
    u32::try_from(result.last_insert_id()).ok()
}

fn locked(row: &MySqlRow) -> Result<LockedCoupon, sqlx::Error> {
    let now = Timestamp(row.try_get(4)?);
    let window = Window { opens_at: time(row, 5)?, closes_at: time(row, 6)? };
    Ok(LockedCoupon {
        round: row.try_get(0)?,
        remaining: row.try_get(1)?,
        version: row.try_get(2)?,
        open: row.try_get::<u64, _>(3)? == 1,
        now,
        opens_in: window.opens_in(now),
    })
}
