//! `lab load`: one load from the command line, for looking at a service by hand.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;
use clap::{Args, Subcommand};

use super::{Pace, Plan, Requests, Until, Users, load};
use crate::cluster::Cluster;
use crate::numbers::within;
use crate::say;

/// What an issue can be answered with when all goes well.
const ISSUE_ANSWERS: [u16; 4] = [200, 201, 409, 410];

/// Send one load and print rate, statuses, latencies and what the load itself cost
///
/// Exit status: 0 every request got an answer that counts, 1 some did not, 2 the load could not be sent.
#[derive(Args)]
pub struct Command {
    /// Where to send it, `http://host:port`; without it the nginx of the cluster
    #[arg(long, global = true)]
    url: Option<String>,
    /// The description of the cluster that `make up` writes
    #[arg(long, global = true, value_name = "FILE", default_value = ".cluster/cluster.json")]
    cluster: PathBuf,
    /// Connections, opened before the clock starts
    #[arg(long, global = true, default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..=20_000))]
    connections: u32,
    /// How long requests are sent
    #[arg(long, global = true, default_value_t = 5.0, value_parser = within(0.001..=1e6))]
    seconds: f64,
    /// How many requests are sent, instead of for how long
    #[arg(long, global = true, conflicts_with = "seconds")]
    count: Option<u64>,
    /// Requests per second at equal distances, latency counted from when each was due; without it every connection asks
    /// as fast as it is answered
    #[arg(long, global = true, value_parser = within(0.001..=1e6))]
    rate: Option<f64>,
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// GET one path
    Get {
        /// As in /version
        path: String,
    },
    /// POST /coupons/issue, each request a new user
    Issue {
        /// Asked for in turn
        #[arg(required = true)]
        codes: Vec<String>,
        /// Write the entries that were promised here; `lab verify --acks` compares them with the tables
        #[arg(long, value_name = "FILE")]
        acks: Option<PathBuf>,
    },
}

impl Command {
    /// Sends the load and prints the outcome. Tells whether every request got an answer that counts.
    pub async fn run(&self) -> anyhow::Result<bool> {
        let outcome = load(self.plan()?).await?;
        if let What::Issue { acks: Some(path), .. } = &self.what {
            fs::write(path, outcome.promised()).with_context(|| format!("cannot write {}", path.display()))?;
        }
        say::result(&outcome);
        Ok(outcome.errors.sum() == 0 && outcome.unsent == 0 && outcome.latency.len() == outcome.answered())
    }

    fn plan(&self) -> anyhow::Result<Plan> {
        let (requests, expect) = match &self.what {
            What::Get { path } => (Requests::Get { path: path.clone() }, vec![200]),
            What::Issue { codes, .. } => {
                // New with every run.
                let [prefix, key] = ["l", "k"].map(|first| format!("{first}{}", std::process::id()));
                let (codes, users) = (codes.clone(), Users::new(prefix));
                (Requests::Issue { codes, users, key }, ISSUE_ANSWERS.to_vec())
            }
        };
        Ok(Plan {
            url: self.url()?,
            connections: self.connections as usize,
            pace: self.rate.map_or(Pace::Closed, Pace::Open),
            until: self.count.map_or(Until::Elapsed(Duration::from_secs_f64(self.seconds)), Until::Sent),
            requests,
            expect,
            keep_acks: matches!(self.what, What::Issue { acks: Some(_), .. }),
        })
    }

    fn url(&self) -> anyhow::Result<String> {
        let of_cluster = || Cluster::read(&self.cluster)?.url().context("give --url, or a cluster with an nginx");
        self.url.clone().map_or_else(of_cluster, Ok)
    }
}
