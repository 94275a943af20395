//! The parts of a running cluster by the names that their supervisor gave them: which process each is now, whether it serves, and
//! signals to it.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use reqwest::Client;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::{sleep, timeout};

use crate::cluster::Cluster;

/// The header in which a replica names itself.
pub const REPLICA: &str = "x-replica";
pub const LOOK_EVERY: Duration = Duration::from_millis(20);
/// How long a killed part may take to come back; a database recovers within some seconds.
pub const BACK_WITHIN: Duration = Duration::from_mins(1);
/// What the supervisor is asked; it closes the connection after its answer.
const QUESTION: &str =
    "<?xml version='1.0'?><methodCall><methodName>supervisor.getAllProcessInfo</methodName></methodCall>";

/// Of so many.
type HowMany = fn(usize) -> usize;
pub const ONE: HowMany = |_| 1;
pub const MOST: HowMany = |all| all / 2 + 1;
pub const ALL: HowMany = |all| all;

pub struct Supervised {
    pub cluster: Cluster,
    /// Where the supervisor listens.
    pub supervisor: PathBuf,
}

impl Supervised {
    pub async fn pid(&self, name: &str) -> anyhow::Result<Pid> {
        self.pids().await?.get(name).copied().with_context(|| format!("{name} does not run"))
    }

    /// One part and its process.
    pub async fn one(&self, name: &str) -> anyhow::Result<Vec<(String, Pid)>> {
        Ok(vec![(name.to_owned(), self.pid(name).await?)])
    }

    /// So many of a kind of part and their processes.
    pub async fn some(&self, prefix: &str, pick: u32, many: HowMany) -> anyhow::Result<Vec<(String, Pid)>> {
        let mut parts: Vec<_> = self.pids().await?.into_iter().filter(|(name, _)| name.starts_with(prefix)).collect();
        ensure!(!parts.is_empty(), "no {prefix} runs");
        let all = parts.len();
        parts.rotate_left(pick as usize % all);
        parts.truncate(many(all));
        Ok(parts)
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

    fn address(&self, name: &str) -> Option<String> {
        let number = |prefix| name.strip_prefix(prefix)?.parse::<usize>().ok()?.checked_sub(1);
        let url = if name == "mysql" {
            self.cluster.mysql.as_ref()?.url.rsplit_once('@')?.1
        } else if let Some(place) = number("redis-") {
            self.cluster.redis.get(place)?.url.rsplit_once("//")?.1
        } else {
            self.cluster.replicas.iter().find(|replica| replica.name == name)?.url.rsplit_once("//")?.1
        };
        Some(url.split('/').next()?.to_owned())
    }
}

/// The replica that gets the orders for this code. It is asked by an order that names no user, and so changes nothing.
pub async fn home(cluster: &Cluster, code: &str) -> anyhow::Result<String> {
    let order = Client::builder().no_proxy().build()?.post(format!("{}/coupons/issue", cluster.url()?));
    let answer = order.json(&json!({ "code": code })).send().await.context("nginx does not answer")?;
    let name = answer.headers().get(REPLICA).with_context(|| format!("no replica has {code}"))?;
    Ok(name.to_str()?.to_owned())
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
pub async fn greets(address: &str) -> bool {
    let Ok(mut stream) = TcpStream::connect(address).await else { return false };
    let mut greeting = [0; 5];
    // The fifth byte is the protocol's version; a refusal has another one there.
    matches!(timeout(Duration::from_secs(1), stream.read_exact(&mut greeting)).await, Ok(Ok(_))) && greeting[4] == 10
}

/// Stops processes for a while.
pub async fn freeze(parts: Vec<(String, Pid)>, lasts: Duration) -> anyhow::Result<()> {
    let frozen = Frozen(parts.into_iter().map(|(_, pid)| pid).collect());
    for pid in &frozen.0 {
        send(*pid, Signal::SIGSTOP)?;
    }
    sleep(lasts).await;
    Ok(())
}

/// Processes that go on when this is dropped.
pub struct Frozen(pub Vec<Pid>);

impl Drop for Frozen {
    fn drop(&mut self) {
        for pid in &self.0 {
            // One that has ended needs it no more.
            let _ = send(*pid, Signal::SIGCONT);
        }
    }
}

pub fn send(pid: Pid, signal: Signal) -> anyhow::Result<()> {
    kill(pid, signal).with_context(|| format!("cannot send {signal} to process {pid}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_that_does_not_run_has_no_process() {
        let member =
            |name: &str, value: &str| format!("<member>\n<name>{name}</name>\n<value>{value}</value>\n</member>\n");
        let part = |name: &str, pid: u32| {
            let [name, pid] = [format!("<string>{name}</string>"), format!("<int>{pid}</int>")];
            let all = [("name", &*name), ("statename", "<string>any</string>"), ("pid", &*pid)];
            format!("<value><struct>\n{}</struct></value>\n", all.map(|(name, value)| member(name, value)).concat())
        };

        let found =
            running(&format!("HTTP/1.0 200 OK\r\n\r\n<array>{}{}</array>", part("redis-1", 41), part("mysql", 0)));

        assert_eq!(found, BTreeMap::from([("redis-1".to_owned(), Pid::from_raw(41))]));
    }
}
