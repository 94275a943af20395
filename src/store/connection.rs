//! An open connection: it bounds every round trip, and notes what became of the statement.

use std::sync::Arc;
use std::time::Duration;

use sqlx::Connection as _;
use sqlx::mysql::MySqlConnection;
use tokio::time::{Instant, timeout};

use super::lanes::Purpose;
use super::server::{Abandoned, Server, takes_no_writes};
use super::{StoreError, session};

/// A connection that was idle for longer is asked whether it still lives before it is used: a server that was restarted or a
/// firewall that forgets has ended it.
const IDLE_TRUSTED: Duration = Duration::from_secs(1);

/// Longest wait for that answer. Behind such a firewall none comes, and an order waits meanwhile.
const PING_TIMEOUT: Duration = Duration::from_millis(250);

pub(super) struct Connection {
    sql: MySqlConnection,
    server: Arc<Server>,
    purpose: Purpose,
    origin: Origin,
    used: Instant,
    /// A statement was sent and not answered.
    is_asked: bool,
}

/// Where a connection leads.
#[derive(Clone, Copy)]
pub(super) struct Origin {
    /// The place of the member.
    pub(super) member: usize,
    /// The member's number of the connection.
    pub(super) id: u64,
    /// The term in which it was made.
    pub(super) term: u64,
    /// Whether the member belongs to a group.
    pub(super) is_in_group: bool,
}

impl Connection {
    pub(super) fn new(sql: MySqlConnection, server: &Arc<Server>, purpose: Purpose, origin: Origin) -> Self {
        Self { sql, server: Arc::clone(server), purpose, origin, used: Instant::now(), is_asked: false }
    }

    /// The place of the member to which it leads.
    pub(super) fn member(&self) -> usize {
        self.origin.member
    }

    /// Notes that it was of use just now.
    pub(super) fn rest(&mut self) {
        self.used = Instant::now();
    }

    /// Whether it may be used after it was idle.
    pub(super) async fn is_well(&mut self) -> bool {
        let idle = self.used.elapsed();
        if self.origin.term != self.server.term() || idle > self.purpose.silence / 2 {
            return false;
        }
        idle < IDLE_TRUSTED || matches!(timeout(PING_TIMEOUT, self.sql.ping()).await, Ok(Ok(())))
    }

    /// In a group, waits for the proof that this member is the primary and has a majority: what is read after it is at least as new as
    /// whatever was acknowledged before it, by any member. One round trip; none without a group.
    pub(super) async fn prove(&mut self) -> Result<(), StoreError> {
        if self.origin.is_in_group && !self.ask(session::is_proven).await? {
            return Err(self.leave_the_server());
        }
        Ok(())
    }

    /// Whether a commit here is ordered by a group, and so proves the majority by itself.
    pub(super) fn is_in_group(&self) -> bool {
        self.origin.is_in_group
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
        let answer = answer.map_err(StoreError::from);
        // Of several members another one may be the primary already.
        if matches!(answer, Err(StoreError::NotPrimary(_)))
            || self.server.has_several() && matches!(answer, Err(StoreError::Unknown(_)))
        {
            self.server.leave(self.origin.term);
        }
        answer
    }

    /// Closes every connection before its next use, because the server takes no writes.
    pub(super) fn leave_the_server(&self) -> StoreError {
        self.server.leave(self.origin.term);
        StoreError::NotPrimary(takes_no_writes())
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        if self.is_asked {
            let Origin { member, id, .. } = self.origin;
            self.server.abandon(Abandoned { since: Instant::now(), member, id });
        }
    }
}
