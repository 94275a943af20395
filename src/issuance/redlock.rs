//! One Redlock per request, then the conditional write: the textbook design, and the curve to beat.
//!
//! The write keeps its condition: a lease makes contention cheap, not writes safe.

use std::time::{Duration, Instant};

use super::{Failure, Parts, Step, Ticket, conditional};
use crate::lock::{LockError, Patience};
use crate::metrics::Wait;

/// Longest wait for the lock. Shorter than the deadline, so that the answer "busy" still arrives.
const PATIENCE: Duration = Duration::from_secs(4);

/// Round trips: 4 to MySQL (begin, update, insert, commit) and 2 to Redis (lock, unlock); 2 more for every attempt at a
/// lock that somebody else holds.
pub(super) async fn issue(parts: &Parts, ticket: &Ticket) -> Result<Step, Failure> {
    let until = ticket.entered + PATIENCE;
    let acquired = parts.locks.acquire(ticket.order.code.as_str(), Patience::Retry, || Instant::now() < until).await;
    let lease = acquired.inspect_err(|error| {
        if *error == LockError::Abandoned {
            parts.lock.waited(Wait::Expired, ticket.entered);
        }
    })?;
    parts.granted(ticket);
    let step = conditional::decrement_and_insert(parts, ticket, || {}).await;
    parts.locks.release(lease).await;
    step
}
