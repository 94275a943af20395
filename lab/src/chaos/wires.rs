//! The first replica's own ways to the lock nodes, which can be cut for it alone: the others go on reaching every node.

use std::time::Duration;

use anyhow::Context;
use tokio::runtime::{Builder, Runtime};
use tokio::time::sleep;

use crate::cluster::Server;
use crate::proxy::FaultProxy;

/// One wire to each lock node, for as long as this lives. They have a thread of their own: a crowd that keeps ours busy must not
/// delay what goes along them.
pub struct Wires {
    wires: Vec<FaultProxy>,
    runtime: Option<Runtime>,
}

impl Wires {
    /// Listens once for every node.
    pub async fn lay(nodes: &[Server]) -> anyhow::Result<Self> {
        let runtime = Builder::new_multi_thread().worker_threads(1).thread_name("wires").enable_all().build()?;
        let mut wires = Vec::new();
        for node in nodes {
            let address = node.url.strip_prefix("redis://").context("a lock node without an address")?;
            wires.push(runtime.spawn(FaultProxy::start(address.parse()?)).await??);
        }
        Ok(Self { wires, runtime: Some(runtime) })
    }

    /// Where the replica finds the nodes, in their order: what `REDIS_URLS` takes.
    pub fn urls(&self) -> String {
        let urls: Vec<_> = self.wires.iter().map(|wire| format!("redis://127.0.0.1:{}", wire.port)).collect();
        urls.join(",")
    }

    /// Cuts one wire or a majority of them, silently or not, and makes them whole again. Tells whether there were connections along
    /// each, that is whether the replica does use them.
    pub async fn cut(&self, pick: u32, lasts: Duration) -> bool {
        let cut = if pick.is_multiple_of(2) { FaultProxy::silence } else { FaultProxy::refuse };
        let (all, first) = (self.wires.len(), (pick / 4) as usize);
        let count = if (pick / 2).is_multiple_of(2) { 1 } else { all / 2 + 1 };
        let wires: Vec<_> = (first..first + count).map(|place| &self.wires[place % all]).collect();
        let hit = wires.iter().all(|wire| wire.connections() > 0);
        for wire in &wires {
            cut(wire);
        }
        sleep(lasts).await;
        for wire in &wires {
            wire.heal();
        }
        hit
    }
}

impl Drop for Wires {
    fn drop(&mut self) {
        // Waiting for it is not allowed here.
        self.runtime.take().into_iter().for_each(Runtime::shutdown_background);
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpStream;
    use tokio::time::timeout;

    use super::*;

    const SILENT: u32 = 0;
    const BROKEN: u32 = 1;
    const LASTS: Duration = Duration::from_secs(2);

    /// Sends back what it gets, as a lock node that answers; whatever the test's own thread does.
    fn echo() -> Server {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("redis://{}", listener.local_addr().unwrap());
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                thread::spawn(move || std::io::copy(&mut &stream, &mut &stream));
            }
        });
        Server { url, pid: None }
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
        let wires = Wires::lay(&[echo()]).await.unwrap();
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
    async fn a_busy_laboratory_does_not_hold_up_what_goes_along_a_wire() {
        let wires = Wires::lay(&[echo()]).await.unwrap();
        let mut stream = std::net::TcpStream::connect(wires.urls().strip_prefix("redis://").unwrap()).unwrap();
        stream.set_read_timeout(Some(LASTS)).unwrap();

        // The only thread of this test's runtime waits here.
        std::io::Write::write_all(&mut stream, b"PING").unwrap();
        let answer = std::io::Read::read(&mut stream, &mut [0; 4]);

        assert_eq!(answer.unwrap(), 4);
    }

    #[tokio::test]
    async fn a_wire_that_nobody_uses_is_not_hit() {
        let wires = Wires::lay(&[echo()]).await.unwrap();
        assert!(!wires.cut(BROKEN, Duration::ZERO).await);
    }

    #[tokio::test]
    async fn a_broken_wire_ends_its_connections_and_carries_new_ones_when_it_is_whole_again() {
        let wires = Wires::lay(&[echo()]).await.unwrap();
        let mut stream = connect(&wires).await;
        assert_eq!(ask(&mut stream).await.unwrap(), 4);

        let mut nothing = [0; 4];
        let (ended, _) = tokio::join!(stream.read(&mut nothing), wires.cut(BROKEN, LASTS));

        assert!(matches!(ended, Ok(0) | Err(_)), "{ended:?}");
        assert_eq!(ask(&mut connect(&wires).await).await.unwrap(), 4);
    }
}
