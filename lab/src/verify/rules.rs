//! The rules: what must hold in the tables of one snapshot, and between them and what clients were told. Pure, so that
//! each rule is tested with the corruption that it exists for. Users are compared byte by byte: `u-1`, `U-1` and `u-1 `
//! are three, whatever a collation thinks.

use std::collections::{BTreeMap, HashSet};

use super::report::{CouponReport, Finding, Kind, Report};
use super::{Ack, Coupon, Holding, Tables};

mod acks;
mod serials;
mod stock;
mod users;

use acks::check_acks;
use serials::check_serials;
use stock::check_stock;
use users::{check_scope, check_users};

/// Enough to start looking, few enough to read.
const EXAMPLES_MAX: usize = 3;

/// Judges the tables by themselves, and against `acks` when there are any to compare with.
pub(super) fn judge(tables: &Tables, acks: Option<&[Ack]>) -> Report {
    let Tables { event, coupons, holdings, .. } = tables;
    let mut findings = Vec::new();
    let mut by_coupon: BTreeMap<u16, Vec<&Holding>> = BTreeMap::new();
    for holding in holdings.iter().filter(|holding| holding.round == event.round) {
        by_coupon.entry(holding.coupon_id).or_default().push(holding);
    }
    check_users(tables, &mut findings);
    let mut reports = Vec::new();
    for coupon in coupons {
        let rows = by_coupon.remove(&coupon.id).unwrap_or_default();
        let report = describe(coupon, &rows);
        check_stock(&report, &mut findings);
        check_scope(*event, coupon, &rows, &mut findings);
        check_serials(coupon, &rows, &mut findings);
        reports.push(report);
    }
    for (id, rows) in by_coupon {
        let evidence = format!("{} rows of a coupon with id {id}, which does not exist", rows.len());
        findings.push(Finding::new(Kind::UnknownCoupon, None, rows.len(), evidence));
    }
    let acknowledged = acks.map(|acks| check_acks(tables, acks, &mut findings));
    Report {
        round: event.round,
        exclusive: event.exclusive,
        coupons: reports,
        users: current(tables).map(|holding| &holding.user_id).collect::<HashSet<_>>().len(),
        acknowledged,
        heard: None,
        findings,
    }
}

fn current(tables: &Tables) -> impl Iterator<Item = &Holding> {
    tables.holdings.iter().filter(|holding| holding.round == tables.event.round)
}

fn describe(coupon: &Coupon, rows: &[&Holding]) -> CouponReport {
    let issued = i64::from(coupon.total) - i64::from(coupon.remaining);
    CouponReport {
        code: coupon.code.clone(),
        total: coupon.total,
        remaining: coupon.remaining,
        rows: rows.len(),
        users: rows.iter().map(|row| &row.user_id).collect::<HashSet<_>>().len(),
        lowest_serial: rows.iter().filter_map(|row| row.serial).min(),
        highest_serial: rows.iter().filter_map(|row| row.serial).max(),
        lost_updates: i64::try_from(rows.len()).unwrap_or(i64::MAX) - issued,
        open: coupon.open,
    }
}

fn examples<T: ToString>(all: impl IntoIterator<Item = T>) -> String {
    let mut all = all.into_iter();
    let mut shown: Vec<String> = all.by_ref().take(EXAMPLES_MAX).map(|one| one.to_string()).collect();
    if all.next().is_some() {
        shown.push("…".to_owned());
    }
    shown.join(", ")
}

/// What was found, by code and kind: each becomes one finding, however often it was seen.
#[derive(Default)]
pub(super) struct Evidence<'a>(BTreeMap<(Option<&'a str>, Kind), Vec<String>>);

impl<'a> Evidence<'a> {
    pub(super) fn add(&mut self, kind: Kind, code: Option<&'a str>, what: String) {
        self.0.entry((code, kind)).or_default().push(what);
    }

    /// `noun` is what was counted.
    pub(super) fn into_findings(self, noun: &str) -> impl Iterator<Item = Finding> {
        self.0.into_iter().map(move |((code, kind), all)| {
            let text = format!("{} {noun}: {}", all.len(), examples(&all));
            Finding::new(kind, code, all.len(), text)
        })
    }
}

#[cfg(test)]
mod tests;
