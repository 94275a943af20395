//! The command line: reads the configuration and calls the parts. Nothing else happens here.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use clap::Parser;
use coupon_rush::app::App;
use coupon_rush::config::{Cli, Command, Purge, Seed, Serve};
use coupon_rush::store::admin::Reset;
use coupon_rush::store::{Store, migrate, purge, seed};
use coupon_rush::{memory, telemetry};
use tokio::net::{TcpListener, TcpSocket};
use tokio::runtime::{Builder, Runtime};
use tokio::signal::unix::{Signal, SignalKind, signal};

/// glibc's allocator takes a fifth of a busy replica's time. Without huge pages (`no_thp`), which nearly double the memory of a replica
/// with some thousand waiting orders.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Connections that may wait to be accepted.
const BACKLOG: u32 = 4_096;

/// Longest wait for each step of a health check; a replica that is slower than this is not well.
const HEALTHCHECK_PATIENCE: Duration = Duration::from_secs(2);

fn main() -> ExitCode {
    let cli = Cli::parse();
    let log = match telemetry::start(&cli.log, cli.log_format) {
        Ok(log) => log,
        Err(error) => {
            eprintln!("coupon-rush: {error:#}");
            return ExitCode::FAILURE;
        }
    };
    let ended = run(cli.command);
    log.end(ended.as_ref().err());
    if ended.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn run(command: Command) -> anyhow::Result<()> {
    match command {
        Command::Serve(settings) => {
            settings.check()?;
            let runtime = runtime(settings.threads.into())?;
            let served = runtime.block_on(serve(&settings));
            // A name that is still being looked up would keep the process until the resolver gives up.
            runtime.shutdown_background();
            served
        }
        Command::Migrate(settings) => {
            runtime(1)?.block_on(migrate(&settings.admin_url()?, &settings.database.url()?))?;
            println!("the database is up to date");
            Ok(())
        }
        Command::Seed(Seed { migrate, bare }) => {
            let is_new = runtime(1)?.block_on(seed(&migrate.admin_url()?, &migrate.database.url()?, bare))?;
            println!(
                "{}",
                if is_new { "the event is made" } else { "there is an event already, and it stays as it is" }
            );
            Ok(())
        }
        Command::Purge(Purge { migrate, keep_rounds }) => {
            let (admin, url) = (migrate.admin_url()?, migrate.database.url()?);
            let removed = runtime(1)?.block_on(purge(&admin, &url, keep_rounds, progress()))?;
            println!("{removed} rows of old rounds removed");
            Ok(())
        }
        Command::Reset(settings) => runtime(1)?.block_on(reset(&settings.database.url()?, settings.round)),
        Command::Healthcheck(settings) => healthcheck(settings.ops_listen),
    }
}

/// One thread runs everything itself; more share the work.
fn runtime(threads: usize) -> anyhow::Result<Runtime> {
    let mut builder = if threads == 1 { Builder::new_current_thread() } else { Builder::new_multi_thread() };
    builder.worker_threads(threads).enable_all().build().context("cannot start the runtime")
}

async fn serve(settings: &Serve) -> anyhow::Result<()> {
    let mut signals = Signals::new()?;
    let app = tokio::select! {
        app = ready(settings) => app?,
        () = signals.next() => return Ok(()),
    };
    let public = bind("LISTEN", settings.listen)?;
    let ops = bind("OPS_LISTEN", settings.ops_listen)?;
    tracing::info!(listen = %settings.listen, ops = %settings.ops_listen, strategy = settings.strategy.name(), "serving");
    let leaving = Arc::clone(&app);
    let stop = async move {
        tokio::select! {
            () = signals.next() => {}
            () = leaving.has_lost_a_watcher() => {}
        }
        leaving.lame_duck(signals.next()).await;
    };
    app.serve(public, ops, stop).await
}

/// A replica that has looked at the event. A balancer that goes by a name alone sends orders as soon as the door is open; those that came
/// before the first look would be refused, and a closed door sends them on to another replica.
async fn ready(settings: &Serve) -> anyhow::Result<Arc<App>> {
    let app = App::start(settings).await?;
    app.first_look().await;
    Ok(app)
}

/// What asks this process to stop.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn new() -> std::io::Result<Self> {
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

/// Listens with a queue long enough for thousands of clients that connect at once; the kernel bounds it by `somaxconn`.
fn bind(name: &str, address: SocketAddr) -> anyhow::Result<TcpListener> {
    let listen = || {
        let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
        socket.set_reuseaddr(true)?;
        socket.bind(address)?;
        socket.listen(BACKLOG)
    };
    listen().with_context(|| format!("{name}: cannot listen on {address}"))
}

/// Says once a second how many rows are gone.
fn progress() -> impl FnMut(u64) {
    let mut said = Instant::now();
    move |removed| {
        if said.elapsed() > Duration::from_secs(1) {
            eprintln!("{removed} rows of old rounds removed so far");
            said = Instant::now();
        }
    }
}

/// Ends a round, starts the next and returns when every replica must have seen it.
async fn reset(url: &str, ends: Option<u32>) -> anyhow::Result<()> {
    let store = Store::new(url, 1)?;
    let Some(ends) = ends else {
        bail!("which round is to end? {}", cure(store.event().await?.round));
    };
    let round = match store.reset(ends).await? {
        Reset::Began(round) => round,
        // A caller that did not see its reset end repeats it.
        Reset::Refused { current } if ends.checked_add(1) == Some(current) => current,
        Reset::Refused { current } => bail!("round {ends} is not the current one: {}", cure(current)),
    };
    tokio::time::sleep(memory::CHANGE_SEEN_BY_ALL).await;
    println!("round {round}");
    Ok(())
}

fn cure(current: u32) -> String {
    format!(
        "this is round {current}, and `make reset ROUND={current}` or `coupon-rush reset --round {current}` ends it"
    )
}

/// Asks `/readyz`. One request and a status line need no HTTP client; an unspecified address reaches this host.
fn healthcheck(ops: SocketAddr) -> anyhow::Result<()> {
    let mut answer = String::new();
    let mut ask = || {
        let mut connection = TcpStream::connect_timeout(&ops, HEALTHCHECK_PATIENCE)?;
        connection.set_read_timeout(Some(HEALTHCHECK_PATIENCE))?;
        connection.write_all(b"GET /readyz HTTP/1.0\r\n\r\n")?;
        connection.read_to_string(&mut answer)
    };
    ask().with_context(|| format!("no replica answers on {ops}"))?;
    ensure!(answer.split(' ').nth(1) == Some("200"), "not ready: {}", answer.lines().last().unwrap_or_default());
    Ok(())
}
