//! The parts of a running cluster by the names that their supervisor gave them: which process each is now, whether it serves, and
//! signals to it.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use reqwest::header::CONTENT_TYPE;
use reqwest::{Client, Url};
use serde_json::json;
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};

use crate::cluster::Cluster;
use crate::cluster::private::Private;

/// The header in which a replica names itself.
pub const REPLICA: &str = "x-replica";
pub const LOOK_EVERY: Duration = Duration::from_millis(20);
/// How long a killed part may take to come back; a database recovers within some seconds.
pub const BACK_WITHIN: Duration = Duration::from_mins(1);
/// What the supervisor is asked.
const QUESTION: &str =
    "<?xml version='1.0'?><methodCall><methodName>supervisor.getAllProcessInfo</methodName></methodCall>";

/// Of so many.
type HowMany = fn(usize) -> usize;
pub const ONE: HowMany = |_| 1;
pub const MOST: HowMany = |all| all / 2 + 1;
pub const ALL: HowMany = |all| all;

/// All of them, the drawn one first.
pub fn from<T>(mut some: Vec<T>, pick: u32) -> Vec<T> {
    let all = some.len().max(1);
    some.rotate_left(pick as usize % all);
    some
}

pub struct Supervised<'a> {
    pub cluster: &'a Cluster,
    /// Reaches the supervisor, whatever the address.
    supervisor: Client,
}

impl<'a> Supervised<'a> {
    pub fn of(private: &Private, cluster: &'a Cluster) -> anyhow::Result<Self> {
        let socket = private.file().with_file_name("supervisor.sock");
        Ok(Self { cluster, supervisor: Client::builder().no_proxy().unix_socket(socket).build()? })
    }

    pub async fn pid(&self, name: &str) -> anyhow::Result<Pid> {
        self.pids().await?.get(name).copied().with_context(|| format!("{name} does not run"))
    }

    /// One part and its process.
    pub async fn one(&self, name: &str) -> anyhow::Result<BTreeMap<String, Pid>> {
        Ok([(name.to_owned(), self.pid(name).await?)].into())
    }

    /// So many of the parts whose names begin so, and their processes.
    pub async fn some(&self, prefix: &str, pick: u32, many: HowMany) -> anyhow::Result<BTreeMap<String, Pid>> {
        let parts: Vec<_> = self.pids().await?.into_iter().filter(|(name, _)| name.starts_with(prefix)).collect();
        ensure!(!parts.is_empty(), "no {prefix} runs");
        let count = many(parts.len());
        Ok(from(parts, pick).into_iter().take(count).collect())
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
        let question = self.supervisor.post("http://supervisor/RPC2").header(CONTENT_TYPE, "text/xml").body(QUESTION);
        let answer = async { question.send().await?.error_for_status()?.text().await };
        Ok(running(&answer.await.context("the cluster's supervisor does not answer")?))
    }

    async fn serves(&self, name: &str) -> bool {
        let Some(address) = self.address(name) else { return false };
        answers(&address, name == "mysql").await
    }

    fn address(&self, name: &str) -> Option<String> {
        let number = |prefix| name.strip_prefix(prefix)?.parse::<usize>().ok()?.checked_sub(1);
        let url = if name == "mysql" {
            &self.cluster.mysql.as_ref()?.url
        } else if let Some(place) = number("redis-") {
            &self.cluster.redis.get(place)?.url
        } else {
            &self.cluster.replicas.iter().find(|replica| replica.name == name)?.url
        };
        let url = Url::parse(url).ok()?;
        Some(format!("{}:{}", url.host_str()?, url.port()?))
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

/// Whether a server takes connections; a database that does speaks first.
pub async fn answers(address: &str, is_database: bool) -> bool {
    let mut greeting = [0; 5];
    let spoken = async {
        let mut stream = TcpStream::connect(address).await?;
        if is_database { stream.read_exact(&mut greeting).await.map(drop) } else { Ok(()) }
    };
    let is_up = matches!(timeout(Duration::from_secs(1), spoken).await, Ok(Ok(())));
    // The fifth byte is the protocol's version; a refusal has another one there.
    is_up && (!is_database || greeting[4] == 10)
}

/// Stops processes for a while.
pub async fn freeze(some: impl IntoIterator<Item = Pid>, lasts: Duration) -> anyhow::Result<()> {
    let frozen = Frozen(some.into_iter().collect());
    frozen.0.iter().try_for_each(|pid| send(*pid, Signal::SIGSTOP))?;
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
        let part = |name: &str, pid: u32| {
            format!(
                "<value><struct>\n<member>\n<name>name</name>\n<value><string>{name}</string></value>\n</member>\n\
                 <member>\n<name>pid</name>\n<value><int>{pid}</int></value>\n</member>\n</struct></value>\n"
            )
        };

        let found = running(&format!("<array>{}{}</array>", part("redis-1", 41), part("mysql", 0)));

        assert_eq!(found, BTreeMap::from([("redis-1".to_owned(), Pid::from_raw(41))]));
    }
}
