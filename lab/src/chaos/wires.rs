//! The first replica's own ways to the lock nodes, which can be cut for it alone: the others go on reaching every node.

use std::time::Duration;

use anyhow::Context;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, tcp};
use tokio::sync::watch;
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

/// One wire to each lock node, for as long as this lives.
pub struct Wires {
    urls: Vec<String>,
    states: Vec<watch::Sender<State>>,
    carriers: JoinSet<()>,
}

impl Wires {
    /// Listens once for every node.
    pub async fn lay(nodes: &[Redis]) -> anyhow::Result<Self> {
        let mut wires = Self { urls: Vec::new(), states: Vec::new(), carriers: JoinSet::new() };
        for node in nodes {
            let address = node.url.strip_prefix("redis://").context("a lock node without an address")?;
            let listener = TcpListener::bind("127.0.0.1:0").await.context("cannot listen for a replica")?;
            wires.urls.push(format!("redis://{}", listener.local_addr()?));
            let (sender, state) = watch::channel(State::Whole);
            wires.states.push(sender);
            wires.carriers.spawn(serve(listener, address.to_owned(), state));
        }
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

async fn serve(listener: TcpListener, node: String, state: watch::Receiver<State>) {
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

    /// Sends back what it gets, as a lock node that answers.
    async fn echo() -> Redis {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("redis://{}", listener.local_addr().unwrap());
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                tokio::spawn(async move {
                    let (mut from, mut to) = stream.split();
                    tokio::io::copy(&mut from, &mut to).await
                });
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
        let wires = Wires::lay(&[echo().await]).await.unwrap();
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
    async fn a_wire_that_nobody_uses_is_not_hit() {
        let wires = Wires::lay(&[echo().await]).await.unwrap();
        assert!(!wires.cut(BROKEN, Duration::ZERO).await);
    }

    #[tokio::test]
    async fn a_broken_wire_ends_its_connections_and_carries_new_ones_when_it_is_whole_again() {
        let wires = Wires::lay(&[echo().await]).await.unwrap();
        let mut stream = connect(&wires).await;
        assert_eq!(ask(&mut stream).await.unwrap(), 4);

        let mut nothing = [0; 4];
        let (ended, _) = tokio::join!(stream.read(&mut nothing), wires.cut(BROKEN, LASTS));

        assert!(matches!(ended, Ok(0) | Err(_)), "{ended:?}");
        assert_eq!(ask(&mut connect(&wires).await).await.unwrap(), 4);
    }
}
