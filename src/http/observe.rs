//! One middleware around every public request: its id, its deadline, its count, its duration, its line in the log.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use axum::extract::{MatchedPath, Request, State};
use axum::http::{HeaderMap, HeaderValue, Method, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use futures_util::FutureExt;
use tracing::{Instrument, Span};

use super::Api;
use super::extract::text;
use super::problem::{self, Problem};
use super::trace;
use crate::coupons::RequestId;
use crate::metrics::HttpMetrics;
use crate::telemetry::ACCESS;

/// nginx names every request; a request that did not come through it is named here.
pub(super) const REQUEST_ID: &str = "x-request-id";

/// The issuer keeps the deadline and counts what misses it; this much later the rest is cut off, such as a body that never
/// ends.
const BACKSTOP: Duration = Duration::from_millis(100);

/// Which replica answered.
const REPLICA: &str = "x-replica";

/// The route that carries the business.
const ISSUE: &str = "/coupons/issue";

/// All calls that are label values, with the statuses they normally answer with.
const ROUTES: [(&str, &str, &[u16]); 7] = [
    ("POST", ISSUE, &[200, 201, 400, 403, 404, 409, 410, 413, 415, 422, 503]),
    ("GET", "/coupons", &[200, 503]),
    ("GET", "/coupons/{code}", &[200, 404, 422, 503]),
    ("GET", "/users/{userId}/coupons", &[200, 422, 503]),
    ("GET", "/version", &[200]),
    ("GET", "/openapi.json", &[200]),
    (OTHER, OTHER, &[200, 303, 400, 404, 405, 414, 431]),
];

/// The label value of method and route for everything that is none of the calls above.
pub(super) const OTHER: &str = "other";

/// Makes the series of all routes exist.
pub(super) fn expect_series(metrics: &HttpMetrics) {
    for (method, route, statuses) in ROUTES {
        metrics.expect(method, route, statuses);
    }
}

/// The middleware.
pub(super) async fn observe(State(api): State<Arc<Api>>, mut request: Request, next: Next) -> Response {
    let started = Instant::now();
    let _in_flight = api.metrics.http.begin();
    let path = request.extensions().get::<MatchedPath>().map_or(OTHER, |path| path.as_str());
    let (method, route) = labels(request.method(), path);
    let id = identify(&mut request);
    let trace_id = trace::id(request.headers());
    // At the highest level, so that whatever is logged of this request says to which trace it belongs.
    let span = trace_id.map_or_else(Span::none, |trace_id| tracing::error_span!("request", %trace_id));

    let answer = AssertUnwindSafe(next.run(request).instrument(span)).catch_unwind();
    let mut response = match tokio::time::timeout(api.request_deadline + BACKSTOP, answer).await {
        Ok(Ok(response)) => response,
        Ok(Err(panic)) => problem::after_panic(panic),
        Err(_) => Problem::BUSY.into_response(),
    };

    let headers = response.headers_mut();
    let id_text = id.to_string();
    headers.insert(REQUEST_ID, HeaderValue::from_str(&id_text).expect("hex digits are visible ASCII"));
    if route == ISSUE
        && let Ok(replica) = HeaderValue::from_str(&api.replica)
    {
        headers.insert(REPLICA, replica);
    }
    if api.leaving.load(Ordering::Relaxed) {
        headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    let (status, duration) = (response.status().as_u16(), started.elapsed());
    api.metrics.http.answered(method, route, status, duration);
    let (trace_id, duration_ms) = (trace_id.map(tracing::field::display), duration.as_secs_f64() * 1e3);
    tracing::info!(target: ACCESS, method, route, status, id = id_text, trace_id, duration_ms, "answered");
    response
}

/// The request's id: nginx's, or a new one, which is put into the request's headers too. It is a copy: a header's value would keep
/// the connection's buffer in use as long as the request takes.
fn identify(request: &mut Request) -> RequestId {
    given_id(request.headers()).unwrap_or_else(|| {
        let id = new_id();
        let text = HeaderValue::from_str(&id.to_string()).expect("hex digits are visible ASCII");
        request.headers_mut().insert(REQUEST_ID, text);
        id
    })
}

/// nginx's id of a request, which stays the same over nginx's own retries; behind [`identify`] each has one.
pub(super) fn given_id(headers: &HeaderMap) -> Option<RequestId> {
    RequestId::parse(text(headers, REQUEST_ID).ok()??)
}

/// An id for a request that came without one.
pub(super) fn new_id() -> RequestId {
    RequestId(fastrand::u128(..).to_be_bytes())
}

/// Method and route of a call, or [`OTHER`] for both: a caller must not be able to make series by asking.
fn labels(method: &Method, path: &str) -> (&'static str, &'static str) {
    let call = ROUTES.iter().find(|(of, route, _)| *of == method.as_str() && *route == path);
    call.map_or((OTHER, OTHER), |(of, route, _)| (*of, *route))
}
