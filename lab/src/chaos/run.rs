//! One wave after the other on one cluster: a new round, the strikes and the crowd at the same time, the verdict.

use std::path::Path;
use std::time::{Duration, Instant};

use futures_util::future::{join_all, try_join_all};

use super::ChaosArgs;
use super::administration::{Administrator, fresh};
use super::crowd::Crowds;
use super::fault::Fault;
use super::hung::{self, Hung};
use super::strike::Breaker;
use super::supervised::home;
use super::tally::Tally;
use super::wave::{COUPONS, Disturbance, Wave};
use super::wires::Wires;
use crate::admin::{Admin, insist};
use crate::cluster::Cluster;
use crate::cluster::private::Private;
use crate::history::{self, Change, History};
use crate::say;
use crate::verify::{Finding, PATIENCE, verify, verify_history};

/// A user without a final answer this long after a wave began never gets one.
const WAVE_LIMIT: Duration = Duration::from_mins(3);
/// A quick run may share its machine, so that only what was forgotten counts: just less than a client's own patience, and just more than
/// nginx asks one replica after the other.
const PATIENCE_QUICK: Duration = Duration::from_secs(15);
/// So many orders at a time are few for a home: the smallest crowds fit in, the largest are more than all homes take together.
const HOME_ORDERS_FEW: u32 = 16;
/// Until all parts serve again after a wave.
const READY_WITHIN: Duration = Duration::from_mins(1);

pub struct Run<'a> {
    args: &'a ChaosArgs,
    folder: &'a Path,
    private: &'a Private,
    /// `None` where the parts are hosts of their own.
    wires: Option<&'a Wires>,
    pub cluster: Cluster,
    admin: Admin,
    /// Whether homes are small; `None` when it is not known.
    narrow: Option<bool>,
    /// The rule of the current round; `None` when it is not known, nor whether every coupon has its usual pieces.
    exclusive: Option<bool>,
}

impl<'a> Run<'a> {
    pub fn new(
        args: &'a ChaosArgs,
        folder: &'a Path,
        private: &'a Private,
        wires: Option<&'a Wires>,
    ) -> anyhow::Result<Self> {
        let cluster = private.cluster()?;
        let admin = Admin::new(&cluster)?;
        Ok(Self { args, folder, private, wires, cluster, admin, narrow: Some(false), exclusive: None })
    }

    /// Breaks, mends, waits for everybody's answer, judges.
    pub async fn wave(&mut self, wave: &Wave) -> anyhow::Result<Tally> {
        self.set_homes(wave.has(Fault::HomeFull)).await?;
        let round = self.fresh_round(wave.exclusive).await?;
        if wave.administration().is_some() {
            self.exclusive = None;
        }
        let breaker = Breaker::new(self.private, &self.cluster, self.wires).await?;
        let crowds = Crowds::new(&self.cluster.url()?, WAVE_LIMIT)?;
        // All of them to their ends, also when one fails: each mends what it broke.
        let strikes = join_all(wave.faults.iter().map(|fault| breaker.strike(*fault, crowds.began)));
        let administered = self.administer(wave, round, crowds.began);
        let (struck, changes, heard) = tokio::join!(strikes, administered, crowds.ask(wave));
        self.renew().await?;
        let (struck, changes) = (struck.into_iter().collect::<anyhow::Result<Vec<_>>>()?, changes?);
        self.admin.ready(READY_WITHIN).await?;
        let mut database = self.cluster.connect().await?;
        let history = History { changes, ..heard };
        let report = verify_history(&mut database, None, &history, self.patience(wave)).await?;
        if !report.is_clean() {
            say::aside(&report);
            self.keep(&format!("wave-{}.txt", wave.number), &report.to_string());
            self.keep(&format!("wave-{}.jsonl", wave.number), &history::text(&history)?);
        }
        Ok(Tally::new(wave, &history.attempts, crowds.shared(), &struck, report))
    }

    /// Looks up where everything is: a host that was lost may have come back with another address.
    async fn renew(&mut self) -> anyhow::Result<()> {
        self.cluster = self.private.look().await?;
        self.admin = Admin::new(&self.cluster)?;
        Ok(())
    }

    /// Makes homes small, or as the knobs have them.
    async fn set_homes(&mut self, narrow: bool) -> anyhow::Result<()> {
        if self.narrow != Some(narrow) {
            self.narrow = None;
            self.private.bound_homes(narrow.then_some(HOME_ORDERS_FEW)).await?;
            self.narrow = Some(narrow);
        }
        Ok(())
    }

    async fn administer(&self, wave: &Wave, round: u32, began: Instant) -> anyhow::Result<Vec<Change>> {
        let first = fresh(round, wave.exclusive);
        let Some(disturbance) = wave.administration() else { return Ok(vec![first]) };
        // A replica that is about to be parted could change nothing.
        let home = home(&self.cluster, disturbance.code).await?;
        let admin = self.admin.clone().elsewhere(&home);
        Administrator::new(&admin, first, began).work(disturbance).await
    }

    /// A new round under this rule. A connection that broke in the last wave may be noticed only now: then it is "ask again".
    async fn fresh_round(&mut self, exclusive: bool) -> anyhow::Result<u32> {
        self.admin.ready(READY_WITHIN).await?;
        if self.exclusive != Some(exclusive) {
            insist(READY_WITHIN, async || self.admin.put_event(exclusive, true).await).await?;
        }
        let round = self.admin.reset().await?;
        if self.exclusive.is_none() {
            let puts = || COUPONS.map(|(code, total)| self.admin.put_coupon(code, total));
            insist(READY_WITHIN, async || try_join_all(puts()).await).await?;
        }
        self.exclusive = Some(exclusive);
        Ok(round)
    }

    /// One lock node hangs for so long. What was judged counts, whatever became of the measurement.
    pub async fn hung(&mut self, lasts: Duration, findings: &mut Vec<Finding>) -> anyhow::Result<Hung> {
        self.set_homes(false).await?;
        self.fresh_round(false).await?;
        let (breaker, longer) = (Breaker::new(self.private, &self.cluster, self.wires).await?, Duration::from_secs(10));
        let url = self.cluster.url()?;
        let hangs = Disturbance {
            fault: if self.wires.is_some() { Fault::RedisHung } else { Fault::RedisPaused },
            at: Duration::ZERO,
            lasts: lasts + longer,
            pick: 0,
            code: hung::CODE,
        };
        let hung = tokio::select! {
            ended = breaker.strike(hangs, Instant::now()) => ended.and(Err(anyhow::anyhow!("the load took too long"))),
            hung = Hung::measure(&self.admin, &url, self.args.strategy, lasts) => hung,
        };
        let report = verify(&mut self.cluster.connect().await?, None).await?;
        if !report.is_clean() {
            let verdict = format!("while a lock node hung\n{report}\n");
            say::aside(&verdict);
            self.keep("hung.txt", &verdict);
        }
        *findings = report.findings;
        hung
    }

    /// How long an attempt may take. What waits inside a frozen replica is answered when that goes on, or by another one when nginx
    /// has given it up; what was swallowed waits until then in any case.
    fn patience(&self, wave: &Wave) -> Duration {
        let silence = wave.faults.iter().map(|it| it.fault.silence(it.lasts)).max().unwrap_or_default();
        let within = PATIENCE + silence;
        if self.args.quick { within.max(PATIENCE_QUICK) } else { within }
    }

    /// Why a wave was not carried out, only its parts can say, and they are gone when the run is.
    pub async fn keep_logs(&self, wave: &Wave) {
        match self.private.logs().await {
            Ok(said) => self.keep(&format!("wave-{}.log", wave.number), &said),
            Err(error) => say::aside(format_args!("{error:#}")),
        }
    }

    /// The evidence of a broken promise. That it cannot be kept must not hide what was found.
    fn keep(&self, name: &str, text: &str) {
        if let Err(error) = super::keep(self.folder, name, text) {
            say::aside(format_args!("{error:#}"));
        }
    }
}
