//! `lab load`: one load from the command line, for looking at a service by hand.

use std::fs;
use std::io::{Write, stdout};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, ensure};
use clap::{Args, Subcommand};

use super::{Pace, Plan, Requests, Until, Users, load};
use crate::cluster::Cluster;

/// What an issue can be answered with when all goes well.
const ISSUE_ANSWERS: [u16; 4] = [200, 201, 409, 410];

/// Send one load and print what became of it
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
    #[arg(long, global = true, default_value_t = 5.0)]
    seconds: f64,
    /// How many requests are sent, instead of for how long
    #[arg(long, global = true, conflicts_with = "seconds")]
    count: Option<u64>,
    /// Requests per second at equal distances, latency counted from when each was due; without it every connection asks
    /// as fast as it is answered
    #[arg(long, global = true)]
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
        // A reader that went away is no failed load.
        let _ = writeln!(stdout(), "{outcome}");
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
            pace: self.rate.map(|rate| positive("--rate", rate)).transpose()?.map_or(Pace::Closed, Pace::Open),
            until: match self.count {
                Some(count) => Until::Sent(count),
                None => Until::Elapsed(Duration::from_secs_f64(positive("--seconds", self.seconds)?)),
            },
            requests,
            expect,
            keep_acks: matches!(self.what, What::Issue { acks: Some(_), .. }),
        })
    }

    fn url(&self) -> anyhow::Result<String> {
        if let Some(url) = &self.url {
            return Ok(url.clone());
        }
        let nginx = Cluster::read(&self.cluster)?.nginx;
        Ok(nginx.context("the cluster has no nginx running; `make up` starts it, or give --url")?.url)
    }
}

fn positive(name: &str, value: f64) -> anyhow::Result<f64> {
    ensure!(value.is_finite() && value > 0.0 && value <= 1e6, "{name} {value}: give a number above 0");
    Ok(value)
}
