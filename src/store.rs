//! The database: the only module that knows sqlx. It keeps the promises; everything above merely asks it nicely.
//!
//! Two ways in. A [`Lane`] is one long-lived connection for work that is a single round trip. A [`Tx`] is a transaction
//! of several statements on a pooled connection. Neither may live in a future that a client can drop: run them in tasks.

pub mod admin;
mod batch;
mod coupons;
mod lane;
mod migrate;
mod transaction;
mod wallet;

use std::net::IpAddr;
use std::str::FromStr;
use std::time::Duration;

use sqlx::mysql::{MySqlConnectOptions, MySqlDatabaseError, MySqlPool, MySqlPoolOptions, MySqlSslMode};
use sqlx::{ConnectOptions, Connection, Executor};

pub use batch::{Held, fitting};
pub use coupons::{Catalogue, LockedCoupon, Standing};
pub use lane::Lane;
pub use migrate::migrate;
pub use transaction::Tx;
pub use wallet::Inserted;

/// Longest wait for a connection: for a free one of the pool, or for a new one to be made.
pub(crate) const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);

/// Longest wait until a connection is back in the pool: sqlx asks it once more whether it lives.
const GIVE_BACK_TIMEOUT: Duration = Duration::from_millis(500);

/// Longest one statement may take. Longer than the lock wait below, so that the server normally speaks first.
pub(crate) const STATEMENT_TIMEOUT: Duration = Duration::from_secs(2);

/// A pooled connection that was idle for longer is asked whether it still lives before it is lent: after a restart of the
/// server all of them are dead, and each would fail whoever gets it. Busy ones were asked when they were given back.
const IDLE_TRUSTED: Duration = Duration::from_secs(1);

/// One that was idle for so long is replaced without a question: the server is about to close it, or has (`wait_timeout`).
const IDLE_KEPT: Duration = Duration::from_secs(3);

/// What every session starts with. READ COMMITTED: a retry must see what others committed meanwhile. The lock wait is
/// shorter than the shortest lease, so that nobody waits for a row longer than he may hold the lock.
const SESSION: &str = "SET SESSION transaction_isolation = 'READ-COMMITTED', innodb_lock_wait_timeout = 1";

/// The same for `MariaDB`, which has another name for the isolation level.
const SESSION_MARIADB: &str = "SET SESSION tx_isolation = 'READ-COMMITTED', innodb_lock_wait_timeout = 1";

/// And for sessions with transactions of several statements: seconds that the server waits for the next one before it rolls back.
/// A replica whose host or network is lost between two statements keeps the coupon's row locked for so long; the server's
/// own patience is eight hours.
const SESSION_OF_TRANSACTIONS: &str = "SET SESSION wait_timeout = 5";

/// What a URL may say after its `?`. sqlx passes over what it does not know, so that a misspelt `ssl_mode` would be no TLS.
///
/// `timezone` is not among them: windows are stored in UTC, and statements compare them with the session's clock.
const PARAMETERS: [&str; 8] =
    ["ssl-mode", "ssl-ca", "ssl-cert", "ssl-key", "socket", "charset", "collation", "statement-cache-capacity"];

/// Why the database gave no answer. What happened to a write tells the variant apart.
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
    /// No connection, or the server is not able to work: nothing was sent.
    #[error("the database is unavailable")]
    Unavailable(#[source] sqlx::Error),
}

/// `ER_DUP_ENTRY`.
const DUPLICATE: u16 = 1062;
/// `ER_LOCK_WAIT_TIMEOUT`, `ER_LOCK_DEADLOCK`, `ER_CHECKREAD` (`MariaDB`: the snapshot is stale).
const CONTENDED: [u16; 3] = [1205, 1213, 1020];
/// Interrupted, killed, shutting down, closed for idleness: a statement that was running may have been carried out.
const INTERRUPTED: [u16; 5] = [1053, 1317, 1927, 1969, 4031];
/// Null, truncated, wrong or out-of-range values, malformed JSON, failed CHECKs, by either server.
const REJECTED: [u16; 12] = [1048, 1264, 1265, 1366, 1406, 1690, 1977, 3140, 3669, 3819, 4025, 4038];

impl From<sqlx::Error> for StoreError {
    fn from(error: sqlx::Error) -> Self {
        match &error {
            sqlx::Error::Database(database) => {
                let number = database.try_downcast_ref::<MySqlDatabaseError>().map_or(0, MySqlDatabaseError::number);
                match number {
                    DUPLICATE => Self::Duplicate(unquoted(number)),
                    n if CONTENDED.contains(&n) => Self::Contended(error),
                    n if INTERRUPTED.contains(&n) => Self::Unknown(Some(error)),
                    n if REJECTED.contains(&n) => Self::Rejected(unquoted(n)),
                    _ => Self::Unavailable(error),
                }
            }
            sqlx::Error::PoolTimedOut | sqlx::Error::PoolClosed | sqlx::Error::Configuration(_) => {
                Self::Unavailable(error)
            }
            _ => Self::Unknown(Some(error)),
        }
    }
}

/// The server's error without its text, which quotes the data that it is about, and so users' ids.
fn unquoted(number: u16) -> sqlx::Error {
    sqlx::Error::Protocol(format!("the server's error {number}"))
}

/// The database of the service: cheap to clone.
#[derive(Clone)]
pub struct Store {
    pool: MySqlPool,
    options: MySqlConnectOptions,
}

impl Store {
    /// Describes the database without connecting yet; connections are made, and kept, when they are first needed.
    ///
    /// `pool_size` bounds the connections for transactions and reads; lanes come on top.
    pub fn new(url: &str, pool_size: u32) -> Result<Self, StoreError> {
        let options = options(url)?;
        if options.get_database().is_none() {
            return Err(sqlx::Error::Configuration("the URL names no database".into()).into());
        }
        let pool = MySqlPoolOptions::new()
            // No minimum: sqlx would make up for a closed connection in the background, with five minutes for it, and a
            // connect that hangs would keep its place in the pool for so long. A borrower waits for one second.
            .max_connections(pool_size)
            .acquire_timeout(CONNECT_TIMEOUT)
            // Nor anything else in the background: where sqlx looks after idle connections, they count as just used.
            .idle_timeout(None)
            .max_lifetime(None)
            .test_before_acquire(false)
            .before_acquire(|connection, idle| {
                Box::pin(async move {
                    if idle.idle_for > IDLE_TRUSTED && idle.idle_for < IDLE_KEPT {
                        connection.ping().await?;
                    }
                    Ok(idle.idle_for < IDLE_KEPT)
                })
            })
            .after_connect(|connection, _| {
                Box::pin(async move {
                    begin_session(connection).await?;
                    connection.execute(SESSION_OF_TRANSACTIONS).await.map(drop)
                })
            })
            .connect_lazy_with(options.clone());
        Ok(Self { pool, options })
    }

    /// Whether somebody on the way to the database could read along: it is on another host, and its URL does not insist on TLS.
    pub fn may_be_overheard(&self) -> bool {
        let host = self.options.get_host().trim_matches(['[', ']']);
        let is_here = host == "localhost" || host.parse().is_ok_and(|address: IpAddr| address.is_loopback());
        let insists = !matches!(self.options.get_ssl_mode(), MySqlSslMode::Disabled | MySqlSslMode::Preferred);
        self.options.get_socket().is_none() && !is_here && !insists
    }

    /// A long-lived connection of one's own, made when it is first used.
    pub fn lane(&self) -> Lane {
        Lane::new(self.options.clone())
    }

    /// Opens a transaction.
    pub async fn begin(&self) -> Result<Tx, StoreError> {
        Tx::begin(&self.pool).await
    }

    /// Closes the pool's connections once they are back.
    pub async fn close(&self) {
        self.pool.close().await;
    }
}

/// Parses a `mysql://` URL. Statements are never logged: they carry user ids.
fn options(url: &str) -> Result<MySqlConnectOptions, StoreError> {
    // sqlx takes any scheme.
    if !url.starts_with("mysql://") {
        return Err(sqlx::Error::Configuration("the URL does not begin with mysql://".into()).into());
    }
    let mut names = parameters(url).map(|parameter| parameter.split('=').next().unwrap_or_default());
    if !names.all(|name| PARAMETERS.contains(&name)) {
        let known = format!("the URL has a parameter that is none of {}", PARAMETERS.join(", "));
        return Err(sqlx::Error::Configuration(known.into()).into());
    }
    Ok(MySqlConnectOptions::from_str(url)?.disable_statement_logging())
}

/// What comes after the URL's `?`.
fn parameters(url: &str) -> impl Iterator<Item = &str> {
    url.split_once('?').into_iter().flat_map(|(_, query)| query.split('&')).filter(|parameter| !parameter.is_empty())
}

/// Sets up a fresh connection; the two servers name the isolation level differently.
async fn begin_session(connection: &mut sqlx::MySqlConnection) -> Result<(), sqlx::Error> {
    if connection.execute(SESSION).await.is_err() {
        connection.execute(SESSION_MARIADB).await?;
    }
    Ok(())
}

/// Bounds one round trip. After an error the caller drops the connection, which closes it.
async fn limited<T>(work: impl Future<Output = Result<T, sqlx::Error>>) -> Result<T, StoreError> {
    within(STATEMENT_TIMEOUT, work).await
}

async fn within<T>(limit: Duration, work: impl Future<Output = Result<T, sqlx::Error>>) -> Result<T, StoreError> {
    match tokio::time::timeout(limit, work).await {
        Ok(result) => Ok(result?),
        Err(_) => Err(StoreError::Unknown(None)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn only_a_database_elsewhere_that_need_not_speak_tls_may_be_overheard() {
        let overheard = |rest: &str| Store::new(&format!("mysql://u:p@{rest}"), 1).unwrap().may_be_overheard();
        for far in
            ["db/coupons", "10.0.0.7:3306/c", "[2001:db8::1]/c", "db/c?ssl-mode=PREFERRED", "db/c?ssl-mode=DISABLED"]
        {
            assert!(overheard(far), "{far}");
        }
        for near in ["127.0.0.1:3306/c", "localhost/c", "[::1]/c", "db/c?socket=/run/mysqld.sock"] {
            assert!(!overheard(near), "{near}");
        }
        for mode in ["REQUIRED", "VERIFY_CA", "VERIFY_IDENTITY"] {
            assert!(!overheard(&format!("db/c?ssl-mode={mode}&ssl-ca=/ca.pem")), "{mode}");
        }
    }

    #[tokio::test]
    async fn a_parameter_that_would_be_passed_over_is_refused() {
        for bad in [
            "ssl_mode=VERIFY_CA",
            "ssl-mode=VERIFY_CA&sslca=x",
            "SSL-MODE=REQUIRED",
            "ssl-mode=SURELY",
            "tls",
            "timezone=%2B09:00",
        ] {
            assert!(Store::new(&format!("mysql://u:p@h/c?{bad}"), 1).is_err(), "{bad}");
        }
    }
}
