//! The containers of a cluster, as the engine describes them.

use std::collections::BTreeMap;
use std::net::IpAddr;

use anyhow::{Context, ensure};
use nix::unistd::Pid;
use serde::Deserialize;

use super::command::{run, words};

/// The service that is a replica of ours.
pub const REPLICA: &str = "app";
const COMPOSE: &str = "com.docker.compose";

#[derive(Debug, PartialEq, Eq)]
pub struct Host {
    pub id: String,
    /// Of its first process; 0 when it does not run.
    pub pid: u32,
    /// One in each of its networks.
    pub addresses: Vec<IpAddr>,
    pub service: String,
}

impl Host {
    /// An error for one that does not run.
    pub fn process(&self) -> anyhow::Result<Pid> {
        ensure!(self.pid > 0, "{} does not run", self.service);
        Ok(Pid::from_raw(i32::try_from(self.pid)?))
    }
}

/// All of a cluster: the replicas by what they call themselves, the others by their services.
pub async fn of_project(project: &str) -> anyhow::Result<BTreeMap<String, Host>> {
    let ids = run(&words(&format!("docker ps --all --quiet --filter label={COMPOSE}.project={project}"))).await?;
    ensure!(!ids.is_empty(), "no container of {project} is there");
    inspect(&ids).await
}

pub async fn inspect(ids: &str) -> anyhow::Result<BTreeMap<String, Host>> {
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
pub fn hosts(inspected: &str) -> anyhow::Result<BTreeMap<String, Host>> {
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
pub mod tests {
    use serde_json::{Value, json};

    use super::*;

    /// As the engine describes one.
    pub fn container(hostname: &str, service: &str, addresses: &[&str]) -> Value {
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
}
