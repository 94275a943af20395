//! The promises, checked on what clients were told and on what the tables hold in the end.

use std::collections::{BTreeMap, BTreeSet};

use super::books::Books;
use super::plan::Plan;
use super::world::{Attempt, DEADLINE, Record, Told, user_name};
use crate::coupons::{Code, Entry, Outcome};
use crate::memory::AGE_MAX;

/// Every promise that the record of a plan breaks.
pub(super) fn broken(plan: &Plan, record: &Record) -> Vec<String> {
    let books = record.server.books.lock();
    let mut found = record.server.problems.lock().clone();
    found.extend(tables(&books));
    for attempt in &record.attempts {
        found.extend(answer(plan, &books, attempt));
    }
    found.extend(order_in_time(&books, &record.attempts));
    found.extend(announced_twice(&record.attempts));
    if plan.change.is_none() && !plan.exclusive {
        found.extend(complete(&books, &record.attempts));
    }
    let (outstanding, panics) = (record.keys.outstanding(), *record.server.panics.lock());
    if outstanding > panics {
        found.push(format!("{outstanding} leases are held in the end, and {panics} tasks panicked"));
    }
    found
}

fn milliseconds(time: std::time::Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap()
}

/// Never oversold, never twice, serials without gaps, stock and rows in balance.
fn tables(books: &Books) -> Vec<String> {
    let mut found = Vec::new();
    let mut serials: BTreeMap<(u32, &Code), Vec<u32>> = BTreeMap::new();
    let mut holders = BTreeSet::new();
    for (scope, entry) in &books.wallet {
        serials.entry((entry.round, &entry.code)).or_default().push(entry.serial.unwrap());
        if !holders.insert((entry.round, scope, &entry.user_id)) {
            found.push(format!("issued twice: {entry:?}"));
        }
    }
    for ((round, code), mut serials) in serials {
        let row = &books.coupons[code];
        serials.sort_unstable();
        let rows = u32::try_from(serials.len()).unwrap();
        if !serials.iter().copied().eq(1..=rows) {
            found.push(format!("serials of {code} in round {round}: {serials:?}"));
        }
        if rows > row.total {
            found.push(format!("{code} is oversold in round {round}: {rows} of {}", row.total));
        }
        if round == books.round && rows + row.remaining != row.total {
            found.push(format!("{code} is out of balance: {rows} rows, {row:?}"));
        }
    }
    found
}

/// One attempt was told the truth, in time.
fn answer(plan: &Plan, books: &Books, attempt: &Attempt) -> Option<String> {
    let wrong = |what: &str| Some(format!("{what}: {attempt:?}"));
    if attempt.told_ms - attempt.asked_ms > milliseconds(DEADLINE) {
        return wrong("late");
    }
    match &attempt.told {
        Told::Final(Outcome::Issued(entry) | Outcome::Replayed(entry)) => {
            let is_own = entry.request_id == attempt.request && entry.user_id == attempt.user;
            if is_own && is_held(books, entry, attempt) { None } else { wrong("not what the wallet holds") }
        }
        Told::Final(Outcome::AlreadyIssued(entry)) => {
            let is_own = entry.request_id != attempt.request && entry.user_id == attempt.user;
            if is_own && is_held(books, entry, attempt) { None } else { wrong("held by nobody") }
        }
        Told::Final(Outcome::SoldOut) if !was_sold_out(books, attempt) => wrong("sold out while stock is left"),
        Told::Final(Outcome::NotOpen(_) | Outcome::UnknownCoupon) => wrong("neither closed nor unknown"),
        Told::Rejected => {
            let bad = plan.poison.map(|poison| user_name(poison.user));
            if bad.as_deref() == Some(attempt.user.as_str()) { None } else { wrong("refused for another's data") }
        }
        _ => None,
    }
}

/// Whether the entry is a row of a round that was known while the attempt ran.
fn is_held(books: &Books, entry: &Entry, attempt: &Attempt) -> bool {
    let is_row = books.wallet.iter().any(|(_, row)| row == entry);
    is_row && seen_during(books, attempt).iter().any(|&(round, _)| round == entry.round)
}

/// Whether nothing was left of the code at some moment that the attempt may know of.
fn was_sold_out(books: &Books, attempt: &Attempt) -> bool {
    seen_during(books, attempt).iter().any(|&(_, remaining)| remaining == 0)
}

/// Round and stock of the attempt's code at every moment which its answer may be about: from as long before it as memory
/// may be used, to its end.
fn seen_during(books: &Books, attempt: &Attempt) -> Vec<(u32, u32)> {
    let since = attempt.asked_ms.saturating_sub(milliseconds(AGE_MAX));
    let of_code: Vec<_> = books.moments.iter().filter(|moment| moment.code == attempt.code).collect();
    let first = of_code.iter().rposition(|moment| moment.at_ms <= since).unwrap_or(0);
    let during = of_code.into_iter().skip(first).filter(|moment| moment.at_ms <= attempt.told_ms);
    during.map(|moment| (moment.round, moment.remaining)).collect()
}

/// Whoever was told "issued" before another asked for the first time has the lower serial.
fn order_in_time(books: &Books, attempts: &[Attempt]) -> Vec<String> {
    let mut found = Vec::new();
    let mut asked: BTreeMap<[u8; 16], u64> = BTreeMap::new();
    for attempt in attempts {
        let first = asked.entry(attempt.request.0).or_insert(u64::MAX);
        *first = attempt.asked_ms.min(*first);
    }
    for attempt in attempts {
        let Told::Final(Outcome::Issued(entry)) = &attempt.told else { continue };
        let later = books.wallet.iter().map(|(_, row)| row).filter(|row| {
            (row.round, &row.code) == (entry.round, &entry.code) && asked[&row.request_id.0] > attempt.told_ms
        });
        found.extend(later.filter(|row| row.serial < entry.serial).map(|row| format!("{row:?} overtook {entry:?}")));
    }
    found
}

/// "Issued" is said once of a row; whoever asks again with its key is told "replayed".
fn announced_twice(attempts: &[Attempt]) -> Vec<String> {
    let mut announced = BTreeSet::new();
    let issued = attempts.iter().filter_map(|attempt| match &attempt.told {
        Told::Final(Outcome::Issued(entry)) => Some((entry.round, &entry.code, entry.serial)),
        _ => None,
    });
    issued.filter(|row| !announced.insert(*row)).map(|row| format!("announced twice: {row:?}")).collect()
}

/// Nobody was sent away for nothing: a code is sold out or everybody has it.
fn complete(books: &Books, attempts: &[Attempt]) -> Vec<String> {
    let mut found = Vec::new();
    for (code, row) in &books.coupons {
        let users: BTreeSet<_> =
            attempts.iter().filter(|attempt| attempt.code == *code).map(|attempt| &attempt.user).collect();
        let rows = books.wallet.iter().filter(|(_, entry)| entry.code == *code).count();
        if rows != users.len().min(row.total as usize) {
            found.push(format!("{rows} of {} pieces of {code} went to {} users", row.total, users.len()));
        }
    }
    found
}
