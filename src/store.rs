//! The database: the only module that knows sqlx. It keeps the promises; everything above merely asks it nicely.
//!
//! A [`Lane`] is the right to one connection of a pool ([`Lanes`]), a [`Tx`] a transaction of several statements on it. Neither may
//! live in a future that a client can drop: run them in tasks.

pub mod admin;
mod batch;
mod catalogue;
mod connection;
mod coupons;
mod lanes;
mod migrate;
mod purge;
mod server;
mod session;
mod transaction;
mod url;
mod wallet;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use sqlx::Row;
use sqlx::mysql::{MySqlConnectOptions, MySqlDatabaseError, MySqlRow, MySqlSslMode};

use self::lanes::Purpose;
use self::server::Server;
pub use batch::{Calls, Database, Held, fitting};
pub use catalogue::{Catalogue, Source};
pub use coupons::{LockedCoupon, Standing};
pub use lanes::{Lane, Lanes};
pub use migrate::{migrate, seed};
pub use purge::purge;
pub use transaction::Tx;
pub use wallet::Inserted;

use crate::coupons::Timestamp;

/// Connections for batches; more codes than that take turns.
pub(crate) const BATCHES: usize = 8;

/// Connections for reads of wallets.
const WALLETS: usize = 4;

/// Longest wait for a connection to be made, and of a reader for one that others have.
pub(crate) const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);

/// Longest wait of an administrative change for the one before: a rush that has its rows may make it run four times.
const CHANGE_PATIENCE: Duration = Duration::from_secs(5);

/// Longest one statement may take. Longer than every wait at the server, so that normally the server speaks first.
pub(crate) const STATEMENT_TIMEOUT: Duration = Duration::from_secs(2);

/// Longest an audit may take: it counts every row of the round, and a coupon may have a million.
const AUDIT_TIMEOUT: Duration = Duration::from_secs(10);

/// How long the server keeps a silent connection that is never in the middle of a transaction.
const SILENCE: Duration = Duration::from_mins(10);

/// How long it keeps any other.
const SILENCE_IN_TRANSACTION: Duration = Duration::from_secs(5);

/// Why the database gave no answer. The variants differ in what became of a write.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Deadlock victim or lock wait timeout: nothing was written, asking again may work.
    #[error("rows were contended")]
    Contended(#[source] sqlx::Error),
    /// A unique key refused: nothing was written.
    #[error("a key exists already")]
    Duplicate(#[source] sqlx::Error),
    /// The server refused the data: nothing was written, and asking again will not help.
    #[error("the data was refused")]
    Rejected(#[source] sqlx::Error),
    /// The connection broke or timed out after the statement was sent: it may have been carried out, or will yet be.
    #[error("the outcome is unknown")]
    Unknown(#[source] Option<sqlx::Error>),
    /// No event was made yet.
    #[error("there is no event yet: `coupon-rush seed` makes one")]
    NoEvent,
    /// The server takes no writes (any more), or in time there was no connection to one that does: nothing was begun. It may be there a
    /// moment later, or another member in its place.
    #[error("the primary of the database is not to be had")]
    NotPrimary(#[source] sqlx::Error),
    /// The server refuses the connection, or is not able to work: nothing was sent.
    #[error("the database is unavailable")]
    Unavailable(#[source] sqlx::Error),
}

/// `ER_DUP_ENTRY`; and what `MariaDB` says of the same key when `AUTO_INCREMENT` has come to its end, `HA_ERR_AUTOINC_ERANGE` and
/// `ER_AUTOINC_READ_FAILED`.
const DUPLICATE: [u16; 3] = [1062, 167, 1467];
/// `ER_LOCK_WAIT_TIMEOUT`, `ER_LOCK_DEADLOCK`, `ER_CHECKREAD` (`MariaDB`: the snapshot is stale), `ER_TRANSACTION_ROLLBACK_DURING_COMMIT`
/// (the group has certified another one that wrote the same rows).
const CONTENDED: [u16; 4] = [1205, 1213, 1020, 3101];
/// Interrupted, killed, out of time, shutting down, closed for idleness: a statement that was running may have been carried out.
const INTERRUPTED: [u16; 6] = [1053, 1317, 1927, 1969, 3024, 4031];
/// `ER_ERROR_DURING_COMMIT`, `ER_RUN_HOOK_ERROR`, `ER_GRP_TRX_CONSISTENCY_BEFORE`, `ER_GRP_TRX_CONSISTENCY_AFTER_ON_TRX_BEGIN`: the member
/// lost its group while the statement waited for it. What was sent to the group before may yet be committed by the others.
const CUT_OFF: [u16; 4] = [1180, 3100, 3797, 3798];
/// `ER_OPTION_PREVENTS_STATEMENT`, `ER_CANT_EXECUTE_IN_READ_ONLY_TRANSACTION`, `ER_READ_ONLY_MODE`, `ER_SERVER_OFFLINE_MODE`: it takes no
/// writes. `ER_GR_HOLD_WAIT_TIMEOUT`, `ER_GR_HOLD_KILLED`, `ER_GR_HOLD_MEMBER_STATUS_ERROR`, `ER_GRP_TRX_CONSISTENCY_NOT_ALLOWED`,
/// `ER_GRP_TRX_CONSISTENCY_BEGIN_NOT_ALLOWED`, `ER_OPERATION_NOT_ALLOWED_WHILE_PRIMARY_CHANGE_IS_RUNNING`: not yet or no longer. Each
/// comes before anything was begun.
const NOT_PRIMARY: [u16; 10] = [1290, 1792, 1836, 3032, 3781, 3782, 3783, 3796, 3799, 4094];
/// Null, truncated, wrong or out-of-range values, malformed JSON, failed CHECKs, by either server.
const REJECTED: [u16; 12] = [1048, 1264, 1265, 1366, 1406, 1690, 1977, 3140, 3669, 3819, 4025, 4038];

impl From<sqlx::Error> for StoreError {
    fn from(error: sqlx::Error) -> Self {
        match &error {
            sqlx::Error::Database(_) => Self::of_the_server(number(&error), error),
            sqlx::Error::Configuration(_) => Self::Unavailable(error),
            _ => Self::Unknown(Some(error)),
        }
    }
}

impl StoreError {
    /// What became of a write when the server answered it with an error of this number.
    fn of_the_server(number: u16, error: sqlx::Error) -> Self {
        match number {
            n if DUPLICATE.contains(&n) => Self::Duplicate(unquoted(n)),
            n if CONTENDED.contains(&n) => Self::Contended(error),
            n if INTERRUPTED.contains(&n) || CUT_OFF.contains(&n) => Self::Unknown(Some(error)),
            n if NOT_PRIMARY.contains(&n) => Self::NotPrimary(error),
            n if REJECTED.contains(&n) => Self::Rejected(unquoted(n)),
            _ => Self::Unavailable(error),
        }
    }
}

/// The server's number of an error; 0 for one that is not the server's.
fn number(error: &sqlx::Error) -> u16 {
    let database = error.as_database_error().and_then(|it| it.try_downcast_ref::<MySqlDatabaseError>());
    database.map_or(0, MySqlDatabaseError::number)
}

/// The server's error without its text, which quotes the data that it is about, and so users' ids.
fn unquoted(number: u16) -> sqlx::Error {
    sqlx::Error::Protocol(format!("the server's error {number}"))
}

/// Reads a time that may be missing.
fn time(row: &MySqlRow, column: usize) -> Result<Option<Timestamp>, sqlx::Error> {
    Ok(row.try_get::<Option<i64>, _>(column)?.map(Timestamp))
}

/// The database of the service: cheap to clone.
#[derive(Clone)]
pub struct Store {
    server: Arc<Server>,
    /// For batches.
    pub batches: Lanes,
    /// For the strategies that issue one by one.
    pub transactions: Lanes,
    /// For what a replica remembers: one lane reads the catalogue, one the holders.
    pub memory: Lanes,
    wallets: Lanes,
    /// For changes, one after the other: no rush can keep them out, and no audit.
    administration: Lanes,
    audits: Lanes,
}

impl Store {
    /// Describes the database without connecting yet; connections are made, and kept, when they are first needed.
    pub fn new(url: &str, pool_size: u32) -> Result<Self, StoreError> {
        let members = url::members(url)?;
        if members[0].get_database().is_none() {
            return Err(sqlx::Error::Configuration("the URL names no database".into()).into());
        }
        let server = Server::new(members);
        let calls = |most| Purpose { most, patience: CONNECT_TIMEOUT, statement: STATEMENT_TIMEOUT, silence: SILENCE };
        let transactions = |most| Purpose { silence: SILENCE_IN_TRANSACTION, ..calls(most) };
        let lanes = |purpose| Lanes::new(&server, purpose);
        Ok(Self {
            batches: lanes(calls(BATCHES)),
            transactions: lanes(transactions(pool_size as usize)),
            memory: lanes(calls(2)),
            wallets: lanes(calls(WALLETS)),
            administration: lanes(Purpose { patience: CHANGE_PATIENCE, ..transactions(1) }),
            audits: lanes(Purpose { statement: AUDIT_TIMEOUT, ..calls(1) }),
            server,
        })
    }

    /// Whether somebody on the way to the database could read along: a host is another one, and the URL does not insist on TLS.
    pub fn may_be_overheard(&self) -> bool {
        self.server.members().iter().any(may_be_overheard)
    }

    /// Whether the database has several members, of which another one may become the primary.
    pub fn has_several_members(&self) -> bool {
        self.server.has_several()
    }

    /// How often another member became the primary, as far as this replica has seen it.
    pub fn primary_changes(&self) -> u64 {
        self.server.changes()
    }
}

fn may_be_overheard(member: &MySqlConnectOptions) -> bool {
    let host = member.get_host();
    let is_here = host == "localhost" || host.parse().is_ok_and(|address: IpAddr| address.is_loopback());
    let insists = !matches!(member.get_ssl_mode(), MySqlSslMode::Disabled | MySqlSslMode::Preferred);
    member.get_socket().is_none() && !is_here && !insists
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn only_a_database_elsewhere_that_need_not_speak_tls_may_be_overheard() {
        let overheard = |rest: &str| Store::new(&format!("mysql://u:p@{rest}"), 1).unwrap().may_be_overheard();
        for far in [
            "db/coupons",
            "10.0.0.7:3306/c",
            "[2001:db8::1]/c",
            "db/c?ssl-mode=PREFERRED",
            "db/c?ssl-mode=DISABLED",
            "localhost,db/c",
        ] {
            assert!(overheard(far), "{far}");
        }
        for near in
            ["127.0.0.1:3306/c", "localhost/c", "[::1]/c", "localhost:1,127.0.0.1:2/c", "db/c?socket=/run/mysqld.sock"]
        {
            assert!(!overheard(near), "{near}");
        }
        for mode in ["REQUIRED", "VERIFY_CA", "VERIFY_IDENTITY"] {
            assert!(!overheard(&format!("db/c?ssl-mode={mode}&ssl-ca=/ca.pem")), "{mode}");
        }
    }

    #[test]
    fn an_error_of_a_group_tells_what_became_of_the_write() {
        let judged = |number| StoreError::of_the_server(number, sqlx::Error::RowNotFound);
        for maybe_elsewhere in [1180, 3100, 3797, 3798] {
            assert!(matches!(judged(maybe_elsewhere), StoreError::Unknown(_)), "{maybe_elsewhere}");
        }
        assert!(matches!(judged(3101), StoreError::Contended(_)), "it was rolled back");
        for not_begun in [1290, 1792, 1836, 3032, 3781, 3782, 3783, 3796, 3799, 4094] {
            assert!(matches!(judged(not_begun), StoreError::NotPrimary(_)), "{not_begun}");
        }
        assert!(matches!(judged(1146), StoreError::Unavailable(_)), "no other member has the table either");
    }
}
