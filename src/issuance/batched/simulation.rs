//! The batch over a database and a lock that fail on demand, in virtual time on one thread. What runs here is the service's own
//! code from the memory of a replica to the answer; only server and lock are models. Plans are drawn by proptest, which
//! shrinks one that breaks a promise to the smallest that still does.
//!
//! `SIMULATIONS` is the number of plans, `SIMULATION_SEED` where they come from; both have defaults, so that a run is the
//! same every time.

mod books;
mod keys;
mod plan;
mod promises;
mod server;
mod world;

use std::collections::BTreeMap;
use std::time::Duration;

use proptest::test_runner::{Config, RngSeed, TestCaseError, TestError, TestRunner};

use self::plan::{Ask, CallFault, LockFault, Plan, plans};
use self::promises::broken;
use self::world::run;

/// What keeps the promises, to be taken away from the model one at a time: a test that cannot fail proves nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Guard {
    /// `SELECT … FOR UPDATE` on the coupon.
    RowLock,
    /// The wallet's primary key: without it a batch that runs again takes what it has written for not written.
    UserKey,
    /// A server that answers only after COMMIT.
    CommitBeforeAnswer,
    /// Reads see committed rows only.
    CommittedReads,
    /// A read's round and holdings are of one moment.
    OneMoment,
}

fn millis(number: u64) -> Duration {
    Duration::from_millis(number)
}

/// The way between a replica and a server: nothing at all, one turn of the scheduler, or some milliseconds.
async fn hop() {
    match fastrand::u64(..8) {
        0..3 => {}
        3..6 => tokio::task::yield_now().await,
        ms => tokio::time::sleep(millis(ms - 5)).await,
    }
}

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().unwrap())
}

fn runner(plans: u64) -> TestRunner {
    let cases = u32::try_from(number("SIMULATIONS", plans)).unwrap();
    let rng_seed = RngSeed::Fixed(number("SIMULATION_SEED", 6));
    TestRunner::new(Config { cases, rng_seed, failure_persistence: None, ..Config::default() })
}

/// Runs so many plans. Returns the smallest that breaks a promise, and which.
fn simulate(many: u64, without: Option<Guard>, change: impl Fn(Plan) -> Plan) -> Option<(String, Plan)> {
    let strategy = proptest::strategy::Strategy::prop_map(plans(), change);
    let checked = runner(many).run(&strategy, |plan| match broken(&plan, &run(&plan, without)).as_slice() {
        [] => Ok(()),
        promises => Err(TestCaseError::fail(promises.join("\n"))),
    });
    match checked {
        Ok(()) => None,
        Err(TestError::Fail(reason, plan)) => Some((reason.to_string(), plan)),
        Err(TestError::Abort(reason)) => panic!("{reason}"),
    }
}

#[test]
fn no_plan_breaks_a_promise() {
    if let Some((promises, plan)) = simulate(5_000, None, |plan| plan) {
        panic!("{promises}\n{plan:#?}");
    }
}

#[test]
fn the_promises_do_not_need_the_lock() {
    let lying = |plan| Plan { attempts: vec![LockFault::Amnesia; 10_000], ..plan };
    if let Some((promises, Plan { attempts: _, seed, asks, calls, .. })) = simulate(500, None, lying) {
        panic!("{promises}\nseed {seed}, {asks:#?}, {calls:#?}");
    }
}

#[test]
fn a_plan_is_the_same_every_time() {
    for _ in 0..2 {
        let checked = runner(200).run(&plans(), |plan| {
            let [first, second] = [run(&plan, None), run(&plan, None)];
            assert_eq!(first.attempts, second.attempts);
            assert_eq!(first.server.books.lock().wallet, second.server.books.lock().wallet);
            assert_eq!(first.server.books.lock().moments, second.server.books.lock().moments);
            Ok(())
        });
        checked.unwrap();
    }
}

#[test]
fn the_plans_meet_every_answer() {
    let met = std::cell::RefCell::new(BTreeMap::<_, usize>::new());
    let checked = runner(500).run(&plans(), |plan| {
        for attempt in run(&plan, None).attempts {
            *met.borrow_mut().entry(attempt.told.name()).or_default() += 1;
        }
        Ok(())
    });
    checked.unwrap();
    let met = met.into_inner();
    let answers =
        ["already-issued", "busy", "hung up", "issued", "not-open", "rejected", "replayed", "sold-out", "unavailable"];
    assert!(met.keys().copied().eq(answers), "{met:?}");
}

#[test]
fn nodes_that_hang_while_a_lease_is_held_do_not_keep_the_answers() {
    // The second order comes while the first is being settled, so that there is a reason to stay.
    let asks: Vec<_> = [(0, 2_000), (1, 2_050)].map(|(user, at_ms)| Ask { user, at_ms, ..Ask::default() }).into();
    for seed in 0..100 {
        let (calls, attempts) = (vec![CallFault::Slow { ms: 100 }], vec![LockFault::HungLater { ms: 1_000 }]);
        let plan = Plan { seed, replicas: 1, stock: vec![2], asks: asks.clone(), calls, attempts, ..Plan::default() };

        let record = run(&plan, None);

        let issued = record.attempts.iter().filter(|attempt| attempt.told.name() == "issued");
        let first = issued.min_by_key(|attempt| attempt.told_ms).unwrap();
        assert!(first.told_ms - first.asked_ms < 200, "seed {seed}: {first:?}");
    }
}

/// Takes a guard away, and expects a small plan that shows the loss, with `symptom` in what was found.
fn expect_caught(without: Guard, symptom: &str) {
    let (promises, plan) = simulate(5_000, Some(without), |plan| plan).expect("the guard is needed");
    assert!(promises.contains(symptom), "{promises}");
    assert!(plan.asks.len() <= 4, "not shrunk: {plan:#?}");
}

#[test]
fn without_the_row_lock_it_oversells() {
    expect_caught(Guard::RowLock, "serials of");
}

#[test]
fn without_the_key_a_batch_that_runs_again_issues_twice() {
    expect_caught(Guard::UserKey, "issued twice");
}

#[test]
fn an_answer_before_the_commit_loses_coupons() {
    expect_caught(Guard::CommitBeforeAnswer, "not what the wallet holds");
}

#[test]
fn uncommitted_reads_tell_somebody_sold_out_too_early() {
    expect_caught(Guard::CommittedReads, "sold out while stock is left");
}

#[test]
fn a_round_and_holdings_of_two_moments_send_a_holder_away_while_a_reset_commits() {
    let (promises, _) = simulate(5_000, Some(Guard::OneMoment), |plan| plan).expect("the guard is needed");
    assert!(promises.contains("sold out to a holder"), "{promises}");
}
