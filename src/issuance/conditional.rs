//! The condition in the write: `UPDATE … WHERE remaining >= 1`. The control: what one WHERE gives, and no other
//! lock than the row's.

use super::step::{Failure, Step, Won};
use super::{Parts, Ticket};
use crate::metrics::Wait;
use crate::store::Lane;

/// Round trips: 4 (begin, update, insert, commit).
pub(super) async fn issue(parts: &Parts, lane: &mut Lane, ticket: &Ticket) -> Result<Step, Failure> {
    decrement_and_insert(parts, lane, ticket, || parts.waited(Wait::Granted, ticket)).await
}

/// The transaction itself; it calls `granted` when it has the row.
pub(super) async fn decrement_and_insert(
    parts: &Parts,
    lane: &mut Lane,
    ticket: &Ticket,
    granted: impl FnOnce(),
) -> Result<Step, Failure> {
    let mut tx = lane.begin().await?;
    let serial = tx.take_if_left(&ticket.order.code, ticket.round).await?;
    granted();
    // Nothing was read that could tell the time, so it is reckoned from the last look at the database's clock.
    let (Some(serial), Some(issued_at)) = (serial, parts.memory.now()) else {
        tx.roll_back().await?;
        return Ok(Step::Refused);
    };
    parts.finish(tx, ticket, Won { serial: Some(serial), issued_at }).await
}
