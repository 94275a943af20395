//! Whether the machine was left alone while it was measured, and the cluster as the budgets mean it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::sample::Sample;
use super::speed::SPEED_MIN;
use crate::machine::Machine;

/// A machine with more than this to do before anything is measured is not quiet.
const LOAD_MAX: f64 = 0.5;
/// Shares of the processors that others may use, and that the host may take away, during one measurement.
const OTHERS_MAX: f64 = 0.05;
const STOLEN_MAX: f64 = 0.01;

/// How quiet the machine was: processor seconds of everything that was not measured, and the processors' speed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Quiet {
    /// All processors together, over the measurement.
    pub all: f64,
    pub idle: f64,
    /// Processes that belong neither to the cluster nor to the laboratory, and the kernel on its own account.
    pub others: f64,
    /// Taken away by the host.
    pub stolen: f64,
    /// Mean speed of the processors; 1 is the fastest that the laboratory had seen until then, see `speed`. `None`: nobody looked.
    pub speed: Option<f64>,
}

/// What others did, to what, how much of it is too much, and how much it was.
type Look = (&'static str, &'static str, f64, fn(&Quiet) -> f64);

/// Everything that makes the figures doubtful, in words.
pub fn noise(machine: &Machine, samples: &[Sample]) -> Vec<String> {
    let mut found = Vec::new();
    if machine.load_before > LOAD_MAX {
        found.push(format!("the load average was {:.1} before the run began", machine.load_before));
    }
    let looks: [Look; 3] = [
        ("other processes used", "of the processors", OTHERS_MAX, |it| it.others / it.all.max(f64::EPSILON)),
        ("the host took away", "of the processors", STOLEN_MAX, |it| it.stolen / it.all.max(f64::EPSILON)),
        ("the processors lost", "of their full speed", 1.0 - SPEED_MIN, |it| 1.0 - it.speed.unwrap_or(1.0)),
    ];
    for (what, of, most, share) in looks {
        let loud: Vec<_> = samples.iter().filter(|it| share(&it.quiet) > most).collect();
        let worst = loud.iter().max_by(|one, other| share(&one.quiet).total_cmp(&share(&other.quiet)));
        let Some(Sample { scenario, repeat, quiet, .. }) = worst else { continue };
        found.push(format!(
            "{what} up to {:.0} % {of} ({scenario}, repeat {repeat}); more than {:.0} % in {} of {} measurements",
            share(quiet) * 100.0,
            most * 100.0,
            loud.len(),
            samples.len()
        ));
    }
    found
}

/// Knobs that a person has set, in words: the budgets are for the defaults.
pub fn remark(knobs: &BTreeMap<String, String>) -> Option<String> {
    let set: Vec<String> = knobs.iter().map(|(name, value)| format!("{name}={value}")).collect();
    (!set.is_empty()).then(|| format!("the budgets are for the defaults, and this cluster ran with {}", set.join(" ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn noise_of<const N: usize>(load_before: f64, found: [(f64, f64, Option<f64>); N]) -> Vec<String> {
        let samples = found.map(|(others, stolen, speed)| Sample {
            scenario: "issue-200".to_owned(),
            quiet: Quiet { all: 8.0, others, stolen, speed, ..Quiet::default() },
            ..Sample::default()
        });
        noise(&Machine { load_before, ..Machine::default() }, &samples)
    }

    #[test]
    fn every_kind_of_noise_is_named_with_its_worst_measurement_and_a_quiet_machine_is_not_complained_about() {
        assert_eq!(noise_of(0.2, [(0.1, 0.0, None), (0.0, 0.0, Some(0.95))]), Vec::<String>::new());

        let found = noise_of(3.0, [(0.1, 0.0, None), (4.0, 0.4, None), (0.0, 0.0, Some(0.6))]);
        assert_eq!(found.len(), 4, "{found:?}");
        assert!(found[0].contains("3.0"), "{found:?}");
        assert!(found[1].contains("up to 50 %") && found[1].contains("in 1 of 3 measurements"), "{found:?}");
        assert!(found[2].contains("took away up to 5 % of the processors "), "{found:?}");
        assert!(found[3].contains("the processors lost up to 40 % of their full speed"), "{found:?}");
    }

    #[test]
    fn a_knob_that_a_person_set_is_named() {
        let knobs = [("LOCK_TTL_MS", "500"), ("THREADS", "1")].map(|(name, value)| (name.to_owned(), value.to_owned()));

        assert!(remark(&knobs.into()).unwrap().ends_with(" ran with LOCK_TTL_MS=500 THREADS=1"));
        assert_eq!(remark(&BTreeMap::new()), None);
    }
}
