//! The laboratory: what a cluster is made of, how it behaves under load, and what a rush left behind in it. Tests, demo and
//! load runs share it; the service never links it.
#![warn(clippy::print_stdout, clippy::print_stderr, reason = "`say` outlives a reader that goes away")]

mod admin;
mod alarm;
pub mod bench;
pub mod chaos;
pub mod cluster;
mod database;
pub mod distance;
pub mod fairness;
pub mod history;
pub mod interrupt;
pub mod load;
mod machine;
mod measure;
mod numbers;
mod processes;
mod progress;
pub mod proxy;
pub mod say;
mod script;
mod strategy;
pub mod sweep;
mod table;
pub mod verify;

pub use verify::verify;
