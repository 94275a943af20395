//! Distance between the replicas and their servers: a proxy that delays what goes through it, both ways, for as long as it runs.
//!
//! The kernels of rented machines often lack netem, which would do it better. Order is kept and no byte is changed; a connection is
//! made without delay. One thread carries all of it, so that its own cost is one figure.

use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::Context;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;

use crate::alarm::Alarm;
use crate::interrupt::Interrupt;
use crate::numbers::within;

const BUFFER: usize = 64 * 1024;
/// Pieces of a connection that are under way in one direction. A sender that is faster waits, as on a long line.
const UNDER_WAY_MAX: usize = 1_024;

/// Put a round trip between replicas and their servers, until it is stopped: what `make up DISTANCE_MS=1` does
#[derive(clap::Args, Debug)]
pub struct Command {
    /// The round trip that is added, in milliseconds
    #[arg(long, value_name = "MS", value_parser = within(0.0..=60_000.0))]
    round_trip_ms: f64,
    /// A client of LISTEN reaches SERVER; both are addresses such as 127.0.0.1:6391
    #[arg(long = "link", value_name = "LISTEN=SERVER", required = true, value_parser = link)]
    links: Vec<(SocketAddr, SocketAddr)>,
}

/// Where a server is reached with a delay, and the server.
fn link(text: &str) -> Result<(SocketAddr, SocketAddr), String> {
    let (listen, server) = text.split_once('=').ok_or("a link is LISTEN=SERVER")?;
    let address = |text: &str| text.parse().map_err(|error| format!("{text}: {error}"));
    Ok((address(listen)?, address(server)?))
}

impl Command {
    /// Carries until it is interrupted; exit status 0.
    pub async fn run(&self, interrupt: Interrupt) -> anyhow::Result<u8> {
        let delay = Duration::from_secs_f64(self.round_trip_ms / 2e3);
        for (listen, server) in &self.links {
            start(*listen, *server, delay).await?;
        }
        let _: anyhow::Result<()> = interrupt.or(std::future::pending()).await;
        Ok(0)
    }
}

/// Listens for the clients of a server, `delay` away in each direction; it ends with the runtime. Returns where it listens.
pub async fn start(listen: SocketAddr, server: SocketAddr, delay: Duration) -> anyhow::Result<SocketAddr> {
    let listener = TcpListener::bind(listen).await.with_context(|| format!("cannot listen at {listen}"))?;
    let listen = listener.local_addr()?;
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            tokio::spawn(connect(client, server, delay));
        }
    });
    Ok(listen)
}

/// Carries one connection until a side breaks it, or both have ended it.
async fn connect(client: TcpStream, server: SocketAddr, delay: Duration) -> io::Result<()> {
    let server = TcpStream::connect(server).await?;
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    let ((from_client, to_client), (from_server, to_server)) = (client.into_split(), server.into_split());
    tokio::try_join!(carry(from_client, to_server, delay), carry(from_server, to_client, delay))?;
    Ok(())
}

/// One direction. What was read is written when its time has come, and so is the end.
async fn carry(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, delay: Duration) -> io::Result<()> {
    let (sender, mut receiver) = mpsc::channel::<(Instant, Vec<u8>)>(UNDER_WAY_MAX);
    let read = async move {
        loop {
            let mut piece = vec![0; BUFFER];
            let size = from.read(&mut piece).await?;
            piece.truncate(size);
            if sender.send((Instant::now() + delay, piece)).await.is_err() || size == 0 {
                return Ok(());
            }
        }
    };
    let write = async move {
        let mut alarm = Alarm::new()?;
        while let Some((due, piece)) = receiver.recv().await {
            alarm.wait_until(due).await?;
            if piece.is_empty() {
                return to.shutdown().await;
            }
            to.write_all(&piece).await?;
        }
        Ok(())
    };
    tokio::try_join!(read, write)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn every_byte_arrives_in_order_after_its_time_and_so_does_the_end() {
        const DELAY: Duration = Duration::from_millis(20);
        let echo = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let server = echo.local_addr().unwrap();
        tokio::spawn(async move {
            let (stream, _) = echo.accept().await.unwrap();
            let (mut from, mut to) = stream.into_split();
            tokio::io::copy(&mut from, &mut to).await.unwrap();
        });
        let listen = start("127.0.0.1:0".parse().unwrap(), server, DELAY).await.unwrap();
        let (mut from, mut to) = TcpStream::connect(listen).await.unwrap().into_split();
        let sent: Vec<u8> = (0..1_000_000_u32).flat_map(u32::to_le_bytes).collect();
        let (began, expected) = (Instant::now(), sent.clone());
        tokio::spawn(async move { to.write_all(&sent).await });
        let mut first = [0; 1];
        from.read_exact(&mut first).await.unwrap();
        assert!(began.elapsed() >= 2 * DELAY, "{:?}", began.elapsed());
        let mut received = first.to_vec();
        from.read_to_end(&mut received).await.unwrap();
        assert!(received == expected, "{} bytes", received.len());
    }
}
