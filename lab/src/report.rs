//! The report on a sweep: `report.html` for people, `cells.json` and `cells.csv` for programs. It says what the cells hold
//! and nothing else; it can be written again at any time.

use std::path::Path;

use crate::sweep::folder::Folder;

mod axis;
mod data;
mod findings;
mod lines;
mod page;
mod pictures;
mod rows;
mod svg;
mod table;
mod usl;

use data::Data;

/// How far the sweep is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Summary {
    /// Cells that are measured.
    pub done: usize,
    /// Cells of the plan.
    pub planned: usize,
    /// Cells with a broken promise that their strategy means to keep.
    pub broken: usize,
}

/// Writes the report into the folder of the sweep.
pub fn write(folder: &Folder) -> anyhow::Result<Summary> {
    let (_, plan) = Folder::open(folder.path())?;
    let (done, _) = folder.done_and_left(&plan)?;
    folder.write("cells.json", &(serde_json::to_string_pretty(&done)? + "\n"))?;
    folder.write("cells.csv", &table::csv(&done, &plan.settings))?;
    let broken = done.iter().filter(|found| found.is_broken()).count();
    let summary = Summary { done: done.len(), planned: plan.cells.len(), broken };
    let data = Data { plan, setting: folder.setting()?, found: done };
    folder.write("report.html", &page::page(&data))?;
    write_pictures(folder, &data)?;
    Ok(summary)
}

/// Every picture as a file of its own, for documents that cannot show a page.
fn write_pictures(folder: &Folder, data: &Data) -> anyhow::Result<()> {
    for shape in data.shapes() {
        for figure in pictures::all(data, shape) {
            let name =
                figure.title.to_lowercase().replace(|c: char| !c.is_ascii_alphanumeric(), "-").replace("--", "-");
            folder.write(&format!("pictures/{shape}-{name}.svg"), &page::alone(&figure))?;
        }
    }
    Ok(())
}

/// The same for a folder by its path, and says where the report is.
pub fn again(path: &Path) -> anyhow::Result<()> {
    let summary = write(&Folder::open(path)?.0)?;
    let Summary { done, planned, .. } = summary;
    println!("{done} of {planned} cells measured: {}", path.join("report.html").display());
    Ok(())
}
