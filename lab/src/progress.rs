//! How far a run is, and how long it will take.

use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

const TEMPLATE: &str = "{bar:30} {prefix} {wide_msg}";

/// A line a step, and on a terminal a bar below them.
pub struct Progress {
    bar: ProgressBar,
    started: Instant,
    /// Seconds that the steps were guessed to take: all of them, and those that are done.
    guessed: f64,
    done: f64,
}

impl Progress {
    /// Nothing is done yet of so many steps, which are guessed to take so many seconds together.
    pub fn new(steps: usize, guessed: f64) -> Self {
        let style = ProgressStyle::with_template(TEMPLATE).expect("the template is valid");
        let bar = ProgressBar::new(steps as u64).with_style(style);
        Self { bar, started: Instant::now(), guessed, done: 0.0 }
    }

    /// A step of this name begins.
    pub fn begins(&mut self, step: &str) {
        self.bar.set_prefix(format!("{} left", self.left()));
        self.bar.set_message(step.to_owned());
    }

    /// Something about the step that goes on.
    pub fn says(&self, what: &str) {
        self.bar.suspend(|| eprintln!("{what}"));
    }

    /// A step that was guessed to take so many seconds has ended like this.
    pub fn ended(&mut self, guessed: f64, what: &str) {
        self.done += guessed;
        self.bar.inc(1);
        let (place, all) = (self.bar.position(), self.bar.length().unwrap_or(0));
        self.says(&format!("[{place}/{all}, {} left] {what}", self.left()));
    }

    fn left(&self) -> String {
        minutes(left(self.started.elapsed(), self.done, self.guessed))
    }
}

/// The guess for what is left, corrected by how wrong it was until now.
fn left(elapsed: Duration, done: f64, guessed: f64) -> Duration {
    let slowness = if done > 0.0 { elapsed.as_secs_f64() / done } else { 1.0 };
    Duration::from_secs_f64(((guessed - done) * slowness).max(0.0))
}

/// As in 2:05.
pub fn minutes(time: Duration) -> String {
    let seconds = time.as_secs();
    format!("{}:{:02}", seconds / 60, seconds % 60)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_follows_how_fast_it_went_so_far() {
        assert_eq!(left(Duration::ZERO, 0.0, 100.0), Duration::from_secs(100));
        assert_eq!(left(Duration::from_secs(20), 10.0, 100.0), Duration::from_mins(3));
        assert_eq!(left(Duration::from_secs(200), 100.0, 100.0), Duration::ZERO);
        assert_eq!(minutes(Duration::from_secs(125)), "2:05");
    }
}
