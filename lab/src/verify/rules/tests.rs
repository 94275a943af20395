//! Each rule with the corruption that it exists for.

use super::super::Event;
use super::super::report::Acknowledged;
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
        retired: vec![(9, "OLD".to_owned())],
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

fn named(expected: &[(Kind, Option<&str>, usize)]) -> Vec<(Kind, Option<String>, usize)> {
    expected.iter().map(|(kind, code, count)| (*kind, code.map(str::to_owned), *count)).collect()
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

/// A corruption in words, what it does, and every finding that it leads to.
type Corruption = (&'static str, fn(&mut Tables), &'static [(Kind, Option<&'static str>, usize)]);

const A: Option<&str> = Some("A");
const B: Option<&str> = Some("B");

const CORRUPTIONS: [Corruption; 11] = [
    (
        "a row beyond the total is oversold",
        |it| {
            it.holdings.push(row("u-5", 1, 4));
            it.coupons[0].next_serial = 5;
        },
        &[(Kind::Oversold, A, 1), (Kind::Conservation, A, 1)],
    ),
    (
        "an exclusive round allows one coupon over all codes",
        |it| it.holdings[3].user_id = "u-1".to_owned(),
        &[(Kind::UserTwice, None, 1)],
    ),
    (
        "users that differ in case or a space are different",
        |it| (it.holdings[1].user_id, it.holdings[2].user_id) = ("U-1".to_owned(), "u-1 ".to_owned()),
        &[],
    ),
    ("a row in another scope escapes the primary key", |it| it.holdings[0].scope = 1, &[(Kind::WrongScope, A, 1)]),
    (
        "a coupon follows the event",
        |it| (it.coupons[0].scope, it.coupons[1].round) = (1, 4),
        &[(Kind::OutOfStep, A, 1), (Kind::OutOfStep, B, 1)],
    ),
    ("a row of no coupon is found", |it| it.holdings.push(row("u-5", 9, 1)), &[(Kind::UnknownCoupon, None, 1)]),
    (
        "serials have no gap",
        |it| it.holdings[2].serial = Some(7),
        &[(Kind::SerialOutOfRange, A, 1), (Kind::SerialGap, A, 1)],
    ),
    (
        "serials start at one",
        |it| it.holdings[3].serial = Some(0),
        &[(Kind::SerialOutOfRange, B, 1), (Kind::SerialGap, B, 1)],
    ),
    (
        "no serial is given twice",
        |it| it.holdings[2].serial = Some(1),
        &[(Kind::SerialTwice, A, 1), (Kind::SerialGap, A, 1)],
    ),
    ("the next serial follows the rows", |it| it.coupons[1].next_serial = 3, &[(Kind::NextSerial, B, 1)]),
    (
        "one row without a serial is not unlocked",
        |it| it.holdings[2].serial = None,
        &[(Kind::SerialMissing, A, 1), (Kind::SerialGap, A, 1)],
    ),
];

#[test]
fn each_corruption_of_the_tables_is_found_for_what_it_is() {
    for (what, corrupt, expected) in CORRUPTIONS {
        let mut tables = clean();
        corrupt(&mut tables);

        assert_eq!(found(&tables, None), named(expected), "{what}");
    }
}

#[test]
fn an_answer_that_the_wallet_does_not_bear_out_is_found_for_what_it_is() {
    let other_round = Ack { round: 4, ..ack("u-1", "A", 1) };
    let other_request = Ack { request_id: Some("cd".repeat(16)), ..ack("u-1", "A", 1) };
    let promised_to_two = vec![ack("u-1", "A", 1), ack("u-9", "A", 1)];
    let lost = vec![ack("u-9", "B", 3), ack("u-9", "Z", 1)];
    let expected: [(_, &[_]); 6] = [
        (lost, &[(Kind::AckLost, B, 1), (Kind::AckLost, Some("Z"), 1)]),
        (vec![ack("u-9", "A", 2)], &[(Kind::AckOtherUser, A, 1)]),
        (vec![ack("u-1", "A", 2)], &[(Kind::AckOtherSerial, A, 1)]),
        (vec![other_round], &[(Kind::AckOtherRound, A, 1)]),
        (vec![other_request], &[(Kind::AckOtherRequest, A, 1)]),
        (promised_to_two, &[(Kind::AckOtherUser, A, 1), (Kind::AckSerialTwice, A, 1)]),
    ];
    for (acks, expected) in expected {
        assert_eq!(found(&clean(), Some(&acks)), named(expected), "{acks:?}");
    }
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
fn what_was_promised_of_a_coupon_that_was_retired_later_is_known() {
    let mut tables = clean();
    tables.holdings.push(Holding { round: 4, ..row("u-5", 9, 1) });

    assert_eq!(found(&tables, Some(&[Ack { round: 4, ..ack("u-5", "OLD", 1) }])), []);
    assert_eq!(found(&tables, Some(&[ack("u-5", "OLD", 1)])), [at(Kind::AckOtherRound, "OLD", 1)]);
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
