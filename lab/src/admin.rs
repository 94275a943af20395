//! The admin calls of a cluster's replicas. They are made on the ops listeners, which nginx never shows, with the token
//! from the cluster's own file.

use std::collections::BTreeMap;
use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use reqwest::{Client, Method, RequestBuilder, Response, StatusCode};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

use crate::cluster::Cluster;

/// A call that changed something answers after 1.1 s; what takes this long was forgotten.
const TIMEOUT: Duration = Duration::from_secs(15);

/// Between two looks at a replica that is not ready yet, and before a call that failed is repeated.
const PAUSE: Duration = Duration::from_millis(100);

/// A client of every replica's ops listener.
#[derive(Clone, Debug)]
pub struct Admin {
    http: Client,
    /// Name and base address of each replica's ops listener.
    replicas: Vec<(String, String)>,
    token: String,
}

/// A kind of coupon as it is to be.
#[derive(Clone, Copy, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Coupon {
    /// 1 to 100.
    pub discount_percent: u8,
    /// Pieces in the round, 0 to 1,000,000.
    pub total: u32,
    /// Its own window.
    #[serde(flatten)]
    pub window: Window,
}

/// When something may be issued; `None`: no bound.
#[derive(Clone, Copy, Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Window {
    /// Not before.
    #[serde(with = "time::serde::rfc3339::option")]
    pub opens_at: Option<OffsetDateTime>,
    /// Not from here on.
    #[serde(with = "time::serde::rfc3339::option")]
    pub closes_at: Option<OffsetDateTime>,
}

impl Coupon {
    /// So many pieces, to be had whenever the event is open.
    pub fn open(total: u32) -> Self {
        Self { discount_percent: 100, total, window: Window::default() }
    }
}

/// The campaign's rule.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Event {
    /// The current round.
    pub round: u32,
    /// One coupon per user over the whole event, else one per code; of the current round.
    pub exclusive: bool,
    /// The same for the next round.
    pub exclusive_next: bool,
}

/// The books of the current round.
#[derive(Clone, Debug, Deserialize)]
pub struct Audit {
    /// Which round.
    pub round: u32,
    /// In the order of their codes.
    pub coupons: Vec<Audited>,
}

/// One coupon's books.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Audited {
    /// Its code.
    pub code: String,
    /// Pieces in the round.
    pub total: u32,
    /// Pieces that the counter says are left.
    pub remaining: u32,
    /// Issued pieces.
    pub rows: u64,
    /// When the last winner reached nginx; `None` when nobody won, or nobody came through nginx.
    #[serde(with = "time::serde::rfc3339::option")]
    pub latest_winner_arrival: Option<OffsetDateTime>,
    /// When the first user that was told "sold out" reached nginx; `None` when nobody was.
    #[serde(with = "time::serde::rfc3339::option")]
    pub earliest_loser_arrival: Option<OffsetDateTime>,
}

/// The round that a reset is to end, in its answer the one that it began, or in its refusal the current one.
#[derive(Deserialize, Serialize)]
struct Round {
    round: u32,
}

impl Admin {
    /// A client for the cluster as it is described now; after a change of its replicas make another one.
    pub fn new(cluster: &Cluster) -> anyhow::Result<Self> {
        let file =
            cluster.admin_token_file.as_ref().context("the cluster has no replica running; `make up` starts one")?;
        let tokens =
            fs::read_to_string(file).with_context(|| format!("cannot read {}; `make up` writes it", file.display()))?;
        // While callers change from one token to another a second line holds the old one.
        let token = tokens.lines().next().unwrap_or_default().trim().to_owned();
        let replicas: Vec<_> =
            cluster.replicas.iter().map(|replica| (replica.name.clone(), replica.ops_url.clone())).collect();
        ensure!(!replicas.is_empty(), "the cluster has no replica running; `make up` starts one");
        let http = Client::builder().timeout(TIMEOUT).no_proxy().build().context("cannot make an HTTP client")?;
        Ok(Self { http, replicas, token })
    }

    /// Creates the coupon or changes it to this. Every replica has seen it afterwards. Repeating is safe.
    pub async fn put_coupon(&self, code: &str, coupon: Coupon) -> anyhow::Result<()> {
        let request = self.first(Method::PUT, &format!("/admin/coupons/{code}")).json(&coupon);
        json::<serde_json::Value>(request).await.map(drop).with_context(|| format!("cannot put the coupon {code}"))
    }

    /// Retires a coupon that nobody holds in the current round. Every replica has seen it afterwards. Repeating is safe.
    pub async fn retire_coupon(&self, code: &str) -> anyhow::Result<()> {
        let answer = self.first(Method::DELETE, &format!("/admin/coupons/{code}")).send().await?;
        let (status, gone) = (answer.status(), [StatusCode::NO_CONTENT, StatusCode::NOT_FOUND]);
        ensure!(gone.contains(&status), "cannot retire {code}: {status} {}", answer.text().await.unwrap_or_default());
        Ok(())
    }

    /// The campaign's rule.
    pub async fn event(&self) -> anyhow::Result<Event> {
        json(self.first(Method::GET, "/admin/event")).await.context("cannot read the event")
    }

    /// Changes the event: its window at once, its rule from the next round on. Repeating is safe.
    pub async fn put_event(&self, exclusive: bool, window: Window) -> anyhow::Result<Event> {
        #[derive(Serialize)]
        struct Change {
            exclusive: bool,
            #[serde(flatten)]
            window: Window,
        }
        let request = self.first(Method::PUT, "/admin/event").json(&Change { exclusive, window });
        json(request).await.context("cannot change the event")
    }

    /// Ends the current round and returns the next one: full stock, empty wallets. The round is looked up once, so that what is
    /// asked again for want of an answer ends no other one.
    pub async fn reset(&self) -> anyhow::Result<u32> {
        let ends = self.event().await?.round;
        insist(3 * TIMEOUT, async || self.end(ends).await).await
    }

    /// Ends this round, if it has not ended yet, and returns the next one. Repeating is safe.
    pub async fn end(&self, round: u32) -> anyhow::Result<u32> {
        let request = self.first(Method::POST, "/admin/reset").json(&Round { round });
        let ended = async {
            let answer = request.send().await?;
            if answer.status() != StatusCode::CONFLICT {
                return read(answer).await;
            }
            let refusal = answer.text().await?;
            let current = serde_json::from_str(&refusal).map(|Round { round }| round).ok();
            ensure!(current == Some(round + 1), "another round is under way: {refusal}");
            Ok(Round { round: round + 1 })
        };
        ended.await.map(|Round { round }| round).with_context(|| format!("cannot end round {round}"))
    }

    /// The books. Each replica knows only the losers it refused itself, so all of them are asked and the earliest counts.
    pub async fn audit(&self) -> anyhow::Result<Audit> {
        let mut merged: Option<Audit> = None;
        for (name, ops) in &self.replicas {
            let request = self.call(Method::GET, ops, "/admin/audit");
            let audit = json(request).await.with_context(|| format!("cannot read the audit of {name}"))?;
            merged = Some(match merged {
                None => audit,
                Some(before) => merge(before, &audit)?,
            });
        }
        merged.context("the cluster has no replica running; `make up` starts one")
    }

    /// Waits until every replica serves.
    pub async fn ready(&self, patience: Duration) -> anyhow::Result<()> {
        let deadline = Instant::now() + patience;
        for (name, ops) in &self.replicas {
            let serves = async || {
                let answer = self.http.get(format!("{ops}/readyz")).send().await;
                answer.is_ok_and(|answer| answer.status().is_success())
            };
            while !serves().await {
                ensure!(Instant::now() < deadline, "{name} is not ready after {patience:?}; see `make logs S={name}`");
                tokio::time::sleep(PAUSE).await;
            }
        }
        Ok(())
    }

    /// What every replica exposes at `/metrics` at this moment, by its name.
    pub async fn metrics(&self) -> anyhow::Result<BTreeMap<String, String>> {
        let mut pages = BTreeMap::new();
        for (name, ops) in &self.replicas {
            pages.insert(name.clone(), self.page(name, ops).await?);
        }
        Ok(pages)
    }

    /// The same of one replica.
    pub async fn metrics_of(&self, name: &str) -> anyhow::Result<String> {
        let ops = self.replicas.iter().find(|(replica, _)| replica == name).map(|(_, ops)| ops);
        self.page(name, ops.with_context(|| format!("the cluster has no {name}"))?).await
    }

    async fn page(&self, name: &str, ops: &str) -> anyhow::Result<String> {
        let page = async { self.http.get(format!("{ops}/metrics")).send().await?.error_for_status()?.text().await };
        page.await.with_context(|| format!("cannot read the metrics of {name}"))
    }

    /// Changes are made at one replica; all of them learn of it from the database.
    fn first(&self, method: Method, path: &str) -> RequestBuilder {
        self.call(method, &self.replicas[0].1, path)
    }

    fn call(&self, method: Method, ops: &str, path: &str) -> RequestBuilder {
        self.http.request(method, format!("{ops}{path}")).bearer_auth(&self.token)
    }
}

/// Repeats a call that failed until it succeeds or patience ends; only what is safe to repeat.
pub async fn insist<T>(patience: Duration, call: impl AsyncFn() -> anyhow::Result<T>) -> anyhow::Result<T> {
    let deadline = Instant::now() + patience;
    loop {
        match call().await {
            Err(_) if Instant::now() < deadline => tokio::time::sleep(PAUSE).await,
            done => return done,
        }
    }
}

/// A loser counts once, whichever replica refused it; everything else comes from the database and is the same in both.
fn merge(mut one: Audit, other: &Audit) -> anyhow::Result<Audit> {
    ensure!(one.round == other.round, "a new round began while the audit was read: ask again");
    for coupon in &mut one.coupons {
        let Some(same) = other.coupons.iter().find(|same| same.code == coupon.code) else { continue };
        let earliest = [coupon.earliest_loser_arrival, same.earliest_loser_arrival].into_iter().flatten().min();
        coupon.earliest_loser_arrival = earliest;
    }
    Ok(one)
}

/// The body of a successful answer; a refusal becomes an error with the replica's own words.
async fn json<T: DeserializeOwned>(request: RequestBuilder) -> anyhow::Result<T> {
    read(request.send().await?).await
}

async fn read<T: DeserializeOwned>(answer: Response) -> anyhow::Result<T> {
    let (status, url) = (answer.status(), answer.url().path().to_owned());
    if !status.is_success() {
        bail!("{url} answers {status}: {}", answer.text().await.unwrap_or_default().trim());
    }
    answer.json().await.with_context(|| format!("{url} answers with something unexpected"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn audit(round: u32, loser: Option<&str>) -> Audit {
        let coupon = serde_json::json!({"code": "A", "total": 3, "remaining": 0, "rows": 3, "distinctUsers": 3,
            "lowestSerial": 1, "highestSerial": 3, "latestWinnerArrival": "2026-01-01T00:00:00.120Z",
            "earliestLoserArrival": loser});
        serde_json::from_value(serde_json::json!({"round": round, "exclusive": true, "coupons": [coupon]})).unwrap()
    }

    fn earliest(audits: &[Option<&str>]) -> Option<OffsetDateTime> {
        let mut audits = audits.iter().map(|loser| audit(1, *loser));
        let first = audits.next().unwrap();
        audits.fold(first, |one, other| merge(one, &other).unwrap()).coupons[0].earliest_loser_arrival
    }

    #[test]
    fn the_earliest_loser_is_the_earliest_of_all_replicas() {
        let (early, late) = ("2026-01-01T00:00:00.110Z", "2026-01-01T00:00:00.115Z");

        let found = earliest(&[Some(late), None, Some(early)]);

        assert_eq!(found, audit(1, Some(early)).coupons[0].earliest_loser_arrival);
        assert_eq!(earliest(&[None, None]), None);
    }

    #[test]
    fn audits_of_two_rounds_are_not_merged() {
        assert!(merge(audit(1, None), &audit(2, None)).is_err());
    }
}
