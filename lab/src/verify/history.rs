//! The rules between a history and the tables: what clients asked and were answered must be what one issuer, which takes one
//! request after the other, could have told them while the situation was what it was. Pure.
//!
//! The tables' own rules, and those about every single entry that was told, are in `rules`.

use std::collections::{BTreeMap, HashSet};
use std::time::Duration;

use super::report::{Heard, Kind, Report};
use super::rules::{self, Evidence};
use super::{Event, Tables};
use crate::history::{Ack, Attempt, History, Situation, Told};

mod answers;
mod index;
mod stock;
mod timeline;
mod wallets;

#[cfg(test)]
mod changing;
#[cfg(test)]
mod plants;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod world;

use index::Index;
use timeline::Timeline;

/// The entries that clients were told, of their own request or of another or as a part of their wallet, as answers to compare with the
/// tables.
pub(super) fn acks(history: &History) -> impl Iterator<Item = Ack> {
    let told = history.attempts.iter().filter_map(|it| Some((&it.user, it.told.entry()?)));
    let seen = history.looks.iter().flat_map(|look| look.entries().iter().map(|entry| (&look.user, entry)));
    told.chain(seen).map(|(user, entry)| Ack { user_id: user.clone(), ..entry.clone() })
}

pub(super) fn judge(tables: &Tables, history: &History, patience: Duration, report: &mut Report) {
    let always = [timeline::always(tables)];
    let timeline = Timeline { changes: if history.changes.is_empty() { &always } else { &history.changes } };
    let mut evidence = Evidence::default();
    let index = Index::new(tables, history, timeline, &mut evidence);
    answers::check(&index, &mut evidence);
    wallets::check(&index, &history.looks, &mut evidence);
    stock::check(&index, tables, &mut evidence);
    check_rules(&index.timeline, tables, &mut evidence);
    check_end(index.timeline.end(), tables, &mut evidence);
    check_time(history, patience, &mut evidence);
    report.heard = Some(count(&history.attempts));
    report.findings.extend(evidence.into_findings());
}

/// Rounds that are over kept their rules, too.
fn check_rules<'a>(timeline: &Timeline, tables: &'a Tables, evidence: &mut Evidence<'a>) {
    let rules: BTreeMap<u32, bool> = timeline.changes.iter().map(|it| (it.after.round, it.after.exclusive)).collect();
    for (round, exclusive) in rules.into_iter().filter(|(round, _)| *round != tables.event.round) {
        rules::check_rule(tables, Event { round, exclusive }, evidence);
    }
}

/// The tables are as the last change left them, unless other rounds have come, of which the history does not tell.
fn check_end<'a>(end: &'a Situation, tables: &Tables, evidence: &mut Evidence<'a>) {
    let Event { round, exclusive } = tables.event;
    if round > end.round {
        return;
    }
    if (round, exclusive) != (end.round, end.exclusive) {
        let what = format!("round {round}, exclusive: {exclusive}, and not {}, {}", end.round, end.exclusive);
        evidence.add(Kind::ChangeLost, None, what);
    }
    for (code, stock) in &end.coupons {
        let total = tables.coupons.iter().find(|coupon| coupon.code == *code).map(|coupon| coupon.total);
        if total != Some(stock.total) {
            evidence.add(Kind::ChangeLost, Some(code), format!("{total:?} pieces, and not {}", stock.total));
        }
    }
}

fn check_time<'a>(history: &'a History, patience: Duration, evidence: &mut Evidence<'a>) {
    let asked = history.attempts.iter().map(|it| (Some(it.code.as_str()), &it.user, it.lasted()));
    let looked = history.looks.iter().map(|it| (None, &it.user, it.lasted()));
    for (code, user, lasted) in asked.chain(looked) {
        let took = lasted.end().saturating_sub(*lasted.start());
        if u128::from(took) > patience.as_micros() {
            evidence.add(Kind::TooSlow, code, format!("{user} waited {} ms", took / 1_000));
        }
    }
}

fn count(attempts: &[Attempt]) -> Heard {
    let users: HashSet<&str> = attempts.iter().map(|attempt| attempt.user.as_str()).collect();
    let mut heard = Heard { attempts: attempts.len(), users: users.len(), ..Heard::default() };
    for attempt in attempts {
        heard.slowest = heard.slowest.max(attempt.answered.saturating_sub(attempt.asked));
        *match attempt.told {
            Told::Issued(_) | Told::Replayed(_) => &mut heard.issued,
            Told::AlreadyIssued(_) => &mut heard.already_issued,
            Told::SoldOut => &mut heard.sold_out,
            Told::Refused { .. } => &mut heard.refused,
            Told::Retryable => &mut heard.retryable,
            Told::Nothing => &mut heard.nothing,
        } += 1;
    }
    heard
}
