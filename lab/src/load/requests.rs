//! The bytes of a request, laid out once and changed in place: the next user is a few digits.

use std::cell::Cell;
use std::io::Write;

use serde_json::json;

/// Stands where the user's number goes until it is known: as many digits, so that every request is equally long.
const BLANK: &str = "##########";

/// What is asked, again and again.
#[derive(Clone, Debug)]
pub enum Requests {
    /// `GET path`.
    Get {
        /// Path and query.
        path: String,
    },
    /// `POST /coupons/issue`, always with an `Idempotency-Key`.
    Issue {
        /// Asked for in turn.
        codes: Vec<String>,
        /// Who asks.
        users: Users,
        /// Part of every key. With another one, the same user makes another request.
        key: String,
    },
}

/// Who asks. Users are named `{prefix}-{number}`.
#[derive(Clone, Debug)]
pub struct Users {
    /// The first part of their names.
    pub prefix: String,
    /// So many, at least one, each in turn, over and over; `None`: a new one with every request.
    pub count: Option<u64>,
}

impl Users {
    /// A new one with every request, from number 0.
    pub fn new(prefix: impl Into<String>) -> Self {
        Self { prefix: prefix.into(), count: None }
    }
}

pub(super) struct Writer {
    templates: Vec<Template>,
    /// Of users; `None`: as many as requests.
    count: Option<u64>,
    written: Cell<u64>,
}

/// A request with gaps for a number.
struct Template {
    bytes: Vec<u8>,
    gaps: Vec<usize>,
}

impl Writer {
    pub(super) fn new(requests: &Requests, host: &str) -> Self {
        let (texts, count) = match requests {
            Requests::Get { path } => (vec![format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n")], None),
            Requests::Issue { codes, users: Users { prefix, count }, key } => {
                (codes.iter().map(|code| post(host, code, prefix, key)).collect(), *count)
            }
        };
        Self { templates: texts.into_iter().map(Template::new).collect(), count, written: Cell::new(0) }
    }

    pub(super) fn write(&self, bytes: &mut Vec<u8>) {
        let request = self.written.replace(self.written.get() + 1);
        let codes = self.templates.len() as u64;
        #[expect(clippy::cast_possible_truncation, reason = "below the number of templates")]
        let template = &self.templates[(request % codes) as usize];
        bytes.clear();
        bytes.extend_from_slice(&template.bytes);
        let number = self.count.map_or(request, |count| request % count);
        for &gap in &template.gaps {
            write!(&mut bytes[gap..gap + BLANK.len()], "{number:010}").expect("ten digits fit");
        }
    }
}

fn post(host: &str, code: &str, prefix: &str, key: &str) -> String {
    let body = json!({ "code": code, "userId": format!("{prefix}-{BLANK}") }).to_string();
    format!(
        "POST /coupons/issue HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\n\
         Idempotency-Key: {key}-{BLANK}\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
}

impl Template {
    fn new(text: String) -> Self {
        let gaps = text.match_indices(BLANK).map(|(at, _)| at).collect();
        Self { bytes: text.into_bytes(), gaps }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(codes: &[&str], users: Users, count: usize) -> Vec<String> {
        let (codes, key) = (codes.iter().map(ToString::to_string).collect(), "k".to_owned());
        let writer = Writer::new(&Requests::Issue { codes, users, key }, "h:1");
        let mut bytes = Vec::new();
        let one = |_| {
            writer.write(&mut bytes);
            String::from_utf8(bytes.clone()).unwrap()
        };
        (0..count).map(one).collect()
    }

    #[test]
    fn a_request_is_whole_and_says_its_length() {
        let text = &written(&["A001"], Users::new("u"), 2)[1];

        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        assert_eq!(body, r#"{"code":"A001","userId":"u-0000000001"}"#);
        assert!(head.starts_with("POST /coupons/issue HTTP/1.1\r\nHost: h:1\r\n"), "{head}");
        assert!(head.contains("\r\nIdempotency-Key: k-0000000001\r\n"), "{head}");
        assert!(head.ends_with(&format!("\r\nContent-Length: {}", body.len())), "{head}");
    }

    #[test]
    fn users_are_new_or_fixed() {
        let is = |text: &String, code: &str, number: u64| {
            text.ends_with(&format!(r#"{{"code":"{code}","userId":"u-{number:010}"}}"#))
        };

        let new = written(&["A", "B"], Users::new("u"), 3);
        let fixed = written(&["A"], Users { count: Some(2), ..Users::new("u") }, 3);

        assert!(is(&new[0], "A", 0) && is(&new[1], "B", 1) && is(&new[2], "A", 2), "{new:?}");
        assert!(is(&fixed[0], "A", 0) && is(&fixed[1], "A", 1) && is(&fixed[2], "A", 0), "{fixed:?}");
    }
}
