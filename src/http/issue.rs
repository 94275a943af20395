//! `POST /coupons/issue`: one coupon for one user.

use std::sync::Arc;
use std::time::Instant;

use axum::Json as Body;
use axum::extract::{FromRequest, Request, State};
use axum::http::{HeaderMap, StatusCode};
use serde::Deserialize;
use sha2::{Digest, Sha256};
use utoipa::ToSchema;

use super::Api;
use super::extract::{ID_RULE, Json, text};
use super::observe::{given_id, new_id};
use super::problem::{Problem, ProblemBody};
use crate::coupons::{Code, Entry, Order, Outcome, RequestId, UserId};

/// Longest `Idempotency-Key`, in characters.
const KEY_LENGTH_MAX: usize = 255;

/// One more than the largest arrival stamp, in milliseconds since 1970: the year 2286.
const ARRIVAL_END: u64 = 10_000_000_000_000;

/// The coupon that is asked for, and the user that asks.
#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct IssueRequest {
    /// The coupon.
    #[schema(pattern = "^(?![.]{1,2}$)[A-Za-z0-9._:-]{1,36}$", example = "A001")]
    code: String,
    /// The user. Not authenticated here: a gateway in front does that.
    #[schema(pattern = "^(?![.]{1,2}$)[A-Za-z0-9._:-]{1,36}$", example = "u-1")]
    user_id: String,
}

/// An issued coupon, as the API describes it; [`Entry`] is what is sent.
#[derive(ToSchema)]
#[schema(rename_all = "camelCase")]
#[expect(dead_code, reason = "only the description is used")]
pub(super) struct WalletEntry {
    /// The coupon.
    code: String,
    /// The holder.
    user_id: String,
    /// 1, 2, 3 ... per coupon and round without gaps; null only under the `unlocked` strategy.
    serial: Option<u32>,
    /// The round it was issued in.
    round: u32,
    /// The request that got it, 32 hex digits.
    request_id: String,
    /// RFC 3339 in UTC.
    #[schema(format = DateTime)]
    issued_at: String,
}

/// Issue one coupon to one user. Asking again with the same `Idempotency-Key` is safe and gets the same entry.
#[utoipa::path(
    post, path = "/coupons/issue", tag = "coupons", request_body = IssueRequest,
    params(("Idempotency-Key" = Option<String>, Header, pattern = "^[!-~](?:[ -~]{0,253}[!-~])?$",
        description = "1 to 255 visible ASCII characters; the same key for the same user and code is the same request")),
    responses(
        (status = 201, description = "issued", body = WalletEntry),
        (status = 200, description = "issued before to the same request", body = WalletEntry),
        (status = 400, description = "no JSON", body = ProblemBody, content_type = "application/problem+json"),
        (status = 403, description = "not open; Retry-After says when it will be", body = ProblemBody, content_type = "application/problem+json"),
        (status = 404, description = "unknown coupon", body = ProblemBody, content_type = "application/problem+json"),
        (status = 409, description = "the user holds `entry` already", body = ProblemBody, content_type = "application/problem+json"),
        (status = 410, description = "sold out; final for the round unless stock is topped up", body = ProblemBody, content_type = "application/problem+json"),
        (status = 413, description = "the body is too large", body = ProblemBody, content_type = "application/problem+json"),
        (status = 415, description = "the body is not JSON", body = ProblemBody, content_type = "application/problem+json"),
        (status = 422, description = "an id, a type or the key is not valid", body = ProblemBody, content_type = "application/problem+json"),
        (status = 429, description = "this address asks too often; only where nginx limits that", body = ProblemBody, content_type = "application/problem+json"),
        (status = 503, description = "not now; ask again with the same key after Retry-After seconds", body = ProblemBody, content_type = "application/problem+json"),
    )
)]
pub(super) async fn create(
    State(api): State<Arc<Api>>,
    request: Request,
) -> Result<(StatusCode, Body<Entry>), Problem> {
    let entered = Instant::now();
    let order = order(request).await?;
    match api.issuer.issue(order, entered).await? {
        Outcome::Issued(entry) => Ok((StatusCode::CREATED, Body(entry))),
        Outcome::Replayed(entry) => Ok((StatusCode::OK, Body(entry))),
        Outcome::AlreadyIssued(entry) => Err(Problem::already_issued(entry)),
        Outcome::SoldOut => Err(Problem::SOLD_OUT),
        Outcome::NotOpen(opens_in) => Err(Problem::not_open(opens_in)),
        Outcome::UnknownCoupon => Err(Problem::UNKNOWN_COUPON),
    }
}

/// Reads an order; from here on every value is valid. The request is dropped before the order waits, because its headers would keep the
/// connection's buffer of 8 KiB from being used again.
async fn order(request: Request) -> Result<Order, Problem> {
    let headers = request.headers();
    let (key, named, arrived_ms) = (key(headers), given_id(headers), arrival(headers));
    let Json(IssueRequest { code, user_id }) = Json::from_request(request, &()).await?;
    let code = Code::parse(&code).ok_or_else(|| Problem::invalid(format!("code {ID_RULE}")))?;
    let user = UserId::parse(&user_id).ok_or_else(|| Problem::invalid(format!("userId {ID_RULE}")))?;
    let request = match key? {
        Some(key) => keyed(&user, &code, &key),
        None => named.unwrap_or_else(new_id),
    };
    Ok(Order { code, user, request, arrived_ms })
}

/// The first 16 bytes of SHA-256 over user, code and key. No id contains the separator, so no two different requests are the
/// same text.
fn keyed(user: &UserId, code: &Code, key: &str) -> RequestId {
    let digest = Sha256::new().chain_update(user.as_str()).chain_update("\0").chain_update(code.as_str());
    let digest = digest.chain_update("\0").chain_update(key).finalize();
    RequestId(std::array::from_fn(|byte| digest[byte]))
}

/// The client's own name for the request.
fn key(headers: &HeaderMap) -> Result<Option<String>, Problem> {
    match text(headers, "idempotency-key") {
        Ok(key) if key.is_none_or(is_key) => Ok(key.map(str::to_owned)),
        _ => Err(Problem::invalid(format!(
            "Idempotency-Key may come once, and must be 1 to {KEY_LENGTH_MAX} visible ASCII characters"
        ))),
    }
}

fn is_key(key: &str) -> bool {
    (1..=KEY_LENGTH_MAX).contains(&key.len()) && key.bytes().all(|b| b.is_ascii_graphic() || b == b' ')
}

/// nginx's `X-Request-Start: t=1700000000.123`, in milliseconds; `None` without nginx.
fn arrival(headers: &HeaderMap) -> Option<u64> {
    let (seconds, millis) = text(headers, "x-request-start").ok()??.strip_prefix("t=")?.split_once('.')?;
    if millis.len() != 3 {
        return None;
    }
    let arrived = seconds.parse::<u64>().ok()?.checked_mul(1_000)?.checked_add(millis.parse().ok()?)?;
    (arrived < ARRIVAL_END).then_some(arrived)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(name: &'static str, value: &'static str) -> HeaderMap {
        HeaderMap::from_iter([(name.parse().unwrap(), value.parse().unwrap())])
    }

    #[test]
    fn the_arrival_is_nginxs_stamp_or_nothing() {
        assert_eq!(arrival(&headers("x-request-start", "t=1700000000.123")), Some(1_700_000_000_123));
        for bad in ["1700000000.123", "t=1700000000", "t=1700000000.1", "t=x.123", "t=99999999999.123", "t=-1.123"] {
            assert_eq!(arrival(&headers("x-request-start", bad)), None, "{bad}");
        }
    }

    #[test]
    fn the_request_id_depends_on_user_code_and_key_alone() {
        let id =
            |user: &str, code: &str, key: &str| keyed(&UserId::parse(user).unwrap(), &Code::parse(code).unwrap(), key);
        // printf 'u-1\0A001\0key-1' | sha256sum
        let known = RequestId::parse("35e79984344218c5e869e3079ba11932").unwrap();
        assert_eq!(id("u-1", "A001", "key-1"), known);
        for other in [id("u-2", "A001", "key-1"), id("u-1", "B001", "key-1"), id("u-1", "A001", "key-2")] {
            assert_ne!(other, known);
        }
    }

    #[test]
    fn a_key_is_visible_ascii_and_may_be_missing() {
        assert_eq!(key(&headers("idempotency-key", "k")).unwrap().as_deref(), Some("k"));
        assert!(key(&HeaderMap::new()).unwrap().is_none());
        assert!(key(&headers("idempotency-key", "")).is_err());
    }
}
