//! What users saw in their wallets: no look is older than what the same user had been told before it.

use super::index::Index;
use super::{Evidence, Kind};
use crate::history::Look;

/// While an administrator changes rounds, a wallet may rightly be empty again: then nothing is judged.
pub(super) fn check<'a>(index: &Index<'a>, looks: &'a [Look], evidence: &mut Evidence<'a>) {
    if !index.timeline.is_steady() {
        return;
    }
    for Look { user, asked, entries, .. } in looks {
        let told = index.told.get(&(index.timeline.at(0).round, user.as_str())).into_iter().flatten();
        for (_, entry) in told.filter(|(answered, _)| answered < asked) {
            if !entries.iter().any(|seen| seen.request_id == entry.request_id) {
                let what = format!("{user} saw it without {:?}", entry.serial);
                evidence.add(Kind::WalletOfThePast, Some(&entry.code), what);
            }
        }
    }
}
