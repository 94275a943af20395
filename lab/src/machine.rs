//! Which machine this is: what figures depend on besides the service.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::thread::available_parallelism;

use procfs::{CpuInfo, Current, LoadAverage, Meminfo};
use serde::Serialize;

/// What the figures depend on besides the service.
#[derive(Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Machine {
    /// Of the processors, of which there are so many for us.
    pub model: String,
    pub processors: usize,
    /// Bytes.
    pub memory: u64,
    pub kernel: String,
    /// What is measured; with `+` when the folder differs from it.
    pub commit: String,
    /// Processes that wanted to run in the minute before.
    pub load_before: f64,
}

impl Machine {
    /// This one, now. What cannot be found out is left empty; no figure depends on it.
    pub fn describe(root: &Path) -> Self {
        let git = ["describe", "--always", "--dirty=+", "--exclude=*"];
        let commit = Command::new("git").args(git).current_dir(root).output().ok().filter(|done| done.status.success());
        let model = CpuInfo::current().ok().and_then(|it| it.model_name(0).map(str::to_owned));
        Self {
            model: model.unwrap_or_default(),
            processors: available_parallelism().map_or(1, Into::into),
            memory: Meminfo::current().map_or(0, |it| it.mem_total),
            kernel: fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default().trim().to_owned(),
            commit: commit.map_or("unknown".to_owned(), |it| String::from_utf8_lossy(&it.stdout).trim().to_owned()),
            load_before: LoadAverage::current().map_or(0.0, |it| it.one.into()),
        }
    }
}
