//! One user in one round: what was told fits together, and ends with a decision.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::super::Tables;
use super::super::report::Kind;
use super::super::rules::Evidence;
use crate::history::{Attempt, Entry, Told};

/// One user in one round.
pub(super) struct User<'a> {
    name: &'a str,
    /// One coupon over all codes; `None` for a round that is over, whose rule nobody knows.
    exclusive: Option<bool>,
    attempts: Vec<&'a Attempt>,
    /// The codes of which it holds a piece.
    held: Vec<&'a str>,
}

impl<'a> User<'a> {
    pub(super) fn all(tables: &'a Tables, attempts: &'a [Attempt]) -> Vec<Self> {
        let codes = tables.codes();
        let mut held: HashMap<(u32, &str), Vec<&str>> = HashMap::new();
        for row in &tables.holdings {
            held.entry((row.round, &row.user_id)).or_default().extend(codes.get(&row.coupon_id));
        }
        let mut asked: BTreeMap<(u32, &str), Vec<&Attempt>> = BTreeMap::new();
        for attempt in attempts {
            asked.entry((attempt.round, &attempt.user)).or_default().push(attempt);
        }
        let user = |((round, name), attempts): ((u32, &'a str), Vec<&'a Attempt>)| Self {
            name,
            exclusive: (round == tables.event.round).then_some(tables.event.exclusive),
            attempts,
            held: held.remove(&(round, name)).unwrap_or_default(),
        };
        asked.into_iter().map(user).collect()
    }

    pub(super) fn check(&self, evidence: &mut Evidence<'a>) {
        self.check_issued(evidence);
        for attempt in &self.attempts {
            self.check_code(attempt, evidence);
            self.check_already(attempt, evidence);
            self.check_sold_out(attempt, evidence);
        }
        if self.exclusive.is_some() {
            self.check_end(evidence);
        }
    }

    /// One request at most was told that it got a coupon: of each code, or of any when the round is exclusive.
    fn check_issued(&self, evidence: &mut Evidence<'a>) {
        let mut requests: BTreeMap<Option<&str>, BTreeSet<(&str, &str)>> = BTreeMap::new();
        for attempt in self.attempts.iter().filter(|attempt| matches!(attempt.told, Told::Issued(_))) {
            let domain = (self.exclusive != Some(true)).then_some(attempt.code.as_str());
            requests.entry(domain).or_default().insert((&attempt.code, &attempt.key));
        }
        for (code, requests) in requests.into_iter().filter(|(_, requests)| requests.len() > 1) {
            evidence.add(Kind::IssuedTwice, code, format!("{} by {} requests", self.name, requests.len()));
        }
    }

    /// What is told is about what was asked for. Only the rule of an exclusive round lets another code be told.
    fn check_code(&self, attempt: &'a Attempt, evidence: &mut Evidence<'a>) {
        let may_differ = matches!(attempt.told, Told::AlreadyIssued(_)) && self.exclusive != Some(false);
        if let Some(entry) = attempt.told.entry()
            && entry.code != attempt.code
            && !may_differ
        {
            let what = format!("{} was told of {}", self.name, entry.code);
            evidence.add(Kind::AckOtherCode, Some(&attempt.code), what);
        }
    }

    /// Another request can only have got the coupon if another one had been made.
    fn check_already(&self, attempt: &'a Attempt, evidence: &mut Evidence<'a>) {
        let Told::AlreadyIssued(entry) = &attempt.told else { return };
        let is_other = |other: &Attempt| other.code != attempt.code || other.key != attempt.key;
        let could_have = |other: &Attempt| other.code == entry.code && other.asked <= attempt.answered;
        if !self.attempts.iter().any(|other| is_other(other) && could_have(other)) {
            let what = format!("{} had made no other request", self.name);
            return evidence.add(Kind::AlreadyUnfounded, Some(&attempt.code), what);
        }
        let is_own = |other: &Attempt| {
            !is_other(other) && matches!(&other.told, Told::Issued(own) if own.request_id == entry.request_id)
        };
        if self.attempts.iter().any(|other| is_own(other)) {
            let what = format!("{} was told of the very request that it made", self.name);
            evidence.add(Kind::AlreadyUnfounded, Some(&attempt.code), what);
        }
    }

    /// A holder of a coupon is told so. In an exclusive round another code's "sold out" may have come first.
    fn check_sold_out(&self, attempt: &'a Attempt, evidence: &mut Evidence<'a>) {
        if attempt.told != Told::SoldOut {
            return;
        }
        let answers = |entry: &Entry| self.exclusive == Some(true) || entry.code == attempt.code;
        let known = self.attempts.iter().filter(|other| other.answered < attempt.asked);
        let was_told = known.filter_map(|other| other.told.entry()).any(answers);
        if was_told || self.held.contains(&attempt.code.as_str()) {
            evidence.add(Kind::SoldOutHolder, Some(&attempt.code), self.name.to_owned());
        }
    }

    /// A user that was told of a coupon has a decision, whatever was lost on the way afterwards; else the last answer must be one.
    fn check_end(&self, evidence: &mut Evidence<'a>) {
        let mut by_code: BTreeMap<&str, Vec<&Attempt>> = BTreeMap::new();
        for attempt in &self.attempts {
            by_code.entry(&attempt.code).or_default().push(attempt);
        }
        for (code, attempts) in by_code {
            let last = attempts.iter().max_by_key(|attempt| (attempt.answered, attempt.asked));
            let is_final = attempts.iter().any(|attempt| attempt.told.entry().is_some())
                || last.is_some_and(|last| last.told.is_final());
            if !is_final {
                evidence.add(Kind::NeverFinal, Some(code), self.name.to_owned());
            }
        }
    }
}
