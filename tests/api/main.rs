//! The service on real servers: MySQL or MariaDB, Redis, and the replicas' own sockets.
//!
//! `make test` starts the servers and says where they are in `CLUSTER_FILE`. Every test has a database of its own.
#![expect(clippy::unwrap_used, reason = "a test may stop at the first thing it did not expect")]
#![expect(
    clippy::float_cmp,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_precision_loss,
    reason = "metrics are floats, and those that are looked at here are small whole numbers"
)]

mod support;

mod administration;
mod answers;
mod asynchronous;
mod balanced;
mod bounds;
mod cancel;
mod database;
mod description;
mod documents;
mod doors;
mod empty_nodes;
mod encryption;
mod faults;
mod forgery;
mod guards;
mod half_alive;
mod home;
mod idempotency;
mod lifecycle;
mod line;
mod lock_faults;
mod lock_network;
mod locked_rows;
mod memory;
mod metrics;
mod overload;
mod platform;
mod races;
mod refusals;
mod retirement;
mod rounds;
mod secrets;
mod settings;
mod slow_clients;
mod subcommands;
mod three_members;
mod trips;
mod upkeep;
mod waits;
mod windows;
