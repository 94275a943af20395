//! A plain HTTP client. Dropping a request's future closes its connection, as a client that hangs up does.

use std::time::Duration;

use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use hyper::{HeaderMap, Request};
use hyper_util::client::legacy;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde_json::Value;

/// Longer than any answer may take.
const TIMEOUT: Duration = Duration::from_secs(20);

/// Asks servers on loopback.
#[derive(Clone)]
pub struct Client(legacy::Client<HttpConnector, Full<Bytes>>);

/// What came back.
#[derive(Clone, Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: HeaderMap,
    pub text: String,
}

impl Answer {
    /// The body as JSON; null when it is none.
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or(Value::Null)
    }

    /// One member of the body.
    pub fn member(&self, name: &str) -> Value {
        self.json()[name].clone()
    }

    /// A header's text; empty when it is missing.
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }
}

impl Client {
    pub fn new() -> Self {
        Self(legacy::Client::builder(TokioExecutor::new()).build(HttpConnector::new()))
    }

    pub async fn get(&self, url: &str) -> Answer {
        self.send("GET", url, &[], None).await
    }

    /// Sends a JSON body, or none.
    pub async fn send(&self, method: &str, url: &str, headers: &[(&str, &str)], body: Option<&Value>) -> Answer {
        let bytes = body.map(|body| body.to_string().into_bytes()).unwrap_or_default();
        let mut all = vec![];
        if body.is_some() {
            all.push(("content-type", "application/json"));
        }
        all.extend_from_slice(headers);
        self.raw(method, url, &all, bytes).await
    }

    /// Sends any body. Status 0 stands for no answer at all.
    pub async fn raw(&self, method: &str, url: &str, headers: &[(&str, &str)], body: Vec<u8>) -> Answer {
        let mut request = Request::builder().method(method).uri(url);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Full::new(Bytes::from(body))).unwrap();
        let ask = async {
            let response = self.0.request(request).await.ok()?;
            let (parts, body) = response.into_parts();
            let bytes = body.collect().await.ok()?.to_bytes();
            let text = String::from_utf8_lossy(&bytes).into_owned();
            Some(Answer { status: parts.status.as_u16(), headers: parts.headers, text })
        };
        let answer = tokio::time::timeout(TIMEOUT, ask).await.expect("an answer or an error comes in time");
        answer.unwrap_or(Answer { status: 0, headers: HeaderMap::new(), text: String::new() })
    }
}
