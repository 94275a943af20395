//! A load generator for HTTP/1.1 that leaves the machine to those it measures: one thread, raw bytes, no client library.
//! It knows how to ask and how to count; what the figures mean is the caller's business.
//!
//! Two ways to ask. *Closed*: every connection asks again as soon as it was answered. *Open*: requests are due at a
//! constant rate whether or not earlier ones were answered, and a latency counts from the moment its request was due,
//! so that a slow server cannot hide behind the questions it kept from being asked.

use std::cell::Cell;
use std::net::{SocketAddr, ToSocketAddrs};
use std::rc::Rc;
use std::thread;
use std::time::Duration;

use anyhow::{Context, anyhow};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use tokio::sync::oneshot;
use tokio::task::LocalSet;
use tokio::time::{Instant, sleep_until, timeout_at};

use crate::processes::of_this_thread;

mod answer;
mod command;
mod connection;
mod outcome;
mod requests;
mod turns;

pub use command::Command;
use connection::Connection;
pub use outcome::{Errors, Outcome};
pub use requests::{Requests, Users};

/// How long the last answers may take after the end of a run. Twice the service's own deadline: whoever was not answered
/// by then was forgotten.
const PATIENCE: Duration = Duration::from_secs(10);
/// Open files that are no connection of a load.
const FILES_BESIDE: u64 = 64;

/// One load on one address.
#[derive(Clone, Debug)]
pub struct Plan {
    /// `http://host:port`; nothing else is spoken.
    pub url: String,
    /// Connections, opened before the clock starts and kept.
    pub connections: usize,
    /// How requests follow each other.
    pub pace: Pace,
    /// When no more requests are sent.
    pub until: Until,
    /// What is asked.
    pub requests: Requests,
    /// The statuses that a figure may be made of. Any other is counted, and is in neither the rate nor the latencies.
    pub expect: Vec<u16>,
    /// Keep the bodies of 200 and 201: see [`Outcome::acks`].
    pub keep_acks: bool,
}

/// How requests follow each other.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Pace {
    /// Each connection asks again as soon as it was answered.
    Closed,
    /// So many requests are due each second, at equal distances.
    Open(f64),
}

/// When no more requests are sent. Those that are under way are still awaited.
#[derive(Clone, Copy, Debug)]
pub enum Until {
    /// After this time.
    Elapsed(Duration),
    /// After so many requests.
    Sent(u64),
}

/// A load that is connected and has not begun, so that its caller can read the counters of others at the right moment.
pub struct Load {
    /// How long the load warms up.
    go: oneshot::Sender<Duration>,
    outcome: oneshot::Receiver<Outcome>,
}

impl Load {
    /// Opens all connections. The error says which address refused.
    pub async fn connect(plan: Plan) -> anyhow::Result<Self> {
        let address = address(&plan.url)?;
        let (connected, is_connected) = oneshot::channel();
        let (go, may_go) = oneshot::channel();
        let (tell, outcome) = oneshot::channel();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        // Made on the thread it runs on: what the connections share needs no locks then.
        let work = move || {
            LocalSet::new().block_on(&runtime, async {
                let connections = match open(address, plan.connections).await {
                    Ok(connections) => connections,
                    Err(error) => return drop(connected.send(Err(error))),
                };
                if connected.send(Ok(())).is_ok()
                    && let Ok(warm_up) = may_go.await
                {
                    run(&plan, warm_up, connections, tell).await;
                }
            });
        };
        thread::Builder::new().name("load".to_owned()).spawn(work)?;
        is_connected.await.map_err(|_| anyhow!("the load's thread ended early"))??;
        Ok(Self { go, outcome })
    }

    /// Sends everything and awaits the answers, and the same load for a while before: what is due, or asked, in that time is sent and
    /// answered, and in no figure but the coupons that clients were promised. Only a load that ends by time can warm up. A caller that
    /// drops the future ends the load.
    pub async fn run_warmed(self, warm_up: Duration) -> anyhow::Result<Outcome> {
        self.go.send(warm_up).map_err(|_| anyhow!("the load's thread ended early"))?;
        self.outcome.await.context("the load's thread ended early")
    }
}

/// Connects, warms nothing up, runs.
pub async fn load(plan: Plan) -> anyhow::Result<Outcome> {
    Load::connect(plan).await?.run_warmed(Duration::ZERO).await
}

fn address(url: &str) -> anyhow::Result<SocketAddr> {
    let host = url.strip_prefix("http://").map(|rest| rest.trim_end_matches('/'));
    let host = host.with_context(|| format!("{url} is no http:// address"))?;
    let found = host.to_socket_addrs().with_context(|| format!("{url}: give http://host:port"))?.next();
    found.with_context(|| format!("{host} has no address"))
}

/// A connection is an open file; many systems allow a thousand until they are asked.
fn allow_files(connections: usize) -> anyhow::Result<()> {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    let wanted = connections as u64 + FILES_BESIDE;
    anyhow::ensure!(
        wanted <= hard,
        "{connections} connections need {wanted} open files, {hard} are allowed: see ulimit -Hn"
    );
    if soft < wanted {
        setrlimit(Resource::RLIMIT_NOFILE, wanted, hard)?;
    }
    Ok(())
}

async fn open(address: SocketAddr, wanted: usize) -> anyhow::Result<Vec<Connection>> {
    allow_files(wanted)?;
    let mut connections = Vec::with_capacity(wanted);
    for _ in 0..wanted {
        let connection = Connection::open(address).await;
        connections.push(connection.with_context(|| format!("cannot open {wanted} connections to {address}"))?);
    }
    Ok(connections)
}

/// Runs on a thread of its own, so that its processor time is the load's and nobody else's.
async fn run(plan: &Plan, warm_up: Duration, connections: Vec<Connection>, mut tell: oneshot::Sender<Outcome>) {
    let run = Rc::new(connection::Run::new(plan, warm_up));
    let begin = run.turns.measured_from;
    let mut clients = tokio::task::JoinSet::new();
    for connection in connections {
        clients.spawn_local(connection::work(Rc::clone(&run), connection));
    }
    let answered = async {
        let all = async { while clients.join_next().await.is_some() {} };
        match plan.until {
            Until::Elapsed(time) => drop(timeout_at((begin + time + PATIENCE).into(), all).await),
            Until::Sent(_) => patient(&run, all).await,
        }
    };
    let cpu_before = Cell::new(of_this_thread());
    let warmed = async {
        sleep_until(begin.into()).await;
        cpu_before.set(of_this_thread());
    };
    tokio::select! {
        () = async { tokio::join!(run.turns.keep_time(), answered, warmed); } => {}
        () = tell.closed() => return,
    }
    let outcome = run.finish(of_this_thread() - cpu_before.get());
    drop(clients);
    // Nobody waits for it any more: then nobody misses it.
    let _ = tell.send(outcome);
}

/// Awaits `all` for as long as answers still come.
async fn patient(run: &connection::Run, all: impl Future<Output = ()>) {
    let mut all = std::pin::pin!(all);
    let answered = || run.tally.borrow().outcome.answered();
    let mut before = answered();
    while timeout_at(Instant::now() + PATIENCE, &mut all).await.is_err() {
        if answered() == std::mem::replace(&mut before, answered()) {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{TcpListener, TcpStream};

    use super::*;

    const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
    const REFUSAL: &[u8] = b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n";

    /// What comes of a load on a server for one connection at a time; `answer` is told the number of each request.
    async fn ask(
        mut answer: impl AsyncFnMut(u64, &mut TcpStream) -> bool,
        pace: Pace,
        until: Until,
        warm_up: Duration,
    ) -> Outcome {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (url, path) = (format!("http://{}", listener.local_addr().unwrap()), "/".to_owned());
        let requests = Requests::Get { path };
        let plan = Plan { url, connections: 1, pace, until, requests, expect: vec![200], keep_acks: true };
        let serve = async {
            let mut number = 0;
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                // The load asks once and waits, so a read is a request.
                while matches!(stream.read(&mut [0; 1_024]).await, Ok(length) if length > 0) {
                    number += 1;
                    if !answer(number, &mut stream).await {
                        break;
                    }
                }
            }
        };
        tokio::select! {
            outcome = async { Load::connect(plan).await?.run_warmed(warm_up).await } => outcome.unwrap(),
            () = serve => unreachable!("it serves for ever"),
        }
    }

    #[tokio::test]
    async fn a_connection_that_breaks_is_opened_again_and_what_was_not_expected_is_in_no_figure() {
        let answer = async |number, stream: &mut TcpStream| {
            let bytes = if number % 2 == 0 { REFUSAL } else { ANSWER };
            number != 3 && stream.write_all(bytes).await.is_ok()
        };
        let outcome = ask(answer, Pace::Closed, Until::Sent(10), Duration::ZERO).await;

        assert_eq!(outcome.errors, Errors { closed: 1, ..Errors::default() });
        assert_eq!(outcome.by_status, [(200, 4), (502, 5)].into());
        assert_eq!((outcome.answers, outcome.latency.len()), (4, 4));
    }

    #[tokio::test]
    async fn a_server_that_stalls_shows_it_in_all_that_was_due_meanwhile() {
        let answer = async |number, stream: &mut TcpStream| {
            if number == 20 {
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
            stream.write_all(ANSWER).await.is_ok()
        };
        let time = Until::Elapsed(Duration::from_millis(400));
        let outcome = ask(answer, Pace::Open(500.0), time, Duration::ZERO).await;

        // A closed loop would have met the stall once. Half of it is 100 ms, in which 50 requests were due.
        assert_eq!(outcome.with_status(200), 200);
        let waited = outcome.latency.count_between(100_000, u64::MAX);
        assert!(waited >= 50, "{waited} requests waited 100 ms");
        assert!(outcome.late >= 50, "{} were late", outcome.late);
    }

    #[tokio::test]
    async fn the_time_without_an_answer_goes_on_to_the_end_where_none_comes_again() {
        let answer = async |number, stream: &mut TcpStream| {
            stream.write_all(if number <= 10 { ANSWER } else { REFUSAL }).await.is_ok()
        };
        let time = Until::Elapsed(Duration::from_millis(400));
        let outcome = ask(answer, Pace::Open(100.0), time, Duration::ZERO).await;

        assert_eq!(outcome.by_status, [(200, 10), (502, 30)].into());
        let gap = outcome.longest_gap;
        assert!((Duration::from_millis(250)..Duration::from_millis(400)).contains(&gap), "{gap:?}");
    }

    #[tokio::test]
    async fn what_is_sent_to_warm_up_is_in_no_figure_but_promises() {
        let answer = async |_, stream: &mut TcpStream| stream.write_all(ANSWER).await.is_ok();
        let time = Until::Elapsed(Duration::from_millis(100));
        let outcome = ask(answer, Pace::Open(500.0), time, Duration::from_millis(200)).await;

        assert_eq!((outcome.with_status(200), outcome.latency.len(), outcome.errors), (50, 50, Errors::default()));
        assert!((1..=50).contains(&outcome.sent), "{} were sent in time", outcome.sent);
        assert_eq!(outcome.promised().split(|byte| *byte == b'\n').filter(|ack| !ack.is_empty()).count(), 150);
    }
}
