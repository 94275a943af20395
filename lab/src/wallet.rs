//! What the laboratory reads from the wallet to measure with; whether it keeps the promises is judged in `verify`.

#![expect(clippy::disallowed_methods, reason = "this is where the laboratory's SQL lives")]

use anyhow::Context;
use sqlx::{FromRow, MySqlConnection};

/// How the stock of the current round went.
#[derive(Clone, Copy, Debug, FromRow)]
pub struct Drain {
    /// Coupons issued.
    pub issued: i64,
    /// Microseconds from the first issue to the last; `None` without any.
    pub micros: Option<i64>,
}

/// A winner of the current round.
#[derive(Clone, Debug, PartialEq, Eq, FromRow)]
pub struct Winner {
    /// Which coupon.
    pub code: String,
    /// The place; `None` under `unlocked`.
    pub serial: Option<u32>,
    /// Milliseconds since 1970 when the request reached nginx.
    pub arrived_ms: Option<u64>,
}

/// Reads how long the issues of the current round took.
pub async fn drain(connection: &mut MySqlConnection) -> anyhow::Result<Drain> {
    let query = "SELECT COUNT(*) AS issued, TIMESTAMPDIFF(MICROSECOND, MIN(issued_at), MAX(issued_at)) AS micros \
                 FROM wallet JOIN event ON event.round = wallet.round";
    sqlx::query_as(query).fetch_one(connection).await.context("cannot read when coupons were issued")
}

/// Reads the winners of all coupons whose codes begin with `prefix`, code by code in the order of their serials.
pub async fn winners(connection: &mut MySqlConnection, prefix: &str) -> anyhow::Result<Vec<Winner>> {
    let query = "SELECT coupon.code, wallet.serial, wallet.arrived_ms FROM wallet \
                 JOIN event ON event.round = wallet.round JOIN coupon ON coupon.id = wallet.coupon_id \
                 WHERE coupon.code LIKE CONCAT(?, '%') ORDER BY coupon.code, wallet.serial";
    sqlx::query_as(query).bind(prefix).fetch_all(connection).await.context("cannot read the winners")
}
