//! What can break. How it is broken is in `strike`.

use std::fmt::{self, Display, Formatter};
use std::str::FromStr;
use std::time::Duration;

/// A kind of fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Fault {
    /// The control: all is well.
    Nothing,
    /// A replica is killed; the supervisor starts another.
    ReplicaKilled,
    /// All replicas are killed at once.
    EveryReplicaKilled,
    /// A replica stops for one to three times as long as its lock lives, and goes on as if nothing had been.
    ReplicaFrozen,
    /// A replica is killed by the kernel while it sends its n-th packet: to Redis, to the database, or to a client.
    ReplicaKilledAtAStep,
    /// A replica stops while it sends its n-th packet.
    ReplicaFrozenAtAStep,
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
    /// A replica comes and goes.
    ReplicasScaled,
    /// Eight of ten users hang up their first request within 30 ms.
    ClientsHangUp,
    /// An administrator resets, tops up, reduces, closes and opens, and changes the rule, while everybody asks and asks again.
    Administration,
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
    pub const ALL: [Self; 28] = [
        Self::Nothing,
        Self::ReplicaKilled,
        Self::EveryReplicaKilled,
        Self::ReplicaFrozen,
        Self::ReplicaKilledAtAStep,
        Self::ReplicaFrozenAtAStep,
        Self::RedisHung,
        Self::RedisKilled,
        Self::RedisMajorityHung,
        Self::EveryRedisKilled,
        Self::RedisMemoryFull,
        Self::RedisReadOnly,
        Self::RedisScriptsForbidden,
        Self::RedisWritesPaused,
        Self::RedisCutOff,
        Self::LocksVanish,
        Self::ConnectionsKilled,
        Self::DatabaseHung,
        Self::DatabaseKilled,
        Self::ConnectionsExhausted,
        Self::DatabaseReadOnly,
        Self::TableLocked,
        Self::DiskSlow,
        Self::DiskFull,
        Self::NginxReloaded,
        Self::ReplicasScaled,
        Self::ClientsHangUp,
        Self::Administration,
    ];

    /// The name in tables and on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Nothing => "nothing",
            Self::ReplicaKilled => "replica-killed",
            Self::EveryReplicaKilled => "every-replica-killed",
            Self::ReplicaFrozen => "replica-frozen",
            Self::ReplicaKilledAtAStep => "replica-killed-at-a-step",
            Self::ReplicaFrozenAtAStep => "replica-frozen-at-a-step",
            Self::RedisHung => "redis-hung",
            Self::RedisKilled => "redis-killed",
            Self::RedisMajorityHung => "redis-majority-hung",
            Self::EveryRedisKilled => "every-redis-killed",
            Self::RedisMemoryFull => "redis-memory-full",
            Self::RedisReadOnly => "redis-read-only",
            Self::RedisScriptsForbidden => "redis-scripts-forbidden",
            Self::RedisWritesPaused => "redis-writes-paused",
            Self::RedisCutOff => "redis-cut-off",
            Self::LocksVanish => "locks-vanish",
            Self::ConnectionsKilled => "connections-killed",
            Self::DatabaseHung => "database-hung",
            Self::DatabaseKilled => "database-killed",
            Self::ConnectionsExhausted => "connections-exhausted",
            Self::DatabaseReadOnly => "database-read-only",
            Self::TableLocked => "table-locked",
            Self::DiskSlow => "disk-slow",
            Self::DiskFull => "disk-full",
            Self::NginxReloaded => "nginx-reloaded",
            Self::ReplicasScaled => "replicas-scaled",
            Self::ClientsHangUp => "clients-hang-up",
            Self::Administration => "administration",
        }
    }

    /// The shortest and the longest it lasts; a killed part comes back when it can.
    pub(super) fn lasts(self) -> (Duration, Duration) {
        let (shortest, longest) = match self {
            Self::ReplicaFrozen | Self::ReplicaFrozenAtAStep => (1_500, 4_500),
            Self::Administration => (3_000, 6_000),
            Self::RedisHung
            | Self::RedisMajorityHung
            | Self::RedisMemoryFull
            | Self::RedisReadOnly
            | Self::RedisScriptsForbidden
            | Self::RedisWritesPaused
            | Self::RedisCutOff
            | Self::DatabaseHung
            | Self::TableLocked => (1_000, 3_000),
            Self::LocksVanish | Self::ConnectionsKilled | Self::ConnectionsExhausted | Self::DatabaseReadOnly => {
                (1_000, 2_000)
            }
            Self::NginxReloaded | Self::DiskSlow => (1_000, 1_500),
            _ => (500, 1_000),
        };
        (Duration::from_millis(shortest), Duration::from_millis(longest))
    }

    /// Whether requests may wait inside a process that does not run, where no deadline can reach them.
    pub(super) fn freezes_replicas(self) -> bool {
        matches!(self, Self::ReplicaFrozen | Self::ReplicaFrozenAtAStep)
    }

    /// Whether strace brings it about.
    pub(super) fn needs_tracer(self) -> bool {
        matches!(self, Self::ReplicaKilledAtAStep | Self::ReplicaFrozenAtAStep | Self::DiskSlow | Self::DiskFull)
    }

    pub(super) fn goes_with(self, other: Self) -> bool {
        self.parts().iter().all(|part| !other.parts().contains(part))
    }

    fn parts(self) -> &'static [Part] {
        match self {
            Self::Nothing => &[],
            Self::ReplicaKilled
            | Self::EveryReplicaKilled
            | Self::ReplicaFrozen
            | Self::ReplicaKilledAtAStep
            | Self::ReplicaFrozenAtAStep => &[Part::Replicas],
            Self::RedisHung
            | Self::RedisKilled
            | Self::RedisMajorityHung
            | Self::EveryRedisKilled
            | Self::RedisMemoryFull
            | Self::RedisReadOnly
            | Self::RedisScriptsForbidden
            | Self::RedisWritesPaused
            | Self::RedisCutOff
            | Self::LocksVanish => &[Part::Redis],
            Self::ConnectionsKilled
            | Self::DatabaseHung
            | Self::DatabaseKilled
            | Self::ConnectionsExhausted
            | Self::DatabaseReadOnly
            | Self::TableLocked
            | Self::DiskSlow
            | Self::DiskFull => &[Part::Database],
            Self::NginxReloaded => &[Part::Nginx],
            // A new replica is listed when it is ready, for which it needs the others.
            Self::ReplicasScaled => &[Part::Replicas, Part::Redis, Part::Database, Part::Nginx],
            Self::ClientsHangUp => &[Part::Clients],
            // Its calls need a replica and the database; and each user asks in a way of his own then.
            Self::Administration => &[Part::Replicas, Part::Database, Part::Clients],
        }
    }
}

impl Display for Fault {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}

impl FromStr for Fault {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let names = || Self::ALL.map(Self::name).join(", ");
        Self::ALL.into_iter().find(|fault| fault.name() == text).ok_or_else(|| format!("there are {}", names()))
    }
}
