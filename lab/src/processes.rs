//! What the processes of a cluster used, and what the machine's processors did meanwhile: from `/proc`.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, ensure};
use nix::time::{ClockId, clock_gettime};
use procfs::process::{ClearRefs, Process, Stat, all_processes};
use procfs::{CurrentSI, KernelStats};

use crate::cluster::Cluster;

const KIB: u64 = 1_024;

/// Processor seconds by part, since each began.
pub type Used = BTreeMap<String, f64>;

/// Where the parts of a cluster run: a part is a process and all that it started.
pub struct Parts(Vec<(String, i32)>);

/// Seconds of all the machine's processors together since it began.
#[derive(Clone, Copy, Debug, Default)]
pub struct Processors {
    /// Nothing to do, or waiting for a disk.
    pub idle: f64,
    /// Taken away by the host that this machine runs on.
    pub stolen: f64,
    pub all: f64,
}

impl Parts {
    pub fn of(cluster: &Cluster) -> Self {
        let mut parts = Vec::new();
        let mut add = |name: &str, pid: Option<u32>| parts.extend(pid.map(|pid| (name.to_owned(), pid.cast_signed())));
        add("nginx", cluster.nginx.as_ref().and_then(|it| it.pid));
        cluster.mysql.iter().flat_map(|it| &it.members).for_each(|it| add("mysqld", it.pid));
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
            ensure!(all.iter().any(|it| it.pid == *root), "{name} does not run any more");
            *used.entry(name.clone()).or_default() += seconds(tree(&all, *root));
        }
        Ok(used)
    }

    /// The most bytes that any replica has had in memory, since it began or since [`Parts::forget_peaks`].
    pub fn peak(&self) -> anyhow::Result<Option<u64>> {
        let replicas = self.0.iter().filter(|(name, _)| name.starts_with("replica-"));
        let peaks = replicas.map(|(name, pid)| peak(*pid).with_context(|| format!("{name} is gone")));
        peaks.collect::<anyhow::Result<Vec<u64>>>().map(|peaks| peaks.into_iter().max())
    }

    /// Makes the peak of each part's memory begin anew.
    pub fn forget_peaks(&self) -> anyhow::Result<()> {
        for (name, pid) in &self.0 {
            let forgotten = Process::new(*pid).and_then(|process| process.clear_refs(ClearRefs::PeakRSS));
            forgotten.with_context(|| format!("{name}: no peak"))?;
        }
        Ok(())
    }
}

fn every_process() -> anyhow::Result<Vec<Stat>> {
    let all = all_processes().context("this needs Linux's /proc")?;
    // A process may end while it is looked at.
    Ok(all.filter_map(|process| process.ok()?.stat().ok()).collect())
}

/// Ticks of a process and of all that it started.
fn tree(all: &[Stat], root: i32) -> u64 {
    let own = all.iter().find(|it| it.pid == root).map_or(0, ticks);
    own + all.iter().filter(|it| it.ppid == root).map(|it| tree(all, it.pid)).sum::<u64>()
}

/// With those of children that have ended: an nginx that reloaded has such.
fn ticks(stat: &Stat) -> u64 {
    stat.utime + stat.stime + (stat.cutime + stat.cstime).unsigned_abs()
}

fn peak(pid: i32) -> anyhow::Result<u64> {
    Ok(KIB * Process::new(pid)?.status()?.vmhwm.context("it has no memory")?)
}

impl Processors {
    pub fn read() -> anyhow::Result<Self> {
        let total = KernelStats::current().context("this needs Linux's /proc")?.total;
        let [idle, stolen] = [total.idle + total.iowait.unwrap_or(0), total.steal.unwrap_or(0)];
        // A guest's time is within user and nice.
        let busy = total.user + total.nice + total.system + total.irq.unwrap_or(0) + total.softirq.unwrap_or(0);
        Ok(Self { idle: seconds(idle), stolen: seconds(stolen), all: seconds(idle + stolen + busy) })
    }

    pub fn since(self, before: Self) -> Self {
        Self { idle: self.idle - before.idle, stolen: self.stolen - before.stolen, all: self.all - before.all }
    }
}

/// Processor seconds of the laboratory itself, all its threads.
pub fn own() -> anyhow::Result<f64> {
    Ok(seconds(ticks(&Process::myself()?.stat()?)))
}

/// Processor seconds of the calling thread.
pub fn of_this_thread() -> f64 {
    clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).map_or(0.0, |time| Duration::from(time).as_secs_f64())
}

/// The kernel counts processor time in ticks.
#[expect(clippy::cast_precision_loss, reason = "ticks of a few years")]
fn seconds(ticks: u64) -> f64 {
    ticks as f64 / procfs::ticks_per_second() as f64
}

#[cfg(test)]
mod tests {
    use procfs::FromRead;

    use super::*;

    #[test]
    fn a_part_is_a_process_and_all_that_it_started() {
        let stat = |(pid, parent, ticks): (i32, i32, u64)| {
            let line = format!("{pid} ((a) b) S {parent} 7 7 0 -1 0 1 2 3 4 {ticks} 0 0 0{}", " 1".repeat(35));
            Stat::from_read(line.as_bytes()).unwrap()
        };
        let all = [(1, 0, 1_000), (2, 1, 10), (3, 2, 5), (4, 3, 2), (5, 1, 7)].map(stat);

        assert_eq!(tree(&all, 2), 17);
    }

    #[test]
    fn this_process_has_memory_and_used_time() {
        assert!(peak(std::process::id().cast_signed()).unwrap() > KIB);
        assert!(own().unwrap() >= 0.0);
        let processors = Processors::read().unwrap();
        assert!(processors.all > processors.idle && processors.idle > 0.0);
    }
}
