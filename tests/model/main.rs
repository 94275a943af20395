//! Small models of the service, checked in every order in which their steps can meet.

mod administration;
mod batch;

const REPLICAS: usize = 2;
