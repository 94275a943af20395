//! Breaks a part of the running cluster, and puts it right again: when the time is over, and also when it is interrupted.

#![expect(clippy::disallowed_methods, reason = "this is where the laboratory's SQL lives")]

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use fastrand::Rng;
use nix::sys::signal::Signal;
use nix::unistd::Pid;
use redis::aio::MultiplexedConnection;
use sqlx::{AssertSqlSafe, Connection, MySqlConnection};
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio::time::{sleep, sleep_until, timeout};

use super::fault::Fault;
use super::half_alive::halve;
use super::plan::Disturbance;
use super::signals::{Frozen, freeze, send};
use super::tracer::Tracer;
use super::wires::Wires;
use crate::cluster::Cluster;
use crate::cluster::private::Private;
use crate::processes::supervised;

/// Between two killed connections.
const KILL_EVERY: Duration = Duration::from_millis(30);
/// Between two looks at a part that is on its way back.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// Between two reloads.
const RELOAD_EVERY: Duration = Duration::from_millis(250);
/// How long a killed part may take to come back; a database recovers within some seconds.
const BACK_WITHIN: Duration = Duration::from_mins(1);
/// Before the fault is due: a tracer stops every thread it takes hold of, so it comes while all is quiet.
const TRACE_AHEAD: Duration = Duration::from_millis(200);
/// A replica sends about a hundred packets in a wave; a step is one of the first so many.
const STEPS: u32 = 80;
/// What a packet leaves by.
const SENDS: &str = "sendto,sendmsg,write,writev";
/// How the database is kept from its work, and let go on.
const READ_ONLY: [&str; 2] = ["SET GLOBAL read_only = 1", "SET GLOBAL read_only = 0"];
const TABLE_LOCKED: [&str; 2] = ["LOCK TABLES coupon WRITE", "UNLOCK TABLES"];
/// The least that both servers accept.
const CONNECTIONS_LEAST: u32 = 10;

/// What a strike came to.
pub struct Struck {
    /// When all was mended.
    pub mended: Instant,
    /// Whether anything broke: a process may not get as far as the step at which it was to break, and there may be no lock to
    /// delete.
    pub hit: bool,
}

/// The cluster under attack.
pub struct Scene<'a> {
    private: &'a Private,
    wires: &'a Wires,
    cluster: Cluster,
    /// Where the supervisor's own process id is written.
    supervisor: PathBuf,
}

impl<'a> Scene<'a> {
    /// The cluster as it is now.
    pub fn new(private: &'a Private, wires: &'a Wires) -> anyhow::Result<Self> {
        let supervisor = private.file().with_file_name("supervisord.pid");
        Ok(Self { private, wires, cluster: private.cluster()?, supervisor })
    }

    /// Waits until the fault is due after `began`, breaks something, mends it.
    pub async fn strike(&self, disturbance: Disturbance, began: Instant) -> anyhow::Result<Struck> {
        let due = began + disturbance.at;
        let hit = match disturbance.fault {
            Fault::ReplicaKilledAtAStep | Fault::ReplicaFrozenAtAStep => self.at_a_step(disturbance, due).await,
            Fault::DiskSlow | Fault::DiskFull => self.disk(disturbance, due).await,
            Fault::RedisCutOff => Ok(self.cut_off(disturbance, due).await),
            Fault::LocksVanish => self.delete_locks(disturbance, due).await.map(|deleted| deleted > 0),
            Fault::ConnectionsKilled => self.kill_connections(disturbance, due).await.map(|killed| killed > 0),
            _ => self.breaks(disturbance, due).await.map(|()| true),
        };
        let hit = hit.with_context(|| format!("cannot strike with {}", disturbance.fault))?;
        Ok(Struck { mended: Instant::now(), hit })
    }

    async fn breaks(&self, disturbance: Disturbance, due: Instant) -> anyhow::Result<()> {
        let Disturbance { fault, lasts, pick, .. } = disturbance;
        sleep_until(due.into()).await;
        match fault {
            Fault::ReplicaKilled => self.kill(&[self.one("replica-", pick)?]).await,
            Fault::EveryReplicaKilled => self.kill(&self.all("replica-")?).await,
            Fault::ReplicaFrozen => freeze(&[self.pid(&self.one("replica-", pick)?)?], lasts).await,
            Fault::RedisHung => freeze(&[self.pid(&self.one("redis-", pick)?)?], lasts).await,
            Fault::RedisMajorityHung => freeze(&self.majority_of_redis(pick)?, lasts).await,
            Fault::RedisKilled => self.kill(&[self.one("redis-", pick)?]).await,
            Fault::EveryRedisKilled => self.kill(&self.all("redis-")?).await,
            Fault::DatabaseHung => freeze(&[self.pid("mysql")?], lasts).await,
            Fault::DatabaseKilled => self.kill(&["mysql".to_owned()]).await,
            Fault::ConnectionsExhausted => self.exhaust_connections(lasts).await,
            Fault::DatabaseReadOnly => self.between(READ_ONLY, lasts).await,
            Fault::TableLocked => self.between(TABLE_LOCKED, lasts).await,
            Fault::NginxReloaded => self.reload(due + lasts).await,
            Fault::ReplicasScaled => self.scale(pick).await,
            _ if halve(&self.cluster.redis, fault, pick, due + lasts).await? => Ok(()),
            // Nothing, clients that hang up by themselves, and what a tracer does.
            _ => {
                sleep(lasts).await;
                Ok(())
            }
        }
    }

    /// Kills these parts; the supervisor starts them again, and this returns when they serve.
    async fn kill(&self, names: &[String]) -> anyhow::Result<()> {
        let mut killed = Vec::new();
        for name in names {
            let pid = self.pid(name)?;
            send(pid, Signal::SIGKILL)?;
            killed.push((name, pid));
        }
        for (name, pid) in killed {
            self.until_back(name, Some(pid)).await?;
        }
        Ok(())
    }

    /// Tells whether the process got as far as the step.
    async fn at_a_step(&self, disturbance: Disturbance, due: Instant) -> anyhow::Result<bool> {
        let Disturbance { fault, lasts, pick, .. } = disturbance;
        let (name, step) = (self.one("replica-", pick)?, 1 + (pick / 16) % STEPS);
        let (pid, frozen) = (self.pid(&name)?, fault == Fault::ReplicaFrozenAtAStep);
        let signal = if frozen { "SIGSTOP" } else { "SIGKILL" };
        sleep_until(ahead(due).into()).await;
        let tracer = Tracer::start(pid, SENDS, &format!("signal={signal}:when={step}"), &[])?;
        // Goes on again whatever happens to us.
        let stopped = frozen.then(|| Frozen(vec![pid]));
        sleep_until((due + lasts).into()).await;
        let held = tracer.end().await?.held;
        let hit = if frozen { is_stopped(pid) } else { !held };
        drop(stopped);
        self.until_back(&name, (hit && !frozen).then_some(pid)).await?;
        Ok(hit)
    }

    /// Tells whether the disk was asked for anything meanwhile: a tracer has nothing to break in a database that does not write.
    async fn disk(&self, disturbance: Disturbance, due: Instant) -> anyhow::Result<bool> {
        let pid = self.pid("mysql")?;
        let (calls, fault, files) = match disturbance.fault {
            Fault::DiskSlow => ("fsync,fdatasync", "delay_enter=100000", Vec::new()),
            _ => ("write,pwrite64,fallocate", "error=ENOSPC", data_files(pid)?),
        };
        sleep_until(ahead(due).into()).await;
        let tracer = Tracer::start(pid, calls, fault, &files)?;
        sleep_until((due + disturbance.lasts).into()).await;
        let injected = tracer.end().await?.injected;
        let gave_up = !self.pids()?.values().any(|it| i32::try_from(*it) == Ok(pid.as_raw()));
        self.until_back("mysql", gave_up.then_some(pid)).await?;
        Ok(injected || gave_up)
    }

    async fn cut_off(&self, Disturbance { lasts, pick, .. }: Disturbance, due: Instant) -> bool {
        sleep_until(due.into()).await;
        self.wires.cut(pick, lasts).await
    }

    /// Counts the keys of locks that were there to be deleted.
    async fn delete_locks(&self, Disturbance { lasts, .. }: Disturbance, due: Instant) -> anyhow::Result<u64> {
        sleep_until(due.into()).await;
        let (until, mut deleted, mut nodes) = (due + lasts, 0, Vec::new());
        for node in &self.cluster.redis {
            nodes.push(redis::Client::open(node.url.as_str())?.get_multiplexed_async_connection().await?);
        }
        while Instant::now() < until {
            for node in &mut nodes {
                deleted += delete_locks(node).await?;
            }
            sleep(Duration::from_millis(2)).await;
        }
        Ok(deleted)
    }

    /// Counts the connections that were killed.
    async fn kill_connections(
        &self,
        Disturbance { lasts, pick, .. }: Disturbance,
        due: Instant,
    ) -> anyhow::Result<u32> {
        sleep_until(due.into()).await;
        let (until, mut killed) = (due + lasts, 0);
        let (mut database, mut rng) = (self.cluster.connect().await?, Rng::with_seed(u64::from(pick)));
        while Instant::now() < until {
            let ids = service_connections(&mut database).await?;
            if let Some(id) = rng.choice(ids) {
                // It may have gone meanwhile.
                let done = sqlx::raw_sql(AssertSqlSafe(format!("KILL {id}"))).execute(&mut database).await;
                killed += u32::from(done.is_ok());
            }
            sleep(KILL_EVERY).await;
        }
        Ok(killed)
    }

    /// Takes all connections that the database gives out, and closes the service's own.
    async fn exhaust_connections(&self, lasts: Duration) -> anyhow::Result<()> {
        let mut database = self.cluster.connect().await?;
        let allowed: u32 =
            sqlx::query_scalar("SELECT CAST(@@GLOBAL.max_connections AS UNSIGNED)").fetch_one(&mut database).await?;
        set_connections(&mut database, CONNECTIONS_LEAST).await?;
        let taken = async {
            let mut taken = Vec::new();
            for id in service_connections(&mut database).await? {
                let _ = sqlx::raw_sql(AssertSqlSafe(format!("KILL {id}"))).execute(&mut database).await;
            }
            // The last one is refused; who may do everything has one more connection than the others.
            while let Ok(Ok(connection)) = timeout(Duration::from_secs(1), self.cluster.connect()).await {
                taken.push(connection);
                ensure!(taken.len() <= CONNECTIONS_LEAST as usize + 1, "the database does not refuse connections");
            }
            sleep(lasts).await;
            anyhow::Ok(taken)
        };
        let taken = taken.await;
        set_connections(&mut database, allowed).await?;
        for connection in taken? {
            connection.close().await?;
        }
        Ok(())
    }

    /// What the database is told first, and what after that time.
    async fn between(&self, [breaks, mends]: [&'static str; 2], lasts: Duration) -> anyhow::Result<()> {
        let mut database = self.cluster.connect().await?;
        sqlx::raw_sql(breaks).execute(&mut database).await?;
        sleep(lasts).await;
        sqlx::raw_sql(mends).execute(&mut database).await?;
        Ok(())
    }

    async fn reload(&self, until: Instant) -> anyhow::Result<()> {
        while Instant::now() < until {
            send(self.pid("nginx")?, Signal::SIGHUP)?;
            sleep(RELOAD_EVERY).await;
        }
        Ok(())
    }

    /// One replica more or one fewer, and back, whatever became of that.
    async fn scale(&self, pick: u32) -> anyhow::Result<()> {
        let usual = self.private.knobs().replicas;
        let there = self.private.scale_for_now(if pick.is_multiple_of(2) { usual + 1 } else { usual - 1 }).await;
        self.private.scale_for_now(usual).await?;
        there
    }

    /// Waits until a part serves again; one that was `killed` as another process, for the kernel accepts connections for the
    /// dying one.
    async fn until_back(&self, name: &str, killed: Option<Pid>) -> anyhow::Result<()> {
        let deadline = Instant::now() + BACK_WITHIN;
        let is_another = || killed.is_none_or(|killed| self.pid(name).is_ok_and(|pid| pid != killed));
        while !(is_another() && self.serves(name).await) {
            ensure!(Instant::now() < deadline, "{name} did not come back within {BACK_WITHIN:?}");
            sleep(LOOK_EVERY).await;
        }
        Ok(())
    }

    async fn serves(&self, name: &str) -> bool {
        match self.address(name) {
            Some(address) if name == "mysql" => greets(&address).await,
            Some(address) => TcpStream::connect(address).await.is_ok(),
            None => false,
        }
    }

    /// `host:port` of a part.
    fn address(&self, name: &str) -> Option<String> {
        let url = if name == "mysql" {
            self.cluster.mysql.as_ref()?.url.rsplit_once('@')?.1
        } else if let Some(number) = name.strip_prefix("redis-") {
            self.cluster.redis.get(number.parse::<usize>().ok()?.checked_sub(1)?)?.url.rsplit_once("//")?.1
        } else {
            self.cluster.replicas.iter().find(|replica| replica.name == name)?.url.rsplit_once("//")?.1
        };
        Some(url.split('/').next()?.to_owned())
    }

    /// The parts of one kind, in the order of their numbers.
    fn all(&self, prefix: &str) -> anyhow::Result<Vec<String>> {
        let names: Vec<_> = self.pids()?.into_keys().filter(|name| name.starts_with(prefix)).collect();
        ensure!(!names.is_empty(), "no {prefix} runs");
        Ok(names)
    }

    fn one(&self, prefix: &str, pick: u32) -> anyhow::Result<String> {
        let mut names = self.all(prefix)?;
        Ok(names.swap_remove(pick as usize % names.len()))
    }

    fn majority_of_redis(&self, pick: u32) -> anyhow::Result<Vec<Pid>> {
        let mut names = self.all("redis-")?;
        let (all, first) = (names.len(), pick as usize % names.len());
        names.rotate_left(first);
        names[..=(all / 2)].iter().map(|name| self.pid(name)).collect()
    }

    fn pid(&self, name: &str) -> anyhow::Result<Pid> {
        let pid = self.pids()?.get(name).copied().with_context(|| format!("{name} does not run"))?;
        Ok(Pid::from_raw(i32::try_from(pid)?))
    }

    fn pids(&self) -> anyhow::Result<BTreeMap<String, u32>> {
        let text = std::fs::read_to_string(&self.supervisor).context("the cluster has no supervisor")?;
        supervised(text.trim().parse()?)
    }
}

/// When a tracer has to come for a fault that is due then.
fn ahead(due: Instant) -> Instant {
    due.checked_sub(TRACE_AHEAD).unwrap_or(due)
}

/// How many there were. A key that its holder or its time took first is not among them.
async fn delete_locks(node: &mut MultiplexedConnection) -> anyhow::Result<u64> {
    let keys: Vec<String> = redis::cmd("KEYS").arg("*lock:*").query_async(node).await?;
    Ok(if keys.is_empty() { 0 } else { redis::cmd("DEL").arg(keys).query_async(node).await? })
}

/// Whether a process stands still.
fn is_stopped(pid: Pid) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with(['T', 't']))
}

/// The files that a process has open in its own folder: for a database all that it writes, and none of its connections.
fn data_files(pid: Pid) -> anyhow::Result<Vec<PathBuf>> {
    let folder = std::fs::read_link(format!("/proc/{pid}/cwd"))?;
    let open = std::fs::read_dir(format!("/proc/{pid}/fd"))?;
    let mut files: Vec<_> = open.filter_map(|it| std::fs::read_link(it.ok()?.path()).ok()).collect();
    files.retain(|file| file.starts_with(&folder) && file.is_file());
    files.sort();
    files.dedup();
    ensure!(!files.is_empty(), "process {pid} has no file open in {}", folder.display());
    Ok(files)
}

async fn service_connections(database: &mut MySqlConnection) -> anyhow::Result<Vec<u64>> {
    let list = "SELECT CAST(id AS UNSIGNED) FROM information_schema.processlist WHERE user = 'coupon'";
    Ok(sqlx::query_scalar(list).fetch_all(database).await?)
}

async fn set_connections(database: &mut MySqlConnection, most: u32) -> anyhow::Result<()> {
    let set = AssertSqlSafe(format!("SET GLOBAL max_connections = {most}"));
    sqlx::raw_sql(set).execute(database).await.context("cannot change max_connections").map(drop)
}

/// Whether a database speaks first, as one does that takes connections.
async fn greets(address: &str) -> bool {
    let Ok(mut stream) = TcpStream::connect(address).await else { return false };
    let mut greeting = [0; 5];
    // The fifth byte is the protocol's version; a refusal has another one there.
    matches!(timeout(Duration::from_secs(1), stream.read_exact(&mut greeting)).await, Ok(Ok(_))) && greeting[4] == 10
}
