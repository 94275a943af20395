//! The parts of a cluster of containers, each a host of its own: it is lost, stands still, or is parted from others, and then put right
//! again: when the time is over, and also when that is interrupted.

use std::collections::BTreeMap;
use std::mem;
use std::time::Instant;

use anyhow::{Context, bail, ensure};
use futures_util::future::join_all;
use tokio::time::{sleep, sleep_until};

use super::barrier::{ALONE, Barrier, NAMELESS, Ways, parting};
use super::command::{Mend, run, words};
use super::containers::{self, Host, REPLICA, inspect};
use super::fault::Fault;
use super::group::Group;
use super::supervised::{BACK_WITHIN, LOOK_EVERY, MOST, answers, from};
use super::wave::Disturbance;
use crate::cluster::Cluster;
use crate::cluster::private::Private;
use crate::database;

const NGINX: &str = "nginx";
const MYSQL: &str = "mysql";
const REDIS: &str = "redis-";

/// All containers of a cluster, as they were when this was made.
pub struct Hosts<'a> {
    private: &'a Private,
    pub cluster: &'a Cluster,
    every: BTreeMap<String, Host>,
}

impl<'a> Hosts<'a> {
    pub async fn find(private: &'a Private, cluster: &'a Cluster) -> anyhow::Result<Self> {
        let every = containers::of_project(&private.project()).await?;
        Ok(Self { private, cluster, every })
    }

    /// Tells whether anything broke. What is parted from something is the home, so that orders meet it.
    pub async fn breaks(&self, disturbance: Disturbance, home: &str, until: Instant) -> anyhow::Result<bool> {
        let Disturbance { fault, pick, .. } = disturbance;
        if fault.is_of_a_group() {
            return self.breaks_group(disturbance, home, until).await;
        }
        let one_way = if pick.is_multiple_of(2) { Ways::In } else { Ways::Out };
        let replica = || some(&self.every, REPLICA, pick).swap_remove(0);
        let nodes = some(&self.every, REDIS, pick / 2);
        let (node, most) = (&nodes[..1], &nodes[..MOST(nodes.len())]);
        match fault {
            Fault::DatabaseParted => return self.part(&[home], &[MYSQL], Ways::Both, until).await,
            Fault::DatabasePartedOneWay => return self.part(&[home], &[MYSQL], one_way, until).await,
            Fault::RedisParted => return self.part(&[home], node, Ways::Both, until).await,
            Fault::RedisPartedOneWay => return self.part(&[home], node, one_way, until).await,
            Fault::RedisMajorityParted => return self.part(&[home], most, Ways::Both, until).await,
            Fault::RedisMajorityPartedOneWay => return self.part(&[home], most, one_way, until).await,
            Fault::NginxParted => return self.part(&[home], &[NGINX], Ways::Both, until).await,
            Fault::NginxPartedOneWay => return self.part(&[home], &[NGINX], one_way, until).await,
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

    /// Parts hosts from others for a while. Tells whether there was anything between them to be kept back.
    async fn part(&self, some: &[&str], others: &[&str], ways: Ways, until: Instant) -> anyhow::Result<bool> {
        let (mut peers, mut barriers) = (Vec::new(), Vec::new());
        for other in others {
            peers.extend(&self.host(other)?.addresses);
        }
        for name in some {
            barriers.push(Barrier::around(self.host(name)?.pid, &parting(&peers, ways)).await?);
        }
        sleep_until(until.into()).await;
        let opened = join_all(barriers.into_iter().map(Barrier::open)).await;
        Ok(opened.into_iter().collect::<anyhow::Result<Vec<_>>>()?.contains(&true))
    }

    /// Breaks members of the database's group, and waits until it is whole again. Tells whether anything broke.
    async fn breaks_group(&self, disturbance: Disturbance, home: &str, until: Instant) -> anyhow::Result<bool> {
        let Disturbance { fault, lasts, pick, .. } = disturbance;
        let database = self.cluster.mysql()?;
        let mut others: Vec<_> = database.members.iter().map(|member| &*member.name).collect();
        let members = others.iter().map(|name| self.host(name)?.process());
        let group = Group { private: self.private, database, members: members.collect::<anyhow::Result<_>>()? };
        if !fault.needs_own_hosts() {
            return group.breaks(fault, lasts, pick).await.map(|()| true);
        }
        let mut away = some(&self.every, REPLICA, 0);
        let primary = others.remove(group.primary().await?.0);
        let hit = match fault {
            Fault::PrimaryHostLost => self.lose(primary, until).await.map(|()| true)?,
            Fault::PrimaryParted => self.part(&[primary], &others, Ways::Both, until).await?,
            Fault::PrimaryPartedWithHome | Fault::AdministrationParted => {
                away.retain(|name| *name != home);
                away.extend(others);
                self.part(&[primary, home], &away, Ways::Both, until).await?
            }
            Fault::SecondaryParted => {
                let secondary = others.swap_remove(pick as usize % others.len());
                self.part(&[secondary], &[others[0], primary], Ways::Both, until).await?
            }
            _ => bail!("it is none of a member"),
        };
        group.until_whole().await?;
        Ok(hit)
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
        // Its rules have gone with the container.
        mem::forget(barrier);
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

/// The hosts of one kind, from the drawn one on.
fn some<'a>(every: &'a BTreeMap<String, Host>, kind: &str, pick: u32) -> Vec<&'a str> {
    let is_one = |(_, host): &(_, &Host)| host.service.starts_with(kind);
    from(every.iter().filter(is_one).map(|(name, _)| &**name).collect(), pick)
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
    let is_database = service.starts_with(MYSQL);
    let port = match &**service {
        REPLICA => 8080,
        _ if is_database => 3306,
        _ => 6379,
    };
    answers(&format!("{address}:{port}"), is_database).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_drawn_one_of_a_kind_comes_first() {
        let every = containers::hosts("1 7 a redis-1\n2 7 b redis-2\n3 7 c redis-3\n4 7 d nginx\n").unwrap();

        assert_eq!(some(&every, REDIS, 4), ["redis-2", "redis-3", "redis-1"]);
        assert!(some(&every, REPLICA, 4).is_empty());
    }
}
