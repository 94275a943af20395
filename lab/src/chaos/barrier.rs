//! Rules that part a container from others, in its own network namespace. Root makes them from outside, for containers may do nothing
//! of the kind; they go with the namespace when the container ends.

use std::net::IpAddr;
use std::path::PathBuf;
use std::{fs, io};

use anyhow::{Context, ensure};

use super::command::{Mend, run, words};

/// What parts a host from every other one; it goes on reaching itself.
pub const ALONE: [&str; 2] = ["INPUT ! -i lo -j DROP", "OUTPUT ! -o lo -j DROP"];
/// What parts a container from the engine's name server. The engine turns its port into another one before this rule is asked, and
/// leaves its address.
pub const NAMELESS: [&str; 1] = ["OUTPUT -d 127.0.0.11 -j DROP"];

/// The ways between a host and others that are cut, as the host has them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ways {
    Both,
    /// Nothing comes from them.
    In,
    /// Nothing gets to them.
    Out,
}

/// What parts a host from these addresses.
pub fn parting(peers: &[IpAddr], ways: Ways) -> Vec<String> {
    let peers: Vec<_> = peers.iter().map(ToString::to_string).collect();
    let peers = peers.join(",");
    let (from, to) = (format!("INPUT -s {peers} -j DROP"), format!("OUTPUT -d {peers} -j DROP"));
    match ways {
        Ways::Both => vec![from, to],
        Ways::In => vec![from],
        Ways::Out => vec![to],
    }
}

/// Whether such rules can be made here; the error names the cure. Nothing is changed.
pub async fn can_be_made() -> anyhow::Result<()> {
    let looked = run(&inside(std::process::id(), "iptables --wait --list-rules")).await;
    looked.map(drop).context(
        "RUNTIME=docker parts hosts by rules in their network namespaces: run it as root on the engine's own host, with nsenter \
         (Debian: util-linux) and iptables installed",
    )
}

/// Rules that are in force until this is opened or dropped.
pub struct Barrier {
    pid: u32,
    mends: Vec<Mend>,
}

impl Barrier {
    /// Around the container that this process is in.
    pub async fn around(pid: u32, rules: &[impl AsRef<str>]) -> anyhow::Result<Self> {
        ensure_is_container(pid)?;
        let mut barrier = Self { pid, mends: Vec::new() };
        for rule in rules.iter().map(AsRef::as_ref) {
            barrier.mends.push(Mend::by(inside(pid, &format!("iptables --wait --delete {rule}"))));
            run(&inside(pid, &format!("iptables --wait --insert {rule}"))).await?;
        }
        Ok(barrier)
    }

    /// Tells whether anything was kept back. A container that ends when it is reached again takes its rules with it.
    pub async fn open(self) -> anyhow::Result<bool> {
        let counted = run(&inside(self.pid, "iptables-save --counters --table filter")).await?;
        for mend in self.mends {
            mend.now().await.or_else(|error| if is_there(self.pid) { Err(error) } else { Ok(()) })?;
        }
        Ok(kept_back(&counted))
    }
}

/// Where the engine runs elsewhere, its processes have other numbers: a rule must not part this host from the world.
fn ensure_is_container(pid: u32) -> anyhow::Result<()> {
    let is_container = namespace(pid).is_ok_and(|it| namespace(std::process::id()).is_ok_and(|own| it != own));
    ensure!(is_container, "process {pid} is in no container here: run this on the engine's own host");
    Ok(())
}

fn is_there(pid: u32) -> bool {
    namespace(pid).is_ok()
}

/// An error for a process that has ended.
fn namespace(pid: u32) -> io::Result<PathBuf> {
    fs::read_link(format!("/proc/{pid}/ns/net"))
}

/// The words of a command in the network namespace of a process.
fn inside(pid: u32, line: &str) -> Vec<String> {
    words(&format!("nsenter --net --target {pid} {line}"))
}

/// Whether a rule that drops has met a packet, from the rules with their counters: `[packets:bytes] -A …`.
fn kept_back(counted: &str) -> bool {
    counted.lines().any(|line| line.ends_with("-j DROP") && !line.starts_with("[0:"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_can_be_parted_from_others_one_way_and_both() {
        let peers = ["10.0.0.2", "10.0.0.3"].map(|address| address.parse().unwrap());
        let (comes, goes) = ("INPUT -s 10.0.0.2,10.0.0.3 -j DROP", "OUTPUT -d 10.0.0.2,10.0.0.3 -j DROP");

        assert_eq!(parting(&peers, Ways::Both), [comes, goes]);
        assert_eq!(parting(&peers, Ways::In), [comes]);
        assert_eq!(parting(&peers, Ways::Out), [goes]);
    }

    #[test]
    fn rules_that_met_no_packet_have_kept_nothing_back() {
        let rules = |packets: u32| {
            format!(
                "*filter\n:INPUT ACCEPT [7:420]\n[0:0] -A INPUT -i lo -j ACCEPT\n[{packets}:60] -A INPUT -s 10.0.0.2/32 -j DROP\n"
            )
        };

        assert!(kept_back(&rules(12)) && !kept_back(&rules(0)));
    }

    #[tokio::test]
    async fn no_rule_is_made_on_this_host_itself() {
        let error = Barrier::around(std::process::id(), &ALONE).await.map(drop).unwrap_err().to_string();

        assert!(error.contains("the engine's own host"), "{error}");
    }
}
