//! The checker checked: clean worlds show nothing, and every corruption is found.

use fastrand::Rng;

use super::super::report::{Heard, Kind};
use super::super::{Coupon, Event, Tables};
use super::changing::LIES;
use super::plants::{PLANTS, Plant};
use super::timeline::always;
use super::world::{ROUND, World, coupon, entry_of, take};
use crate::history::{Ack, Attempt, Change, History, Look, Shown, Told};

/// Worlds that are tried.
const SEEDS: u64 = 4_000;

impl World {
    /// `A` sells out to u-1, u-2 and u-3; u-2 clicks twice, u-3 hangs up and asks again, u-5 is told "not now" first. Of `B` two of
    /// five pieces go, one of them to u-1, unless that is one too many.
    fn by_hand(exclusive: bool) -> Self {
        let (event, coupons) =
            (Event { round: ROUND, exclusive }, vec![coupon(1, exclusive, 3), coupon(2, exclusive, 5)]);
        let tables = Tables { event, coupons, retired: Vec::new(), holdings: Vec::new() };
        let mut world = Self { tables, history: History::default() };
        let first = world.win("A", "u-1", (0, 10));
        let second = world.win("A", "u-2", (2, 12));
        world.ask("A", "u-2", "l", (3, 13), Told::AlreadyIssued(second));
        world.ask("A", "u-3", "k", (4, 9), Told::Nothing);
        world.ask("A", "u-4", "k", (20, 24), Told::SoldOut);
        world.ask("A", "u-5", "k", (21, 22), Told::Retryable);
        world.win("A", "u-3", (30, 35));
        world.ask("A", "u-5", "k", (40, 44), Told::SoldOut);
        world.ask("A", "u-1", "k", (50, 52), Told::Replayed(first));
        if !exclusive {
            world.win("B", "u-1", (60, 66));
        }
        world.win("B", "u-6", (70, 75));
        world
    }

    /// The next piece goes to `user`.
    fn win(&mut self, code: &str, user: &str, times: (u64, u64)) -> Ack {
        let coupon = self.tables.coupons.iter_mut().find(|coupon| coupon.code == code).unwrap();
        let row = take(coupon, user, &format!("{user} {code}"));
        let entry = entry_of(code, &row);
        self.tables.holdings.push(row);
        self.ask(code, user, "k", times, Told::Issued(entry.clone()));
        entry
    }

    pub(super) fn ask(&mut self, code: &str, user: &str, key: &str, (asked, answered): (u64, u64), told: Told) {
        let [user, code, key] = [user, code, key].map(str::to_owned);
        self.history.attempts.push(Attempt { user, code, key, asked, answered, told });
    }
}

#[test]
fn a_clean_history_has_no_findings_and_is_counted() {
    let report = World::by_hand(false).judge();

    assert_eq!(report.findings, []);
    let (issued, already_issued, sold_out, retryable, nothing) = (6, 1, 2, 1, 1);
    let heard = Heard { issued, already_issued, sold_out, retryable, nothing, ..Heard::default() };
    let heard = Heard { attempts: 11, users: 6, slowest: 10, ..heard };
    assert_eq!(report.heard, Some(heard));
}

#[test]
fn every_planted_corruption_is_found_for_what_it_is() {
    for (what, expected, plant) in PLANTS {
        let mut world = World::by_hand(false);
        plant(&mut world, None).unwrap();
        let mut expected = expected.to_vec();
        expected.sort_unstable();

        assert_eq!(world.kinds(), expected, "{what}: {}", world.judge());
    }
}

#[test]
fn thousands_of_clean_histories_raise_no_alarm() {
    for seed in 0..SEEDS {
        for random in [World::steady, World::changing] {
            let report = random(&mut Rng::with_seed(seed)).judge();

            assert!(report.is_clean(), "seed {seed}: {report}");
        }
    }
}

/// Wherever one of these fits, it is found for what it is.
fn find(plants: &[Plant], random: fn(&mut Rng) -> World) {
    for (what, expected, plant) in plants {
        let mut planted = 0;
        for seed in 0..SEEDS / 4 {
            let mut rng = Rng::with_seed(seed);
            let mut world = random(&mut rng);
            if plant(&mut world, Some(&mut rng)).is_some() {
                planted += 1;
                assert!(world.kinds().contains(&expected[0]), "seed {seed}, {what}: {}", world.judge());
            }
        }
        assert!(planted >= 20, "{what} was planted {planted} times only");
    }
}

#[test]
fn every_planted_corruption_is_found_in_any_history() {
    find(&PLANTS, World::steady);
}

#[test]
fn every_lie_about_a_change_is_found_in_any_history() {
    find(&LIES, World::changing);
}

#[test]
fn who_was_sent_away_from_one_code_may_get_another() {
    for mut world in [false, true].map(World::by_hand) {
        world.win("B", "u-4", (80, 81));

        assert_eq!(world.kinds(), [], "{}", world.judge());
    }
}

#[test]
fn who_holds_a_coupon_is_sent_away_from_another_code_only_if_the_round_is_not_exclusive() {
    let sent_away = [false, true].map(World::by_hand).map(|mut world| {
        world.ask("A", "u-6", "k", (80, 81), Told::SoldOut);
        world.kinds()
    });

    assert_eq!(sent_away, [vec![], vec![Kind::SoldOutHolder]]);
}

/// What happens in words, what it does to the hand-made world, and what that shows.
type Case = (&'static str, fn(&mut World), &'static [Kind]);

const CASES: [Case; 7] = [
    ("told that another request got what it got itself", deny_own, &[Kind::AlreadyUnfounded]),
    ("told of another request, which comes later", |it| it.history.attempts[2].answered = 1, &[Kind::AlreadyUnfounded]),
    ("told of another request, which comes later than a third one", name_later, &[Kind::AlreadyUnfounded]),
    ("lost when the user had been told", |it| it.ask("A", "u-1", "k", (80, 90), Told::Nothing), &[]),
    ("made after sold out, by one who asked before", ask_anew, &[Kind::FalseSoldOut, Kind::SoldOutThenIssued]),
    ("told out of order, the rows are in order", swap_told, &[Kind::OutOfOrder, Kind::AckOtherSerial]),
    ("asked after another saw more in its wallet", see, &[Kind::OutOfOrder]),
];

fn deny_own(world: &mut World) {
    let entry = world.history.attempts[1].told.entry().unwrap().clone();
    world.ask("A", "u-2", "k", (60, 61), Told::AlreadyIssued(entry));
}

/// u-6 is told "not now", then of a request that it makes only later.
fn name_later(world: &mut World) {
    let later = world.history.attempts[10].told.entry().unwrap().clone();
    world.ask("B", "u-6", "l", (61, 62), Told::Retryable);
    world.ask("B", "u-6", "m", (63, 64), Told::AlreadyIssued(later));
}

fn ask_anew(world: &mut World) {
    world.history.attempts[3].key = "l".to_owned();
}

fn swap_told(world: &mut World) {
    for (user, serial) in [("u-1", 2), ("u-6", 1)] {
        world.retell("B", user, |told| {
            if let Told::Issued(entry) = told {
                entry.serial = Some(serial);
            }
        });
    }
}

fn see(world: &mut World) {
    let (user, shown) = ("u-7".to_owned(), Shown::Entries(vec![world.win("B", "u-7", (80, 95))]));
    world.history.looks.push(Look { user, asked: 82, answered: 83, shown });
    let before = &mut world.history.attempts[10];
    (before.asked, before.answered) = (85, 90);
}

#[test]
fn each_case_shows_just_what_is_wrong_with_it() {
    for (what, happen, expected) in CASES {
        let mut world = World::by_hand(false);
        happen(&mut world);

        assert_eq!(world.kinds(), expected, "{what}");
    }
}

#[test]
fn a_round_that_is_over_is_judged_by_what_was_so_in_it() {
    let mut world = World::by_hand(false);
    world.history.changes.push(always(&world.tables));
    world.tables.event = Event { round: ROUND + 1, exclusive: true };
    for it in &mut world.tables.coupons {
        *it = Coupon { round: ROUND + 1, ..coupon(it.id, true, 1) };
    }
    let clean = world.kinds();

    world.history.attempts[4].told = Told::Nothing;
    world.tables.holdings.swap_remove(0);

    assert_eq!(clean, []);
    assert_eq!(world.kinds(), [Kind::SerialGap, Kind::AckLost, Kind::NeverFinal]);
}

#[test]
fn sold_out_is_not_true_when_what_was_added_can_only_have_gone_later() {
    let told_at = |asked| {
        let mut world = World::by_hand(false);
        let (before, a) = (always(&world.tables), &mut world.tables.coupons[0]);
        (a.total, a.remaining) = (a.total + 2, a.remaining + 2);
        let added = Change { asked: 100, answered: 110, ..always(&world.tables) };
        world.history.changes = vec![before, added];
        // Both had asked before, and been sent away.
        world.win("A", "u-4", (130, 135));
        world.win("A", "u-5", (140, 145));
        world.ask("A", "u-9", "k", (asked, asked + 1), Told::SoldOut);
        world.kinds()
    };

    assert_eq!(told_at(105), []);
    assert_eq!(told_at(120), [Kind::FalseSoldOut, Kind::SoldOutThenIssued]);
    assert_eq!(told_at(150), []);
}

#[test]
fn an_answer_that_only_the_wallet_remembers_has_its_place_in_the_order() {
    let mut world = World::by_hand(false);
    // u-6 is never told of its second piece of B; it got it, though it asked after u-7 was told of the third.
    world.history.attempts[10].told = Told::Nothing;
    world.win("B", "u-7", (67, 69));

    assert_eq!(world.kinds(), [Kind::OutOfOrder, Kind::NeverFinal]);
}
