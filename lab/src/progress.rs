//! How far a run is, and how long it will take.

use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

use crate::say;

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

    pub fn begins(&mut self, step: &str) {
        self.bar.set_prefix(format!("{} left", self.left()));
        self.bar.set_message(step.to_owned());
    }

    /// A step that was guessed to take so many seconds has ended like this.
    pub fn ended(&mut self, guessed: f64, what: &str) {
        self.done += guessed;
        self.bar.inc(1);
        let (place, all) = (self.bar.position(), self.bar.length().unwrap_or(0));
        self.bar.suspend(|| say::aside(format_args!("[{place}/{all}, {} left] {what}", self.left())));
    }

    /// The guess for what is left, corrected by how wrong it was until now.
    fn left(&self) -> String {
        let slowness = if self.done > 0.0 { self.started.elapsed().as_secs_f64() / self.done } else { 1.0 };
        minutes(Duration::from_secs_f64(((self.guessed - self.done) * slowness).max(0.0)))
    }
}

/// As in 2:05.
pub fn minutes(time: Duration) -> String {
    let seconds = time.as_secs();
    format!("{}:{:02}", seconds / 60, seconds % 60)
}
