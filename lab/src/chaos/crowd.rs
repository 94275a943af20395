//! The users of a wave. Each asks until its answer is final, and every attempt is written down as its client saw it.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::Context;
use fastrand::Rng;
use reqwest::Client;
use serde_json::json;
use tokio::task::JoinSet;
use tokio::time::{sleep, sleep_until, timeout};

use super::wave::{Habit, User, Wave};
use crate::history::{Attempt, Told};

/// A client that waits this long takes its question for lost. Longer than nginx waits for a replica that hangs, so that what it
/// does then is seen.
const CLIENT_PATIENCE: Duration = Duration::from_secs(15);

/// Longest pause before an attempt is repeated.
const PAUSE_MAX: Duration = Duration::from_millis(200);

/// Longest pause before a user with a final answer asks again.
const AGAIN_AFTER_MAX: Duration = Duration::from_millis(600);

/// Everybody who asks in one wave.
pub struct Crowds {
    client: Client,
    url: String,
    round: u32,
    /// The beginning of the wave; all times of its history count from here.
    began: Instant,
    /// When a user without a final answer gives up.
    end: Instant,
    attempts: RefCell<Vec<Attempt>>,
}

impl Crowds {
    /// A wave of `round` that begins now and ends after `limit` at the latest.
    pub fn new(url: &str, round: u32, limit: Duration) -> anyhow::Result<Rc<Self>> {
        let client = Client::builder().no_proxy().timeout(CLIENT_PATIENCE).build().context("cannot make a client")?;
        let (url, began) = (format!("{url}/coupons/issue"), Instant::now());
        Ok(Rc::new(Self { client, url, round, began, end: began + limit, attempts: RefCell::default() }))
    }

    pub fn began(&self) -> Instant {
        self.began
    }

    /// Sends everybody and waits until all have a final answer, or the limit has passed.
    pub async fn ask(self: &Rc<Self>, wave: &Wave) -> Vec<Attempt> {
        let mut users = JoinSet::new();
        for crowd in &wave.crowds {
            for user in &crowd.users {
                let (crowds, code, user) = (Rc::clone(self), crowd.code, user.clone());
                users.spawn_local(async move { crowds.user(code, &user).await });
            }
        }
        while users.join_next().await.is_some() {}
        self.attempts.take()
    }

    async fn user(&self, code: &str, user: &User) {
        sleep_until((self.began + user.starts).into()).await;
        let mut rng = Rng::with_seed(user.seed);
        let until_final = async |key: &str, rng: &mut Rng| {
            while !self.attempt(code, user, key, None).await.is_final() && Instant::now() < self.end {
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
                self.attempt(code, user, "first", Some(after)).await;
                until_final("first", &mut rng).await;
            }
            Habit::Again(times) => {
                for _ in 0..times {
                    until_final("first", &mut rng).await;
                    sleep(AGAIN_AFTER_MAX.mul_f64(rng.f64())).await;
                }
            }
            Habit::Greedy => {
                until_final("first", &mut rng).await;
                until_final("second", &mut rng).await;
            }
        }
    }

    async fn attempt(&self, code: &str, user: &User, key: &str, hang_up: Option<Duration>) -> Told {
        let asked = self.now();
        let told = timeout(hang_up.unwrap_or(CLIENT_PATIENCE), self.send(code, &user.name, key)).await;
        let told = told.ok().flatten().unwrap_or(Told::Nothing);
        self.attempts.borrow_mut().push(Attempt {
            user: user.name.clone(),
            code: code.to_owned(),
            round: self.round,
            key: key.to_owned(),
            asked,
            answered: self.now(),
            told: told.clone(),
        });
        told
    }

    /// `None` when no whole answer came.
    async fn send(&self, code: &str, user: &str, key: &str) -> Option<Told> {
        let body = json!({ "code": code, "userId": user });
        let answer = self.client.post(&self.url).header("idempotency-key", key).json(&body).send().await.ok()?;
        let status = answer.status().as_u16();
        Some(Told::of(status, &answer.bytes().await.ok()?))
    }

    fn now(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_micros()).unwrap_or(u64::MAX)
    }
}
