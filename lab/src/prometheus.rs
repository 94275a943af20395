//! Questions to a cluster's Prometheus, in its query language.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, ensure};
use reqwest::Client;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::cluster::Cluster;

const TIMEOUT: Duration = Duration::from_secs(10);

/// A client of one Prometheus.
#[derive(Clone, Debug)]
pub struct Prometheus {
    http: Client,
    url: String,
}

/// One series of an answer. Times are seconds since 1970; a value that is no number (`NaN`, infinities) is left out.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Series {
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Time and value, in order.
    pub points: Vec<(f64, f64)>,
}

#[derive(Deserialize)]
struct Answer<T> {
    data: Option<Data<T>>,
    error: Option<String>,
}

#[derive(Deserialize)]
struct Data<T> {
    result: Vec<T>,
}

/// Prometheus writes numbers as texts.
#[derive(Deserialize)]
struct Vector {
    metric: BTreeMap<String, String>,
    value: (f64, String),
}

#[derive(Deserialize)]
struct Matrix {
    metric: BTreeMap<String, String>,
    values: Vec<(f64, String)>,
}

impl Prometheus {
    /// The one of this cluster.
    pub fn new(cluster: &Cluster) -> anyhow::Result<Self> {
        let prometheus =
            cluster.prometheus.as_ref().context("the cluster has no Prometheus running; `make up` starts it")?;
        let http = Client::builder().timeout(TIMEOUT).no_proxy().build().context("cannot make an HTTP client")?;
        Ok(Self { http, url: prometheus.url.clone() })
    }

    /// The value of `query` at a moment, one point a series.
    pub async fn instant(&self, query: &str, at: SystemTime) -> anyhow::Result<Vec<Series>> {
        let found: Vec<Vector> = self.ask("/api/v1/query", &[("query", query), ("time", &seconds(at))]).await?;
        Ok(found.into_iter().map(|it| series(it.metric, vec![it.value])).collect())
    }

    /// The values of `query` from `start` to `end`, one every `step`.
    pub async fn range(
        &self,
        query: &str,
        start: SystemTime,
        end: SystemTime,
        step: Duration,
    ) -> anyhow::Result<Vec<Series>> {
        let step = step.as_secs_f64().to_string();
        let fields = [("query", query), ("start", &seconds(start)), ("end", &seconds(end)), ("step", &step)];
        let found: Vec<Matrix> = self.ask("/api/v1/query_range", &fields).await?;
        Ok(found.into_iter().map(|it| series(it.metric, it.values)).collect())
    }

    async fn ask<T: DeserializeOwned>(&self, path: &str, fields: &[(&str, &str)]) -> anyhow::Result<Vec<T>> {
        let request = self.http.get(format!("{}{path}", self.url)).query(fields);
        let answer = request.send().await.context("cannot reach Prometheus; see `make status`")?;
        let answer: Answer<T> = answer.json().await.context("Prometheus answers with something unexpected")?;
        let query = fields[0].1;
        ensure!(answer.error.is_none(), "Prometheus refuses {query}: {}", answer.error.unwrap_or_default());
        Ok(answer.data.map(|data| data.result).unwrap_or_default())
    }
}

fn series(labels: BTreeMap<String, String>, values: Vec<(f64, String)>) -> Series {
    let number =
        |(at, text): (f64, String)| text.parse().ok().filter(|value: &f64| value.is_finite()).map(|it| (at, it));
    Series { labels, points: values.into_iter().filter_map(number).collect() }
}

fn seconds(at: SystemTime) -> String {
    format!("{:.3}", at.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_number_is_left_out() {
        let values = [(1.0, "0.5"), (2.0, "NaN"), (3.0, "+Inf")].map(|(at, text)| (at, text.to_owned()));

        assert_eq!(series(BTreeMap::new(), values.into()).points, [(1.0, 0.5)]);
    }
}
