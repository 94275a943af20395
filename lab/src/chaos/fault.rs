//! What can break. How it is broken is in `strike`, and where every part is a host of its own in `hosts`.

use std::ops::RangeInclusive;
use std::time::Duration;

use clap::ValueEnum;
use strum::{Display, IntoStaticStr, VariantArray};

/// How long nginx waits for a silent replica: a second longer than an order's deadline.
const GIVEN_UP: Duration = Duration::from_secs(6);

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, ValueEnum, Display, IntoStaticStr, VariantArray)]
#[strum(serialize_all = "kebab-case")]
pub enum Fault {
    /// The control: all is well.
    Nothing,
    /// The home of a code is killed while a crowd asks for it; the supervisor starts it again.
    HomeKilled,
    /// All replicas are killed at once.
    EveryReplicaKilled,
    /// The home of a code stops while a crowd asks for it, and goes on as if nothing had been: after its lock's life, or after nginx
    /// has given it up.
    HomeFrozen,
    /// The home of a code is killed by the kernel while it sends its n-th packet: to Redis, to the database, or to a client.
    HomeKilledAtAStep,
    /// The home of a code stops while it sends its n-th packet.
    HomeFrozenAtAStep,
    /// A home takes so few orders at a time that a crowd needs several replicas, and then more than there are.
    HomeFull,
    /// A replica comes and goes, or goes and comes, and codes change their homes with it.
    HomesMoved,
    /// One user in three writes the code so that nginx cannot read it, and meets any replica.
    CodesHidden,
    /// One lock node hangs.
    RedisHung,
    /// One lock node is killed and comes back empty.
    RedisKilled,
    /// Two of three lock nodes hang: no quorum.
    RedisMajorityHung,
    /// All lock nodes are killed and come back empty.
    EveryRedisKilled,
    /// Most or all lock nodes have no memory left: they answer, and take no key.
    RedisMemoryFull,
    /// Most or all lock nodes follow another server: they answer, and take no writes.
    RedisReadOnly,
    /// Most or all lock nodes run no scripts: what was locked is not given back.
    RedisScriptsForbidden,
    /// Most or all lock nodes keep writes waiting, and answer everything else.
    RedisWritesPaused,
    /// One replica loses its way to one lock node or to most of them; the others reach all.
    RedisCutOff,
    /// Held locks vanish from all nodes again and again, as if their clocks had jumped: several holders at once.
    LocksVanish,
    /// The database kills a connection of the service every 30 ms.
    ConnectionsKilled,
    /// The database hangs with its connections open: nobody is told.
    DatabaseHung,
    /// The database is killed and recovers.
    DatabaseKilled,
    /// The database takes no more connections, and the open ones are closed.
    ConnectionsExhausted,
    /// The database takes no writes, as one that was demoted in a failover.
    DatabaseReadOnly,
    /// Somebody locks the table of the coupons, as a migration does that waits behind a long transaction.
    TableLocked,
    /// Every write to the disk takes 100 ms longer.
    DiskSlow,
    /// Every write of the database to a file fails: there is no room.
    DiskFull,
    /// nginx reloads its configuration again and again.
    NginxReloaded,
    /// Eight of ten users hang up their first request within 30 ms.
    ClientsHangUp,
    /// An administrator resets, tops up, reduces, closes and opens, and changes the rule, while everybody asks and asks again.
    Administration,
    // From here on what only hosts and networks do.
    /// The host of a code's home is lost without a farewell: nothing reaches it or leaves it, then its processes are dead. It comes back.
    HomeHostLost,
    /// The host of any replica is lost without a farewell.
    ReplicaHostLost,
    /// The host of a lock node is lost without a farewell, and comes back empty.
    RedisHostLost,
    /// The host of the database is lost without a farewell, and comes back with its data.
    DatabaseHostLost,
    /// The host of a code's home stands still, and goes on.
    HomePaused,
    /// The host of any replica stands still, and goes on.
    ReplicaPaused,
    /// The host of a lock node stands still, and goes on.
    RedisPaused,
    /// The host of the database stands still, and goes on.
    DatabasePaused,
    /// A code's home and the database do not reach each other.
    DatabaseParted,
    /// A code's home does not reach the database, or does not hear it.
    DatabasePartedOneWay,
    /// A code's home and one lock node do not reach each other.
    RedisParted,
    /// A code's home does not reach one lock node, or does not hear it.
    RedisPartedOneWay,
    /// A code's home and two of three lock nodes do not reach each other.
    RedisMajorityParted,
    /// A code's home does not reach two of three lock nodes, or does not hear them.
    RedisMajorityPartedOneWay,
    /// nginx and a code's home do not reach each other.
    NginxParted,
    /// A code's home does not hear nginx, or does not reach it.
    NginxPartedOneWay,
    /// A code's home finds no address for any name, and its connections to the database are closed, so that it needs one.
    HomeWithoutNames,
    /// nginx is not told the replicas' addresses.
    NginxWithoutNames,
    // From here on what only the members of a group do.
    /// The primary is killed; another member takes its place, and it joins again.
    PrimaryKilled,
    /// The primary stops until the others have expelled it, wakes, and takes itself for the primary still.
    PrimaryFrozen,
    /// Another member becomes the primary because an administrator says so.
    PrimarySwitched,
    /// A member that is not the primary is killed, and joins again.
    SecondaryKilled,
    /// All members but the primary stop: it answers, and is no part of a majority.
    MajorityFrozen,
    /// All members but the primary are killed at once. The group is started anew.
    MajorityKilled,
    // From here on what only members on hosts of their own do.
    /// The host of the primary is lost without a farewell, and comes back with its data.
    PrimaryHostLost,
    /// The primary and the other members do not reach each other; every replica reaches all of them.
    PrimaryParted,
    /// The primary and a code's home reach each other, and neither reaches another member or replica.
    PrimaryPartedWithHome,
    /// The same, while an administrator is at work at a replica that reaches the others.
    AdministrationParted,
    /// A member that is not the primary and the others do not reach each other.
    SecondaryParted,
}

/// What a cluster consists of, and so what can break.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ground {
    /// Each part is a host of its own.
    pub hosts: bool,
    /// The database is a group of several members.
    pub group: bool,
}

/// What a fault takes hold of; two faults that share a part do not meet.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Part {
    Replicas,
    Redis,
    Database,
    Nginx,
    Clients,
}

impl Fault {
    /// All of them.
    pub const ALL: &[Self] = Self::VARIANTS;

    /// Those that can be brought about in such a cluster.
    pub fn of(ground: Ground) -> Vec<Self> {
        Self::ALL.iter().copied().filter(|fault| fault.fits(ground)).collect()
    }

    pub(super) fn fits(self, ground: Ground) -> bool {
        match self {
            Self::Nothing => true,
            // Some that a group has to bear beside its own.
            Self::HomeKilled | Self::RedisMajorityHung | Self::ClientsHangUp => !ground.hosts,
            Self::HomeHostLost | Self::HomePaused | Self::RedisMajorityParted => ground.hosts,
            _ if self.needs_own_hosts() => ground == Ground { hosts: true, group: true },
            _ if self >= Self::PrimaryKilled => ground.group,
            _ => ground == Ground { hosts: self >= Self::HomeHostLost, group: false },
        }
    }

    /// The name in tables and on the command line.
    pub fn name(self) -> &'static str {
        self.into()
    }

    /// The shortest and the longest it lasts, in milliseconds; a killed part comes back when it can.
    pub(super) fn lasts(self) -> RangeInclusive<u64> {
        self.nature().1
    }

    /// How long requests may wait where no deadline can reach them, until nginx gives the replica up.
    pub(super) fn silence(self, lasts: Duration) -> Duration {
        match self {
            // Inside a process that does not run.
            Self::HomeFrozen | Self::HomeFrozenAtAStep | Self::HomePaused | Self::ReplicaPaused => lasts.min(GIVEN_UP),
            // Where no answer comes from, also when the fault has ended: nobody says that they are lost, and what is lost on its way is
            // sent again later and later.
            Self::HomeHostLost | Self::ReplicaHostLost | Self::NginxParted | Self::NginxPartedOneWay => GIVEN_UP,
            _ => Duration::ZERO,
        }
    }

    /// Whether it shows in that several replicas serve a code.
    pub(super) fn spreads_codes(self) -> bool {
        matches!(self, Self::HomeFull | Self::HomesMoved | Self::CodesHidden)
    }

    /// Whether it breaks a member of a group, and takes a host of its own for that.
    pub(super) fn needs_own_hosts(self) -> bool {
        self >= Self::PrimaryHostLost
    }

    /// Whether an administrator is at work meanwhile.
    pub(super) fn is_administered(self) -> bool {
        matches!(self, Self::Administration | Self::AdministrationParted)
    }

    /// Whether strace brings it about.
    pub(super) fn needs_tracer(self) -> bool {
        matches!(self, Self::HomeKilledAtAStep | Self::HomeFrozenAtAStep | Self::DiskSlow | Self::DiskFull)
    }

    pub(super) fn goes_with(self, other: Self) -> bool {
        self.nature().0.iter().all(|part| !other.nature().0.contains(part))
    }

    fn nature(self) -> (&'static [Part], RangeInclusive<u64>) {
        match self {
            Self::Nothing => (&[], 500..=1_000),
            Self::HomeKilled | Self::EveryReplicaKilled | Self::HomeKilledAtAStep => (&[Part::Replicas], 500..=1_000),
            Self::HomeFrozen | Self::HomePaused | Self::HomeHostLost => (&[Part::Replicas], 1_500..=8_000),
            Self::HomeFrozenAtAStep | Self::ReplicaPaused => (&[Part::Replicas], 1_500..=4_500),
            Self::HomeFull => (&[Part::Nginx], 500..=1_000),
            Self::RedisKilled | Self::EveryRedisKilled => (&[Part::Redis], 500..=1_000),
            Self::RedisHung
            | Self::RedisMajorityHung
            | Self::RedisMemoryFull
            | Self::RedisReadOnly
            | Self::RedisScriptsForbidden
            | Self::RedisWritesPaused
            | Self::RedisCutOff
            | Self::RedisHostLost
            | Self::RedisPaused => (&[Part::Redis], 1_000..=3_000),
            Self::LocksVanish => (&[Part::Redis], 1_000..=2_000),
            Self::DatabaseHung | Self::TableLocked | Self::DatabasePaused => (&[Part::Database], 1_000..=3_000),
            Self::ConnectionsKilled | Self::ConnectionsExhausted | Self::DatabaseReadOnly => {
                (&[Part::Database], 1_000..=2_000)
            }
            Self::DatabaseKilled | Self::DiskFull | Self::DatabaseHostLost => (&[Part::Database], 500..=1_000),
            Self::DiskSlow => (&[Part::Database], 1_000..=1_500),
            Self::NginxReloaded => (&[Part::Nginx], 1_000..=1_500),
            // A new replica is listed when it is ready, for which it needs the others.
            Self::HomesMoved => (&[Part::Replicas, Part::Redis, Part::Database, Part::Nginx], 3_000..=6_000),
            Self::CodesHidden | Self::ClientsHangUp => (&[Part::Clients], 500..=1_000),
            // Its calls need a replica and the database; and each user asks in its own way then.
            Self::Administration => (&[Part::Replicas, Part::Database, Part::Clients], 3_000..=6_000),
            Self::ReplicaHostLost => (&[Part::Replicas], 1_000..=3_000),
            Self::DatabaseParted | Self::DatabasePartedOneWay | Self::HomeWithoutNames => {
                (&[Part::Replicas, Part::Database], 1_000..=3_000)
            }
            Self::RedisParted
            | Self::RedisPartedOneWay
            | Self::RedisMajorityParted
            | Self::RedisMajorityPartedOneWay => (&[Part::Replicas, Part::Redis], 1_000..=3_000),
            Self::NginxParted | Self::NginxPartedOneWay => (&[Part::Replicas, Part::Nginx], 1_000..=3_000),
            Self::NginxWithoutNames => (&[Part::Nginx], 1_500..=3_000),
            // The others expel a silent member after five seconds.
            Self::PrimaryFrozen => (&[Part::Database], 6_500..=10_000),
            Self::MajorityFrozen => (&[Part::Database], 1_000..=8_000),
            Self::PrimaryKilled | Self::PrimarySwitched | Self::SecondaryKilled | Self::MajorityKilled => {
                (&[Part::Database], 500..=1_000)
            }
            // It comes back before or after the others have expelled it.
            Self::PrimaryHostLost => (&[Part::Database], 1_000..=10_000),
            // Some end before the others expel who is silent. None lasts until a member that sees no majority gives up its place.
            Self::PrimaryParted | Self::SecondaryParted => (&[Part::Database], 2_000..=14_000),
            Self::PrimaryPartedWithHome => (&[Part::Replicas, Part::Database], 2_000..=14_000),
            Self::AdministrationParted => (&[Part::Replicas, Part::Database, Part::Clients], 2_000..=14_000),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_fault_belongs_to_a_ground_and_those_of_one_server_to_none_of_a_group() {
        let of = |hosts, group| Fault::of(Ground { hosts, group });
        let (processes, hosts, group, members) = (of(false, false), of(true, false), of(false, true), of(true, true));
        let both: Vec<_> = processes.iter().filter(|fault| hosts.contains(fault)).collect();

        assert_eq!(both, [&Fault::Nothing]);
        let grounds = [&processes, &hosts, &group, &members];
        assert!(Fault::ALL.iter().all(|fault| grounds.iter().any(|all| all.contains(fault))));
        assert!(processes.ends_with(&[Fault::Administration]), "{processes:?}");
        assert!(group.ends_with(&[Fault::MajorityKilled]) && !group.contains(&Fault::DatabaseKilled), "{group:?}");
        assert!(
            members.ends_with(&[Fault::SecondaryParted]) && !members.contains(&Fault::DatabaseParted),
            "{members:?}"
        );
        assert!(group.iter().filter(|fault| **fault >= Fault::PrimaryKilled).all(|fault| members.contains(fault)));
    }
}
