//! The API: what it needs of a replica, the route tables and their layers. The only module that knows status codes.

mod admin;
mod coupons;
mod extract;
mod issue;
mod observe;
mod operations;
mod problem;
mod trace;
mod unread;
mod users;
mod version;

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use axum::Router;
use axum::middleware::from_fn_with_state;
use axum::routing::get;
use tokio::sync::watch;
use tower_http::catch_panic::CatchPanicLayer;
use utoipa::OpenApi;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use utoipa_swagger_ui::{Config, SwaggerUi};

use self::problem::Problem;
pub use self::unread::Explained;
use crate::issuance::{Issuer, Strategy};
use crate::lock::Nodes;
use crate::memory::Memory;
use crate::metrics::Metrics;
use crate::store::Store;

/// Largest body: an order has less than 200 bytes, an administrative change not many more.
const BODY_MAX: usize = 16 * 1024;

/// What the API needs of the replica that it speaks for.
pub struct Api {
    /// The replica's name.
    pub replica: String,
    /// How it makes issues exclusive.
    pub strategy: Strategy,
    /// Issues coupons.
    pub issuer: Issuer,
    /// The database, for what is not an issue.
    pub store: Store,
    /// What the replica remembers.
    pub memory: Arc<Memory>,
    /// What it tells about itself.
    pub metrics: Metrics,
    /// The nodes of the lock.
    pub nodes: Arc<Nodes>,
    /// Digests of the tokens for administrative calls: comparing digests tells nothing about a token's length.
    pub admin_tokens: Vec<[u8; 32]>,
    /// Longest time a request may take, body included.
    pub request_deadline: Duration,
    /// Whether the replica is about to stop.
    pub leaving: AtomicBool,
    /// The watcher that ended before the replica was stopped, if one did: without it the replica grows blind, and only a new process
    /// sees again.
    pub lost_watcher: watch::Receiver<Option<&'static str>>,
}

#[derive(OpenApi)]
#[openapi(info(
    title = "coupon-rush",
    description = "First come, first served coupons. Refusals are application/problem+json with a stable type. 410 is final \
                   for the round unless stock is topped up; 503 means \"not now\": ask again with the same Idempotency-Key."
))]
struct Description;

/// The public API with its description.
fn public() -> OpenApiRouter<Arc<Api>> {
    OpenApiRouter::with_openapi(Description::openapi())
        .routes(routes!(issue::create))
        .routes(routes!(coupons::list))
        .routes(routes!(coupons::show))
        .routes(routes!(users::coupons))
        .routes(routes!(version::show))
}

/// The public listener.
pub fn router(api: Arc<Api>) -> Router {
    let (router, description) = public().split_for_parts();
    observe::expect_series(&api.metrics.http);
    router
        // The page to try the API sends the description to no validator elsewhere.
        .merge(
            SwaggerUi::new("/docs").config(Config::default().validator_url("none")).url("/openapi.json", description),
        )
        .fallback(async || Problem::NOT_FOUND)
        .method_not_allowed_fallback(async || Problem::METHOD_NOT_ALLOWED)
        .layer(from_fn_with_state(Arc::clone(&api), observe::observe))
        .with_state(api)
}

/// The ops listener: health, metrics and administration of this replica.
pub fn operations(api: Arc<Api>) -> Router {
    let admin = admin::router().layer(from_fn_with_state(Arc::clone(&api), admin::authorize));
    Router::new()
        .route("/livez", get(operations::livez))
        .route("/readyz", get(operations::readyz))
        .route("/metrics", get(operations::metrics))
        .merge(admin)
        .fallback(async || Problem::NOT_FOUND)
        .method_not_allowed_fallback(async || Problem::METHOD_NOT_ALLOWED)
        .layer(CatchPanicLayer::custom(problem::after_panic))
        .with_state(api)
}

/// Runs database work in a task of its own: a client that hangs up drops this handler, never a statement under way.
async fn detached<T, E>(work: impl Future<Output = Result<T, E>> + Send + 'static) -> Result<T, Problem>
where
    T: Send + 'static,
    E: Into<Problem> + Send + 'static,
{
    tokio::spawn(work).await.map_err(|_| Problem::UNAVAILABLE)?.map_err(Into::into)
}
