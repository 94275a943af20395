//! One Redlock per request, then the conditional write: the textbook design, and the curve to beat.
//!
//! The write keeps its condition: a lease makes contention cheap, not writes safe. As the textbook has it, nothing is issued without a lease:
//! where the lock cannot be had, whatever the reason, this strategy answers 503, at once without a quorum and else at the deadline.

use super::step::{Failure, Step};
use super::{Caller, Parts, Ticket, conditional};
use crate::lock::{LockError, Patience};
use crate::metrics::Wait;
use crate::store::Lane;

/// Round trips: 4 to MySQL (begin, update, insert, commit) and 2 to Redis (lock, unlock); 2 more for every attempt at a
/// lock that another request holds. It waits as long as its caller, which is until the deadline.
pub(super) async fn issue(parts: &Parts, lane: &mut Lane, ticket: &Ticket, caller: &Caller) -> Result<Step, Failure> {
    let acquired = parts.locks.acquire(ticket.order.code.as_str(), Patience::Retry, || !caller.is_closed()).await;
    let lease = acquired.inspect_err(|error| {
        if *error == LockError::Abandoned {
            parts.lock.waited(Wait::Expired, ticket.entered);
        }
    })?;
    parts.granted(ticket);
    let step = conditional::decrement_and_insert(parts, lane, ticket, || {}).await;
    parts.locks.release(lease).await;
    step
}
