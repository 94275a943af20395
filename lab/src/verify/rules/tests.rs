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
fn what_was_promised_of_a_coupon_that_was_retired_later_is_known() {
    let mut tables = clean();
    tables.holdings.push(Holding { round: 4, ..row("u-5", 9, 1) });

    assert_eq!(found(&tables, Some(&[Ack { round: 4, ..ack("u-5", "OLD", 1) }])), []);
    assert_eq!(found(&tables, Some(&[ack("u-5", "OLD", 1)])), [at(Kind::AckOtherRound, "OLD", 1)]);
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
