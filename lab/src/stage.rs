//! The cluster that is measured: made to be as a scenario needs it, cleared between two measurements, judged after each.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use anyhow::Context;
use futures_util::future::try_join_all;
use sqlx::MySqlConnection;

use crate::admin::{Admin, Coupon};
use crate::cluster::Cluster;
use crate::cluster::private::{Knobs, Private};
use crate::database;
use crate::interrupt::Interrupt;
use crate::processes::{Parts, Processors, Used, own};
use crate::servers::{Asked, Servers};
use crate::speed::{Gauge, Mark};
use crate::verify::{self, Ack, Report};

/// So many coupons are changed at once: each call takes a second, and the database is not to be flooded.
const CHANGES_AT_ONCE: usize = 40;

/// The cluster that is measured.
pub struct Stage {
    private: Private,
    root: PathBuf,
    interrupt: Interrupt,
    cluster: Cluster,
    admin: Admin,
    parts: Parts,
    servers: Servers,
    gauge: Gauge,
    offered: BTreeSet<String>,
}

/// All counters at one moment.
pub struct Moment {
    /// Processor time by part.
    pub used: Used,
    /// That of the laboratory.
    pub own: f64,
    /// Of the machine.
    pub machine: Processors,
    /// Of redis and the database.
    pub asked: Asked,
    /// Of the gauge.
    mark: Mark,
    /// Pages of metrics by replica.
    pub pages: BTreeMap<String, String>,
}

impl Stage {
    /// Starts a cluster of our own; see [`Private::start`].
    pub async fn start(
        root: &Path,
        name: &str,
        port_offset: u16,
        knobs: Knobs,
        interrupt: Interrupt,
    ) -> anyhow::Result<Self> {
        let gauge = Gauge::start()?;
        let private = Private::start(root, name, port_offset, knobs, interrupt.clone()).await?;
        match Self::meet(&private).await {
            Ok((cluster, admin, parts, servers)) => {
                let (root, offered) = (root.to_owned(), BTreeSet::new());
                Ok(Self { private, root, interrupt, cluster, admin, parts, servers, gauge, offered })
            }
            Err(error) => {
                private.stop().await.context("and what was started could not be stopped")?;
                Err(error)
            }
        }
    }

    async fn meet(private: &Private) -> anyhow::Result<(Cluster, Admin, Parts, Servers)> {
        let cluster = private.cluster()?;
        let servers = Servers::connect(&cluster).await?;
        Ok((cluster.clone(), Admin::new(&cluster)?, Parts::of(&cluster), servers))
    }

    /// Stops it and deletes its data.
    pub async fn stop(self) -> anyhow::Result<()> {
        self.private.stop().await
    }

    /// Makes the cluster be as `wanted`; only what differs is restarted.
    pub async fn set(&mut self, wanted: Knobs) -> anyhow::Result<()> {
        if *self.private.knobs() == wanted {
            return Ok(());
        }
        self.cluster = self.private.change(wanted).await?;
        self.admin = Admin::new(&self.cluster)?;
        self.parts = Parts::of(&self.cluster);
        Ok(())
    }

    /// Makes sure that these coupons exist, with so many pieces.
    pub async fn offer(&mut self, coupons: Vec<(String, u32)>) -> anyhow::Result<()> {
        let missing: Vec<_> = coupons.into_iter().filter(|(code, _)| !self.offered.contains(code)).collect();
        for some in missing.chunks(CHANGES_AT_ONCE) {
            try_join_all(some.iter().map(|(code, total)| self.admin.put_coupon(code, Coupon::open(*total)))).await?;
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

    /// Empties the wallets and starts a new round, so that every measurement finds tables of the same size.
    pub async fn fresh_round(&mut self) -> anyhow::Result<()> {
        self.empty_wallets().await?;
        self.admin.reset().await.map(drop)
    }

    /// Empties the wallets. A new round must follow: the counters of this one still say that coupons were issued.
    pub async fn empty_wallets(&mut self) -> anyhow::Result<()> {
        database::empty_wallets(&mut self.servers.database).await
    }

    /// For questions of a laboratory's own to the tables.
    pub fn database(&mut self) -> &mut MySqlConnection {
        &mut self.servers.database
    }

    /// Judges the tables, also against what clients were promised.
    pub async fn verify(&mut self, acks: &[Ack]) -> anyhow::Result<Report> {
        verify::verify(&mut self.servers.database, Some(acks)).await
    }

    /// Reads every counter before a measurement; processors last, so that the reading is not in the measurement.
    pub async fn before(&mut self) -> anyhow::Result<Moment> {
        // A kernel that does not let go of a peak reports the one since the process began, which is no lower.
        let _ = self.parts.forget_peaks();
        let (pages, asked) = (self.admin.metrics().await?, self.servers.asked().await?);
        let (used, own, machine) = (self.parts.used()?, own()?, Processors::read()?);
        Ok(Moment { used, own, machine, asked, mark: self.gauge.mark(), pages })
    }

    /// Reads every counter; processors first, so that the reading is not in what was measured until now.
    pub async fn look(&mut self) -> anyhow::Result<Moment> {
        let (mark, machine, used, own) = (self.gauge.mark(), Processors::read()?, self.parts.used()?, own()?);
        Ok(Moment { used, own, machine, asked: self.servers.asked().await?, mark, pages: self.admin.metrics().await? })
    }

    /// Mean speed of the processors between two moments, as a share of the fastest seen: see [`Gauge::between`].
    pub fn speed(&self, from: &Moment, to: &Moment) -> Option<f64> {
        self.gauge.between(from.mark, to.mark)
    }

    /// What runs where.
    pub fn cluster(&self) -> &Cluster {
        &self.cluster
    }

    /// The administration.
    pub fn admin(&self) -> &Admin {
        &self.admin
    }

    /// The processes.
    pub fn parts(&self) -> &Parts {
        &self.parts
    }

    /// For the project's own scripts.
    pub fn script(&self) -> (&Path, BTreeMap<String, String>, &Interrupt) {
        (&self.root, self.private.environment(), &self.interrupt)
    }

    /// Where nginx answers.
    pub fn url(&self) -> anyhow::Result<String> {
        Ok(self.cluster.nginx.as_ref().context("the cluster has no nginx running")?.url.clone())
    }
}
