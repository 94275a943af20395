//! The laboratory: what a cluster is made of, how it behaves under load, and what a rush left behind in it. Tests, demo and
//! load runs share it; the service never links it.

pub mod admin;
pub mod bench;
pub mod cluster;
pub mod interrupt;
pub mod load;
pub mod prometheus;
pub mod script;
pub mod strategy;
pub mod verify;

pub use verify::verify;
