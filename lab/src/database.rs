//! What the laboratory asks the database and tells it, to measure it and to break it. What `verify` reads to judge is its own.

#![expect(clippy::disallowed_methods, reason = "the laboratory's SQL lives here and in verify")]

use anyhow::{Context, ensure};
use sqlx::{AssertSqlSafe, FromRow, MySqlConnection, Row};

const SERVICE: &str = "coupon";

/// Orders that keep the database from its work, each with the one that lets it go on.
pub const READ_ONLY: [&str; 2] = ["SET GLOBAL read_only = 1", "SET GLOBAL read_only = 0"];
/// The same for whatever needs a coupon's row.
pub const TABLE_LOCKED: [&str; 2] = ["LOCK TABLES coupon WRITE", "UNLOCK TABLES"];

/// What a server knows of the group that it is a member of.
const MEMBERS: &str = "FROM performance_schema.replication_group_members WHERE member_state = 'ONLINE'";

/// A winner of the current round.
#[derive(Clone, FromRow)]
pub struct Winner {
    pub code: String,
    /// The place; `None` under `unlocked`.
    pub serial: Option<u32>,
    /// Milliseconds since 1970 when the request reached nginx.
    pub arrived_ms: Option<u64>,
}

/// Reads the winners of all coupons whose codes begin with `prefix`, code by code in the order of their serials.
pub async fn winners(connection: &mut MySqlConnection, prefix: &str) -> anyhow::Result<Vec<Winner>> {
    let query = "SELECT coupon.code, wallet.serial, wallet.arrived_ms FROM wallet \
                 JOIN event ON event.round = wallet.round JOIN coupon ON coupon.id = wallet.coupon_id \
                 WHERE coupon.code LIKE CONCAT(?, '%') ORDER BY coupon.code, wallet.serial";
    sqlx::query_as(query).bind(prefix).fetch_all(connection).await.context("cannot read the winners")
}

/// Deletes every row of every round. A new round must follow: the counters of this one still say that coupons were issued.
pub async fn empty_wallets(connection: &mut MySqlConnection) -> anyhow::Result<()> {
    tell(connection, "TRUNCATE TABLE wallet").await
}

/// How many statements clients have sent since the server began.
pub async fn statements(connection: &mut MySqlConnection) -> anyhow::Result<u64> {
    let row = sqlx::raw_sql("SHOW GLOBAL STATUS LIKE 'Questions'").fetch_one(connection).await;
    let count: String = row.context("cannot read the database's counters")?.try_get(1)?;
    Ok(count.parse()?)
}

/// The server's numbers of the service's connections. `information_schema` would fail where any statement holds bytes that are no text.
pub async fn service_connections(connection: &mut MySqlConnection) -> anyhow::Result<Vec<u64>> {
    let mut rows = sqlx::raw_sql("SHOW PROCESSLIST").fetch_all(connection).await?;
    rows.retain(|row| row.try_get("User").is_ok_and(|user: String| user == SERVICE));
    Ok(rows.iter().map(|row| row.try_get_unchecked("Id")).collect::<Result<_, _>>()?)
}

/// Ends all connections of the service.
pub async fn close_connections(connection: &mut MySqlConnection) -> anyhow::Result<()> {
    for id in service_connections(connection).await? {
        // It may have gone meanwhile.
        kill(connection, id).await;
    }
    Ok(())
}

/// Ends a connection. Tells whether it was still there.
pub async fn kill(connection: &mut MySqlConnection, id: u64) -> bool {
    tell(connection, format!("KILL {id}")).await.is_ok()
}

pub async fn connections_max(connection: &mut MySqlConnection) -> anyhow::Result<u32> {
    Ok(sqlx::query_scalar("SELECT CAST(@@GLOBAL.max_connections AS UNSIGNED)").fetch_one(connection).await?)
}

pub async fn allow_connections(connection: &mut MySqlConnection, most: u32) -> anyhow::Result<()> {
    tell(connection, format!("SET GLOBAL max_connections = {most}")).await
}

/// Whether this server takes writes for a group. Every statement of the session that reads a table waits from now on for what a
/// majority has ordered before it: a primary that was frozen or cut off takes itself for one still, and knows nothing of what came since.
/// One that reads nothing but `performance_schema` would not wait.
pub async fn is_primary(connection: &mut MySqlConnection) -> anyhow::Result<bool> {
    tell(connection, "SET SESSION group_replication_consistency = 'BEFORE'").await?;
    let query = format!(
        "SELECT EXISTS (SELECT 1 FROM information_schema.engines) AND EXISTS (SELECT 1 {MEMBERS} AND member_role = 'PRIMARY' \
         AND member_id = @@server_uuid) AND NOT @@GLOBAL.super_read_only"
    );
    Ok(sqlx::query_scalar::<_, i64>(AssertSqlSafe(query)).fetch_one(connection).await? == 1)
}

/// How many members of its group this server takes for well; another one that was killed or is frozen is among them for seconds. One
/// that was killed and started again itself knows that it is none yet.
pub async fn members_online(connection: &mut MySqlConnection) -> anyhow::Result<usize> {
    let count: i64 =
        sqlx::query_scalar(AssertSqlSafe(format!("SELECT COUNT(*) {MEMBERS}"))).fetch_one(connection).await?;
    Ok(usize::try_from(count)?)
}

/// Makes another member the primary, and returns when it is. `pick` is taken modulo what there is.
pub async fn switch_primary(connection: &mut MySqlConnection, pick: u32) -> anyhow::Result<()> {
    let query = format!("SELECT member_id {MEMBERS} AND member_role = 'SECONDARY' ORDER BY member_port");
    let others: Vec<String> = sqlx::query_scalar(AssertSqlSafe(query)).fetch_all(&mut *connection).await?;
    ensure!(!others.is_empty(), "the primary has no other member");
    tell(connection, format!("DO group_replication_set_as_primary('{}')", others[pick as usize % others.len()])).await
}

/// Gives an order that answers nothing.
pub async fn tell(connection: &mut MySqlConnection, order: impl Into<String>) -> anyhow::Result<()> {
    let order = order.into();
    let told = sqlx::raw_sql(AssertSqlSafe(order.clone())).execute(connection).await;
    told.map(drop).with_context(|| format!("the database does not obey {order}"))
}
