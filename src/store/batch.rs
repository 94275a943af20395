//! The batch: one `CALL issue_batch` settles all orders that waited for one code.
#![expect(clippy::disallowed_methods, reason = "this is where SQL lives")]

use std::collections::HashMap;
use std::fmt::Write;

use base64::Engine;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use sqlx::mysql::{MySqlConnection, MySqlRow};
use sqlx::{Either, Executor, Row};

use super::wallet::{entry, entry_columns, held};
use super::{Lane, Standing, Store, StoreError};
use crate::coupons::{Code, Entry, Order, Settlement, Timestamp, UserId};

/// The round of a code, and the entries which the batch's users hold in it and the code's scope, without any lock. Where none of them
/// holds anything, the round comes alone.
const HELD: &str = concat!(
    "SELECT c.round, ",
    entry_columns!("held"),
    " \
  FROM coupon AS c \
  LEFT JOIN (JSON_TABLE(?, '$[*]' COLUMNS (o VARCHAR(255) CHARACTER SET utf8mb4 PATH '$')) AS j \
    JOIN wallet AS w ON w.user_id = CONVERT(SUBSTRING(j.o, 28) USING ascii) COLLATE ascii_bin \
    JOIN coupon AS held ON held.id = w.coupon_id) \
    ON w.round = c.round AND w.scope = c.scope \
 WHERE c.code = ?"
);

/// Longest JSON text of a batch. With it a call fits into one TLS record of 16 KiB: sqlx 0.9 writes every record by itself
/// and leaves Nagle's algorithm on, so that a second record would wait 40 ms for the server's delayed acknowledgement.
const ORDERS_LENGTH_MAX: usize = 16_000;

/// Characters of an order beside its user id: quotes, comma, request id in base64, arrival.
const ORDER_LENGTH: usize = 3 + 22 + 5;

/// The arrival of an order without nginx's stamp, or of one that came too long after the batch's first one.
const ARRIVAL_UNKNOWN: u64 = 99_999;

/// How many of `orders`, from the first on, one call can carry: 380 with user ids of 12 characters, 242 with the longest.
pub fn fitting<'a>(orders: impl Iterator<Item = &'a Order>) -> usize {
    let ends = orders.scan(2, |end, order| {
        *end += ORDER_LENGTH + order.user.as_str().len();
        Some(*end)
    });
    ends.take_while(|&end| end <= ORDERS_LENGTH_MAX).count()
}

/// What the users of some orders hold in the scope of a code, at one moment.
#[derive(Clone, Debug, Default)]
pub struct Held {
    /// The round of the code then, and of the entries; 0 when there is no such code.
    pub round: u32,
    /// By user.
    pub entries: HashMap<UserId, Entry>,
}

/// The database as a batch sees it: the store, or in the simulation a model that fails on demand.
pub trait Database: Send + Sync + 'static {
    /// The right to one connection.
    type Lane: Calls;

    /// A lane for batches, as soon as one is free.
    fn lane(&self) -> impl Future<Output = Self::Lane> + Send;

    /// Whether all of these are lent.
    fn lanes_are_lent(&self) -> bool;
}

/// What a batch asks of a lane.
pub trait Calls: Send + 'static {
    /// Whether it leads to the primary now. With one server it always says yes, so that an order learns of a failure at once.
    fn is_ready(&mut self) -> impl Future<Output = bool> + Send {
        std::future::ready(true)
    }

    /// Issues one piece of `code` to each order, as far as rule and stock allow. One round trip, one transaction.
    ///
    /// `orders` are in the order in which serials are given. Safe to repeat with the same orders after any error.
    fn issue_batch(
        &mut self,
        round: u32,
        code: &Code,
        orders: &[Order],
    ) -> impl Future<Output = Result<Settlement, StoreError>> + Send;

    /// What the users of `orders` hold in the scope of `code`. One round trip, no lock.
    fn held(&mut self, code: &Code, orders: &[Order]) -> impl Future<Output = Result<Held, StoreError>> + Send;
}

impl Database for Store {
    type Lane = Lane;

    async fn lane(&self) -> Lane {
        self.batches.free().await
    }

    fn lanes_are_lent(&self) -> bool {
        self.batches.are_lent()
    }
}

impl Calls for Lane {
    async fn is_ready(&mut self) -> bool {
        !self.may_move() || self.connect().await.is_ok()
    }

    async fn issue_batch(&mut self, round: u32, code: &Code, orders: &[Order]) -> Result<Settlement, StoreError> {
        let mut connection = self.take().await?;
        let mut settlement = connection.ask(async |sql| settle(sql, round, code, orders).await).await?;
        if settlement.issued == 0 && connection.is_in_group() {
            // A commit proves the majority, and this batch has committed nothing.
            connection.prove().await?;
            settlement = connection.ask(async |sql| settle(sql, round, code, orders).await).await?;
        }
        self.keep(connection);
        // The procedure tells the opening alone, and what closes before it opens never does.
        if let (Some(_), Some(order)) = (settlement.opens_in, orders.first())
            && let Some(Standing { coupon, .. }) = self.standing(order).await?
            && !coupon.open
        {
            settlement.opens_in = coupon.opens_in;
        }
        Ok(settlement)
    }

    async fn held(&mut self, code: &Code, orders: &[Order]) -> Result<Held, StoreError> {
        let orders = encode(orders, since(orders));
        let rows = self.read(|| sqlx::query(HELD).bind(orders.as_str()).bind(code.as_str())).await?;
        let round = rows.first().map_or(Ok(0), |row| row.try_get(0))?;
        let entries: Result<Vec<Option<Entry>>, _> = rows.iter().map(|row| held(row, 1)).collect();
        let entries = entries?.into_iter().flatten().map(|entry| (entry.user_id.clone(), entry)).collect();
        Ok(Held { round, entries })
    }
}

/// The arrival from which those of a batch are counted: the earliest, in milliseconds since 1970.
fn since(orders: &[Order]) -> u64 {
    orders.iter().filter_map(|order| order.arrived_ms).min().unwrap_or(0)
}

/// The JSON text that `issue_batch` and [`HELD`] read by columns: 22 of the request, 5 of the arrival, and from the 28th on the user. Ids
/// are plain ASCII without quotes, so nothing needs escaping.
fn encode(orders: &[Order], since: u64) -> String {
    let mut json = String::with_capacity(ORDERS_LENGTH_MAX);
    json.push('[');
    for (place, order) in orders.iter().enumerate() {
        json.push_str(if place == 0 { "\"" } else { ",\"" });
        STANDARD_NO_PAD.encode_string(order.request.0, &mut json);
        let arrived = order.arrived_ms.map_or(ARRIVAL_UNKNOWN, |arrived| (arrived - since).min(ARRIVAL_UNKNOWN));
        write!(json, "{arrived:05}{}\"", order.user).expect("a String takes any text");
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
    let since = since(orders);
    let call = sqlx::query("CALL issue_batch(?, ?, ?, ?, ?)")
        .bind(round)
        .bind(code.as_str())
        .bind(since)
        .bind(encode(orders, since))
        .bind(count);
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::coupons::RequestId;

    fn order(user: &str, arrived_ms: Option<u64>) -> Order {
        let (code, user) = (Code::parse("A").unwrap(), UserId::parse(user).unwrap());
        Order { code, user, request: RequestId([0xff; 16]), arrived_ms }
    }

    #[test]
    fn an_order_is_its_request_its_arrival_after_the_first_and_its_user() {
        let orders =
            [order("u-1", None), order("u-2", Some(7_000)), order("u-3", Some(7_012)), order("u-4", Some(999_000))];
        let id = "/////////////////////w";
        let expected = format!(r#"["{id}99999u-1","{id}00000u-2","{id}00012u-3","{id}99999u-4"]"#);
        assert_eq!(encode(&orders, since(&orders)), expected);
    }

    #[test]
    fn a_call_takes_as_many_orders_as_its_text_has_room_for() {
        let orders: Vec<_> = (0..500).map(|_| order(&"u".repeat(36), None)).collect();
        let fits = fitting(orders.iter());
        assert!(encode(&orders[..fits], 0).len() <= ORDERS_LENGTH_MAX);
        assert!(encode(&orders[..=fits], 0).len() > ORDERS_LENGTH_MAX);
    }
}
