//! A transaction of several statements on a pooled connection.
//!
//! BEGIN and COMMIT are plain statements here: sqlx 0.9's own `begin` puts a connection with an open transaction back into
//! the pool when its future is dropped at the wrong moment, and the next write on it is acknowledged and then lost.

use std::time::{Duration, Instant};

use sqlx::mysql::{MySql, MySqlArguments, MySqlPool, MySqlQueryResult, MySqlRow};
use sqlx::pool::PoolConnection;
use sqlx::query::Query;
use sqlx::{Executor, MySqlConnection};

use super::{GIVE_BACK_TIMEOUT, StoreError, limited, within};

/// An open transaction. Dropped without [`Tx::commit`] or [`Tx::roll_back`], it closes its connection, and the server
/// rolls back.
pub struct Tx {
    /// There until the transaction is over.
    connection: Option<PoolConnection<MySql>>,
    started: Instant,
}

impl Tx {
    pub(super) async fn begin(pool: &MySqlPool) -> Result<Self, StoreError> {
        let connection = pool.acquire().await.map_err(StoreError::Unavailable)?;
        let mut tx = Self { connection: Some(connection), started: Instant::now() };
        limited(tx.connection().execute("START TRANSACTION")).await?;
        Ok(tx)
    }

    fn connection(&mut self) -> &mut MySqlConnection {
        self.connection.as_mut().expect("only its end takes it out")
    }

    /// When it began.
    pub fn started(&self) -> Instant {
        self.started
    }

    /// Runs a write.
    pub(super) async fn execute(
        &mut self,
        query: Query<'_, MySql, MySqlArguments>,
    ) -> Result<MySqlQueryResult, StoreError> {
        limited(query.execute(self.connection())).await
    }

    /// Reads at most one row.
    pub(super) async fn fetch_optional(
        &mut self,
        query: Query<'_, MySql, MySqlArguments>,
    ) -> Result<Option<MySqlRow>, StoreError> {
        limited(query.fetch_optional(self.connection())).await
    }

    /// Makes it durable. After [`StoreError::Unknown`] it may or may not be.
    pub async fn commit(mut self) -> Result<(), StoreError> {
        self.end("COMMIT").await
    }

    /// Takes everything back.
    pub async fn roll_back(mut self) -> Result<(), StoreError> {
        self.end("ROLLBACK").await
    }

    /// Ends it and returns the connection to the pool.
    async fn end(&mut self, statement: &'static str) -> Result<(), StoreError> {
        limited(self.connection().execute(statement)).await?;
        if let Some(connection) = self.connection.take() {
            give_back(connection);
        }
        Ok(())
    }
}

impl Drop for Tx {
    fn drop(&mut self) {
        if let Some(connection) = self.connection.take() {
            close(connection);
        }
    }
}

/// Returns a connection to the pool. sqlx asks it first whether it lives, and would wait for ever for a peer that has fallen
/// silent: given up, it is closed, and its place is free.
fn give_back(mut connection: PoolConnection<MySql>) {
    tokio::spawn(tokio::time::timeout(GIVE_BACK_TIMEOUT, connection.return_to_pool()));
}

/// Closes a connection and frees its place in the pool at once. sqlx's own `close_on_drop` says good-bye first, and a peer
/// that has fallen silent would keep the place for five seconds.
fn close(connection: PoolConnection<MySql>) {
    drop(connection.detach());
}

/// Runs one statement on a pooled connection and closes that connection after an error: after a time-out its answer may
/// still be under way, and the next borrower would take it for his own.
pub(super) async fn closing_on_error<T>(
    mut connection: PoolConnection<MySql>,
    limit: Duration,
    work: impl AsyncFnOnce(&mut MySqlConnection) -> Result<T, sqlx::Error>,
) -> Result<T, StoreError> {
    let result = within(limit, work(&mut connection)).await;
    if result.is_ok() {
        give_back(connection);
    } else {
        close(connection);
    }
    result
}
