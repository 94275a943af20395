//! A TCP proxy that breaks what goes through it, on the runtime that it was started on. TLS goes through untouched.
//!
//! The protocols of databases and lock nodes alternate: the client speaks, the server answers. So points are counted in *turns* of
//! a connection, the first packets of a client after an answer.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use anyhow::Context;
use parking_lot::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// What happens to a connection at its turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The client's packet never reaches the server; both sides are closed.
    Unsent,
    /// The packet reaches the server, which works on it for nobody: the client's side is closed at once.
    Orphaned,
    /// The packet reaches the server, its answer is awaited and thrown away; then both sides are closed.
    Unanswered,
    /// The packet never reaches the server, and nobody is told.
    Frozen,
    /// The packet reaches the server, its answer never comes, and nobody is told.
    FrozenAnswer,
    /// The packet never reaches the server, which is not told either when the client closes its side: the host is lost.
    Vanished,
}

const BUFFER: usize = 64 * 1024;

/// The proxy; it ends with its runtime.
pub struct FaultProxy {
    /// Where it listens, at 127.0.0.1.
    pub port: u16,
    state: Arc<State>,
}

struct State {
    /// Where new connections lead to.
    server: Mutex<SocketAddr>,
    refusing: AtomicBool,
    silent: watch::Sender<bool>,
    connections: Mutex<Vec<Weak<Connection>>>,
    newcomers: Mutex<Option<(u32, Fault)>>,
    struck: AtomicU32,
}

struct Connection {
    used: Mutex<Instant>,
    /// Turns left until the fault strikes, counting the one at which it does.
    plan: Mutex<Option<(u32, Fault)>>,
    cut: CancellationToken,
}

impl FaultProxy {
    /// Listens for the clients of `server`.
    pub async fn start(server: SocketAddr) -> anyhow::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await.context("cannot listen for a server's clients")?;
        let port = listener.local_addr()?.port();
        let (server, connections, newcomers) = (Mutex::new(server), Mutex::default(), Mutex::default());
        let (silent, refusing, struck) = (watch::Sender::new(false), AtomicBool::default(), AtomicU32::default());
        let state = Arc::new(State { server, refusing, silent, connections, newcomers, struck });
        let shared = Arc::clone(&state);
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                if !shared.refusing.load(Ordering::SeqCst) {
                    let server = *shared.server.lock();
                    tokio::spawn(shared.connection().carry(client, server, Arc::clone(&shared)));
                }
            }
        });
        Ok(Self { port, state })
    }

    /// How many connections there are.
    pub fn connections(&self) -> usize {
        self.state.connections().len()
    }

    /// From now on nothing arrives and nobody is told; what is sent meanwhile arrives late, as after lost packets.
    pub fn silence(&self) {
        self.state.silent.send_replace(true);
    }

    /// Every connection that exists now breaks at its `turn`-th turn from now, 1 being the next.
    pub fn break_existing(&self, turn: u32, fault: Fault) {
        for connection in self.state.connections() {
            *connection.plan.lock() = Some((turn, fault));
        }
    }

    /// The same for those that have been idle for so long; how many they are.
    pub fn break_idle(&self, idle: Duration, fault: Fault) -> usize {
        let mut connections = self.state.connections();
        connections.retain(|connection| connection.used.lock().elapsed() > idle);
        for connection in &connections {
            *connection.plan.lock() = Some((1, fault));
        }
        connections.len()
    }

    /// Every connection made from now on leads to another server, as after a failover; those that exist stay.
    pub fn lead_to(&self, server: SocketAddr) {
        *self.state.server.lock() = server;
    }

    /// Every connection made from now on breaks at its `turn`-th turn.
    pub fn break_new(&self, turn: u32, fault: Fault) {
        *self.state.newcomers.lock() = Some((turn, fault));
    }

    /// Closes every connection, and those to come as soon as they are made.
    pub fn refuse(&self) {
        self.state.refusing.store(true, Ordering::SeqCst);
        self.cut();
    }

    /// Closes every connection there is.
    pub fn cut(&self) {
        for connection in self.state.connections() {
            connection.cut.cancel();
        }
    }

    /// From now on nothing breaks. What has broken stays so.
    pub fn heal(&self) {
        self.state.refusing.store(false, Ordering::SeqCst);
        self.state.silent.send_replace(false);
        *self.state.newcomers.lock() = None;
        for connection in self.state.connections() {
            *connection.plan.lock() = None;
        }
    }

    /// How many connections were broken at their turn.
    pub fn struck(&self) -> u32 {
        self.state.struck.load(Ordering::SeqCst)
    }
}

impl State {
    fn connection(&self) -> Arc<Connection> {
        let connection = Arc::new(Connection {
            used: Mutex::new(Instant::now()),
            plan: Mutex::new(*self.newcomers.lock()),
            cut: CancellationToken::new(),
        });
        self.connections.lock().push(Arc::downgrade(&connection));
        connection
    }

    fn connections(&self) -> Vec<Arc<Connection>> {
        let mut connections = self.connections.lock();
        connections.retain(|connection| connection.strong_count() > 0);
        connections.iter().filter_map(Weak::upgrade).collect()
    }
}

impl Connection {
    async fn carry(self: Arc<Self>, client: TcpStream, server: SocketAddr, state: Arc<State>) {
        let Ok(server) = TcpStream::connect(server).await else { return };
        // How a connection ends is its users' matter.
        let _ = self.cut.run_until_cancelled(self.pump(client, server, &state)).await;
    }

    async fn pump(&self, mut client: TcpStream, mut server: TcpStream, state: &State) -> std::io::Result<()> {
        client.set_nodelay(true)?;
        server.set_nodelay(true)?;
        let (mut up, mut down) = (vec![0; BUFFER], vec![0; BUFFER]);
        let (mut answered, mut silent) = (false, state.silent.subscribe());
        loop {
            let (packet, is_question) = tokio::select! {
                size = client.read(&mut up) => (&up[..size?], true),
                size = server.read(&mut down) => (&down[..size?], false),
            };
            let _ = silent.wait_for(|silent| !silent).await;
            *self.used.lock() = Instant::now();
            if packet.is_empty() {
                return Ok(());
            }
            let is_turn = is_question && answered;
            answered = !is_question;
            if is_turn && let Some(fault) = self.turn() {
                state.struck.fetch_add(1, Ordering::SeqCst);
                return strike(fault, packet, client, server).await;
            }
            if is_question { server.write_all(packet).await? } else { client.write_all(packet).await? }
        }
    }

    /// Counts a turn and returns what happens at it.
    fn turn(&self) -> Option<Fault> {
        let mut plan = self.plan.lock();
        let (turns, fault) = (*plan)?;
        *plan = (turns > 1).then_some((turns - 1, fault));
        plan.is_none().then_some(fault)
    }
}

/// Returning closes what was not closed before.
async fn strike(fault: Fault, packet: &[u8], mut client: TcpStream, mut server: TcpStream) -> std::io::Result<()> {
    let mut rest = vec![0; BUFFER];
    if !matches!(fault, Fault::Unsent | Fault::Frozen | Fault::Vanished) {
        server.write_all(packet).await?;
    }
    match fault {
        Fault::Unsent => {}
        Fault::Orphaned => {
            drop(client);
            let _ = server.read(&mut rest).await?;
        }
        Fault::Unanswered => {
            let _ = server.read(&mut rest).await?;
        }
        Fault::Frozen | Fault::FrozenAnswer => while client.read(&mut rest).await? > 0 {},
        Fault::Vanished => {
            drop(client);
            while server.read(&mut rest).await? > 0 {}
        }
    }
    Ok(())
}
