//! The bytes of a request, laid out once and changed in place: the next user is a few digits.

use std::cell::Cell;

use serde_json::json;

/// Digits of a user's number: enough for every request of a run, and every request is equally long.
const DIGITS: usize = 10;
/// Stands where the user's number goes until it is known.
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
    /// `POST /coupons/issue` of the same size, with a user that every replica refuses before it does anything: 422.
    Refused,
}

/// Who asks. Users are named `{prefix}-{number}`.
#[derive(Clone, Debug)]
pub enum Users {
    /// A new one with every request, from number 0.
    New {
        /// The first part of their names.
        prefix: String,
    },
    /// So many, each in turn, over and over.
    Fixed {
        /// The first part of their names.
        prefix: String,
        /// How many; at least one.
        count: u64,
    },
}

impl Users {
    fn prefix(&self) -> &str {
        match self {
            Self::New { prefix } | Self::Fixed { prefix, .. } => prefix,
        }
    }

    fn number(&self, request: u64) -> u64 {
        match self {
            Self::New { .. } => request,
            Self::Fixed { count, .. } => request % count,
        }
    }
}

/// Writes one request after the other.
pub(super) struct Writer {
    templates: Vec<Template>,
    users: Option<Users>,
    written: Cell<u64>,
}

/// A request with gaps for a number.
struct Template {
    bytes: Vec<u8>,
    gaps: Vec<usize>,
}

impl Writer {
    pub(super) fn new(requests: &Requests, host: &str) -> Self {
        let (texts, users) = match requests {
            Requests::Get { path } => (vec![format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n")], None),
            Requests::Issue { codes, users, key } => {
                let user = format!("{}-{BLANK}", users.prefix());
                let key = format!("{key}-{BLANK}");
                (codes.iter().map(|code| post(host, code, &user, &key)).collect(), Some(users.clone()))
            }
            // A space is in no user's name, and everything else is as in an issue.
            Requests::Refused => (vec![post(host, "A001", "refused 0123456789", "refused-0123456789")], None),
        };
        Self { templates: texts.into_iter().map(Template::new).collect(), users, written: Cell::new(0) }
    }

    /// Puts the next request into `bytes`.
    pub(super) fn write(&self, bytes: &mut Vec<u8>) {
        let request = self.written.replace(self.written.get() + 1);
        let codes = self.templates.len() as u64;
        #[expect(clippy::cast_possible_truncation, reason = "below the number of templates")]
        let template = &self.templates[(request % codes) as usize];
        bytes.clear();
        bytes.extend_from_slice(&template.bytes);
        let Some(users) = &self.users else { return };
        let mut number = users.number(request);
        let mut digits = [b'0'; DIGITS];
        for digit in digits.iter_mut().rev() {
            *digit += u8::try_from(number % 10).unwrap_or(0);
            number /= 10;
        }
        for &gap in &template.gaps {
            bytes[gap..gap + DIGITS].copy_from_slice(&digits);
        }
    }
}

fn post(host: &str, code: &str, user: &str, key: &str) -> String {
    let body = json!({ "code": code, "userId": user }).to_string();
    format!(
        "POST /coupons/issue HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\n\
         Idempotency-Key: {key}\r\nContent-Length: {}\r\n\r\n{body}",
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

    fn written(requests: &Requests, count: usize) -> Vec<String> {
        let writer = Writer::new(requests, "h:1");
        let mut bytes = Vec::new();
        let one = |_| {
            writer.write(&mut bytes);
            String::from_utf8(bytes.clone()).unwrap()
        };
        (0..count).map(one).collect()
    }

    fn users(requests: &Requests, count: usize) -> Vec<String> {
        let body = |text: String| text.split_once("\r\n\r\n").unwrap().1.to_owned();
        written(requests, count).into_iter().map(body).collect()
    }

    fn issue(codes: &[&str], users: Users) -> Requests {
        Requests::Issue { codes: codes.iter().map(ToString::to_string).collect(), users, key: "k".to_owned() }
    }

    #[test]
    fn a_request_is_whole_and_says_its_length() {
        let text = &written(&issue(&["A001"], Users::New { prefix: "u".to_owned() }), 2)[1];

        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        assert_eq!(body, r#"{"code":"A001","userId":"u-0000000001"}"#);
        assert!(head.starts_with("POST /coupons/issue HTTP/1.1\r\nHost: h:1\r\n"), "{head}");
        assert!(head.contains("\r\nIdempotency-Key: k-0000000001\r\n"), "{head}");
        assert!(head.ends_with(&format!("\r\nContent-Length: {}", body.len())), "{head}");
    }

    #[test]
    fn users_are_new_or_fixed() {
        let prefix = || "u".to_owned();
        let of = |code: &str, number: u64| format!(r#"{{"code":"{code}","userId":"u-{number:010}"}}"#);

        let new = users(&issue(&["A", "B"], Users::New { prefix: prefix() }), 3);
        let fixed = users(&issue(&["A"], Users::Fixed { prefix: prefix(), count: 2 }), 3);

        assert_eq!(new, [of("A", 0), of("B", 1), of("A", 2)]);
        assert_eq!(fixed, [of("A", 0), of("A", 1), of("A", 0)]);
    }

    #[test]
    fn the_refused_request_is_as_long_as_an_issue() {
        let issue = &written(&issue(&["A001"], Users::New { prefix: "refused".to_owned() }), 1)[0];
        let refused = &written(&Requests::Refused, 1)[0];

        assert!(issue.len().abs_diff(refused.len()) <= 8, "{} and {}", issue.len(), refused.len());
    }
}
