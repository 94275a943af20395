//! The admin calls of a cluster's replicas. They are made on the ops listeners, which nginx never shows, with the token
//! from the cluster's own file.

use std::collections::BTreeMap;
use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use reqwest::{Client, Method, RequestBuilder, Response, StatusCode};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use time::OffsetDateTime;

use crate::cluster::{Cluster, Replica};

/// A call that changed something answers after 1.1 s; what takes this long was forgotten.
const TIMEOUT: Duration = Duration::from_secs(15);

/// Longest that a new round is asked for.
const PATIENCE: Duration = Duration::from_mins(1);

/// Before a call that failed is repeated.
const PAUSE: Duration = Duration::from_millis(100);

#[derive(Clone, Debug)]
pub struct Admin {
    http: Client,
    replicas: Vec<Replica>,
    token: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Event {
    /// The current one.
    pub round: u32,
    /// One coupon per user over the whole event, else one per code; of the next round.
    pub exclusive_next: bool,
}

/// The books of the current round.
#[derive(Deserialize)]
struct Audit {
    round: u32,
    coupons: Vec<Audited>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Audited {
    pub code: String,
    /// Pieces that the counter says are left.
    pub remaining: u32,
    /// When the last winner reached nginx; `None` when nobody won, or nobody came through nginx.
    #[serde(with = "time::serde::rfc3339::option")]
    pub latest_winner_arrival: Option<OffsetDateTime>,
    /// When the first user that was told "sold out" reached nginx; `None` when nobody was.
    #[serde(with = "time::serde::rfc3339::option")]
    pub earliest_loser_arrival: Option<OffsetDateTime>,
}

impl Admin {
    /// A client for the cluster as it is described now; after a change of its replicas make another one.
    pub fn new(cluster: &Cluster) -> anyhow::Result<Self> {
        let file = cluster.admin_token_file.as_ref().filter(|_| !cluster.replicas.is_empty());
        let file = file.context("the cluster has no replica running; `make up` starts one")?;
        let tokens =
            fs::read_to_string(file).with_context(|| format!("cannot read {}; `make up` writes it", file.display()))?;
        // While callers change from one token to another a second line holds the old one.
        let token = tokens.lines().next().unwrap_or_default().trim().to_owned();
        let http = Client::builder().timeout(TIMEOUT).no_proxy().build().context("cannot make an HTTP client")?;
        Ok(Self { http, replicas: cluster.replicas.clone(), token })
    }

    /// Makes changes at another replica than this one.
    pub fn elsewhere(mut self, name: &str) -> Self {
        self.replicas.sort_by_key(|replica| replica.name == name);
        self
    }

    /// Makes the coupon be one of so many pieces, to be had whenever the event is open. Every replica has seen it afterwards.
    /// Repeating is safe.
    pub async fn put_coupon(&self, code: &str, total: u32) -> anyhow::Result<()> {
        let coupon = json!({"discountPercent": 100, "total": total, "opensAt": null, "closesAt": null});
        let request = self.first(Method::PUT, &format!("/admin/coupons/{code}")).json(&coupon);
        json::<Value>(request).await.map(drop).with_context(|| format!("cannot put the coupon {code}"))
    }

    /// Retires a coupon that nobody holds in the current round. Every replica has seen it afterwards. Repeating is safe.
    pub async fn retire_coupon(&self, code: &str) -> anyhow::Result<()> {
        let answer = self.first(Method::DELETE, &format!("/admin/coupons/{code}")).send().await?;
        let (status, gone) = (answer.status(), [StatusCode::NO_CONTENT, StatusCode::NOT_FOUND]);
        ensure!(gone.contains(&status), "cannot retire {code}: {status} {}", answer.text().await.unwrap_or_default());
        Ok(())
    }

    pub async fn event(&self) -> anyhow::Result<Event> {
        json(self.first(Method::GET, "/admin/event")).await.context("cannot read the event")
    }

    /// Opens the event for good or closes it, at once, and changes its rule from the next round on. Repeating is safe.
    pub async fn put_event(&self, exclusive: bool, open: bool) -> anyhow::Result<()> {
        let closes_at = (!open).then_some("1970-01-01T00:00:00Z");
        let event = json!({"exclusive": exclusive, "opensAt": null, "closesAt": closes_at});
        let request = self.first(Method::PUT, "/admin/event").json(&event);
        json::<Value>(request).await.map(drop).context("cannot change the event")
    }

    /// Ends the current round and begins the next one: full stock, empty wallets. The round is looked up once, so that what is
    /// asked again for want of an answer ends no other one. Returns the next one.
    pub async fn reset(&self) -> anyhow::Result<u32> {
        let ends = insist(PATIENCE, async || self.event().await).await?.round;
        insist(PATIENCE, async || self.end(ends).await).await
    }

    /// Ends this round, if it has not ended yet, and returns the next one. Repeating is safe.
    pub async fn end(&self, round: u32) -> anyhow::Result<u32> {
        let request = self.first(Method::POST, "/admin/reset").json(&json!({"round": round}));
        let answer = request.send().await?;
        let has_ended = answer.status() == StatusCode::CONFLICT && self.event().await?.round == round + 1;
        if !has_ended {
            read::<Value>(answer).await.with_context(|| format!("cannot end round {round}"))?;
        }
        Ok(round + 1)
    }

    /// The books of the current round, in the order of their codes.
    pub async fn audit(&self) -> anyhow::Result<Vec<Audited>> {
        let mut audits = Vec::new();
        for Replica { name, ops_url, .. } in &self.replicas {
            let audit = json(self.call(Method::GET, ops_url, "/admin/audit")).await;
            audits.push(audit.with_context(|| format!("cannot read the audit of {name}"))?);
        }
        merge(audits)
    }

    pub async fn ready(&self, patience: Duration) -> anyhow::Result<()> {
        let all = async || {
            for Replica { name, ops_url, .. } in &self.replicas {
                let answer = self.http.get(format!("{ops_url}/readyz")).send().await;
                let is_ready = answer.is_ok_and(|answer| answer.status().is_success());
                ensure!(is_ready, "{name} is not ready after {patience:?}; see `make logs S={name}`");
            }
            Ok(())
        };
        insist(patience, all).await
    }

    /// What every replica exposes at `/metrics` at this moment, by its name.
    pub async fn metrics(&self) -> anyhow::Result<BTreeMap<String, String>> {
        let mut pages = BTreeMap::new();
        for Replica { name, ops_url, .. } in &self.replicas {
            let request = self.http.get(format!("{ops_url}/metrics"));
            let page = async { request.send().await?.error_for_status()?.text().await };
            pages.insert(name.clone(), page.await.with_context(|| format!("cannot read the metrics of {name}"))?);
        }
        Ok(pages)
    }

    /// Changes are made at one replica; all of them learn of it from the database.
    fn first(&self, method: Method, path: &str) -> RequestBuilder {
        self.call(method, &self.replicas[0].ops_url, path)
    }

    fn call(&self, method: Method, ops_url: &str, path: &str) -> RequestBuilder {
        self.http.request(method, format!("{ops_url}{path}")).bearer_auth(&self.token)
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

/// Each replica knows only the losers that it refused itself, so the earliest of all counts; everything else comes from the
/// database and is the same in each audit.
fn merge(audits: Vec<Audit>) -> anyhow::Result<Vec<Audited>> {
    let is_one_round = audits.windows(2).all(|two| two[0].round == two[1].round);
    ensure!(is_one_round, "a new round began while the audit was read: ask again");
    let mut audits = audits.into_iter().map(|audit| audit.coupons);
    let mut merged = audits.next().unwrap_or_default();
    for other in audits.flatten() {
        if let Some(same) = merged.iter_mut().find(|same| same.code == other.code) {
            let losers = [same.earliest_loser_arrival, other.earliest_loser_arrival];
            same.earliest_loser_arrival = losers.into_iter().flatten().min();
        }
    }
    Ok(merged)
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
        let coupon = json!({"code": "A", "total": 3, "remaining": 0, "rows": 3, "distinctUsers": 3, "lowestSerial": 1,
            "highestSerial": 3, "latestWinnerArrival": "2026-01-01T00:00:00.120Z", "earliestLoserArrival": loser});
        serde_json::from_value(json!({"round": round, "exclusive": true, "coupons": [coupon]})).unwrap()
    }

    #[test]
    fn the_earliest_loser_is_the_earliest_of_all_replicas() {
        let (early, late) = ("2026-01-01T00:00:00.110Z", "2026-01-01T00:00:00.115Z");
        let merged = |losers: &[Option<&str>]| {
            let audits = losers.iter().map(|loser| audit(1, *loser)).collect();
            merge(audits).unwrap()[0].earliest_loser_arrival
        };

        assert_eq!(merged(&[Some(late), None, Some(early)]), audit(1, Some(early)).coupons[0].earliest_loser_arrival);
        assert_eq!(merged(&[None, None]), None);
    }

    #[test]
    fn audits_of_two_rounds_are_not_merged() {
        assert!(merge(vec![audit(1, None), audit(2, None)]).is_err());
    }
}
