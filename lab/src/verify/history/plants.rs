//! Corruptions, each as a fault of the service or of its database would leave it behind.

use super::super::Holding;
use super::super::report::Kind;
use super::world::{World, entry_of, take};
use crate::history::{Attempt, Told};

/// What is corrupted.
#[derive(Clone, Copy, Debug)]
pub(super) enum Plant {
    RowDeleted,
    RowDoubled,
    RowMoved,
    RowOfAnotherRequest,
    SerialSkipped,
    SerialsSwapped,
    CounterOff,
    NextSerialOff,
    AcknowledgedLost,
    Oversold,
    SoldOutTooEarly,
    IssuedAfterSoldOut,
    ServedOutOfOrder,
    AlreadyWithoutCause,
    BothRequestsIssued,
    AnotherCode,
    NeverAnswered,
    HolderSentAway,
    StockLeft,
    Refused,
    Slow,
}

use Kind as K;

/// Every plant, and what it shows in the hand-made world when the first that fits is corrupted. The first kind is what it
/// shows in any world.
pub(super) const ALL: [(Plant, &[Kind]); 21] = [
    (Plant::RowDeleted, &[K::Conservation, K::SerialGap, K::SerialOutOfRange, K::NextSerial, K::AckLost]),
    (Plant::RowDoubled, &[K::UserTwice, K::SerialTwice, K::SerialGap, K::NextSerial, K::Oversold, K::Conservation]),
    (Plant::RowMoved, &[K::Unasked, K::AckOtherUser]),
    (Plant::RowOfAnotherRequest, &[K::AckOtherRequest]),
    (Plant::SerialSkipped, &[K::SerialGap, K::SerialOutOfRange]),
    (Plant::SerialsSwapped, &[K::AckOtherSerial]),
    (Plant::CounterOff, &[K::Conservation]),
    (Plant::NextSerialOff, &[K::NextSerial]),
    (Plant::AcknowledgedLost, &[K::AckLost]),
    (Plant::Oversold, &[K::Oversold, K::Conservation]),
    (Plant::SoldOutTooEarly, &[K::FalseSoldOut, K::SoldOutThenIssued]),
    (Plant::IssuedAfterSoldOut, &[K::SoldOutThenIssued, K::FalseSoldOut, K::OutOfOrder]),
    (Plant::ServedOutOfOrder, &[K::OutOfOrder]),
    (Plant::AlreadyWithoutCause, &[K::AlreadyUnfounded]),
    (Plant::BothRequestsIssued, &[K::IssuedTwice]),
    (Plant::AnotherCode, &[K::AckOtherCode, K::AckOtherRequest]),
    (Plant::NeverAnswered, &[K::NeverFinal]),
    (Plant::HolderSentAway, &[K::SoldOutHolder]),
    (Plant::StockLeft, &[K::FalseSoldOut, K::Unserved]),
    (Plant::Refused, &[K::Refused]),
    (Plant::Slow, &[K::TooSlow]),
];

/// Chooses one of so many.
pub(super) type Choose<'a> = &'a mut dyn FnMut(usize) -> usize;

fn one<T>(all: Vec<T>, choose: Choose) -> Option<T> {
    let place = if all.is_empty() { return None } else { choose(all.len()) };
    all.into_iter().nth(place)
}

impl Plant {
    /// Corrupts the world in one place. `None`: nothing in it can be corrupted so.
    pub(super) fn apply(self, world: &mut World, choose: Choose) -> Option<()> {
        match self {
            Self::RowDeleted | Self::RowDoubled | Self::RowMoved | Self::RowOfAnotherRequest => {
                self.corrupt_row(world, choose)
            }
            Self::SerialSkipped | Self::SerialsSwapped | Self::ServedOutOfOrder => self.corrupt_serials(world, choose),
            Self::CounterOff | Self::NextSerialOff => self.corrupt_counter(world, choose),
            Self::AcknowledgedLost | Self::StockLeft => self.undo(world, choose),
            Self::IssuedAfterSoldOut => delay_winner(world, choose),
            Self::Oversold => oversell(world, choose),
            _ => self.corrupt_answer(world, choose),
        }
    }

    fn corrupt_row(self, world: &mut World, choose: Choose) -> Option<()> {
        let rows = &mut world.tables.holdings;
        let place = one((0..rows.len()).collect(), choose)?;
        match self {
            Self::RowDeleted => drop(rows.remove(place)),
            Self::RowDoubled => rows.push(rows[place].clone()),
            Self::RowMoved => rows[place].user_id = "stranger".to_owned(),
            _ => rows[place].request_id = vec![7; 16],
        }
        Some(())
    }

    fn corrupt_serials(self, world: &mut World, choose: Choose) -> Option<()> {
        if matches!(self, Self::SerialSkipped) {
            let place = one(world.last_rows(), choose)?;
            let skipped = world.tables.holdings[place].serial? + 1;
            renumber(world, place, skipped);
            return Some(());
        }
        let rows = &world.tables.holdings;
        let pairs = (0..rows.len()).flat_map(|a| (0..rows.len()).map(move |b| (a, b)));
        let same = pairs.filter(|&(a, b)| a != b && rows[a].coupon_id == rows[b].coupon_id);
        let (a, b) = match self {
            Self::SerialsSwapped => one(same.collect(), choose)?,
            _ => one(same.filter(|&(a, b)| is_earlier(world, &rows[a], &rows[b])).collect(), choose)?,
        };
        let (first, second) = (rows[a].serial?, rows[b].serial?);
        if matches!(self, Self::SerialsSwapped) {
            (world.tables.holdings[a].serial, world.tables.holdings[b].serial) = (Some(second), Some(first));
            return Some(());
        }
        renumber(world, a, second);
        renumber(world, b, first);
        Some(())
    }

    fn corrupt_counter(self, world: &mut World, choose: Choose) -> Option<()> {
        let coupons = &mut world.tables.coupons;
        let place = one((0..coupons.len()).collect(), choose)?;
        let counter = match self {
            Self::CounterOff => &mut coupons[place].remaining,
            _ => &mut coupons[place].next_serial,
        };
        *counter += 1;
        Some(())
    }

    /// The last issue of a coupon is undone, in the tables at least; in a round that sold out its user is sent away.
    fn undo(self, world: &mut World, choose: Choose) -> Option<()> {
        let sold_out = |place: &usize| {
            let code = world.code_of(&world.tables.holdings[*place]);
            world.history.attempts.iter().any(|attempt| attempt.code == code && attempt.told == Told::SoldOut)
        };
        let is_left = matches!(self, Self::StockLeft);
        let place = one(world.last_rows().into_iter().filter(|place| !is_left || sold_out(place)).collect(), choose)?;
        let row = world.tables.holdings.remove(place);
        let code = world.code_of(&row);
        let coupon = world.coupon(&code);
        (coupon.remaining, coupon.next_serial) = (coupon.remaining + 1, coupon.next_serial - 1);
        if is_left {
            world.retell(&code, &row.user_id, |told| *told = Told::SoldOut);
        }
        Some(())
    }

    fn corrupt_answer(self, world: &mut World, choose: Choose) -> Option<()> {
        let fits = |attempt: &&Attempt| match self {
            Self::SoldOutTooEarly => attempt.told == Told::SoldOut && has_rows(world, &attempt.code),
            Self::NeverAnswered => {
                let is_sold_out = |other: &Attempt| !other.told.is_final() || other.told == Told::SoldOut;
                attempt.told == Told::SoldOut && same(world, attempt).all(is_sold_out)
            }
            Self::Refused => attempt.told == Told::SoldOut,
            Self::BothRequestsIssued => matches!(attempt.told, Told::AlreadyIssued(_)),
            Self::AlreadyWithoutCause => is_issued(attempt) && same(world, attempt).all(|it| it.key == attempt.key),
            Self::AnotherCode => is_issued(attempt) && attempt.code != "B",
            Self::HolderSentAway => is_issued(attempt),
            _ => true,
        };
        let attempt = one(world.history.attempts.iter().filter(fits).collect(), choose)?.clone();
        let is_same = |other: &&mut Attempt| other.user == attempt.user && other.code == attempt.code;
        for other in world.history.attempts.iter_mut().filter(is_same) {
            let chosen = *other == attempt;
            match (self, other.told.entry().cloned()) {
                (Self::NeverAnswered, _) => other.told = Told::Nothing,
                (Self::HolderSentAway, Some(_)) => other.told = Told::SoldOut,
                (Self::AlreadyWithoutCause, Some(entry)) => other.told = Told::AlreadyIssued(entry),
                (Self::BothRequestsIssued, Some(entry)) if chosen => other.told = Told::Issued(entry),
                (Self::AnotherCode, Some(mut entry)) if chosen => {
                    "B".clone_into(&mut entry.code);
                    other.told = Told::Issued(entry);
                }
                (Self::SoldOutTooEarly, _) if chosen => (other.asked, other.answered) = (0, 1),
                (Self::Refused, _) if chosen => other.told = Told::Refused { status: 403 },
                (Self::Slow, _) if chosen => other.answered += 10_000_000,
                _ => {}
            }
        }
        Some(())
    }
}

fn is_issued(attempt: &Attempt) -> bool {
    matches!(attempt.told, Told::Issued(_))
}

/// What the user of `attempt` asked for the same code.
fn same<'a>(world: &'a World, attempt: &'a Attempt) -> impl Iterator<Item = &'a Attempt> {
    world.history.attempts.iter().filter(move |other| other.user == attempt.user && other.code == attempt.code)
}

fn has_rows(world: &World, code: &str) -> bool {
    world.tables.holdings.iter().any(|row| world.code_of(row) == code)
}

/// Whether somebody was told of the first piece before the holder of the second asked at all.
fn is_earlier(world: &World, first: &Holding, second: &Holding) -> bool {
    let code = world.code_of(first);
    let told = world.history.attempts.iter().filter(|attempt| attempt.user == first.user_id);
    let told = told.filter(|attempt| attempt.told.entry().is_some_and(|entry| entry.code == code));
    let asked = world.history.attempts.iter().filter(|attempt| attempt.user == second.user_id && attempt.code == code);
    let (told, asked) = (told.map(|it| it.answered).min(), asked.map(|it| it.asked).min());
    told.zip(asked).is_some_and(|(told, asked)| told < asked)
}

/// Gives a row another serial and tells its user so.
fn renumber(world: &mut World, place: usize, serial: u32) {
    let row = &mut world.tables.holdings[place];
    row.serial = Some(serial);
    let row = row.clone();
    let code = world.code_of(&row);
    world.retell(&code, &row.user_id, |told| {
        if let Told::Issued(entry) | Told::AlreadyIssued(entry) = told {
            entry.serial = Some(serial);
        }
    });
}

/// The holder of a piece of a coupon that sold out asked only when all was over.
fn delay_winner(world: &mut World, choose: Choose) -> Option<()> {
    const LATER: u64 = 1_000_000;
    let sold_out = |row: &&Holding| {
        let code = world.code_of(row);
        world.history.attempts.iter().any(|attempt| attempt.code == code && attempt.told == Told::SoldOut)
    };
    let row = one(world.tables.holdings.iter().filter(sold_out).collect(), choose)?.clone();
    let code = world.code_of(&row);
    let is_theirs = |attempt: &&mut Attempt| attempt.user == row.user_id && attempt.code == code;
    for attempt in world.history.attempts.iter_mut().filter(is_theirs) {
        (attempt.asked, attempt.answered) = (attempt.asked + LATER, attempt.answered + LATER);
    }
    Some(())
}

/// A user who was sent away gets one piece too many.
fn oversell(world: &mut World, choose: Choose) -> Option<()> {
    let sent_away: Vec<&Attempt> =
        world.history.attempts.iter().filter(|attempt| attempt.told == Told::SoldOut).collect();
    let Attempt { user, code, key, .. } = one(sent_away, choose)?.clone();
    let row = take(world.coupon(&code), &user, "one too many");
    let entry = entry_of(&code, &row);
    let is_same = |attempt: &&mut Attempt| attempt.user == user && attempt.code == code && attempt.key == key;
    for attempt in world.history.attempts.iter_mut().filter(is_same).filter(|attempt| attempt.told == Told::SoldOut) {
        attempt.told = Told::Issued(entry.clone());
    }
    world.tables.holdings.push(row);
    Some(())
}
