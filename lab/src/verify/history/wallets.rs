//! What users saw in their wallets: entries of their own, of the round in which they looked, and none is missing that the same user
//! had been told of before. Who looks is shown it in the end.

use std::collections::BTreeMap;

use super::index::Index;
use super::{Evidence, Kind};
use crate::history::{Look, Shown};

pub(super) fn check<'a>(index: &Index<'a>, looks: &'a [Look], evidence: &mut Evidence<'a>) {
    let mut last: BTreeMap<&str, &Look> = BTreeMap::new();
    for look in looks {
        look.entries().iter().for_each(|entry| index.check_holder(&look.user, look.lasted(), entry, evidence));
        if let Shown::Refused { status } = look.shown {
            evidence.add(Kind::Refused, None, format!("{} was told {status} of its wallet", look.user));
        }
        let latest = last.entry(&look.user).or_insert(look);
        *latest = std::cmp::max_by_key(*latest, look, |look| look.answered);
        // While an administrator changes rounds, a wallet may rightly be empty again.
        if index.timeline.is_steady() {
            index.check_whole(look, evidence);
        }
    }
    for look in last.into_values().filter(|look| !look.shown.is_final()) {
        evidence.add(Kind::NeverFinal, None, format!("{} never saw its wallet", look.user));
    }
}

impl<'a> Index<'a> {
    fn check_whole(&self, look: &'a Look, evidence: &mut Evidence<'a>) {
        let Look { user, asked, shown: Shown::Entries(entries), .. } = look else { return };
        let told = self.told.get(&(self.timeline.at(0).round, user.as_str())).into_iter().flatten();
        for (_, entry) in told.filter(|(answered, _)| answered < asked) {
            if !entries.iter().any(|seen| seen.request_id == entry.request_id) {
                let what = format!("{user} saw it without {:?}", entry.serial);
                evidence.add(Kind::WalletOfThePast, Some(&entry.code), what);
            }
        }
    }
}
