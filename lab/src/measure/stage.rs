//! The cluster that is measured: made to be as a scenario needs it, cleared between two measurements, judged after each.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use anyhow::Context;
use futures_util::future::try_join_all;
use redis::aio::MultiplexedConnection;
use sqlx::MySqlConnection;

use super::histogram::Pages;
use super::scenario::Stock;
use super::speed::Gauge;
use crate::admin::Admin;
use crate::cluster::private::{Knobs, Private};
use crate::cluster::{Cluster, Server};
use crate::database;
use crate::processes::{Parts, Processors, Used, own};
use crate::say;

/// So many coupons are changed at once. Each call takes a second; the replica makes the changes one after the other, and the last
/// of so many stays well within its deadline.
const CHANGES_AT_ONCE: usize = 128;

/// How long a cluster may need until every replica serves.
const READY_PATIENCE: Duration = Duration::from_mins(2);

pub struct Stage {
    /// `None`: it belongs to somebody else.
    pub private: Option<Private>,
    pub cluster: Cluster,
    pub admin: Admin,
    pub parts: Parts,
    redis: Vec<MultiplexedConnection>,
    /// May do everything: it clears the tables and reads them.
    pub database: MySqlConnection,
    pub gauge: Gauge,
    offered: BTreeSet<String>,
}

/// All counters at one moment.
pub struct Moment {
    pub at: Instant,
    /// Of the gauge.
    pub mark: usize,
    pub machine: Processors,
    /// By part.
    pub used: Used,
    /// That of the laboratory.
    pub own: f64,
    /// Seconds that each replica stood still, where it has a share of its own.
    pub throttled: Used,
    pub pages: Pages,
    /// Commands on all lock nodes, and statements that the database was sent.
    pub commands: u64,
    pub statements: u64,
}

impl Stage {
    /// Measures on a cluster of our own.
    pub async fn of(private: Private) -> anyhow::Result<Self> {
        let stage = Self::visit(private.cluster()?).await?;
        Ok(Self { private: Some(private), ..stage })
    }

    /// Measures on a cluster that belongs to somebody else: it stays as it is, and so do the wallets of its former rounds.
    pub async fn visit(cluster: Cluster) -> anyhow::Result<Self> {
        let (admin, parts, gauge) = (Admin::new(&cluster)?, Parts::of(&cluster), Gauge::start()?);
        let (redis, database) = (redis(&cluster).await?, cluster.connect().await?);
        Ok(Self { private: None, cluster, admin, parts, redis, database, gauge, offered: BTreeSet::new() })
    }

    /// Looks up what has another process, or another place, since parts of the cluster were broken.
    pub async fn renew(&mut self) -> anyhow::Result<()> {
        if let Some(private) = &self.private {
            private.mend().await?;
            self.cluster = private.cluster()?;
        }
        self.parts = Parts::of(&self.cluster);
        self.database = self.cluster.connect().await?;
        Ok(())
    }

    /// Stops a cluster of our own and deletes its data. `measured` is what came of it until now.
    pub async fn stop<T>(self, measured: anyhow::Result<T>) -> anyhow::Result<T> {
        let stopped = match self.private {
            Some(private) => private.stop().await.context("cannot stop the cluster"),
            None => Ok(()),
        };
        both(measured, stopped)
    }

    /// Makes a cluster of our own be as `wanted`; only what differs is restarted.
    pub async fn set(&mut self, wanted: &Knobs) -> anyhow::Result<()> {
        if let Some(private) = self.private.as_mut().filter(|private| private.knobs() != wanted) {
            let is_another = private.knobs().members() != wanted.members();
            self.cluster = private.change(wanted.clone()).await?;
            self.admin = Admin::new(&self.cluster)?;
            self.parts = Parts::of(&self.cluster);
            if is_another {
                (self.redis, self.offered) = (redis(&self.cluster).await?, BTreeSet::new());
                self.database = self.cluster.connect().await?;
            }
        }
        self.admin.ready(READY_PATIENCE).await
    }

    /// Begins a round in which there is this to be had.
    pub async fn prepare(&mut self, stock: &Stock) -> anyhow::Result<()> {
        if *stock == Stock::Untouched {
            return Ok(());
        }
        self.offer(stock.coupons()).await?;
        // Sold out is said from memory when a whole scope is: of an exclusive event that has other coupons left, one code is not.
        let exclusive = !matches!(stock, Stock::Gone(..));
        if self.private.is_some() && self.admin.event().await?.exclusive_next != exclusive {
            self.admin.put_event(exclusive, true).await?;
        }
        self.fresh_round().await
    }

    /// Makes sure that these coupons exist, with so many pieces.
    pub async fn offer(&mut self, coupons: Vec<(String, u32)>) -> anyhow::Result<()> {
        let missing: Vec<_> = coupons.into_iter().filter(|(code, _)| !self.offered.contains(code)).collect();
        for some in missing.chunks(CHANGES_AT_ONCE) {
            try_join_all(some.iter().map(|(code, total)| self.admin.put_coupon(code, *total))).await?;
            self.offered.extend(some.iter().map(|(code, _)| code.clone()));
        }
        Ok(())
    }

    /// Takes out of the event again whatever was offered, in a new round, in which nobody holds it.
    pub async fn withdraw(&mut self) -> anyhow::Result<()> {
        self.fresh_round().await?;
        let offered: Vec<_> = std::mem::take(&mut self.offered).into_iter().collect();
        for some in offered.chunks(CHANGES_AT_ONCE) {
            try_join_all(some.iter().map(|code| self.admin.retire_coupon(code))).await?;
        }
        Ok(())
    }

    /// Starts a new round, on a cluster of our own with empty wallets, so that every measurement finds tables of the same size.
    async fn fresh_round(&mut self) -> anyhow::Result<()> {
        if self.private.is_some() {
            database::empty_wallets(&mut self.database).await?;
        }
        self.admin.reset().await.map(drop)
    }

    /// Reads every counter where a measurement begins, while the load is under way.
    pub async fn begin(&mut self) -> anyhow::Result<Moment> {
        // A kernel that does not let go of a peak reports the one since the process began, which is no lower.
        let _ = self.parts.forget_peaks();
        self.end().await
    }

    /// Reads every counter in this order: edge and processors first, so that the reading is not in what was measured until now.
    pub async fn end(&mut self) -> anyhow::Result<Moment> {
        Ok(Moment {
            at: Instant::now(),
            mark: self.gauge.mark(),
            throttled: self.private.as_ref().map_or_else(|| Ok(Used::new()), Private::throttled)?,
            machine: Processors::read()?,
            used: self.parts.used()?,
            own: own()?,
            pages: self.admin.metrics().await?,
            commands: self.commands().await?,
            statements: database::statements(&mut self.database).await?,
        })
    }

    async fn commands(&mut self) -> anyhow::Result<u64> {
        let mut commands = 0;
        for node in &mut self.redis {
            let info: String = redis::cmd("INFO").arg("stats").query_async(node).await.context("cannot ask redis")?;
            let count = info.lines().find_map(|line| line.strip_prefix("total_commands_processed:"));
            commands += count.context("redis does not count its commands")?.trim().parse::<u64>()?;
        }
        Ok(commands)
    }
}

async fn redis(cluster: &Cluster) -> anyhow::Result<Vec<MultiplexedConnection>> {
    try_join_all(cluster.redis.iter().map(Server::connect_redis)).await
}

/// What work came to that was put in order afterwards. Of two errors the first is the one to know of, but no secret is made of the
/// second.
pub fn both<T>(done: anyhow::Result<T>, put_in_order: anyhow::Result<()>) -> anyhow::Result<T> {
    if let (Err(_), Err(error)) = (&done, &put_in_order) {
        say::aside(format_args!("lab: {error:#}"));
    }
    done.and_then(|done| put_in_order.map(|()| done))
}
