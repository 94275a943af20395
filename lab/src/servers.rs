//! What the lock nodes and the database were asked, from their own counters.

use anyhow::Context;
use redis::aio::MultiplexedConnection;
use sqlx::MySqlConnection;

use crate::cluster::Cluster;
use crate::database::{Statements, statements};

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

impl Servers {
    /// Connects to all of them.
    pub async fn connect(cluster: &Cluster) -> anyhow::Result<Self> {
        let mut redis = Vec::new();
        for node in &cluster.redis {
            redis.push(node.connect_redis().await?);
        }
        Ok(Self { redis, database: cluster.connect().await? })
    }

    /// Reads all counters.
    pub async fn asked(&mut self) -> anyhow::Result<Asked> {
        let mut asked = 0;
        for node in &mut self.redis {
            let info: String = redis::cmd("INFO").arg("stats").query_async(node).await.context("cannot ask redis")?;
            let commands = info.lines().find_map(|line| line.strip_prefix("total_commands_processed:"));
            asked += commands.context("redis does not count its commands")?.trim().parse::<u64>()?;
        }
        Ok(Asked { redis: asked, mysql: statements(&mut self.database).await? })
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
