//! The results folder: what is kept of a sweep, so that it can be gone on with and drawn again.
//!
//! `plan.json`, `setting.json` (machine, versions), `cells/NAME/cell.json`, and beside it what speaks against a verdict; all cells in
//! `cells.json` and `cells.csv`; and what `report/` draws of them: `report.html`, `pictures/`.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::cell::Measured;
use super::grid::{Cell, Grid};
use crate::machine::Machine;

/// Where a sweep was measured.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Setting {
    /// When it began, RFC 3339.
    pub started: String,
    /// This machine.
    pub machine: Machine,
    /// Names and versions of the programs that took part.
    pub versions: Vec<String>,
}

/// The folder of one sweep.
#[derive(Clone, Debug)]
pub struct Folder(PathBuf);

impl Folder {
    /// A new one; what is there already is not touched.
    pub fn create(path: &Path, grid: &Grid, setting: &Setting) -> anyhow::Result<Self> {
        let is_used = path.join("plan.json").exists();
        ensure!(
            !is_used,
            "{0} holds a sweep already: go on with it by --resume {0}, or choose another",
            path.display()
        );
        fs::create_dir_all(path).with_context(|| format!("cannot write to {}", path.display()))?;
        // Scripts that run elsewhere are told about it.
        let folder = Self(path.canonicalize()?);
        write(&folder.0.join("setting.json"), &json(setting)?)?;
        write(&folder.0.join("plan.json"), &json(grid)?)?;
        Ok(folder)
    }

    /// One that a sweep made before.
    pub fn open(path: &Path) -> anyhow::Result<(Self, Grid)> {
        let grid = read(&path.join("plan.json")).with_context(|| format!("{} holds no sweep", path.display()))?;
        Ok((Self(path.canonicalize()?), grid))
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Where the sweep was measured.
    pub fn setting(&self) -> anyhow::Result<Setting> {
        read(&self.0.join("setting.json"))
    }

    /// Where a cell's files go; what an interrupted attempt left there is deleted.
    pub fn begin(&self, cell: Cell) -> anyhow::Result<PathBuf> {
        let path = self.of(cell);
        if path.exists() {
            fs::remove_dir_all(&path).with_context(|| format!("cannot delete {}", path.display()))?;
        }
        fs::create_dir_all(&path).with_context(|| format!("cannot write to {}", path.display()))?;
        Ok(path)
    }

    /// Keeps what a cell came to. From then on it is done.
    pub fn keep(&self, measured: &Measured) -> anyhow::Result<()> {
        write(&self.of(measured.cell).join("cell.json"), &json(measured)?)
    }

    /// What a cell came to, `None` while it is not done.
    pub fn measured(&self, cell: Cell) -> anyhow::Result<Option<Measured>> {
        let path = self.of(cell).join("cell.json");
        if path.exists() { read(&path).map(Some) } else { Ok(None) }
    }

    /// The cells of the grid that are done, in its order, and those that are not.
    pub fn done_and_left(&self, grid: &Grid) -> anyhow::Result<(Vec<Measured>, Vec<Cell>)> {
        let (mut done, mut left) = (Vec::new(), Vec::new());
        for &cell in &grid.cells {
            match self.measured(cell)? {
                Some(measured) => done.push(measured),
                None => left.push(cell),
            }
        }
        Ok((done, left))
    }

    /// Writes a file of the whole sweep.
    pub fn write(&self, name: &str, text: &str) -> anyhow::Result<()> {
        write(&self.0.join(name), text)
    }

    fn of(&self, cell: Cell) -> PathBuf {
        self.0.join("cells").join(cell.to_string())
    }
}

fn json(value: &impl Serialize) -> anyhow::Result<String> {
    Ok(serde_json::to_string_pretty(value)? + "\n")
}

fn read<T: DeserializeOwned>(path: &Path) -> anyhow::Result<T> {
    let text = fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    serde_json::from_str(&text).with_context(|| format!("{} is of another version of the laboratory", path.display()))
}

/// A reader sees the old file or the new one, never half.
fn write(path: &Path, text: &str) -> anyhow::Result<()> {
    let draft = path.with_extension("new");
    let folder = path.parent().map_or(Ok(()), fs::create_dir_all);
    folder
        .and_then(|()| fs::write(&draft, text))
        .and_then(|()| fs::rename(&draft, path))
        .with_context(|| format!("cannot write {}", path.display()))
}
