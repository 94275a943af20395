//! The rules for a history in which an administrator was at work: each answer is true of a situation in which it may have been given,
//! and every round's rows fit what could be had in it.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::super::report::Kind;
use super::super::rules::Evidence;
use super::super::{Holding, Tables};
use super::timeline::Timeline;
use crate::history::{Attempt, Entry, History, Told};

const NOT_OPEN: u16 = 403;
const UNKNOWN: u16 = 404;

/// All that is looked up.
struct Scene<'a> {
    timeline: Timeline<'a>,
    attempts: &'a [Attempt],
    /// By user and code.
    asks: HashMap<(&'a str, &'a str), Vec<&'a Attempt>>,
    /// When each user was told of an entry, by round and user.
    told: HashMap<(u32, &'a str), Vec<(u64, &'a Entry)>>,
    /// The pieces of each code, by round.
    wins: BTreeMap<(u32, &'a str), Vec<Win<'a>>>,
}

/// A row, and when its user may first have asked for it in its round.
#[derive(Clone, Copy)]
struct Win<'a> {
    row: &'a Holding,
    asked: u64,
    /// The last situation in which he may have got it.
    until: usize,
}

/// Judges a history with changes.
pub(super) fn check<'a>(tables: &'a Tables, history: &'a History, evidence: &mut Evidence<'a>) {
    let scene = Scene::new(tables, history, evidence);
    for attempt in scene.attempts {
        scene.check_entry(attempt, evidence);
        scene.check_refusal(attempt, evidence);
    }
    scene.check_issued(evidence);
    scene.check_ends(evidence);
    for ((round, code), wins) in &scene.wins {
        scene.check_rows(*round, code, wins, evidence);
        scene.check_order(*round, code, wins, evidence);
    }
}

impl<'a> Scene<'a> {
    fn new(tables: &'a Tables, history: &'a History, evidence: &mut Evidence<'a>) -> Self {
        let (mut asks, mut told) = (HashMap::<_, Vec<_>>::new(), HashMap::<_, Vec<_>>::new());
        for attempt in &history.attempts {
            asks.entry((attempt.user.as_str(), attempt.code.as_str())).or_default().push(attempt);
            if let Some(entry) = attempt.told.entry() {
                told.entry((entry.round, attempt.user.as_str())).or_default().push((attempt.answered, entry));
            }
        }
        let timeline = Timeline(&history.changes);
        let mut scene = Self { timeline, attempts: &history.attempts, asks, told, wins: BTreeMap::new() };
        let codes = tables.codes();
        for row in tables.holdings.iter().filter(|row| scene.timeline.exclusive(row.round).is_some()) {
            let Some(code) = codes.get(&row.coupon_id) else { continue };
            match scene.win(row, code) {
                Some(win) => scene.wins.entry((row.round, code)).or_default().push(win),
                None => evidence.add(Kind::Unasked, Some(code), row.user_id.clone()),
            }
        }
        scene
    }

    fn win(&self, row: &'a Holding, code: &str) -> Option<Win<'a>> {
        let asks = self.asks.get(&(row.user_id.as_str(), code))?;
        let of_round = || asks.iter().filter(|ask| self.timeline.may_win_in(ask, row.round));
        let asked = of_round().map(|ask| ask.asked).min()?;
        // What was lost on the way may be carried out when its client has gone; what a client was told is the end of it.
        let told = self.told.get(&(row.round, row.user_id.as_str())).into_iter().flatten();
        let told = told.filter(|(_, entry)| entry.code == code).map(|(answered, _)| *answered).min();
        Some(Win { row, asked, until: self.timeline.last_at(told.unwrap_or(u64::MAX)) })
    }

    /// What was told is of a round that it may have been told in, and about what was asked for.
    fn check_entry(&self, attempt: &'a Attempt, evidence: &mut Evidence<'a>) {
        let Some(entry) = attempt.told.entry() else { return };
        let Attempt { user, code, key, .. } = attempt;
        if !self.timeline.may_be_of(attempt, entry.round) {
            let what = format!("{user} was told of round {}", entry.round);
            evidence.add(Kind::EntryOfAnotherTime, Some(code), what);
        }
        let is_already = matches!(attempt.told, Told::AlreadyIssued(_));
        if entry.code != *code && !(is_already && self.timeline.exclusive(entry.round) != Some(false)) {
            evidence.add(Kind::AckOtherCode, Some(code), format!("{user} was told of {}", entry.code));
        }
        if !is_already {
            return;
        }
        let asks = self.asks.get(&(user.as_str(), entry.code.as_str())).into_iter().flatten();
        let mut others =
            asks.filter(|other| other.asked <= attempt.answered && (&other.code, &other.key) != (code, key));
        if others.next().is_none() {
            evidence.add(Kind::AlreadyUnfounded, Some(code), format!("{user} had made no other request"));
        }
    }

    /// There is a situation in which the refusal was true and its user held nothing.
    fn check_refusal(&self, attempt: &'a Attempt, evidence: &mut Evidence<'a>) {
        let wrong = |place| match attempt.told {
            Told::SoldOut => self.not_sold_out(place, attempt),
            Told::Refused { status: NOT_OPEN } => self.not_closed(place, attempt),
            Told::Refused { status: UNKNOWN } => {
                let is_there = self.timeline.at(place).coupons.contains_key(&attempt.code);
                is_there.then(|| (Kind::UnknownWhileThere, "is there".to_owned()))
            }
            Told::Refused { status } => Some((Kind::Refused, format!("was told {status}"))),
            _ => None,
        };
        let mut reasons = self.timeline.possible(attempt).map(wrong);
        if let Some(Some((kind, why))) = reasons.next()
            && reasons.all(|reason| reason.is_some())
        {
            evidence.add(kind, Some(&attempt.code), format!("{}: {why}", attempt.user));
        }
    }

    /// Why nobody may be told "sold out" in this situation; `None` when he may.
    fn not_sold_out(&self, place: usize, attempt: &Attempt) -> Option<(Kind, String)> {
        let (situation, code) = (self.timeline.at(place), attempt.code.as_str());
        let Some(stock) = situation.coupons.get(code) else {
            return Some((Kind::FalseSoldOut, "there is no such coupon".to_owned()));
        };
        if self.is_told(place, attempt) {
            return Some((Kind::SoldOutHolder, "was told of a coupon before".to_owned()));
        }
        let wins = self.wins.get(&(situation.round, code)).map(Vec::as_slice).unwrap_or_default();
        let topped_up = self.timeline.topped_up_after(place, code);
        let is_later = |win: &Win| topped_up.is_some_and(|again| again <= win.until);
        if wins.iter().any(|win| win.row.user_id == attempt.user && !is_later(win)) {
            return Some((Kind::SoldOutHolder, format!("holds a piece of round {}", situation.round)));
        }
        let (before, after): (Vec<_>, Vec<_>) = wins.iter().partition(|win| win.asked <= attempt.answered);
        if before.len() < stock.total as usize {
            let (could, total) = (before.len(), stock.total);
            return Some((Kind::FalseSoldOut, format!("{could} of {total} pieces could have been issued")));
        }
        let late = after.into_iter().find(|win| !is_later(win))?;
        Some((Kind::SoldOutThenIssued, format!("{} asked only later", late.row.user_id)))
    }

    /// The same of "not open".
    fn not_closed(&self, place: usize, attempt: &Attempt) -> Option<(Kind, String)> {
        let situation = self.timeline.at(place);
        let is_open = situation.open && situation.coupons.get(&attempt.code).is_none_or(|stock| stock.open);
        if is_open {
            return Some((Kind::NotOpenWhileOpen, format!("it is open in round {}", situation.round)));
        }
        self.is_told(place, attempt).then(|| (Kind::NotOpenHolder, "was told of a coupon before".to_owned()))
    }

    /// Whether the user had been told of an entry that answers his order before he asked, and while the situation lasted.
    fn is_told(&self, place: usize, attempt: &Attempt) -> bool {
        let Some(told) = self.told.get(&(self.timeline.at(place).round, attempt.user.as_str())) else { return false };
        told.iter().any(|(answered, entry)| {
            *answered < attempt.asked
                && self.timeline.lasts(place, *answered)
                && (self.timeline.at(place).exclusive || entry.code == attempt.code)
        })
    }

    /// One request at most was told that it got a coupon of a round: of each code, or of any.
    fn check_issued(&self, evidence: &mut Evidence<'a>) {
        let mut requests = BTreeMap::<_, BTreeSet<(&str, &str)>>::new();
        for Attempt { user, code, key, told, .. } in self.attempts {
            let Told::Issued(Entry { round, .. }) = told else { continue };
            let domain = (self.timeline.exclusive(*round) != Some(true)).then_some(code.as_str());
            requests.entry((user.as_str(), *round, domain)).or_default().insert((code, key));
        }
        for ((user, round, code), requests) in requests.into_iter().filter(|(_, requests)| requests.len() > 1) {
            let what = format!("{user} by {} requests in round {round}", requests.len());
            evidence.add(Kind::IssuedTwice, code, what);
        }
    }

    /// Each wish ends with a decision.
    fn check_ends(&self, evidence: &mut Evidence<'a>) {
        for ((user, code), asks) in &self.asks {
            let last = asks.iter().max_by_key(|ask| (ask.answered, ask.asked));
            if last.is_some_and(|last| !last.told.is_final()) {
                evidence.add(Kind::NeverFinal, Some(code), (*user).to_owned());
            }
        }
    }

    /// No more pieces than the round had at its end, with the serials 1, 2, 3 …
    fn check_rows(&self, round: u32, code: &'a str, wins: &[Win], evidence: &mut Evidence<'a>) {
        let ends = self.timeline.stocks().find(|(of, name, _)| (*of, *name) == (round, code));
        let total = ends.map_or(0, |(_, _, stock)| stock.total) as usize;
        if wins.len() > total {
            let what = format!("{} rows of {total} pieces in round {round}", wins.len());
            evidence.add(Kind::Oversold, Some(code), what);
        }
        let mut serials: Vec<_> = wins.iter().filter_map(|win| win.row.serial).collect();
        serials.sort_unstable();
        if !serials.iter().copied().eq(1..=u32::try_from(wins.len()).unwrap_or(u32::MAX)) {
            evidence.add(Kind::SerialGap, Some(code), format!("serials of round {round}: {serials:?}"));
        }
    }

    /// A user that asks after another was told a serial gets a higher one.
    fn check_order(&self, round: u32, code: &'a str, wins: &[Win], evidence: &mut Evidence<'a>) {
        let entries = self.told.iter().filter(|((of, _), _)| *of == round).flat_map(|(_, entries)| entries);
        let mut told: Vec<_> = entries.filter(|(_, entry)| entry.code == code).collect();
        told.sort_unstable_by_key(|(answered, _)| *answered);
        let mut wins = wins.to_vec();
        wins.sort_unstable_by_key(|win| win.asked);
        let (mut told, mut highest) = (told.into_iter().peekable(), None);
        for win in wins {
            while let Some((_, entry)) = told.next_if(|(answered, _)| *answered < win.asked) {
                highest = highest.max(entry.serial);
            }
            if win.row.serial < highest {
                let what = format!("{} got {:?} in round {round} after {highest:?}", win.row.user_id, win.row.serial);
                evidence.add(Kind::OutOfOrder, Some(code), what);
            }
        }
    }
}

#[cfg(test)]
mod crowd;
#[cfg(test)]
mod tests;
