//! `/livez`, `/readyz`, `/metrics`: for the balancer, the supervisor and Prometheus.

use std::borrow::Cow;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use axum::Json as Body;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use serde::Serialize;

use super::Api;
use crate::store::StoreError;
use crate::telemetry;

/// Whether the process runs, with all that it cannot do without. If not, another process is the cure.
pub(super) async fn livez(State(api): State<Arc<Api>>) -> (StatusCode, Cow<'static, str>) {
    match *api.lost_watcher.borrow() {
        None => (StatusCode::OK, "ok\n".into()),
        Some(watcher) => (StatusCode::SERVICE_UNAVAILABLE, format!("{watcher} has ended\n").into()),
    }
}

/// What readiness consists of: the database was read lately, the watchers live and the replica is not about to stop.
#[expect(clippy::struct_excessive_bools, reason = "each is a fact of its own in the answer")]
#[derive(Serialize)]
pub(super) struct Readiness {
    ready: bool,
    /// The database was read within the last second.
    database: bool,
    /// A majority of the lock nodes is up. Not needed for readiness: without it `batched` goes on, more slowly.
    lock: bool,
    draining: bool,
    /// What is missing that only a person can make.
    #[serde(skip_serializing_if = "Option::is_none")]
    detail: Option<String>,
}

/// Whether the replica should get requests.
pub(super) async fn readyz(State(api): State<Arc<Api>>) -> (StatusCode, Body<Readiness>) {
    let (lacks_event, draining) = (api.memory.lacks_event(), api.leaving.load(Ordering::Relaxed));
    let remembers = api.memory.fresh().is_some();
    let readiness = Readiness {
        ready: remembers && !draining && api.lost_watcher.borrow().is_none(),
        database: lacks_event || remembers,
        lock: api.nodes.has_quorum(),
        draining,
        detail: lacks_event.then(|| StoreError::NoEvent.to_string()),
    };
    let status = if readiness.ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Body(readiness))
}

/// The metrics in the `OpenMetrics` text format.
pub(super) async fn metrics(State(api): State<Arc<Api>>) -> impl IntoResponse {
    api.metrics.issue.generation_age(api.memory.age());
    api.metrics.database_primary_changes(api.store.primary_changes());
    api.metrics.log_lines_dropped(telemetry::dropped_lines());
    let content_type = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    ([(header::CONTENT_TYPE, content_type)], api.metrics.encode())
}
