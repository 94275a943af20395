//! What clients were told, against the wallet.

use std::collections::{HashMap, HashSet};

use super::super::report::{Acknowledged, Finding, Kind};
use super::super::{Ack, Holding, Tables};
use super::{Evidence, current};

/// What clients were told, against the wallet. Each answer that does not fit counts once, as its closest cause.
pub(super) fn check_acks(tables: &Tables, acks: &[Ack], findings: &mut Vec<Finding>) -> Acknowledged {
    let wallet = Wallet::index(tables);
    let mut wrong = Evidence::default();
    let mut known: HashSet<(&str, &str)> = HashSet::new();
    let mut promised: HashMap<(u32, &str, u32), &str> = HashMap::new();
    for ack in acks {
        if let Some((kind, evidence)) = wallet.refute(ack) {
            wrong.add(kind, Some(&ack.code), evidence);
        }
        if ack.round == tables.event.round && wallet.entry(ack).is_some() {
            known.insert((&ack.code, &ack.user_id));
        }
        let Some(serial) = ack.serial else { continue };
        let first = *promised.entry((ack.round, &ack.code, serial)).or_insert(&ack.user_id);
        if first != ack.user_id {
            let evidence = format!("serial {serial} to {first} and {}", ack.user_id);
            wrong.add(Kind::AckSerialTwice, Some(&ack.code), evidence);
        }
    }
    findings.extend(wrong.into_findings("answers"));
    Acknowledged {
        answers: acks.len(),
        coupons: known.len(),
        unacknowledged: current(tables).count().saturating_sub(known.len()),
    }
}

/// The wallet by what a client knows: round and code, then user or serial.
struct Wallet<'a> {
    by_user: HashMap<(u32, &'a str, &'a str), &'a Holding>,
    by_serial: HashMap<(u32, &'a str, u32), &'a Holding>,
    rounds: HashSet<u32>,
}

impl<'a> Wallet<'a> {
    fn index(tables: &'a Tables) -> Self {
        let codes = tables.codes();
        let mut wallet = Self { by_user: HashMap::new(), by_serial: HashMap::new(), rounds: HashSet::new() };
        for holding in &tables.holdings {
            let Some(code) = codes.get(&holding.coupon_id) else {
                continue;
            };
            wallet.by_user.insert((holding.round, code, &holding.user_id), holding);
            if let Some(serial) = holding.serial {
                wallet.by_serial.insert((holding.round, code, serial), holding);
            }
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
        let told = serial.map_or_else(|| "none".to_owned(), |serial| serial.to_string());
        let Some(holding) = self.entry(ack) else {
            let other = self.rounds.iter().find(|other| self.by_user.contains_key(&(**other, code, user)));
            if let Some(other) = other {
                return Some((Kind::AckOtherRound, format!("{user} was told round {round} but holds it in {other}")));
            }
            let holder = serial.and_then(|serial| self.by_serial.get(&(*round, code, serial)));
            return Some(match holder {
                Some(holder) => (
                    Kind::AckOtherUser,
                    format!("serial {told} was promised to {user} but {} holds it", holder.user_id),
                ),
                None => (Kind::AckLost, format!("serial {told} of round {round} promised to {user}")),
            });
        };
        if holding.serial != *serial {
            let held = holding.serial.map_or_else(|| "none".to_owned(), |serial| serial.to_string());
            return Some((Kind::AckOtherSerial, format!("{user} was told serial {told} but holds {held}")));
        }
        let asked = ack.request_id.as_deref()?;
        let got = holding.request();
        (asked != got)
            .then(|| (Kind::AckOtherRequest, format!("{user} was told request {asked} but the row has {got}")))
    }
}
