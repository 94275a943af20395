//! The strategies by name, as the service's `STRATEGY` takes them. What they do is the service's business.

use clap::ValueEnum;
use serde::{Deserialize, Serialize};
use strum::Display;

/// How the replicas make an issue exclusive; the order is that of every table and legend.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, ValueEnum, Serialize, Deserialize, Display)]
#[serde(rename_all = "lowercase")]
#[strum(serialize_all = "lowercase")]
pub enum Strategy {
    /// Reads, decides, writes; loses updates on purpose.
    Unlocked,
    /// One conditional write, no lock.
    Conditional,
    /// A version check, and again when it fails.
    Optimistic,
    /// A row lock.
    Pessimistic,
    /// A Redlock per request.
    Redlock,
    /// A Redlock and one call for all that wait.
    Batched,
}

impl Strategy {
    /// Whether its promises are meant to hold; `unlocked` breaks them to show how.
    pub fn keeps_promises(self) -> bool {
        self != Self::Unlocked
    }
}
