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
    /// Nothing to do.
    pub idle: f64,
    /// Processes that belong neither to the cluster nor to the laboratory, and the kernel on its own account.
    pub others: f64,
    /// Taken away by the host.
    pub stolen: f64,
    /// Mean speed of the processors; 1 is the fastest that the laboratory had seen until then, see `speed`. `None`: nobody looked.
    pub speed: Option<f64>,
}

impl Quiet {
    /// Share of their speed that the processors did not have.
    fn slowness(&self) -> f64 {
        self.speed.map_or(0.0, |speed| 1.0 - speed)
    }
}

/// Everything that makes the figures doubtful, in words.
pub fn noise(machine: &Machine, samples: &[Sample]) -> Vec<String> {
    let mut found = Vec::new();
    if machine.load_before > LOAD_MAX {
        found.push(format!("the load average was {:.1} before the run began", machine.load_before));
    }
    let share = |part: fn(&Sample) -> f64| move |sample: &Sample| part(sample) / sample.quiet.all.max(f64::EPSILON);
    let mut look = |what: &str, of: &str, most: f64, share: &dyn Fn(&Sample) -> f64| {
        let loud: Vec<_> = samples.iter().filter(|sample| share(sample) > most).collect();
        if let Some(worst) = loud.iter().max_by(|a, b| share(a).total_cmp(&share(b))) {
            let (percent, loud, all) = (share(worst) * 100.0, loud.len(), samples.len());
            let Sample { scenario, repeat, .. } = worst;
            found.push(format!(
                "{what} up to {percent:.0} % {of} ({scenario}, repeat {repeat}); \
                 more than {:.0} % in {loud} of {all} measurements",
                most * 100.0
            ));
        }
    };
    look("other processes used", "of the processors", OTHERS_MAX, &share(|sample| sample.quiet.others));
    look("the host took away", "of the processors", STOLEN_MAX, &share(|sample| sample.quiet.stolen));
    look("the processors lost", "of their full speed", 1.0 - SPEED_MIN, &|sample| sample.quiet.slowness());
    found
}

/// Knobs that a person has set, in words: the budgets are for the defaults.
pub fn remark(knobs: &BTreeMap<String, String>) -> Option<String> {
    let set: Vec<String> = knobs.iter().map(|(name, value)| format!("{name}={value}")).collect();
    (!set.is_empty()).then(|| format!("the budgets are for the defaults, and this cluster ran with {}", set.join(" ")))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn machine(load_before: f64) -> Machine {
        Machine { load_before, ..Machine::describe(Path::new(".")) }
    }

    fn sample(others: f64, stolen: f64) -> Sample {
        let mut sample = Sample { scenario: "issue-200".to_owned(), repeat: 2, ..Sample::default() };
        (sample.quiet.all, sample.quiet.others, sample.quiet.stolen) = (8.0, others, stolen);
        sample
    }

    fn at_speed(speed: f64) -> Sample {
        let mut sample = sample(0.0, 0.0);
        sample.quiet.speed = Some(speed);
        sample
    }

    #[test]
    fn a_quiet_machine_is_not_complained_about() {
        assert_eq!(noise(&machine(0.2), &[sample(0.1, 0.0), at_speed(0.95), Sample::default()]), Vec::<String>::new());
    }

    #[test]
    fn every_kind_of_noise_is_named_with_its_worst_measurement() {
        let found = noise(&machine(3.0), &[sample(0.1, 0.0), sample(4.0, 0.4), at_speed(0.6)]);

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
