//! The parts of a running cluster by the names that their supervisor gave them: which process each is now, and whether it serves.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use nix::unistd::Pid;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::{sleep, timeout};

use crate::cluster::Cluster;

/// Between two looks at a part that is on its way back.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// How long a killed part may take to come back; a database recovers within some seconds.
const BACK_WITHIN: Duration = Duration::from_mins(1);
/// What the supervisor is asked; it closes the connection after its answer.
const QUESTION: &str =
    "<?xml version='1.0'?><methodCall><methodName>supervisor.getAllProcessInfo</methodName></methodCall>";

/// The parts of a cluster.
pub struct Supervised {
    cluster: Cluster,
    /// Where the supervisor listens.
    supervisor: PathBuf,
}

impl Supervised {
    /// The parts of `cluster`, whose supervisor listens there.
    pub fn new(cluster: Cluster, supervisor: PathBuf) -> Self {
        Self { cluster, supervisor }
    }

    /// The process that a part is now.
    pub async fn pid(&self, name: &str) -> anyhow::Result<Pid> {
        self.pids().await?.get(name).copied().with_context(|| format!("{name} does not run"))
    }

    /// The processes of one kind of part, in the order of their numbers.
    pub async fn all(&self, prefix: &str) -> anyhow::Result<Vec<(String, Pid)>> {
        let parts: Vec<_> = self.pids().await?.into_iter().filter(|(name, _)| name.starts_with(prefix)).collect();
        ensure!(!parts.is_empty(), "no {prefix} runs");
        Ok(parts)
    }

    /// One of a kind.
    pub async fn one(&self, prefix: &str, pick: u32) -> anyhow::Result<(String, Pid)> {
        let mut parts = self.all(prefix).await?;
        Ok(parts.swap_remove(pick as usize % parts.len()))
    }

    /// The processes of more than half of a kind.
    pub async fn majority(&self, prefix: &str, pick: u32) -> anyhow::Result<Vec<Pid>> {
        let mut parts = self.all(prefix).await?;
        let (all, first) = (parts.len(), pick as usize % parts.len());
        parts.rotate_left(first);
        Ok(parts[..=(all / 2)].iter().map(|(_, pid)| *pid).collect())
    }

    /// Waits until a part serves again; one that was `killed` as another process, for the kernel accepts connections for the
    /// dying one.
    pub async fn until_back(&self, name: &str, killed: Option<Pid>) -> anyhow::Result<()> {
        let deadline = Instant::now() + BACK_WITHIN;
        let is_another = async || match killed {
            Some(killed) => self.pid(name).await.is_ok_and(|pid| pid != killed),
            None => true,
        };
        while !(is_another().await && self.serves(name).await) {
            ensure!(Instant::now() < deadline, "{name} did not come back within {BACK_WITHIN:?}");
            sleep(LOOK_EVERY).await;
        }
        Ok(())
    }

    async fn pids(&self) -> anyhow::Result<BTreeMap<String, Pid>> {
        let asked = async {
            let mut stream = UnixStream::connect(&self.supervisor).await?;
            let head = format!("POST /RPC2 HTTP/1.0\r\nContent-Type: text/xml\r\nContent-Length: {}", QUESTION.len());
            stream.write_all(format!("{head}\r\n\r\n{QUESTION}").as_bytes()).await?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer).await?;
            std::io::Result::Ok(answer)
        };
        Ok(running(&asked.await.context("the cluster's supervisor does not answer")?))
    }

    async fn serves(&self, name: &str) -> bool {
        match self.address(name) {
            Some(address) if name == "mysql" => greets(&address).await,
            Some(address) => TcpStream::connect(address).await.is_ok(),
            None => false,
        }
    }

    /// `host:port` of a part.
    fn address(&self, name: &str) -> Option<String> {
        let url = if name == "mysql" {
            self.cluster.mysql.as_ref()?.url.rsplit_once('@')?.1
        } else if let Some(number) = name.strip_prefix("redis-") {
            self.cluster.redis.get(number.parse::<usize>().ok()?.checked_sub(1)?)?.url.rsplit_once("//")?.1
        } else {
            self.cluster.replicas.iter().find(|replica| replica.name == name)?.url.rsplit_once("//")?.1
        };
        Some(url.split('/').next()?.to_owned())
    }
}

/// The parts that run, from what the supervisor says about all.
fn running(answer: &str) -> BTreeMap<String, Pid> {
    let one = |part: &str| {
        // `<name>pid</name> <value><int>7</int></value>`: the value comes after two more tags.
        let of = |name: &str| part.split_once(&format!("<name>{name}</name>"))?.1.split(['<', '>']).nth(4);
        let pid = of("pid")?.parse().ok().filter(|pid| *pid > 0)?;
        Some((of("name")?.to_owned(), Pid::from_raw(pid)))
    };
    answer.split("<struct>").skip(1).filter_map(one).collect()
}

/// Whether a database speaks first, as one does that takes connections.
async fn greets(address: &str) -> bool {
    let Ok(mut stream) = TcpStream::connect(address).await else { return false };
    let mut greeting = [0; 5];
    // The fifth byte is the protocol's version; a refusal has another one there.
    matches!(timeout(Duration::from_secs(1), stream.read_exact(&mut greeting)).await, Ok(Ok(_))) && greeting[4] == 10
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_that_does_not_run_has_no_process() {
        let member = |name: &str, kind: &str, value: &str| {
            format!("<member>\n<name>{name}</name>\n<value><{kind}>{value}</{kind}></value>\n</member>\n")
        };
        let part = |name, pid| {
            let state = member("statename", "string", "any");
            format!(
                "<value><struct>\n{}{state}{}</struct></value>\n",
                member("name", "string", name),
                member("pid", "int", pid)
            )
        };

        let found =
            running(&format!("HTTP/1.0 200 OK\r\n\r\n<array>{}{}</array>", part("redis-1", "41"), part("mysql", "0")));

        assert_eq!(found, BTreeMap::from([("redis-1".to_owned(), Pid::from_raw(41))]));
    }
}
