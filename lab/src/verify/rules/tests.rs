//! Each rule with the corruption that it exists for.

use time::{Duration, OffsetDateTime};

use super::super::report::Acknowledged;
use super::*;

/// Two coupons of three pieces, exclusive: `A` sold out to u-1, u-2, u-3, `B` issued once, to u-4.
fn clean() -> Tables {
    let coupon = |id, code: &str, remaining, next_serial| {
        let code = code.to_owned();
        Coupon { id, code, total: 3, remaining, next_serial, round: 5, scope: 0, open: true }
    };
    Tables {
        event: Event { round: 5, exclusive: true },
        coupons: vec![coupon(1, "A", 0, 4), coupon(2, "B", 2, 2)],
        retired: vec![(9, "OLD".to_owned())],
        holdings: vec![row("u-1", 1, 1), row("u-2", 1, 2), row("u-3", 1, 3), row("u-4", 2, 1)],
    }
}

fn row(user: &str, coupon_id: u16, serial: u32) -> Holding {
    let (user_id, request_id) = (user.to_owned(), "0f".to_owned());
    Holding { round: 5, scope: 0, user_id, coupon_id, serial: Some(serial), request_id, issued_at: 0 }
}

fn ack(user: &str, code: &str, serial: u32) -> Ack {
    let [code, user_id, request_id] = [code, user, "0f"].map(str::to_owned);
    Ack { code, user_id, serial: Some(serial), round: 5, request_id, issued_at: OffsetDateTime::UNIX_EPOCH }
}

/// The round in which nothing is exclusive, with an issue of `A` and of `B` to u-1.
fn per_code(it: &mut Tables) {
    it.event.exclusive = false;
    it.coupons.iter_mut().for_each(|coupon| coupon.scope = coupon.id);
    it.holdings.iter_mut().for_each(|row| row.scope = row.coupon_id);
    it.holdings[3].user_id = "u-1".to_owned();
}

/// What is found, in few words.
fn found(corrupt: impl FnOnce(&mut Tables), acks: Option<&[Ack]>) -> String {
    let mut tables = clean();
    corrupt(&mut tables);
    let findings = judge(&tables, acks).findings;
    let words = findings.iter().map(|it| format!("{} {} {}", it.code.as_deref().unwrap_or("-"), it.kind, it.count));
    words.collect::<Vec<_>>().join(", ")
}

/// A corruption in words, what it does, and every finding that it leads to.
type Corruption = (&'static str, fn(&mut Tables), &'static str);

const CORRUPTIONS: [Corruption; 18] = [
    ("nothing is wrong", |_| {}, ""),
    ("nothing was issued", issue_nothing, ""),
    ("a row beyond the total", oversell, "A oversold 1, A conservation 1"),
    ("two codes for one user", |it| it.holdings[3].user_id = "u-1".to_owned(), "- user-twice 1"),
    ("two codes for one user where the rule allows them", per_code, ""),
    ("two pieces of one code where the rule allows two codes", twice_per_code, "A user-twice 1"),
    ("users that differ in case or a space", |it| (it.holdings[1].user_id, it.holdings[2].user_id) = similar(), ""),
    ("a row in another scope, past the primary key", |it| it.holdings[0].scope = 1, "A wrong-scope 1"),
    ("a coupon of another scope", |it| it.coupons[0].scope = 1, "A out-of-step 1"),
    ("a coupon of another round", |it| it.coupons[1].round = 4, "B out-of-step 1"),
    ("a row of no coupon", |it| it.holdings.push(row("u-5", 9, 1)), "- unknown-coupon 1"),
    ("stock that vanished", |it| it.coupons[1].remaining = 0, "B conservation 2"),
    ("a gap in the serials", |it| it.holdings[2].serial = Some(7), "A serial-gap 1, A serial-out-of-range 1"),
    ("serials from zero", |it| it.holdings[3].serial = Some(0), "B serial-gap 1, B serial-out-of-range 1"),
    ("a serial given twice", |it| it.holdings[2].serial = Some(1), "A serial-twice 1, A serial-gap 1"),
    ("a next serial that skips one", |it| it.coupons[1].next_serial = 3, "B next-serial 1"),
    ("one row without a serial", |it| it.holdings[2].serial = None, "A serial-missing 1, A serial-gap 1"),
    ("unlocked, which gives no serials and loses updates", lose_updates, "A conservation 2"),
];

fn issue_nothing(it: &mut Tables) {
    it.holdings.clear();
    it.coupons.iter_mut().for_each(|it| (it.remaining, it.next_serial) = (it.total, 1));
}

fn oversell(it: &mut Tables) {
    it.holdings.push(row("u-5", 1, 4));
    it.coupons[0].next_serial = 5;
}

fn twice_per_code(it: &mut Tables) {
    per_code(it);
    it.holdings[1].user_id = "u-1".to_owned();
}

fn similar() -> (String, String) {
    ("U-1".to_owned(), "u-1 ".to_owned())
}

fn lose_updates(it: &mut Tables) {
    it.holdings.iter_mut().for_each(|row| row.serial = None);
    it.coupons.iter_mut().for_each(|it| (it.remaining, it.next_serial) = (2, 1));
}

#[test]
fn each_corruption_of_the_tables_is_found_for_what_it_is() {
    for (what, corrupt, expected) in CORRUPTIONS {
        assert_eq!(found(corrupt, None), expected, "{what}");
    }
}

#[test]
fn an_answer_that_the_wallet_does_not_bear_out_is_found_for_what_it_is() {
    let before = |ack: Ack| Ack { round: 4, ..ack };
    let other_request = Ack { request_id: "0e".to_owned(), ..ack("u-1", "A", 1) };
    let other_time = Ack { issued_at: OffsetDateTime::UNIX_EPOCH + Duration::MICROSECOND, ..ack("u-1", "A", 1) };
    let expected = [
        (vec![ack("u-9", "B", 3), ack("u-9", "Z", 1)], "B ack-lost 1, Z ack-lost 1"),
        (vec![ack("u-9", "A", 2)], "A ack-other-user 1"),
        (vec![ack("u-1", "A", 2)], "A ack-other-serial 1"),
        (vec![before(ack("u-1", "A", 1))], "A ack-other-round 1"),
        (vec![other_request], "A ack-other-request 1"),
        (vec![other_time], "A ack-other-time 1"),
        (vec![ack("u-1", "A", 1), ack("u-9", "A", 1)], "A ack-serial-twice 1, A ack-other-user 1"),
        // Of a coupon that was retired later, in the round in which it was there.
        (vec![before(ack("u-5", "OLD", 1))], ""),
        (vec![ack("u-5", "OLD", 1)], "OLD ack-other-round 1"),
    ];
    for (acks, expected) in expected {
        let add = |it: &mut Tables| it.holdings.push(Holding { round: 4, ..row("u-5", 9, 1) });
        assert_eq!(found(add, Some(&acks)), expected, "{acks:?}");
    }
}

#[test]
fn the_verdict_of_a_round_says_how_much_was_issued_or_lost() {
    let judged = |corrupt: fn(&mut Tables)| {
        let mut tables = clean();
        corrupt(&mut tables);
        let report = judge(&tables, None);
        (report.verdict(), report.coupons.iter().map(|it| it.lost_updates).collect::<Vec<_>>())
    };

    let clean = "clean: 4 coupons, 4 users, none oversold, doubled or lost";
    assert_eq!(judged(|_| {}), (clean.to_owned(), vec![0, 0]));
    let lost = "BROKEN: 2 lost updates, P5 A conservation (2)";
    assert_eq!(judged(lose_updates), (lost.to_owned(), vec![2, 0]));
    let vanished = "BROKEN: P5 B conservation (2)";
    assert_eq!(judged(|it| it.coupons[1].remaining = 0), (vanished.to_owned(), vec![0, -2]));
}

#[test]
fn a_coupon_of_which_no_client_knows_or_knows_of_before_a_reset_breaks_nothing() {
    let mut tables = clean();
    tables.holdings.push(Holding { round: 4, ..row("u-1", 1, 2) });
    let before = Ack { round: 4, ..ack("u-1", "A", 2) };
    let acks = [ack("u-1", "A", 1), ack("u-2", "A", 2), ack("u-3", "A", 3), ack("u-4", "B", 1)];

    for (acks, coupons) in
        [(acks.to_vec(), 4), (vec![acks[0].clone(), acks[1].clone(), acks[0].clone()], 2), (vec![before], 0)]
    {
        let report = judge(&tables, Some(&acks));

        assert_eq!(report.findings, []);
        let expected = Acknowledged { answers: acks.len(), coupons, unacknowledged: 4 - coupons };
        assert_eq!(report.acknowledged, Some(expected));
    }
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
