//! `cluster.json`, the machine-readable truth about a local cluster: what runs where. It is only read here; `private` has
//! the script write one.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, anyhow};
use redis::AsyncConnectionConfig;
use redis::aio::MultiplexedConnection;
use serde::Deserialize;
use sqlx::mysql::MySqlConnectOptions;
use sqlx::{ConnectOptions, MySqlConnection};
use tokio::time::timeout;

use crate::database;

pub(crate) mod private;
pub(crate) mod shares;

/// Longest wait for a lock node's answer: on a busy machine half a second, which is the client's own, is too short.
const REDIS_PATIENCE: Duration = Duration::from_secs(5);

/// Longest wait for a server of the database. One that is stopped takes connections and says nothing.
const MEMBER_PATIENCE: Duration = Duration::from_secs(10);

/// A local cluster, as `make up` wrote it down. A part that does not run is `None` or empty.
#[derive(Clone, Debug, Deserialize)]
pub struct Cluster {
    pub(crate) nginx: Option<Server>,
    /// In the order of their numbers.
    pub(crate) replicas: Vec<Replica>,
    /// The independent lock servers.
    pub redis: Vec<Server>,
    /// The database.
    pub mysql: Option<MySql>,
    pub(crate) prometheus: Option<Server>,
    /// Where the bearer token of the admin calls lies.
    pub(crate) admin_token_file: Option<PathBuf>,
}

/// A server that is known by its address alone.
#[derive(Clone, Debug, Deserialize)]
pub struct Server {
    /// Base address: of an HTTP API, or of a lock node.
    pub url: String,
    pub(crate) pid: Option<u32>,
}

/// One process of the service.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Replica {
    /// The supervisor's name for it.
    pub name: String,
    /// Base address of its public API, behind nginx.
    pub url: String,
    /// Base address of its operations listener: probes, metrics, admin calls.
    pub ops_url: String,
    pub pid: Option<u32>,
}

/// The database, `MySQL` or `MariaDB`.
#[derive(Clone, Debug, Deserialize)]
pub struct MySql {
    /// `mysql` or `mariadb`.
    pub engine: String,
    /// What the server says about itself.
    pub(crate) version: Option<String>,
    /// The service's own, least-privileged account.
    pub url: String,
    /// An account that may do everything; for tests and the laboratory.
    pub admin_url: String,
    /// The servers that it is made of: one, or a group of which one takes writes.
    pub(crate) members: Vec<Member>,
}

/// A server of the database.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Member {
    /// An account that may do everything, at this server.
    pub admin_url: String,
    pub pid: Option<u32>,
}

impl MySql {
    async fn connect(&self) -> anyhow::Result<MySqlConnection> {
        if let [only] = &self.members[..] {
            return only.connect().await;
        }
        let mut cause = anyhow!("no member takes writes");
        for member in &self.members {
            match timeout(MEMBER_PATIENCE, member.connect_to_primary())
                .await
                .context("a member does not answer")
                .flatten()
            {
                Ok(Some(connection)) => return Ok(connection),
                Ok(None) => {}
                Err(error) => cause = error,
            }
        }
        Err(cause)
    }
}

impl Member {
    async fn connect(&self) -> anyhow::Result<MySqlConnection> {
        let options: MySqlConnectOptions =
            self.admin_url.parse().context("the cluster's admin_url is no MySQL address; `make up` rewrites it")?;
        Ok(options.connect().await?)
    }

    /// A connection, if this is the server that takes writes.
    async fn connect_to_primary(&self) -> anyhow::Result<Option<MySqlConnection>> {
        let mut connection = self.connect().await?;
        let is_primary = database::takes_writes(&mut connection).await?;
        Ok(is_primary.then_some(connection))
    }
}

impl Server {
    /// Opens a connection to a lock node.
    pub(crate) async fn connect_redis(&self) -> anyhow::Result<MultiplexedConnection> {
        let config = AsyncConnectionConfig::new().set_response_timeout(Some(REDIS_PATIENCE));
        let connection =
            redis::Client::open(self.url.as_str())?.get_multiplexed_async_connection_with_config(&config).await;
        connection.with_context(|| format!("cannot connect to {}", self.url))
    }
}

impl Cluster {
    /// Reads the file at `path`; the error names the cure.
    pub fn read(path: &Path) -> anyhow::Result<Self> {
        let text = fs::read_to_string(path)
            .with_context(|| format!("cannot read {}; `make up` starts a cluster and writes it", path.display()))?;
        serde_json::from_str(&text)
            .with_context(|| format!("{} is not the description of a cluster; `make up` rewrites it", path.display()))
    }

    /// Opens a connection that may read everything, at the member that takes writes. Errors never contain the address, for it has a
    /// password in it.
    pub async fn connect(&self) -> anyhow::Result<MySqlConnection> {
        let mysql = self.mysql.as_ref().context("the cluster has no database running; `make up` starts it")?;
        mysql.connect().await.with_context(|| {
            let engine = &mysql.engine;
            format!("cannot connect to {engine}; `make status` shows whether it runs, `make up` starts it")
        })
    }

    /// Where nginx answers.
    pub(crate) fn url(&self) -> anyhow::Result<String> {
        Ok(self.nginx.as_ref().context("the cluster has no nginx running")?.url.clone())
    }

    /// Engine and version of the database; empty when it does not run.
    pub(crate) fn database(&self) -> String {
        let version = |it: &MySql| format!("{} {}", it.engine, it.version.as_deref().unwrap_or("?"));
        self.mysql.as_ref().map(version).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn absent_parts_are_null() {
        let text = r#"{"nginx":null,"replicas":[],"redis":[{"url":"redis://127.0.0.1:7001","pid":7}],"mysql":null,
            "prometheus":null,"strategy":"batched","admin_token_file":null}"#;

        let cluster: Cluster = serde_json::from_str(text).unwrap();

        assert!(cluster.nginx.is_none() && cluster.replicas.is_empty());
        assert_eq!(cluster.redis[0].pid, Some(7));
    }
}
