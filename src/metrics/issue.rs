//! Issues: what became of orders, and how they were settled.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::RwLock;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;

use super::{in_seconds, registered, seconds};
use crate::coupons::{Code, Coupon, Outcome};

/// Most codes that get a label of their own; the rest share `other`.
const CODES_MAX: usize = 32;

/// The label value of codes without a label of their own.
const OTHER: &str = "other";

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct IssueLabels {
    code: String,
    outcome: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct CodeLabel {
    code: String,
}

label_values! {
    /// Why the same batch, or the same order of a strategy without batches, was run again.
    Rerun {
        /// A user took a coupon of another code meanwhile.
        Duplicate => "duplicate",
        /// Rows were locked or a deadlock was broken.
        Contended => "contended",
        /// It is not known whether it was carried out.
        Unknown => "unknown",
        /// The primary of the database was not to be had: it was silent, or another member may be it now.
        Moved => "moved",
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
    pub(super) fn register(coupon: &mut Registry) -> Self {
        let sizes = Histogram::new(exponential_buckets(1.0, 2.0, 13));
        let unknown = "Database calls of which it is not known whether they were carried out";
        let it = Self {
            outcomes: registered(coupon, "issue", "Orders by what became of them", Family::default()),
            codes: Arc::default(),
            remaining: registered(coupon, "remaining", "Pieces left, as last read", Family::default()),
            batch_size: registered(coupon, "batch_size", "Orders settled by one lock and one transaction", sizes),
            reruns: registered(coupon, "batch_reruns", "Batches run again", Family::default()),
            queue_depth: registered(coupon, "queue_depth", "Orders waiting now", Gauge::default()),
            shed: registered(coupon, "shed", "Orders refused because a queue was full", Counter::default()),
            unknown_outcomes: registered(coupon, "unknown_outcomes", unknown, Counter::default()),
            transaction: in_seconds(coupon, "transaction", "Time of an issuing transaction or call", seconds()),
            pool_wait: in_seconds(coupon, "db_pool_wait", "Wait of an order for a database connection", seconds()),
            generation_age: in_seconds(coupon, "generation_age", "Age of what the replica remembers", Gauge::default()),
        };
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

    /// Records what is left of all coupons. Their codes are labels, as far as there is room; one that was retired gives its
    /// label back, and its series end.
    pub fn remaining<'a>(&self, coupons: impl Iterator<Item = &'a Coupon> + Clone) {
        let mut codes = self.codes.write();
        let exist: BTreeSet<_> = coupons.clone().map(|coupon| &coupon.code).collect();
        for gone in codes.extract_if(.., |code| !exist.contains(code)) {
            self.forget(gone.as_str());
        }
        for Coupon { code, remaining, .. } in coupons {
            if !codes.contains(code) {
                // A coupon that is called `other` is one of the others: retired, it would take their counts with it.
                if codes.len() >= CODES_MAX || code.as_str() == OTHER {
                    continue;
                }
                codes.insert(code.clone());
                self.expect(code.as_str());
            }
            self.remaining.get_or_create(&CodeLabel { code: code.to_string() }).set(i64::from(*remaining));
        }
    }

    fn forget(&self, code: &str) {
        self.remaining.remove(&CodeLabel { code: code.to_owned() });
        for outcome in OUTCOMES {
            self.outcomes.remove(&IssueLabels { code: code.to_owned(), outcome });
        }
    }

    /// Counts the answer to an order; `outcome` is one of the eight label values.
    pub fn finished(&self, code: &Code, outcome: &'static str) {
        // Held until it is counted: the series of a code that is retired meanwhile must not come back.
        let codes = self.codes.read();
        let code = if codes.contains(code) { code.as_str() } else { OTHER };
        self.outcomes.get_or_create(&IssueLabels { code: code.to_owned(), outcome }).inc();
    }

    /// Records a batch that the database has settled.
    #[expect(clippy::cast_precision_loss, reason = "a batch has a few hundred orders at most")]
    pub fn batch(&self, size: usize) {
        self.batch_size.observe(size as f64);
    }

    /// Counts work that is run again.
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::coupons::Window;

    fn coupons(prefix: &str, number: usize) -> Vec<Coupon> {
        let coupon = |number| {
            let (code, window) = (Code::parse(&format!("{prefix}-{number}")).unwrap(), Window::default());
            Coupon { code, discount_percent: 10, total: 10, remaining: 10, next_serial: 1, window, effective: window }
        };
        (0..number).map(coupon).collect()
    }

    /// The issues of a code, and what is left of it, as they are exposed.
    fn exposed(metrics: &IssueMetrics, code: &str) -> (Option<u64>, Option<i64>) {
        let labels = IssueLabels { code: code.to_owned(), outcome: "issued" };
        let remaining = metrics.remaining.get(&CodeLabel { code: code.to_owned() }).map(|left| left.get());
        (metrics.outcomes.get(&labels).map(|count| count.get()), remaining)
    }

    #[test]
    fn one_code_more_than_there_are_labels_counts_as_other() {
        let metrics = IssueMetrics::register(&mut Registry::default());
        let coupons = coupons("L", CODES_MAX + 1);
        metrics.remaining(coupons.iter());

        for coupon in &coupons {
            metrics.finished(&coupon.code, "issued");
        }

        let [last, one_more] = [CODES_MAX - 1, CODES_MAX].map(|number| exposed(&metrics, &format!("L-{number}")));
        assert_eq!((last, one_more, exposed(&metrics, OTHER)), ((Some(1), Some(10)), (None, None), (Some(1), None)));
    }

    #[test]
    fn a_coupon_that_was_retired_leaves_its_label_to_another_and_its_series_end() {
        let metrics = IssueMetrics::register(&mut Registry::default());
        let (old, new) = (coupons("old", CODES_MAX), coupons("new", 1));
        metrics.remaining(old.iter().chain(&new));
        metrics.finished(&old[0].code, "issued");

        metrics.remaining(old[1..].iter().chain(&new));
        metrics.finished(&old[0].code, "issued");
        metrics.finished(&new[0].code, "issued");
        assert_eq!((exposed(&metrics, "old-0"), exposed(&metrics, "new-0")), ((None, None), (Some(1), Some(10))));

        metrics.remaining(old.iter());
        assert_eq!((exposed(&metrics, "old-0"), exposed(&metrics, "new-0")), ((Some(0), Some(10)), (None, None)));
    }
}
