//! `GET /users/{userId}/coupons`: the wallet.

use std::sync::Arc;

use axum::Json as Body;
use axum::extract::State;

use super::extract::UserInPath;
use super::issue::WalletEntry;
use super::problem::{Problem, ProblemBody};
use super::{Api, detached};
use crate::coupons::Entry;

/// What the user holds in the current round.
#[utoipa::path(get, path = "/users/{userId}/coupons", tag = "coupons", params(("userId" = String, Path, description = "the user", pattern = "^(?![.]{1,2}$)[A-Za-z0-9._:-]{1,36}$")), responses(
    (status = 200, description = "the wallet, by code; empty for a user without coupons", body = Vec<WalletEntry>),
    (status = 422, description = "no such user id is possible", body = ProblemBody, content_type = "application/problem+json"),
    (status = 429, description = "this address asks too often; only where nginx limits that", body = ProblemBody, content_type = "application/problem+json"),
    (status = 503, description = "not now", body = ProblemBody, content_type = "application/problem+json"),
))]
pub(super) async fn coupons(
    State(api): State<Arc<Api>>,
    UserInPath(user): UserInPath,
) -> Result<Body<Vec<Entry>>, Problem> {
    Ok(Body(detached(async move { api.store.wallet_of(&user).await }).await?))
}
