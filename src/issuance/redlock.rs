//! One Redlock per request, then the conditional write: the textbook design, and the curve to beat.
//!
//! The write keeps its condition: a lease makes contention cheap, not writes safe. As the textbook has it, nothing is issued without a lease:
//! where the lock cannot be had, whatever the reason, this strategy answers 503, at once without a quorum and else at the deadline.

use std::time::{Duration, Instant};

use super::step::{Failure, Step};
use super::{Caller, Parts, Ticket, conditional};
use crate::lock::{Lease, LockError};
use crate::metrics::Wait;
use crate::store::Lane;

/// First and longest pause between two attempts: so long the lock may be free before the next one.
const RETRY: [Duration; 2] = [Duration::from_millis(1), Duration::from_millis(25)];

/// Round trips: 4 to MySQL (begin, update, insert, commit) and 2 to Redis (lock, unlock); 2 more for every attempt at a
/// lock that another request holds. It waits as long as its caller, which is until the deadline.
pub(super) async fn issue(parts: &Parts, lane: &mut Lane, ticket: &Ticket, caller: &Caller) -> Result<Step, Failure> {
    let lease = lock(parts, ticket.order.code.as_str(), caller).await.inspect_err(|error| {
        if *error == LockError::Abandoned {
            parts.waited(Wait::Expired, ticket);
        }
    })?;
    parts.waited(Wait::Granted, ticket);
    let step = conditional::decrement_and_insert(parts, lane, ticket, || {}).await;
    parts.locks.release(lease).await;
    step
}

/// Asks again after a growing, jittered pause.
async fn lock(parts: &Parts, name: &str, caller: &Caller) -> Result<Lease, LockError> {
    let (started, [mut pause, longest]) = (Instant::now(), RETRY);
    while !caller.is_closed() {
        if let Some(lease) = parts.locks.attempt(name).await? {
            parts.lock.acquired(started);
            return Ok(lease);
        }
        tokio::time::sleep(pause.mul_f64(0.5 + fastrand::f64())).await;
        pause = (pause * 3 / 2).min(longest);
    }
    Err(LockError::Abandoned)
}
