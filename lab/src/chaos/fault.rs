//! What can break. How it is broken is in `strike`, and where every part is a host of its own in `hosts`.

use std::ops::RangeInclusive;
use std::time::Duration;

use clap::ValueEnum;
use strum::{Display, IntoStaticStr, VariantArray};

/// How long nginx waits for a silent replica: a second longer than an order's deadline.
const GIVEN_UP: Duration = Duration::from_secs(6);

/// Makes an enum of a table with a row for each fault: what it is, where it can be brought about, what it takes hold of, and the shortest and
/// the longest it lasts, in milliseconds; a killed part comes back when it can. The order of the rows is part of what a seed draws.
macro_rules! faults {
    ($($(#[$what:meta])+ $name:ident: $place:ident, [$($part:ident),*], $lasts:expr;)+) => {
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, ValueEnum, Display, IntoStaticStr, VariantArray)]
        #[strum(serialize_all = "kebab-case")]
        pub enum Fault {
            $($(#[$what])+ $name,)+
        }

        const NATURES: &[Nature] = &[$(($place, &[$(Part::$part),*], $lasts)),+];
    };
}

faults! {
    /// The control: all is well.
    Nothing: ANYWHERE, [], 500..=1_000;
    /// The home of a code is killed while a crowd asks for it; the supervisor starts it again.
    HomeKilled: ANY_PROCESSES, [Replicas], 500..=1_000;
    /// All replicas are killed at once.
    EveryReplicaKilled: PROCESSES, [Replicas], 500..=1_000;
    /// The home of a code stops while a crowd asks for it, and goes on as if nothing had been: after its lock's life, or after nginx
    /// has given it up.
    HomeFrozen: PROCESSES, [Replicas], 1_500..=8_000;
    /// The home of a code is killed by the kernel while it sends its n-th packet: to Redis, to the database, or to a client.
    HomeKilledAtAStep: PROCESSES, [Replicas], 500..=1_000;
    /// The home of a code stops while it sends its n-th packet.
    HomeFrozenAtAStep: PROCESSES, [Replicas], 1_500..=4_500;
    /// A home takes so few orders at a time that a crowd needs several replicas, and then more than there are.
    HomeFull: PROCESSES, [Nginx], 500..=1_000;
    /// A replica comes and goes, or goes and comes, and codes change their homes with it.
    // A new replica is listed when it is ready, for which it needs the others.
    HomesMoved: PROCESSES, [Replicas, Redis, Database, Nginx], 3_000..=6_000;
    /// One user in three writes the code so that nginx cannot read it, and meets any replica.
    CodesHidden: PROCESSES, [Clients], 500..=1_000;
    /// One lock node hangs.
    RedisHung: PROCESSES, [Redis], 1_000..=3_000;
    /// One lock node is killed and comes back empty.
    RedisKilled: PROCESSES, [Redis], 500..=1_000;
    /// Two of three lock nodes hang: no quorum.
    RedisMajorityHung: ANY_PROCESSES, [Redis], 1_000..=3_000;
    /// All lock nodes are killed and come back empty.
    EveryRedisKilled: PROCESSES, [Redis], 500..=1_000;
    /// Most or all lock nodes have no memory left: they answer, and take no key.
    RedisMemoryFull: PROCESSES, [Redis], 1_000..=3_000;
    /// Most or all lock nodes follow another server: they answer, and take no writes.
    RedisReadOnly: PROCESSES, [Redis], 1_000..=3_000;
    /// Most or all lock nodes run no scripts: what was locked is not given back.
    RedisScriptsForbidden: PROCESSES, [Redis], 1_000..=3_000;
    /// Most or all lock nodes keep writes waiting, and answer everything else.
    RedisWritesPaused: PROCESSES, [Redis], 1_000..=3_000;
    /// One replica loses its way to one lock node or to most of them; the others reach all.
    RedisCutOff: PROCESSES, [Redis], 1_000..=3_000;
    /// Held locks vanish from all nodes again and again, as if their clocks had jumped: several holders at once.
    LocksVanish: PROCESSES, [Redis], 1_000..=2_000;
    /// The database kills a connection of the service every 30 ms.
    ConnectionsKilled: PROCESSES, [Database], 1_000..=2_000;
    /// The database hangs with its connections open: nobody is told.
    DatabaseHung: PROCESSES, [Database], 1_000..=3_000;
    /// The database is killed and recovers.
    DatabaseKilled: PROCESSES, [Database], 500..=1_000;
    /// The database takes no more connections, and the open ones are closed.
    ConnectionsExhausted: PROCESSES, [Database], 1_000..=2_000;
    /// The database takes no writes, as one that was demoted in a failover.
    DatabaseReadOnly: PROCESSES, [Database], 1_000..=2_000;
    /// Somebody locks the table of the coupons, as a migration does that waits behind a long transaction.
    TableLocked: PROCESSES, [Database], 1_000..=3_000;
    /// Every write to the disk takes 100 ms longer.
    DiskSlow: PROCESSES, [Database], 1_000..=1_500;
    /// Every write of the database to a file fails: there is no room.
    DiskFull: PROCESSES, [Database], 500..=1_000;
    /// nginx reloads its configuration again and again.
    NginxReloaded: PROCESSES, [Nginx], 1_000..=1_500;
    /// Eight of ten users hang up their first request within 30 ms.
    ClientsHangUp: ANY_PROCESSES, [Clients], 500..=1_000;
    /// An administrator resets, tops up, reduces, closes and opens, and changes the rule, while everybody asks and asks again.
    // Its calls need a replica and the database; and each user asks in its own way then.
    Administration: PROCESSES, [Replicas, Database, Clients], 3_000..=6_000;
    /// The host of a code's home is lost without a farewell: nothing reaches it or leaves it, then its processes are dead. It comes back.
    HomeHostLost: ANY_HOSTS, [Replicas], 1_500..=8_000;
    /// The host of any replica is lost without a farewell.
    ReplicaHostLost: HOSTS, [Replicas], 1_000..=3_000;
    /// The host of a lock node is lost without a farewell, and comes back empty.
    RedisHostLost: HOSTS, [Redis], 1_000..=3_000;
    /// The host of the database is lost without a farewell, and comes back with its data.
    DatabaseHostLost: HOSTS, [Database], 500..=1_000;
    /// The host of a code's home stands still, and goes on.
    HomePaused: ANY_HOSTS, [Replicas], 1_500..=8_000;
    /// The host of any replica stands still, and goes on.
    ReplicaPaused: HOSTS, [Replicas], 1_500..=4_500;
    /// The host of a lock node stands still, and goes on.
    RedisPaused: HOSTS, [Redis], 1_000..=3_000;
    /// The host of the database stands still, and goes on.
    DatabasePaused: HOSTS, [Database], 1_000..=3_000;
    /// A code's home and the database do not reach each other.
    DatabaseParted: HOSTS, [Replicas, Database], 1_000..=3_000;
    /// A code's home does not reach the database, or does not hear it.
    DatabasePartedOneWay: HOSTS, [Replicas, Database], 1_000..=3_000;
    /// A code's home and one lock node do not reach each other.
    RedisParted: HOSTS, [Replicas, Redis], 1_000..=3_000;
    /// A code's home does not reach one lock node, or does not hear it.
    RedisPartedOneWay: HOSTS, [Replicas, Redis], 1_000..=3_000;
    /// A code's home and two of three lock nodes do not reach each other.
    RedisMajorityParted: ANY_HOSTS, [Replicas, Redis], 1_000..=3_000;
    /// A code's home does not reach two of three lock nodes, or does not hear them.
    RedisMajorityPartedOneWay: HOSTS, [Replicas, Redis], 1_000..=3_000;
    /// nginx and a code's home do not reach each other.
    NginxParted: HOSTS, [Replicas, Nginx], 1_000..=3_000;
    /// A code's home does not hear nginx, or does not reach it.
    NginxPartedOneWay: HOSTS, [Replicas, Nginx], 1_000..=3_000;
    /// A code's home finds no address for any name, and its connections to the database are closed, so that it needs one.
    HomeWithoutNames: HOSTS, [Replicas, Database], 1_000..=3_000;
    /// nginx is not told the replicas' addresses.
    NginxWithoutNames: HOSTS, [Nginx], 1_500..=3_000;
    /// The primary is killed; another member takes its place, and it joins again.
    PrimaryKilled: GROUP, [Database], 500..=1_000;
    /// The primary stops until the others have expelled it, wakes, and takes itself for the primary still.
    // The others expel a silent member after five seconds.
    PrimaryFrozen: GROUP, [Database], 6_500..=10_000;
    /// Another member becomes the primary because an administrator says so.
    PrimarySwitched: GROUP, [Database], 500..=1_000;
    /// A member that is not the primary is killed, and joins again.
    SecondaryKilled: GROUP, [Database], 500..=1_000;
    /// All members but the primary stop: it answers, and is no part of a majority.
    MajorityFrozen: GROUP, [Database], 1_000..=8_000;
    /// All members but the primary are killed at once. The group is started anew.
    MajorityKilled: GROUP, [Database], 500..=1_000;
    /// The host of the primary is lost without a farewell, and comes back with its data.
    // It comes back before or after the others have expelled it.
    PrimaryHostLost: MEMBERS, [Database], 1_000..=10_000;
    /// The primary and the other members do not reach each other; every replica reaches all of them.
    // Some end before the others expel who is silent. None lasts until a member that sees no majority gives up its place.
    PrimaryParted: MEMBERS, [Database], 2_000..=14_000;
    /// The primary and a code's home reach each other, and neither reaches another member or replica.
    PrimaryPartedWithHome: MEMBERS, [Replicas, Database], 2_000..=14_000;
    /// The same, while an administrator is at work at a replica that reaches the others.
    AdministrationParted: MEMBERS, [Replicas, Database, Clients], 2_000..=14_000;
    /// A member that is not the primary and the others do not reach each other.
    SecondaryParted: MEMBERS, [Database], 2_000..=14_000;
}

/// What a row says of a fault.
type Nature = (Place, &'static [Part], RangeInclusive<u64>);

/// What a cluster consists of, and so what can break.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ground {
    /// Each part is a host of its own.
    pub hosts: bool,
    /// The database is a group of several members.
    pub group: bool,
}

/// Where a fault can be brought about. A group has to bear some others beside its own.
type Place = fn(Ground) -> bool;
const ANYWHERE: Place = |_| true;
const PROCESSES: Place = |it| !it.hosts && !it.group;
const ANY_PROCESSES: Place = |it| !it.hosts;
const HOSTS: Place = |it| it.hosts && !it.group;
const ANY_HOSTS: Place = |it| it.hosts;
const GROUP: Place = |it| it.group;
const MEMBERS: Place = |it| it.group && it.hosts;

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
        (self.nature().0)(ground)
    }

    /// The name in tables and on the command line.
    pub fn name(self) -> &'static str {
        self.into()
    }

    /// The shortest and the longest it lasts, in milliseconds.
    pub(super) fn lasts(self) -> RangeInclusive<u64> {
        self.nature().2.clone()
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

    /// Whether it breaks a member of a group, which a single server is not.
    pub(super) fn is_of_a_group(self) -> bool {
        [false, true].into_iter().all(|hosts| !self.fits(Ground { hosts, group: false }))
    }

    /// Whether the member must be a host of its own for that.
    pub(super) fn needs_own_hosts(self) -> bool {
        self.is_of_a_group() && !self.fits(Ground { hosts: false, group: true })
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
        self.nature().1.iter().all(|part| !other.nature().1.contains(part))
    }

    fn nature(self) -> &'static Nature {
        &NATURES[self as usize]
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
        assert!(group.iter().filter(|fault| fault.is_of_a_group()).all(|fault| members.contains(fault)));
    }
}
