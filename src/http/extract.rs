//! How requests are read: every malformed one becomes a problem with the right status before any work is queued.

use std::error::Error;
use std::fmt;
use std::marker::PhantomData;

use axum::body::to_bytes;
use axum::extract::{FromRequest, FromRequestParts, Path, Request};
use axum::http::HeaderMap;
use axum::http::request::Parts;
use http_body_util::LengthLimitError;
use serde::de::value::MapAccessDeserializer;
use serde::de::{DeserializeOwned, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};

use super::BODY_MAX;
use super::problem::Problem;
use crate::coupons::{Code, Timestamp, UserId, Window};

/// What an id must look like, for people.
pub(super) const ID_RULE: &str = "must match ^[A-Za-z0-9._:-]{1,36}$ and be neither . nor ..";

/// A JSON body: an object.
pub(super) struct Json<T>(pub(super) T);

/// What is written as an object. By itself serde also takes an array of the members' values for a struct.
struct Object<T>(T);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Object<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(Members(PhantomData)).map(Self)
    }
}

/// Reads a `T` from its members by name.
struct Members<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de>> Visitor<'de> for Members<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, members: A) -> Result<T, A::Error> {
        T::deserialize(MapAccessDeserializer::new(members))
    }
}

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for Json<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, _: &S) -> Result<Self, Problem> {
        if !is_json(request.headers()) {
            return Err(Problem::not_json());
        }
        let body = to_bytes(request.into_body(), BODY_MAX).await.map_err(|error| unreadable(&error))?;
        match serde_json::from_slice(&body) {
            Ok(Object(value)) => Ok(Self(value)),
            Err(error) if error.is_data() => Err(Problem::invalid(with_member::<T>(&body, &error))),
            Err(error) => Err(Problem::malformed(error.to_string())),
        }
    }
}

/// What is wrong, and with which member. The body is read once more for that, so that good ones do not pay for it.
fn with_member<T: DeserializeOwned>(body: &[u8], error: &serde_json::Error) -> String {
    let again = serde_path_to_error::deserialize::<_, T>(&mut serde_json::Deserializer::from_slice(body));
    let member = again.err().map(|error| error.path().to_string()).filter(|path| path != ".");
    member.map_or_else(|| error.to_string(), |member| format!("{member}: {error}"))
}

/// A member that may be null and may not be left out: one that was forgotten would take a bound away.
pub(super) fn nullable<'de, D: Deserializer<'de>, T: Deserialize<'de>>(member: D) -> Result<Option<T>, D::Error> {
    Option::deserialize(member)
}

/// Whether the body is declared as `application/json` or as another kind of JSON.
fn is_json(headers: &HeaderMap) -> bool {
    let declared = text(headers, "content-type").ok().flatten().unwrap_or_default();
    let kind = declared.split_once(';').map_or(declared, |(kind, _)| kind).trim().to_ascii_lowercase();
    kind.strip_prefix("application/").is_some_and(|kind| kind == "json" || kind.ends_with("+json"))
}

/// A body that is too long, or that did not come to its end.
fn unreadable(error: &axum::Error) -> Problem {
    if error.source().is_some_and(<dyn Error>::is::<LengthLimitError>) {
        Problem::too_large()
    } else {
        Problem::malformed("the body broke off")
    }
}

/// A code in the path.
pub(super) struct CodeInPath(pub(super) Code);

impl<S: Send + Sync> FromRequestParts<S> for CodeInPath {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let text = segment(parts, state).await?;
        Code::parse(&text).map(Self).ok_or_else(|| Problem::invalid(format!("code {ID_RULE}")))
    }
}

/// A user id in the path.
pub(super) struct UserInPath(pub(super) UserId);

impl<S: Send + Sync> FromRequestParts<S> for UserInPath {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let text = segment(parts, state).await?;
        UserId::parse(&text).map(Self).ok_or_else(|| Problem::invalid(format!("userId {ID_RULE}")))
    }
}

async fn segment<S: Send + Sync>(parts: &mut Parts, state: &S) -> Result<String, Problem> {
    let Path(text) = Path::<String>::from_request_parts(parts, state)
        .await
        .map_err(|_| Problem::invalid("the path holds an id that is no UTF-8"))?;
    Ok(text)
}

/// The text of a header that may come once; `None` when it is missing, an error when it comes twice or is no visible ASCII.
pub(super) fn text<'a>(headers: &'a HeaderMap, name: &str) -> Result<Option<&'a str>, ()> {
    let mut given = headers.get_all(name).iter();
    let (value, None) = (given.next(), given.next()) else { return Err(()) };
    value.map(|value| value.to_str().map_err(|_| ())).transpose()
}

/// The first microsecond after the year 9999 in UTC, for which the database has no DATETIME. An offset leads there.
const YEAR_10000: i64 = 253_402_300_800_000_000;

/// Reads a window: both bounds must be RFC 3339 from 1970 to 9999, and the opening must lie before the closing.
pub(super) fn window(opens_at: Option<&str>, closes_at: Option<&str>) -> Result<Window, Problem> {
    let time = |name: &str, text: Option<&str>| {
        text.map(|text| {
            Timestamp::parse(text)
                .filter(|time| (0..YEAR_10000).contains(&time.0))
                .ok_or_else(|| Problem::invalid(format!("{name} must be an RFC 3339 time from 1970 to 9999, or null")))
        })
        .transpose()
    };
    let window = Window { opens_at: time("opensAt", opens_at)?, closes_at: time("closesAt", closes_at)? };
    if let (Some(opens), Some(closes)) = (window.opens_at, window.closes_at)
        && opens >= closes
    {
        return Err(Problem::invalid("opensAt must be before closesAt"));
    }
    Ok(window)
}
