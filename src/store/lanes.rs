//! Connections that are lent: the one kind of pool. Each pool has a bound of its own, so that no kind of work keeps another out.

use std::io::ErrorKind;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use sqlx::mysql::{MySqlConnectOptions, MySqlConnection};
use sqlx::{AssertSqlSafe, ConnectOptions, Connection as _, Executor, Row};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout};

use super::session;
use super::{CONNECT_TIMEOUT, READ_ONLY, StoreError, number};

/// A connection that was idle for longer is asked whether it still lives before it is used: a server that was restarted or a
/// firewall that forgets has ended it.
const IDLE_TRUSTED: Duration = Duration::from_secs(1);

/// Longest wait for that answer. Behind such a firewall none comes, and an order waits meanwhile.
const PING_TIMEOUT: Duration = Duration::from_millis(250);

/// How long a statement that was given up may still end by itself: no wait of a session is longer. To kill one that is at work is a
/// risk: `MariaDB` 10.11 crashed while it dropped a temporary table.
const OWN_END: Duration = Duration::from_secs(1);

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

/// The server, and what all pools share about it.
pub(super) struct Server {
    options: MySqlConnectOptions,
    /// Grows when a server is found to take no writes. Connections of an earlier term are closed instead of used: by then the
    /// server's name may lead to another one.
    term: AtomicU64,
    /// Statements that were given up and may still be waiting at the server: since when, and by which connection. Closing the socket
    /// does not end them. A new connection kills those that had their time.
    abandoned: Mutex<Vec<(Instant, u64)>>,
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

/// The right to one connection, made when first used and replaced after any error: an error may leave a transaction open or a
/// statement running, and only a closed connection is surely clean. Dropped, it lends a clean one to the next.
pub struct Lane {
    pool: Arc<Pool>,
    connection: Option<Connection>,
    _turn: OwnedSemaphorePermit,
}

/// An open connection.
pub(super) struct Connection {
    sql: MySqlConnection,
    server: Arc<Server>,
    purpose: Purpose,
    /// The server's number of it.
    id: u64,
    term: u64,
    used: Instant,
    /// A statement was sent and not answered.
    is_asked: bool,
}

impl Server {
    pub(super) fn new(options: MySqlConnectOptions) -> Arc<Self> {
        // The session sets these, and more, in a statement of ours.
        let options = options.pipes_as_concat(false).no_engine_substitution(false).timezone(None).set_names(false);
        Arc::new(Self { options, term: AtomicU64::new(0), abandoned: Mutex::default() })
    }

    pub(super) fn options(&self) -> &MySqlConnectOptions {
        &self.options
    }

    /// Every connection is closed instead of used again.
    fn leave(&self) {
        self.term.fetch_add(1, Ordering::Relaxed);
    }

    /// Connects and sets up the session. The name is looked up each time, so a changed address is followed.
    async fn connect(self: &Arc<Self>, purpose: Purpose) -> Result<Connection, sqlx::Error> {
        let term = self.term.load(Ordering::Relaxed);
        let mut sql = self.options.connect().await?;
        let row = sql.fetch_one(AssertSqlSafe(session::begin(purpose))).await?;
        if row.try_get::<u64, _>(1)? == 0 {
            return Err(takes_no_writes());
        }
        let overdue: Vec<_> = self.abandoned.lock().extract_if(.., |(since, _)| since.elapsed() >= OWN_END).collect();
        for (_, id) in overdue {
            // Mostly it has ended by itself.
            let _ = sql.execute(AssertSqlSafe(format!("KILL {id}"))).await;
        }
        let (server, id) = (Arc::clone(self), row.try_get(0)?);
        Ok(Connection { sql, server, purpose, id, term, used: Instant::now(), is_asked: false })
    }
}

fn takes_no_writes() -> sqlx::Error {
    sqlx::Error::Protocol("the server takes no writes".to_owned())
}

fn timed_out() -> StoreError {
    StoreError::Unavailable(sqlx::Error::Io(ErrorKind::TimedOut.into()))
}

impl Lanes {
    pub(super) fn new(server: &Arc<Server>, purpose: Purpose) -> Self {
        let turns = Arc::new(Semaphore::new(purpose.most));
        Self(Arc::new(Pool { server: Arc::clone(server), purpose, turns, idle: Mutex::default() }))
    }

    /// A lane, as soon as one is free; the first to ask is the first to get one.
    pub async fn free(&self) -> Lane {
        let turn = Arc::clone(&self.0.turns).acquire_owned().await.expect("it is never closed");
        Lane { pool: Arc::clone(&self.0), connection: None, _turn: turn }
    }

    /// The same within the pool's patience.
    pub(super) async fn soon(&self) -> Result<Lane, StoreError> {
        timeout(self.0.purpose.patience, self.free()).await.map_err(|_| timed_out())
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
        let idle = self.connection.take().or_else(|| self.pool.idle.lock().pop());
        if let Some(mut connection) = idle {
            if connection.is_well().await {
                return Ok(connection);
            }
            // What ended one has mostly ended all.
            self.pool.idle.lock().clear();
        }
        let Pool { server, purpose, .. } = &*self.pool;
        match timeout(CONNECT_TIMEOUT, server.connect(*purpose)).await {
            Ok(connected) => connected.map_err(StoreError::Unavailable),
            Err(_) => Err(timed_out()),
        }
    }

    pub(super) fn keep(&mut self, mut connection: Connection) {
        connection.used = Instant::now();
        self.connection = Some(connection);
    }

    /// One round trip: runs `work` on the connection, and keeps the connection after success.
    pub(super) async fn ask<T>(
        &mut self,
        work: impl AsyncFnOnce(&mut MySqlConnection) -> Result<T, sqlx::Error>,
    ) -> Result<T, StoreError> {
        let mut connection = self.take().await?;
        let answer = connection.ask(work).await?;
        self.keep(connection);
        Ok(answer)
    }

    /// Closes this connection, and every other one before its next use, because the server takes no writes.
    pub(super) fn leave_the_server(&mut self) -> StoreError {
        self.connection = None;
        self.pool.server.leave();
        StoreError::Unavailable(takes_no_writes())
    }
}

impl Drop for Lane {
    fn drop(&mut self) {
        if let Some(connection) = self.connection.take() {
            self.pool.idle.lock().push(connection);
        }
    }
}

impl Connection {
    /// Whether it may be used after it was idle.
    async fn is_well(&mut self) -> bool {
        let idle = self.used.elapsed();
        if self.term != self.server.term.load(Ordering::Relaxed) || idle > self.purpose.silence / 2 {
            return false;
        }
        idle < IDLE_TRUSTED || matches!(timeout(PING_TIMEOUT, self.sql.ping()).await, Ok(Ok(())))
    }

    /// Bounds one round trip. After an error the caller drops the connection, which closes it.
    pub(super) async fn ask<T>(
        &mut self,
        work: impl AsyncFnOnce(&mut MySqlConnection) -> Result<T, sqlx::Error>,
    ) -> Result<T, StoreError> {
        self.is_asked = true;
        let Ok(answer) = timeout(self.purpose.statement, work(&mut self.sql)).await else {
            return Err(StoreError::Unknown(None));
        };
        self.is_asked = false;
        if answer.as_ref().is_err_and(|error| READ_ONLY.contains(&number(error))) {
            self.server.leave();
        }
        Ok(answer?)
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        if self.is_asked {
            self.server.abandoned.lock().push((Instant::now(), self.id));
        }
    }
}
