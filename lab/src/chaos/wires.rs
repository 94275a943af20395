//! The first replica's own ways to the lock nodes, which can be cut for it alone: the others go on reaching every node.

use std::time::Duration;

use anyhow::Context;
use tokio::runtime::{Builder, Runtime};
use tokio::time::sleep;

use super::supervised::{MOST, ONE, from};
use crate::cluster::Server;
use crate::proxy::FaultProxy;

/// One wire to each lock node, for as long as this lives. They have a thread of their own: a crowd that keeps ours busy must not
/// delay what goes along them.
pub struct Wires {
    wires: Vec<FaultProxy>,
    runtime: Option<Runtime>,
}

impl Wires {
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
        let many = if (pick / 2).is_multiple_of(2) { ONE } else { MOST };
        let mut wires = from(self.wires.iter().collect(), pick / 4);
        wires.truncate(many(wires.len()));
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
    use std::{io, thread};

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpStream;
    use tokio::time::timeout;

    use super::*;

    const SILENT: u32 = 0;
    const BROKEN: u32 = 1;
    const LASTS: Duration = Duration::from_secs(2);

    /// A wire to what sends back whatever it gets, as a lock node that answers; whatever the test's own thread does. And where it begins.
    async fn wire() -> (Wires, String) {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("redis://{}", listener.local_addr().unwrap());
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                thread::spawn(move || io::copy(&mut &stream, &mut &stream));
            }
        });
        let wires = Wires::lay(&[Server { url, pid: None }]).await.unwrap();
        let address = wires.urls().replace("redis://", "");
        (wires, address)
    }

    async fn ask(stream: &mut TcpStream) -> io::Result<usize> {
        stream.write_all(b"PING").await?;
        stream.read(&mut [0; 4]).await
    }

    #[tokio::test]
    async fn a_silent_wire_carries_late_and_a_broken_one_nothing_until_it_is_whole_again() {
        let (wires, address) = wire().await;
        assert!(!wires.cut(BROKEN, Duration::ZERO).await, "nobody uses it");
        for (cut, late) in [(SILENT, 4), (BROKEN, 0)] {
            let mut stream = TcpStream::connect(&address).await.unwrap();
            assert_eq!(ask(&mut stream).await.unwrap(), 4);
            let answer = async {
                tokio::task::yield_now().await;
                let during = timeout(LASTS / 20, ask(&mut stream)).await;
                let is_kept_waiting = during.is_err();
                assert_eq!(is_kept_waiting, cut == SILENT, "{during:?}");
                assert!(!matches!(during, Ok(Ok(4))), "a wire that was cut carried an answer");
                stream.read(&mut [0; 4]).await.unwrap_or(0)
            };

            assert_eq!(tokio::join!(answer, wires.cut(cut, LASTS)), (late, true));
            assert_eq!(ask(&mut TcpStream::connect(&address).await.unwrap()).await.unwrap(), 4);
        }
    }

    #[tokio::test]
    async fn a_busy_laboratory_does_not_hold_up_what_goes_along_a_wire() {
        let (_wires, address) = wire().await;
        let mut stream = std::net::TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(LASTS)).unwrap();

        // The only thread of this test's runtime waits here.
        io::Write::write_all(&mut stream, b"PING").unwrap();

        assert_eq!(io::Read::read(&mut stream, &mut [0; 4]).unwrap(), 4);
    }
}
