//! `GET /version`: what is running, without I/O.

use std::sync::Arc;

use axum::Json as Body;
use axum::extract::State;
use serde::Serialize;
use utoipa::ToSchema;

use super::Api;

/// What is running.
#[expect(clippy::struct_field_names, reason = "the names are those of the answer")]
#[derive(Serialize, ToSchema)]
pub(super) struct Version {
    /// Always `coupon-rush`.
    name: &'static str,
    version: &'static str,
    /// How this replica makes issues exclusive.
    strategy: &'static str,
}

/// Name, version and strategy of the replica that answers.
#[utoipa::path(get, path = "/version", tag = "service", responses((status = 200, description = "what is running", body = Version)))]
pub(super) async fn show(State(api): State<Arc<Api>>) -> Body<Version> {
    Body(Version { name: "coupon-rush", version: env!("CARGO_PKG_VERSION"), strategy: api.strategy.name() })
}
