//! What is refused before the service has read it, by nginx or by hyper, and what is odd and served: through nginx, byte by byte.

use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::documented::{assert_named, assert_problem};
use crate::support::{Answer, Balancer, Cluster, Setup, sample};

const HOST: &str = "host: x\r\nconnection: close\r\n";

/// The bytes of a request: its first line, its headers, its body.
fn request(line: &str, headers: &str, body: &str) -> Vec<u8> {
    format!("{line}\r\n{HOST}{headers}\r\n{body}").into_bytes()
}

fn get(path: &str) -> Vec<u8> {
    request(&format!("GET {path} HTTP/1.1"), "", "")
}

fn post(headers: &str, body: &str) -> Vec<u8> {
    request("POST /coupons/issue HTTP/1.1", &format!("content-type: application/json\r\n{headers}"), body)
}

fn headers(count: usize, length: usize) -> String {
    format!("x: {}\r\n", "v".repeat(length)).repeat(count)
}

/// Sends bytes that may be no request and returns the answer behind any `100 Continue`.
async fn send(url: &str, bytes: &[u8]) -> Answer {
    let mut connection = TcpStream::connect(url.strip_prefix("http://").unwrap()).await.unwrap();
    // A server that refuses may close before it has read all; its answer is there all the same.
    let _ = connection.write_all(bytes).await;
    let mut read = Vec::new();
    let all = tokio::time::timeout(Duration::from_secs(15), connection.read_to_end(&mut read));
    let _ = all.await.expect("the connection closes");
    let text = String::from_utf8(read).unwrap();
    let text = text.strip_prefix("HTTP/1.1 100 Continue\r\n\r\n").unwrap_or(&text);
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no answer to {bytes:?}"));
    let mut lines = head.lines();
    let status = lines.next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
    let pairs = lines.map(|line| line.split_once(": ").unwrap());
    let headers = pairs.map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect();
    Answer { status, headers, text: body.to_owned() }
}

async fn start() -> (Cluster, Balancer) {
    let cluster = Setup::new("batched").replicas(1).start().await;
    let balancer = Balancer::start(&cluster, &[&cluster.replicas[0].url]).await;
    (cluster, balancer)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_nginx_refuses_by_itself_is_a_problem_with_an_id() {
    let (cluster, balancer) = start().await;
    for (bytes, status, kind) in by_nginx() {
        let answer = send(&balancer.url, &bytes).await;
        assert_eq!(answer.status, status, "{}", String::from_utf8_lossy(&bytes[..bytes.len().min(80)]));
        assert_problem_of_nginx(&answer, status, kind);
    }
    balancer.stop().await;
    cluster.finish().await;
}

/// A problem of nginx's; a method's refusal names the ones there are.
fn assert_problem_of_nginx(answer: &Answer, status: u16, kind: &str) {
    assert_problem(answer, status, &format!("/problems/{kind}"));
    assert_named(answer, false);
    assert_eq!(answer.headers.contains_key("allow"), status == 405, "{:?}", answer.headers);
    assert_eq!(answer.header("x-content-type-options"), "nosniff");
    assert_eq!(answer.header("cache-control"), "no-store");
}

fn by_nginx() -> Vec<(Vec<u8>, u16, &'static str)> {
    let malformed = [
        b"hello\r\n\r\n".to_vec(),
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03 a client that speaks TLS\r\n\r\n".to_vec(),
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(),
        b"GET / HTTP/1.1\r\n\r\n".to_vec(),
        get("/\u{1}"),
        get("/../../etc"),
        get("/%00"),
        get("/%zz"),
        request("get / HTTP/1.1", "", ""),
        request("OPTIONS * HTTP/1.1", "", ""),
        request("GET / HTTP/1.1", "host: y\r\n", ""),
        request("GET / HTTP/1.1", "no colon\r\n", ""),
        request("GET / HTTP/1.1", "x : space\r\n", ""),
        request("GET / HTTP/1.1", "x: \0\r\n", ""),
        post("content-length: x\r\n", ""),
        post("content-length: -1\r\n", ""),
        post("content-length: 1\r\ncontent-length: 1\r\n", "x"),
        post("content-length: 1\r\ntransfer-encoding: chunked\r\n", "0\r\n\r\n"),
        post("transfer-encoding: chunked\r\n", "zz\r\nabc\r\n0\r\n\r\n"),
    ];
    let others = [
        (get("/admin/audit"), 404, "not-found"),
        (get("/problems/nginx"), 404, "not-found"),
        (request("TRACE /version HTTP/1.1", "", ""), 405, "method-not-allowed"),
        (request("TRACE /coupons/issue HTTP/1.1", "", ""), 405, "method-not-allowed"),
        (request("TRACE /docs/ HTTP/1.1", "", ""), 405, "method-not-allowed"),
        (post("content-length: 20000\r\n", &"x".repeat(20_000)), 413, "payload-too-large"),
        (post("content-length: 20000\r\nexpect: 100-continue\r\n", ""), 413, "payload-too-large"),
        (post("transfer-encoding: chunked\r\n", &format!("7000\r\n{}", "x".repeat(0x7000))), 413, "payload-too-large"),
        (get(&format!("/{}", "x".repeat(9_000))), 414, "uri-too-long"),
        (request("GET / HTTP/1.1", &headers(1, 9_000), ""), 431, "headers-too-large"),
        (request("GET / HTTP/1.1", &headers(6, 7_000), ""), 431, "headers-too-large"),
        (post("transfer-encoding: gzip\r\n", ""), 501, "not-implemented"),
        (request("GET / HTTP/2.0", "", ""), 505, "version-not-supported"),
    ];
    malformed.into_iter().map(|bytes| (bytes, 400, "malformed")).chain(others).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_hyper_refuses_is_a_problem_and_counted_through_nginx_and_at_the_replica() {
    let (cluster, balancer) = start().await;
    let counted = async |status: u16| {
        let series =
            format!(r#"http_request_duration_seconds_count{{method="other",route="other",status="{status}"}}"#);
        sample(&cluster.client, &cluster.replicas[0].ops_url, &series).await
    };
    for (bytes, status, kind) in by_hyper() {
        let before = counted(status).await;
        for url in [&balancer.url, &cluster.replicas[0].url] {
            let answer = send(url, &bytes).await;
            assert_problem(&answer, status, &format!("/problems/{kind}"));
            assert_named(&answer, false);
        }
        assert_eq!(counted(status).await, before + 2.0, "{}", String::from_utf8_lossy(&bytes[..80]));
    }
    // nginx takes no replica for dead because of them.
    assert_eq!(cluster.client.get(&format!("{}/version", balancer.url)).await.status, 200);
    balancer.stop().await;
    cluster.finish().await;
}

fn by_hyper() -> Vec<(Vec<u8>, u16, &'static str)> {
    let body = format!("content-length: 16000\r\n{}", headers(120, 5));
    let mut bytes_of_no_text = get("/coupons/A1");
    let place = bytes_of_no_text.iter().position(|byte| *byte == b'1').unwrap();
    bytes_of_no_text[place] = 0xff;
    vec![
        (get("/coupons/A<1"), 400, "malformed"),
        (get("/coupons?<1"), 400, "malformed"),
        (get("/coupons/^`>"), 400, "malformed"),
        (bytes_of_no_text, 400, "malformed"),
        (request("POST /coupons/issue?a<b HTTP/1.1", "content-length: 2\r\n", "{}"), 400, "malformed"),
        (request("GET /version HTTP/1.1", "x: a\u{1}b\r\n", ""), 400, "malformed"),
        (post("idempotency-key: a\u{7f}b\r\ncontent-length: 2\r\n", "{}"), 400, "malformed"),
        (request("GET /version HTTP/1.1", &headers(120, 5), ""), 431, "headers-too-large"),
        (request("GET /version HTTP/1.1", &headers(400, 60), ""), 431, "headers-too-large"),
        (post(&body, &"x".repeat(16_000)), 431, "headers-too-large"),
    ]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn odd_clients_are_served_like_others() {
    let (cluster, balancer) = start().await;
    let order = |user: &str| format!(r#"{{"code":"A","userId":"{user}"}}"#);
    let sized = |body: &str| format!("content-length: {}\r\n", body.len());
    let (one, two, three) = (order("u-1"), order("u-2"), order("u-3"));
    let served = [
        (b"GET /version HTTP/1.0\r\n\r\n".to_vec(), 200),
        (request("GET http://elsewhere/version HTTP/1.1", "", ""), 200),
        (request("GET /version HTTP/1.1", &headers(80, 5), ""), 200),
        (request("GET /version HTTP/1.1", "content-length: 16000\r\n", &"x".repeat(16_000)), 200),
        (request("POST /version HTTP/1.1", "content-length: 16000\r\n", &"x".repeat(16_000)), 405),
        (request("POST /coupons/issue HTTP/1.1", "content-length: 16000\r\n", &"x".repeat(16_000)), 415),
        (post(&sized(&one), &one), 201),
        (post(&format!("{}expect: 100-continue\r\n", sized(&two)), &two), 201),
        (post("transfer-encoding: chunked\r\n", &format!("{:x}\r\n{three}\r\n0\r\n\r\n", three.len())), 201),
    ];
    for (bytes, status) in served {
        let answer = send(&balancer.url, &bytes).await;
        assert_eq!(answer.status, status, "{}: {}", String::from_utf8_lossy(&bytes[..24]), answer.text);
        assert_ne!(answer.json(), Value::Null);
        assert_eq!(answer.header("x-request-id").len(), 32, "{:?}", answer.headers);
    }
    balancer.stop().await;
    cluster.finish().await;
}
