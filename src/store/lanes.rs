//! Connections that are lent: the one kind of pool. Each pool has a bound of its own, so that no kind of work keeps another out.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use sqlx::mysql::{MySql, MySqlArguments, MySqlRow};
use sqlx::query::Query;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, sleep, timeout};

use super::StoreError;
use super::connection::Connection;
use super::server::{Server, timed_out};

/// How long a read goes on when the primary of several members is lost meanwhile: a little less than a caller waits.
const READ_PATIENCE: Duration = Duration::from_secs(4);

/// Pause before such a read is run again.
const READ_PAUSE: Duration = Duration::from_millis(20);

/// What a pool lends its connections for, and so what bounds them.
#[derive(Clone, Copy)]
pub(super) struct Purpose {
    /// Most connections at once.
    pub(super) most: usize,
    /// Longest wait for a free lane, where no caller's deadline ends the wait.
    pub(super) patience: Duration,
    /// Longest one statement may take; the server gives up a little earlier by itself.
    pub(super) statement: Duration,
    /// How long the server keeps a connection on which it hears nothing. One that was idle for half as long is replaced without a question.
    pub(super) silence: Duration,
}

/// A pool: cheap to clone.
#[derive(Clone)]
pub struct Lanes(Arc<Pool>);

struct Pool {
    server: Arc<Server>,
    purpose: Purpose,
    turns: Arc<Semaphore>,
    idle: Mutex<Vec<Connection>>,
}

/// The right to one connection, an idle one or one that is made when first used. It is replaced by a new one after any error: an error may
/// leave a transaction open or a statement running, and only a closed connection is surely clean; and what has ended it has mostly ended
/// the idle ones, too. Dropped, it lends a clean one to the next.
pub struct Lane {
    pool: Arc<Pool>,
    connection: Option<Connection>,
    _turn: OwnedSemaphorePermit,
}

impl Lanes {
    pub(super) fn new(server: &Arc<Server>, purpose: Purpose) -> Self {
        let turns = Arc::new(Semaphore::new(purpose.most));
        Self(Arc::new(Pool { server: Arc::clone(server), purpose, turns, idle: Mutex::default() }))
    }

    /// A lane, as soon as one is free; the first to ask is the first to get one.
    pub async fn free(&self) -> Lane {
        let turn = Arc::clone(&self.0.turns).acquire_owned().await.expect("it is never closed");
        let connection = self.0.idle.lock().pop();
        Lane { pool: Arc::clone(&self.0), connection, _turn: turn }
    }

    /// The same within the pool's patience.
    pub(super) async fn soon(&self) -> Result<Lane, StoreError> {
        timeout(self.0.purpose.patience, self.free()).await.map_err(|_| StoreError::Unavailable(timed_out()))
    }

    /// Whether all are lent.
    pub fn are_lent(&self) -> bool {
        self.0.turns.available_permits() == 0
    }
}

impl Lane {
    /// Connects now rather than at the first use.
    pub async fn connect(&mut self) -> Result<(), StoreError> {
        let connection = self.take().await?;
        self.keep(connection);
        Ok(())
    }

    /// Takes the connection out; give it back with [`Self::keep`] after success, drop it after an error.
    pub(super) async fn take(&mut self) -> Result<Connection, StoreError> {
        if let Some(mut connection) = self.connection.take() {
            if connection.is_well().await {
                return Ok(connection);
            }
            // What ended one has mostly ended all.
            self.pool.idle.lock().clear();
        }
        self.pool.server.connect(self.pool.purpose).await
    }

    pub(super) fn keep(&mut self, mut connection: Connection) {
        connection.rest();
        self.connection = Some(connection);
    }

    /// Reads what is the last word: in a group after the proof of a majority. Of several members another one may become the primary
    /// meanwhile; then it is read there.
    pub(super) async fn read<'q>(
        &mut self,
        query: impl Fn() -> Query<'q, MySql, MySqlArguments>,
    ) -> Result<Vec<MySqlRow>, StoreError> {
        let end = Instant::now() + READ_PATIENCE;
        loop {
            match self.read_once(query()).await {
                Err(StoreError::NotPrimary(_) | StoreError::Unknown(_)) if self.may_move() && Instant::now() < end => {
                    sleep(READ_PAUSE).await;
                }
                decided => return decided,
            }
        }
    }

    async fn read_once(&mut self, query: Query<'_, MySql, MySqlArguments>) -> Result<Vec<MySqlRow>, StoreError> {
        let mut connection = self.take().await?;
        connection.prove().await?;
        let rows = connection.ask(async |sql| query.fetch_all(sql).await).await?;
        self.keep(connection);
        Ok(rows)
    }

    /// Whether another member may become the primary.
    pub(super) fn may_move(&self) -> bool {
        self.pool.server.has_several()
    }
}

impl Drop for Lane {
    fn drop(&mut self) {
        if let Some(connection) = self.connection.take() {
            self.pool.idle.lock().push(connection);
        }
    }
}
