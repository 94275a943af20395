//! The rules between a history and the tables: what clients asked and were answered must be what one issuer, who takes one
//! request after the other, could have told them. Pure, and in time that grows with the history and its sorting.
//!
//! The tables' own rules, and those about every single entry that was told, are in `rules`.

use std::collections::HashSet;
use std::time::Duration;

use super::report::{Heard, Kind, Report};
use super::rules::Evidence;
use super::{Ack, Tables};
use crate::history::{Attempt, History, Told};

mod changing;
mod order;
mod scene;
mod stock;
mod timeline;
mod users;

#[cfg(test)]
mod crowd;
#[cfg(test)]
mod plants;
#[cfg(test)]
mod tests;

use scene::Scene;
use users::User;

/// The entries that clients were told, of their own request or of another, as answers to compare with the wallet.
pub(super) fn acks(attempts: &[Attempt]) -> impl Iterator<Item = Ack> {
    attempts.iter().filter_map(|attempt| {
        let entry = attempt.told.entry()?;
        Some(Ack {
            code: entry.code.clone(),
            user_id: attempt.user.clone(),
            serial: entry.serial,
            round: entry.round,
            request_id: Some(entry.request_id.clone()),
        })
    })
}

/// Adds to `report` what the history shows.
pub(super) fn judge(tables: &Tables, history: &History, patience: Duration, report: &mut Report) {
    let mut evidence = Evidence::default();
    let attempts = &history.attempts;
    if history.changes.is_empty() {
        check_steady(tables, attempts, &mut evidence);
    } else {
        changing::check(tables, history, &mut evidence);
    }
    check_time(attempts, patience, &mut evidence);
    report.heard = Some(count(attempts));
    report.findings.extend(evidence.into_findings("cases"));
}

/// The rules for a history in which nobody changed anything.
fn check_steady<'a>(tables: &'a Tables, attempts: &'a [Attempt], evidence: &mut Evidence<'a>) {
    let several = asks_for_several(tables, attempts);
    for scene in Scene::all(tables, attempts) {
        stock::check(&scene, several, evidence);
        order::check(&scene, evidence);
    }
    for user in User::all(tables, attempts) {
        user.check(evidence);
    }
    check_open(tables, attempts, evidence);
}

/// Whether somebody could have had several coupons but for the round's rule: then nobody can say how many must be issued.
fn asks_for_several(tables: &Tables, attempts: &[Attempt]) -> bool {
    let asked = attempts.iter().filter(|attempt| attempt.round == tables.event.round);
    let wishes: HashSet<(&str, &str)> = asked.map(|attempt| (&*attempt.user, &*attempt.code)).collect();
    let users: HashSet<&str> = wishes.iter().map(|(user, _)| *user).collect();
    tables.event.exclusive && users.len() < wishes.len()
}

/// No attempt takes longer than it may.
fn check_time<'a>(attempts: &'a [Attempt], patience: Duration, evidence: &mut Evidence<'a>) {
    for Attempt { user, code, asked, answered, .. } in attempts {
        let took = answered.saturating_sub(*asked);
        if u128::from(took) > patience.as_micros() {
            evidence.add(Kind::TooSlow, Some(code), format!("{user} waited {} ms", took / 1_000));
        }
    }
}

/// An open coupon is refused only for a lack of it.
fn check_open<'a>(tables: &Tables, attempts: &'a [Attempt], evidence: &mut Evidence<'a>) {
    let is_open = |attempt: &Attempt| {
        attempt.round == tables.event.round
            && tables.coupons.iter().any(|coupon| coupon.open && coupon.code == attempt.code)
    };
    for attempt in attempts {
        let Attempt { user, code, told, .. } = attempt;
        if let Told::Refused { status } = told
            && is_open(attempt)
        {
            evidence.add(Kind::Refused, Some(code), format!("{user} was told {status}"));
        }
    }
}

fn count(attempts: &[Attempt]) -> Heard {
    let users: HashSet<&str> = attempts.iter().map(|attempt| attempt.user.as_str()).collect();
    let mut heard = Heard { attempts: attempts.len(), users: users.len(), ..Heard::default() };
    for attempt in attempts {
        heard.slowest = heard.slowest.max(attempt.answered.saturating_sub(attempt.asked));
        *match attempt.told {
            Told::Issued(_) => &mut heard.issued,
            Told::AlreadyIssued(_) => &mut heard.already_issued,
            Told::SoldOut => &mut heard.sold_out,
            Told::Refused { .. } => &mut heard.refused,
            Told::Retryable => &mut heard.retryable,
            Told::Nothing => &mut heard.nothing,
        } += 1;
    }
    heard
}
