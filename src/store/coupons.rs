//! SQL on `coupon` and `event`: stock, windows, rounds.
#![expect(clippy::disallowed_methods, reason = "this is where SQL lives")]

use std::time::Duration;

use sqlx::Row;
use sqlx::mysql::MySqlRow;
use tokio::time::Instant;

use super::session::takes_writes;
use super::wallet::{entry_columns, held};
use super::{Lane, StoreError, Tx};
use crate::coupons::{Code, Coupon, Entry, Order, Timestamp, Window};

/// Event and coupons in one statement, so that they belong to one moment and one generation.
const CATALOGUE: &str = concat!(
    "SELECT CAST(e.generation AS UNSIGNED), e.round, e.exclusive, \
       TIMESTAMPDIFF(MICROSECOND, '1970-01-01', UTC_TIMESTAMP(6)), \
       c.code, c.scope, c.discount_percent, c.total, c.remaining, c.next_serial, \
       TIMESTAMPDIFF(MICROSECOND, '1970-01-01', c.opens_at), TIMESTAMPDIFF(MICROSECOND, '1970-01-01', c.closes_at), \
       TIMESTAMPDIFF(MICROSECOND, '1970-01-01', e.opens_at), TIMESTAMPDIFF(MICROSECOND, '1970-01-01', e.closes_at), ",
    takes_writes!(),
    " \
  FROM event AS e LEFT JOIN coupon AS c ON c.code IS NOT NULL ORDER BY c.id"
);

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

/// How many there are.
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

/// Takes one piece of a row that nobody has taken one of since it was read, if the window is still open.
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
    /// One coupon per user over the whole event, in this round.
    pub exclusive: bool,
    /// The coupons, each with the scope of its holders.
    pub coupons: Vec<(Coupon, u16)>,
}

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
        let query = sqlx::query(STANDING).bind(order.user.as_str()).bind(order.code.as_str());
        let row = self.ask(async |sql| query.fetch_optional(sql).await).await?;
        let standing = |row: &MySqlRow| Ok(Standing { coupon: locked(row)?, held: held(row, ROW_COLUMNS)? });
        row.as_ref().map(standing).transpose()
    }

    /// Reads everything that a replica remembers, from a server that takes writes. One round trip.
    pub async fn catalogue(&mut self) -> Result<Catalogue, StoreError> {
        let mut connection = self.take().await?;
        let asked = Instant::now();
        let rows = connection.ask(async |sql| sqlx::query(CATALOGUE).fetch_all(sql).await).await?;
        let answered = Instant::now();
        self.keep(connection);
        let first = rows.first().ok_or(StoreError::NoEvent)?;
        if first.try_get::<u64, _>(14)? == 0 {
            return Err(self.leave_the_server());
        }
        Ok(Catalogue {
            asked,
            answered,
            now: Timestamp(first.try_get(3)?),
            generation: first.try_get(0)?,
            round: first.try_get(1)?,
            exclusive: first.try_get(2)?,
            coupons: rows.iter().filter_map(|row| coupon(row).transpose()).collect::<Result<_, _>>()?,
        })
    }
}

/// The coupon of a catalogue row; `None` when the event has no coupons at all.
fn coupon(row: &MySqlRow) -> Result<Option<(Coupon, u16)>, sqlx::Error> {
    let time = |column: usize| -> Result<Option<Timestamp>, sqlx::Error> {
        Ok(row.try_get::<Option<i64>, _>(column)?.map(Timestamp))
    };
    let Some(code) = row.try_get::<Option<String>, _>(4)?.as_deref().and_then(Code::stored) else {
        return Ok(None);
    };
    let window = Window { opens_at: time(10)?, closes_at: time(11)? };
    let event = Window { opens_at: time(12)?, closes_at: time(13)? };
    let coupon = Coupon {
        code,
        discount_percent: row.try_get(6)?,
        total: row.try_get(7)?,
        remaining: row.try_get(8)?,
        next_serial: row.try_get(9)?,
        window,
        effective: window.intersection(event),
    };
    Ok(Some((coupon, row.try_get(5)?)))
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

    /// Takes one piece and returns its serial if nobody wrote the row since `seen`; else `None`.
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
    let time = |column: usize| -> Result<Option<Timestamp>, sqlx::Error> {
        Ok(row.try_get::<Option<i64>, _>(column)?.map(Timestamp))
    };
    let now = Timestamp(row.try_get(4)?);
    let window = Window { opens_at: time(5)?, closes_at: time(6)? };
    Ok(LockedCoupon {
        round: row.try_get(0)?,
        remaining: row.try_get(1)?,
        version: row.try_get(2)?,
        open: row.try_get::<u64, _>(3)? == 1,
        now,
        opens_in: window.opens_in(now),
    })
}
