//! The members of a group: the primary or the others are broken, and then the group becomes whole again. Nothing helps it but what starts
//! a member that ended; and, after a majority was lost for good, an administrator.

use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use nix::sys::signal::Signal;
use nix::unistd::Pid;
use sqlx::MySqlConnection;
use tokio::time::sleep;

use super::fault::Fault;
use super::supervised::{BACK_WITHIN, LOOK_EVERY, Supervised, freeze, send};
use crate::admin::insist;
use crate::cluster::private::Private;
use crate::cluster::{Cluster, MySql};
use crate::database;

const PRIMARY_WITHIN: Duration = Duration::from_secs(10);

/// How long a group may take to be whole again: a member recovers, joins, and catches up. One that looked for its place in vain, for a
/// minute, is called back within ten seconds.
const WHOLE_WITHIN: Duration = Duration::from_mins(2);

/// A member that was frozen or parted is expelled some time after it woke or was reached again, and takes itself for well until then.
const STAYS_WHOLE: Duration = Duration::from_secs(2);

pub struct Group<'a> {
    pub private: &'a Private,
    pub database: &'a MySql,
    /// The processes of its members, in the order of their numbers.
    pub members: Vec<(String, Pid)>,
}

impl<'a> Group<'a> {
    /// Whose members are processes under a supervisor.
    pub async fn of(private: &'a Private, parts: &'a Supervised) -> anyhow::Result<Self> {
        let (database, mut members) = (database(&parts.cluster)?, Vec::new());
        for member in &database.members {
            members.extend(parts.one(&member.name).await?);
        }
        Ok(Self { private, database, members })
    }

    /// Returns when all members are well again. `pick` says which one of several equal ones it hits.
    pub async fn breaks(&self, fault: Fault, lasts: Duration, pick: u32) -> anyhow::Result<()> {
        let (place, mut connection) = self.primary().await?;
        let mut others = self.members.clone();
        let primary = vec![others.remove(place)];
        match fault {
            Fault::PrimaryKilled => kill(&primary)?,
            Fault::SecondaryKilled => {
                let place = pick as usize % others.len();
                kill(&others[place..=place])?;
            }
            Fault::PrimaryFrozen => freeze(primary, lasts).await?,
            Fault::MajorityFrozen => freeze(others, lasts).await?,
            Fault::PrimarySwitched => database::switch_primary(&mut connection, pick).await?,
            Fault::MajorityKilled => {
                kill(&others)?;
                let answers = async |database: &MySql| database.all_answer().await.map(|()| true);
                self.until(answers, Duration::ZERO, BACK_WITHIN)
                    .await
                    .context("the killed members did not come back")?;
                self.private.mend().await?;
            }
            Fault::Nothing => {}
            _ => bail!("it is none of a group"),
        }
        self.until_whole().await
    }

    /// The place of the primary among the members, and a connection to it. One with a crowd before it answers late.
    pub async fn primary(&self) -> anyhow::Result<(usize, MySqlConnection)> {
        insist(PRIMARY_WITHIN, async || self.database.primary().await).await
    }

    pub async fn until_whole(&self) -> anyhow::Result<()> {
        let whole = self.until(async |database| database.is_whole().await, STAYS_WHOLE, WHOLE_WITHIN).await;
        whole.context("the group was not whole again")
    }

    /// Waits until something is so, and stays so. A member that could not be reached may have another address by now.
    async fn until(
        &self,
        is_so: impl AsyncFn(&MySql) -> anyhow::Result<bool>,
        stays: Duration,
        within: Duration,
    ) -> anyhow::Result<()> {
        let (deadline, mut since, mut cluster) = (Instant::now() + within, None, self.private.look().await?);
        loop {
            let seen = is_so(database(&cluster)?).await;
            if !matches!(seen, Ok(true)) {
                since = None;
            } else if since.get_or_insert_with(Instant::now).elapsed() >= stays {
                return Ok(());
            }
            ensure!(Instant::now() < deadline, "not within {within:?}: {seen:?}");
            if seen.is_err() {
                cluster = self.private.look().await?;
            }
            sleep(LOOK_EVERY).await;
        }
    }
}

/// Each is started again by what supervises it.
fn kill(some: &[(String, Pid)]) -> anyhow::Result<()> {
    some.iter().try_for_each(|(_, pid)| send(*pid, Signal::SIGKILL))
}

fn database(cluster: &Cluster) -> anyhow::Result<&MySql> {
    cluster.mysql.as_ref().context("the cluster has no database")
}
