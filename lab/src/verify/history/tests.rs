//! The checker checked: clean worlds show nothing, and every corruption is found.

use fastrand::Rng;

use super::super::report::{Heard, Kind};
use super::super::{Event, Holding, Tables};
use super::plants::ALL;
use super::world::{ROUND, World, coupon, entry_of, take};
use crate::history::{Attempt, History, Told};

/// Worlds that are tried.
const SEEDS: u64 = 4_000;

impl World {
    /// `A` sells out to u-1, u-2 and u-3; u-2 clicks twice, u-3 hangs up and asks again, u-5 is told "not now" first. Of
    /// `B` two of five pieces go.
    fn by_hand() -> Self {
        let (mut a, mut b) = (coupon(1, false, 3), coupon(2, false, 5));
        let of_a = ["u-1", "u-2", "u-3"].map(|user| take(&mut a, user, user));
        let of_b = ["u-1", "u-6"].map(|user| take(&mut b, user, &format!("{user} B")));
        let entry = |row: &Holding| entry_of(if row.coupon_id == 1 { "A" } else { "B" }, row);
        let told: Vec<Told> = of_a.iter().chain(&of_b).map(|row| Told::Issued(entry(row))).collect();
        let already = Told::AlreadyIssued(entry(&of_a[1]));
        let event = Event { round: ROUND, exclusive: false };
        let holdings = of_a.into_iter().chain(of_b).collect();
        let tables = Tables { event, coupons: vec![a, b], retired: vec![], holdings };
        let mut world = Self { tables, history: History::default() };
        world.ask("A", "u-1", "k", (0, 10), told[0].clone());
        world.ask("A", "u-2", "k", (2, 12), told[1].clone());
        world.ask("A", "u-2", "l", (3, 13), already);
        world.ask("A", "u-3", "k", (4, 9), Told::Nothing);
        world.ask("A", "u-4", "k", (20, 24), Told::SoldOut);
        world.ask("A", "u-5", "k", (21, 22), Told::Retryable);
        world.ask("A", "u-3", "k", (30, 35), told[2].clone());
        world.ask("A", "u-5", "k", (40, 44), Told::SoldOut);
        world.ask("A", "u-1", "k", (50, 52), told[0].clone());
        world.ask("B", "u-1", "k", (60, 66), told[3].clone());
        world.ask("B", "u-6", "k", (70, 75), told[4].clone());
        world
    }

    /// The same with one coupon per user over all codes: u-1 asks for `A` alone.
    fn exclusive() -> Self {
        let mut world = Self::by_hand();
        world.tables.event.exclusive = true;
        world.tables.coupons[1] = coupon(2, true, 5);
        world.tables.coupons[0].scope = 0;
        world.tables.holdings.truncate(3);
        world.tables.holdings.iter_mut().for_each(|row| row.scope = 0);
        world.history.attempts.truncate(9);
        let row = take(&mut world.tables.coupons[1], "u-6", "u-6 B");
        world.ask("B", "u-6", "k", (70, 75), Told::Issued(entry_of("B", &row)));
        world.tables.holdings.push(row);
        world
    }

    fn ask(&mut self, code: &str, user: &str, key: &str, (asked, answered): (u64, u64), told: Told) {
        let (user, code, key) = (user.to_owned(), code.to_owned(), key.to_owned());
        self.history.attempts.push(Attempt { user, code, round: ROUND, key, asked, answered, told });
    }
}

#[test]
fn a_clean_history_has_no_findings_and_is_counted() {
    let report = World::by_hand().judge();

    assert_eq!(report.findings, []);
    let heard = Heard {
        attempts: 11,
        users: 6,
        issued: 6,
        already_issued: 1,
        sold_out: 2,
        refused: 0,
        retryable: 1,
        nothing: 1,
        slowest: 10,
    };
    assert_eq!(report.heard, Some(heard));
}

#[test]
fn every_planted_corruption_is_found_for_what_it_is() {
    for (plant, expected) in ALL {
        let mut world = World::by_hand();
        plant.apply(&mut world, &mut |_| 0).unwrap();
        let mut expected = expected.to_vec();
        expected.sort_unstable();

        assert_eq!(world.kinds(), expected, "{plant:?}: {}", world.judge());
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

#[test]
fn every_planted_corruption_is_found_in_any_history() {
    let mut planted = vec![0; ALL.len()];
    for seed in 0..SEEDS {
        let mut rng = Rng::with_seed(seed);
        let place = rng.usize(..ALL.len());
        let (mut world, (plant, expected)) = (World::steady(&mut rng), ALL[place]);
        if plant.apply(&mut world, &mut |all| rng.usize(..all)).is_some() {
            planted[place] += 1;
            assert!(world.kinds().contains(&expected[0]), "seed {seed}, {plant:?}: {}", world.judge());
        }
    }
    for ((plant, _), times) in ALL.iter().zip(planted) {
        assert!(times >= 20, "{plant:?} was planted {times} times only");
    }
}

#[test]
fn who_was_sent_away_from_one_code_may_get_another() {
    for mut world in [World::by_hand(), World::exclusive()] {
        let row = take(&mut world.tables.coupons[1], "u-4", "u-4 B");
        world.ask("B", "u-4", "k", (80, 81), Told::Issued(entry_of("B", &row)));
        world.tables.holdings.push(row);

        assert_eq!(world.kinds(), [], "{}", world.judge());
    }
}

#[test]
fn who_holds_a_coupon_is_sent_away_from_another_code_only_if_the_round_is_not_exclusive() {
    let sent_away = [World::by_hand(), World::exclusive()].map(|mut world| {
        world.ask("A", "u-6", "k", (80, 81), Told::SoldOut);
        world.kinds()
    });

    assert_eq!(sent_away, [vec![], vec![Kind::SoldOutHolder]]);
}

/// What happens in words, what it does to the hand-made world, and what that shows.
type Case = (&'static str, fn(&mut World), &'static [Kind]);

const CASES: [Case; 5] = [
    (
        "a request is not told that another one got what it got itself",
        |world| {
            let entry = world.history.attempts[1].told.entry().unwrap().clone();
            world.ask("A", "u-2", "k", (60, 61), Told::AlreadyIssued(entry));
        },
        &[Kind::AlreadyUnfounded],
    ),
    (
        "a request that comes only after the answer is no cause of it",
        |world| (world.history.attempts[2].asked, world.history.attempts[2].answered) = (0, 1),
        &[Kind::AlreadyUnfounded],
    ),
    (
        "a user who was told of a coupon needs no further answer",
        |world| world.ask("A", "u-1", "k", (80, 90), Told::Nothing),
        &[],
    ),
    (
        "a request made after sold out is late whatever else its user asked before",
        |world| world.history.attempts[3].key = "l".to_owned(),
        &[Kind::FalseSoldOut, Kind::SoldOutThenIssued],
    ),
    (
        "serials that are told out of order are found though the rows are in order",
        |world| {
            for (user, serial) in [("u-1", 2), ("u-6", 1)] {
                world.retell("B", user, |told| {
                    if let Told::Issued(entry) = told {
                        entry.serial = Some(serial);
                    }
                });
            }
        },
        &[Kind::AckOtherSerial, Kind::OutOfOrder],
    ),
];

#[test]
fn each_case_shows_just_what_is_wrong_with_it() {
    for (what, happen, expected) in CASES {
        let mut world = World::by_hand();
        happen(&mut world);

        assert_eq!(world.kinds(), expected, "{what}");
    }
}

#[test]
fn an_older_round_is_judged_by_its_rows_alone() {
    let mut world = World::by_hand();
    world.tables.event.round = ROUND + 1;
    for coupon in &mut world.tables.coupons {
        (coupon.round, coupon.remaining, coupon.next_serial) = (ROUND + 1, coupon.total, 1);
    }
    world.history.attempts[4].told = Told::Nothing;
    let clean = world.kinds();

    world.tables.holdings.swap_remove(0);

    assert_eq!(clean, []);
    assert_eq!(world.kinds(), [Kind::AckLost]);
}

#[test]
fn an_answer_that_only_the_wallet_remembers_has_its_place_in_the_order() {
    let mut world = World::by_hand();
    // u-6 is never told of its second piece of B; it got it, though it asked after u-7 was told of the third.
    let coupon = &mut world.tables.coupons[1];
    let (second, third) = (world.tables.holdings.pop().unwrap(), take(coupon, "u-7", "u-7 B"));
    let entry = entry_of("B", &third);
    world.history.attempts[10].told = Told::Nothing;
    let early = Attempt { user: "u-7".to_owned(), asked: 67, answered: 69, ..world.history.attempts[10].clone() };
    world.history.attempts.push(Attempt { told: Told::Issued(entry), ..early });
    world.tables.holdings.extend([second, third]);

    assert_eq!(world.kinds(), [Kind::OutOfOrder, Kind::NeverFinal]);
}
