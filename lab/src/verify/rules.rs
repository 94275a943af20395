//! The rules: what must hold in the tables of one snapshot, and between them and what clients were told. Pure, so that
//! each rule is tested with the corruption that it exists for. Users are compared byte by byte: `u-1`, `U-1` and `u-1 `
//! are three, whatever a collation thinks.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt::Write;

use super::report::{Acknowledged, CouponReport, Finding, Kind, Report};
use super::{Ack, Coupon, Event, Holding, Tables};

/// Enough to start looking, few enough to read.
const EXAMPLES_MAX: usize = 3;

pub(super) fn judge(tables: &Tables, acks: Option<&[Ack]>) -> Report {
    let Tables { event, coupons, holdings } = tables;
    let mut findings = Vec::new();
    let mut by_coupon: BTreeMap<u16, Vec<&Holding>> = BTreeMap::new();
    for holding in holdings.iter().filter(|holding| holding.round == event.round) {
        by_coupon.entry(holding.coupon_id).or_default().push(holding);
    }
    check_users(tables, &mut findings);
    let mut reports = Vec::new();
    for coupon in coupons {
        let rows = by_coupon.remove(&coupon.id).unwrap_or_default();
        let report = describe(coupon, &rows);
        check_stock(&report, &mut findings);
        check_scope(event, coupon, &rows, &mut findings);
        check_serials(coupon, &rows, &mut findings);
        reports.push(report);
    }
    for (id, rows) in by_coupon {
        let evidence = format!("{} rows of a coupon with id {id}, which does not exist", rows.len());
        findings.push(Finding::new(Kind::UnknownCoupon, None, rows.len(), evidence));
    }
    let acknowledged = acks.map(|acks| check_acks(tables, acks, &mut findings));
    Report {
        round: event.round,
        exclusive: event.exclusive,
        coupons: reports,
        users: current(tables).map(|holding| &holding.user_id).collect::<HashSet<_>>().len(),
        acknowledged,
        findings,
    }
}

fn current(tables: &Tables) -> impl Iterator<Item = &Holding> {
    tables.holdings.iter().filter(|holding| holding.round == tables.event.round)
}

fn describe(coupon: &Coupon, rows: &[&Holding]) -> CouponReport {
    let issued = i64::from(coupon.total) - i64::from(coupon.remaining);
    CouponReport {
        code: coupon.code.clone(),
        total: coupon.total,
        remaining: coupon.remaining,
        rows: rows.len(),
        users: rows.iter().map(|row| &row.user_id).collect::<HashSet<_>>().len(),
        lowest_serial: rows.iter().filter_map(|row| row.serial).min(),
        highest_serial: rows.iter().filter_map(|row| row.serial).max(),
        lost_updates: i64::try_from(rows.len()).unwrap_or(i64::MAX) - issued,
        open: coupon.open,
    }
}

fn check_stock(report: &CouponReport, findings: &mut Vec<Finding>) {
    let CouponReport { code, total, remaining, rows, lost_updates, .. } = report;
    if *rows > *total as usize {
        let count = rows - *total as usize;
        let evidence = format!("{rows} rows for {total} pieces");
        findings.push(Finding::new(Kind::Oversold, Some(code), count, evidence));
    }
    if *lost_updates != 0 {
        let what = if *lost_updates > 0 { "lost updates" } else { "pieces taken that nobody holds" };
        let count = usize::try_from(lost_updates.unsigned_abs()).unwrap_or(usize::MAX);
        let evidence = format!("{count} {what}: total {total}, remaining {remaining}, rows {rows}");
        findings.push(Finding::new(Kind::Conservation, Some(code), count, evidence));
    }
}

fn check_scope(event: &Event, coupon: &Coupon, rows: &[&Holding], findings: &mut Vec<Finding>) {
    let scope = if event.exclusive { 0 } else { coupon.id };
    if (coupon.round, coupon.scope) != (event.round, scope) {
        let Coupon { code, round, scope: copy, .. } = coupon;
        let evidence = format!("round {round} and scope {copy}, but the event says {} and {scope}", event.round);
        findings.push(Finding::new(Kind::OutOfStep, Some(code), 1, evidence));
    }
    let strays: Vec<_> = rows.iter().filter(|row| row.scope != scope).collect();
    if !strays.is_empty() {
        let users = examples(strays.iter().map(|row| &row.user_id));
        let evidence = format!("{} rows outside scope {scope}: {users}", strays.len());
        findings.push(Finding::new(Kind::WrongScope, Some(&coupon.code), strays.len(), evidence));
    }
}

/// One coupon per user, over the event or per code as the round's rule says.
fn check_users(tables: &Tables, findings: &mut Vec<Finding>) {
    let codes: HashMap<u16, &str> = tables.coupons.iter().map(|coupon| (coupon.id, coupon.code.as_str())).collect();
    let mut holders: HashSet<(Option<u16>, &str)> = HashSet::new();
    let mut twice: BTreeMap<Option<u16>, Vec<&str>> = BTreeMap::new();
    for holding in current(tables) {
        let domain = if tables.event.exclusive { None } else { Some(holding.coupon_id) };
        if !holders.insert((domain, &holding.user_id)) {
            twice.entry(domain).or_default().push(&holding.user_id);
        }
    }
    for (domain, users) in twice {
        let code = domain.and_then(|id| codes.get(&id).copied());
        let evidence = format!("{} coupons too many, held by {}", users.len(), examples(&users));
        findings.push(Finding::new(Kind::UserTwice, code, users.len(), evidence));
    }
}

/// Serials are 1, 2, 3 … without gaps. A coupon of which nothing has one was issued by `unlocked`, which gives none.
fn check_serials(coupon: &Coupon, rows: &[&Holding], findings: &mut Vec<Finding>) {
    let mut serials: Vec<u32> = rows.iter().filter_map(|row| row.serial).collect();
    if serials.is_empty() && !rows.is_empty() && coupon.next_serial == 1 {
        return;
    }
    let code = Some(coupon.code.as_str());
    let mut add = |kind, count, evidence: String| {
        if count > 0 {
            findings.push(Finding::new(kind, code, count, evidence));
        }
    };
    let missing: Vec<_> = rows.iter().filter(|row| row.serial.is_none()).collect();
    let users = examples(missing.iter().map(|row| &row.user_id));
    add(Kind::SerialMissing, missing.len(), format!("{} rows without a serial: {users}", missing.len()));

    serials.sort_unstable();
    let repeated: Vec<u32> = serials.windows(2).filter(|pair| pair[0] == pair[1]).map(|pair| pair[0]).collect();
    add(Kind::SerialTwice, repeated.len(), format!("serials given more than once: {}", examples(&repeated)));

    let last = u32::try_from(rows.len()).unwrap_or(u32::MAX);
    let outside: Vec<u32> = serials.iter().copied().filter(|serial| !(1..=last).contains(serial)).collect();
    add(Kind::SerialOutOfRange, outside.len(), format!("serials outside 1..{last}: {}", examples(&outside)));

    let gaps: Vec<u32> = (1..=last).filter(|serial| serials.binary_search(serial).is_err()).collect();
    add(Kind::SerialGap, gaps.len(), format!("serials of 1..{last} that nobody holds: {}", examples(&gaps)));

    let next = coupon.next_serial;
    let wrong = usize::from(u64::from(next) != u64::from(last) + 1);
    add(Kind::NextSerial, wrong, format!("the next serial is {next} after {last} rows"));
}

/// What clients were told, against the wallet. Each answer that does not fit counts once, as its closest cause.
fn check_acks(tables: &Tables, acks: &[Ack], findings: &mut Vec<Finding>) -> Acknowledged {
    let wallet = Wallet::index(tables);
    let mut wrong: BTreeMap<(&str, Kind), Vec<String>> = BTreeMap::new();
    let mut known: HashSet<(&str, &str)> = HashSet::new();
    let mut promised: HashMap<(u32, &str, u32), &str> = HashMap::new();
    for ack in acks {
        if let Some((kind, evidence)) = wallet.refute(ack) {
            wrong.entry((&ack.code, kind)).or_default().push(evidence);
        }
        if ack.round == tables.event.round && wallet.entry(ack).is_some() {
            known.insert((&ack.code, &ack.user_id));
        }
        let Some(serial) = ack.serial else { continue };
        let first = *promised.entry((ack.round, &ack.code, serial)).or_insert(&ack.user_id);
        if first != ack.user_id {
            let evidence = format!("serial {serial} to {first} and {}", ack.user_id);
            wrong.entry((&ack.code, Kind::AckSerialTwice)).or_default().push(evidence);
        }
    }
    for ((code, kind), evidence) in wrong {
        let text = format!("{} answers: {}", evidence.len(), examples(&evidence));
        findings.push(Finding::new(kind, Some(code), evidence.len(), text));
    }
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
        let codes: HashMap<u16, &str> = tables.coupons.iter().map(|coupon| (coupon.id, coupon.code.as_str())).collect();
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
        let got = hexadecimal(&holding.request_id);
        (asked != got)
            .then(|| (Kind::AckOtherRequest, format!("{user} was told request {asked} but the row has {got}")))
    }
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").expect("writing to a string cannot fail");
        text
    })
}

fn examples<T: ToString>(all: impl IntoIterator<Item = T>) -> String {
    let mut all = all.into_iter();
    let mut shown: Vec<String> = all.by_ref().take(EXAMPLES_MAX).map(|one| one.to_string()).collect();
    if all.next().is_some() {
        shown.push("…".to_owned());
    }
    shown.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two coupons of three pieces, exclusive: `A` sold out to u-1, u-2, u-3, `B` issued once, to u-4.
    fn clean() -> Tables {
        let coupon = |id, code: &str, remaining, next_serial| Coupon {
            id,
            code: code.to_owned(),
            total: 3,
            remaining,
            next_serial,
            round: 5,
            scope: 0,
            open: true,
        };
        Tables {
            event: Event { round: 5, exclusive: true },
            coupons: vec![coupon(1, "A", 0, 4), coupon(2, "B", 2, 2)],
            holdings: vec![row("u-1", 1, 1), row("u-2", 1, 2), row("u-3", 1, 3), row("u-4", 2, 1)],
        }
    }

    fn row(user: &str, coupon_id: u16, serial: u32) -> Holding {
        Holding {
            round: 5,
            scope: 0,
            user_id: user.to_owned(),
            coupon_id,
            serial: Some(serial),
            request_id: vec![0xab; 16],
        }
    }

    fn ack(user: &str, code: &str, serial: u32) -> Ack {
        Ack {
            code: code.to_owned(),
            user_id: user.to_owned(),
            serial: Some(serial),
            round: 5,
            request_id: Some("ab".repeat(16)),
        }
    }

    fn all_acks() -> Vec<Ack> {
        vec![ack("u-1", "A", 1), ack("u-2", "A", 2), ack("u-3", "A", 3), ack("u-4", "B", 1)]
    }

    fn found(tables: &Tables, acks: Option<&[Ack]>) -> Vec<(Kind, Option<String>, usize)> {
        let findings = judge(tables, acks).findings;
        findings.into_iter().map(|finding| (finding.kind, finding.code, finding.count)).collect()
    }

    fn at(kind: Kind, code: &str, count: usize) -> (Kind, Option<String>, usize) {
        (kind, Some(code.to_owned()), count)
    }

    #[test]
    fn a_clean_round_has_no_findings() {
        let report = judge(&clean(), Some(&all_acks()));

        assert_eq!(report.findings, []);
        assert_eq!(report.verdict(), "clean: 4 coupons, 4 users, none oversold, doubled or lost");
        assert_eq!(report.acknowledged, Some(Acknowledged { answers: 4, coupons: 4, unacknowledged: 0 }));
    }

    #[test]
    fn an_empty_round_has_no_findings() {
        let mut tables = clean();
        tables.holdings.clear();
        for coupon in &mut tables.coupons {
            (coupon.remaining, coupon.next_serial) = (coupon.total, 1);
        }

        assert_eq!(found(&tables, Some(&[])), []);
    }

    #[test]
    fn a_row_beyond_the_total_is_oversold() {
        let mut tables = clean();
        tables.holdings.push(row("u-5", 1, 4));
        tables.coupons[0].next_serial = 5;

        assert_eq!(found(&tables, None), [at(Kind::Oversold, "A", 1), at(Kind::Conservation, "A", 1)]);
    }

    #[test]
    fn unlocked_shows_its_lost_updates_and_nothing_about_serials() {
        let mut tables = clean();
        tables.holdings.iter_mut().for_each(|row| row.serial = None);
        for (coupon, remaining) in tables.coupons.iter_mut().zip([2, 2]) {
            (coupon.remaining, coupon.next_serial) = (remaining, 1);
        }

        let report = judge(&tables, None);

        assert_eq!(found(&tables, None), [at(Kind::Conservation, "A", 2)]);
        assert_eq!(report.lost_updates(), 2);
        assert_eq!(report.verdict(), "BROKEN: 2 lost updates, P5 A conservation (2)");
    }

    #[test]
    fn stock_that_vanished_breaks_conservation() {
        let mut tables = clean();
        tables.coupons[1].remaining = 0;

        let report = judge(&tables, None);

        assert_eq!(found(&tables, None), [at(Kind::Conservation, "B", 2)]);
        assert_eq!(report.coupons[1].lost_updates, -2);
        assert_eq!(report.lost_updates(), 0);
    }

    #[test]
    fn an_exclusive_round_allows_one_coupon_over_all_codes() {
        let mut tables = clean();
        tables.holdings[3].user_id = "u-1".to_owned();

        assert_eq!(found(&tables, None), [(Kind::UserTwice, None, 1)]);
    }

    #[test]
    fn a_round_that_is_not_exclusive_allows_one_coupon_per_code() {
        let mut tables = clean();
        tables.event.exclusive = false;
        tables.coupons.iter_mut().for_each(|coupon| coupon.scope = coupon.id);
        tables.holdings.iter_mut().for_each(|row| row.scope = row.coupon_id);
        tables.holdings[3].user_id = "u-1".to_owned();
        let across_codes = found(&tables, None);

        tables.holdings[1].user_id = "u-1".to_owned();

        assert_eq!(across_codes, []);
        assert_eq!(found(&tables, None), [at(Kind::UserTwice, "A", 1)]);
    }

    #[test]
    fn users_that_differ_in_case_or_a_space_are_different() {
        let mut tables = clean();
        tables.holdings[1].user_id = "U-1".to_owned();
        tables.holdings[2].user_id = "u-1 ".to_owned();

        assert_eq!(found(&tables, None), []);
    }

    #[test]
    fn a_row_in_another_scope_escapes_the_primary_key() {
        let mut tables = clean();
        tables.holdings[0].scope = 1;

        assert_eq!(found(&tables, None), [at(Kind::WrongScope, "A", 1)]);
    }

    #[test]
    fn a_coupon_follows_the_event() {
        let mut tables = clean();
        tables.coupons[0].scope = 1;
        tables.coupons[1].round = 4;

        assert_eq!(found(&tables, None), [at(Kind::OutOfStep, "A", 1), at(Kind::OutOfStep, "B", 1)]);
    }

    #[test]
    fn a_row_of_no_coupon_is_found() {
        let mut tables = clean();
        tables.holdings.push(row("u-5", 9, 1));

        assert_eq!(found(&tables, None), [(Kind::UnknownCoupon, None, 1)]);
    }

    #[test]
    fn serials_have_no_gap() {
        let mut tables = clean();
        tables.holdings[2].serial = Some(7);

        assert_eq!(found(&tables, None), [at(Kind::SerialOutOfRange, "A", 1), at(Kind::SerialGap, "A", 1)]);
    }

    #[test]
    fn serials_start_at_one() {
        let mut tables = clean();
        tables.holdings[3].serial = Some(0);

        assert_eq!(found(&tables, None), [at(Kind::SerialOutOfRange, "B", 1), at(Kind::SerialGap, "B", 1)]);
    }

    #[test]
    fn no_serial_is_given_twice() {
        let mut tables = clean();
        tables.holdings[2].serial = Some(1);

        assert_eq!(found(&tables, None), [at(Kind::SerialTwice, "A", 1), at(Kind::SerialGap, "A", 1)]);
    }

    #[test]
    fn one_row_without_a_serial_is_not_unlocked() {
        let mut tables = clean();
        tables.holdings[2].serial = None;

        assert_eq!(found(&tables, None), [at(Kind::SerialMissing, "A", 1), at(Kind::SerialGap, "A", 1)]);
    }

    #[test]
    fn the_next_serial_follows_the_rows() {
        let mut tables = clean();
        tables.coupons[1].next_serial = 3;

        assert_eq!(found(&tables, None), [at(Kind::NextSerial, "B", 1)]);
    }

    #[test]
    fn an_acknowledged_coupon_that_nobody_holds_is_lost() {
        let acks = [ack("u-9", "B", 3), ack("u-9", "Z", 1)];

        assert_eq!(found(&clean(), Some(&acks)), [at(Kind::AckLost, "B", 1), at(Kind::AckLost, "Z", 1)]);
    }

    #[test]
    fn a_coupon_promised_to_one_and_held_by_another_is_named() {
        assert_eq!(found(&clean(), Some(&[ack("u-9", "A", 2)])), [at(Kind::AckOtherUser, "A", 1)]);
    }

    #[test]
    fn an_answer_names_serial_round_and_request_of_the_row() {
        let other_serial = ack("u-1", "A", 2);
        let other_round = Ack { round: 4, ..ack("u-1", "A", 1) };
        let other_request = Ack { request_id: Some("cd".repeat(16)), ..ack("u-1", "A", 1) };

        assert_eq!(found(&clean(), Some(&[other_serial])), [at(Kind::AckOtherSerial, "A", 1)]);
        assert_eq!(found(&clean(), Some(&[other_round])), [at(Kind::AckOtherRound, "A", 1)]);
        assert_eq!(found(&clean(), Some(&[other_request])), [at(Kind::AckOtherRequest, "A", 1)]);
    }

    #[test]
    fn a_piece_promised_to_two_users_is_named() {
        let acks = [ack("u-1", "A", 1), ack("u-9", "A", 1)];

        assert_eq!(found(&clean(), Some(&acks)), [at(Kind::AckOtherUser, "A", 1), at(Kind::AckSerialTwice, "A", 1)]);
    }

    #[test]
    fn an_answer_from_before_a_reset_is_kept_by_its_own_round() {
        let mut tables = clean();
        tables.holdings.push(Holding { round: 4, ..row("u-1", 1, 2) });
        let acks = [Ack { round: 4, ..ack("u-1", "A", 2) }];

        let report = judge(&tables, Some(&acks));

        assert_eq!(report.findings, []);
        assert_eq!(report.acknowledged, Some(Acknowledged { answers: 1, coupons: 0, unacknowledged: 4 }));
    }

    #[test]
    fn a_coupon_of_which_no_client_knows_breaks_nothing() {
        let mut acks = all_acks();
        acks.pop();
        acks.push(ack("u-1", "A", 1));

        let report = judge(&clean(), Some(&acks));

        assert_eq!(report.findings, []);
        assert_eq!(report.acknowledged, Some(Acknowledged { answers: 4, coupons: 3, unacknowledged: 1 }));
    }

    #[test]
    fn only_open_coupons_are_expected_to_sell_out() {
        let mut tables = clean();
        let mut open = judge(&tables, None);
        tables.coupons[1].open = false;
        let mut closed = judge(&tables, None);

        open.expect_sold_out();
        closed.expect_sold_out();

        assert_eq!(open.verdict(), "BROKEN: P4 B not-sold-out (2)");
        assert!(closed.is_clean());
    }

    #[test]
    fn a_coupon_that_is_closed_and_untouched_is_counted_but_not_listed() {
        let mut tables = clean();
        let closed = |id, code: &str, remaining| Coupon {
            id,
            code: code.to_owned(),
            total: 3,
            remaining,
            next_serial: 1,
            round: 5,
            scope: 0,
            open: false,
        };
        tables.coupons.extend([closed(3, "F-1", 3), closed(4, "F-2", 2)]);

        let text = judge(&tables, None).to_string();

        assert!(!text.contains("\nF-1 "), "{text}");
        assert!(text.contains("\nF-2 "), "{text}");
        assert!(text.contains("\nclosed and untouched: 1\n"), "{text}");
    }
}
