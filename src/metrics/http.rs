//! Requests of the public listener.

use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use super::{Seconds, in_seconds, registered};

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
    pub(super) fn register(registry: &mut Registry) -> Self {
        let (times, help) = (Family::new_with_constructor(Seconds), "Time from the request's head to the answer's");
        Self {
            duration: in_seconds(registry, "http_request_duration", help, times),
            in_flight: registered(registry, "coupon_in_flight", "Requests being answered now", Gauge::default()),
        }
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
