//! `traceparent`, as the W3C's Trace Context has it: to which trace of the platform a request belongs. It is only ever logged.

use std::fmt;

use axum::http::HeaderMap;

use super::extract::text;

/// The id of a trace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct TraceId(u128);

impl fmt::Display for TraceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

/// The id in the one `traceparent` of a request. Anything malformed counts as none: what a stranger writes is not logged as it is.
pub(super) fn id(headers: &HeaderMap) -> Option<TraceId> {
    parse(text(headers, "traceparent").ok()??)
}

/// Reads `00-<32 hex>-<16 hex>-<2 hex>`, in lower case, neither id all zeros.
fn parse(text: &str) -> Option<TraceId> {
    let mut parts = text.split('-');
    let (version, trace, parent, flags) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    if version != "00" || parts.next().is_some() {
        return None;
    }
    let (trace, parent, _) = (hex(trace, 32)?, hex(parent, 16)?, hex(flags, 2)?);
    (trace != 0 && parent != 0).then_some(TraceId(trace))
}

/// A number in so many lower-case hex digits.
fn hex(text: &str, digits: usize) -> Option<u128> {
    let is_hex = text.len() == digits && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    is_hex.then(|| u128::from_str_radix(text, 16).ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";

    #[test]
    fn a_trace_has_its_id_or_none() {
        let good = format!("00-{TRACE}-00f067aa0ba902b7-01");
        assert_eq!(parse(&good).unwrap().to_string(), TRACE);
        let bad = [
            String::new(),
            TRACE.to_owned(),
            good.to_uppercase(),
            good.replacen("00-", "01-", 1),
            good.replacen("00-", "ff-", 1),
            format!("{good}-more"),
            format!(" {good}"),
            good.replace('4', "+"),
            good.replace(TRACE, &"0".repeat(32)),
            good.replace("00f067aa0ba902b7", &"0".repeat(16)),
            good.replace(TRACE, &TRACE[1..]),
            format!("00-{TRACE}-00f067aa0ba902b7"),
            format!("00-{TRACE}-00f067aa0ba902b7-1"),
        ];
        for text in bad {
            assert_eq!(parse(&text), None, "{text}");
        }
    }

    #[test]
    fn two_parents_are_none() {
        let one = format!("00-{TRACE}-00f067aa0ba902b7-01").parse().unwrap();
        let mut headers = HeaderMap::new();
        headers.append("traceparent", one);
        assert!(id(&headers).is_some());
        headers.append("traceparent", headers["traceparent"].clone());
        assert_eq!(id(&headers), None);
    }
}
