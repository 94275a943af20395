//! Everything a replica tells about itself. Names, units and labels are a contract: `docs/METRICS.md` lists them.
//!
//! A struct per area; callers see methods with meaning, never a label. Every label value exists from the start at zero.

/// An enum whose variants are the values of a label.
macro_rules! label_values {
    ($(#[$doc:meta])* $name:ident { $($(#[$variant_doc:meta])* $variant:ident => $text:literal,)+ }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum $name {
            $($(#[$variant_doc])* $variant,)+
        }

        impl $name {
            const ALL: &'static [Self] = &[$(Self::$variant),+];

            fn label(self) -> &'static str {
                match self {
                    $(Self::$variant => $text,)+
                }
            }
        }
    };
}

mod http;
mod issue;
mod lock;

use std::sync::atomic::Ordering;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::MetricConstructor;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Metric, Registry, Unit};

pub use http::{HttpMetrics, InFlight};
pub use issue::{IssueMetrics, Rerun, outcome_label};
pub use lock::{Attempt, Bypass, LockMetrics, Wait};

/// Seconds: from 0.25 ms to 32 s, each bucket 1.5 times the one before.
fn seconds() -> Histogram {
    Histogram::new(exponential_buckets(0.000_25, 1.5, 30))
}

/// Registers a metric, and returns it.
fn registered<M: Metric + Clone>(registry: &mut Registry, name: &str, help: &str, metric: M) -> M {
    registry.register(name, help, metric.clone());
    metric
}

/// The same of one whose unit is the second.
fn in_seconds<M: Metric + Clone>(registry: &mut Registry, name: &str, help: &str, metric: M) -> M {
    registry.register_with_unit(name, help, Unit::Seconds, metric.clone());
    metric
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
    log_lines_dropped: Counter,
    database_primary_changes: Counter,
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
        let help = "Lines of the log that nobody read in time";
        let log_lines_dropped = registered(coupon, "log_lines_dropped", help, Counter::default());
        let help = "How often another member of the database became the primary";
        let database_primary_changes = registered(coupon, "database_primary_changes", help, Counter::default());
        let issue = IssueMetrics::register(coupon);
        let lock = LockMetrics::register(coupon, redis_nodes);
        Self { registry, log_lines_dropped, database_primary_changes, http, issue, lock }
    }

    /// Sets how many lines of the log were dropped since the start.
    pub fn log_lines_dropped(&self, lines: u64) {
        self.log_lines_dropped.inner().store(lines, Ordering::Relaxed);
    }

    /// Sets how often another member of the database became the primary since the start.
    pub fn database_primary_changes(&self, changes: u64) {
        self.database_primary_changes.inner().store(changes, Ordering::Relaxed);
    }

    /// The text that Prometheus scrapes, in the `OpenMetrics` format.
    pub fn encode(&self) -> String {
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &self.registry).expect("a String takes any text");
        text
    }
}
