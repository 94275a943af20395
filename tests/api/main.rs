//! The service on real servers: MySQL or MariaDB, Redis, and the replicas' own sockets.
//!
//! `make test` starts the servers and says where they are in `CLUSTER_FILE`. Every test has a database of its own.

mod support;

mod answers;
mod races;
