//! An administrator at work while everybody asks: one change after the other, each written down with its times.

use std::time::{Duration, Instant};

use fastrand::Rng;
use tokio::time::{sleep, sleep_until};

use super::wave::{COUPONS, Disturbance};
use crate::admin::{Admin, insist};
use crate::history::{Change, Situation, Stock, micros};

/// A change that has no answer by then has none at all.
const GIVE_UP: Duration = Duration::from_secs(30);

#[derive(Clone, Copy, Debug)]
enum Act {
    Reset,
    Open(bool),
    /// The rule from the next round on.
    Exclusive(bool),
    Total(&'static str, u32),
}

/// The situation at the beginning of a fresh round: all coupons, and nothing closed.
pub fn fresh(round: u32, exclusive: bool) -> Change {
    let stocks = COUPONS.map(|(code, total)| (code.to_owned(), Stock { total, open: true }));
    Change { asked: 0, answered: 0, after: Situation { round, exclusive, open: true, coupons: stocks.into() } }
}

pub struct Administrator<'a> {
    admin: &'a Admin,
    began: Instant,
    changes: Vec<Change>,
    /// The rule from the next round on.
    next: bool,
}

impl<'a> Administrator<'a> {
    /// Begins with this situation; times count from `began`.
    pub fn new(admin: &'a Admin, first: Change, began: Instant) -> Self {
        Self { admin, began, next: first.after.exclusive, changes: vec![first] }
    }

    /// Works from when it is due as long as it lasts. In the end the event is open, that everybody gets a final answer.
    pub async fn work(mut self, disturbance: Disturbance) -> anyhow::Result<Vec<Change>> {
        let Disturbance { at, lasts, pick, .. } = disturbance;
        let (mut rng, until) = (Rng::with_seed(u64::from(pick)), self.began + at + lasts);
        sleep_until((self.began + at).into()).await;
        while Instant::now() < until {
            let act = self.draw(&mut rng);
            self.carry_out(act).await?;
            sleep(Duration::from_millis(rng.u64(..200))).await;
        }
        if !self.now().open {
            self.carry_out(Act::Open(true)).await?;
        }
        Ok(self.changes)
    }

    fn now(&self) -> &Situation {
        &self.changes.last().expect("the first is there from the beginning").after
    }

    fn draw(&self, rng: &mut Rng) -> Act {
        let (code, _) = COUPONS[rng.usize(..COUPONS.len())];
        let total = self.now().coupons[code].total;
        match rng.u8(..10) {
            _ if !self.now().open => Act::Open(true),
            0..5 => Act::Reset,
            5 | 6 => Act::Total(code, total + rng.u32(1..=5)),
            7 => Act::Total(code, total.saturating_sub(rng.u32(1..=5))),
            8 => Act::Open(false),
            _ => Act::Exclusive(!self.next),
        }
    }

    /// Asks until there is an answer. Repeating is safe, and so the change takes effect between the first call and the answer.
    async fn carry_out(&mut self, act: Act) -> anyhow::Result<()> {
        let (asked, mut after, mut next) = (micros(self.began), self.now().clone(), self.next);
        match act {
            Act::Reset => (after.round, after.exclusive) = (after.round + 1, next),
            Act::Open(open) => after.open = open,
            Act::Exclusive(exclusive) => next = exclusive,
            Act::Total(code, total) => drop(after.coupons.insert(code.to_owned(), Stock { total, open: true })),
        }
        let call = async || match act {
            Act::Reset => self.admin.end(after.round - 1).await.map(|_| true),
            Act::Open(_) | Act::Exclusive(_) => self.admin.put_event(next, after.open).await.map(|()| true),
            Act::Total(code, total) => match self.admin.put_coupon(code, total).await {
                Err(error) if is_conflict(&error) => Ok(false),
                done => done.map(|()| true),
            },
        };
        if insist(GIVE_UP, call).await? {
            self.next = next;
            self.changes.push(Change { asked, answered: micros(self.began), after });
        }
        Ok(())
    }
}

/// Whether less stock was refused than is issued. A port may have the same digits.
fn is_conflict(error: &anyhow::Error) -> bool {
    format!("{error:#}").contains("answers 409")
}

#[cfg(test)]
mod tests {
    use anyhow::anyhow;

    use super::*;

    #[test]
    fn a_call_that_did_not_arrive_is_no_refusal_whatever_its_port() {
        let put = |cause| is_conflict(&anyhow!("{cause}").context("cannot put the coupon W-4"));

        assert!(put("/admin/coupons/W-4 answers 409 Conflict: more than the new total are issued already"));
        assert!(!put("error sending request for url (http://127.0.0.1:20409/admin/coupons/W-4)"));
        assert!(!put("/admin/coupons/W-4 answers 503 Service Unavailable: ask again"));
    }
}
