//! What is measured, in which order, on which cluster. Pure.
//!
//! Repeats are interleaved: each measures everything once, so that a machine that becomes slower or faster meanwhile does so to all
//! of them. Within a repeat the order spares restarts.

use std::time::Duration;

use anyhow::ensure;
use clap::ValueEnum;

use super::budgets;
use crate::chaos::fault::Fault;
use crate::cluster::private::{BALANCE, DISTANCE_MS, Knobs, MEMBERS};
use crate::load::{Pace, Requests, Users};
use crate::measure::{Contests, FEW, MANY, Scenario, Stock, WARM_UP, holders, issues, plenty};
use crate::strategy::Strategy;

/// Replicas of the cluster that most is measured on.
const REPLICAS: u32 = 3;
/// The rate at which replicas are compared, per second.
const RATE: u32 = 3_000;
/// The rate at which k6 and our loader are compared, per second, and for how long.
pub const CROSS_CHECK: (u32, Duration) = (1_000, Duration::from_secs(10));
/// `POOL_SIZE`s among which a strategy finds its best, with both balances. `batched` has connections of its own and does not care.
const POOL_SIZES: [u32; 4] = [2, 4, 8, 16];
/// What `batched` runs with: the service's default.
const POOL_SIZE: u32 = 8;
/// The knob, which a run sets by itself.
pub const POOL: &str = "POOL_SIZE";

/// Connections of what is no question of connections.
const CONNECTIONS: usize = 200;

const SHORT: [Duration; 2] = [WARM_UP, Duration::from_secs(3)];
/// Until a group has another primary, and then some.
const FAILOVER: [Duration; 2] = [WARM_UP, Duration::from_secs(20)];
/// Orders a second meanwhile: far below what a group can do.
const FAILOVER_RATE: f64 = 300.0;

/// Where a percentile needs more requests, or a strategy issues few.
const LONG: [Duration; 2] = [WARM_UP, Duration::from_secs(4)];
/// To find the cluster that is best for a strategy.
const PROBE: [Duration; 2] = [WARM_UP, Duration::from_millis(1_500)];

const GONE: &str = "GONE";
const GONE_PIECES: u32 = 10_000;

const CONTESTS: Contests = Contests { coupons: 200, pieces: 20, over: 2, rate: RATE };

/// How long one takes with everything around it, beside its load: as seen on two cores. Only the time left is guessed from it.
const AROUND: f64 = 3.0;
const BY_K6: f64 = 40.0;

#[derive(Clone, Debug)]
pub struct Item {
    /// In `bench.json` and for `--only`.
    pub name: String,
    pub knobs: Knobs,
    pub what: What,
    /// From 1. What is measured once is in repeat 0.
    pub repeat: u32,
}

#[derive(Clone, Debug)]
pub enum What {
    Load(Scenario),
    /// In an open model, at the highest rate of issues in the same repeat, divided by this.
    OfPeak(f64, Scenario),
    /// A strategy, on the cluster that its probes found best.
    Best(Scenario),
    /// While this breaks, or with nothing broken.
    Struck(Fault, Scenario),
    Rush,
    /// The cross-check, by k6.
    Arrival,
}

impl Item {
    /// On the cluster that most is measured on.
    fn new(name: impl Into<String>, what: What) -> Self {
        Self { name: name.into(), knobs: batched(REPLICAS), what, repeat: 0 }
    }

    fn load(name: impl Into<String>, scenario: Scenario) -> Self {
        Self::new(name, What::Load(scenario))
    }

    fn on(self, knobs: Knobs) -> Self {
        Self { knobs, ..self }
    }

    /// What is asked, where our loader asks it.
    pub fn scenario(&self) -> Option<&Scenario> {
        match &self.what {
            What::Load(scenario) | What::OfPeak(_, scenario) | What::Best(scenario) | What::Struck(_, scenario) => {
                Some(scenario)
            }
            What::Rush | What::Arrival => None,
        }
    }

    /// Names of what its figures are told against.
    fn needs(&self) -> Vec<&'static str> {
        match self.what {
            What::OfPeak(..) => vec!["issue-1000"],
            // The other way round, all the probes would come with it.
            What::Best(_) => vec!["issue-200"],
            _ => budgets::divisors(&self.name).filter(|name| *name != "pessimistic").collect(),
        }
    }

    /// Seconds that it is guessed to take.
    pub fn estimate(&self) -> f64 {
        self.scenario().map_or(BY_K6, |it| (it.warm_up + it.time).as_secs_f64() + AROUND)
    }
}

/// What the names of a strategy's probes begin with.
pub fn probe(strategy: Strategy) -> String {
    format!("{strategy}-pool-")
}

fn knobs(strategy: Strategy, replicas: u32, pool_size: u32) -> Knobs {
    Knobs::new(strategy, replicas).with(POOL, pool_size)
}

fn batched(replicas: u32) -> Knobs {
    knobs(Strategy::Batched, replicas, POOL_SIZE)
}

/// Every order to the least busy replica.
fn scattered(knobs: Knobs) -> Knobs {
    knobs.with(BALANCE, "scattered")
}

/// A round trip of a millisecond between replicas and servers.
fn far(knobs: Knobs) -> Knobs {
    knobs.with(DISTANCE_MS, 1)
}

fn hot(connections: usize, pace: Pace, times: [Duration; 2]) -> Scenario {
    Scenario::issues(plenty(1), connections, pace, times)
}

/// As many codes as metrics name one by one. Many connections, for a fixed rate, too: few would leave no batches to speak of.
fn shared(pace: Pace) -> Scenario {
    Scenario::issues(plenty(32), MANY, pace, LONG)
}

/// Issues as long as any, by users whose names every replica refuses before it does anything: they have a space in them.
fn refused() -> Requests {
    Requests::Issue { codes: vec!["A001".to_owned()], users: Users::new("us er"), key: "refused".to_owned() }
}

fn trivial(connections: usize) -> Scenario {
    asked(Stock::Untouched, Requests::Get { path: "/version".to_owned() }, connections, 200)
}

/// What is asked when all is gone, and answered with this.
fn gone(requests: Requests, status: u16) -> Scenario {
    asked(Stock::Gone(GONE.to_owned(), GONE_PIECES), requests, CONNECTIONS, status)
}

fn asked(stock: Stock, requests: Requests, connections: usize, status: u16) -> Scenario {
    Scenario { stock, requests, expect: vec![status], ..hot(connections, Pace::Closed, SHORT) }
}

/// Issues by a strategy that may refuse when it cannot keep up; its rate is that of its issues.
fn refusing(times: [Duration; 2]) -> Scenario {
    Scenario { tolerate: vec![503], ..hot(CONNECTIONS, Pace::Closed, times) }
}

/// Measured once: k6 first, on replicas that nothing has fattened yet, then the probes.
fn once() -> Vec<Item> {
    let (rate, time) = CROSS_CHECK;
    let ours = hot(CONNECTIONS, Pace::Open(rate.into()), [WARM_UP, time]);
    let mut items = vec![
        Item::new("rush", What::Rush),
        Item::new("rush-of-8", What::Rush).on(batched(8)),
        Item::new("arrival-1000-k6", What::Arrival),
        Item::load("arrival-1000", ours),
    ];
    for strategy in others() {
        for size in POOL_SIZES {
            for balance in ["home", "scattered"] {
                let knobs = knobs(strategy, REPLICAS, size).with(BALANCE, balance);
                items.push(Item::load(format!("{}{size}-{balance}", probe(strategy)), refusing(PROBE)).on(knobs));
            }
        }
    }
    items
}

fn others() -> impl Iterator<Item = Strategy> {
    Strategy::value_variants().iter().copied().filter(|strategy| *strategy != Strategy::Batched)
}

/// The yardsticks and `batched`.
fn quick() -> Vec<Item> {
    vec![
        Item::load("version-200", trivial(CONNECTIONS)),
        Item::load("issue-200", hot(CONNECTIONS, Pace::Closed, LONG)),
        Item::load("version-1000", trivial(MANY)),
        Item::load("issue-1000", hot(MANY, Pace::Closed, LONG)),
        Item::load("refused-200", asked(Stock::Untouched, refused(), CONNECTIONS, 422)),
        Item::load("alone", hot(1, Pace::Closed, SHORT)),
    ]
}

/// What else is measured in every repeat. The shares of the peak come after the peak.
fn more() -> Vec<Item> {
    let open = Pace::Open(RATE.into());
    let of_peak = |share| What::OfPeak(share, hot(MANY, Pace::Closed, LONG));
    let held = Requests::Issue { codes: vec![GONE.to_owned()], users: holders(GONE_PIECES), key: "again".to_owned() };
    let rate =
        |replicas| Item::load(format!("rate-3000-of-{replicas}"), hot(CONNECTIONS, open, LONG)).on(batched(replicas));
    let issue = |name, connections, knobs| Item::load(name, hot(connections, Pace::Closed, LONG)).on(knobs);
    let mut items = vec![
        Item::load("sold-out", gone(issues(vec![GONE.to_owned()]), 410)),
        Item::load("already-issued", gone(held, 409)),
        Item::new("open-third", of_peak(3.0)),
        Item::new("open-half", of_peak(2.0)),
        rate(1),
        rate(2),
        rate(4),
        Item::load("rate-3000-32-codes", shared(open)).on(batched(4)),
        issue("issue-1000-of-4", MANY, batched(4)),
        Item::load("issue-32-codes", shared(Pace::Closed)).on(batched(4)),
        Item::load("jump-of-4", CONTESTS.scenario(CONNECTIONS, WARM_UP)).on(batched(4)),
        rate(8),
        Item::load("jump-of-8", CONTESTS.scenario(CONNECTIONS, WARM_UP)).on(batched(8)),
        issue("issue-64-of-8", FEW, batched(8)),
        issue("issue-200-of-8", CONNECTIONS, batched(8)),
        issue("issue-1000-of-8", MANY, batched(8)),
        issue("scattered-64-of-8", FEW, scattered(batched(8))),
        issue("far-scattered-64-of-8", FEW, far(scattered(batched(8)))),
        issue("far-64-of-8", FEW, far(batched(8))),
        issue("far-200-of-8", CONNECTIONS, far(batched(8))),
        issue("far-200-of-1", CONNECTIONS, far(batched(1))),
        issue("issue-64-of-1", FEW, batched(1)),
        issue("issue-200-of-1", CONNECTIONS, batched(1)),
        issue("issue-1000-of-1", MANY, batched(1)),
    ];
    let best = |strategy: Strategy| {
        Item::new(strategy.to_string(), What::Best(refusing(LONG))).on(knobs(strategy, REPLICAS, POOL_SIZE))
    };
    items.extend(others().map(best));
    items
}

/// A database of three members. It comes last, because it takes a cluster of its own.
fn group() -> Vec<Item> {
    let struck = |name, fault| {
        let load = Scenario { tolerate: vec![503], ..hot(CONNECTIONS, Pace::Open(FAILOVER_RATE), FAILOVER) };
        Item::new(name, What::Struck(fault, load))
    };
    let mut items = vec![
        Item::load("group-200", hot(CONNECTIONS, Pace::Closed, LONG)),
        Item::load("group-alone", hot(1, Pace::Closed, SHORT)),
        struck("group-undisturbed", Fault::Nothing),
        struck("group-switched", Fault::PrimarySwitched),
        struck("group-secondary-killed", Fault::SecondaryKilled),
        struck("group-primary-killed", Fault::PrimaryKilled),
    ];
    for item in &mut items {
        item.knobs = batched(REPLICAS).with(MEMBERS, 3);
    }
    items
}

/// All in order. `only` keeps the items whose name begins with one of its words, and what those are measured against; a word
/// that names nothing is an error.
pub fn items(repeats: u32, is_quick: bool, only: &[String]) -> anyhow::Result<Vec<Item>> {
    let (mut items, mut each) =
        if is_quick { (Vec::new(), quick()) } else { (once(), [quick(), more(), group()].concat()) };
    let all = || items.iter().chain(&each);
    for word in only {
        let names: Vec<_> = all().map(|it| it.name.as_str()).collect();
        let is_one = names.iter().any(|name| name.starts_with(word));
        ensure!(is_one, "--only {word}: no measurement's name begins with that; there are {}", names.join(", "));
    }
    let is_named = |it: &Item| only.is_empty() || only.iter().any(|word| it.name.starts_with(word));
    let needed: Vec<&str> = all().filter(|it| is_named(it)).flat_map(Item::needs).collect();
    // Everything is told as a ratio to the first.
    let is_wanted = |it: &Item| is_named(it) || it.name == "version-200" || needed.contains(&it.name.as_str());
    items.retain(is_wanted);
    each.retain(is_wanted);
    for repeat in 1..=repeats {
        items.extend(each.iter().map(|item| Item { repeat, ..item.clone() }));
    }
    Ok(items)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<String> {
        text.split_whitespace().map(str::to_owned).collect()
    }

    fn names(repeats: u32, is_quick: bool, only: &str) -> Vec<String> {
        let items = items(repeats, is_quick, &words(only)).unwrap();
        items.iter().map(|item| format!("{}:{}", item.repeat, item.name)).collect()
    }

    #[test]
    fn repeats_are_interleaved_and_what_needs_a_figure_comes_after_it() {
        let (quick, all) = (names(2, true, ""), names(1, false, ""));
        let place = |name: &str| all.iter().position(|it| it == name).unwrap();

        assert_eq!((quick.len(), quick[5].as_str(), quick[6].as_str()), (12, "1:alone", "2:version-200"));
        assert!(place("1:issue-1000") < place("1:open-third"));
        assert!(place("0:pessimistic-pool-16-home") < place("1:pessimistic"));
        assert_eq!(all[0], "0:rush");
    }

    #[test]
    fn a_word_that_names_nothing_is_found_among_others() {
        assert!(items(1, false, &words("sold-out rate-3000-of-8 issue")).is_ok());
        for (is_quick, word) in [(true, "sold-out"), (false, "nonsense")] {
            let refusal = items(1, is_quick, &words("alone sold-out nonsense")).unwrap_err().to_string();
            assert!(refusal.starts_with(&format!("--only {word}:")) && refusal.contains("refused-200"), "{refusal}");
        }
    }

    #[test]
    fn only_keeps_what_a_figure_is_measured_against() {
        let only = |word| names(1, false, word);

        assert_eq!(only("sold-out"), words("1:version-200 1:sold-out"));
        assert_eq!(only("rate-3000-32-codes"), words("1:version-200 1:rate-3000-of-4 1:rate-3000-32-codes"));
        assert_eq!(only("open-half"), words("1:version-200 1:issue-1000 1:open-half"));
        assert_eq!(only("arrival-1000-k6"), words("0:arrival-1000-k6 0:arrival-1000 1:version-200"));
        let mut pessimistic = only("pessimistic");
        assert_eq!(pessimistic.split_off(8), words("1:version-200 1:issue-200 1:pessimistic"));
        assert_eq!(pessimistic[..2], words("0:pessimistic-pool-2-home 0:pessimistic-pool-2-scattered"));
    }
}
