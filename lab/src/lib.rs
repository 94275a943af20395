//! The laboratory: what a cluster is, and what a rush left behind in it. Tests, demo and load runs share it; the
//! service never links it.

pub mod cluster;
pub mod load;
pub mod verify;

pub use verify::verify;
