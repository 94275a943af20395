//! Version check: read without a lock, write only if the row is still as it was read, else start over.

use super::step::{Failure, Step, Won, issuable};
use super::{Parts, Ticket};
use crate::store::Lane;

/// Transactions per order before "busy": of `n` writers that try at once one comes through.
pub(super) const RUNS_MAX: u32 = 50;

/// Round trips: 5 per attempt (begin, select, update, insert, commit). Every attempt is a new transaction, because inside
/// one a repeated read may show the old version for ever.
pub(super) async fn issue(parts: &Parts, lane: &mut Lane, ticket: &Ticket) -> Result<Step, Failure> {
    let mut tx = lane.begin().await?;
    let Some(coupon) = issuable(tx.read(&ticket.order.code).await?, ticket) else {
        tx.roll_back().await?;
        return Ok(Step::Refused);
    };
    let Some(serial) = tx.take_if_unchanged(&ticket.order.code, coupon).await? else {
        tx.roll_back().await?;
        return Ok(Step::Conflict);
    };
    parts.finish(tx, ticket, Won { serial: Some(serial), issued_at: coupon.now }).await
}
