//! `cluster.json`, the machine-readable truth about a local cluster: what runs where. It is only read here; `private` has
//! the script write one.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail};
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

/// Longest wait for a member of a group, which may be frozen.
const MEMBER_PATIENCE: Duration = Duration::from_secs(1);

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
    /// Its servers: one, or those of a group in the order of their numbers.
    pub(crate) members: Vec<Member>,
}

/// One server of the database.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Member {
    /// The supervisor's name for it, or that of its host.
    pub name: String,
    /// An account of it that may do everything.
    pub admin_url: String,
    pub(crate) pid: Option<u32>,
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

impl MySql {
    /// The place of the primary among the members of a group, and a connection to it.
    pub(crate) async fn primary(&self) -> anyhow::Result<(usize, MySqlConnection)> {
        for (place, member) in self.members.iter().enumerate() {
            let Ok(mut connection) = self.connect_to(member).await else { continue };
            if matches!(timeout(MEMBER_PATIENCE, database::is_primary(&mut connection)).await, Ok(Ok(true))) {
                return Ok((place, connection));
            }
        }
        bail!(
            "no member of the database's group is its primary; `make status` shows them, `make up` starts what is down"
        )
    }

    /// An error when a member takes no connections.
    pub(crate) async fn all_answer(&self) -> anyhow::Result<()> {
        for member in &self.members {
            self.connect_to(member).await?;
        }
        Ok(())
    }

    /// Whether one takes writes, and every member takes all of them for well ones.
    pub(crate) async fn is_whole(&self) -> anyhow::Result<bool> {
        for member in &self.members {
            let mut connection = self.connect_to(member).await?;
            if timeout(MEMBER_PATIENCE, database::members_online(&mut connection)).await?? != self.members.len() {
                return Ok(false);
            }
        }
        self.primary().await.map(|_| true)
    }

    async fn connect_to(&self, member: &Member) -> anyhow::Result<MySqlConnection> {
        timeout(MEMBER_PATIENCE, self.connect(&member.admin_url)).await?
    }

    /// Errors never contain the address, for it has a password in it.
    async fn connect(&self, url: &str) -> anyhow::Result<MySqlConnection> {
        let options: MySqlConnectOptions =
            url.parse().context("the cluster's admin_url is no MySQL address; `make up` rewrites it")?;
        options.connect().await.with_context(|| {
            let engine = &self.engine;
            format!("cannot connect to {engine}; `make status` shows whether it runs, `make up` starts it")
        })
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

    /// Opens a connection that may read everything: where the database is a group, to its primary.
    pub async fn connect(&self) -> anyhow::Result<MySqlConnection> {
        let mysql = self.mysql()?;
        match &mysql.members[..] {
            [_] => mysql.connect(&mysql.admin_url).await,
            _ => Ok(mysql.primary().await?.1),
        }
    }

    pub(crate) fn mysql(&self) -> anyhow::Result<&MySql> {
        self.mysql.as_ref().context("the cluster has no database running; `make up` starts it")
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
