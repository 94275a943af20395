//! No lock: read, decide, write. Two requests read the same count, and one decrement is lost. Here to show just that.

use super::step::{Failure, Step, Won, issuable};
use super::{Parts, Ticket};
use crate::store::Lane;

/// Round trips: 5 (begin, select, update, insert, commit). The serial stays empty: there is no right one.
pub(super) async fn issue(parts: &Parts, lane: &mut Lane, ticket: &Ticket) -> Result<Step, Failure> {
    let mut tx = lane.begin().await?;
    let Some(coupon) = issuable(tx.read(&ticket.order.code).await?, ticket) else {
        tx.roll_back().await?;
        return Ok(Step::Refused);
    };
    if !tx.overwrite(&ticket.order.code, ticket.round, coupon.remaining - 1).await? {
        tx.roll_back().await?;
        return Ok(Step::Refused);
    }
    parts.finish(tx, ticket, Won { serial: None, issued_at: coupon.now }).await
}
