//! A measurement that is made again when the host slowed the processors down meanwhile.

use super::measure::measure;
use super::plan::Step;
use super::sample::Sample;
use crate::progress::Progress;
use crate::stage::Stage;

/// How often at most, at least once.
#[derive(Clone, Copy, Debug)]
pub struct Tries(pub u32);

impl Tries {
    /// Measures a step once, and again while it is wanted: the try that counts, and the others. What could not be measured at all
    /// is a sample without a figure.
    pub async fn measure(
        self,
        stage: &mut Stage,
        step: Step,
        peak: Option<f64>,
        progress: &Progress,
    ) -> (Sample, Vec<Sample>) {
        let most = if step.scenario.can_repeat() { self.0 } else { 1 };
        let mut made = Vec::new();
        while is_wanted(&made, most) {
            if let Some(Sample { quiet, .. }) = made.last() {
                let speed = 100.0 - quiet.slowness() * 100.0;
                progress.says(&format!("round {}: {}: again, at {speed:.0} % speed", step.round, step.scenario));
            }
            let sample = measure(stage, step, peak).await;
            made.push(sample.unwrap_or_else(|error| failed(step, &error)));
        }
        (made.swap_remove(counting(&made)), made)
    }
}

/// Whether a first try is missing, or one more because the host slowed the last one down. A broken promise is final.
fn is_wanted(made: &[Sample], most: u32) -> bool {
    let is_slowed = |last: &Sample| last.broken.is_none() && last.quiet.is_slowed();
    made.last().is_none_or(is_slowed) && made.len() < most as usize
}

/// The place of the try that counts: the one that is final, or else whose processors were fastest. What it measured has no say.
fn counting(made: &[Sample]) -> usize {
    let slowness = |place: &usize| if made[*place].broken.is_some() { -1.0 } else { made[*place].quiet.slowness() };
    (0..made.len()).min_by(|one, other| slowness(one).total_cmp(&slowness(other))).unwrap_or(0)
}

fn failed(step: Step, error: &anyhow::Error) -> Sample {
    let broken = Some(format!("{error:#}"));
    Sample { scenario: step.scenario.to_string(), round: step.round, broken, ..Sample::default() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at_speed(speed: f64) -> Sample {
        let mut sample = Sample::default();
        sample.quiet.speed = Some(speed);
        sample
    }

    #[test]
    fn a_slowed_measurement_is_made_again_until_it_was_not_or_it_was_tried_often_enough() {
        assert!(is_wanted(&[], 3));
        assert!(is_wanted(&[at_speed(0.6)], 3));
        assert!(!is_wanted(&[at_speed(0.6), at_speed(0.95)], 3));
        assert!(!is_wanted(&[at_speed(0.6), at_speed(0.7), at_speed(0.6)], 3));
        assert!(!is_wanted(&[Sample::default()], 3), "nobody looked");
    }

    #[test]
    fn the_fastest_processors_count_but_a_broken_promise_counts_before_them() {
        let broken = Sample { broken: Some("oversold".to_owned()), ..at_speed(0.5) };

        assert_eq!(counting(&[at_speed(0.6), at_speed(0.8), at_speed(0.7)]), 1);
        assert_eq!(counting(&[at_speed(0.6), broken.clone()]), 1);
        assert!(!is_wanted(&[broken], 3));
    }
}
