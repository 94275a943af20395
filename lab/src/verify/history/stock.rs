//! The pieces of each code in each round: how many there may be, how many must be, and in which order.

use std::collections::HashSet;

use super::index::{Index, Wins};
use super::{Evidence, Kind, Tables};

pub(super) fn check<'a>(index: &Index<'a>, tables: &Tables, evidence: &mut Evidence<'a>) {
    let is_steady = index.timeline.is_steady();
    let must_be_served = is_steady && !asks_for_several(index);
    for ((round, code), wins) in &index.wins {
        index.check_order(*round, code, wins, evidence);
        // Otherwise the tables' own rules say it.
        if !is_steady || *round != tables.event.round {
            index.check_rows(*round, code, wins, evidence);
        }
        if must_be_served {
            index.check_served(*round, code, wins, evidence);
        }
    }
}

/// Whether somebody could have had several coupons but for the round's rule: then nobody can say how many must be issued.
fn asks_for_several(index: &Index) -> bool {
    let users: HashSet<&str> = index.asks.keys().map(|(user, _)| *user).collect();
    index.timeline.at(0).exclusive && users.len() < index.asks.len()
}

impl<'a> Index<'a> {
    /// A user that asks after another was told a serial gets a higher one.
    fn check_order(&self, round: u32, code: &'a str, wins: &Wins, evidence: &mut Evidence<'a>) {
        let of_round = self.told.iter().filter(|((of, _), _)| *of == round);
        let told =
            of_round.flat_map(|((_, user), told)| told.iter().map(move |(answered, entry)| (answered, user, entry)));
        let mut told: Vec<_> = told.filter(|(_, _, entry)| entry.code == code && entry.serial.is_some()).collect();
        told.sort_unstable_by_key(|(answered, _, _)| **answered);
        let mut wins = wins.asked.clone();
        wins.sort_unstable_by_key(|win| win.asked);
        let (mut told, mut highest) = (told.into_iter().peekable(), None);
        for win in wins {
            while let Some((_, user, entry)) = told.next_if(|(answered, _, _)| **answered < win.asked) {
                highest = highest.filter(|(serial, _)| *serial > entry.serial).or(Some((entry.serial, *user)));
            }
            if let (Some(serial), Some((before, other))) = (win.serial, highest)
                && Some(serial) < before
                && other != win.user
            {
                let what = format!("{} got {serial} in round {round} after {other} was told {before:?}", win.user);
                evidence.add(Kind::OutOfOrder, Some(code), what);
            }
        }
    }

    /// No more pieces than the round had at its end, with the serials 1, 2, 3 …
    fn check_rows(&self, round: u32, code: &'a str, wins: &Wins, evidence: &mut Evidence<'a>) {
        let rows: Vec<_> = wins.asked.iter().filter_map(|win| win.row).collect();
        let total = self.timeline.stock(round, code).map_or(0, |stock| stock.total) as usize;
        if rows.len() > total {
            let what = format!("{} rows of {total} pieces in round {round}", rows.len());
            evidence.add(Kind::Oversold, Some(code), what);
        }
        let mut serials: Vec<_> = rows.iter().filter_map(|row| row.serial).collect();
        serials.sort_unstable();
        if !serials.iter().copied().eq(1..=u32::try_from(rows.len()).unwrap_or(u32::MAX)) {
            evidence.add(Kind::SerialGap, Some(code), format!("serials of round {round}: {serials:?}"));
        }
    }

    /// Every user that asked has a piece, or all pieces are gone.
    fn check_served(&self, round: u32, code: &'a str, wins: &Wins, evidence: &mut Evidence<'a>) {
        let Some(stock) = self.timeline.stock(round, code) else { return };
        let users: HashSet<&str> = self.asks.keys().filter(|(_, name)| *name == code).map(|(user, _)| *user).collect();
        let winners: HashSet<&str> = wins.asked.iter().map(|win| win.user).collect();
        let (must, served) = (users.len().min(stock.total as usize), winners.len() + wins.unasked);
        let mut without: Vec<_> = users.difference(&winners).collect();
        without.sort_unstable();
        for user in without.into_iter().take(must.saturating_sub(served)) {
            evidence.add(Kind::Unserved, Some(code), (*user).to_owned());
        }
    }
}
