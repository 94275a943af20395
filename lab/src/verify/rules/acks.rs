//! What clients were told, against the wallet.

use std::collections::{HashMap, HashSet};

use super::super::report::{Acknowledged, Kind};
use super::super::{Ack, Holding, Tables};
use super::{Evidence, current};

/// Each answer that does not fit counts once, as its closest cause.
pub(super) fn check<'a>(tables: &Tables, acks: &'a [Ack], evidence: &mut Evidence<'a>) -> Acknowledged {
    let wallet = Wallet::index(tables);
    let mut known: HashSet<(&str, &str)> = HashSet::new();
    let mut promised: HashMap<(u32, &str, u32), &str> = HashMap::new();
    for ack in acks {
        if let Some((kind, what)) = wallet.refute(ack) {
            evidence.add(kind, Some(&ack.code), what);
        }
        if ack.round == tables.event.round && wallet.entry(ack).is_some() {
            known.insert((&ack.code, &ack.user_id));
        }
        let Some(serial) = ack.serial else { continue };
        let first = *promised.entry((ack.round, &ack.code, serial)).or_insert(&ack.user_id);
        if first != ack.user_id {
            let what = format!("{serial} to {first} and {}", ack.user_id);
            evidence.add(Kind::AckSerialTwice, Some(&ack.code), what);
        }
    }
    let unacknowledged = current(tables).count().saturating_sub(known.len());
    Acknowledged { answers: acks.len(), coupons: known.len(), unacknowledged }
}

/// The wallet by what a client knows: round and code, then user or serial.
#[derive(Default)]
struct Wallet<'a> {
    by_user: HashMap<(u32, &'a str, &'a str), &'a Holding>,
    by_serial: HashMap<(u32, &'a str, u32), &'a Holding>,
    rounds: HashSet<u32>,
}

impl<'a> Wallet<'a> {
    fn index(tables: &'a Tables) -> Self {
        let (codes, mut wallet) = (tables.codes(), Self::default());
        for holding in &tables.holdings {
            let Some(code) = codes.get(&holding.coupon_id) else { continue };
            wallet.by_user.insert((holding.round, code, &holding.user_id), holding);
            wallet.by_serial.extend(holding.serial.map(|serial| ((holding.round, *code, serial), holding)));
            wallet.rounds.insert(holding.round);
        }
        wallet
    }

    fn entry(&self, ack: &Ack) -> Option<&'a Holding> {
        self.by_user.get(&(ack.round, ack.code.as_str(), ack.user_id.as_str())).copied()
    }

    /// Why the wallet says that this answer was not true; `None` when it was.
    fn refute(&self, ack: &Ack) -> Option<(Kind, String)> {
        let Ack { code, user_id: user, round, serial, .. } = ack;
        let name = |serial: Option<u32>| serial.map_or_else(|| "no serial".to_owned(), |it| format!("serial {it}"));
        let told = name(*serial);
        let Some(holding) = self.entry(ack) else {
            if let Some(other) = self.rounds.iter().find(|it| self.by_user.contains_key(&(**it, code, user))) {
                return Some((Kind::AckOtherRound, format!("{user} was told round {round} but holds it in {other}")));
            }
            let holder = serial.and_then(|serial| self.by_serial.get(&(*round, code, serial)));
            return Some(match holder.map(|holder| &holder.user_id) {
                Some(holder) => (Kind::AckOtherUser, format!("{told} was promised to {user} but {holder} holds it")),
                None => (Kind::AckLost, format!("{told} of round {round} promised to {user}")),
            });
        };
        if holding.serial != *serial {
            let held = name(holding.serial);
            return Some((Kind::AckOtherSerial, format!("{user} was told {told} but holds {held}")));
        }
        let (asked, got) = (&ack.request_id, &holding.request_id);
        if asked != got {
            return Some((Kind::AckOtherRequest, format!("{user} was told request {asked} but the row has {got}")));
        }
        let (told, held) = (ack.issued_at.unix_timestamp_nanos() / 1_000, i128::from(holding.issued_at));
        let what = || format!("{user} was told {}, {} µs from what the row has", ack.issued_at, told - held);
        (told != held).then(|| (Kind::AckOtherTime, what()))
    }
}
