//! Every answer that is not a success, as RFC 9457 `application/problem+json` with a stable `type`.

use std::any::Any;
use std::borrow::Cow;
use std::time::Duration;

use axum::Json;
use axum::body::Body;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::ToSchema;

use super::issue::WalletEntry;
use crate::coupons::Entry;
use crate::issuance::IssueError;
use crate::store::StoreError;

/// A refusal or a failure.
#[derive(Clone, Debug)]
pub(super) struct Problem {
    status: StatusCode,
    kind: &'static str,
    title: &'static str,
    detail: Option<Cow<'static, str>>,
    entry: Option<Box<Entry>>,
    round: Option<u32>,
    retry: Retry,
}

/// Whether asking again helps, and when.
#[derive(Clone, Copy, Debug)]
enum Retry {
    Never,
    /// After a second or a few, spread so that a crowd does not come back as one.
    Soon,
    After(Duration),
}

/// The body of a refusal.
#[derive(Serialize, ToSchema)]
#[schema(as = Problem)]
pub(super) struct ProblemBody {
    /// A stable reference for programs, such as `/problems/sold-out`.
    r#type: &'static str,
    /// The same for people.
    title: &'static str,
    /// The HTTP status again.
    status: u16,
    /// What exactly was wrong.
    #[serde(skip_serializing_if = "Option::is_none")]
    detail: Option<Cow<'static, str>>,
    /// With `already-issued`: what the user holds.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<WalletEntry>)]
    entry: Option<Box<Entry>>,
    /// With `another-round`, of the administration alone: the current round.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(ignore)]
    round: Option<u32>,
}

impl Problem {
    const fn new(status: StatusCode, kind: &'static str, title: &'static str) -> Self {
        Self { status, kind, title, detail: None, entry: None, round: None, retry: Retry::Never }
    }

    const fn not_now(kind: &'static str, title: &'static str) -> Self {
        let status = StatusCode::SERVICE_UNAVAILABLE;
        Self { status, kind, title, detail: None, entry: None, round: None, retry: Retry::Soon }
    }

    pub(super) const NOT_FOUND: Self = Self::new(StatusCode::NOT_FOUND, "/problems/not-found", "there is no such page");
    pub(super) const METHOD_NOT_ALLOWED: Self =
        Self::new(StatusCode::METHOD_NOT_ALLOWED, "/problems/method-not-allowed", "this page has other methods");
    pub(super) const UNKNOWN_COUPON: Self =
        Self::new(StatusCode::NOT_FOUND, "/problems/unknown-coupon", "there is no such coupon");
    pub(super) const SOLD_OUT: Self =
        Self::new(StatusCode::GONE, "/problems/sold-out", "none of these coupons is left");
    pub(super) const BUSY: Self = Self::not_now("/problems/busy", "too many at the same time; ask again");
    pub(super) const UNAVAILABLE: Self = Self::not_now("/problems/unavailable", "not possible right now; ask again");
    pub(super) const UNAUTHORIZED: Self =
        Self::new(StatusCode::UNAUTHORIZED, "/problems/unauthorized", "the admin token is missing or wrong");
    const ALREADY_ISSUED: Self =
        Self::new(StatusCode::CONFLICT, "/problems/already-issued", "this user holds a coupon already");
    const NOT_OPEN: Self =
        Self::new(StatusCode::FORBIDDEN, "/problems/not-open", "coupons are not issued at this time");
    const BELOW_ISSUED: Self =
        Self::new(StatusCode::CONFLICT, "/problems/below-issued", "more than the new total are issued already");
    const HELD: Self =
        Self::new(StatusCode::CONFLICT, "/problems/held", "somebody holds this coupon in the current round");
    pub(super) const NO_ROOM: Self = Self::new(
        StatusCode::CONFLICT,
        "/problems/no-room",
        "no further code can be made; make one again that was retired",
    );
    const ANOTHER_ROUND: Self =
        Self::new(StatusCode::CONFLICT, "/problems/another-round", "this is not the current round");
    const INVALID: Self =
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, "/problems/invalid-request", "the request is not valid");
    const MALFORMED: Self = Self::new(StatusCode::BAD_REQUEST, "/problems/malformed", "this is no such request");
    const NOT_JSON: Self =
        Self::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "/problems/unsupported-media-type", "the body must be JSON");
    const TOO_LARGE: Self =
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, "/problems/payload-too-large", "the body is too large");
    pub(super) const URI_TOO_LONG: Self =
        Self::new(StatusCode::URI_TOO_LONG, "/problems/uri-too-long", "the address is too long");
    pub(super) const HEADERS_TOO_LARGE: Self = Self::new(
        StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
        "/problems/headers-too-large",
        "the headers are too many or too large",
    );
    const INTERNAL: Self =
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "/problems/internal", "a bug; please report it");

    fn with(self, detail: impl Into<Cow<'static, str>>) -> Self {
        Self { detail: Some(detail.into()), ..self }
    }

    pub(super) fn invalid(detail: impl Into<Cow<'static, str>>) -> Self {
        Self::INVALID.with(detail)
    }

    pub(super) fn malformed(detail: impl Into<Cow<'static, str>>) -> Self {
        Self::MALFORMED.with(detail)
    }

    pub(super) fn not_json() -> Self {
        Self::NOT_JSON.with("send it with content-type: application/json")
    }

    pub(super) fn too_large() -> Self {
        Self::TOO_LARGE.with(format!("at most {} bytes", super::BODY_MAX))
    }

    pub(super) fn already_issued(entry: Entry) -> Self {
        Self { entry: Some(Box::new(entry)), ..Self::ALREADY_ISSUED }
    }

    pub(super) fn not_open(opens_in: Option<Duration>) -> Self {
        Self { retry: opens_in.map_or(Retry::Never, Retry::After), ..Self::NOT_OPEN }
    }

    pub(super) fn below_issued(issued: u32) -> Self {
        Self::BELOW_ISSUED.with(format!("{issued} are issued"))
    }

    pub(super) fn held(holders: u64) -> Self {
        Self::HELD.with(format!("{holders} are issued; the next round begins without holders"))
    }

    pub(super) fn another_round(current: u32) -> Self {
        Self { round: Some(current), ..Self::ANOTHER_ROUND.with(format!("the current round is {current}")) }
    }

    /// The body alone.
    pub(super) fn text(self) -> String {
        serde_json::to_string(&self.body()).expect("its members are text and numbers")
    }

    fn body(self) -> ProblemBody {
        let Self { status, kind, title, detail, entry, round, .. } = self;
        ProblemBody { r#type: kind, title, status: status.as_u16(), detail, entry, round }
    }

    fn retry_after(&self) -> Option<u64> {
        match self.retry {
            Retry::Never => None,
            Retry::Soon => Some(fastrand::u64(1..=3)),
            Retry::After(duration) => Some(duration.as_secs() + u64::from(duration.subsec_nanos() > 0)),
        }
    }
}

impl From<IssueError> for Problem {
    fn from(error: IssueError) -> Self {
        match error {
            IssueError::Busy => Self::BUSY,
            IssueError::Unavailable(cause) => {
                tracing::debug!(error = cause.as_deref().map(|it| it as &dyn std::error::Error), "issue failed");
                Self::UNAVAILABLE
            }
        }
    }
}

impl From<StoreError> for Problem {
    fn from(error: StoreError) -> Self {
        tracing::warn!(error = &error as &dyn std::error::Error, "the database gave no answer");
        Self::UNAVAILABLE
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let (status, retry_after) = (self.status, self.retry_after());
        let mut response = (status, Json(self.body())).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        if let Some(seconds) = retry_after {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        if status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}

/// What a client gets when a handler panicked.
pub(super) fn after_panic(_: Box<dyn Any + Send + 'static>) -> Response<Body> {
    tracing::error!("a handler panicked");
    Problem::INTERNAL.into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nginxs_own_refusals_have_the_types_and_titles_of_the_services() {
        let nginx = include_str!("../../nginx/nginx.conf");
        let ours = [
            Problem::NOT_FOUND,
            Problem::METHOD_NOT_ALLOWED,
            Problem::UNAVAILABLE,
            Problem::TOO_LARGE,
            Problem::MALFORMED,
            Problem::URI_TOO_LONG,
            Problem::HEADERS_TOO_LARGE,
            Problem::INTERNAL,
        ];
        for Problem { status, kind, title, .. } in ours {
            let same = format!(r#"        {} '"type":"{kind}","title":"{title}","detail":"#, status.as_u16());
            assert!(nginx.contains(&same), "{same}");
        }
    }
}
