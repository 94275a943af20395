//! What users saw in their wallets: entries of their own, of the round in which they looked, and none is missing that the same user
//! had been told of before.

use super::index::Index;
use super::{Evidence, Kind};
use crate::history::Look;

pub(super) fn check<'a>(index: &Index<'a>, looks: &'a [Look], evidence: &mut Evidence<'a>) {
    for look in looks {
        look.entries.iter().for_each(|entry| index.check_holder(&look.user, look.lasted(), entry, evidence));
        // While an administrator changes rounds, a wallet may rightly be empty again.
        if index.timeline.is_steady() {
            index.check_whole(look, evidence);
        }
    }
}

impl<'a> Index<'a> {
    fn check_whole(&self, Look { user, asked, entries, .. }: &'a Look, evidence: &mut Evidence<'a>) {
        let told = self.told.get(&(self.timeline.at(0).round, user.as_str())).into_iter().flatten();
        for (_, entry) in told.filter(|(answered, _)| answered < asked) {
            if !entries.iter().any(|seen| seen.request_id == entry.request_id) {
                let what = format!("{user} saw it without {:?}", entry.serial);
                evidence.add(Kind::WalletOfThePast, Some(&entry.code), what);
            }
        }
    }
}
