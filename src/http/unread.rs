//! What hyper refuses before the service has read it: a head that is no HTTP, an address that is none, too many headers. hyper
//! answers that with a bare head; here it gets what every refusal has, a problem, an id and a count.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::serve::Listener;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::observe::{OTHER, REQUEST_ID, new_id};
use super::problem::Problem;
use crate::metrics::HttpMetrics;

/// How hyper ends the head of an answer that has no body; all of the service's have one.
const BARE: &str = "content-length: 0\r\n";

/// A listener on whose connections hyper's refusals are explained.
pub struct Explained<L> {
    listener: L,
    metrics: HttpMetrics,
}

impl<L> Explained<L> {
    /// The same listener; refusals are counted in `metrics`.
    pub fn new(listener: L, metrics: HttpMetrics) -> Self {
        Self { listener, metrics }
    }
}

impl<L: Listener> Listener for Explained<L> {
    type Io = Connection<L::Io>;
    type Addr = L::Addr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        let (io, address) = self.listener.accept().await;
        (Connection { io, metrics: self.metrics.clone(), unsent: Vec::new() }, address)
    }

    fn local_addr(&self) -> io::Result<Self::Addr> {
        self.listener.local_addr()
    }
}

/// A client's connection.
pub struct Connection<S> {
    io: S,
    metrics: HttpMetrics,
    /// What is left to send of a refusal. hyper closes the connection behind it, and flushes before.
    unsent: Vec<u8>,
}

impl<S: AsyncWrite + Unpin> Connection<S> {
    /// Takes hyper's refusal out of what is to be written. Returns whether it was one.
    fn takes(&mut self, head: &[u8]) -> bool {
        let Some((status, answer)) = explained(head) else { return false };
        self.metrics.answered(OTHER, OTHER, status, Duration::ZERO);
        self.unsent = answer;
        true
    }

    fn send(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.unsent.is_empty() {
            let sent = ready!(Pin::new(&mut self.io).poll_write(context, &self.unsent))?;
            self.unsent.drain(..sent);
            if sent == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
        }
        Poll::Ready(Ok(()))
    }
}

/// The status of hyper's own refusal and the whole answer; `None` for an answer of the service.
fn explained(head: &[u8]) -> Option<(u16, Vec<u8>)> {
    let status = head.strip_prefix(b"HTTP/1.1 ")?.get(..3)?;
    let (status, problem) = match status {
        b"400" => (400, Problem::malformed("this is not an HTTP request that can be understood")),
        b"414" => (414, Problem::URI_TOO_LONG),
        b"431" => (431, Problem::HEADERS_TOO_LARGE),
        _ => return None,
    };
    let (before, after) = std::str::from_utf8(head).ok()?.split_once(BARE)?;
    let (id, body) = (new_id(), problem.text());
    let kind = "content-type: application/problem+json";
    let length = body.len();
    let answer = format!("{before}{kind}\r\ncontent-length: {length}\r\n{REQUEST_ID}: {id}\r\n{after}{body}");
    Some((status, answer.into_bytes()))
}

impl<S: AsyncRead + Unpin> AsyncRead for Connection<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(cx, buf)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Connection<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        if self.takes(buf) { Poll::Ready(Ok(buf.len())) } else { Pin::new(&mut self.io).poll_write(cx, buf) }
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match bufs {
            [only] if self.takes(only) => Poll::Ready(Ok(only.len())),
            _ => Pin::new(&mut self.io).poll_write_vectored(cx, bufs),
        }
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.send(cx))?;
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.send(cx))?;
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}
