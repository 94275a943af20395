//! Everything a replica tells about itself. Names, units and labels are a contract: `docs/METRICS.md` lists them.
//!
//! A struct per area; callers see methods with meaning, never a label. Every label value exists from the start at zero.

use std::collections::BTreeSet;
use std::sync::{Arc, RwLock};
use std::time::{Duration, Instant};

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::{Family, MetricConstructor};
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Registry, Unit};

use crate::coupons::{Code, Outcome};

/// Most codes that get a label of their own; the rest share `other`.
const CODES_MAX: usize = 32;

/// Seconds: from 0.25 ms to 32 s, each bucket 1.5 times the one before.
fn seconds() -> Histogram {
    Histogram::new(exponential_buckets(0.000_25, 1.5, 30))
}

/// Makes histograms of seconds for a family.
#[derive(Clone)]
struct Seconds;

impl MetricConstructor<Histogram> for Seconds {
    fn new_metric(&self) -> Histogram {
        seconds()
    }
}

/// All metrics of one replica.
pub struct Metrics {
    registry: Registry,
    /// Requests.
    pub http: HttpMetrics,
    /// Issues.
    pub issue: IssueMetrics,
    /// The lock.
    pub lock: LockMetrics,
}

impl Metrics {
    /// Registers everything.
    pub fn new(strategy: &'static str, redis_nodes: usize) -> Self {
        let mut registry = Registry::default();
        let http = HttpMetrics::register(&mut registry);
        let coupon = registry.sub_registry_with_prefix("coupon");
        let build = Info::new([("version", env!("CARGO_PKG_VERSION")), ("strategy", strategy)]);
        coupon.register("build", "What is running", build);
        let issue = IssueMetrics::register(coupon);
        let lock = LockMetrics::register(coupon, redis_nodes);
        Self { registry, http, issue, lock }
    }

    /// The text that Prometheus scrapes, in the `OpenMetrics` format.
    pub fn encode(&self) -> String {
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &self.registry).expect("a String takes any text");
        text
    }
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct RequestLabels {
    method: &'static str,
    route: &'static str,
    status: u16,
}

/// Requests of the public listener.
#[derive(Clone)]
pub struct HttpMetrics {
    duration: Family<RequestLabels, Histogram, Seconds>,
    in_flight: Gauge,
}

impl HttpMetrics {
    fn register(registry: &mut Registry) -> Self {
        let duration = Family::new_with_constructor(Seconds);
        registry.register_with_unit(
            "http_request_duration",
            "Time from the request's head to the answer's",
            Unit::Seconds,
            duration.clone(),
        );
        let in_flight = Gauge::default();
        registry.register("coupon_in_flight", "Requests being answered now", in_flight.clone());
        Self { duration, in_flight }
    }

    /// Makes the series of a route exist.
    pub fn expect(&self, method: &'static str, route: &'static str, statuses: &[u16]) {
        for &status in statuses {
            let _ = self.duration.get_or_create(&RequestLabels { method, route, status });
        }
    }

    /// Counts a request as being answered until the guard goes.
    pub fn begin(&self) -> InFlight {
        self.in_flight.inc();
        InFlight(self.in_flight.clone())
    }

    /// Records an answer.
    pub fn answered(&self, method: &'static str, route: &'static str, status: u16, duration: Duration) {
        let labels = RequestLabels { method, route, status };
        self.duration.get_or_create(&labels).observe(duration.as_secs_f64());
    }
}

/// A request being answered.
pub struct InFlight(Gauge);

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.dec();
    }
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct IssueLabels {
    code: String,
    outcome: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct CodeLabel {
    code: String,
}

/// Why the same batch was run again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rerun {
    /// A user took a coupon of another code meanwhile.
    Duplicate,
    /// Rows were locked or a deadlock was broken.
    Contended,
    /// It is not known whether it was carried out.
    Unknown,
}

impl Rerun {
    const ALL: [Self; 3] = [Self::Duplicate, Self::Contended, Self::Unknown];

    fn label(self) -> &'static str {
        match self {
            Self::Duplicate => "duplicate",
            Self::Contended => "contended",
            Self::Unknown => "unknown",
        }
    }
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct RerunLabels {
    reason: &'static str,
}

/// What asking for coupons came to.
#[derive(Clone)]
pub struct IssueMetrics {
    outcomes: Family<IssueLabels, Counter>,
    codes: Arc<RwLock<BTreeSet<Code>>>,
    remaining: Family<CodeLabel, Gauge>,
    batch_size: Histogram,
    reruns: Family<RerunLabels, Counter>,
    queue_depth: Gauge,
    shed: Counter,
    unknown_outcomes: Counter,
    transaction: Histogram,
    pool_wait: Histogram,
    generation_age: Gauge<f64, std::sync::atomic::AtomicU64>,
}

/// All values of the label `outcome`: the outcomes, and the two kinds of "not now".
const OUTCOMES: [&str; 8] =
    ["issued", "replayed", "already-issued", "sold-out", "not-open", "unknown-coupon", "busy", "unavailable"];

/// The label value of an outcome.
pub fn outcome_label(outcome: &Outcome) -> &'static str {
    match outcome {
        Outcome::Issued(_) => "issued",
        Outcome::Replayed(_) => "replayed",
        Outcome::AlreadyIssued(_) => "already-issued",
        Outcome::SoldOut => "sold-out",
        Outcome::NotOpen(_) => "not-open",
        Outcome::UnknownCoupon => "unknown-coupon",
    }
}

impl IssueMetrics {
    fn register(coupon: &mut Registry) -> Self {
        let it = Self {
            outcomes: Family::default(),
            codes: Arc::default(),
            remaining: Family::default(),
            batch_size: Histogram::new(exponential_buckets(1.0, 2.0, 13)),
            reruns: Family::default(),
            queue_depth: Gauge::default(),
            shed: Counter::default(),
            unknown_outcomes: Counter::default(),
            transaction: seconds(),
            pool_wait: seconds(),
            generation_age: Gauge::default(),
        };
        coupon.register("issue", "Orders by what became of them", it.outcomes.clone());
        coupon.register("remaining", "Pieces left, as last read", it.remaining.clone());
        coupon.register("batch_size", "Orders settled by one lock and one transaction", it.batch_size.clone());
        coupon.register("batch_reruns", "Batches run again", it.reruns.clone());
        coupon.register("queue_depth", "Orders waiting now", it.queue_depth.clone());
        coupon.register("shed", "Orders refused because a queue was full", it.shed.clone());
        coupon.register(
            "unknown_outcomes",
            "Database calls of which it is not known whether they were carried out",
            it.unknown_outcomes.clone(),
        );
        coupon.register_with_unit(
            "transaction",
            "Time of an issuing transaction or call",
            Unit::Seconds,
            it.transaction.clone(),
        );
        coupon.register_with_unit(
            "db_pool_wait",
            "Wait of an order for a database connection",
            Unit::Seconds,
            it.pool_wait.clone(),
        );
        coupon.register_with_unit(
            "generation_age",
            "Age of what the replica remembers",
            Unit::Seconds,
            it.generation_age.clone(),
        );
        for reason in Rerun::ALL {
            let _ = it.reruns.get_or_create(&RerunLabels { reason: reason.label() });
        }
        it.expect(OTHER);
        it
    }

    fn expect(&self, code: &str) {
        for outcome in OUTCOMES {
            let _ = self.outcomes.get_or_create(&IssueLabels { code: code.to_owned(), outcome });
        }
    }

    /// Records what is left of a coupon that exists; from now on its code is a label, if there is room.
    pub fn remaining(&self, code: &Code, remaining: u32) {
        if !self.has_label(code) {
            let mut codes = self.codes.write().expect("nothing panics while it holds this lock");
            if codes.len() >= CODES_MAX {
                return;
            }
            codes.insert(code.clone());
            self.expect(code.as_str());
        }
        self.remaining.get_or_create(&CodeLabel { code: code.to_string() }).set(i64::from(remaining));
    }

    fn has_label(&self, code: &Code) -> bool {
        self.codes.read().expect("nothing panics while it holds this lock").contains(code)
    }

    /// Counts the answer to an order; `outcome` is one of the eight label values.
    pub fn finished(&self, code: &Code, outcome: &'static str) {
        let code = if self.has_label(code) { code.as_str() } else { OTHER };
        self.outcomes.get_or_create(&IssueLabels { code: code.to_owned(), outcome }).inc();
    }

    /// Records a batch that is about to be settled.
    #[expect(clippy::cast_precision_loss, reason = "a batch has a few thousand orders at most")]
    pub fn batch(&self, size: usize) {
        self.batch_size.observe(size as f64);
    }

    /// Counts a batch that is run again.
    pub fn rerun(&self, reason: Rerun) {
        self.reruns.get_or_create(&RerunLabels { reason: reason.label() }).inc();
    }

    /// Adjusts the number of waiting orders.
    pub fn queued(&self, change: i64) {
        self.queue_depth.inc_by(change);
    }

    /// Counts an order refused for a full queue.
    pub fn shed(&self) {
        self.shed.inc();
    }

    /// Counts a call whose outcome is unknown.
    pub fn unknown_outcome(&self) {
        self.unknown_outcomes.inc();
    }

    /// Records how long a transaction took.
    pub fn transaction(&self, started: Instant) {
        self.transaction.observe(started.elapsed().as_secs_f64());
    }

    /// Records how long an order waited for a connection.
    pub fn pool_wait(&self, started: Instant) {
        self.pool_wait.observe(started.elapsed().as_secs_f64());
    }

    /// Records how old the memory is.
    pub fn generation_age(&self, age: Duration) {
        self.generation_age.set(age.as_secs_f64());
    }
}

/// The label value of codes without a label of their own.
const OTHER: &str = "other";

/// What one attempt at the lock came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attempt {
    /// It is ours.
    Granted,
    /// Somebody else holds it.
    Contended,
    /// No quorum.
    Unavailable,
}

impl Attempt {
    const ALL: [Self; 3] = [Self::Granted, Self::Contended, Self::Unavailable];

    fn label(self) -> &'static str {
        match self {
            Self::Granted => "granted",
            Self::Contended => "contended",
            Self::Unavailable => "unavailable",
        }
    }
}

/// How a wait for the exclusive right ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wait {
    /// It is ours.
    Granted,
    /// The caller left before, or the deadline passed.
    Expired,
}

impl Wait {
    const ALL: [Self; 2] = [Self::Granted, Self::Expired];

    fn label(self) -> &'static str {
        match self {
            Self::Granted => "granted",
            Self::Expired => "expired",
        }
    }
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
    bypassed: Counter,
    node_up: Family<NodeLabels, Gauge>,
}

impl LockMetrics {
    fn register(coupon: &mut Registry, redis_nodes: usize) -> Self {
        let it = Self {
            wait: Family::new_with_constructor(Seconds),
            acquire: seconds(),
            attempts: Family::default(),
            hold: seconds(),
            lost: Counter::default(),
            bypassed: Counter::default(),
            node_up: Family::default(),
        };
        let node_up = it.node_up.clone();
        coupon.register("redis_node_up", "Whether a lock node is used: 1, or 0 while it is replaced", node_up);
        let lock = coupon.sub_registry_with_prefix("lock");
        lock.register_with_unit(
            "wait",
            "Time of a request from its handler to the exclusive right",
            Unit::Seconds,
            it.wait.clone(),
        );
        lock.register_with_unit(
            "acquire",
            "Time from the first attempt to the grant",
            Unit::Seconds,
            it.acquire.clone(),
        );
        lock.register("attempts", "Attempts at the lock", it.attempts.clone());
        lock.register_with_unit("hold", "Time from grant to release", Unit::Seconds, it.hold.clone());
        lock.register("lost", "Leases that ended before the work under them", it.lost.clone());
        lock.register("bypassed", "Batches settled without the lock because its quorum was gone", it.bypassed.clone());
        for result in Wait::ALL {
            let _ = it.wait.get_or_create(&ResultLabels { result: result.label() });
        }
        for result in Attempt::ALL {
            let _ = it.attempts.get_or_create(&ResultLabels { result: result.label() });
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
    pub fn bypassed(&self) {
        self.bypassed.inc();
    }

    pub(crate) fn node_up(&self, place: usize, up: bool) {
        self.node_up.get_or_create(&NodeLabels { node: (place + 1).to_string() }).set(i64::from(up));
    }
}
