//! The laboratory: what a cluster is made of, how it behaves under load, and what a rush left behind in it. Tests, demo and
//! load runs share it; the service never links it.

pub mod admin;
pub mod bench;
pub mod chaos;
pub mod cluster;
mod database;
mod histogram;
pub mod history;
pub mod interrupt;
mod jump;
mod k6;
pub mod load;
mod machine;
mod processes;
mod progress;
pub mod prometheus;
pub mod proxy;
pub mod script;
mod servers;
mod speed;
mod stage;
pub mod strategy;
pub mod sweep;
mod table;
pub mod verify;

pub use verify::verify;
