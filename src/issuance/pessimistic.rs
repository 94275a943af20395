//! Row lock: the first reader holds the row, the others queue inside InnoDB.

use super::step::{Failure, Step, Won, issuable};
use super::{Parts, Ticket};
use crate::metrics::Wait;
use crate::store::Lane;

/// Round trips: 5 (begin, select for update, update, insert, commit).
pub(super) async fn issue(parts: &Parts, lane: &mut Lane, ticket: &Ticket) -> Result<Step, Failure> {
    let mut tx = lane.begin().await?;
    let coupon = tx.read_for_update(&ticket.order.code).await?;
    parts.waited(Wait::Granted, ticket);
    let Some(coupon) = issuable(coupon, ticket) else {
        tx.roll_back().await?;
        return Ok(Step::Refused);
    };
    let serial = tx.take(&ticket.order.code).await?;
    parts.finish(tx, ticket, Won { serial, issued_at: coupon.now }).await
}
