//! What is measured, in which order, on which cluster. Pure.
//!
//! Rounds are interleaved: each measures everything once, so that a machine that becomes slower or faster meanwhile does
//! so to all of them. Within a round the order spares restarts.

use std::collections::BTreeMap;
use std::fmt::{self, Display, Formatter};

use crate::cluster::private::Knobs;
use crate::strategy::Strategy;

/// Replicas of the cluster that most is measured on.
pub const REPLICAS: u32 = 3;
/// The rate at which k6 and our loader are compared, per second.
pub const CROSS_CHECK_RATE: u32 = 1_000;
/// The rate at which replicas are compared, per second.
pub const RATE: f64 = 3_000.0;
/// `POOL_SIZE`s among which a strategy finds its best. `batched` has connections of its own and does not care.
pub const POOL_SIZES: [u32; 4] = [2, 4, 8, 16];
/// What `batched` runs with: the service's default.
pub const POOL_SIZE: u32 = 8;

/// The cluster that a run begins with.
pub fn start() -> Knobs {
    knobs(Strategy::Batched, REPLICAS, POOL_SIZE)
}

/// The cluster as a measurement needs it.
pub fn knobs(strategy: Strategy, replicas: u32, pool_size: u32) -> Knobs {
    let others = [("POOL_SIZE", pool_size.to_string()), ("EXPORTERS", "off".to_owned())];
    Knobs { strategy, replicas, others: others.map(|(name, value)| (name.to_owned(), value)).into() }
}

/// What a person's environment changes in every cluster of a run: `inherited`, without what the run sets by itself.
pub fn knobs_of_others(mut inherited: BTreeMap<String, String>) -> BTreeMap<String, String> {
    inherited.retain(|name, _| !start().others.contains_key(name));
    inherited
}

/// One kind of measurement.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Scenario {
    /// `GET /version` with so many connections.
    Version(usize),
    /// A POST of an issue's size that is refused without I/O.
    Refused,
    /// Issues of one code with so many connections.
    Issue(usize),
    /// Issues of 32 codes with 1,000 connections.
    Codes,
    /// Answers that all is gone.
    SoldOut,
    /// Answers that the user holds one.
    AlreadyIssued,
    /// Issues with one connection.
    Alone,
    /// Open model at the peak divided by this.
    Open(u32),
    /// Open model at [`RATE`] with so many replicas.
    Rate(u32),
    /// The same of 32 codes, with four replicas and 1,000 connections.
    RateOfCodes,
    /// How far later arrivals got ahead of earlier ones, four replicas.
    Jump,
    /// A strategy with 200 connections at one `POOL_SIZE`, to find its best.
    Probe(Strategy, u32),
    /// A strategy with 200 connections at its best `POOL_SIZE`.
    Best(Strategy),
    /// 10,000 users at once, by k6.
    Rush,
    /// Open model at 1,000/s, by k6.
    Arrival,
    /// The same by our own loader, to compare.
    CrossCheck,
}

/// One scenario in one round. What is measured once is in round 0.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Step {
    /// What.
    pub scenario: Scenario,
    /// From 1.
    pub round: u32,
}

impl Scenario {
    /// Strategy and replicas of the cluster that it needs.
    pub fn cluster(self) -> (Strategy, u32) {
        match self {
            Self::Rate(replicas) => (Strategy::Batched, replicas),
            Self::RateOfCodes | Self::Jump => (Strategy::Batched, 4),
            Self::Probe(strategy, _) | Self::Best(strategy) => (strategy, REPLICAS),
            _ => (Strategy::Batched, REPLICAS),
        }
    }

    /// What it measures is issues by a strategy that may refuse with 503, and that the budgets ask nothing of.
    pub fn is_strategy(self) -> bool {
        matches!(self, Self::Probe(..) | Self::Best(_))
    }

    /// Whether it is made again when the host slowed the processors down meanwhile. Not what needs k6 and a minute for a count of
    /// failures, and not what only finds a pool size.
    pub fn can_repeat(self) -> bool {
        !matches!(self, Self::Rush | Self::Arrival | Self::Probe(..))
    }

    /// Seconds that it takes with everything around it, as seen on two cores; only the time left is guessed from it.
    pub fn estimate(self) -> f64 {
        match self {
            Self::Version(_) | Self::Refused => 4.5,
            Self::Issue(_)
            | Self::Codes
            | Self::Open(_)
            | Self::Rate(_)
            | Self::RateOfCodes
            | Self::Jump
            | Self::CrossCheck => 8.0,
            Self::SoldOut | Self::AlreadyIssued => 8.5,
            Self::Alone => 5.0,
            Self::Probe(..) => 6.0,
            Self::Best(_) => 9.0,
            Self::Rush => 60.0,
            Self::Arrival => 25.0,
        }
    }
}

/// Its name in `bench.json` and for `--only`.
impl Display for Scenario {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Version(connections) => write!(f, "version-{connections}"),
            Self::Refused => f.write_str("refused-200"),
            Self::Issue(connections) => write!(f, "issue-{connections}"),
            Self::Codes => f.write_str("issue-32-codes"),
            Self::SoldOut => f.write_str("sold-out"),
            Self::AlreadyIssued => f.write_str("already-issued"),
            Self::Alone => f.write_str("alone"),
            Self::Open(3) => f.write_str("open-third"),
            Self::Open(2) => f.write_str("open-half"),
            Self::Open(share) => write!(f, "open-{share}"),
            Self::Rate(replicas) => write!(f, "rate-3000-of-{replicas}"),
            Self::RateOfCodes => f.write_str("rate-3000-32-codes"),
            Self::Jump => f.write_str("jump"),
            Self::Probe(strategy, pool) => write!(f, "{strategy}-pool-{pool}"),
            Self::Best(strategy) => f.write_str(strategy.name()),
            Self::Rush => f.write_str("rush"),
            Self::Arrival => f.write_str("arrival-1000-k6"),
            Self::CrossCheck => f.write_str("arrival-1000"),
        }
    }
}

/// The yardsticks and `batched`.
const QUICK: [Scenario; 6] = [
    Scenario::Version(200),
    Scenario::Issue(200),
    Scenario::Version(1_000),
    Scenario::Issue(1_000),
    Scenario::Refused,
    Scenario::Alone,
];

/// What else `batched` is asked on three replicas. The shares of the peak come after the peak.
const MORE: [Scenario; 5] =
    [Scenario::Codes, Scenario::SoldOut, Scenario::AlreadyIssued, Scenario::Open(3), Scenario::Open(2)];

const SCALES: [Scenario; 6] =
    [Scenario::Rate(1), Scenario::Rate(2), Scenario::Rate(4), Scenario::RateOfCodes, Scenario::Jump, Scenario::Rate(8)];

/// All steps in order: k6 first, on replicas that nothing has fattened yet, then the probes, then the rounds. `only`
/// keeps the scenarios whose name begins with one of its words, and what those are measured against.
pub fn steps(rounds: u32, quick: bool, only: &[String]) -> Vec<Step> {
    let others = || Strategy::ALL.into_iter().filter(|strategy| *strategy != Strategy::Batched);
    let mut once = vec![Scenario::Rush, Scenario::Arrival, Scenario::CrossCheck];
    once.extend(others().flat_map(|strategy| POOL_SIZES.map(|pool| Scenario::Probe(strategy, pool))));
    let mut each = QUICK.to_vec();
    if quick {
        once.clear();
    } else {
        each.extend(MORE);
        each.extend(SCALES);
        each.extend(others().map(Scenario::Best));
    }
    let is_wanted = |scenario: &Scenario| only.is_empty() || wanted(*scenario, only);
    once.retain(is_wanted);
    each.retain(is_wanted);
    let rounds = (1..=rounds).flat_map(|round| each.iter().map(move |scenario| (*scenario, round)));
    once.iter().map(|scenario| (*scenario, 0)).chain(rounds).map(|(scenario, round)| Step { scenario, round }).collect()
}

/// The first word of `only` that no scenario's name begins with, and all names there are.
pub fn unknown(quick: bool, only: &[String]) -> Option<(&str, Vec<String>)> {
    let mut names: Vec<String> = steps(1, quick, &[]).iter().map(|step| step.scenario.to_string()).collect();
    names.dedup();
    let word = only.iter().find(|word| !names.iter().any(|name| name.starts_with(word.as_str())))?;
    Some((word, names))
}

fn wanted(scenario: Scenario, only: &[String]) -> bool {
    let name = scenario.to_string();
    let named = |name: &str| only.iter().any(|word| name.starts_with(word.as_str()));
    named(&name)
        || match scenario {
            // Everything is told as a ratio to this.
            Scenario::Version(200) => true,
            Scenario::Version(1_000) => named("issue-1000") || named("issue-32-codes"),
            // The peak that shares are taken of; and what 32 codes are compared with.
            Scenario::Issue(1_000) => named("open-third") || named("open-half") || named("issue-32-codes"),
            Scenario::Rate(4) => named("rate-3000-32-codes"),
            Scenario::Issue(200) => named("pessimistic"),
            Scenario::Probe(strategy, _) => named(strategy.name()),
            _ => false,
        }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(steps: &[Step]) -> Vec<String> {
        steps.iter().map(|step| format!("{} {}", step.round, step.scenario)).collect()
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
    fn rounds_are_interleaved() {
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
        let strategies = only("pessimistic");
        assert!(strategies.contains(&"0 pessimistic-pool-2".to_owned()), "{strategies:?}");
        assert!(strategies.contains(&"1 issue-200".to_owned()), "{strategies:?}");
        assert!(!strategies.contains(&"1 redlock".to_owned()), "{strategies:?}");
    }
}
