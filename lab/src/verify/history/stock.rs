//! "Sold out", and how many pieces must have been issued.

use std::collections::HashSet;

use super::super::Coupon;
use super::super::report::Kind;
use super::super::rules::Evidence;
use super::scene::Scene;
use crate::history::{Attempt, Told};

/// `several`: somebody asked for several codes of an exclusive round.
pub(super) fn check<'a>(scene: &Scene<'a>, several: bool, evidence: &mut Evidence<'a>) {
    for row in &scene.unasked {
        evidence.add(Kind::Unasked, Some(scene.code), row.user_id.clone());
    }
    check_sold_out(scene, evidence);
    if let Some(coupon) = scene.coupon.filter(|_| !several) {
        check_served(scene, coupon, evidence);
    }
}

/// Once somebody was told "sold out", every holder of a piece must have asked for it before.
fn check_sold_out<'a>(scene: &Scene<'a>, evidence: &mut Evidence<'a>) {
    let refusals = scene.attempts.iter().filter(|attempt| attempt.told == Told::SoldOut);
    let Some(Attempt { user, answered, .. }) = refusals.min_by_key(|attempt| attempt.answered) else { return };
    let (before, after): (Vec<_>, Vec<_>) = scene.wins.iter().partition(|win| win.asked <= *answered);
    for win in after {
        let later = win.asked - answered;
        let what = format!("{} asked {later} µs after {user} had been told \"sold out\"", win.user);
        evidence.add(Kind::SoldOutThenIssued, Some(scene.code), what);
    }
    // Rows that nobody asked for may have been there from the beginning.
    let could = before.len() + scene.unasked.len();
    if let Some(&Coupon { total, .. }) = scene.coupon
        && could < total as usize
    {
        let what = format!("{user} was told so when {could} of {total} pieces could have been issued");
        evidence.add(Kind::FalseSoldOut, Some(scene.code), what);
    }
}

/// Every user that asked has one, or all pieces are gone.
fn check_served<'a>(scene: &Scene<'a>, coupon: &Coupon, evidence: &mut Evidence<'a>) {
    let must = scene.first.len().min(coupon.total as usize);
    let served = scene.wins.len() + scene.unasked.len();
    if served < must {
        let winners: HashSet<&str> = scene.wins.iter().map(|win| win.user).collect();
        let mut without: Vec<_> = scene.first.keys().filter(|user| !winners.contains(**user)).collect();
        without.sort_unstable();
        for user in without.into_iter().take(must - served) {
            evidence.add(Kind::Unserved, Some(scene.code), (*user).to_owned());
        }
    }
}
