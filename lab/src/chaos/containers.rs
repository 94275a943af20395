//! The containers of a cluster, as the engine describes them.

use std::collections::BTreeMap;
use std::net::IpAddr;

use anyhow::{Context, ensure};
use nix::unistd::Pid;

use super::command::{run, words};

/// The service that is a replica of ours.
pub const REPLICA: &str = "app";
/// What the engine is asked of a container: a line of words, of which the last are its addresses. One that does not run has none.
const LINE: &str = "{{.Id}} {{.State.Pid}} {{.Config.Hostname}} {{index .Config.Labels \"com.docker.compose.service\"}}\
                    {{range .NetworkSettings.Networks}} {{.IPAddress}}{{end}}";

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
    /// An error for one that does not run: a signal to process 0 would reach this program and its children.
    pub fn process(&self) -> anyhow::Result<Pid> {
        ensure!(self.pid > 0, "{} does not run", self.service);
        Ok(Pid::from_raw(i32::try_from(self.pid)?))
    }
}

/// All of a cluster: the replicas by what they call themselves, the others by their services.
pub async fn of_project(project: &str) -> anyhow::Result<BTreeMap<String, Host>> {
    let filter = format!("label=com.docker.compose.project={project}");
    let ids = run(&words(&format!("docker ps --all --quiet --filter {filter}"))).await?;
    ensure!(!ids.is_empty(), "no container of {project} is there");
    inspect(&ids).await
}

pub async fn inspect(ids: &str) -> anyhow::Result<BTreeMap<String, Host>> {
    let mut command = words("docker inspect --format");
    command.push(LINE.to_owned());
    command.extend(words(ids));
    hosts(&run(&command).await?)
}

/// By their names, from what the engine says about them.
pub fn hosts(lines: &str) -> anyhow::Result<BTreeMap<String, Host>> {
    lines.lines().map(|line| host(line).with_context(|| format!("{line:?} describes no container"))).collect()
}

fn host(line: &str) -> Option<(String, Host)> {
    let mut words = line.split_whitespace();
    let mut word = || words.next().map(str::to_owned);
    let (id, pid, hostname, service) = (word()?, word()?.parse().ok()?, word()?, word()?);
    let name = if service == REPLICA { hostname } else { service.clone() };
    Some((name, Host { id, pid, addresses: words.filter_map(|address| address.parse().ok()).collect(), service }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_replica_has_the_name_that_it_calls_itself_and_an_address_in_each_network() {
        let found = hosts("id-1 7 af1 app 10.1.0.2 10.2.0.2\nid-2 0 b07 mysql \n").unwrap();

        assert_eq!(found["af1"].addresses, ["10.1.0.2", "10.2.0.2"].map(|it| it.parse::<IpAddr>().unwrap()));
        assert_eq!((&*found["mysql"].id, found["mysql"].addresses.len()), ("id-2", 0));
        assert_eq!(found["mysql"].process().unwrap_err().to_string(), "mysql does not run");
        assert!(hosts("id-3 7 c1").is_err(), "it is of no service");
    }
}
