//! Breaks a part of the running cluster, and puts it right again: when the time is over, and also when it is interrupted.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use fastrand::Rng;
use futures_util::future::try_join_all;
use nix::sys::signal::Signal;
use nix::unistd::Pid;
use procfs::process::{FDTarget, Process};
use tokio::time::{sleep, sleep_until, timeout};

use super::fault::Fault;
use super::group::Group;
use super::half_alive::{self, halve};
use super::hosts::Hosts;
use super::supervised::{ALL, Frozen, MOST, ONE, Supervised, freeze, home, send};
use super::tracer::Tracer;
use super::wave::Disturbance;
use super::wires::Wires;
use crate::cluster::private::Private;
use crate::cluster::{Cluster, Server};
use crate::database;

const KILL_EVERY: Duration = Duration::from_millis(30);
const LOCKS_EVERY: Duration = Duration::from_millis(2);
const RELOAD_EVERY: Duration = Duration::from_millis(250);
/// Before the fault is due: a tracer stops every thread it takes hold of, so it comes while all is quiet.
const TRACE_AHEAD: Duration = Duration::from_millis(200);
/// A replica sends about a hundred packets in a wave; a step is one of the first so many.
const STEPS: u32 = 80;
/// What a packet leaves by.
const SENDS: &str = "sendto,sendmsg,write,writev";
/// The least that both database servers accept.
const CONNECTIONS_LEAST: u32 = 10;

pub struct Struck {
    /// From the start of the wave.
    pub mended: Duration,
    /// Whether anything broke: a process may not get as far as the step at which it was to break, and there may be no lock to
    /// delete.
    pub hit: bool,
}

/// Breaks the cluster as it was when this was made. Its parts are processes of this host under a supervisor, or hosts of their own.
pub enum Breaker<'a> {
    Processes(Processes<'a>),
    Hosts(Hosts<'a>),
}

impl<'a> Breaker<'a> {
    /// Only processes have `wires`.
    pub async fn new(private: &'a Private, cluster: &'a Cluster, wires: Option<&'a Wires>) -> anyhow::Result<Self> {
        Ok(match wires {
            Some(wires) => Self::Processes(Processes { private, wires, parts: Supervised::of(private, cluster)? }),
            None => Self::Hosts(Hosts::find(private, cluster).await?),
        })
    }

    /// Waits until the fault is due after `began`, breaks something, mends it.
    pub async fn strike(&self, disturbance: Disturbance, began: Instant) -> anyhow::Result<Struck> {
        let Disturbance { fault, at, lasts, code, .. } = disturbance;
        let (Self::Processes(Processes { parts: Supervised { cluster, .. }, .. }) | Self::Hosts(Hosts { cluster, .. })) =
            self;
        // While nobody else asks: a full home hands orders on.
        let home = home(cluster, code).await?;
        let due = began + at;
        let ahead = if fault.needs_tracer() { TRACE_AHEAD } else { Duration::ZERO };
        sleep_until(due.checked_sub(ahead).unwrap_or(due).into()).await;
        let hit = match self {
            Self::Processes(processes) => processes.breaks(disturbance, &home, due).await,
            Self::Hosts(hosts) => hosts.breaks(disturbance, &home, due + lasts).await,
        };
        let hit = hit.with_context(|| format!("cannot strike with {fault}"))?;
        Ok(Struck { mended: began.elapsed(), hit })
    }
}

pub struct Processes<'a> {
    private: &'a Private,
    wires: &'a Wires,
    parts: Supervised<'a>,
}

impl Processes<'_> {
    /// Tells whether anything broke.
    async fn breaks(&self, disturbance: Disturbance, home: &str, due: Instant) -> anyhow::Result<bool> {
        let Disturbance { fault, lasts, pick, .. } = disturbance;
        let (parts, redis, until) = (&self.parts, &self.parts.cluster.redis, due + lasts);
        match fault {
            Fault::HomeKilledAtAStep | Fault::HomeFrozenAtAStep => {
                return self.at_a_step(fault, home, pick, until).await;
            }
            Fault::DiskSlow | Fault::DiskFull => return self.disk(fault, until).await,
            Fault::RedisCutOff => return Ok(self.wires.cut(pick, lasts).await),
            Fault::LocksVanish => return self.delete_locks(until).await,
            Fault::ConnectionsKilled => return self.kill_connections(pick, until).await,
            Fault::HomeKilled => kill(parts, parts.one(home).await?).await?,
            Fault::EveryReplicaKilled => kill(parts, parts.some("replica-", pick, ALL).await?).await?,
            Fault::HomeFrozen => freeze(parts.one(home).await?.into_values(), lasts).await?,
            Fault::RedisHung => freeze(parts.some("redis-", pick, ONE).await?.into_values(), lasts).await?,
            Fault::RedisMajorityHung => freeze(parts.some("redis-", pick, MOST).await?.into_values(), lasts).await?,
            Fault::RedisKilled => kill(parts, parts.some("redis-", pick, ONE).await?).await?,
            Fault::EveryRedisKilled => kill(parts, parts.some("redis-", pick, ALL).await?).await?,
            Fault::DatabaseHung => freeze(parts.some("mysql", pick, ALL).await?.into_values(), lasts).await?,
            Fault::DatabaseKilled => kill(parts, parts.some("mysql", pick, ALL).await?).await?,
            Fault::ConnectionsExhausted => self.exhaust_connections(lasts).await?,
            Fault::DatabaseReadOnly => self.between(database::READ_ONLY, lasts).await?,
            Fault::TableLocked => self.between(database::TABLE_LOCKED, lasts).await?,
            Fault::NginxReloaded => self.reload(until).await?,
            Fault::HomesMoved => self.scale(pick).await?,
            Fault::RedisMemoryFull => halve(redis, half_alive::MEMORY_FULL, pick, until).await?,
            Fault::RedisReadOnly => halve(redis, half_alive::READ_ONLY, pick, until).await?,
            Fault::RedisScriptsForbidden => halve(redis, half_alive::SCRIPTS_FORBIDDEN, pick, until).await?,
            Fault::RedisWritesPaused => halve(redis, half_alive::WRITES_PAUSED, pick, until).await?,
            Fault::PrimaryKilled
            | Fault::PrimaryFrozen
            | Fault::PrimarySwitched
            | Fault::SecondaryKilled
            | Fault::MajorityFrozen
            | Fault::MajorityKilled => {
                Group::of(self.private, parts.cluster).await?.breaks(fault, lasts, pick).await?;
            }
            // The administrator and the clients do it by themselves, and homes are small before the wave begins.
            Fault::Nothing | Fault::Administration | Fault::ClientsHangUp | Fault::CodesHidden | Fault::HomeFull => {
                sleep(lasts).await;
            }
            _ => bail!("only hosts have it"),
        }
        Ok(true)
    }

    /// Tells whether the process got as far as the step.
    async fn at_a_step(&self, fault: Fault, home: &str, pick: u32, until: Instant) -> anyhow::Result<bool> {
        let pid = self.parts.pid(home).await?;
        let step = 1 + pick % STEPS;
        let frozen = fault == Fault::HomeFrozenAtAStep;
        let signal = if frozen { "SIGSTOP" } else { "SIGKILL" };
        let tracer = Tracer::start(pid, SENDS, &format!("signal={signal}:when={step}"), &[])?;
        // Goes on again whatever happens to us.
        let stopped = frozen.then(|| Frozen(vec![pid]));
        sleep_until(until.into()).await;
        let held = tracer.end().await?.held;
        let hit = if frozen { is_stopped(pid) } else { !held };
        drop(stopped);
        self.parts.until_back(home, (hit && !frozen).then_some(pid)).await?;
        Ok(hit)
    }

    /// Tells whether the disk was asked for anything meanwhile: a tracer has nothing to break in a database that does not write.
    async fn disk(&self, fault: Fault, until: Instant) -> anyhow::Result<bool> {
        let pid = self.parts.pid("mysql").await?;
        let (calls, fault, files) = match fault {
            Fault::DiskSlow => ("fsync,fdatasync", "delay_enter=100000", Vec::new()),
            _ => ("write,pwrite64,fallocate", "error=ENOSPC", data_files(pid)?),
        };
        let tracer = Tracer::start(pid, calls, fault, &files)?;
        sleep_until(until.into()).await;
        let injected = tracer.end().await?.injected;
        let gave_up = self.parts.pid("mysql").await.ok() != Some(pid);
        self.parts.until_back("mysql", gave_up.then_some(pid)).await?;
        Ok(injected || gave_up)
    }

    /// Tells whether there were keys of locks to be deleted, other than those that their holder or their time took first.
    async fn delete_locks(&self, until: Instant) -> anyhow::Result<bool> {
        let mut nodes = try_join_all(self.parts.cluster.redis.iter().map(Server::connect_redis)).await?;
        let mut deleted = 0;
        while Instant::now() < until {
            for node in &mut nodes {
                let keys: Vec<String> = redis::cmd("KEYS").arg("*lock:*").query_async(node).await?;
                if !keys.is_empty() {
                    deleted += redis::cmd("DEL").arg(keys).query_async::<u64>(node).await?;
                }
            }
            sleep(LOCKS_EVERY).await;
        }
        Ok(deleted > 0)
    }

    /// Tells whether there were connections to be killed.
    async fn kill_connections(&self, pick: u32, until: Instant) -> anyhow::Result<bool> {
        let (mut database, mut rng) = (self.parts.cluster.connect().await?, Rng::with_seed(u64::from(pick)));
        let mut killed = 0;
        while Instant::now() < until {
            if let Some(id) = rng.choice(database::service_connections(&mut database).await?) {
                // It may have gone meanwhile.
                killed += u32::from(database::kill(&mut database, id).await);
            }
            sleep(KILL_EVERY).await;
        }
        Ok(killed > 0)
    }

    /// Takes all connections that the database gives out, and closes the service's own.
    async fn exhaust_connections(&self, lasts: Duration) -> anyhow::Result<()> {
        let mut database = self.parts.cluster.connect().await?;
        let allowed = database::connections_max(&mut database).await?;
        database::allow_connections(&mut database, CONNECTIONS_LEAST).await?;
        let taken = async {
            let mut taken = Vec::new();
            database::close_connections(&mut database).await?;
            // The last one is refused; an account that may do everything has one connection more than the others.
            while let Ok(Ok(connection)) = timeout(Duration::from_secs(1), self.parts.cluster.connect()).await {
                taken.push(connection);
                ensure!(taken.len() <= CONNECTIONS_LEAST as usize + 1, "the database does not refuse connections");
            }
            sleep(lasts).await;
            anyhow::Ok(taken)
        };
        let taken = taken.await;
        database::allow_connections(&mut database, allowed).await?;
        taken.map(drop)
    }

    /// What the database is told first, and what after that time.
    async fn between(&self, [breaks, mends]: [&str; 2], lasts: Duration) -> anyhow::Result<()> {
        let mut database = self.parts.cluster.connect().await?;
        database::tell(&mut database, breaks).await?;
        sleep(lasts).await;
        database::tell(&mut database, mends).await
    }

    async fn reload(&self, until: Instant) -> anyhow::Result<()> {
        while Instant::now() < until {
            send(self.parts.pid("nginx").await?, Signal::SIGHUP)?;
            sleep(RELOAD_EVERY).await;
        }
        Ok(())
    }

    /// One replica more or one fewer, and back, whatever became of that.
    async fn scale(&self, pick: u32) -> anyhow::Result<()> {
        let usual = self.private.knobs().replicas;
        let there = self.private.scale(if pick.is_multiple_of(2) { usual + 1 } else { usual - 1 }).await;
        self.private.scale(usual).await?;
        there
    }
}

/// Kills some parts; the supervisor starts them again, and this returns when they serve.
async fn kill(parts: &Supervised<'_>, some: BTreeMap<String, Pid>) -> anyhow::Result<()> {
    some.values().try_for_each(|pid| send(*pid, Signal::SIGKILL))?;
    for (name, pid) in some {
        parts.until_back(&name, Some(pid)).await?;
    }
    Ok(())
}

fn is_stopped(pid: Pid) -> bool {
    let stat = Process::new(pid.as_raw()).and_then(|process| process.stat());
    stat.is_ok_and(|stat| matches!(stat.state, 'T' | 't'))
}

/// The files that a process has open in its own folder: for a database all that it writes, and none of its connections.
fn data_files(pid: Pid) -> anyhow::Result<Vec<PathBuf>> {
    let process = Process::new(pid.as_raw())?;
    let (folder, open) = (process.cwd()?, process.fd()?);
    let path = |target| if let FDTarget::Path(path) = target { Some(path) } else { None };
    let mut files: Vec<_> = open.filter_map(|file| path(file.ok()?.target)).collect();
    files.retain(|file| file.starts_with(&folder) && file.is_file());
    files.sort();
    files.dedup();
    ensure!(!files.is_empty(), "process {pid} has no file open in {}", folder.display());
    Ok(files)
}
