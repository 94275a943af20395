//! The command line of the laboratory. Exit status: 0 the promises hold, 1 one is broken, 2 it could not be found out.
#![warn(clippy::print_stdout, clippy::print_stderr, reason = "`say` outlives a reader that goes away")]

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use clap::{Parser, Subcommand};
use coupon_lab::cluster::Cluster;
use coupon_lab::history;
use coupon_lab::interrupt::{Interrupt, Interrupted};
use coupon_lab::verify::{PATIENCE, Report, read_acks, verify, verify_history};
use coupon_lab::{bench, chaos, distance, fairness, load, say, sweep};

/// Proves what a rush left behind in a local cluster
#[derive(Parser)]
#[command(name = "lab", version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Check the tables against every promise: stock, users, serials, acknowledged coupons
    ///
    /// Reads one snapshot and changes nothing, so it may run beside a rush. Exit status: 0 all promises hold, 1 one is
    /// broken, 2 it could not be found out.
    Verify(VerifyArgs),
    Load(load::Command),
    Fairness(fairness::Command),
    Bench(bench::Command),
    Sweep(Box<sweep::Command>),
    /// Break parts of a cluster of the laboratory's own under load, and prove that nothing was lost
    ///
    /// With RUNTIME=docker in the environment the parts are containers, and the faults are those of hosts and networks. That takes root
    /// on the engine's own host, and nsenter and iptables there.
    ///
    /// Exit status: 0 all is well, 1 a promise was broken or a target missed, 2 it could not be found out, 130 interrupted.
    Chaos(chaos::ChaosArgs),
    Distance(distance::Command),
}

#[derive(clap::Args)]
struct VerifyArgs {
    /// The description of the cluster that `make up` writes
    #[arg(long, value_name = "FILE", default_value = ".cluster/cluster.json")]
    cluster: PathBuf,
    /// What clients were answered: the file that `k6 run --console-output` wrote, or one wallet entry a line
    #[arg(long, value_name = "FILE")]
    acks: Option<PathBuf>,
    /// Every attempt of every client, as `lab chaos` writes it: one JSON object a line
    #[arg(long, value_name = "FILE")]
    history: Option<PathBuf>,
    /// Longest that an answer in the history may take: the deadline and a second
    #[arg(long, value_name = "SECONDS", default_value_t = PATIENCE.as_secs_f64())]
    patience: f64,
    /// Stock that is left at an open coupon counts as broken
    #[arg(long)]
    expect_sold_out: bool,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let done = Box::pin(run(&Arguments::parse().command)).await;
    match done {
        Ok(status) => ExitCode::from(status),
        Err(error) if error.is::<Interrupted>() => ExitCode::from(Interrupted::STATUS),
        Err(error) => {
            say::aside(format_args!("lab: {}", causes(&error)));
            ExitCode::from(2)
        }
    }
}

async fn run(command: &Command) -> anyhow::Result<u8> {
    let here = || std::env::current_dir();
    match command {
        Command::Verify(arguments) => judge(arguments).await.map(|report| u8::from(!report.is_clean())),
        Command::Load(load) => load.run().await.map(|fine| u8::from(!fine)),
        Command::Fairness(fairness) => fairness.run(Interrupt::watch()?).await,
        Command::Bench(bench) => Box::pin(bench.run(&here()?, Interrupt::watch()?)).await,
        Command::Sweep(sweep) => sweep.run(&here()?, Interrupt::watch()?).await,
        Command::Chaos(chaos) => chaos.run(&here()?, Interrupt::watch()?).await,
        Command::Distance(distance) => distance.run(Interrupt::watch()?).await,
    }
}

async fn judge(arguments: &VerifyArgs) -> anyhow::Result<Report> {
    let mut connection = Cluster::read(&arguments.cluster)?.connect().await?;
    // Before the snapshot: what a client knows by now must be in it.
    let acks = arguments.acks.as_deref().map(read_acks).transpose()?;
    let history = arguments.history.as_deref().map(history::read).transpose()?;
    let mut report = match history {
        Some(history) => {
            let patience = Duration::try_from_secs_f64(arguments.patience).context("--patience is no time")?;
            verify_history(&mut connection, acks.as_deref(), &history, patience).await?
        }
        None => verify(&mut connection, acks.as_deref()).await?,
    };
    if arguments.expect_sold_out {
        report.expect_sold_out();
    }
    say::result(&report);
    Ok(report)
}

/// The whole chain in one line. sqlx repeats a cause inside its effect; people need not read it twice.
fn causes(error: &anyhow::Error) -> String {
    let mut text = String::new();
    for cause in error.chain().map(ToString::to_string) {
        if !text.contains(&cause) {
            text.push_str(if text.is_empty() { "" } else { ": " });
            text.push_str(&cause);
        }
    }
    text
}
