//! The cluster that is measured: made to be as a scenario needs it, cleared between two measurements, judged after each.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::Context;
use futures_util::future::try_join_all;
use sqlx::MySqlConnection;

use super::scenario::Stock;
use super::speed::{Gauge, Mark};
use crate::admin::{Admin, Coupon, Window};
use crate::cluster::Cluster;
use crate::cluster::private::{Knobs, Private};
use crate::database;
use crate::interrupt::Interrupt;
use crate::processes::{Parts, Processors, Used, own};
use crate::servers::{Asked, Servers};
use crate::verify::{self, Ack, Report};

/// So many coupons are changed at once. Each call takes a second; the replica makes the changes one after the other, and the last
/// of so many stays well within its deadline.
const CHANGES_AT_ONCE: usize = 128;

/// How long a cluster may need until every replica serves.
const READY_PATIENCE: Duration = Duration::from_mins(2);

/// The cluster that is measured.
pub struct Stage {
    /// `None`: it belongs to somebody else.
    private: Option<Private>,
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
    /// When they were read.
    pub at: Instant,
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
        let met = async { Self::meet(private.cluster()?, root, gauge, interrupt).await };
        match met.await {
            Ok(stage) => Ok(Self { private: Some(private), ..stage }),
            Err(error) => {
                private.stop().await.context("and what was started could not be stopped")?;
                Err(error)
            }
        }
    }

    /// Measures on a cluster that belongs to somebody else: it stays as it is, and so do the wallets of its former rounds.
    pub async fn visit(root: &Path, cluster: Cluster, interrupt: Interrupt) -> anyhow::Result<Self> {
        Self::meet(cluster, root, Gauge::start()?, interrupt).await
    }

    async fn meet(cluster: Cluster, root: &Path, gauge: Gauge, interrupt: Interrupt) -> anyhow::Result<Self> {
        let (admin, parts, servers) = (Admin::new(&cluster)?, Parts::of(&cluster), Servers::connect(&cluster).await?);
        let (root, offered) = (root.to_owned(), BTreeSet::new());
        Ok(Self { private: None, root, interrupt, cluster, admin, parts, servers, gauge, offered })
    }

    /// Stops a cluster of our own and deletes its data.
    pub async fn stop(self) -> anyhow::Result<()> {
        match self.private {
            Some(private) => private.stop().await,
            None => Ok(()),
        }
    }

    /// Makes a cluster of our own be as `wanted`; only what differs is restarted.
    pub async fn set(&mut self, wanted: Knobs) -> anyhow::Result<()> {
        let Some(private) = &mut self.private else { return Ok(()) };
        if *private.knobs() != wanted {
            self.cluster = private.change(wanted).await?;
            self.admin = Admin::new(&self.cluster)?;
            self.parts = Parts::of(&self.cluster);
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
            self.admin.put_event(exclusive, Window::default()).await?;
        }
        if *stock == Stock::Seeded { self.withdraw().await } else { self.fresh_round().await }
    }

    /// Codes of the coupons that nobody offered here: those that every database begins with.
    pub async fn seeded(&self) -> anyhow::Result<Vec<String>> {
        let codes = self.admin.audit().await?.coupons.into_iter().map(|coupon| coupon.code);
        Ok(codes.filter(|code| !self.offered.contains(code)).collect())
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

    /// Starts a new round, on a cluster of our own with empty wallets, so that every measurement finds tables of the same size.
    async fn fresh_round(&mut self) -> anyhow::Result<()> {
        if self.private.is_some() {
            database::empty_wallets(&mut self.servers.database).await?;
        }
        self.admin.reset().await.map(drop)
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
        Ok(Moment { at: Instant::now(), used, own, machine, asked, mark: self.gauge.mark(), pages })
    }

    /// [`Stage::look`] at the beginning of a window that is the middle of a load: the same way at both its edges.
    pub async fn look_warm(&mut self) -> anyhow::Result<Moment> {
        let _ = self.parts.forget_peaks();
        self.look().await
    }

    /// Reads every counter; processors first, so that the reading is not in what was measured until now.
    pub async fn look(&mut self) -> anyhow::Result<Moment> {
        let (at, mark) = (Instant::now(), self.gauge.mark());
        let (machine, used, own) = (Processors::read()?, self.parts.used()?, own()?);
        Ok(Moment {
            at,
            used,
            own,
            machine,
            asked: self.servers.asked().await?,
            mark,
            pages: self.admin.metrics().await?,
        })
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

    /// For the project's own scripts; they find a cluster that is not our own by themselves.
    pub fn script(&self) -> (&Path, BTreeMap<String, String>, &Interrupt) {
        let environment = self.private.as_ref().map(Private::environment).unwrap_or_default();
        (&self.root, environment, &self.interrupt)
    }

    /// Where nginx answers.
    pub fn url(&self) -> anyhow::Result<String> {
        Ok(self.cluster.nginx.as_ref().context("the cluster has no nginx running")?.url.clone())
    }
}
