//! The rules: what must hold in the tables of one snapshot, and between them and what clients were told. Pure, so that
//! each rule is tested with the corruption that it exists for. Users are compared byte by byte: `u-1`, `U-1` and `u-1 `
//! are three, whatever a collation thinks.

use std::collections::{BTreeMap, HashSet};

use super::report::{Books, Finding, Kind, Report};
use super::{Ack, Coupon, Event, Holding, Tables};

mod acks;

/// Enough to start looking, few enough to read.
const EXAMPLES_MAX: usize = 3;

/// Judges the tables by themselves, and against `acks` when there are any to compare with.
pub(super) fn judge(tables: &Tables, acks: Option<&[Ack]>) -> Report {
    let mut evidence = Evidence::default();
    let mut by_coupon: BTreeMap<u16, Vec<&Holding>> = BTreeMap::new();
    for holding in current(tables) {
        by_coupon.entry(holding.coupon_id).or_default().push(holding);
    }
    check_rule(tables, tables.event, &mut evidence);
    let mut coupons = Vec::new();
    for coupon in &tables.coupons {
        let rows = by_coupon.remove(&coupon.id).unwrap_or_default();
        check_step(tables.event, coupon, &mut evidence);
        check_serials(coupon, &rows, &mut evidence);
        coupons.push(check_stock(coupon, &rows, &mut evidence));
    }
    for row in by_coupon.into_values().flatten() {
        evidence.add(Kind::UnknownCoupon, None, format!("{} holds one of id {}", row.user_id, row.coupon_id));
    }
    Report {
        event: tables.event,
        coupons,
        users: users(current(tables)),
        acknowledged: acks.map(|acks| acks::check(tables, acks, &mut evidence)),
        heard: None,
        findings: evidence.into_findings(),
    }
}

fn current(tables: &Tables) -> impl Iterator<Item = &Holding> {
    of_round(tables, tables.event.round)
}

fn of_round(tables: &Tables, round: u32) -> impl Iterator<Item = &Holding> {
    tables.holdings.iter().filter(move |holding| holding.round == round)
}

fn users<'a>(rows: impl Iterator<Item = &'a Holding>) -> usize {
    rows.map(|row| &row.user_id).collect::<HashSet<_>>().len()
}

/// One coupon per user, over the event or per code as the round's rule says, and each in the scope that keeps it so.
pub(super) fn check_rule<'a>(tables: &'a Tables, event: Event, evidence: &mut Evidence<'a>) {
    let (codes, mut holders) = (tables.codes(), HashSet::new());
    for Holding { coupon_id, user_id, scope, .. } in of_round(tables, event.round) {
        let code = codes.get(coupon_id).copied();
        let id = (!event.exclusive).then_some(coupon_id);
        if !holders.insert((id, user_id)) {
            evidence.add(Kind::UserTwice, id.and(code), user_id.clone());
        }
        if *scope != event.scope(*coupon_id) {
            evidence.add(Kind::WrongScope, code, format!("{user_id} in {scope}"));
        }
    }
}

/// What the counters say, against the rows.
fn check_stock<'a>(coupon: &'a Coupon, rows: &[&Holding], evidence: &mut Evidence<'a>) -> Books {
    let (Coupon { code, total, remaining, .. }, count) = (coupon, rows.len());
    let excess = count.saturating_sub(*total as usize);
    evidence.count(Kind::Oversold, Some(code), excess, format!("{count} rows for {total} pieces"));
    let lost_updates = i64::try_from(count).unwrap_or(i64::MAX) - i64::from(*total) + i64::from(*remaining);
    let what = if lost_updates > 0 { "lost updates" } else { "pieces taken that nobody holds" };
    let lost = usize::try_from(lost_updates.unsigned_abs()).unwrap_or(usize::MAX);
    let what = format!("{what}: total {total}, remaining {remaining}, rows {count}");
    evidence.count(Kind::Conservation, Some(code), lost, what);
    let serials = || rows.iter().filter_map(|row| row.serial);
    let (serials, users) = (serials().min().zip(serials().max()), users(rows.iter().copied()));
    Books { coupon: coupon.clone(), rows: count, users, serials, lost_updates }
}

/// The coupon follows the event.
fn check_step<'a>(event: Event, Coupon { id, code, round, scope, .. }: &'a Coupon, evidence: &mut Evidence<'a>) {
    let wanted = (event.round, event.scope(*id));
    if (*round, *scope) != wanted {
        let what = format!("round and scope are {:?}, but the event says {wanted:?}", (round, scope));
        evidence.add(Kind::OutOfStep, Some(code), what);
    }
}

/// Serials are 1, 2, 3 … without gaps: the order in which pieces were given out, and a second proof of how many. A coupon of which
/// nothing has one was issued by `unlocked`, which gives none.
fn check_serials<'a>(coupon: &'a Coupon, rows: &[&Holding], evidence: &mut Evidence<'a>) {
    let mut serials: Vec<u32> = rows.iter().filter_map(|row| row.serial).collect();
    let (next, last) = (coupon.next_serial, u32::try_from(rows.len()).unwrap_or(u32::MAX));
    if serials.is_empty() && last > 0 && next == 1 {
        return;
    }
    serials.sort_unstable();
    let mut add = |kind, what: String| evidence.add(kind, Some(&coupon.code), what);
    for row in rows.iter().filter(|row| row.serial.is_none()) {
        add(Kind::SerialMissing, row.user_id.clone());
    }
    for pair in serials.windows(2).filter(|pair| pair[0] == pair[1]) {
        add(Kind::SerialTwice, pair[0].to_string());
    }
    for serial in serials.iter().filter(|serial| !(1..=last).contains(*serial)) {
        add(Kind::SerialOutOfRange, format!("{serial} of {last}"));
    }
    for serial in (1..=last).filter(|serial| serials.binary_search(serial).is_err()) {
        add(Kind::SerialGap, format!("{serial} of {last}"));
    }
    if u64::from(next) != u64::from(last) + 1 {
        add(Kind::NextSerial, format!("{next} after {last} rows"));
    }
}

/// What was found, by code and kind: each becomes one finding.
#[derive(Default)]
pub(super) struct Evidence<'a>(BTreeMap<(Option<&'a str>, Kind), Shown>);

/// How often something was found, and examples of it.
type Shown = (usize, Vec<String>);

impl<'a> Evidence<'a> {
    pub(super) fn add(&mut self, kind: Kind, code: Option<&'a str>, what: String) {
        self.count(kind, code, 1, what);
    }

    /// `what` shows it so many times, which may be none.
    fn count(&mut self, kind: Kind, code: Option<&'a str>, count: usize, what: String) {
        if count > 0 {
            let (sum, examples) = self.0.entry((code, kind)).or_default();
            *sum += count;
            examples.push(what);
        }
    }

    pub(super) fn into_findings(self) -> Vec<Finding> {
        let all = self.0.into_iter().map(|((code, kind), (count, mut examples))| {
            if examples.len() > EXAMPLES_MAX {
                examples.truncate(EXAMPLES_MAX);
                examples.push("…".to_owned());
            }
            Finding::new(kind, code, count, examples.join(", "))
        });
        all.collect()
    }
}

#[cfg(test)]
mod tests;
