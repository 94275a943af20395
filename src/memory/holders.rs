//! Who holds something in the scopes of which nothing can be had any more. They are read once in a generation, beside the looks
//! at the rest, because that may take long.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::Source;
use crate::coupons::{Entry, UserId};
use crate::store::Catalogue;

/// Most holders remembered, about 200 bytes each. Beyond that an indexed read answers.
const MOST: u64 = 100_000;

/// How long a look waits for holders that are not known. Read in time, they are there as soon as memory says "sold out"; a look
/// that waited for longer would be old itself.
const LEAD: Duration = Duration::from_millis(100);

/// The users who hold something in one scope. Complete, because nothing of the scope can be had in this generation.
pub(super) type ByUser = HashMap<UserId, Entry>;

/// The holders of all exhausted scopes, as far as they have been read.
#[derive(Default)]
pub(super) struct Holders {
    state: Mutex<State>,
    /// There is something to be read.
    missing: Notify,
    /// A read has ended.
    ended: Notify,
}

/// What is known in one generation and round.
#[derive(Default)]
struct State {
    of: (u64, u32),
    complete: HashMap<u16, Arc<ByUser>>,
    /// Scopes to be read, in the order of their turns.
    missing: Vec<u16>,
}

impl Holders {
    /// What is known by scope in the catalogue's generation, after a short wait for what is not; what belongs to another is
    /// forgotten.
    pub(super) async fn known(&self, catalogue: &Catalogue) -> HashMap<u16, Arc<ByUser>> {
        self.want(catalogue);
        let _ = tokio::time::timeout(LEAD, self.nothing_is_missing()).await;
        self.state.lock().complete.clone()
    }

    fn want(&self, catalogue: &Catalogue) {
        let of = (catalogue.generation, catalogue.round);
        let mut state = self.state.lock();
        if state.of != of {
            *state = State { of, ..State::default() };
        }
        let missing = wanted(catalogue).into_iter().filter(|scope| !state.complete.contains_key(scope)).collect();
        state.missing = missing;
        if !state.missing.is_empty() {
            self.missing.notify_one();
        }
    }

    async fn nothing_is_missing(&self) {
        loop {
            let ended = self.ended.notified();
            if self.state.lock().missing.is_empty() {
                return;
            }
            ended.await;
        }
    }

    /// Reads what is missing, until `stopped`.
    pub(super) async fn watch(&self, lane: &mut impl Source, stopped: &CancellationToken) {
        loop {
            tokio::select! {
                biased;
                () = stopped.cancelled() => return,
                () = self.missing.notified() => {}
            }
            while let Some((of, scope)) = self.next() {
                let read = lane.entries(of.1, scope).await;
                if let Err(error) = &read {
                    tracing::warn!(error = error as &dyn std::error::Error, scope, "cannot read the holders");
                }
                self.remember(of, scope, read.ok());
                self.ended.notify_waiters();
            }
        }
    }

    fn next(&self) -> Option<((u64, u32), u16)> {
        let state = self.state.lock();
        state.missing.first().map(|scope| (state.of, *scope))
    }

    /// A scope that could not be read is left out, and its orders ask the database; the next look asks for it again.
    fn remember(&self, of: (u64, u32), scope: u16, entries: Option<Vec<Entry>>) {
        let mut state = self.state.lock();
        // Somebody may have changed something meanwhile, and stock may be had again.
        if state.of != of {
            return;
        }
        state.missing.retain(|missing| *missing != scope);
        if let Some(entries) = entries {
            let by_user = entries.into_iter().map(|entry| (entry.user_id.clone(), entry)).collect();
            state.complete.insert(scope, Arc::new(by_user));
        }
    }
}

/// The exhausted scopes, as far as there is room for their holders.
fn wanted(catalogue: &Catalogue) -> Vec<u16> {
    let mut room = MOST;
    let mut scopes = exhausted(catalogue);
    scopes.retain(|(_, issued)| {
        let fits = *issued <= room;
        room -= if fits { *issued } else { 0 };
        fits
    });
    scopes.into_iter().map(|(scope, _)| scope).collect()
}

/// The scopes in which no coupon can be had any more in this generation, each with the number of its holders: of every
/// coupon nothing is left, or its time is over.
fn exhausted(catalogue: &Catalogue) -> Vec<(u16, u64)> {
    let mut scopes: HashMap<u16, (u64, bool)> = HashMap::new();
    for (coupon, scope) in &catalogue.coupons {
        let (issued, exhausted) = scopes.entry(*scope).or_insert((0, true));
        *issued += u64::from(coupon.total - coupon.remaining);
        *exhausted &= coupon.remaining == 0 || coupon.effective.is_over(catalogue.now);
    }
    let mut exhausted: Vec<_> = scopes
        .into_iter()
        .filter(|(_, (_, exhausted))| *exhausted)
        .map(|(scope, (issued, _))| (scope, issued))
        .collect();
    exhausted.sort_unstable();
    exhausted
}

#[cfg(test)]
mod tests {
    use super::super::tests::{catalogue, coupon, watched};
    use super::*;
    use crate::coupons::Coupon;

    #[tokio::test(start_paused = true)]
    async fn holders_that_do_not_take_long_are_there_with_the_look_that_misses_them() {
        let (takes, after) = (Duration::from_millis(50), Duration::from_millis(60));
        let (memory, _) = watched(vec![(coupon("A", 0, None), 1)], takes, after).await;
        assert!(memory.fresh().unwrap().holders.contains_key(&1));
    }

    #[tokio::test(start_paused = true)]
    async fn holders_are_read_once_and_no_more_of_them_than_there_is_room_for() {
        let large = Coupon { total: 99_990, ..coupon("B", 0, None) };
        let coupons = vec![(coupon("A", 0, None), 1), (large.clone(), 2), (coupon("C", 0, None), 3)];
        // Some looks come and go meanwhile.
        let (memory, reads) = watched(coupons, Duration::from_millis(600), Duration::from_secs(5)).await;
        assert_eq!(reads, [1, 2]);
        let known = memory.fresh().unwrap();
        assert_eq!([1, 2, 3].map(|scope| known.holders.contains_key(&scope)), [true, true, false]);
    }

    #[test]
    fn a_scope_is_exhausted_when_none_of_its_coupons_can_be_had() {
        let shared = |b: Coupon| exhausted(&catalogue(vec![(coupon("A", 0, None), 0), (b, 0)]));
        assert_eq!(shared(coupon("B", 1, None)), []);
        assert_eq!(shared(coupon("B", 1, Some(101))), []);
        assert_eq!(shared(coupon("B", 1, Some(100))), [(0, 19)]);
        assert_eq!(shared(coupon("B", 0, None)), [(0, 20)]);
        let apart = catalogue(vec![(coupon("A", 0, None), 1), (coupon("B", 1, None), 2)]);
        assert_eq!(exhausted(&apart), [(1, 10)]);
    }
}
