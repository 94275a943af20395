//! A cluster of the laboratory's own, beside the one that a person may be running: the same script, another folder, other
//! ports. It is gone when its owner is.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::fs::{self, File};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, bail, ensure};

use super::Cluster;
use super::shares::Shares;
use crate::say;
use crate::script::{self, Done};
use crate::strategy::Strategy;

/// Whether the parts of a cluster are containers, each a host of its own, and not processes of this host: `RUNTIME` says so, as for
/// make.
pub fn in_containers() -> bool {
    std::env::var("RUNTIME").is_ok_and(|runtime| runtime == "docker")
}

/// The knob that says of how many members the database consists.
pub const MEMBERS: &str = "DB_MEMBERS";
/// Where orders go; the default is `home`.
pub const BALANCE: &str = "BALANCE";
/// The round trip that is added between the replicas and their servers.
pub const DISTANCE_MS: &str = "DISTANCE_MS";

/// Whether the database of a cluster is a group of several members: `DB_MEMBERS` says so, as for make.
pub fn has_members() -> bool {
    std::env::var(MEMBERS).is_ok_and(|members| members.parse().is_ok_and(|members: u32| members > 1))
}

/// The script that starts and stops everything.
fn script_name() -> &'static str {
    if in_containers() { "local/docker" } else { "local/cluster" }
}

/// Knobs that are handed on from a person's environment to every cluster as they are, and change what is measured, with what they
/// are when nobody sets them; `make` always sets the first two.
const HANDED_ON: &str = "DB=mysql REDIS_NODES=3 DB_MEMBERS=1 BALANCE=home HOME_ORDERS=500 DISTANCE_MS=0 ACCESS_LOG=off POOL_SIZE= LOCK_TTL_MS= \
                         ON_LOCK_LOSS= PROBE_TIMEOUT_MS= REQUEST_DEADLINE_MS= THREADS= LOG=";

/// How the cluster is to be. What is not said is the script's default.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Knobs {
    pub strategy: Strategy,
    pub replicas: u32,
    /// Any other knob of `local/cluster` by its name: `POOL_SIZE`, `DB` …
    pub others: BTreeMap<String, String>,
}

impl Knobs {
    pub fn new(strategy: Strategy, replicas: u32) -> Self {
        Self { strategy, replicas, others: BTreeMap::new() }
    }

    /// With another knob beside those.
    pub fn with(mut self, name: &str, value: impl Display) -> Self {
        self.others.insert(name.to_owned(), value.to_string());
        self
    }

    /// How many members the database has, as a knob says it; `None`: as a person has it.
    pub fn members(&self) -> Option<&String> {
        self.others.get(MEMBERS)
    }
}

/// The running cluster. Call [`Private::stop`] when done with it, whatever happened; a dropped one is stopped, too, but
/// keeps its thread waiting meanwhile.
#[derive(Debug)]
pub struct Private {
    root: PathBuf,
    folder: PathBuf,
    port_offset: u16,
    knobs: Knobs,
    /// Held for as long as this cluster may exist, so that two laboratories do not share one.
    _alone: File,
    stopped: bool,
    /// `None`: the replicas share all processors. It is dropped after they were stopped.
    shares: Option<Shares>,
}

impl Private {
    /// Starts a cluster in `.cluster/NAME-OFFSET`, afresh: what an earlier laboratory left there is cleared away.
    ///
    /// `root` is the project's folder, `port_offset` moves every port, so that the cluster fits beside others of the same name.
    pub async fn start(root: &Path, name: &str, port_offset: u16, knobs: Knobs) -> anyhow::Result<Self> {
        let script = root.join(script_name());
        ensure!(script.exists(), "{} is missing: run the laboratory in the project's folder", script.display());
        let folder = root.join(".cluster").join(format!("{name}-{port_offset}"));
        let alone = lock(&folder)?;
        // After an error on the way, or an interrupt, it is dropped, and so stopped.
        let root = root.to_owned();
        let private = Self { root, folder, port_offset, knobs, _alone: alone, stopped: false, shares: None };
        private.script("clean", &private.knobs).await?;
        private.script("up", &private.knobs).await?;
        Ok(private)
    }

    pub fn cluster(&self) -> anyhow::Result<Cluster> {
        Cluster::read(&self.file())
    }

    /// The description of this cluster, for `--cluster` and the like.
    pub fn file(&self) -> PathBuf {
        self.folder.join("cluster.json")
    }

    /// What Compose calls this cluster where its parts are containers: `local/docker` makes the name of the folder's.
    pub fn project(&self) -> String {
        format!("coupon-rush-{}", self.folder.file_name().unwrap_or_default().display())
    }

    /// The cluster as it is now: containers may have other addresses than before.
    pub async fn look(&self) -> anyhow::Result<Cluster> {
        if in_containers() {
            self.script("record", &self.knobs).await?;
        }
        self.cluster()
    }

    pub fn knobs(&self) -> &Knobs {
        &self.knobs
    }

    /// From now on each replica has so much of the processors, and no more.
    pub fn share(&mut self, shares: Shares) -> anyhow::Result<()> {
        let cluster = self.cluster()?;
        self.shares.insert(shares).give(&cluster.replicas)
    }

    /// Seconds that each replica stood still until now, because it had used up its share; empty where they have none of their own.
    pub fn throttled(&self) -> anyhow::Result<BTreeMap<String, f64>> {
        self.shares.as_ref().map_or_else(|| Ok(BTreeMap::new()), Shares::throttled)
    }

    /// Makes the cluster be as `wanted`; only what differs is restarted, but one with another database begins anew. After an error it is as it was or partly changed:
    /// ask for the wanted state again, or stop it.
    pub async fn change(&mut self, wanted: Knobs) -> anyhow::Result<Cluster> {
        if wanted.members() != self.knobs.members() {
            self.script("clean", &self.knobs).await?;
        }
        self.script("up", &wanted).await?;
        self.knobs = wanted;
        let cluster = self.cluster()?;
        if let Some(shares) = &self.shares {
            shares.give(&cluster.replicas)?;
        }
        Ok(cluster)
    }

    /// Changes the number of replicas for a while, under load; nothing else is touched and nothing is lost. The caller goes back to
    /// the number in the knobs.
    pub async fn scale(&self, replicas: u32) -> anyhow::Result<()> {
        self.script("scale", &Knobs { replicas, ..self.knobs.clone() }).await
    }

    /// Lets a home have so many orders at a time, for a while; nothing else is touched and nothing is lost. `None` goes back to the
    /// knobs.
    pub async fn bound_homes(&self, orders: Option<u32>) -> anyhow::Result<()> {
        let mut knobs = self.knobs.clone();
        knobs.others.extend(orders.map(|orders| ("HOME_ORDERS".to_owned(), orders.to_string())));
        self.script("up", &knobs).await
    }

    /// What all parts said last.
    pub async fn logs(&self) -> anyhow::Result<String> {
        let words = [script_name(), "logs"];
        let mut environment = self.environment(&self.knobs);
        environment.insert("TAIL".to_owned(), "2000".to_owned());
        Ok(script::run(&self.root, &words, &environment).await?.must(&words.join(" "))?.output)
    }

    /// Starts what is down; nothing else is touched.
    pub async fn mend(&self) -> anyhow::Result<()> {
        self.script("up", &self.knobs).await
    }

    /// Stops everything and deletes its data. Do not interrupt it.
    pub async fn stop(mut self) -> anyhow::Result<()> {
        self.stopped = true;
        self.script("clean", &self.knobs).await
    }

    async fn script(&self, verb: &str, knobs: &Knobs) -> anyhow::Result<()> {
        let words = [script_name(), verb];
        script::run(&self.root, &words, &self.environment(knobs)).await?.must(&words.join(" ")).map(drop)
    }

    /// Sends a load by `local/k6` with these knobs, and none that a person may have set for runs of his own, such as `CODES` or
    /// `K6_OUT`. Returns what k6 did, and the folder of what it wrote down.
    pub async fn k6(&self, name: &str, knobs: &[(&str, String)]) -> anyhow::Result<(Done, PathBuf)> {
        const KEPT: [&str; 4] = ["PATH", "HOME", "LANG", "TMPDIR"];
        let persons = std::env::vars_os().filter_map(|(name, _)| name.into_string().ok());
        // What is empty is not handed on.
        let mut environment: BTreeMap<_, _> =
            persons.filter(|name| !KEPT.contains(&name.as_str())).map(|name| (name, String::new())).collect();
        environment.extend(self.environment(&self.knobs));
        let lab = std::env::current_exe().context("where is this program?")?;
        environment.insert("COUPON_LAB_BIN".to_owned(), lab.display().to_string());
        environment.extend(knobs.iter().map(|(name, value)| ((*name).to_owned(), value.clone())));
        let folder = self.folder.join("runs").join(name);
        let into = folder.display().to_string();
        let words = ["local/k6", name, "--into", &into];
        Ok((script::run(&self.root, &words, &environment).await?, folder))
    }

    /// What a script of the project needs in its environment to find this cluster, or to make it be like this.
    fn environment(&self, knobs: &Knobs) -> BTreeMap<String, String> {
        let mut environment = BTreeMap::from([
            // All load comes from one address.
            ("RATE_LIMIT".to_owned(), "off".to_owned()),
            // They would cost a part of the processors that is not the service's.
            ("EXPORTERS".to_owned(), "off".to_owned()),
            ("GRAFANA".to_owned(), "off".to_owned()),
        ]);
        environment.extend(knobs.others.clone());
        environment.insert("CLUSTER_DIR".to_owned(), self.folder.display().to_string());
        environment.insert("PORT_OFFSET".to_owned(), self.port_offset.to_string());
        environment.insert("STRATEGY".to_owned(), knobs.strategy.to_string());
        environment.insert("REPLICAS".to_owned(), knobs.replicas.to_string());
        environment
    }
}

impl Drop for Private {
    fn drop(&mut self) {
        if self.stopped {
            return;
        }
        // In a group of its own, a Ctrl-C at the terminal does not reach it.
        let mut clean = Command::new(self.root.join(script_name()));
        clean.arg("clean").envs(self.environment(&self.knobs)).current_dir(&self.root).process_group(0);
        if !clean.output().is_ok_and(|done| done.status.success()) {
            say::aside(format_args!("lab: what was started in {} could not be stopped", self.folder.display()));
        }
    }
}

/// Keeps a second laboratory off this folder until the file is closed.
fn lock(folder: &Path) -> anyhow::Result<File> {
    let path = folder.with_extension("lock");
    fs::create_dir_all(folder).with_context(|| format!("cannot write to {}", folder.display()))?;
    let file = File::create(&path).with_context(|| format!("cannot write {}", path.display()))?;
    if file.try_lock().is_err() {
        bail!("another laboratory uses {} right now: wait until it has ended", folder.display());
    }
    Ok(file)
}

/// The person's own cluster, when one runs: it takes its share of the processor, so figures measured beside it are not
/// worth much.
pub fn users_own(root: &Path) -> Option<PathBuf> {
    let folder = root.join(std::env::var_os("CLUSTER_DIR").unwrap_or_else(|| ".cluster".into()));
    let pid = Cluster::read(&folder.join("cluster.json")).ok()?.nginx?.pid?;
    Path::new("/proc").join(pid.to_string()).exists().then_some(folder)
}

/// The handed-on knobs that are set to something else than their default, with what they are set to: figures must say so.
pub fn inherited() -> BTreeMap<String, String> {
    among(|name| std::env::var(name).ok())
}

fn among(set: impl Fn(&str) -> Option<String>) -> BTreeMap<String, String> {
    let changed = |knob: &str| {
        let (name, default) = knob.split_once('=')?;
        Some((name.to_owned(), set(name).filter(|value| !value.is_empty() && value != default)?))
    };
    HANDED_ON.split_whitespace().filter_map(changed).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_make_sets_to_its_default_is_not_worth_a_word() {
        let set = [("DB", "mysql"), ("REDIS_NODES", "5"), ("THREADS", "2"), ("LOG", ""), ("HOME", "/")];
        let value = |wanted: &str| set.iter().find(|(name, _)| *name == wanted).map(|(_, value)| (*value).to_owned());

        assert_eq!(format!("{:?}", among(value)), r#"{"REDIS_NODES": "5", "THREADS": "2"}"#);
    }

    #[test]
    fn two_laboratories_do_not_share_a_folder() {
        let folder = std::env::temp_dir().join(format!("coupon-lab-alone-{}", std::process::id()));
        let first = lock(&folder).unwrap();

        let error = lock(&folder).unwrap_err().to_string();
        drop(first);

        assert!(error.contains("another laboratory"), "{error}");
        lock(&folder).unwrap();
        fs::remove_file(folder.with_extension("lock")).unwrap();
        fs::remove_dir(folder).unwrap();
    }
}
