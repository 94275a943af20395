//! A transaction of several statements.
//!
//! BEGIN and COMMIT are plain statements here: sqlx 0.9's own `begin` leaves a transaction open when its future is dropped at the
//! wrong moment, and the next write on the connection is acknowledged and then lost.

use std::time::Instant;

use sqlx::Executor;
use sqlx::mysql::{MySql, MySqlArguments, MySqlQueryResult, MySqlRow};
use sqlx::query::Query;

use super::connection::Connection;
use super::{Lane, StoreError};

/// An open transaction. Dropped without [`Tx::commit`] or [`Tx::roll_back`], it closes its connection, and the server
/// rolls back.
pub struct Tx<'a> {
    lane: &'a mut Lane,
    connection: Connection,
    started: Instant,
}

impl Lane {
    /// Opens a transaction, of which a commit is the last word.
    pub async fn begin(&mut self) -> Result<Tx<'_>, StoreError> {
        let connection = self.take().await?;
        self.begin_on(connection).await
    }

    /// Opens a transaction of which also what it reads is the last word, without a commit.
    pub(super) async fn begin_proven(&mut self) -> Result<Tx<'_>, StoreError> {
        let mut connection = self.take().await?;
        connection.prove().await?;
        self.begin_on(connection).await
    }

    async fn begin_on(&mut self, mut connection: Connection) -> Result<Tx<'_>, StoreError> {
        let started = Instant::now();
        connection.ask(async |sql| sql.execute("START TRANSACTION").await).await?;
        Ok(Tx { lane: self, connection, started })
    }
}

impl Tx<'_> {
    /// When it began.
    pub fn started(&self) -> Instant {
        self.started
    }

    /// Runs a write.
    pub(super) async fn execute(
        &mut self,
        query: Query<'_, MySql, MySqlArguments>,
    ) -> Result<MySqlQueryResult, StoreError> {
        self.connection.ask(async |sql| query.execute(sql).await).await
    }

    /// Reads at most one row.
    pub(super) async fn fetch_optional(
        &mut self,
        query: Query<'_, MySql, MySqlArguments>,
    ) -> Result<Option<MySqlRow>, StoreError> {
        self.connection.ask(async |sql| query.fetch_optional(sql).await).await
    }

    /// Makes it durable. After [`StoreError::Unknown`] it may or may not be.
    pub async fn commit(self) -> Result<(), StoreError> {
        self.end("COMMIT").await
    }

    /// Takes everything back.
    pub async fn roll_back(self) -> Result<(), StoreError> {
        self.end("ROLLBACK").await
    }

    async fn end(mut self, statement: &'static str) -> Result<(), StoreError> {
        self.connection.ask(async |sql| sql.execute(statement).await).await?;
        self.lane.keep(self.connection);
        Ok(())
    }
}
