//! The users of a wave. Each asks until its answer is final, and every attempt is written down as its client saw it.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use anyhow::Context;
use fastrand::Rng;
use futures_util::future::join_all;
use reqwest::header::{CONTENT_TYPE, RETRY_AFTER};
use reqwest::{Client, Response};
use tokio::time::{sleep, sleep_until, timeout};

use super::supervised::REPLICA;
use super::wave::{Habit, User, Wave};
use crate::history::{Attempt, History, Look, Shown, Told, micros};

/// A client that waits this long takes its question for lost. Longer than nginx waits for a replica that hangs, so that what it
/// does then is seen.
const CLIENT_PATIENCE: Duration = Duration::from_secs(16);
/// Longest pause before an attempt is repeated.
const PAUSE_MAX: Duration = Duration::from_millis(200);

pub struct Crowds {
    client: Client,
    url: String,
    /// The beginning of the wave; all times of its history count from here.
    pub began: Instant,
    /// When a user without a final answer gives up.
    end: Instant,
    heard: RefCell<History>,
    /// Which replicas answered the orders for each code.
    replicas: RefCell<BTreeMap<&'static str, BTreeSet<String>>>,
}

impl Crowds {
    /// A wave that begins now and ends after `limit` at the latest.
    pub fn new(url: &str, limit: Duration) -> anyhow::Result<Self> {
        let client = Client::builder().no_proxy().timeout(CLIENT_PATIENCE).build().context("cannot make a client")?;
        let (url, began, heard, replicas) = (url.to_owned(), Instant::now(), RefCell::default(), RefCell::default());
        Ok(Self { client, url, began, end: began + limit, heard, replicas })
    }

    /// Sends everybody and waits until all have a final answer, or the limit has passed. What was changed meanwhile is not in it.
    pub async fn ask(&self, wave: &Wave) -> History {
        join_all(wave.users.iter().map(|user| self.user(user))).await;
        self.heard.take()
    }

    /// How many codes several replicas have served.
    pub fn shared(&self) -> usize {
        self.replicas.borrow().values().filter(|replicas| replicas.len() > 1).count()
    }

    async fn user(&self, user: &User) {
        self.order(user).await;
        if user.looks {
            self.look(user).await;
        }
    }

    async fn order(&self, user: &User) {
        sleep_until((self.began + user.starts).into()).await;
        let mut rng = Rng::with_seed(user.seed);
        let until_final = async |key: &str, rng: &mut Rng| {
            while !self.attempt(user, key, None).await.is_final() && Instant::now() < self.end {
                sleep(PAUSE_MAX.mul_f64(rng.f64())).await;
            }
        };
        match user.habit {
            Habit::Plain => until_final("first", &mut rng).await,
            Habit::DoubleClick => {
                let mut other = rng.fork();
                tokio::join!(until_final("first", &mut rng), until_final("first", &mut other));
            }
            Habit::HangUp(after) => {
                self.attempt(user, "first", Some(after)).await;
                until_final("first", &mut rng).await;
            }
            Habit::Again { times, pause } => {
                for _ in 0..times {
                    until_final("first", &mut rng).await;
                    sleep(pause.mul_f64(rng.f64())).await;
                }
            }
            Habit::Greedy => {
                until_final("first", &mut rng).await;
                until_final("second", &mut rng).await;
            }
        }
    }

    /// Looks at the wallet until the answer is final.
    async fn look(&self, User { name, seed, .. }: &User) {
        let mut rng = Rng::with_seed(*seed);
        loop {
            let asked = micros(self.began);
            let shown = self.wallet(name).await.unwrap_or(Shown::Nothing);
            let is_final = shown.is_final();
            let look = Look { user: name.clone(), asked, answered: micros(self.began), shown };
            self.heard.borrow_mut().looks.push(look);
            if is_final || Instant::now() >= self.end {
                return;
            }
            sleep(PAUSE_MAX.mul_f64(rng.f64())).await;
        }
    }

    /// `None` when no whole answer came.
    async fn wallet(&self, user: &str) -> Option<Shown> {
        let answer = self.client.get(format!("{}/users/{user}/coupons", self.url)).send().await.ok()?;
        let (status, retry_after) = (answer.status().as_u16(), retry_after(&answer));
        Some(Shown::of(status, &retry_after, &answer.bytes().await.ok()?))
    }

    async fn attempt(&self, user: &User, key: &str, hang_up: Option<Duration>) -> Told {
        let asked = micros(self.began);
        let told = timeout(hang_up.unwrap_or(CLIENT_PATIENCE), self.send(user, key)).await;
        let told = told.ok().flatten().unwrap_or(Told::Nothing);
        let answered = micros(self.began);
        let [user, code, key] = [&*user.name, user.code, key].map(str::to_owned);
        let attempt = Attempt { user, code, key, asked, answered, told: told.clone() };
        self.heard.borrow_mut().attempts.push(attempt);
        told
    }

    /// `None` when no whole answer came.
    async fn send(&self, user: &User, key: &str) -> Option<Told> {
        let request = self
            .client
            .post(format!("{}/coupons/issue", self.url))
            .header("idempotency-key", key)
            .header(CONTENT_TYPE, "application/json");
        let answer = request.body(order(user)).send().await.ok()?;
        // An answer that nginx gives by itself has none.
        if let Some(replica) = answer.headers().get(REPLICA).and_then(|name| name.to_str().ok()) {
            self.replicas.borrow_mut().entry(user.code).or_default().insert(replica.to_owned());
        }
        let (status, retry_after) = (answer.status().as_u16(), retry_after(&answer));
        Some(Told::of(status, &retry_after, &answer.bytes().await.ok()?))
    }
}

/// When an answer says that one may ask again; empty when it does not.
fn retry_after(answer: &Response) -> String {
    answer.headers().get(RETRY_AFTER).and_then(|text| text.to_str().ok()).unwrap_or_default().to_owned()
}

/// The body of a user's order. A hidden code begins with an escape, which JSON reads as the same letter.
fn order(User { code, name, hides, .. }: &User) -> String {
    let (first, rest) = code.split_at(1);
    let first = if *hides { format!("\\u{:04x}", first.as_bytes()[0]) } else { first.to_owned() };
    format!(r#"{{"code":"{first}{rest}","userId":"{name}"}}"#)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn an_order_that_hides_its_code_is_the_same_order() {
        let user = |hides| User {
            code: "W-7",
            name: "u-1".into(),
            starts: Duration::ZERO,
            habit: Habit::Plain,
            hides,
            looks: false,
            seed: 0,
        };
        let texts = [false, true].map(|hides| order(&user(hides)));

        for text in &texts {
            assert_eq!(serde_json::from_str::<Value>(text).unwrap(), json!({ "code": "W-7", "userId": "u-1" }));
        }
        assert_eq!(texts.map(|text| text.contains("W-7")), [true, false]);
    }
}
