//! `lab chaos`: small stocks are sold to crowds on a cluster of our own, wave after wave, while its parts are killed, frozen
//! and cut off. After each wave all is well again, everybody has a final answer, and the history is judged.

use std::fs;
use std::io::{Write, stdout};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use clap::Args;
use futures_util::future::try_join_all;
use serde::Serialize;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use time::macros::format_description;
use tokio::task::LocalSet;

mod crowd;
mod fault;
mod hung;
mod plan;
mod report;
mod strike;
mod tally;

use crate::admin::{Admin, Coupon};
use crate::cluster::Cluster;
use crate::cluster::private::{Knobs, Private};
use crate::history::{self, Attempt};
use crate::interrupt::{Interrupt, Interrupted};
use crate::machine::Machine;
use crate::progress::Progress;
use crate::strategy::Strategy;
use crate::verify::verify_history;
use crowd::Crowds;
pub use fault::Fault;
use hung::Hung;
use plan::{Disturbance, Wave};
use report::Target;
use strike::Scene;
use tally::Tally;

const REPLICAS: u32 = 3;
/// With the hung node, an hour.
const WAVES: u32 = 900;
/// Every fault twice.
const WAVES_QUICK: u32 = 40;
const HUNG_MINUTES: u32 = 10;
/// Always the same, so that what breaks in CI can be seen elsewhere.
const SEED_QUICK: u64 = 1;
/// Seconds of a wave without its fault: the reset, the crowd, the verdict.
const WAVE_SECONDS: f64 = 3.0;
/// Whoever has no final answer this long after a wave began never gets one.
const WAVE_LIMIT: Duration = Duration::from_mins(3);
/// Until all parts serve again after a wave.
const READY_WITHIN: Duration = Duration::from_mins(1);
/// Before an administrative call is repeated.
const PAUSE: Duration = Duration::from_millis(200);
/// Every attempt is answered within the service's deadline of 5 s and one more.
const ANSWER_WITHIN: Duration = Duration::from_secs(6);
/// The exit status of a run that was interrupted.
const INTERRUPTED: u8 = 130;
/// After so many waves that went wrong there is enough to look at.
const BROKEN_MAX: usize = 10;

/// Break parts of a cluster of the laboratory's own under load, and prove that nothing was lost
#[derive(Args)]
pub struct Command {
    /// Every fault twice, always with the same seed, no long run with a hung lock node; only broken promises count
    #[arg(long)]
    quick: bool,
    /// Where all that is drawn comes from [default: any, with --quick 1]
    #[arg(long)]
    seed: Option<u64>,
    /// How many waves [default: 900, with --quick 40]
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    waves: Option<u32>,
    /// The first wave's number; with a seed it replays a part of an earlier run
    #[arg(long, default_value_t = 0)]
    first: u32,
    /// Only these faults; a replay needs the same ones
    #[arg(long, value_name = "FAULT", value_delimiter = ',')]
    only: Vec<Fault>,
    /// Minutes under a steady load with one hung lock node, after the waves [default: 10, with --quick 0]
    #[arg(long, value_parser = clap::value_parser!(u32).range(..=600))]
    hung_minutes: Option<u32>,
    /// What the replicas run
    #[arg(long, env = "STRATEGY", value_enum, default_value = "batched")]
    strategy: Strategy,
    /// Keep chaos.json, chaos.txt and the histories of broken waves here [default: a new folder in .cluster/runs]
    #[arg(long, value_name = "FOLDER")]
    into: Option<PathBuf>,
    /// Moves every port of the cluster, so that it fits beside others
    #[arg(long, env = "CHAOS_PORT_OFFSET", default_value_t = 12_000, value_parser = clap::value_parser!(u16).range(..=50_000))]
    port_offset: u16,
}

/// What `chaos.json` holds.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Kept<'a> {
    started: String,
    seconds: f64,
    seed: u64,
    strategy: Strategy,
    database: &'a str,
    machine: &'a Machine,
    targets: &'a [Target],
    hung: Option<Hung>,
    failed: usize,
    waves: &'a [Tally],
}

/// What a run found.
#[derive(Default)]
struct Found {
    database: String,
    tallies: Vec<Tally>,
    /// Waves that could not be carried out.
    failed: usize,
    hung: Option<Hung>,
}

/// A run on its way.
struct Run<'a> {
    root: &'a Path,
    folder: &'a Path,
    private: &'a Private,
    cluster: Cluster,
    admin: Admin,
    strategy: Strategy,
    /// The rule of the current round.
    exclusive: Option<bool>,
}

impl Command {
    /// Runs all waves, prints and keeps what came of them. The exit status: 0 all is well, 1 a promise was broken or,
    /// without `--quick`, a target was missed, 2 a wave could not be carried out, 130 interrupted.
    pub async fn run(&self, root: &Path, interrupt: Interrupt) -> anyhow::Result<u8> {
        ensure!(
            std::env::var("RUNTIME").as_deref() != Ok("docker"),
            "RUNTIME=docker: chaos breaks local clusters alone"
        );
        ensure!(self.strategy.keeps_promises(), "{} breaks its promises without any fault", self.strategy);
        let started = OffsetDateTime::now_utc();
        let seed = self.seed.unwrap_or_else(|| if self.quick { SEED_QUICK } else { fastrand::u64(..1_000_000) });
        let folder = self.folder(root, started)?;
        eprintln!("seed {seed}; what is found goes to {}", folder.display());
        let (mut found, machine) = (Found::default(), Machine::describe(root));
        let done = self.disturb(root, &folder, seed, &mut found, interrupt).await;
        match &done {
            Err(error) if error.is::<Interrupted>() && found.tallies.is_empty() => return Ok(INTERRUPTED),
            Err(error) if found.tallies.is_empty() => bail!("no wave came to its end: {error:#}"),
            _ => {}
        }
        let targets = report::targets(&found);
        let kept = Kept {
            started: started.format(&Rfc3339)?,
            seconds: (OffsetDateTime::now_utc() - started).as_seconds_f64(),
            seed,
            strategy: self.strategy,
            database: &found.database,
            machine: &machine,
            targets: &targets,
            hung: found.hung,
            failed: found.failed,
            waves: &found.tallies,
        };
        let text = report::text(&found, &targets, self.is_whole());
        fs::write(folder.join("chaos.json"), serde_json::to_string_pretty(&kept)? + "\n")?;
        fs::write(folder.join("chaos.txt"), &text)?;
        // Kept first: a reader that went away must not cost the figures.
        let _ = writeln!(stdout(), "{text}\nseed {seed}, kept in {}", folder.display());
        match done {
            Err(error) if error.is::<Interrupted>() => Ok(INTERRUPTED),
            done => done.map(|()| self.exit(&found, &targets)),
        }
    }

    /// A cluster for as long as the run takes.
    async fn disturb(
        &self,
        root: &Path,
        folder: &Path,
        seed: u64,
        found: &mut Found,
        interrupt: Interrupt,
    ) -> anyhow::Result<()> {
        let others = [("EXPORTERS".to_owned(), "off".to_owned())].into();
        let knobs = Knobs { strategy: self.strategy, replicas: REPLICAS, others };
        let private = Private::start(root, "chaos", self.port_offset, knobs, interrupt.clone()).await?;
        let work = async { Run::new(root, folder, &private, self.strategy).await?.all(self, seed, found).await };
        let done = Box::pin(LocalSet::new().run_until(interrupt.or(work))).await;
        private.stop().await.context("cannot stop the cluster")?;
        done
    }

    /// Times count only in a whole run: a quick one may share its machine.
    fn exit(&self, found: &Found, targets: &[Target]) -> u8 {
        let is_broken = found.tallies.iter().any(|tally| !tally.findings.is_empty());
        if !is_broken && found.failed > 0 {
            return 2;
        }
        u8::from(is_broken || self.is_whole() && !targets.iter().all(|target| target.met))
    }

    fn is_whole(&self) -> bool {
        !self.quick && self.only.is_empty() && self.waves.is_none() && self.hung_minutes.is_none()
    }

    fn folder(&self, root: &Path, started: OffsetDateTime) -> anyhow::Result<PathBuf> {
        let name = started.format(format_description!("[year][month][day]T[hour][minute][second]Z-chaos"))?;
        let folder = self.into.clone().unwrap_or_else(|| root.join(".cluster/runs").join(name));
        fs::create_dir_all(&folder).with_context(|| format!("cannot write to {}", folder.display()))?;
        Ok(folder)
    }

    /// What can be brought about on this machine of what is wanted.
    async fn faults(&self) -> anyhow::Result<Vec<Fault>> {
        let mut faults = if self.only.is_empty() { Fault::ALL.to_vec() } else { self.only.clone() };
        if !strike::can_trace().await? {
            let traced: Vec<_> = faults.extract_if(.., |fault| fault.needs_tracer()).map(Fault::name).collect();
            eprintln!("strace may not take hold of a process here, so these are left out: {}", traced.join(", "));
        }
        ensure!(!faults.is_empty(), "nothing of this can be done on this machine");
        Ok(faults)
    }

    fn hung_lasts(&self) -> Duration {
        Duration::from_mins(self.hung_minutes.unwrap_or(if self.quick { 0 } else { HUNG_MINUTES }).into())
    }
}

impl<'a> Run<'a> {
    async fn new(root: &'a Path, folder: &'a Path, private: &'a Private, strategy: Strategy) -> anyhow::Result<Self> {
        let cluster = private.cluster()?;
        let admin = Admin::new(&cluster)?;
        let puts = plan::COUPONS.map(|(code, total)| {
            let admin = admin.clone();
            async move { admin.put_coupon(code, Coupon { discount_percent: 100, total }).await }
        });
        try_join_all(puts).await?;
        Ok(Self { root, folder, private, cluster, admin, strategy, exclusive: None })
    }

    async fn all(&mut self, command: &Command, seed: u64, found: &mut Found) -> anyhow::Result<()> {
        if let Some(mysql) = &self.cluster.mysql {
            found.database = format!("{} {}", mysql.engine, mysql.version.as_deref().unwrap_or("?"));
        }
        let count = command.waves.unwrap_or(if command.quick { WAVES_QUICK } else { WAVES });
        let waves: Vec<Wave> = plan::waves(seed, &command.faults().await?, command.first, count).collect();
        let hung = command.hung_lasts();
        let steps = waves.len() + usize::from(!hung.is_zero());
        let mut progress = Progress::new(steps, waves.iter().map(estimate).sum::<f64>() + hung.as_secs_f64());
        let mut broken = 0;
        for wave in &waves {
            progress.begins(&name(wave));
            let done = self.wave(wave).await;
            let (said, is_well) = match &done {
                Ok(tally) => (line(tally), tally.findings.is_empty()),
                Err(error) => (format!("{}: NOT CARRIED OUT: {error:#}", name(wave)), false),
            };
            progress.ended(estimate(wave), &said);
            found.failed += usize::from(done.is_err());
            found.tallies.extend(done.ok());
            if !is_well {
                broken += 1;
                eprintln!("{}", replay(seed, wave, command));
            }
            if broken >= BROKEN_MAX {
                return Ok(());
            }
        }
        if !hung.is_zero() {
            progress.begins("one lock node hangs");
            found.hung = Some(self.hung(hung).await?);
            progress.ended(hung.as_secs_f64(), &found.hung.map_or_else(String::new, |hung| hung.to_string()));
        }
        Ok(())
    }

    /// Breaks, mends, waits for everybody's answer, judges.
    async fn wave(&mut self, wave: &Wave) -> anyhow::Result<Tally> {
        let round = self.fresh_round(wave.exclusive).await?;
        let scene = Scene::new(self.root, self.private)?;
        let crowds = Crowds::new(&self.url()?, round, WAVE_LIMIT)?;
        let strikes = try_join_all(wave.faults.iter().map(|fault| scene.strike(*fault, crowds.began())));
        let (struck, attempts) = tokio::join!(strikes, crowds.ask(wave));
        let mended = struck?.into_iter().max().unwrap_or(crowds.began());
        self.admin.ready(READY_WITHIN).await?;
        let mut database = self.cluster.connect().await?;
        let report = verify_history(&mut database, &attempts, patience(wave)).await?;
        if !report.is_clean() {
            self.keep(wave, &attempts, &report.to_string())?;
        }
        Ok(Tally::new(wave, &attempts, mended - crowds.began(), report.rows(), report.findings))
    }

    /// A new round under this rule. A connection that broke in the last wave may be noticed only now: then it is "ask again".
    async fn fresh_round(&mut self, exclusive: bool) -> anyhow::Result<u32> {
        self.admin.ready(READY_WITHIN).await?;
        let deadline = Instant::now() + READY_WITHIN;
        loop {
            match self.begin(exclusive).await {
                Err(error) if Instant::now() > deadline => return Err(error),
                Err(_) => tokio::time::sleep(PAUSE).await,
                Ok(round) => return Ok(round),
            }
        }
    }

    async fn begin(&mut self, exclusive: bool) -> anyhow::Result<u32> {
        if self.exclusive != Some(exclusive) {
            self.admin.put_event(exclusive).await?;
            self.exclusive = Some(exclusive);
        }
        self.admin.reset().await
    }

    async fn hung(&mut self, lasts: Duration) -> anyhow::Result<Hung> {
        self.fresh_round(false).await?;
        let (scene, url) = (Scene::new(self.root, self.private)?, self.url()?);
        let hangs = Disturbance {
            fault: Fault::RedisHung,
            at: Duration::ZERO,
            lasts: lasts + Duration::from_secs(10),
            pick: 0,
        };
        tokio::select! {
            ended = scene.strike(hangs, Instant::now()) => ended.and(Err(anyhow::anyhow!("the load took too long"))),
            hung = Hung::measure(&self.admin, &url, self.strategy, lasts) => hung,
        }
    }

    /// The evidence of a broken wave.
    fn keep(&self, wave: &Wave, attempts: &[Attempt], verdict: &str) -> anyhow::Result<()> {
        let path = |kind: &str| self.folder.join(format!("wave-{}.{kind}", wave.number));
        fs::write(path("jsonl"), history::text(attempts)?)?;
        fs::write(path("txt"), verdict)?;
        eprintln!("{verdict}");
        Ok(())
    }

    fn url(&self) -> anyhow::Result<String> {
        Ok(self.cluster.nginx.as_ref().context("the cluster has no nginx running")?.url.clone())
    }
}

/// How long an attempt may take. What waits inside a frozen process is answered when that goes on.
fn patience(wave: &Wave) -> Duration {
    let frozen = wave.faults.iter().filter(|it| it.fault.freezes_replicas()).map(|it| it.lasts);
    ANSWER_WITHIN + frozen.max().unwrap_or_default()
}

fn estimate(wave: &Wave) -> f64 {
    WAVE_SECONDS + wave.faults.iter().map(|it| it.lasts.as_secs_f64()).fold(0.0, f64::max)
}

fn name(wave: &Wave) -> String {
    let faults: Vec<_> = wave.faults.iter().map(|it| it.fault.name()).collect();
    format!("wave {}: {}", wave.number, faults.join(" + "))
}

fn line(tally: &Tally) -> String {
    let verdict = match tally.violations() {
        0 => "clean".to_owned(),
        count => format!("BROKEN: {count}"),
    };
    let Tally { wave, faults, users, issued, longest_wait, .. } = tally;
    format!(
        "wave {wave}: {}: {users} users, {issued} pieces, longest wait {longest_wait:.2} s, {verdict}",
        faults.join(" + ")
    )
}

/// How to see the same wave again.
fn replay(seed: u64, wave: &Wave, command: &Command) -> String {
    let only: Vec<_> = command.only.iter().map(|fault| fault.name()).collect();
    let only = if only.is_empty() { String::new() } else { format!(" ONLY={}", only.join(",")) };
    format!("wave {0} again: make chaos SEED={seed} FIRST={0} WAVES=1 HUNG=0{only}", wave.number)
}
