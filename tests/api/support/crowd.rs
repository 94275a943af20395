//! Connections by the thousand.

use futures_util::future::join_all;
use tokio::net::TcpStream;
use tokio::sync::{Mutex, MutexGuard};

/// How many connect at once, so that no queue of connections overflows.
const PORTION: usize = 500;

/// Lets one test at a time have a crowd: `local/test-rust` allows 20,000 open files, and half of them are a server's.
pub async fn alone() -> MutexGuard<'static, ()> {
    static CROWDS: Mutex<()> = Mutex::const_new(());
    CROWDS.lock().await
}

/// Connects so often to `http://host:port`.
pub async fn connect(url: &str, connections: usize) -> Vec<TcpStream> {
    let address = url.strip_prefix("http://").unwrap();
    let mut open = Vec::new();
    while open.len() < connections {
        let portion = PORTION.min(connections - open.len());
        let portion = join_all((0..portion).map(|_| TcpStream::connect(address))).await;
        open.extend(portion.into_iter().map(|it| it.expect("`ulimit -n` allows 12,000 open files")));
    }
    open
}
