//! How fast the processors are meanwhile. Those of a virtual machine can be nearly half as fast for seconds at a time, as when
//! the host lets two of them share a core, and no counter of Linux tells: it is not stolen time. So the same small piece of work
//! is done fifty times a second, and its own processor time is looked at.

use std::hint::black_box;
use std::ops::Range;
use std::sync::{Arc, Weak};
use std::thread;
use std::time::Duration;

use anyhow::Context;
use parking_lot::Mutex;

use crate::processes::of_this_thread;

/// Time between two looks.
const PAUSE: Duration = Duration::from_millis(20);

/// Numbers that are written and read in a piece: 16 µs of a fast processor, so that looking costs 0.2 % of one.
const NUMBERS: u64 = 200;

/// One of so many looks is taken for full speed.
const FAST_PART: usize = 1_000;

/// Processors with a smaller share of their full speed were slowed by the host.
pub const SPEED_MIN: f64 = 0.9;

/// Looks at the processors' speed as long as it lives.
pub struct Gauge {
    /// Seconds that each look's piece took.
    looks: Arc<Mutex<Vec<f64>>>,
}

impl Gauge {
    pub fn start() -> anyhow::Result<Self> {
        let looks = Arc::default();
        let weak = Arc::downgrade(&looks);
        thread::Builder::new().name("gauge".to_owned()).spawn(move || watch(&weak)).context("cannot start a thread")?;
        Ok(Self { looks })
    }

    /// Marks this moment, to ask for the speed between two of them.
    pub fn mark(&self) -> usize {
        self.looks.lock().len()
    }

    /// Mean speed between two marks; 1 is what the fastest thousandth of all looks until now had. `None` without a look.
    pub fn between(&self, marks: Range<usize>) -> Option<f64> {
        mean_speed(&self.looks.lock(), marks)
    }
}

/// The mean of some of the looks. Not against the very fastest of many, which may be a single piece of luck; and not against a
/// larger part of them, as a host can be slow all the time but for moments.
fn mean_speed(looks: &[f64], of: Range<usize>) -> Option<f64> {
    let some = looks.get(of).filter(|some| !some.is_empty())?;
    let mut fast = looks.to_vec();
    let (_, full, _) = fast.select_nth_unstable_by(looks.len() / FAST_PART, f64::total_cmp);
    #[expect(clippy::cast_precision_loss, reason = "looks of some hours")]
    Some(some.iter().map(|seconds| *full / seconds).sum::<f64>() / some.len() as f64)
}

fn watch(looks: &Weak<Mutex<Vec<f64>>>) {
    while let Some(looks) = looks.upgrade() {
        // The first finds caches that others have filled.
        piece();
        let before = of_this_thread();
        piece();
        let took = of_this_thread() - before;
        if took > 0.0 {
            looks.lock().push(took);
        }
        drop(looks);
        thread::sleep(PAUSE);
    }
}

/// Work as programs have it, with branches, calls and memory: plain arithmetic hardly minds a core that is shared.
fn piece() {
    for number in 0..NUMBERS {
        let text = format!("{}:{number:x}", number * 7_919);
        let _ = black_box(text.split(':').next().map(str::parse::<u64>));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_speed_is_a_share_of_the_fastest_seen() {
        let looks = [1.0, 2.0, 2.0, 4.0];

        assert_eq!(mean_speed(&looks, 0..4), Some(0.5625));
        assert_eq!(mean_speed(&looks, 1..3), Some(0.5));
        assert_eq!(mean_speed(&looks, 4..4), None);
        assert_eq!(mean_speed(&[], 0..0), None);
    }

    #[test]
    fn one_lucky_look_does_not_make_all_others_slow() {
        let mut looks = vec![2.0; FAST_PART];
        looks.push(1.0);

        assert_eq!(mean_speed(&looks, 0..FAST_PART), Some(1.0));
    }

    #[test]
    fn a_gauge_looks_again_and_again() {
        let gauge = Gauge::start().unwrap();
        let speed = (0..10_000).find_map(|_| {
            thread::sleep(Duration::from_millis(1));
            gauge.between(0..gauge.mark())
        });

        assert!(speed.is_some_and(|speed| speed > 0.0 && speed <= 1.0), "{speed:?}");
    }
}
