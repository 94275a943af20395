//! What each user was told: every answer is true of a situation in which it may have been given, it fits what the same user was told
//! besides, and the last one is a decision.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;

use super::index::{Index, Win};
use super::{Evidence, Kind};
use crate::history::{Ack, Attempt, Told};

pub(super) const NOT_OPEN: u16 = 403;
pub(super) const UNKNOWN: u16 = 404;

/// Why an answer is wrong.
type Reason = (Kind, String);

pub(super) fn check<'a>(index: &Index<'a>, evidence: &mut Evidence<'a>) {
    for attempt in index.attempts {
        index.check_entry(attempt, evidence);
        index.check_refusal(attempt, evidence);
    }
    index.check_issued(evidence);
    index.check_anew(evidence);
    index.check_ends(evidence);
}

impl<'a> Index<'a> {
    /// What was told is of a round that it may have been told in, and about what was asked for.
    fn check_entry(&self, attempt: &'a Attempt, evidence: &mut Evidence<'a>) {
        let Some(entry) = attempt.told.entry() else { return };
        let Attempt { user, code, key, answered, .. } = attempt;
        self.check_holder(user, attempt.lasted(), entry, evidence);
        let mut add = |kind, what: String| evidence.add(kind, Some(code), format!("{user} {what}"));
        let is_already = matches!(attempt.told, Told::AlreadyIssued(_));
        // Only the rule of an exclusive round lets another code be told.
        if entry.code != *code && !(is_already && self.timeline.exclusive(entry.round) != Some(false)) {
            add(Kind::AckOtherCode, format!("was told of {}", entry.code));
        }
        if !is_already {
            return;
        }
        let is_named = |told: &Told| told.own().is_some_and(|own| own.request_id == entry.request_id);
        let mut named = self.asks_of(user, &entry.code).iter().filter(|ask| is_named(&ask.told)).map(|ask| &ask.key);
        let named = named.next();
        let may_have_got_it = |other: &&Attempt| {
            (&other.code, &other.key) != (code, key)
                && named.is_none_or(|named| *named == other.key)
                && other.asked <= *answered
        };
        if !self.asks_of(user, &entry.code).iter().any(may_have_got_it) {
            add(Kind::AlreadyUnfounded, "had made no other request that may have got it".to_owned());
        }
    }

    /// An entry that is told or shown has a serial, names its user, and is of a round in which that may have been.
    pub(super) fn check_holder(
        &self,
        user: &str,
        lasted: RangeInclusive<u64>,
        entry: &'a Ack,
        evidence: &mut Evidence<'a>,
    ) {
        let Ack { code, user_id, round, serial, .. } = entry;
        if serial.is_none() {
            evidence.add(Kind::SerialMissing, Some(code), format!("{user} was told of none"));
        }
        if user_id != user {
            evidence.add(Kind::AckOtherUser, Some(code), format!("{user} was told of an entry of {user_id}"));
        }
        if !self.timeline.may_be_of(lasted, *round) {
            evidence.add(Kind::EntryOfAnotherTime, Some(code), format!("{user} was told of round {round}"));
        }
    }

    /// There is a situation in which the refusal was true and its user held nothing.
    fn check_refusal(&self, attempt: &'a Attempt, evidence: &mut Evidence<'a>) {
        let wrong = |place| match attempt.told {
            Told::SoldOut => self.not_sold_out(place, attempt),
            Told::Refused { status } => self.not_refused(place, attempt, status).into_iter().collect(),
            _ => Vec::new(),
        };
        let mut reasons: Vec<Vec<Reason>> = self.timeline.possible(attempt.lasted()).map(wrong).collect();
        if reasons.iter().all(|reasons| !reasons.is_empty()) {
            for (kind, why) in reasons.swap_remove(0) {
                evidence.add(kind, Some(&attempt.code), format!("{}: {why}", attempt.user));
            }
        }
    }

    /// Why nobody may be told "sold out" in this situation.
    fn not_sold_out(&self, place: usize, attempt: &Attempt) -> Vec<Reason> {
        let (situation, code) = (self.timeline.at(place), attempt.code.as_str());
        let (round, wins) = (situation.round, self.wins.get(&(situation.round, code)));
        let (unasked, wins) = wins.map_or((0, &[] as &[Win]), |wins| (wins.unasked, &wins.asked));
        let topped_up = self.timeline.topped_up_after(place, code);
        let is_later = |win: &Win| topped_up.is_some_and(|again| again <= win.until);
        let mut wrong = Vec::new();
        if self.is_told(place, attempt) {
            wrong.push((Kind::SoldOutHolder, "was told of a coupon before".to_owned()));
        }
        if wins.iter().any(|win| win.row.is_some() && win.user == attempt.user && !is_later(win)) {
            wrong.push((Kind::SoldOutHolder, format!("holds a piece of round {round}")));
        }
        let (before, after): (Vec<_>, Vec<_>) = wins.iter().partition(|win| win.asked <= attempt.answered);
        let could = before.len() + unasked;
        match situation.coupons.get(code).map(|stock| stock.total as usize) {
            Some(total) if could >= total => {}
            Some(total) => {
                wrong.push((Kind::FalseSoldOut, format!("{could} of {total} pieces could have been issued")));
            }
            None => wrong.push((Kind::FalseSoldOut, "there is no such coupon".to_owned())),
        }
        let late = after.into_iter().find(|win| !is_later(win));
        wrong.extend(late.map(|late| (Kind::SoldOutThenIssued, format!("{} asked only later", late.user))));
        wrong
    }

    /// The same of any other refusal.
    fn not_refused(&self, place: usize, attempt: &Attempt, status: u16) -> Option<Reason> {
        let situation = self.timeline.at(place);
        let stock = situation.coupons.get(&attempt.code);
        let is_open = situation.open && stock.is_none_or(|stock| stock.open);
        match status {
            NOT_OPEN if is_open => Some((Kind::NotOpenWhileOpen, format!("it is open in round {}", situation.round))),
            NOT_OPEN => {
                self.is_told(place, attempt).then(|| (Kind::NotOpenHolder, "was told of a coupon before".to_owned()))
            }
            UNKNOWN => stock.map(|_| (Kind::UnknownWhileThere, "is there".to_owned())),
            _ => Some((Kind::Refused, format!("was told {status}"))),
        }
    }

    /// Whether the user had been told of an entry that answers its order before it asked, and while the situation lasted.
    fn is_told(&self, place: usize, attempt: &Attempt) -> bool {
        let round = self.timeline.at(place).round;
        let mut told = self.told.get(&(round, attempt.user.as_str())).into_iter().flatten();
        told.any(|(answered, entry)| {
            *answered < attempt.asked
                && self.timeline.lasts(place, *answered)
                && (self.timeline.exclusive(round) == Some(true) || entry.code == attempt.code)
        })
    }

    /// One request at most was told that it got a coupon of a round: of each code, or of any when the round is exclusive.
    fn check_issued(&self, evidence: &mut Evidence<'a>) {
        let mut requests = BTreeMap::<_, BTreeSet<(&str, &str)>>::new();
        for Attempt { user, code, key, told, .. } in self.attempts {
            let Some(Ack { round, .. }) = told.own() else { continue };
            let domain = (self.timeline.exclusive(*round) != Some(true)).then_some(code.as_str());
            requests.entry((user.as_str(), *round, domain)).or_default().insert((code, key));
        }
        for ((user, round, code), requests) in requests.into_iter().filter(|(_, requests)| requests.len() > 1) {
            let what = format!("{user} by {} requests in round {round}", requests.len());
            evidence.add(Kind::IssuedTwice, code, what);
        }
    }

    /// A request gets its coupon once; from then on it is told that it had got it.
    fn check_anew(&self, evidence: &mut Evidence<'a>) {
        let mut requests = BTreeMap::<_, Vec<&Attempt>>::new();
        for attempt in self.attempts {
            let Some(Ack { round, .. }) = attempt.told.own() else { continue };
            requests.entry((&attempt.user, &attempt.code, &attempt.key, round)).or_default().push(attempt);
        }
        for ((user, code, _, round), told) in requests {
            let mut issued = told.iter().filter(|attempt| matches!(attempt.told, Told::Issued(_)));
            let Some(first) = issued.next() else { continue };
            if issued.next().is_some() || told.iter().any(|other| other.answered < first.asked) {
                evidence.add(Kind::IssuedAnew, Some(code), format!("{user} in round {round}"));
            }
        }
    }

    /// Each wish ends with a decision. While nothing changes, a user that was told of a coupon has one, whatever was lost on the way
    /// afterwards.
    fn check_ends(&self, evidence: &mut Evidence<'a>) {
        for ((user, code), asks) in &self.asks {
            let is_settled = self.timeline.is_steady() && asks.iter().any(|ask| ask.told.entry().is_some());
            let last = asks.iter().max_by_key(|ask| (ask.answered, ask.asked));
            if last.is_some_and(|last| !last.told.is_final()) && !is_settled {
                evidence.add(Kind::NeverFinal, Some(code), (*user).to_owned());
            }
        }
    }
}
