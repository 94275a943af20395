//! Which programs took part in a sweep, by what they say about themselves.

use std::path::Path;
use std::process::Command;

use crate::cluster::Cluster;

/// A program and the word that makes it tell.
const PROGRAMS: [(&str, &str); 3] = [("nginx", "-v"), ("redis-server", "--version"), ("prometheus", "--version")];

/// What was fetched comes before what is installed; servers lie in sbin, which is not on everybody's path.
const FETCHED: &str = ".cluster/tools/bin";
const FOLDERS: [&str; 3] = ["/usr/local/sbin", "/usr/sbin", "/sbin"];

/// One line a program. One that cannot be asked is left out; no figure depends on it.
pub fn read(root: &Path, cluster: &Cluster) -> Vec<String> {
    let mut found = Vec::new();
    if let Some(mysql) = &cluster.mysql {
        found.push(format!("{} {}", mysql.engine, mysql.version.as_deref().unwrap_or_default()));
    }
    for (name, word) in PROGRAMS {
        found.extend(first_line(root, Path::new(name), word));
    }
    found.extend(first_line(root, &root.join(".cluster/venv/bin/k6"), "version"));
    found
}

fn first_line(root: &Path, program: &Path, word: &str) -> Option<String> {
    let installed = std::env::var("PATH").unwrap_or_default() + ":" + &FOLDERS.join(":");
    let path = format!("{}:{installed}", root.join(FETCHED).display());
    let done = Command::new(program).arg(word).env("PATH", path).output().ok()?;
    let text = [done.stdout, done.stderr].concat();
    String::from_utf8_lossy(&text).lines().next().map(|line| line.trim().to_owned())
}
