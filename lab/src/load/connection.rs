//! One client: takes a turn, asks, reads the answer, counts it.

use std::cell::RefCell;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::answer::{Inbox, Malformed};
use super::outcome::{Outcome, Tally, Unsent};
use super::requests::Writer;
use super::turns::Turns;
use super::{Plan, Until};

/// Pause after a refused connection, so that a server which is down is not hammered.
const RECONNECT_PAUSE: Duration = Duration::from_millis(20);

/// What the clients of one run share. All of them live on one thread.
pub(super) struct Run {
    writer: Writer,
    turns: Rc<Turns>,
    tally: RefCell<Tally>,
}

impl Run {
    pub(super) fn new(plan: &Plan, turns: Rc<Turns>) -> Self {
        let host = plan.url.trim_start_matches("http://").trim_end_matches('/');
        let window = match plan.until {
            Until::Elapsed(time) => Some(time),
            Until::Sent(_) => None,
        };
        let tally = Tally::new(&plan.expect, plan.keep_acks, turns.measured_from(), window);
        Self { writer: Writer::new(&plan.requests, host), turns, tally: RefCell::new(tally) }
    }

    pub(super) fn answered(&self) -> u64 {
        self.tally.borrow().answered()
    }

    pub(super) fn finish(&self, cpu_seconds: f64) -> Outcome {
        let mut tally = self.tally.borrow_mut();
        let now = Instant::now();
        let mut unsent = 0;
        for due in self.turns.unsent() {
            tally.waited(now - due);
            unsent += 1;
        }
        tally.finish(Unsent { unsent, late: self.turns.late() }, cpu_seconds)
    }
}

/// A connection and what has arrived on it.
pub(super) struct Connection {
    address: SocketAddr,
    stream: TcpStream,
    inbox: Inbox,
}

/// How an exchange can fail.
pub(super) enum Broken {
    /// The connection ended, or never came to be.
    Closed,
    /// What came was no answer.
    Malformed,
}

impl From<io::Error> for Broken {
    fn from(_: io::Error) -> Self {
        Self::Closed
    }
}

impl From<Malformed> for Broken {
    fn from(_: Malformed) -> Self {
        Self::Malformed
    }
}

impl Connection {
    pub(super) async fn open(address: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        Ok(Self { address, stream, inbox: Inbox::default() })
    }

    async fn reopen(&mut self) -> io::Result<()> {
        *self = Self::open(self.address).await?;
        Ok(())
    }

    /// Asks, and hands the answer to `tally`. Tells whether the server closes the connection now.
    async fn exchange(&mut self, request: &[u8], from: Instant, tally: &RefCell<Tally>) -> Result<bool, Broken> {
        self.stream.write_all(request).await?;
        loop {
            if self.stream.read_buf(self.inbox.space()).await? == 0 {
                return Err(Broken::Closed);
            }
            if let Some(answer) = self.inbox.next()? {
                tally.borrow_mut().answer(answer.status, answer.body, from);
                return Ok(answer.closes);
            }
        }
    }
}

/// Asks until the run is over.
pub(super) async fn work(run: Rc<Run>, mut connection: Connection) {
    let mut request = Vec::new();
    while let Some(from) = run.turns.next().await {
        run.writer.write(&mut request);
        run.tally.borrow_mut().sent(from);
        let closes = match connection.exchange(&request, from, &run.tally).await {
            Ok(closes) => closes,
            Err(broken) => {
                run.tally.borrow_mut().broken(&broken, from);
                true
            }
        };
        if closes {
            while connection.reopen().await.is_err() {
                run.tally.borrow_mut().refused();
                if run.turns.over() {
                    return;
                }
                tokio::time::sleep(RECONNECT_PAUSE).await;
            }
        }
    }
}
