//! `/livez`, `/readyz`, `/metrics`: for the balancer, the supervisor and Prometheus.

use std::borrow::Cow;
use std::sync::Arc;

use axum::Json as Body;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use serde::Serialize;

use crate::app::App;
use crate::store::StoreError;
use crate::telemetry;

/// Whether the process runs, with all that it cannot do without. If not, another process is the cure.
pub(super) async fn livez(State(app): State<Arc<App>>) -> (StatusCode, Cow<'static, str>) {
    match app.lost_watcher() {
        None => (StatusCode::OK, "ok\n".into()),
        Some(watcher) => (StatusCode::SERVICE_UNAVAILABLE, format!("{watcher} has ended\n").into()),
    }
}

/// What readiness consists of.
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
pub(super) async fn readyz(State(app): State<Arc<App>>) -> (StatusCode, Body<Readiness>) {
    let lacks_event = app.memory.lacks_event();
    let readiness = Readiness {
        ready: app.is_ready(),
        database: lacks_event || app.memory.fresh().is_some(),
        lock: app.nodes.has_quorum(),
        draining: app.is_draining(),
        detail: lacks_event.then(|| StoreError::NoEvent.to_string()),
    };
    let status = if readiness.ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Body(readiness))
}

/// The metrics in the `OpenMetrics` text format.
pub(super) async fn metrics(State(app): State<Arc<App>>) -> impl IntoResponse {
    app.metrics.issue.generation_age(app.memory.age());
    app.metrics.log_lines_dropped(telemetry::dropped_lines());
    let content_type = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    ([(header::CONTENT_TYPE, content_type)], app.metrics.encode())
}
