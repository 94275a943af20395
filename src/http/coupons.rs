//! `GET /coupons`, `GET /coupons/{code}`: stock, window, state, from memory, so that watching costs the database nothing.

use std::sync::Arc;

use axum::Json as Body;
use axum::extract::State;
use serde::Serialize;
use utoipa::ToSchema;

use super::Api;
use super::extract::CodeInPath;
use super::problem::{Problem, ProblemBody};
use crate::coupons::{Coupon, Timestamp};

/// A coupon.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Coupon)]
pub(super) struct CouponBody {
    code: String,
    /// 1 to 100.
    discount_percent: u8,
    /// Pieces in this round.
    total: u32,
    /// Pieces not issued yet, at most a second old.
    remaining: u32,
    /// The coupon's own window, RFC 3339 in UTC; null: no bound.
    #[schema(value_type = Option<String>, format = DateTime)]
    opens_at: Option<Timestamp>,
    #[schema(value_type = Option<String>, format = DateTime)]
    closes_at: Option<Timestamp>,
    /// Where it stands, the event's window included.
    #[schema(value_type = StateName)]
    state: crate::coupons::State,
}

/// Where a coupon stands.
#[derive(ToSchema)]
#[schema(as = State, rename_all = "kebab-case")]
#[expect(dead_code, reason = "only the description is used")]
pub(super) enum StateName {
    Scheduled,
    Open,
    Closed,
    SoldOut,
}

impl CouponBody {
    pub(super) fn new(coupon: &Coupon, now: Timestamp) -> Self {
        Self {
            code: coupon.code.to_string(),
            discount_percent: coupon.discount_percent,
            total: coupon.total,
            remaining: coupon.remaining,
            opens_at: coupon.window.opens_at,
            closes_at: coupon.window.closes_at,
            state: coupon.state(now),
        }
    }
}

/// All coupons of the event.
#[utoipa::path(get, path = "/coupons", tag = "coupons", responses(
    (status = 200, description = "all coupons, by code", body = Vec<CouponBody>),
    (status = 503, description = "not now", body = ProblemBody, content_type = "application/problem+json"),
))]
pub(super) async fn list(State(api): State<Arc<Api>>) -> Result<Body<Vec<CouponBody>>, Problem> {
    let snapshot = api.memory.fresh().ok_or(Problem::UNAVAILABLE)?;
    let now = snapshot.now();
    let mut coupons: Vec<_> = snapshot.coupons().map(|coupon| CouponBody::new(coupon, now)).collect();
    coupons.sort_unstable_by(|a, b| a.code.cmp(&b.code));
    Ok(Body(coupons))
}

/// One coupon.
#[utoipa::path(get, path = "/coupons/{code}", tag = "coupons", params(("code" = String, Path, description = "the coupon's code", pattern = "^(?![.]{1,2}$)[A-Za-z0-9._:-]{1,36}$")), responses(
    (status = 200, description = "the coupon", body = CouponBody),
    (status = 404, description = "unknown coupon", body = ProblemBody, content_type = "application/problem+json"),
    (status = 422, description = "no such code is possible", body = ProblemBody, content_type = "application/problem+json"),
    (status = 503, description = "not now", body = ProblemBody, content_type = "application/problem+json"),
))]
pub(super) async fn show(
    State(api): State<Arc<Api>>,
    CodeInPath(code): CodeInPath,
) -> Result<Body<CouponBody>, Problem> {
    let snapshot = api.memory.fresh().ok_or(Problem::UNAVAILABLE)?;
    let (coupon, _) = snapshot.coupon(&code).ok_or(Problem::UNKNOWN_COUPON)?;
    Ok(Body(CouponBody::new(coupon, snapshot.now())))
}
