//! The parts of a cluster of containers, each a host of its own: it is lost, stands still, or is parted from others, and then put right
//! again: when the time is over, and also when that is interrupted.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Instant;

use anyhow::{Context, bail, ensure};
use serde::Deserialize;
use tokio::net::TcpStream;
use tokio::time::{sleep, sleep_until, timeout};

use super::barrier::{ALONE, Barrier, NAMELESS, Ways, from};
use super::command::{Mend, run, words};
use super::fault::Fault;
use super::supervised::{BACK_WITHIN, LOOK_EVERY, greets};
use super::wave::Disturbance;
use crate::cluster::Cluster;
use crate::database;

const NGINX: &str = "nginx";
const MYSQL: &str = "mysql";
const REDIS: &str = "redis-";
/// The service that is a replica of ours.
const REPLICA: &str = "app";
const COMPOSE: &str = "com.docker.compose";

/// All containers of a cluster, as they were when this was made: the replicas by what they call themselves, the others by their
/// services.
pub struct Hosts {
    pub cluster: Cluster,
    every: BTreeMap<String, Host>,
}

#[derive(Debug, PartialEq, Eq)]
struct Host {
    id: String,
    /// Of its first process; 0 when it does not run.
    pid: u32,
    /// One in each of its networks.
    addresses: Vec<IpAddr>,
    service: String,
}

impl Hosts {
    pub async fn find(cluster: Cluster, project: &str) -> anyhow::Result<Self> {
        let ids = run(&words(&format!("docker ps --all --quiet --filter label={COMPOSE}.project={project}"))).await?;
        ensure!(!ids.is_empty(), "no container of {project} is there");
        Ok(Self { cluster, every: inspect(&ids).await? })
    }

    /// Tells whether anything broke. What is parted from something is the home, so that orders meet it.
    pub async fn breaks(
        &self,
        Disturbance { fault, pick, .. }: Disturbance,
        home: &str,
        until: Instant,
    ) -> anyhow::Result<bool> {
        let one_way = if pick.is_multiple_of(2) { Ways::In } else { Ways::Out };
        let replica = || self.some(|it| it.service == REPLICA, pick).swap_remove(0);
        let nodes = self.some(|it| it.service.starts_with(REDIS), pick / 2);
        let (node, most) = (&nodes[..1], &nodes[..=nodes.len() / 2]);
        match fault {
            Fault::DatabaseParted => return self.part(home, &[MYSQL], Ways::Both, until).await,
            Fault::DatabasePartedOneWay => return self.part(home, &[MYSQL], one_way, until).await,
            Fault::RedisParted => return self.part(home, node, Ways::Both, until).await,
            Fault::RedisPartedOneWay => return self.part(home, node, one_way, until).await,
            Fault::RedisMajorityParted => return self.part(home, most, Ways::Both, until).await,
            Fault::RedisMajorityPartedOneWay => return self.part(home, most, one_way, until).await,
            Fault::NginxParted => return self.part(home, &[NGINX], Ways::Both, until).await,
            Fault::NginxPartedOneWay => return self.part(home, &[NGINX], one_way, until).await,
            Fault::HomeWithoutNames => return self.forget_names(home, until).await,
            Fault::NginxWithoutNames => {
                let barrier = Barrier::around(self.host(NGINX)?.pid, &NAMELESS).await?;
                sleep_until(until.into()).await;
                return barrier.open().await;
            }
            Fault::HomeHostLost => self.lose(home, until).await?,
            Fault::ReplicaHostLost => self.lose(replica(), until).await?,
            Fault::RedisHostLost => self.lose(node[0], until).await?,
            Fault::DatabaseHostLost => self.lose(MYSQL, until).await?,
            Fault::HomePaused => self.pause(home, until).await?,
            Fault::ReplicaPaused => self.pause(replica(), until).await?,
            Fault::RedisPaused => self.pause(node[0], until).await?,
            Fault::DatabasePaused => self.pause(MYSQL, until).await?,
            Fault::Nothing => sleep_until(until.into()).await,
            _ => bail!("it is none of a host"),
        }
        Ok(true)
    }

    fn host(&self, name: &str) -> anyhow::Result<&Host> {
        let host = self.every.get(name).filter(|host| host.pid > 0);
        host.with_context(|| format!("{name} does not run"))
    }

    /// The hosts of one kind, from the drawn one on.
    fn some(&self, kind: impl Fn(&Host) -> bool, pick: u32) -> Vec<&str> {
        let mut names: Vec<_> = self.every.iter().filter(|(_, host)| kind(host)).map(|(name, _)| &**name).collect();
        let all = names.len().max(1);
        names.rotate_left(pick as usize % all);
        names
    }

    /// Parts a host from others for a while. Tells whether there was anything between them to be kept back.
    async fn part(&self, name: &str, others: &[&str], ways: Ways, until: Instant) -> anyhow::Result<bool> {
        let mut peers = Vec::new();
        for other in others {
            peers.extend(&self.host(other)?.addresses);
        }
        let barrier = Barrier::around(self.host(name)?.pid, &from(&peers, ways)).await?;
        sleep_until(until.into()).await;
        barrier.open().await
    }

    /// Lets a replica find no address, and gives it a reason to look for one.
    async fn forget_names(&self, name: &str, until: Instant) -> anyhow::Result<bool> {
        let mut database = self.cluster.connect().await?;
        let barrier = Barrier::around(self.host(name)?.pid, &NAMELESS).await?;
        database::close_connections(&mut database).await?;
        sleep_until(until.into()).await;
        barrier.open().await
    }

    /// A process that is killed says goodbye on all its connections; what a lost host says is lost with it. Returns when it serves again.
    async fn lose(&self, name: &str, until: Instant) -> anyhow::Result<()> {
        let Host { id, pid, .. } = self.host(name)?;
        let comes_back = Mend::by(words(&format!("docker start {id}")));
        let barrier = Barrier::around(*pid, &ALONE).await?;
        run(&words(&format!("docker kill {id}"))).await?;
        barrier.forget();
        sleep_until(until.into()).await;
        comes_back.now().await?;
        until_back(name, id).await
    }

    async fn pause(&self, name: &str, until: Instant) -> anyhow::Result<()> {
        let Host { id, .. } = self.host(name)?;
        let goes_on = Mend::by(words(&format!("docker unpause {id}")));
        run(&words(&format!("docker pause {id}"))).await?;
        sleep_until(until.into()).await;
        goes_on.now().await
    }
}

/// Waits until a host serves; it may have another address than before.
async fn until_back(name: &str, id: &str) -> anyhow::Result<()> {
    let deadline = Instant::now() + BACK_WITHIN;
    while !serves(&inspect(id).await?[name]).await {
        ensure!(Instant::now() < deadline, "{name} did not come back within {BACK_WITHIN:?}");
        sleep(LOOK_EVERY).await;
    }
    Ok(())
}

async fn serves(Host { addresses, service, .. }: &Host) -> bool {
    let Some(address) = addresses.first() else { return false };
    match &**service {
        MYSQL => greets(&format!("{address}:3306")).await,
        REPLICA => connects(&format!("{address}:8080")).await,
        _ => connects(&format!("{address}:6379")).await,
    }
}

async fn connects(address: &str) -> bool {
    timeout(LOOK_EVERY, TcpStream::connect(address)).await.is_ok_and(|stream| stream.is_ok())
}

async fn inspect(ids: &str) -> anyhow::Result<BTreeMap<String, Host>> {
    hosts(&run(&words(&format!("docker inspect {ids}"))).await?)
}

/// A container as the engine describes it.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Container {
    id: String,
    state: State,
    config: Config,
    network_settings: Networks,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct State {
    pid: u32,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Config {
    hostname: String,
    labels: BTreeMap<String, String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Networks {
    networks: BTreeMap<String, Network>,
}

#[derive(Deserialize)]
struct Network {
    /// Empty while the container does not run.
    #[serde(rename = "IPAddress")]
    address: String,
}

/// By their names, from what the engine says about them.
fn hosts(inspected: &str) -> anyhow::Result<BTreeMap<String, Host>> {
    let containers: Vec<Container> = serde_json::from_str(inspected).context("the engine describes no containers")?;
    let host = |it: Container| {
        let service = it.config.labels.get(&format!("{COMPOSE}.service")).cloned().unwrap_or_default();
        let name = if service == REPLICA { it.config.hostname } else { service.clone() };
        let addresses = it.network_settings.networks.values().filter_map(|it| it.address.parse().ok()).collect();
        (name, Host { id: it.id, pid: it.state.pid, addresses, service })
    };
    Ok(containers.into_iter().map(host).collect())
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn container(hostname: &str, service: &str, addresses: &[&str]) -> Value {
        let network =
            |(number, address): (usize, &&str)| (number.to_string(), json!({ "IPAddress": address, "Gateway": "" }));
        let networks: BTreeMap<_, _> = addresses.iter().enumerate().map(network).collect();
        let labels = json!({ "com.docker.compose.service": service, "com.docker.compose.project": "coupon-rush" });
        json!({ "Id": format!("id-{hostname}"), "State": { "Pid": 7, "Status": "running" },
                "Config": { "Hostname": hostname, "Labels": labels }, "NetworkSettings": { "Networks": networks } })
    }

    #[test]
    fn a_replica_has_the_name_that_it_calls_itself_and_an_address_in_each_network() {
        let found = hosts(
            &json!([container("af1", "app", &["10.1.0.2", "10.2.0.2"]), container("b07", "mysql", &[""])]).to_string(),
        );

        let found = found.unwrap();
        assert_eq!(found["af1"].addresses, ["10.1.0.2", "10.2.0.2"].map(|it| it.parse::<IpAddr>().unwrap()));
        assert_eq!((&*found["mysql"].id, found["mysql"].addresses.len()), ("id-b07", 0));
    }

    #[test]
    fn the_drawn_one_of_a_kind_comes_first() {
        let all = ["redis-1", "redis-2", "redis-3", "nginx"].map(|service| container(service, service, &[]));
        let nothing =
            r#"{"nginx":null,"replicas":[],"redis":[],"mysql":null,"prometheus":null,"admin_token_file":null}"#;
        let (cluster, every) = (serde_json::from_str(nothing).unwrap(), hosts(&json!(all).to_string()).unwrap());
        let hosts = Hosts { cluster, every };

        assert_eq!(hosts.some(|it| it.service.starts_with(REDIS), 4), ["redis-2", "redis-3", "redis-1"]);
        assert!(hosts.some(|it| it.service == REPLICA, 4).is_empty());
    }
}
