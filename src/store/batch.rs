//! The batch: one `CALL issue_batch` settles all orders that waited for one code.
#![expect(clippy::disallowed_methods, reason = "this is where SQL lives")]

use std::collections::HashMap;
use std::fmt::Write;

use sqlx::mysql::{MySqlConnection, MySqlRow};
use sqlx::{Either, Executor, Row};

use super::wallet::{entry, entry_columns};
use super::{Lane, StoreError, limited};
use crate::coupons::{Code, Entry, Order, Settlement, Timestamp, UserId};

/// The entries which the batch's users hold in the scope of a code, without any lock.
const HELD: &str = concat!(
    "SELECT ",
    entry_columns!("held"),
    " \
  FROM coupon AS c \
  JOIN JSON_TABLE(?, '$[*]' COLUMNS (o VARCHAR(255) CHARACTER SET utf8mb4 PATH '$')) AS j \
  JOIN wallet AS w ON w.round = c.round AND w.scope = c.scope \
   AND w.user_id = CONVERT(SUBSTRING(j.o, 46) USING ascii) COLLATE ascii_bin \
  JOIN coupon AS held ON held.id = w.coupon_id \
 WHERE c.code = ?"
);

/// Longest JSON text of a batch. With it a call fits into one TLS record of 16 KiB: sqlx 0.9 writes every record by itself
/// and leaves Nagle's algorithm on, so that a second record would wait 40 ms for the server's delayed acknowledgement.
const ORDERS_LENGTH_MAX: usize = 16_000;

/// Characters of an order beside its user id: quotes, comma, request id, arrival.
const ORDER_LENGTH: usize = 3 + 32 + 13;

/// How many of `orders`, from the first on, one call can carry; about 250.
pub fn fitting<'a>(orders: impl Iterator<Item = &'a Order>) -> usize {
    let ends = orders.scan(2, |end, order| {
        *end += ORDER_LENGTH + order.user.as_str().len();
        Some(*end)
    });
    ends.take_while(|&end| end <= ORDERS_LENGTH_MAX).count()
}

impl Lane {
    /// Issues a coupon of `code` to each order, as far as rule and stock allow. One round trip, one transaction.
    ///
    /// `orders` are in the order in which serials are given. Safe to repeat with the same orders after any error.
    pub async fn issue_batch(&mut self, round: u32, code: &Code, orders: &[Order]) -> Result<Settlement, StoreError> {
        let mut connection = self.take().await?;
        let settlement = limited(settle(&mut connection, round, code, orders)).await?;
        self.keep(connection);
        Ok(settlement)
    }

    /// What the users of `orders` hold in the scope of `code`. One round trip, no lock.
    pub async fn held(&mut self, code: &Code, orders: &[Order]) -> Result<HashMap<UserId, Entry>, StoreError> {
        let mut connection = self.take().await?;
        let query = sqlx::query(HELD).bind(encode(orders)).bind(code.as_str());
        let rows = limited(query.fetch_all(&mut connection)).await?;
        self.keep(connection);
        let entries: Result<Vec<Entry>, _> = rows.iter().map(entry).collect();
        Ok(entries?.into_iter().map(|entry| (entry.user_id.clone(), entry)).collect())
    }
}

/// The JSON text that `issue_batch` reads. Ids are plain ASCII without quotes, so nothing needs escaping.
fn encode(orders: &[Order]) -> String {
    let mut json = String::with_capacity(ORDERS_LENGTH_MAX);
    json.push('[');
    for (place, order) in orders.iter().enumerate() {
        let comma = if place == 0 { "" } else { "," };
        let arrived = order.arrived_ms.unwrap_or(0);
        write!(json, "{comma}\"{}{arrived:013}{}\"", order.request, order.user).expect("a String takes any text");
    }
    json.push(']');
    json
}

async fn settle(
    connection: &mut MySqlConnection,
    round: u32,
    code: &Code,
    orders: &[Order],
) -> Result<Settlement, sqlx::Error> {
    use futures_util::TryStreamExt;

    let count = u32::try_from(orders.len()).unwrap_or(u32::MAX);
    let call =
        sqlx::query("CALL issue_batch(?, ?, ?, ?)").bind(round).bind(code.as_str()).bind(encode(orders)).bind(count);
    let mut results = connection.fetch_many(call);
    let mut settlement = None;
    while let Some(result) = results.try_next().await? {
        let Either::Right(row) = result else { continue };
        match &mut settlement {
            None => settlement = Some(summary(&row)?),
            Some(settled) => {
                let entry = entry(&row)?;
                settled.held.insert(entry.user_id.clone(), entry);
            }
        }
    }
    settlement.ok_or(sqlx::Error::RowNotFound)
}

/// The one row of the first result set.
fn summary(row: &MySqlRow) -> Result<Settlement, sqlx::Error> {
    let number = |column: usize| -> Result<u32, sqlx::Error> {
        let wide: u64 = row.try_get(column)?;
        u32::try_from(wide).map_err(|error| sqlx::Error::Decode(error.into()))
    };
    let now = Timestamp(row.try_get(7)?);
    let opens_at: Option<i64> = row.try_get(8)?;
    Ok(Settlement {
        known: number(0)? == 1,
        round: number(1)?,
        open: number(2)? == 1,
        opens_in: opens_at.and_then(|opens| now.until(Timestamp(opens))),
        first_serial: number(3)?,
        issued: number(4)?,
        repaired: number(5)? == 1,
        remaining: number(6)?,
        issued_at: Some(now),
        held: HashMap::new(),
    })
}
