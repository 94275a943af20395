//! The promises, checked on what clients were told and on what the tables hold in the end.

use std::collections::{BTreeMap, BTreeSet};

use super::books::{Books, Moment};
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
    if plan.changes.is_empty() && !plan.exclusive {
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
        let total = books.totals[&(round, code.clone())];
        if rows > total {
            found.push(format!("{code} is oversold in round {round}: {rows} of {total}"));
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
        Told::Final(Outcome::SoldOut) if !seen_during(books, attempt).iter().any(|seen| seen.moment.remaining == 0) => {
            wrong("sold out while stock is left")
        }
        Told::Final(Outcome::SoldOut) if !was_refusable(books, attempt, |moment| moment.remaining == 0) => {
            wrong("sold out to a holder")
        }
        Told::Final(Outcome::NotOpen(_)) if !was_refusable(books, attempt, |moment| !moment.open) => {
            wrong("not closed, or closed to a holder")
        }
        Told::Final(Outcome::UnknownCoupon) => wrong("it is known"),
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
    is_row && seen_during(books, attempt).iter().any(|seen| seen.moment.round == entry.round)
}

/// Whether there was a moment that the attempt may know of in which this was so and its user held nothing. The two are of one
/// moment: neither one round's stock and another's holdings, nor what was before the user got its own piece.
fn was_refusable(books: &Books, attempt: &Attempt, refuses: impl Fn(&Moment) -> bool) -> bool {
    seen_during(books, attempt).iter().any(|Seen { moment, from_ms }| {
        let holding = (moment.round, moment.scope, attempt.user.clone());
        refuses(moment) && books.committed.get(&holding).is_none_or(|committed| committed >= from_ms)
    })
}

/// A state of the attempt's code, and from when on it counts.
struct Seen<'a> {
    moment: &'a Moment,
    from_ms: u64,
}

/// Every state which the attempt's answer may be about: of the time from asking to the answer, and, as memory may be used for so
/// long, what was before an administrator's change of the last second.
fn seen_during<'a>(books: &'a Books, attempt: &Attempt) -> Vec<Seen<'a>> {
    let known_before = attempt.asked_ms.saturating_sub(milliseconds(AGE_MAX));
    let changes = books.changes.iter().filter(|at| (known_before..=attempt.asked_ms).contains(*at));
    let since = changes.min().map_or(attempt.asked_ms, |first| first.saturating_sub(1));
    let of_code: Vec<_> = books.moments.iter().filter(|moment| moment.code == attempt.code).collect();
    let first = of_code.iter().rposition(|moment| moment.at_ms <= since).unwrap_or(0);
    let during = of_code.into_iter().skip(first).filter(|moment| moment.at_ms <= attempt.told_ms);
    during.map(|moment| Seen { moment, from_ms: moment.at_ms.max(since) }).collect()
}

/// A user that was told "issued" before another asked for the first time has the lower serial.
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

/// "Issued" is said once of a row; asked again with its key, the answer is "replayed".
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
