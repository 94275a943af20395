//! What the lock nodes and the database were asked, from their own counters.

use anyhow::Context;
use redis::aio::MultiplexedConnection;
use serde::Serialize;
use sqlx::{MySqlConnection, Row};

use crate::cluster::Cluster;

/// The counters of the servers behind the replicas.
pub struct Servers {
    redis: Vec<MultiplexedConnection>,
    /// May do everything; also used to clear the tables and to read them.
    pub database: MySqlConnection,
}

/// Counters at one moment.
#[derive(Clone, Copy, Debug, Default)]
pub struct Asked {
    redis: u64,
    mysql: Statements,
}

/// Statements by kind.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Statements {
    /// Everything a client sent.
    pub questions: u64,
    /// `CALL`.
    pub calls: u64,
    /// `COMMIT`.
    pub commits: u64,
}

impl Servers {
    /// Connects to all of them.
    pub async fn connect(cluster: &Cluster) -> anyhow::Result<Self> {
        let mut redis = Vec::new();
        for node in &cluster.redis {
            let connection = redis::Client::open(node.url.as_str())?.get_multiplexed_async_connection().await;
            redis.push(connection.with_context(|| format!("cannot connect to {}", node.url))?);
        }
        Ok(Self { redis, database: cluster.connect().await? })
    }

    /// Reads all counters.
    pub async fn asked(&mut self) -> anyhow::Result<Asked> {
        let mut asked = Asked::default();
        for node in &mut self.redis {
            let info: String = redis::cmd("INFO").arg("stats").query_async(node).await.context("cannot ask redis")?;
            let commands = info.lines().find_map(|line| line.strip_prefix("total_commands_processed:"));
            let commands = commands.context("redis does not count its commands")?;
            asked.redis += commands.trim().parse::<u64>()?;
        }
        let rows = sqlx::raw_sql(
            "SHOW GLOBAL STATUS WHERE Variable_name IN ('Questions', 'Com_call_procedure', 'Com_commit')",
        );
        for row in rows.fetch_all(&mut self.database).await.context("cannot read the database's counters")? {
            let (name, value): (String, String) = (row.try_get(0)?, row.try_get(1)?);
            let value = value.parse()?;
            match name.as_str() {
                "Questions" => asked.mysql.questions = value,
                "Com_call_procedure" => asked.mysql.calls = value,
                _ => asked.mysql.commits = value,
            }
        }
        Ok(asked)
    }
}

impl Asked {
    /// What came since `before`, without what the asking itself cost.
    pub fn since(self, before: Self, nodes: usize) -> (u64, Statements) {
        let statements = Statements {
            questions: (self.mysql.questions - before.mysql.questions).saturating_sub(1),
            calls: self.mysql.calls - before.mysql.calls,
            commits: self.mysql.commits - before.mysql.commits,
        };
        ((self.redis - before.redis).saturating_sub(nodes as u64), statements)
    }
}
