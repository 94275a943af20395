//! The line before a lock, at the first node that is up: waiters block on a list, and a release pushes a token, which the waiter that waits
//! longest takes. A token is only a hint: the lock is rslock's, and a waiter that misses its token asks by itself after a while. Replicas
//! that do not reach the same first node do not see each other wait; patience ends that.

use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use redis::aio::MultiplexedConnection;
use redis::{FromRedisValue, Pipeline, pipe};
use tokio::time::{sleep, timeout};

use super::nodes::{Nodes, connect};
use super::probe::millis;

/// Pause after the node could not be asked, so that nobody connects hundreds of times a second.
const PAUSE: Duration = Duration::from_millis(50);
/// How long a place in line lasts: longer than the lock takes to come round, because a new place is at the end of the line.
const PLACE: Duration = Duration::from_secs(2);
/// How long a waiter's note lasts. A waiter renews it more often.
const NOTE: Duration = Duration::from_millis(250);

/// The lines before all locks.
pub(super) struct Line {
    nodes: Arc<Nodes>,
    /// Idle connections to each node: one that sleeps can carry nothing else.
    idle: Vec<Mutex<Vec<MultiplexedConnection>>>,
    /// Until then no new connection is made.
    rests_until: Mutex<Instant>,
}

impl Line {
    pub(super) fn new(nodes: Arc<Nodes>) -> Self {
        let idle = nodes.config.urls.iter().map(|_| Mutex::default()).collect();
        Self { nodes, idle, rests_until: Mutex::new(Instant::now()) }
    }

    /// Lines up, leaves a note of it, and returns when it is woken. Dropping the future gives the place up; a token that is then on its way
    /// wakes no waiter.
    pub(super) async fn wait(&self, name: &str) {
        let mut line_up = self.note(name);
        line_up.blpop(self.nodes.config.key("wake", name), PLACE.as_secs_f64());
        loop {
            match self.ask::<(Option<(String, String)>,)>(&line_up, PLACE).await {
                Some((Some(_),)) => return,
                Some((None,)) => {}
                None => sleep(PAUSE.mul_f64(0.5 + fastrand::f64())).await,
            }
        }
    }

    /// Renews the note; false where the node does not answer.
    pub(super) async fn renew(&self, name: &str) -> bool {
        self.ask::<()>(&self.note(name), Duration::ZERO).await.is_some()
    }

    /// Whether no waiter has left a note; false where that cannot be found out.
    pub(super) async fn is_empty(&self, name: &str) -> bool {
        let note = self.nodes.config.key("waits", name);
        self.ask(pipe().exists(note), Duration::ZERO).await == Some((false,))
    }

    /// Wakes the waiter that waits longest and returns true, or leaves a token for the next one.
    pub(super) async fn wake(&self, name: &str) -> bool {
        let mut push = pipe();
        push_token(&mut push, &self.nodes.config.key("wake", name), millis(self.nodes.config.ttl));
        // Where a waiter has taken the token there is no list any more, and limiting its life fails.
        self.ask(&push, Duration::ZERO).await == Some((false,))
    }

    /// What the first node answers, after a sleep of at most `sleeps`; `None` when it cannot be asked, or refuses. What does not sleep leaves
    /// its connection among the idle ones, so that a question that is given up does not cost it.
    async fn ask<T: FromRedisValue>(&self, commands: &Pipeline, sleeps: Duration) -> Option<T> {
        let place = self.nodes.first()?;
        let idle = &self.idle[place];
        let known = if sleeps.is_zero() { idle.lock().last().cloned() } else { idle.lock().pop() };
        if known.is_none() && Instant::now() < *self.rests_until.lock() {
            return None;
        }
        let stays_idle = sleeps.is_zero() && known.is_some();
        let asked = timeout(sleeps + 5 * self.nodes.config.probe_timeout / 2, async {
            let mut connection = match known {
                Some(connection) => connection,
                None => connect(&self.nodes.clients[place]).await?,
            };
            commands.query_async(&mut connection).await.map(|answer| (answer, connection))
        });
        let Ok(Ok((answer, connection))) = asked.await else {
            // What ended one has mostly ended all.
            idle.lock().clear();
            *self.rests_until.lock() = Instant::now() + PAUSE;
            return None;
        };
        if !stays_idle {
            idle.lock().push(connection);
        }
        Some(answer)
    }

    fn note(&self, name: &str) -> Pipeline {
        let mut note = pipe();
        note.cmd("SET").arg(self.nodes.config.key("waits", name)).arg(1).arg("PX").arg(millis(NOTE)).ignore();
        note
    }
}

/// Adds the commands that put a token into a list: never more than one lies there, and not for longer than this.
pub(super) fn push_token<'a>(pipeline: &'a mut Pipeline, list: &str, lives_ms: u64) -> &'a mut Pipeline {
    pipeline.lpush(list, 1).ignore().ltrim(list, 0, 0).ignore().cmd("PEXPIRE").arg(list).arg(lives_ms)
}
