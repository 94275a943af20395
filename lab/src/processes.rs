//! What the processes of a cluster used, and what the whole machine did meanwhile: from `/proc`, by process id.

use std::collections::BTreeMap;
use std::fs;
use std::time::Duration;

use anyhow::Context;
use nix::time::{ClockId, clock_gettime};
use nix::unistd::{SysconfVar, sysconf};
use serde::Serialize;

use crate::cluster::Cluster;

const KIB: u64 = 1_024;

/// Processor seconds by part, since each began.
pub type Used = BTreeMap<String, f64>;

/// Where the parts of a cluster run: a part is a process and all that it started.
#[derive(Clone, Debug)]
pub struct Parts(Vec<(String, u32)>);

/// Processor seconds of the whole machine since it began, all processors together.
#[derive(Clone, Copy, Debug, Default)]
pub struct Machine {
    /// Nothing to do, or waiting for a disk.
    pub idle: f64,
    /// Taken away by the host that this machine runs on.
    pub stolen: f64,
    /// All of it.
    pub all: f64,
}

/// Memory of one process in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Memory {
    /// Resident now.
    pub now: u64,
    /// Resident at most, since it began or since [`forget_peaks`].
    pub peak: u64,
}

impl Parts {
    /// The parts of a cluster that run.
    pub fn of(cluster: &Cluster) -> Self {
        let mut parts = Vec::new();
        let mut add = |name: &str, pid: Option<u32>| parts.extend(pid.map(|pid| (name.to_owned(), pid)));
        add("nginx", cluster.nginx.as_ref().and_then(|it| it.pid));
        add("mysqld", cluster.mysql.as_ref().and_then(|it| it.pid));
        add("prometheus", cluster.prometheus.as_ref().and_then(|it| it.pid));
        cluster.redis.iter().for_each(|it| add("redis", it.pid));
        cluster.replicas.iter().for_each(|it| add(&it.name, it.pid));
        Self(parts)
    }

    /// What each part used until now. Parts of one name are added up.
    pub fn used(&self) -> anyhow::Result<Used> {
        let all = every_process()?;
        let mut used = Used::new();
        for (name, root) in &self.0 {
            anyhow::ensure!(all.contains_key(root), "{name} does not run any more");
            *used.entry(name.clone()).or_default() += seconds(tree(&all, *root))?;
        }
        Ok(used)
    }

    /// The memory of each replica.
    pub fn memory(&self) -> anyhow::Result<BTreeMap<String, Memory>> {
        let replicas = self.0.iter().filter(|(name, _)| name.starts_with("replica-"));
        replicas
            .map(|(name, pid)| Ok((name.clone(), memory(*pid).with_context(|| format!("{name} is gone"))?)))
            .collect()
    }

    /// Makes the peak of each replica's memory begin anew.
    pub fn forget_peaks(&self) -> anyhow::Result<()> {
        for (name, pid) in &self.0 {
            // 5 is the kernel's word for "the peak resident size".
            fs::write(format!("/proc/{pid}/clear_refs"), "5").with_context(|| format!("{name}: no peak"))?;
        }
        Ok(())
    }
}

/// What one process used, itself and in children that have ended, and who started it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Process {
    parent: u32,
    ticks: u64,
}

fn every_process() -> anyhow::Result<BTreeMap<u32, Process>> {
    let entries = fs::read_dir("/proc").context("this needs Linux's /proc")?;
    let ids = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    // A process may end while it is looked at.
    Ok(ids.filter_map(|id| Some((id, process(&fs::read_to_string(format!("/proc/{id}/stat")).ok()?)?))).collect())
}

/// The processes that a supervisor started, by the names it gave them.
pub fn supervised(supervisor: u32) -> anyhow::Result<BTreeMap<String, u32>> {
    let children = every_process()?.into_iter().filter(|(_, it)| it.parent == supervisor);
    Ok(children.filter_map(|(id, _)| Some((supervised_name(id)?, id))).collect())
}

/// The supervisor tells each process its name, in the environment. nginx and redis write their titles over that.
fn supervised_name(pid: u32) -> Option<String> {
    let title = String::from_utf8_lossy(&fs::read(format!("/proc/{pid}/cmdline")).ok()?).into_owned();
    let folder = fs::read_link(format!("/proc/{pid}/cwd")).ok()?;
    // Only its master is the supervisor's own child. Where it was fetched, it runs under a loader and has no title but its name.
    if title.starts_with("nginx") {
        return Some("nginx".to_owned());
    }
    if title.contains("redis-server") {
        // Each node works in a folder of its own, named like it.
        return Some(folder.file_name()?.to_str()?.to_owned());
    }
    let environment = fs::read(format!("/proc/{pid}/environ")).ok()?;
    let mut variables = environment.split(|byte| *byte == 0).filter_map(|it| std::str::from_utf8(it).ok());
    variables.find_map(|it| it.strip_prefix("SUPERVISOR_PROCESS_NAME=")).map(str::to_owned)
}

/// Reads `/proc/<pid>/stat`.
fn process(stat: &str) -> Option<Process> {
    // The name stands in parentheses and may hold anything, more parentheses too.
    let (_, rest) = stat.rsplit_once(") ")?;
    let fields: Vec<&str> = rest.split(' ').collect();
    // Own time as user and in the kernel, then that of children that have ended: an nginx that reloaded has such.
    let ticks = fields.get(11..15)?.iter().filter_map(|it| it.parse::<u64>().ok()).sum();
    Some(Process { parent: fields.get(1)?.parse().ok()?, ticks })
}

fn tree(all: &BTreeMap<u32, Process>, root: u32) -> u64 {
    let own = all.get(&root).map_or(0, |it| it.ticks);
    own + all.iter().filter(|(_, it)| it.parent == root).map(|(id, _)| tree(all, *id)).sum::<u64>()
}

fn memory(pid: u32) -> anyhow::Result<Memory> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name)).with_context(|| format!("no {name}"))?;
        let kib: u64 = line.trim().trim_end_matches(" kB").parse()?;
        anyhow::Ok(kib * KIB)
    };
    Ok(Memory { now: field("VmRSS:")?, peak: field("VmHWM:")? })
}

impl Machine {
    /// Until now.
    pub fn read() -> anyhow::Result<Self> {
        let text = fs::read_to_string("/proc/stat").context("this needs Linux's /proc")?;
        let line =
            text.lines().next().and_then(|line| line.strip_prefix("cpu ")).context("/proc/stat has no cpu line")?;
        // user nice system idle iowait irq softirq steal; the two after that are within user and nice.
        let ticks: Vec<u64> = line.split_whitespace().take(8).filter_map(|it| it.parse().ok()).collect();
        anyhow::ensure!(ticks.len() == 8, "/proc/stat has an unknown form");
        Ok(Self { idle: seconds(ticks[3] + ticks[4])?, stolen: seconds(ticks[7])?, all: seconds(ticks.iter().sum())? })
    }

    /// What came since `before`.
    pub fn since(self, before: Self) -> Self {
        Self { idle: self.idle - before.idle, stolen: self.stolen - before.stolen, all: self.all - before.all }
    }
}

/// Processor seconds of a process and all that it started, until now; zero once it is gone.
pub fn of_tree(root: u32) -> anyhow::Result<f64> {
    seconds(tree(&every_process()?, root))
}

/// Processor seconds of the laboratory itself, all its threads.
pub fn own() -> anyhow::Result<f64> {
    let stat = fs::read_to_string("/proc/self/stat").context("this needs Linux's /proc")?;
    let ticks = process(&stat).context("/proc/self/stat has an unknown form")?.ticks;
    seconds(ticks)
}

/// Processor seconds of the calling thread.
pub fn of_this_thread() -> f64 {
    clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).map_or(0.0, |time| Duration::from(time).as_secs_f64())
}

/// The kernel counts processor time in ticks.
fn seconds(ticks: u64) -> anyhow::Result<f64> {
    let second = sysconf(SysconfVar::CLK_TCK)?.context("the kernel does not say how long a tick is")?;
    #[expect(clippy::cast_precision_loss, reason = "ticks of a few years")]
    Ok(ticks as f64 / second as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_may_hold_spaces_and_parentheses() {
        let stat = "7 (a (b) c) S 3 7 7 0 -1 4194560 1 2 3 4 100 20 3 1 20 0 1 0 12345 1 2";

        assert_eq!(process(stat), Some(Process { parent: 3, ticks: 124 }));
    }

    #[test]
    fn a_part_is_a_process_and_all_that_it_started() {
        let of = |parent, ticks| Process { parent, ticks };
        let all = BTreeMap::from([(1, of(0, 1_000)), (2, of(1, 10)), (3, of(2, 5)), (4, of(3, 2)), (5, of(1, 7))]);

        assert_eq!(tree(&all, 2), 17);
    }

    #[test]
    fn this_process_has_memory_and_used_time() {
        let memory = memory(std::process::id()).unwrap();

        assert!(memory.peak >= memory.now && memory.now > 0);
        assert!(own().unwrap() >= 0.0);
        let machine = Machine::read().unwrap();
        assert!(machine.all > machine.idle && machine.idle > 0.0);
    }
}
