//! A history of what a test's clients ask and are answered, for the laboratory's checker.

use std::time::Instant;

use coupon_lab::history::{Attempt, Told};
use coupon_lab::verify::{PATIENCE, Report, verify_history};
use parking_lot::Mutex;

use super::{Answer, Cluster, SOON, until};

/// Asks for its clients, and notes every attempt.
pub struct Recorder<'a> {
    cluster: &'a Cluster,
    started: Instant,
    attempts: Mutex<Vec<Attempt>>,
}

impl<'a> Recorder<'a> {
    pub fn new(cluster: &'a Cluster) -> Self {
        Self { cluster, started: Instant::now(), attempts: Mutex::default() }
    }

    /// One attempt.
    pub async fn ask(&self, replica: usize, code: &str, user: &str, key: &str) -> Told {
        let asked = self.now();
        let told = told(&self.cluster.issue(replica, code, user, key).await);
        self.note(code, user, key, asked, told.clone());
        told
    }

    /// An attempt of a client that hangs up when `patience` ends.
    pub async fn hang_up(&self, replica: usize, code: &str, user: &str, key: &str, patience: impl Future<Output = ()>) {
        let asked = self.now();
        let told = tokio::select! {
            answer = self.cluster.issue(replica, code, user, key) => told(&answer),
            () = patience => Told::Nothing,
        };
        self.note(code, user, key, asked, told);
    }

    /// Asks until the answer is final.
    pub async fn insist(&self, replica: usize, code: &str, user: &str, key: &str) -> Told {
        until(format!("a decision about {user} and {code}"), 3 * SOON, async || {
            let told = self.ask(replica, code, user, key).await;
            if told.is_final() { Ok(told) } else { Err("only answers that are not final") }
        })
        .await
    }

    /// What a client concluded from something else than an answer.
    pub fn conclude(&self, code: &str, user: &str, key: &str, told: Told) {
        self.note(code, user, key, self.now(), told);
    }

    /// Judges the tables against all that was noted so far.
    pub async fn judge(&self) -> Report {
        let history = self.attempts.lock().clone().into();
        verify_history(&mut self.cluster.sql().await, None, &history, PATIENCE).await.unwrap()
    }

    fn now(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_micros()).unwrap()
    }

    fn note(&self, code: &str, user: &str, key: &str, asked: u64, told: Told) {
        let (user, code, key) = (user.to_owned(), code.to_owned(), key.to_owned());
        let attempt = Attempt { user, code, key, asked, answered: self.now(), told };
        self.attempts.lock().push(attempt);
    }
}

fn told(answer: &Answer) -> Told {
    if answer.status == 0 {
        return Told::Nothing;
    }
    Told::of(answer.status, answer.header("retry-after"), answer.text.as_bytes())
}
