//! `/admin/…`: coupons, event, reset, audit. On the ops listener only, behind a bearer token.
//!
//! A call that changed something answers after every replica must have seen it. Its work runs in a task: a caller that hangs up does
//! not leave half a change.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::{StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post, put};
use axum::{Json as Body, Router};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use subtle::{Choice, ConstantTimeEq};

use super::coupons::CouponBody;
use super::extract::{CodeInPath, Json, nullable, window};
use super::problem::Problem;
use super::{Api, detached};
use crate::coupons::Timestamp;
use crate::memory::CHANGE_SEEN_BY_ALL;
use crate::store::admin::{Audit, Audited, Changed, CouponChange, Event, Reset, Retired};

/// Most pieces of one coupon.
const TOTAL_MAX: u32 = 1_000_000;

/// The one code that cannot have a page: its address means something else.
const UNREACHABLE: &str = "issue";

pub(super) fn router() -> Router<Arc<Api>> {
    Router::new()
        .route("/admin/coupons/{code}", put(put_coupon).delete(retire_coupon))
        .route("/admin/event", get(get_event).put(put_event))
        .route("/admin/reset", post(reset))
        .route("/admin/audit", get(audit))
}

/// Lets a request through if its token is one of ours.
pub(super) async fn authorize(State(api): State<Arc<Api>>, request: Request, next: Next) -> Response {
    let header = request.headers().get(header::AUTHORIZATION);
    let token = header.and_then(|value| value.to_str().ok()?.split_once(' '));
    // The name of a scheme has no case.
    let known = token
        .is_some_and(|(scheme, token)| scheme.eq_ignore_ascii_case("Bearer") && is_known(&api.admin_tokens, token));
    if known { next.run(request).await } else { Problem::UNAUTHORIZED.into_response() }
}

/// Compares with every token to its end, so that the time tells nothing about any of them.
fn is_known(digests: &[[u8; 32]], token: &str) -> bool {
    let digest: [u8; 32] = Sha256::digest(token).into();
    digests.iter().fold(Choice::from(0), |known, one| known | one.ct_eq(&digest)).into()
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct PutCoupon {
    discount_percent: u8,
    total: u32,
    #[serde(deserialize_with = "nullable")]
    opens_at: Option<String>,
    #[serde(deserialize_with = "nullable")]
    closes_at: Option<String>,
}

async fn put_coupon(
    State(api): State<Arc<Api>>,
    CodeInPath(code): CodeInPath,
    Json(request): Json<PutCoupon>,
) -> Result<(StatusCode, Body<CouponBody>), Problem> {
    let change = CouponChange {
        discount_percent: request.discount_percent,
        total: request.total,
        window: window(request.opens_at.as_deref(), request.closes_at.as_deref())?,
    };
    if code.as_str() == UNREACHABLE {
        return Err(Problem::invalid("this code would hide behind POST /coupons/issue"));
    }
    if !(1..=100).contains(&change.discount_percent) {
        return Err(Problem::invalid("discountPercent must be 1 to 100"));
    }
    if change.total > TOTAL_MAX {
        return Err(Problem::invalid(format!("total must be 0 to {TOTAL_MAX}")));
    }
    let (store, named) = (api.store.clone(), code.clone());
    let put = async move { Ok::<_, Problem>(seen(store.put_coupon(&named, &change).await?).await) };
    let status = match detached(put).await? {
        Changed::Created => StatusCode::CREATED,
        Changed::Changed => StatusCode::OK,
        Changed::BelowIssued(issued) => return Err(Problem::below_issued(issued)),
        Changed::NoRoom => return Err(Problem::NO_ROOM),
    };
    let snapshot = api.memory.fresh().ok_or(Problem::UNAVAILABLE)?;
    let (coupon, _) = snapshot.coupon(&code).ok_or(Problem::UNAVAILABLE)?;
    Ok((status, Body(CouponBody::new(coupon, snapshot.now()))))
}

async fn retire_coupon(State(api): State<Arc<Api>>, CodeInPath(code): CodeInPath) -> Result<StatusCode, Problem> {
    let retire = async move { Ok::<_, Problem>(seen(api.store.retire_coupon(&code).await?).await) };
    match detached(retire).await? {
        Retired::Retired => Ok(StatusCode::NO_CONTENT),
        Retired::Held(holders) => Err(Problem::held(holders)),
        Retired::Unknown => Err(Problem::UNKNOWN_COUPON),
    }
}

/// Returns `changed` when every replica must have seen the change.
async fn seen<T>(changed: T) -> T {
    tokio::time::sleep(CHANGE_SEEN_BY_ALL).await;
    changed
}

async fn get_event(State(api): State<Arc<Api>>) -> Result<Body<Event>, Problem> {
    detached(async move { api.store.event().await }).await.map(Body)
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct PutEvent {
    exclusive: bool,
    #[serde(deserialize_with = "nullable")]
    opens_at: Option<String>,
    #[serde(deserialize_with = "nullable")]
    closes_at: Option<String>,
}

async fn put_event(State(api): State<Arc<Api>>, Json(request): Json<PutEvent>) -> Result<Body<Event>, Problem> {
    let window = window(request.opens_at.as_deref(), request.closes_at.as_deref())?;
    let put = async move {
        seen(api.store.put_event(request.exclusive, window).await?).await;
        api.store.event().await
    };
    detached(put).await.map(Body)
}

/// In a request the round that a reset ends; in its answer the one that it began.
#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Round {
    round: u32,
}

async fn reset(State(api): State<Arc<Api>>, Json(Round { round }): Json<Round>) -> Result<Body<Round>, Problem> {
    let reset = async move { Ok::<_, Problem>(seen(api.store.reset(round).await?).await) };
    match detached(reset).await? {
        Reset::Began(round) => Ok(Body(Round { round })),
        Reset::Refused { current } => Err(Problem::another_round(current)),
    }
}

/// The books of the current round.
#[derive(Serialize)]
struct AuditBody {
    round: u32,
    exclusive: bool,
    coupons: Vec<AuditedBody>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct AuditedBody {
    #[serde(flatten)]
    books: Audited,
    /// When the first order that this replica told "sold out" reached nginx.
    earliest_loser_arrival: Option<Timestamp>,
}

async fn audit(State(api): State<Arc<Api>>) -> Result<Body<AuditBody>, Problem> {
    let store = api.store.clone();
    let Audit { round, exclusive, books } = detached(async move { store.audit().await }).await?;
    let coupons = books.into_iter().map(|books| AuditedBody {
        earliest_loser_arrival: api.memory.earliest_loser(&books.code, round).map(Timestamp::from_millis),
        books,
    });
    Ok(Body(AuditBody { round, exclusive, coupons: coupons.collect() }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_known_when_it_is_wholly_one_of_ours() {
        let digests: Vec<[u8; 32]> =
            ["new-token", "old-token"].iter().map(|token| Sha256::digest(token).into()).collect();
        assert!(is_known(&digests, "new-token") && is_known(&digests, "old-token"));
        for other in ["", "new-toke", "new-token ", "new-tokem", "New-token", "old-token\0"] {
            assert!(!is_known(&digests, other), "{other:?}");
        }
        assert!(!is_known(&[], ""));
    }
}
