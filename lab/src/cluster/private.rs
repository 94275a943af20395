//! A cluster of the laboratory's own, beside the one that a person may be running: the same script, another folder, other
//! ports. It is gone when its owner is.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail, ensure};

use super::Cluster;
use crate::interrupt::Interrupt;
use crate::script;
use crate::strategy::Strategy;

/// The script that starts and stops everything: that of the way to run which `RUNTIME` names, as for make.
fn script_name() -> &'static str {
    if std::env::var("RUNTIME").is_ok_and(|runtime| runtime == "docker") { "local/docker" } else { "local/cluster" }
}

/// What a person's own cluster is described in, unless `CLUSTER_DIR` says otherwise.
const USERS_OWN: &str = ".cluster";

/// How the cluster is to be. What is not said is the script's default.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Knobs {
    /// `STRATEGY`
    pub strategy: Strategy,
    /// `REPLICAS`
    pub replicas: u32,
    /// Any other knob of `local/cluster` by its name: `POOL_SIZE`, `EXPORTERS`, `DB` …
    pub others: BTreeMap<String, String>,
}

/// The running cluster. Call [`Private::stop`] when done with it, whatever happened; a dropped one is stopped, too, but
/// keeps its thread waiting meanwhile.
#[derive(Debug)]
pub struct Private {
    root: PathBuf,
    folder: PathBuf,
    port_offset: u16,
    knobs: Knobs,
    interrupt: Interrupt,
    /// Held for as long as this cluster may exist, so that two laboratories do not share one.
    _alone: File,
    stopped: bool,
}

impl Private {
    /// Starts a cluster in `.cluster/NAME`, afresh: what an earlier laboratory left there is cleared away.
    ///
    /// `root` is the project's folder, `port_offset` moves every port, so that the cluster fits beside others.
    pub async fn start(
        root: &Path,
        name: &str,
        port_offset: u16,
        knobs: Knobs,
        interrupt: Interrupt,
    ) -> anyhow::Result<Self> {
        let script = root.join(script_name());
        ensure!(script.exists(), "{} is missing: run the laboratory in the project's folder", script.display());
        let folder = root.join(".cluster").join(name);
        let alone = lock(&folder)?;
        let private =
            Self { root: root.to_owned(), folder, port_offset, knobs, interrupt, _alone: alone, stopped: false };
        match private.begin().await {
            Ok(()) => Ok(private),
            Err(error) => {
                private.stop().await.context("and what was started could not be stopped")?;
                Err(error)
            }
        }
    }

    async fn begin(&self) -> anyhow::Result<()> {
        self.script("clean", &self.knobs, Some(&self.interrupt)).await?;
        self.script("up", &self.knobs, Some(&self.interrupt)).await
    }

    /// What runs where at this moment.
    pub fn cluster(&self) -> anyhow::Result<Cluster> {
        Cluster::read(&self.file())
    }

    /// The description of this cluster, for `--cluster` and the like.
    pub fn file(&self) -> PathBuf {
        self.folder.join("cluster.json")
    }

    /// How the cluster is now.
    pub fn knobs(&self) -> &Knobs {
        &self.knobs
    }

    /// What a script of the project needs in its environment to find this cluster: `local/k6`, for one.
    pub fn environment(&self) -> BTreeMap<String, String> {
        self.environment_for(&self.knobs)
    }

    /// Makes the cluster be as `wanted`; only what differs is restarted. After an error it is as it was or partly changed:
    /// ask for the wanted state again, or stop it.
    pub async fn change(&mut self, wanted: Knobs) -> anyhow::Result<Cluster> {
        if wanted != self.knobs {
            self.script("up", &wanted, Some(&self.interrupt)).await?;
            self.knobs = wanted;
        }
        self.cluster()
    }

    /// Changes the number of replicas for a while, under load; nothing else is touched and nothing is lost. The caller goes back to
    /// the number in the knobs.
    pub async fn scale(&self, replicas: u32) -> anyhow::Result<()> {
        let wanted = Knobs { replicas, ..self.knobs.clone() };
        self.script("scale", &wanted, Some(&self.interrupt)).await
    }

    /// Stops everything and deletes its data. Runs to its end even when we are asked to stop meanwhile.
    pub async fn stop(mut self) -> anyhow::Result<()> {
        self.stopped = true;
        self.script("clean", &self.knobs, None).await
    }

    async fn script(&self, verb: &str, knobs: &Knobs, interrupt: Option<&Interrupt>) -> anyhow::Result<()> {
        let environment = self.environment_for(knobs);
        let name = script_name();
        let done = script::run(&self.root, &[name, verb], &environment, interrupt).await?;
        done.must(&format!("{name} {verb}")).map(drop)
    }

    fn environment_for(&self, knobs: &Knobs) -> BTreeMap<String, String> {
        let mut environment = knobs.others.clone();
        // All load comes from one address.
        environment.entry("RATE_LIMIT".to_owned()).or_insert_with(|| "off".to_owned());
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
        // Nobody is left to be told of an error; the next start clears away what stays.
        let _ = std::process::Command::new(self.root.join(script_name()))
            .arg("clean")
            .envs(self.environment())
            .current_dir(&self.root)
            .output();
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
    let folder = root.join(std::env::var_os("CLUSTER_DIR").unwrap_or_else(|| USERS_OWN.into()));
    let pid = Cluster::read(&folder.join("cluster.json")).ok()?.nginx?.pid?;
    Path::new("/proc").join(pid.to_string()).exists().then_some(folder)
}

#[cfg(test)]
mod tests {
    use super::*;

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
