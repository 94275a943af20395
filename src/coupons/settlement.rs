//! What the database did with a batch, and what that means for each order in it.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use super::{Entry, Order, Outcome, Timestamp, UserId};

/// What the database did with a batch of orders for one code.
#[derive(Debug, Default)]
pub struct Settlement {
    /// Whether the code exists.
    pub known: bool,
    /// The round of the coupon row when it was locked.
    pub round: u32,
    /// Whether the window was open.
    pub open: bool,
    /// The time until the window opens; `None` when it is open or over.
    pub opens_in: Option<Duration>,
    /// The serial of the first piece issued here.
    pub first_serial: u32,
    /// How many were issued.
    pub issued: u32,
    /// Whether some user held a coupon already or asked twice: then only `held` tells which of them got one.
    pub repaired: bool,
    /// Stock after the batch.
    pub remaining: u32,
    /// When the batch was settled, by the database's clock.
    pub issued_at: Option<Timestamp>,
    /// What the batch's users hold now; complete whenever `repaired` or fewer were issued than asked for.
    pub held: HashMap<UserId, Entry>,
}

impl Settlement {
    /// One outcome per order, in their order; `None` where the settlement explains nothing, which no sound database does.
    pub fn outcomes(&self, orders: &[Order]) -> Vec<Option<Outcome>> {
        let mut winners: HashSet<&UserId> = HashSet::new();
        orders
            .iter()
            .enumerate()
            .map(|(place, order)| {
                if !self.known {
                    return Some(Outcome::UnknownCoupon);
                }
                if !self.repaired && place < self.issued as usize {
                    return self.in_sequence(place, order).map(Outcome::Issued);
                }
                match self.held.get(&order.user) {
                    Some(entry) if self.is_new(entry, order) && winners.insert(&order.user) => {
                        Some(Outcome::Issued(entry.clone()))
                    }
                    Some(entry) => Some(entry.clone().answer(order)),
                    None if !self.open => Some(Outcome::NotOpen(self.opens_in)),
                    None if self.remaining == 0 => Some(Outcome::SoldOut),
                    None => None,
                }
            })
            .collect()
    }

    /// The entry of the order at `place` when the orders were issued one after the other.
    fn in_sequence(&self, place: usize, order: &Order) -> Option<Entry> {
        Some(Entry {
            code: order.code.clone(),
            user_id: order.user.clone(),
            serial: Some(self.first_serial + u32::try_from(place).ok()?),
            round: self.round,
            request_id: order.request,
            issued_at: self.issued_at?,
        })
    }

    /// Whether `entry` was issued by this very settlement to this very request.
    fn is_new(&self, entry: &Entry, order: &Order) -> bool {
        self.repaired
            && entry.request_id == order.request
            && entry.code == order.code
            && entry.serial.is_some_and(|serial| serial >= self.first_serial)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::coupons::{Code, RequestId};

    fn order(user: &str, request: u8) -> Order {
        Order {
            code: Code::parse("A001").unwrap(),
            user: UserId::parse(user).unwrap(),
            request: RequestId([request; 16]),
            arrived_ms: None,
        }
    }

    fn entry(order: &Order, serial: u32) -> Entry {
        Entry {
            code: order.code.clone(),
            user_id: order.user.clone(),
            serial: Some(serial),
            round: 1,
            request_id: order.request,
            issued_at: Timestamp(0),
        }
    }

    fn settlement(issued: u32, remaining: u32) -> Settlement {
        Settlement {
            known: true,
            round: 1,
            open: true,
            first_serial: 7,
            issued,
            remaining,
            issued_at: Some(Timestamp(0)),
            ..Settlement::default()
        }
    }

    #[test]
    fn serials_follow_the_order_of_arrival() {
        let orders = [order("a", 1), order("b", 2)];
        let outcomes = settlement(2, 5).outcomes(&orders);
        assert_eq!(outcomes[0], Some(Outcome::Issued(entry(&orders[0], 7))));
        assert_eq!(outcomes[1], Some(Outcome::Issued(entry(&orders[1], 8))));
    }

    #[test]
    fn an_order_after_the_last_piece_is_told_sold_out() {
        let outcomes = settlement(1, 0).outcomes(&[order("a", 1), order("b", 2)]);
        assert_eq!(outcomes[1], Some(Outcome::SoldOut));
    }

    #[test]
    fn a_double_click_in_one_batch_is_issued_once_and_then_replayed() {
        let orders = [order("a", 1), order("a", 1), order("a", 2)];
        let mut settled = settlement(1, 5);
        settled.repaired = true;
        settled.held.insert(orders[0].user.clone(), entry(&orders[0], 7));
        let outcomes = settled.outcomes(&orders);
        assert!(matches!(outcomes[0], Some(Outcome::Issued(_))));
        assert!(matches!(outcomes[1], Some(Outcome::Replayed(_))));
        assert!(matches!(outcomes[2], Some(Outcome::AlreadyIssued(_))));
    }

    #[test]
    fn an_entry_of_an_earlier_batch_is_a_replay() {
        let orders = [order("a", 1)];
        let mut settled = settlement(0, 5);
        settled.repaired = true;
        settled.held.insert(orders[0].user.clone(), entry(&orders[0], 3));
        assert!(matches!(settled.outcomes(&orders)[0], Some(Outcome::Replayed(_))));
    }

    #[test]
    fn a_holder_is_told_so_before_sold_out_and_before_not_open() {
        let orders = [order("a", 9)];
        for (open, remaining) in [(true, 0), (false, 5)] {
            let mut settled = settlement(0, remaining);
            settled.open = open;
            settled.held.insert(orders[0].user.clone(), entry(&order("a", 1), 1));
            assert!(matches!(settled.outcomes(&orders)[0], Some(Outcome::AlreadyIssued(_))));
        }
    }

    #[test]
    fn stock_left_and_no_entry_is_no_answer() {
        assert_eq!(settlement(0, 5).outcomes(&[order("a", 1)]), [None]);
    }
}
