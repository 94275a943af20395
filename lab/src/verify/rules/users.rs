//! The holders: each user once, within the scope that the round's rule gives.

use std::collections::{BTreeMap, HashMap, HashSet};

use super::super::report::{Finding, Kind};
use super::super::{Coupon, Event, Holding, Tables};
use super::{current, examples};

pub(super) fn check_scope(event: Event, coupon: &Coupon, rows: &[&Holding], findings: &mut Vec<Finding>) {
    let scope = if event.exclusive { 0 } else { coupon.id };
    if (coupon.round, coupon.scope) != (event.round, scope) {
        let Coupon { code, round, scope: copy, .. } = coupon;
        let evidence = format!("round {round} and scope {copy}, but the event says {} and {scope}", event.round);
        findings.push(Finding::new(Kind::OutOfStep, Some(code), 1, evidence));
    }
    let strays: Vec<_> = rows.iter().filter(|row| row.scope != scope).collect();
    if !strays.is_empty() {
        let users = examples(strays.iter().map(|row| &row.user_id));
        let evidence = format!("{} rows outside scope {scope}: {users}", strays.len());
        findings.push(Finding::new(Kind::WrongScope, Some(&coupon.code), strays.len(), evidence));
    }
}

/// One coupon per user, over the event or per code as the round's rule says.
pub(super) fn check_users(tables: &Tables, findings: &mut Vec<Finding>) {
    let codes: HashMap<u16, &str> = tables.coupons.iter().map(|coupon| (coupon.id, coupon.code.as_str())).collect();
    let mut holders: HashSet<(Option<u16>, &str)> = HashSet::new();
    let mut twice: BTreeMap<Option<u16>, Vec<&str>> = BTreeMap::new();
    for holding in current(tables) {
        let domain = if tables.event.exclusive { None } else { Some(holding.coupon_id) };
        if !holders.insert((domain, &holding.user_id)) {
            twice.entry(domain).or_default().push(&holding.user_id);
        }
    }
    for (domain, users) in twice {
        let code = domain.and_then(|id| codes.get(&id).copied());
        let evidence = format!("{} coupons too many, held by {}", users.len(), examples(&users));
        findings.push(Finding::new(Kind::UserTwice, code, users.len(), evidence));
    }
}
