//! A share of the processors for each replica, as if each ran on a small machine of its own. Replicas that share one machine take
//! its processors from each other, so that one more can only cost. The kernel's cpu controller keeps the shares, as it does for
//! `docker run --cpus`; but Docker's period of 100 ms would freeze a replica for most of it with the lock in its hands.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use procfs::process::{MountInfo, Process};

use super::Replica;
use crate::say;

/// Microseconds. A replica that has used up its quota stands still until the next period.
const PERIOD: f64 = 10_000.0;
/// Microseconds. The kernel refuses a smaller one, so that the period of a small share is longer.
const QUOTA_MIN: f64 = 1_000.0;

/// Groups of the kernel's, one for each replica. Drop it when the replicas are gone: a group with a process in it stays.
#[derive(Debug)]
pub struct Shares {
    /// Holds the groups, and no process itself.
    folder: PathBuf,
    kernel: Kernel,
    share: f64,
}

/// The two ways in which kernels offer the controller.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Kernel {
    V1,
    V2,
}

impl Shares {
    /// `share` is in processors; `port_offset` tells laboratories apart that run side by side. The error names the cure.
    pub fn new(share: f64, port_offset: u16) -> anyhow::Result<Self> {
        let (kernel, root) = controller()?;
        let folder = root.join(format!("coupon-lab-{port_offset}"));
        // The folder is removed again when the rest fails.
        let shares = Self { folder, kernel, share };
        shares.prepare(&root).with_context(|| {
            format!(
                "replicas get no shares of their own by {}: that needs root; run it as root, or without shares",
                root.display()
            )
        })?;
        Ok(shares)
    }

    fn prepare(&self, root: &Path) -> anyhow::Result<()> {
        make(&self.folder)?;
        if self.kernel == Kernel::V2 {
            for folder in [root, &self.folder] {
                write(folder, "cgroup.subtree_control", "+cpu")?;
            }
        }
        Ok(())
    }

    /// Puts each replica into its group, with all its threads; those of replicas that are gone go, too.
    pub fn give(&self, replicas: &[Replica]) -> anyhow::Result<()> {
        let [quota, period] = limits(self.share);
        for replica in replicas {
            let group = self.folder.join(&replica.name);
            make(&group)?;
            match self.kernel {
                Kernel::V1 => {
                    write(&group, "cpu.cfs_period_us", &period)?;
                    write(&group, "cpu.cfs_quota_us", &quota)?;
                }
                Kernel::V2 => write(&group, "cpu.max", &format!("{quota} {period}"))?,
            }
            let pid = replica.pid.with_context(|| format!("{} does not run", replica.name))?;
            write(&group, "cgroup.procs", &pid.to_string())?;
        }
        let runs = |group: &PathBuf| replicas.iter().any(|replica| group.ends_with(&replica.name));
        groups(&self.folder).iter().filter(|group| !runs(group)).try_for_each(|group| remove(group))
    }

    /// Seconds that each replica stood still until now, because it had used up its quota.
    pub fn throttled(&self) -> anyhow::Result<BTreeMap<String, f64>> {
        let seconds = |group: PathBuf| {
            let text = fs::read_to_string(group.join("cpu.stat"))?;
            let name = group.file_name().unwrap_or_default().to_string_lossy().into_owned();
            Ok((name, throttled(&text).with_context(|| format!("{} does not say it", group.display()))?))
        };
        groups(&self.folder).into_iter().map(seconds).collect()
    }
}

impl Drop for Shares {
    fn drop(&mut self) {
        for folder in groups(&self.folder).iter().chain([&self.folder]).filter(|folder| folder.exists()) {
            if let Err(error) = remove(folder) {
                say::aside(format_args!("lab: {error:#}"));
            }
        }
    }
}

/// Where the kernel's cpu controller is, and of which kind.
fn controller() -> anyhow::Result<(Kernel, PathBuf)> {
    let mounts = Process::myself()?.mountinfo().context("this needs Linux's /proc")?;
    let Some(found) = mounts.into_iter().find_map(|mount| Some((kernel(&mount)?, mount.mount_point))) else {
        bail!("this kernel shows no cpu controller, so replicas get no shares of their own: run it without shares");
    };
    Ok(found)
}

fn kernel(mount: &MountInfo) -> Option<Kernel> {
    match mount.fs_type.as_str() {
        "cgroup" if mount.super_options.contains_key("cpu") => Some(Kernel::V1),
        "cgroup2" => {
            let controllers = fs::read_to_string(mount.mount_point.join("cgroup.controllers")).ok()?;
            controllers.split_whitespace().any(|name| name == "cpu").then_some(Kernel::V2)
        }
        _ => None,
    }
}

/// Quota and period, in whole microseconds.
fn limits(share: f64) -> [String; 2] {
    let period = PERIOD.max(QUOTA_MIN / share);
    [period * share, period].map(|it| format!("{it:.0}"))
}

/// Seconds, from a group's `cpu.stat`: the older kind counts nanoseconds, the other one microseconds.
fn throttled(stat: &str) -> Option<f64> {
    stat.lines().find_map(|line| match line.split_once(' ')? {
        ("throttled_time", nanoseconds) => Some(nanoseconds.parse::<f64>().ok()? / 1e9),
        ("throttled_usec", microseconds) => Some(microseconds.parse::<f64>().ok()? / 1e6),
        _ => None,
    })
}

fn groups(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.map(|entry| entry.path()).filter(|path| path.is_dir()).collect()
}

/// What a killed laboratory has left is taken over.
fn make(folder: &Path) -> anyhow::Result<()> {
    fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))
}

fn remove(group: &Path) -> anyhow::Result<()> {
    fs::remove_dir(group).with_context(|| format!("cannot remove {}", group.display()))
}

fn write(group: &Path, name: &str, value: &str) -> anyhow::Result<()> {
    let path = group.join(name);
    fs::write(&path, value).with_context(|| format!("cannot write {value} to {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quota_is_never_below_what_the_kernel_takes() {
        let shares =
            [(0.1, ["1000", "10000"]), (0.5, ["5000", "10000"]), (2.0, ["20000", "10000"]), (0.05, ["1000", "20000"])];
        for (share, limit) in shares {
            assert_eq!(limits(share), limit, "{share}");
        }
    }

    #[test]
    fn both_kinds_of_kernel_tell_how_long_a_group_stood_still() {
        assert_eq!(throttled("nr_periods 9\nnr_throttled 3\nthrottled_time 2500000000\n"), Some(2.5));
        assert_eq!(throttled("usage_usec 7\nnr_throttled 3\nthrottled_usec 1500000\nnr_bursts 0\n"), Some(1.5));
        assert_eq!(throttled("usage_usec 7\n"), None);
    }

    #[test]
    fn the_controller_is_found_in_either_kind_of_mount() {
        let mount = |line: &str| kernel(&MountInfo::from_line(line).unwrap());

        assert_eq!(
            mount("32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct"),
            Some(Kernel::V1)
        );
        assert_eq!(mount("33 31 0:30 / /sys/fs/cgroup/cpuset rw - cgroup cgroup rw,cpuset"), None);
        assert_eq!(mount("34 31 0:31 / /nowhere rw - cgroup2 cgroup2 rw"), None, "nobody says that it has one");
    }
}
