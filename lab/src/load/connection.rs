//! One client: takes a turn, asks, reads the answer, counts it.

use std::cell::RefCell;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::Plan;
use super::answer::Inbox;
use super::outcome::{Outcome, Tally};
use super::requests::Writer;
use super::turns::Turns;

/// Pause after a refused connection, so that a server which is down is not hammered.
const RECONNECT_PAUSE: Duration = Duration::from_millis(20);

/// What the clients of one run share. All of them live on one thread.
pub(super) struct Run {
    writer: Writer,
    pub(super) turns: Turns,
    pub(super) tally: RefCell<Tally>,
}

impl Run {
    pub(super) fn new(plan: &Plan, warm_up: Duration) -> Self {
        let host = plan.url.trim_start_matches("http://").trim_end_matches('/');
        let turns = Turns::new(plan.pace, plan.until, warm_up);
        let tally = RefCell::new(Tally::new(plan, turns.measured_from));
        Self { writer: Writer::new(&plan.requests, host), turns, tally }
    }

    pub(super) fn finish(&self, cpu_seconds: f64) -> Outcome {
        self.tally.borrow_mut().finish(self.turns.unsent(), self.turns.late.get(), cpu_seconds)
    }
}

pub(super) struct Connection {
    address: SocketAddr,
    stream: TcpStream,
    inbox: Inbox,
}

impl Connection {
    pub(super) async fn open(address: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        Ok(Self { address, stream, inbox: Inbox::default() })
    }

    /// Asks, and hands the answer to `tally`. Tells whether the server closes the connection now.
    async fn exchange(&mut self, request: &[u8], from: Instant, tally: &RefCell<Tally>) -> io::Result<bool> {
        self.stream.write_all(request).await?;
        loop {
            if self.stream.read_buf(self.inbox.space()).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            if let Some(answer) = self.inbox.next()? {
                tally.borrow_mut().answer(answer.status, answer.body, from);
                return Ok(answer.closes);
            }
        }
    }
}

pub(super) async fn work(run: Rc<Run>, mut connection: Connection) {
    let mut request = Vec::new();
    while let Some(from) = run.turns.next().await {
        run.writer.write(&mut request);
        run.tally.borrow_mut().sent(from);
        let done = connection.exchange(&request, from, &run.tally).await;
        if let Err(error) = &done {
            run.tally.borrow_mut().broken(error, from);
        }
        if !done.unwrap_or(true) {
            continue;
        }
        connection = loop {
            match Connection::open(connection.address).await {
                Ok(connection) => break connection,
                Err(_) => run.tally.borrow_mut().outcome.errors.refused += 1,
            }
            if run.turns.over() {
                return;
            }
            tokio::time::sleep(RECONNECT_PAUSE).await;
        };
    }
}
