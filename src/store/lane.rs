//! A connection of one's own, for work that is one round trip. It costs no pool, no ping and no transaction left open.

use sqlx::ConnectOptions;
use sqlx::mysql::{MySqlConnectOptions, MySqlConnection};

use super::{CONNECT_TIMEOUT, StoreError, begin_session};

/// One connection, made when first used and replaced after any error: an error may leave a transaction open or a
/// statement running, and only a closed connection is surely clean.
pub struct Lane {
    options: MySqlConnectOptions,
    connection: Option<MySqlConnection>,
}

impl Lane {
    pub(super) fn new(options: MySqlConnectOptions) -> Self {
        Self { options, connection: None }
    }

    /// Connects now rather than at the first use.
    pub async fn connect(&mut self) -> Result<(), StoreError> {
        let connection = self.take().await?;
        self.keep(connection);
        Ok(())
    }

    /// Takes the connection out; give it back with [`Self::keep`] after success, drop it after an error.
    pub(super) async fn take(&mut self) -> Result<MySqlConnection, StoreError> {
        if let Some(connection) = self.connection.take() {
            return Ok(connection);
        }
        let connect = async {
            let mut connection = self.options.connect().await?;
            begin_session(&mut connection).await?;
            Ok(connection)
        };
        match tokio::time::timeout(CONNECT_TIMEOUT, connect).await {
            Ok(connected) => connected.map_err(StoreError::Unavailable),
            Err(_) => Err(StoreError::Unavailable(sqlx::Error::PoolTimedOut)),
        }
    }

    pub(super) fn keep(&mut self, connection: MySqlConnection) {
        self.connection = Some(connection);
    }
}
