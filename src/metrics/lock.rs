//! The lock, and the wait for the exclusive right.

use std::time::Instant;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use super::{Seconds, in_seconds, registered, seconds};

label_values! {
    /// What one attempt at the lock came to.
    Attempt {
        /// The replica got it.
        Granted => "granted",
        /// The replica did not get it: mostly it is held already.
        Contended => "contended",
        /// No quorum.
        Unavailable => "unavailable",
    }
}

label_values! {
    /// How an order's wait for the exclusive right ended.
    Wait {
        /// The order got it.
        Granted => "granted",
        /// The caller left before, or the deadline passed.
        Expired => "expired",
    }
}

label_values! {
    /// Why a batch was settled without the lock.
    Bypass {
        /// Fewer nodes than a majority can be used.
        NoQuorum => "no-quorum",
        /// They can, and yet the lock was not granted in time.
        NoGrant => "no-grant",
    }
}

/// The usual refusals, which are counted from zero on: a server may have other words, too.
const REFUSALS: [&str; 9] =
    ["silent", "unreachable", "oom", "readonly", "noperm", "noauth", "misconf", "noreplicas", "loading"];

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct ReasonLabels {
    reason: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct KindLabels {
    kind: String,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct ResultLabels {
    result: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct NodeLabels {
    node: String,
}

/// The lock, and the wait for the exclusive right in strategies without one.
#[derive(Clone)]
pub struct LockMetrics {
    wait: Family<ResultLabels, Histogram, Seconds>,
    acquire: Histogram,
    attempts: Family<ResultLabels, Counter>,
    hold: Histogram,
    lost: Counter,
    bypassed: Family<ReasonLabels, Counter>,
    refusals: Family<KindLabels, Counter>,
    node_up: Family<NodeLabels, Gauge>,
}

impl LockMetrics {
    pub(super) fn register(coupon: &mut Registry, redis_nodes: usize) -> Self {
        let help = "Whether a lock node is used: 1, or 0 while it is replaced";
        let node_up = registered(coupon, "redis_node_up", help, Family::default());
        let help = "Looks at a lock node that did not do what the lock needs";
        let refusals = registered(coupon, "redis_refusals", help, Family::default());
        let (lock, waits) = (coupon.sub_registry_with_prefix("lock"), Family::new_with_constructor(Seconds));
        let it = Self {
            wait: in_seconds(lock, "wait", "Time of a request from its handler to the exclusive right", waits),
            acquire: in_seconds(lock, "acquire", "Time from wanting the lock to its grant", seconds()),
            attempts: registered(lock, "attempts", "Attempts at the lock", Family::default()),
            hold: in_seconds(lock, "hold", "Time from grant to release", seconds()),
            lost: registered(lock, "lost", "Leases that ended before the work under them", Counter::default()),
            bypassed: registered(lock, "bypassed", "Batches settled without the lock", Family::default()),
            refusals,
            node_up,
        };
        for result in Wait::ALL {
            let _ = it.wait.get_or_create(&ResultLabels { result: result.label() });
        }
        for result in Attempt::ALL {
            let _ = it.attempts.get_or_create(&ResultLabels { result: result.label() });
        }
        for reason in Bypass::ALL {
            let _ = it.bypassed.get_or_create(&ReasonLabels { reason: reason.label() });
        }
        for kind in REFUSALS {
            let _ = it.refusals.get_or_create(&KindLabels { kind: kind.to_owned() });
        }
        for place in 0..redis_nodes {
            it.node_up(place, true);
        }
        it
    }

    /// Records how long a request waited for the exclusive right.
    pub fn waited(&self, result: Wait, entered: Instant) {
        self.wait.get_or_create(&ResultLabels { result: result.label() }).observe(entered.elapsed().as_secs_f64());
    }

    pub(crate) fn attempted(&self, result: Attempt) {
        self.attempts.get_or_create(&ResultLabels { result: result.label() }).inc();
    }

    pub(crate) fn acquired(&self, started: Instant) {
        self.acquire.observe(started.elapsed().as_secs_f64());
    }

    pub(crate) fn held(&self, granted: Instant, lost: bool) {
        self.hold.observe(granted.elapsed().as_secs_f64());
        if lost {
            self.lost.inc();
        }
    }

    /// Counts a batch settled without the lock.
    pub fn bypassed(&self, reason: Bypass) {
        self.bypassed.get_or_create(&ReasonLabels { reason: reason.label() }).inc();
    }

    pub(crate) fn refused(&self, kind: String) {
        self.refusals.get_or_create(&KindLabels { kind }).inc();
    }

    pub(crate) fn node_up(&self, place: usize, up: bool) {
        self.node_up.get_or_create(&NodeLabels { node: (place + 1).to_string() }).set(i64::from(up));
    }
}
