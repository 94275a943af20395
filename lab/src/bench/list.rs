//! What is measured, in which order, on which cluster. Pure.
//!
//! Repeats are interleaved: each measures everything once, so that a machine that becomes slower or faster meanwhile does so to all
//! of them. Within a repeat the order spares restarts.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::cluster::private::Knobs;
use crate::load::{Pace, Requests, Users};
use crate::measure::scenario::{Contests, Scenario, Stock, holders, issues};
use crate::strategy::Strategy;

/// Replicas of the cluster that most is measured on.
const REPLICAS: u32 = 3;
/// The rate at which replicas are compared, per second.
const RATE: u32 = 3_000;
/// The rate at which k6 and our loader are compared, per second, and for how long.
pub const CROSS_CHECK: (u32, Duration) = (1_000, Duration::from_secs(10));
/// `POOL_SIZE`s among which a strategy finds its best. `batched` has connections of its own and does not care.
pub const POOL_SIZES: [u32; 4] = [2, 4, 8, 16];
/// What `batched` runs with: the service's default.
const POOL_SIZE: u32 = 8;

/// Connections of what is no question of connections, and of what is.
const CONNECTIONS: usize = 200;
const MANY: usize = 1_000;

const WARM_UP: Duration = Duration::from_millis(700);
/// Of most loads.
const SHORT: [Duration; 2] = [WARM_UP, Duration::from_secs(3)];
/// Where a percentile needs more requests, or a strategy issues few.
const LONG: [Duration; 2] = [WARM_UP, Duration::from_secs(4)];
/// To find a strategy's best pool.
const PROBE: [Duration; 2] = [WARM_UP, Duration::from_millis(1_500)];

/// The coupon that is gone.
const GONE: &str = "GONE";
const GONE_PIECES: u32 = 10_000;

/// Tiny coupons that are fought for.
const CONTESTS: Contests = Contests { coupons: 200, pieces: 20, over: 2, rate: RATE };

/// How long one takes with everything around it, beside its load: as seen on two cores. Only the time left is guessed from it.
const AROUND: f64 = 3.0;
const BY_K6: f64 = 40.0;

/// One thing to measure.
#[derive(Clone, Debug)]
pub struct Item {
    /// In `bench.json` and for `--only`.
    pub name: String,
    /// How.
    pub what: What,
    /// Names of what its figures are told against.
    needs: Vec<String>,
}

/// How something is measured.
#[derive(Clone, Debug)]
pub enum What {
    /// By our loader.
    Load(Scenario),
    /// In an open model, at the highest rate of issues in the same repeat, divided by this.
    OfPeak(u32, Scenario),
    /// A strategy, with the pool that its probes found best.
    Best(Strategy, Scenario),
    /// 10,000 users at once, by k6.
    Rush,
    /// The cross-check, by k6.
    Arrival,
}

/// One thing in one repeat. What is measured once is in repeat 0.
#[derive(Clone, Debug)]
pub struct Step {
    /// What.
    pub item: Item,
    /// From 1.
    pub repeat: u32,
}

impl Item {
    fn new(name: impl Into<String>, what: What, needs: &[&str]) -> Self {
        Self { name: name.into(), what, needs: needs.iter().map(ToString::to_string).collect() }
    }

    fn load(name: impl Into<String>, scenario: Scenario, needs: &[&str]) -> Self {
        Self::new(name, What::Load(scenario), needs)
    }

    /// What is asked, where our loader asks it.
    pub fn scenario(&self) -> Option<&Scenario> {
        match &self.what {
            What::Load(scenario) | What::OfPeak(_, scenario) | What::Best(_, scenario) => Some(scenario),
            What::Rush | What::Arrival => None,
        }
    }

    /// Seconds that it is guessed to take.
    pub fn estimate(&self) -> f64 {
        self.scenario().map_or(BY_K6, |it| (it.warm_up + it.time).as_secs_f64() + AROUND)
    }
}

/// The name of a strategy's probe.
pub fn probe(strategy: Strategy, pool_size: u32) -> String {
    format!("{strategy}-pool-{pool_size}")
}

/// The cluster of a strategy; of `batched`, what a run begins with.
pub fn knobs(strategy: Strategy, replicas: u32, pool_size: u32) -> Knobs {
    let others = [("POOL_SIZE", pool_size.to_string()), ("EXPORTERS", "off".to_owned())];
    Knobs { strategy, replicas, others: others.map(|(name, value)| (name.to_owned(), value)).into() }
}

/// `batched` on so many replicas.
pub fn batched(replicas: u32) -> Knobs {
    knobs(Strategy::Batched, replicas, POOL_SIZE)
}

/// The cluster that most is measured on.
pub fn usual() -> Knobs {
    batched(REPLICAS)
}

/// What a person's environment changes in every cluster of a run: `inherited`, without what the run sets by itself.
pub fn knobs_of_others(mut inherited: BTreeMap<String, String>) -> BTreeMap<String, String> {
    inherited.retain(|name, _| !usual().others.contains_key(name));
    inherited
}

fn hot(connections: usize, pace: Pace, times: [Duration; 2]) -> Scenario {
    Scenario::issues(usual(), false, connections, pace, times)
}

fn shared(pace: Pace, replicas: u32) -> Scenario {
    // Many connections, for a fixed rate, too: few would leave no batches to speak of.
    Scenario::issues(batched(replicas), true, MANY, pace, LONG)
}

/// What changes nothing and is answered with this.
fn untouched(requests: Requests, connections: usize, status: u16) -> Scenario {
    Scenario { stock: Stock::Untouched, requests, expect: vec![status], ..hot(connections, Pace::Closed, SHORT) }
}

/// Issues as long as any, by users whose names every replica refuses before it does anything: they have a space in them.
fn refused() -> Requests {
    Requests::Issue { codes: vec!["A001".to_owned()], users: Users::new("us er"), key: "refused".to_owned() }
}

fn trivial(connections: usize) -> Scenario {
    untouched(Requests::Get { path: "/version".to_owned() }, connections, 200)
}

/// What is asked when all is gone, and answered with this.
fn gone(requests: Requests, status: u16) -> Scenario {
    let stock = Stock::Gone(GONE.to_owned(), GONE_PIECES);
    Scenario { stock, requests, expect: vec![status], ..hot(CONNECTIONS, Pace::Closed, SHORT) }
}

/// Issues by a strategy that may refuse when it cannot keep up; its rate is that of its issues.
fn by(strategy: Strategy, pool_size: u32, times: [Duration; 2]) -> Scenario {
    let knobs = knobs(strategy, REPLICAS, pool_size);
    Scenario { knobs, tolerate: vec![503], ..hot(CONNECTIONS, Pace::Closed, times) }
}

/// Measured once: k6 first, on replicas that nothing has fattened yet, then the probes.
fn once() -> Vec<Item> {
    let (rate, time) = CROSS_CHECK;
    let ours = hot(CONNECTIONS, Pace::Open(rate.into()), [WARM_UP, time]);
    let mut items = vec![
        Item::new("rush", What::Rush, &[]),
        Item::new("arrival-1000-k6", What::Arrival, &["arrival-1000"]),
        Item::load("arrival-1000", ours, &["arrival-1000-k6"]),
    ];
    for strategy in others() {
        items.extend(POOL_SIZES.map(|size| Item::load(probe(strategy, size), by(strategy, size, PROBE), &[])));
    }
    items
}

fn others() -> impl Iterator<Item = Strategy> {
    Strategy::ALL.into_iter().filter(|strategy| *strategy != Strategy::Batched)
}

/// The yardsticks and `batched`.
fn quick() -> Vec<Item> {
    vec![
        Item::load("version-200", trivial(CONNECTIONS), &[]),
        Item::load("issue-200", hot(CONNECTIONS, Pace::Closed, LONG), &[]),
        Item::load("version-1000", trivial(MANY), &[]),
        Item::load("issue-1000", hot(MANY, Pace::Closed, LONG), &["version-1000"]),
        Item::load("refused-200", untouched(refused(), CONNECTIONS, 422), &[]),
        Item::load("alone", hot(1, Pace::Closed, SHORT), &[]),
    ]
}

/// What else is measured in every repeat. The shares of the peak come after the peak.
fn more() -> Vec<Item> {
    let open =
        |connections, replicas| Scenario::issues(batched(replicas), false, connections, Pace::Open(RATE.into()), LONG);
    let of_peak = |share| What::OfPeak(share, hot(MANY, Pace::Closed, LONG));
    let held = Requests::Issue { codes: vec![GONE.to_owned()], users: holders(GONE_PIECES), key: "again".to_owned() };
    let rate = |replicas| Item::load(format!("rate-3000-of-{replicas}"), open(CONNECTIONS, replicas), &[]);
    let mut items = vec![
        Item::load("issue-32-codes", shared(Pace::Closed, REPLICAS), &["issue-1000", "version-1000"]),
        Item::load("sold-out", gone(issues(vec![GONE.to_owned()]), 410), &[]),
        Item::load("already-issued", gone(held, 409), &[]),
        Item::new("open-third", of_peak(3), &["issue-1000"]),
        Item::new("open-half", of_peak(2), &["issue-1000"]),
        rate(1),
        rate(2),
        rate(4),
        Item::load("rate-3000-32-codes", shared(Pace::Open(RATE.into()), 4), &["rate-3000-of-4"]),
        Item::load("jump", CONTESTS.scenario(batched(4), CONNECTIONS, WARM_UP), &[]),
        rate(8),
    ];
    let best = |strategy: Strategy| {
        let compared: &[&str] = if strategy == Strategy::Pessimistic { &["issue-200"] } else { &[] };
        Item::new(strategy.to_string(), What::Best(strategy, by(strategy, POOL_SIZE, LONG)), compared)
    };
    items.extend(others().map(best));
    items
}

/// All steps in order. `only` keeps the items whose name begins with one of its words, and what those are measured against.
pub fn steps(repeats: u32, is_quick: bool, only: &[String]) -> Vec<Step> {
    let (mut once, mut each) = (once(), quick());
    if is_quick {
        once.clear();
    } else {
        each.extend(more());
    }
    let needed: Vec<String> =
        once.iter().chain(&each).filter(|it| named(&it.name, only)).flat_map(|it| it.needs.clone()).collect();
    // Everything is told as a ratio to the first.
    let is_wanted = |it: &Item| named(&it.name, only) || it.name == "version-200" || needed.contains(&it.name);
    once.retain(is_wanted);
    each.retain(is_wanted);
    let repeated = (1..=repeats).flat_map(|repeat| each.iter().map(move |item| (item.clone(), repeat)));
    once.into_iter().map(|item| (item, 0)).chain(repeated).map(|(item, repeat)| Step { item, repeat }).collect()
}

fn named(name: &str, only: &[String]) -> bool {
    only.is_empty() || only.iter().any(|word| name.starts_with(word.as_str()))
}

/// The first word of `only` that no item's name begins with, and all names there are.
pub fn unknown(is_quick: bool, only: &[String]) -> Option<(&str, Vec<String>)> {
    let names: Vec<String> = steps(1, is_quick, &[]).into_iter().map(|step| step.item.name).collect();
    let word = only.iter().find(|word| !names.iter().any(|name| name.starts_with(word.as_str())))?;
    Some((word, names))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(steps: &[Step]) -> Vec<String> {
        steps.iter().map(|step| format!("{} {}", step.repeat, step.item.name)).collect()
    }

    fn place(names: &[String], name: &str) -> usize {
        names.iter().position(|it| it == name).unwrap_or_else(|| panic!("no {name}"))
    }

    #[test]
    fn a_knob_that_the_run_sets_by_itself_is_not_inherited() {
        let set = |names: &[&str]| names.iter().map(|&name| (name.to_owned(), "2".to_owned())).collect();

        assert_eq!(knobs_of_others(set(&["POOL_SIZE", "THREADS"])), set(&["THREADS"]));
    }

    #[test]
    fn repeats_are_interleaved() {
        let names = names(&steps(2, true, &[]));

        assert_eq!(names.len(), 12);
        assert!(place(&names, "1 alone") < place(&names, "2 version-200"));
    }

    #[test]
    fn the_peak_is_known_before_a_share_of_it_is_asked_for_and_the_best_pool_before_it_is_used() {
        let names = names(&steps(1, false, &[]));

        assert!(place(&names, "1 issue-1000") < place(&names, "1 open-third"));
        assert!(place(&names, "0 pessimistic-pool-16") < place(&names, "1 pessimistic"));
        assert_eq!(names[0], "0 rush");
    }

    #[test]
    fn a_word_that_names_nothing_is_found_among_others() {
        let words = |all: &[&str]| all.iter().map(|&word| word.to_owned()).collect::<Vec<_>>();
        assert_eq!(unknown(false, &words(&["sold-out", "rate-3000-of-8", "issue"])), None);
        let only = words(&["sold-out", "nonsense"]);
        assert_eq!(unknown(true, &only).unwrap().0, "sold-out");
        let (word, names) = unknown(false, &only).unwrap();
        assert_eq!(word, "nonsense");
        assert!(names.contains(&"jump".to_owned()), "{names:?}");
    }

    #[test]
    fn only_keeps_what_a_figure_is_measured_against() {
        let only = |word: &str| names(&steps(1, false, &[word.to_owned()]));

        assert_eq!(only("sold-out"), ["1 version-200", "1 sold-out"]);
        assert_eq!(only("rate-3000-32-codes"), ["1 version-200", "1 rate-3000-of-4", "1 rate-3000-32-codes"]);
        assert_eq!(only("open-half"), ["1 version-200", "1 issue-1000", "1 open-half"]);
        assert_eq!(only("arrival-1000-k6"), ["0 arrival-1000-k6", "0 arrival-1000", "1 version-200"]);
        let strategies = only("pessimistic");
        assert!(strategies.contains(&"0 pessimistic-pool-2".to_owned()), "{strategies:?}");
        assert!(strategies.contains(&"1 issue-200".to_owned()), "{strategies:?}");
        assert!(!strategies.contains(&"1 redlock".to_owned()), "{strategies:?}");
    }
}
