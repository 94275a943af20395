//! What a simulation is made of: stock, users and what goes wrong. A plan and its seed decide everything that happens.

use proptest::collection::vec;
use proptest::option::weighted;
use proptest::prelude::*;

/// Everything that is decided before a simulation starts. A part that is left out, or smaller, makes a smaller plan.
#[derive(Clone, Debug, Default)]
pub(super) struct Plan {
    /// Where all delays and jitter come from.
    pub(super) seed: u64,
    pub(super) replicas: usize,
    /// One coupon per user over all codes.
    pub(super) exclusive: bool,
    /// Whether batches go on without the lock.
    pub(super) bypass: bool,
    /// Pieces of each code.
    pub(super) stock: Vec<u32>,
    pub(super) asks: Vec<Ask>,
    /// What happens to the first, second, third ... call to the database; later ones succeed.
    pub(super) calls: Vec<CallFault>,
    /// What happens to the first, second, third ... attempt at a lock; later ones are as they should be.
    pub(super) attempts: Vec<LockFault>,
    pub(super) poison: Option<Poison>,
    /// What an administrator does meanwhile, one after the other.
    pub(super) changes: Vec<Change>,
}

/// A client that wants a coupon and asks until the answer is final.
#[derive(Clone, Debug, Default)]
pub(super) struct Ask {
    pub(super) user: u8,
    /// Any number; the codes take turns.
    pub(super) code: usize,
    /// The `Idempotency-Key`: two asks of one user with one key are a double-click.
    pub(super) key: u8,
    /// Any number; the replicas take turns.
    pub(super) replica: usize,
    pub(super) at_ms: u64,
    /// After how long the first attempt hangs up.
    pub(super) patience_ms: Option<u64>,
    /// Whether nginx stamps its arrival.
    pub(super) stamped: bool,
    /// How often the client asks again, with the same key, when it has a final answer.
    pub(super) again: usize,
}

/// What happens to one call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum CallFault {
    None,
    /// 1213: nothing is written.
    Deadlock,
    /// 1062 that the procedure did not catch: nothing is written.
    Duplicate,
    /// No connection: nothing is sent.
    Unreachable,
    /// The connection breaks; nothing is written, now or later.
    Unsent,
    /// The connection breaks after the commit.
    Unanswered,
    /// The connection breaks at once; the server carries the call out so much later.
    Orphaned {
        later_ms: u64,
    },
    /// The replica hears nothing of the call until it times out; the server carries it out so much later.
    Silent {
        later_ms: u64,
    },
    /// The transaction keeps its row for so long: others wait, and this call may time out.
    Slow {
        ms: u64,
    },
    /// The replica stands still before it sends the call, longer than its lease lives.
    Stalled {
        ms: u64,
    },
    /// The task panics.
    Panic,
}

/// What happens to one attempt at a lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LockFault {
    None,
    /// Fewer nodes than a quorum.
    QuorumGone,
    /// Patience has run out.
    NotGranted,
    /// The nodes have forgotten its holder: it is granted a second time.
    Amnesia,
    /// The answer takes long.
    Slow {
        ms: u64,
    },
    /// It is granted, and whatever the holder asks of the nodes afterwards takes long.
    HungLater {
        ms: u64,
    },
}

/// The database refuses every row of one user for some time.
#[derive(Clone, Copy, Debug)]
pub(super) struct Poison {
    pub(super) user: u8,
    pub(super) until_ms: u64,
}

/// One thing that an administrator does.
#[derive(Clone, Copy, Debug)]
pub(super) struct Change {
    /// After the one before.
    pub(super) after_ms: u64,
    pub(super) kind: ChangeKind,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum ChangeKind {
    /// So many pieces more of the first code.
    TopUp(u32),
    /// The same by hand, by a statement that does not bump the generation.
    ByHand(u32),
    /// So many fewer, as far as they are left.
    Reduce(u32),
    /// The event's window opens or closes.
    Open(bool),
    /// The rule from the next round on.
    Exclusive(bool),
    /// A new round.
    Reset,
}

/// Plans with little stock, few users and many faults: that is where races are.
pub(super) fn plans() -> impl Strategy<Value = Plan> {
    let service = (any::<u64>(), 1..=3_usize, any::<bool>(), any::<bool>(), vec(0..=5_u32, 1..=2));
    let faults = (vec(call(), 0..=10), vec(attempt(), 0..=8), weighted(0.15, poison()));
    let changes = prop_oneof![2 => Just(vec![]), 1 => vec(change(), 1..=4)];
    (service, vec(ask(), 1..=14), faults, changes).prop_map(|(service, asks, faults, changes)| {
        let (seed, replicas, exclusive, bypass, stock) = service;
        let (calls, attempts, poison) = faults;
        Plan { seed, replicas, exclusive, bypass, stock, asks, calls, attempts, poison, changes }
    })
}

fn ask() -> impl Strategy<Value = Ask> {
    let order = (0..8_u8, 0..2_usize, 0..2_u8, 0..3_usize);
    let when = prop_oneof![4 => 0..8_u64, 1 => 8..4_000_u64];
    let patience = weighted(0.2, prop_oneof![0..20_u64, 20..3_000_u64]);
    let again = prop_oneof![2 => Just(0), 1 => 1..12_usize];
    (order, when, patience, any::<bool>(), again).prop_map(
        |((user, code, key, replica), at_ms, patience_ms, stamped, again)| Ask {
            user,
            code,
            key,
            replica,
            at_ms,
            patience_ms,
            stamped,
            again,
        },
    )
}

fn call() -> impl Strategy<Value = CallFault> {
    let later = || prop_oneof![0..20_u64, 20..3_500_u64];
    prop_oneof![
        6 => Just(CallFault::None),
        1 => Just(CallFault::Deadlock),
        1 => Just(CallFault::Duplicate),
        1 => Just(CallFault::Unreachable),
        1 => Just(CallFault::Unsent),
        2 => Just(CallFault::Unanswered),
        3 => later().prop_map(|later_ms| CallFault::Orphaned { later_ms }),
        1 => later().prop_map(|later_ms| CallFault::Silent { later_ms }),
        1 => (1..2_600_u64).prop_map(|ms| CallFault::Slow { ms }),
        1 => (1_000..2_500_u64).prop_map(|ms| CallFault::Stalled { ms }),
        1 => Just(CallFault::Panic),
    ]
}

fn attempt() -> impl Strategy<Value = LockFault> {
    prop_oneof![
        4 => Just(LockFault::None),
        1 => Just(LockFault::QuorumGone),
        1 => Just(LockFault::NotGranted),
        2 => Just(LockFault::Amnesia),
        1 => (1..700_u64).prop_map(|ms| LockFault::Slow { ms }),
        1 => (1..700_u64).prop_map(|ms| LockFault::HungLater { ms }),
    ]
}

fn poison() -> impl Strategy<Value = Poison> {
    (0..8_u8, 0..3_000_u64).prop_map(|(user, until_ms)| Poison { user, until_ms })
}

fn change() -> impl Strategy<Value = Change> {
    let pieces = || 1..4_u32;
    let kind = prop_oneof![
        2 => pieces().prop_map(ChangeKind::TopUp),
        1 => pieces().prop_map(ChangeKind::ByHand),
        1 => pieces().prop_map(ChangeKind::Reduce),
        2 => any::<bool>().prop_map(ChangeKind::Open),
        1 => any::<bool>().prop_map(ChangeKind::Exclusive),
        3 => Just(ChangeKind::Reset),
    ];
    (0..2_000_u64, kind).prop_map(|(after_ms, kind)| Change { after_ms, kind })
}
