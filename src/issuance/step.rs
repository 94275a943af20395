//! What the strategies share that issue one by one: what a run comes to, and its last two statements.

use super::{Parts, Ticket};
use crate::coupons::{Entry, Timestamp};
use crate::lock::LockError;
use crate::store::{Inserted, LockedCoupon, StoreError, Tx};

/// What one run of a single-issue strategy came to.
pub(super) enum Step {
    /// It was issued.
    Issued(Entry),
    /// Nothing was written; a read finds out why.
    Refused,
    /// Another order was faster; run it again.
    Conflict,
}

/// What an order has won before its row is written.
pub(super) struct Won {
    pub(super) serial: Option<u32>,
    pub(super) issued_at: Timestamp,
}

/// Why a run failed.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Lock(#[from] LockError),
}

/// Whether a coupon row that was read allows an issue in the ticket's round.
pub(super) fn issuable(coupon: Option<LockedCoupon>, ticket: &Ticket) -> Option<LockedCoupon> {
    coupon.filter(|coupon| coupon.round == ticket.round && coupon.open && coupon.remaining > 0)
}

impl Parts {
    /// The last two statements of every single-issue strategy: insert the wallet's row, after the coupon's was written or locked; commit.
    pub(super) async fn finish(&self, mut tx: Tx<'_>, ticket: &Ticket, won: Won) -> Result<Step, Failure> {
        if tx.insert(&ticket.order, won.serial, won.issued_at).await? == Inserted::Duplicate {
            tx.roll_back().await?;
            return Ok(Step::Refused);
        }
        let started = tx.started();
        tx.commit().await?;
        self.issue.transaction(started);
        Ok(Step::Issued(Entry {
            code: ticket.order.code.clone(),
            user_id: ticket.order.user.clone(),
            serial: won.serial,
            round: ticket.round,
            request_id: ticket.order.request,
            issued_at: won.issued_at,
        }))
    }
}
