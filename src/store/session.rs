//! What a session starts with. Whatever the statements count on is set here, so that the server's defaults may be anything.

use sqlx::mysql::MySqlConnection;
use sqlx::{Executor, Row};

use super::lanes::Purpose;

/// What keeps values and rules as they are meant, in any session.
///
/// Executable comments tell the servers apart: one with a number is read by `MySQL` alone, one with an `M` by `MariaDB` alone.
macro_rules! rules {
    () => {
        "SET SESSION sql_mode = 'STRICT_TRANS_TABLES,ERROR_FOR_DIVISION_BY_ZERO,NO_ENGINE_SUBSTITUTION'; \
         SET NAMES utf8mb4 COLLATE utf8mb4_general_ci, time_zone = '+00:00', autocommit = 1, completion_type = 0, \
             sql_safe_updates = 0, sql_select_limit = 18446744073709551615, sql_big_selects = 1, sql_auto_is_null = 0, \
             /*M! check_constraint_checks = 1, */ foreign_key_checks = 1, unique_checks = 1; \
         SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED, READ WRITE; "
    };
}

/// The session that makes tables and procedures, however long it takes. A procedure keeps the mode and the character sets of
/// its maker.
///
/// It waits for a table no longer than an order waits for its answer, because orders that need the table wait behind it. The locks of a run
/// whose host is lost last for half a minute; `purge` rests for less than that.
pub(super) const OF_MIGRATION: &str = concat!(
    rules!(),
    "SET lock_wait_timeout = 5, wait_timeout = 30, /*!80000 max_execution_time = 0, */ /*M! max_statement_time = 0, */ \
         default_storage_engine = InnoDB"
);

/// Whether the server takes writes: after a failover the one before may go on answering reads for ever. `super_read_only` implies
/// `read_only`, and a later `MariaDB` has words instead of numbers.
macro_rules! takes_writes {
    () => {
        "CAST(CAST(@@GLOBAL.read_only AS CHAR) IN ('0', 'OFF') AND NOT @@GLOBAL.innodb_read_only AS UNSIGNED)"
    };
}
pub(super) use takes_writes;

/// Whether the server is set up to be a member of a group, also while it is in none.
macro_rules! belongs_to_a_group {
    () => {
        "CAST(/*!80000 (SELECT COUNT(*) FROM performance_schema.global_variables \
           WHERE VARIABLE_NAME = 'group_replication_group_name' AND VARIABLE_VALUE <> '') + */ 0 AS UNSIGNED)"
    };
}

/// Asks that alone.
pub(super) const ASK_FOR_GROUP: &str = concat!("SELECT ", belongs_to_a_group!());

/// Asks a member of a group what it believes: whether it is the primary and sees a majority. No proof, but an answer at once; a proof that is
/// asked of a member that knows better keeps a thread of the server until the majority is back.
const BELIEF: &str = "SELECT CAST(SUM(MEMBER_STATE IN ('ONLINE', 'RECOVERING')) * 2 > COUNT(*) \
       AND SUM(MEMBER_ID = @@server_uuid AND MEMBER_ROLE = 'PRIMARY') AS UNSIGNED) FROM performance_schema.replication_group_members";

/// Asks a member of a group whether it is the primary, and proves that a majority is with it: with `BEFORE` the statement waits until
/// the group has ordered a message of this member, and until everything is applied that was ordered before it.
///
/// Nothing less is a proof. A member that was cut off, or woke from a freeze, calls itself ONLINE for seconds and lets everybody read; a
/// server that has left its group waits for nobody, and so its state is asked, too. A statement that reads no table but those of
/// `performance_schema` would not wait. `BEFORE_ON_PRIMARY_FAILOVER` is what all other statements have: a new primary first applies what
/// the one before has left.
const PROOF: &str = "SET SESSION group_replication_consistency = 'BEFORE'; \
     SELECT CAST(EXISTS (SELECT 1 FROM information_schema.ENGINES) AND EXISTS (SELECT 1 FROM performance_schema.replication_group_members \
       WHERE MEMBER_ID = @@server_uuid AND MEMBER_STATE = 'ONLINE' AND MEMBER_ROLE = 'PRIMARY') AS UNSIGNED); \
     SET SESSION group_replication_consistency = 'BEFORE_ON_PRIMARY_FAILOVER'";

/// Begins a session of a pool, and asks its number, whether the server takes writes, and whether it belongs to a group.
///
/// READ COMMITTED: a retry must see what others committed meanwhile. Every wait at the server is shorter than the client's, for
/// closing the socket would not end it: the wait for a row, also shorter than the shortest lease; the wait for a table that is
/// being altered; with `MySQL` a read. (Where `MariaDB`'s `max_statement_time` runs out while another statement is being killed, none
/// begins or ends for two seconds; a read that was given up is killed like any other statement.)
///
/// `wait_timeout` is how long the server waits for the next statement before it closes the connection and rolls back: a replica that
/// loses its host or network in the middle of a transaction keeps the coupon's row locked for so long, and the server's own patience is
/// eight hours.
pub(super) fn begin(Purpose { statement, silence, .. }: Purpose) -> String {
    format!(
        "{} SET innodb_lock_wait_timeout = 1, lock_wait_timeout = 1, wait_timeout = {}, \
         /*!80000 max_execution_time = {}, */ /*M! max_statement_time = 0, */ net_read_timeout = 30, net_write_timeout = 60; \
         SELECT CAST(CONNECTION_ID() AS UNSIGNED), {}, {}",
        rules!(),
        silence.as_secs(),
        statement.mul_f64(0.75).as_millis(),
        takes_writes!(),
        belongs_to_a_group!()
    )
}

/// Whether the member believes that it could give the proof.
pub(super) async fn believes(sql: &mut MySqlConnection) -> Result<bool, sqlx::Error> {
    is_true(sql, BELIEF).await
}

/// Whether [`PROOF`] proves it. Without a majority there is no answer.
pub(super) async fn is_proven(sql: &mut MySqlConnection) -> Result<bool, sqlx::Error> {
    is_true(sql, PROOF).await
}

async fn is_true(sql: &mut MySqlConnection, question: &'static str) -> Result<bool, sqlx::Error> {
    let rows = sql.fetch_all(question).await?;
    let row = rows.first().ok_or(sqlx::Error::RowNotFound)?;
    Ok(row.try_get::<Option<u64>, _>(0)? == Some(1))
}
