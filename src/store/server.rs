//! The database as the connections see it: one server, or the members of a group of which one, the primary, takes writes.
//!
//! With one host a connection goes there, and a refusal is an answer. With several, a connection goes to the member that is believed
//! to be the primary; when that one fails, a task asks all members which one it is, and everything that needs a connection waits for
//! what it finds.

use std::io::ErrorKind;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use parking_lot::Mutex;
use sqlx::mysql::{MySqlConnectOptions, MySqlConnection};
use sqlx::{AssertSqlSafe, ConnectOptions, Executor, Row};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};

use super::connection::{Connection, Origin};
use super::lanes::Purpose;
use super::session;
use super::{CONNECT_TIMEOUT, STATEMENT_TIMEOUT, StoreError};

/// Longest wait for the member that is believed to be the primary. One that is frozen takes connections and says nothing.
const BELIEVED_TIMEOUT: Duration = Duration::from_millis(500);

/// Longest wait for the answers of all members in one round of the search.
const ROUND_TIMEOUT: Duration = Duration::from_millis(500);

/// Pause between two rounds, and the most that is added at random, so that many replicas do not ask a new primary all at once.
const ROUND_PAUSE: Duration = Duration::from_millis(50);
const ROUND_JITTER: Duration = Duration::from_millis(200);

/// How long a statement that was given up may still end by itself: no wait of a session is longer. To kill one that is at work is a
/// risk: `MariaDB` 10.11 crashed while it dropped a temporary table.
const OWN_END: Duration = Duration::from_secs(1);

/// What a search connects for: it asks one question, and lets the connection go.
const SEARCH: Purpose =
    Purpose { most: 1, patience: ROUND_TIMEOUT, statement: STATEMENT_TIMEOUT, silence: Duration::from_secs(5) };

/// The server or the members of the group, and what all pools share about them.
pub(super) struct Server {
    members: Vec<MySqlConnectOptions>,
    belief: watch::Sender<Belief>,
    /// How often another member became the primary.
    changes: AtomicU64,
    /// Statements that were given up and may still be waiting at a member. Closing the socket does not end them. A new connection to
    /// that member kills those that had their time.
    abandoned: Mutex<Vec<Abandoned>>,
}

/// Where writes are believed to be taken.
#[derive(Clone, Copy)]
struct Belief {
    /// Grows when a server is found to take no writes. Connections of an earlier term are closed instead of used: by then the
    /// server's name may lead to another one.
    term: u64,
    /// The place of the primary among the members. There is none while it is looked for.
    primary: Option<usize>,
    /// The last one that was found.
    last: Option<usize>,
    /// A task is looking for it.
    is_sought: bool,
}

/// The task that looks for the primary, as long as it lives.
struct Search(Weak<Server>);

/// A statement that was given up.
#[derive(Clone, Copy)]
pub(super) struct Abandoned {
    pub(super) since: Instant,
    /// The place of the member at which it was: a connection's number means nothing at another one.
    pub(super) member: usize,
    /// The member's number of the connection.
    pub(super) id: u64,
}

impl Server {
    pub(super) fn new(members: Vec<MySqlConnectOptions>) -> Arc<Self> {
        // The session sets these, and more, in a statement of ours.
        let bare = |options: MySqlConnectOptions| {
            options.pipes_as_concat(false).no_engine_substitution(false).timezone(None).set_names(false)
        };
        let members: Vec<_> = members.into_iter().map(bare).collect();
        // Of several, the first may be the primary as well as any other.
        let belief = watch::Sender::new(Belief { term: 0, primary: Some(0), last: None, is_sought: false });
        Arc::new(Self { members, belief, changes: AtomicU64::new(0), abandoned: Mutex::default() })
    }

    pub(super) fn members(&self) -> &[MySqlConnectOptions] {
        &self.members
    }

    /// Whether another member may take over from the primary.
    pub(super) fn has_several(&self) -> bool {
        self.members.len() > 1
    }

    pub(super) fn changes(&self) -> u64 {
        self.changes.load(Ordering::Relaxed)
    }

    pub(super) fn term(&self) -> u64 {
        self.belief.borrow().term
    }

    /// Every connection of this term is closed instead of used again, and of several members the primary is looked for.
    pub(super) fn leave(&self, term: u64) {
        let has_several = self.has_several();
        self.belief.send_if_modified(|belief| {
            // What fails late says nothing about what was found since.
            let is_news = belief.term == term;
            if is_news {
                belief.term += 1;
                belief.primary = belief.primary.filter(|_| !has_several);
            }
            is_news
        });
    }

    /// Looks for the primary anew, because a connection could not be made in time. Those that exist are used meanwhile: the server may merely
    /// have much to do.
    fn doubt(&self, term: u64) {
        self.belief.send_if_modified(|belief| belief.term == term && belief.primary.take().is_some());
    }

    pub(super) fn abandon(&self, statement: Abandoned) {
        self.abandoned.lock().push(statement);
    }

    /// The place of the primary among several members, as soon as there is one.
    pub(super) async fn primary(self: &Arc<Self>) -> Result<usize, sqlx::Error> {
        Ok(self.connect_to_primary(SEARCH).await?.member())
    }

    /// Connects to the primary and sets up the session. A name is looked up each time, so a changed address is followed.
    pub(super) async fn connect(self: &Arc<Self>, purpose: Purpose) -> Result<Connection, StoreError> {
        match timeout(CONNECT_TIMEOUT, self.connect_to_primary(purpose)).await {
            Ok(connected) => connected.map_err(StoreError::Unavailable),
            Err(_) => Err(StoreError::NotPrimary(none_found())),
        }
    }

    /// With one host, or as soon as one of several is the primary.
    async fn connect_to_primary(self: &Arc<Self>, purpose: Purpose) -> Result<Connection, sqlx::Error> {
        if !self.has_several() {
            return self.connect_to(0, purpose).await;
        }
        loop {
            let Belief { term, primary, .. } = *self.belief.borrow();
            if let Some(member) = primary {
                if let Ok(Ok(connection)) = timeout(BELIEVED_TIMEOUT, self.connect_to(member, purpose)).await {
                    self.found(term, member);
                    return Ok(connection);
                }
                self.doubt(term);
            }
            self.search();
            let mut belief = self.belief.subscribe();
            let _ = belief.wait_for(|belief| belief.primary.is_some() || !belief.is_sought).await;
        }
    }

    /// Connects to one member, and makes sure that it takes writes and, in a group, is the primary and has a majority.
    async fn connect_to(self: &Arc<Self>, member: usize, purpose: Purpose) -> Result<Connection, sqlx::Error> {
        let term = self.term();
        let mut sql = self.members[member].connect().await?;
        let row = sql.fetch_one(AssertSqlSafe(session::begin(purpose))).await?;
        let (id, is_in_group) = (row.try_get(0)?, row.try_get::<u64, _>(2)? > 0);
        if row.try_get::<u64, _>(1)? == 0 {
            return Err(takes_no_writes());
        }
        if self.has_several() && !is_in_group {
            return Err(in_no_group());
        }
        self.kill_overdue(member, &mut sql).await;
        if is_in_group && !(session::believes(&mut sql).await? && session::is_proven(&mut sql).await?) {
            return Err(has_no_majority());
        }
        Ok(Connection::new(sql, self, purpose, Origin { member, id, term, is_in_group }))
    }

    /// Kills what was given up at this member and had its time.
    async fn kill_overdue(&self, member: usize, sql: &mut MySqlConnection) {
        for id in self.overdue(member) {
            // Mostly it has ended by itself.
            let _ = sql.execute(AssertSqlSafe(format!("KILL {id}"))).await;
        }
    }

    /// The numbers of such connections, which are forgotten here.
    fn overdue(&self, member: usize) -> Vec<u64> {
        let is_overdue = |it: &mut Abandoned| it.member == member && it.since.elapsed() >= OWN_END;
        self.abandoned.lock().extract_if(.., is_overdue).map(|it| it.id).collect()
    }

    /// Starts to look for the primary, unless somebody has found it or is at it.
    fn search(self: &Arc<Self>) {
        let begins = self.belief.send_if_modified(|belief| {
            let begins = belief.primary.is_none() && !belief.is_sought;
            belief.is_sought |= begins;
            begins
        });
        if begins {
            tokio::spawn(Search(Arc::downgrade(self)).run());
        }
    }

    /// One round: the first member that is the primary, or why none is.
    async fn ask_all(self: &Arc<Self>) -> Result<usize, String> {
        let mut asked: FuturesUnordered<_> = (0..self.members.len()).map(|member| self.ask(member)).collect();
        let mut reasons = Vec::new();
        while let Some(answer) = asked.next().await {
            match answer {
                Ok(member) => return Ok(member),
                Err(reason) => reasons.push(reason),
            }
        }
        Err(reasons.join("; "))
    }

    async fn ask(self: &Arc<Self>, member: usize) -> Result<usize, String> {
        let asked = timeout(ROUND_TIMEOUT, self.connect_to(member, SEARCH)).await.unwrap_or_else(|_| Err(timed_out()));
        asked.map(|_| member).map_err(|error| format!("{}: {error}", self.name(member)))
    }

    fn name(&self, member: usize) -> String {
        let member = &self.members[member];
        format!("{}:{}", member.get_host(), member.get_port())
    }

    /// Believes that this member is the primary, unless the term is over. With another one a new term begins.
    fn found(&self, term: u64, member: usize) {
        let mut before = None;
        self.belief.send_if_modified(|belief| {
            let is_news = belief.term == term && (belief.primary, belief.last) != (Some(member), Some(member));
            if is_news {
                before = belief.last.replace(member);
                belief.primary = Some(member);
                belief.term += u64::from(before.is_some_and(|before| before != member));
            }
            is_news
        });
        if before.is_some_and(|before| before != member) {
            self.changes.fetch_add(1, Ordering::Relaxed);
            tracing::info!(member = self.name(member), "another member is the primary of the database");
        }
    }
}

impl Search {
    /// Asks all members at once, round after round, until one of them is the primary or nobody needs the server any more.
    async fn run(self) {
        let mut is_first = true;
        while let Some(server) = self.0.upgrade() {
            let term = server.term();
            match server.ask_all().await {
                Ok(member) => return server.found(term, member),
                Err(reasons) if is_first => tracing::warn!(reasons, "no member is a primary with a majority"),
                Err(_) => {}
            }
            is_first = false;
            drop(server);
            sleep(ROUND_PAUSE + ROUND_JITTER.mul_f64(fastrand::f64())).await;
        }
    }
}

impl Drop for Search {
    fn drop(&mut self) {
        if let Some(server) = self.0.upgrade() {
            server.belief.send_modify(|belief| belief.is_sought = false);
        }
    }
}

pub(super) fn takes_no_writes() -> sqlx::Error {
    sqlx::Error::Protocol("the server takes no writes".to_owned())
}

fn none_found() -> sqlx::Error {
    sqlx::Error::Protocol("no connection to a server that takes writes was made within a second".to_owned())
}

fn has_no_majority() -> sqlx::Error {
    sqlx::Error::Protocol("the server is no primary with a majority".to_owned())
}

fn in_no_group() -> sqlx::Error {
    sqlx::Error::Protocol("the URL names several hosts, and this server is set up for no group".to_owned())
}

pub(super) fn timed_out() -> sqlx::Error {
    sqlx::Error::Io(ErrorKind::TimedOut.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::url;

    fn server(hosts: &str) -> Arc<Server> {
        Server::new(url::members(&format!("mysql://u:p@{hosts}/c")).unwrap())
    }

    #[test]
    fn what_fails_late_says_nothing_about_the_primary_that_was_found_since() {
        let server = server("h1,h2");
        let first = server.term();
        server.found(first, 0);
        server.leave(first);
        let second = server.term();
        server.found(second, 1);

        server.leave(first);
        server.found(first, 0);

        assert_eq!((server.term(), server.belief.borrow().primary, server.changes()), (second + 1, Some(1), 1));
    }

    #[test]
    fn a_primary_that_was_doubted_and_found_again_keeps_its_connections() {
        let server = server("h1,h2");
        let term = server.term();
        server.found(term, 0);
        for (found, then) in [(0, term), (1, term + 1)] {
            server.doubt(term);
            assert_eq!(server.belief.borrow().primary, None);
            server.found(term, found);
            assert_eq!(server.term(), then);
        }
    }

    #[test]
    fn one_host_is_left_and_stays_the_only_one_to_ask() {
        let server = server("h1");
        server.leave(server.term());
        assert_eq!((server.term(), server.belief.borrow().primary), (1, Some(0)));
    }

    #[tokio::test(start_paused = true)]
    async fn a_statement_is_killed_at_its_own_member_and_when_it_had_its_time() {
        let server = server("h1,h2");
        for (member, id) in [(0, 7), (1, 8)] {
            server.abandon(Abandoned { since: Instant::now(), member, id });
        }
        assert_eq!(server.overdue(1), Vec::<u64>::new());
        sleep(OWN_END).await;
        assert_eq!([server.overdue(1), server.overdue(1), server.overdue(0)], [vec![8], vec![], vec![7]]);
    }
}
