//! coupon-rush: first come, first served coupons that stay exact and fast while a crowd hits them.
//!
//! In reading order: [`coupons`] holds the words and the rules, [`store`] the SQL, [`lock`] the Redlock, [`memory`] what a replica
//! remembers between two looks at the database, [`issuance`] the strategies that put the three together, [`http`] the API, [`app`] the
//! wiring. Beside them, [`metrics`] and [`telemetry`] are what a replica tells about itself, and [`config`] is what it is told.

pub mod coupons;
pub mod store;

pub mod lock;

pub mod memory;

pub mod issuance;

pub mod http;

pub mod metrics;

pub mod app;
pub mod config;
pub mod telemetry;
