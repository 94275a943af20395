//! The members of a group: the primary or the others are broken, and then the group becomes whole again. Nothing helps it but the
//! supervisor, which starts what was killed; and, after a majority was lost for good, an administrator.

use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use tokio::time::sleep;

use super::fault::Fault;
use super::strike::kill;
use super::supervised::{LOOK_EVERY, Supervised, freeze};
use crate::cluster::MySql;
use crate::cluster::private::Private;
use crate::database;

/// How long a group may take to be whole again: a member recovers, joins, and catches up.
const WHOLE_WITHIN: Duration = Duration::from_secs(90);

/// A member that was frozen is expelled some time after it woke, and takes itself for well until then.
const STAYS_WHOLE: Duration = Duration::from_secs(2);

pub struct Group<'a> {
    pub private: &'a Private,
    pub parts: &'a Supervised,
}

impl Group<'_> {
    /// Returns when all members are well again. `pick` says which one of several equal ones it hits.
    pub async fn breaks(&self, fault: Fault, lasts: Duration, pick: u32) -> anyhow::Result<()> {
        let (place, mut primary) = self.database()?.primary().await?;
        let others: Vec<_> = (0..self.database()?.members.len()).filter(|other| *other != place).collect();
        match fault {
            Fault::PrimaryKilled => kill(self.parts, self.some(&[place]).await?).await?,
            Fault::SecondaryKilled => {
                kill(self.parts, self.some(&[others[pick as usize % others.len()]]).await?).await?;
            }
            Fault::PrimaryFrozen => freeze(self.some(&[place]).await?, lasts).await?,
            Fault::MajorityFrozen => freeze(self.some(&others).await?, lasts).await?,
            Fault::PrimarySwitched => database::switch_primary(&mut primary, pick).await?,
            Fault::MajorityKilled => {
                kill(self.parts, self.some(&others).await?).await?;
                self.private.mend().await?;
            }
            Fault::Nothing => {}
            _ => bail!("it is none of a group"),
        }
        self.until_whole().await
    }

    fn database(&self) -> anyhow::Result<&MySql> {
        self.parts.cluster.mysql.as_ref().context("the cluster has no database")
    }

    /// The members at these places and their processes.
    async fn some(&self, places: &[usize]) -> anyhow::Result<Vec<(String, nix::unistd::Pid)>> {
        let mut some = Vec::new();
        for place in places {
            some.extend(self.parts.one(&format!("mysql-{}", place + 1)).await?);
        }
        Ok(some)
    }

    async fn until_whole(&self) -> anyhow::Result<()> {
        let (deadline, mut whole_since) = (Instant::now() + WHOLE_WITHIN, None);
        loop {
            if !matches!(self.database()?.is_whole().await, Ok(true)) {
                whole_since = None;
            } else if whole_since.get_or_insert_with(Instant::now).elapsed() > STAYS_WHOLE {
                return Ok(());
            }
            ensure!(Instant::now() < deadline, "the group was not whole again within {WHOLE_WITHIN:?}");
            sleep(LOOK_EVERY).await;
        }
    }
}
