//! SQL on `wallet`: what users hold.
#![expect(clippy::disallowed_methods, reason = "this is where SQL lives")]

use sqlx::Row;
use sqlx::mysql::MySqlRow;

use super::{Store, StoreError, Tx};
use crate::coupons::{Code, Entry, Order, RequestId, Timestamp, UserId};

/// The columns that [`entry`] reads, from `wallet AS w` and the coupon row called `$coupon`.
macro_rules! entry_columns {
    ($coupon:literal) => {
        concat!(
            "w.user_id, ",
            $coupon,
            ".code, CAST(w.serial AS UNSIGNED), w.request_id, TIMESTAMPDIFF(MICROSECOND, '1970-01-01', w.issued_at), w.round"
        )
    };
}
pub(super) use entry_columns;

/// What a user holds in the current round; the primary key finds it, whatever the scope.
const OF_USER: &str = concat!(
    "SELECT ",
    entry_columns!("c"),
    " \
  FROM coupon AS c \
  JOIN wallet AS w ON w.round = c.round AND w.scope = c.scope AND w.user_id = ? AND w.coupon_id = c.id \
 ORDER BY c.code"
);

/// The row takes round and scope from the coupon row that the transaction has locked. The request id travels as text: bytes
/// that are no UTF-8 in a running statement break `information_schema.processlist` for everybody.
const INSERT: &str = "INSERT INTO wallet (round, scope, user_id, coupon_id, serial, request_id, arrived_ms, issued_at) \
SELECT round, scope, ?, id, ?, UNHEX(?), ?, TIMESTAMPADD(MICROSECOND, ?, '1970-01-01') FROM coupon WHERE code = ?";

/// Whether a wallet row could be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Inserted {
    /// It is there.
    New,
    /// The user holds an entry in this scope already; nothing was written.
    Duplicate,
}

/// Reads an entry from [`entry_columns`].
pub(super) fn entry(row: &MySqlRow) -> Result<Entry, sqlx::Error> {
    entry_from(row, 0)
}

/// Reads an entry from [`entry_columns`] after so many others; `None` where the wallet's side of an outer join is empty.
pub(super) fn held(row: &MySqlRow, first: usize) -> Result<Option<Entry>, sqlx::Error> {
    let user: Option<&str> = row.try_get(first)?;
    user.map(|_| entry_from(row, first)).transpose()
}

fn entry_from(row: &MySqlRow, first: usize) -> Result<Entry, sqlx::Error> {
    let id = |column: usize| -> Result<String, sqlx::Error> { row.try_get(column) };
    let malformed = |text: &str| sqlx::Error::Decode(format!("`{text}` in the wallet is no id").into());
    let (user, code) = (id(first)?, id(first + 1)?);
    let serial: Option<u64> = row.try_get(first + 2)?;
    let request: Vec<u8> = row.try_get(first + 3)?;
    Ok(Entry {
        code: Code::stored(&code).ok_or_else(|| malformed(&code))?,
        user_id: UserId::stored(&user).ok_or_else(|| malformed(&user))?,
        serial: serial.and_then(|serial| u32::try_from(serial).ok()),
        round: row.try_get(first + 5)?,
        request_id: RequestId(request.try_into().map_err(|_| malformed("request_id"))?),
        issued_at: Timestamp(row.try_get(first + 4)?),
    })
}

impl Store {
    /// Everything `user` holds in the current round, by code.
    pub async fn wallet_of(&self, user: &UserId) -> Result<Vec<Entry>, StoreError> {
        let mut lane = self.wallets.soon().await?;
        let rows = lane.read(|| sqlx::query(OF_USER).bind(user.as_str())).await?;
        rows.iter().map(|row| Ok(entry(row)?)).collect()
    }
}

impl Tx<'_> {
    /// Writes the order's row. This transaction must have locked or written the coupon's row before: in the other order two issuers
    /// would deadlock.
    pub async fn insert(
        &mut self,
        order: &Order,
        serial: Option<u32>,
        issued_at: Timestamp,
    ) -> Result<Inserted, StoreError> {
        let insert = sqlx::query(INSERT)
            .bind(order.user.as_str())
            .bind(serial)
            .bind(order.request.to_string())
            .bind(order.arrived_ms)
            .bind(issued_at.0)
            .bind(order.code.as_str());
        match self.execute(insert).await {
            Ok(_) => Ok(Inserted::New),
            Err(StoreError::Duplicate(_)) => Ok(Inserted::Duplicate),
            Err(error) => Err(error),
        }
    }
}
