//! The results folder: what is kept of a sweep, so that it can be gone on with and drawn again.
//!
//! `plan.json`, `setting.json` (machine, versions), `cells/NAME/cell.json`, and beside it what speaks against a verdict; all cells in
//! `cells.json` and `cells.csv`; and what `report/` draws of them: `report.html`, `pictures/`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, ensure};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::cell::Measured;
use super::grid::{Cell, Grid};
use crate::cluster::Cluster;
use crate::machine::Machine;

/// Programs that take part, and the word that makes each tell its version.
const PROGRAMS: [(&str, &str); 3] = [("nginx", "-v"), ("redis-server", "--version"), ("prometheus", "--version")];

/// What was fetched comes before what is installed; servers lie in sbin, which is not on everybody's path.
const FETCHED: &str = ".cluster/tools/bin";
const FOLDERS: &str = "/usr/local/sbin:/usr/sbin:/sbin";

pub struct Folder {
    pub path: PathBuf,
    pub grid: Grid,
}

/// Where it was measured.
#[derive(Serialize)]
pub struct Setting {
    /// When it began, RFC 3339.
    pub started: String,
    pub machine: Machine,
    pub versions: Vec<String>,
}

impl Folder {
    /// Makes it; what is there already is not touched.
    pub fn create(&mut self) -> anyhow::Result<()> {
        let (is_used, path) = (self.path.join("plan.json").exists(), self.path.display());
        ensure!(!is_used, "{path} holds a sweep already: go on with it by --resume {path}, or choose another");
        fs::create_dir_all(&self.path).with_context(|| format!("cannot write to {path}"))?;
        // Scripts that run elsewhere are told about it.
        self.path = self.path.canonicalize()?;
        self.write("plan.json", &self.grid)
    }

    pub fn open(path: &Path) -> anyhow::Result<Self> {
        let grid = read(&path.join("plan.json")).with_context(|| format!("{} holds no sweep", path.display()))?;
        Ok(Self { path: path.canonicalize()?, grid })
    }

    /// Where a cell's files go.
    pub fn of(&self, cell: Cell) -> PathBuf {
        self.path.join("cells").join(cell.to_string())
    }

    /// Deletes what an interrupted attempt left of a cell.
    pub fn clear(&self, cell: Cell) -> anyhow::Result<()> {
        let path = self.of(cell);
        let cleared = if path.exists() { fs::remove_dir_all(&path) } else { Ok(()) };
        cleared.and_then(|()| fs::create_dir_all(&path)).with_context(|| format!("cannot write to {}", path.display()))
    }

    /// Keeps what a cell came to. From then on it is done.
    pub fn keep(&self, measured: &Measured) -> anyhow::Result<()> {
        self.write(&format!("cells/{}/cell.json", measured.cell), measured)
    }

    /// The cells of the grid that are done, in its order, and those that are not.
    pub fn done_and_left(&self) -> anyhow::Result<(Vec<Measured>, Vec<Cell>)> {
        let (mut done, mut left) = (Vec::new(), Vec::new());
        for &cell in &self.grid.cells {
            let path = self.of(cell).join("cell.json");
            if path.exists() { done.push(read(&path)?) } else { left.push(cell) }
        }
        Ok((done, left))
    }

    /// Writes a file. A reader sees the old one or the new one, never half.
    pub fn write(&self, name: &str, value: &impl Serialize) -> anyhow::Result<()> {
        let path = self.path.join(name);
        let (draft, text) = (path.with_extension("new"), serde_json::to_string_pretty(value)? + "\n");
        let written = fs::write(&draft, text).and_then(|()| fs::rename(&draft, &path));
        written.with_context(|| format!("cannot write {}", path.display()))
    }
}

fn read<T: DeserializeOwned>(path: &Path) -> anyhow::Result<T> {
    let text = fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    serde_json::from_str(&text).with_context(|| format!("{} is of another version of the laboratory", path.display()))
}

/// One line a program. One that cannot be asked is left out; no figure depends on it.
pub fn versions(root: &Path, cluster: &Cluster) -> Vec<String> {
    let installed = std::env::var("PATH").unwrap_or_default();
    let path = format!("{}:{installed}:{FOLDERS}", root.join(FETCHED).display());
    let version = |(name, word)| {
        let done = Command::new(name).arg(word).env("PATH", &path).output().ok()?;
        let text = [done.stdout, done.stderr].concat();
        String::from_utf8_lossy(&text).lines().next().map(|line| line.trim().to_owned())
    };
    std::iter::once(cluster.database()).chain(PROGRAMS.into_iter().filter_map(version)).collect()
}
