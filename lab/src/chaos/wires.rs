//! The first replica's own ways to the lock nodes, which can be cut for it alone: the others go on reaching every node.

use std::thread;
use std::time::Duration;

use anyhow::Context;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, tcp};
use tokio::runtime::Builder;
use tokio::sync::{oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::sleep;

use crate::cluster::Redis;

const BUFFER: usize = 16 * 1024;

/// What becomes of what goes along a wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Whole,
    /// Nothing arrives and nobody is told; what was sent meanwhile arrives late, as after lost packets.
    Silent,
    /// Connections break, and new ones as soon as they are made.
    Broken,
}

/// One wire to each lock node, for as long as this lives. They have a thread of their own: a crowd that keeps ours busy must not
/// delay what goes along them.
pub struct Wires {
    urls: Vec<String>,
    states: Vec<watch::Sender<State>>,
    /// The wires' thread ends when this goes.
    _held: oneshot::Sender<()>,
}

impl Wires {
    /// Listens once for every node.
    pub fn lay(nodes: &[Redis]) -> anyhow::Result<Self> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let (held, ended) = oneshot::channel::<()>();
        let (mut wires, mut carriers) = (Self { urls: Vec::new(), states: Vec::new(), _held: held }, JoinSet::new());
        for node in nodes {
            let address = node.url.strip_prefix("redis://").context("a lock node without an address")?;
            let listener = std::net::TcpListener::bind("127.0.0.1:0").context("cannot listen for a replica")?;
            listener.set_nonblocking(true)?;
            wires.urls.push(format!("redis://{}", listener.local_addr()?));
            let (sender, state) = watch::channel(State::Whole);
            wires.states.push(sender);
            carriers.spawn_on(serve(listener, address.to_owned(), state), runtime.handle());
        }
        let work = move || {
            // Nothing is ever sent: the sender goes.
            let _ = runtime.block_on(ended);
            drop(carriers);
        };
        thread::Builder::new().name("wires".to_owned()).spawn(work)?;
        Ok(wires)
    }

    /// Where the replica finds the nodes, in their order: what `REDIS_URLS` takes.
    pub fn urls(&self) -> String {
        self.urls.join(",")
    }

    /// Cuts one wire or a majority of them, silently or not, and makes them whole again. Tells whether there were connections along
    /// each, that is whether the replica does use them.
    pub async fn cut(&self, pick: u32, lasts: Duration) -> bool {
        let state = if pick.is_multiple_of(2) { State::Silent } else { State::Broken };
        let (all, first) = (self.states.len(), (pick / 4) as usize);
        let count = if (pick / 2).is_multiple_of(2) { 1 } else { all / 2 + 1 };
        let cut: Vec<_> = (first..first + count).map(|place| &self.states[place % all]).collect();
        // Who listens for new connections holds one receiver, and every connection some more.
        let hit = cut.iter().all(|wire| wire.receiver_count() > 1);
        for (state, lasts) in [(state, lasts), (State::Whole, Duration::ZERO)] {
            for wire in &cut {
                wire.send_replace(state);
            }
            sleep(lasts).await;
        }
        hit
    }
}

async fn serve(listener: std::net::TcpListener, node: String, state: watch::Receiver<State>) {
    let listener = TcpListener::from_std(listener).expect("it was made for a runtime");
    let mut connections = JoinSet::new();
    while let Ok((near, _)) = listener.accept().await {
        connections.spawn(carry(near, node.clone(), state.clone()));
        while connections.try_join_next().is_some() {}
    }
}

/// Carries one connection until either side ends it or the wire breaks; then both are closed.
async fn carry(near: TcpStream, node: String, mut state: watch::Receiver<State>) {
    let whole = state.clone();
    let both = async move {
        let far = TcpStream::connect(node).await?;
        near.set_nodelay(true)?;
        far.set_nodelay(true)?;
        let ((asked, to_near), (answered, to_far)) = (near.into_split(), far.into_split());
        tokio::select! {
            ended = pass(asked, to_far, whole.clone()) => ended,
            ended = pass(answered, to_near, whole) => ended,
        }
    };
    tokio::select! {
        // How a connection ends is its users' matter.
        _ = both => {}
        _ = state.wait_for(|state| *state == State::Broken) => {}
    }
}

async fn pass(
    mut from: tcp::OwnedReadHalf,
    mut to: tcp::OwnedWriteHalf,
    mut state: watch::Receiver<State>,
) -> std::io::Result<()> {
    let mut buffer = vec![0; BUFFER];
    loop {
        let size = from.read(&mut buffer).await?;
        let whole = state.wait_for(|state| *state == State::Whole).await.map(drop);
        if size == 0 || whole.is_err() {
            return Ok(());
        }
        to.write_all(&buffer[..size]).await?;
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::timeout;

    use super::*;

    const SILENT: u32 = 0;
    const BROKEN: u32 = 1;
    const LASTS: Duration = Duration::from_secs(2);

    /// Sends back what it gets, as a lock node that answers; whatever the test's own thread does.
    fn echo() -> Redis {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("redis://{}", listener.local_addr().unwrap());
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                thread::spawn(move || std::io::copy(&mut &stream, &mut &stream));
            }
        });
        Redis { url, pid: None }
    }

    async fn connect(wires: &Wires) -> TcpStream {
        TcpStream::connect(wires.urls().strip_prefix("redis://").unwrap()).await.unwrap()
    }

    async fn ask(stream: &mut TcpStream) -> std::io::Result<usize> {
        stream.write_all(b"PING").await?;
        stream.read(&mut [0; 4]).await
    }

    #[tokio::test]
    async fn what_is_sent_along_a_silent_wire_arrives_when_it_is_whole_again() {
        let wires = Wires::lay(&[echo()]).unwrap();
        let mut stream = connect(&wires).await;
        assert_eq!(ask(&mut stream).await.unwrap(), 4);

        let (answer, hit) = tokio::join!(
            async {
                tokio::task::yield_now().await;
                stream.write_all(b"PING").await.unwrap();
                let during = timeout(LASTS / 20, stream.read(&mut [0; 4])).await;
                assert!(during.is_err(), "a silent wire carried an answer");
                stream.read(&mut [0; 4]).await
            },
            wires.cut(SILENT, LASTS)
        );

        assert_eq!((answer.unwrap(), hit), (4, true));
    }

    #[tokio::test]
    async fn who_keeps_the_laboratory_busy_does_not_hold_up_what_goes_along_a_wire() {
        let wires = Wires::lay(&[echo()]).unwrap();
        let mut stream = std::net::TcpStream::connect(wires.urls().strip_prefix("redis://").unwrap()).unwrap();
        stream.set_read_timeout(Some(LASTS)).unwrap();

        // The only thread of this test's runtime waits here.
        std::io::Write::write_all(&mut stream, b"PING").unwrap();
        let answer = std::io::Read::read(&mut stream, &mut [0; 4]);

        assert_eq!(answer.unwrap(), 4);
    }

    #[tokio::test]
    async fn a_wire_that_nobody_uses_is_not_hit() {
        let wires = Wires::lay(&[echo()]).unwrap();
        assert!(!wires.cut(BROKEN, Duration::ZERO).await);
    }

    #[tokio::test]
    async fn a_broken_wire_ends_its_connections_and_carries_new_ones_when_it_is_whole_again() {
        let wires = Wires::lay(&[echo()]).unwrap();
        let mut stream = connect(&wires).await;
        assert_eq!(ask(&mut stream).await.unwrap(), 4);

        let mut nothing = [0; 4];
        let (ended, _) = tokio::join!(stream.read(&mut nothing), wires.cut(BROKEN, LASTS));

        assert!(matches!(ended, Ok(0) | Err(_)), "{ended:?}");
        assert_eq!(ask(&mut connect(&wires).await).await.unwrap(), 4);
    }
}
