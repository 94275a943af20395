//! How often the same work is run: the same order, or the same batch.

use std::time::Duration;

use tokio::time::Instant;

use super::Parts;
use crate::metrics::Rerun;
use crate::store::StoreError;

/// Runs before giving up on contention or an unknown outcome.
pub(super) const RUNS_MAX: u32 = 3;

/// The pause after a run is at random up to this, times the number of runs so far.
const PAUSE: Duration = Duration::from_millis(5);

/// From this run on the pause grows no more.
const PAUSE_GROWS_UNTIL: u32 = 10;

/// The runs of some work.
pub(super) struct Runs {
    made: u32,
    /// So many more may be made.
    left: u32,
    /// When the last caller stops waiting, and none begins any more. While the primary of the database is looked for, this is the only bound.
    due: Instant,
    /// When the first of them began that was not in vain for want of a primary.
    began: Instant,
}

impl Runs {
    pub(super) fn new(most: u32, due: Instant) -> Self {
        Self { made: 0, left: most, due, began: Instant::now() }
    }

    /// How long the work took. The search for another primary is no part of it, and says nothing about the next work.
    pub(super) fn took(&self) -> Duration {
        self.began.elapsed()
    }

    /// Whether one may begin.
    pub(super) fn is_left(&self) -> bool {
        self.left > 0 && self.is_awaited()
    }

    fn is_awaited(&self) -> bool {
        Instant::now() < self.due
    }

    /// Counts one that came to nothing, after which another one may help.
    pub(super) fn missed(&mut self) {
        self.left -= 1;
    }

    /// Waits a little, longer and with more jitter after every run.
    pub(super) async fn pause(&mut self) {
        self.made += 1;
        let most = PAUSE * self.made.min(PAUSE_GROWS_UNTIL);
        tokio::time::sleep(most.mul_f64(fastrand::f64())).await;
    }
}

impl<D, L> Parts<D, L> {
    /// Counts an error after which the same work may be run again. Returns any other error, and every error of the last run, after which
    /// none is left or no caller waits.
    ///
    /// That no connection was made in time, or that a member is lost of which another one may take the place, is no reason to give up as
    /// long as a caller waits.
    pub(super) fn may_run_again(&self, error: StoreError, runs: &mut Runs) -> Result<(), StoreError> {
        let reason = match error {
            StoreError::Contended(_) => Rerun::Contended,
            StoreError::Duplicate(_) => Rerun::Duplicate,
            StoreError::Unknown(_) => Rerun::Unknown,
            StoreError::NotPrimary(_) => Rerun::Moved,
            StoreError::Rejected(_) | StoreError::NoEvent | StoreError::Unavailable(_) => return Err(error),
        };
        if reason == Rerun::Unknown {
            self.issue.unknown_outcome();
        }
        let seeks_primary = reason == Rerun::Moved || self.has_several_members && reason == Rerun::Unknown;
        let is_left = seeks_primary || runs.left > 1;
        if !(is_left && runs.is_awaited()) {
            return Err(error);
        }
        if seeks_primary {
            runs.began = Instant::now();
        } else {
            runs.missed();
        }
        tracing::debug!(error = &error as &dyn std::error::Error, "running it again");
        self.issue.rerun(reason);
        Ok(())
    }
}
