//! The holders in the scopes of which nothing can be had any more. They are read once in a generation and at one count of issued
//! pieces, beside the looks at the rest, because that may take long.

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::coupons::{Entry, UserId};
use crate::store::{Catalogue, Source};

/// Most holders remembered, about 200 bytes each. They are those of the scopes that are most asked for; for the others an indexed read
/// answers.
const MOST: u64 = 100_000;

/// Orders of about so many last looks count: of two seconds, with looks every 250 ms.
const LOOKS: u64 = 8;

/// How long a look waits for holders that are not known. Read in time, they are there as soon as memory says "sold out"; a look
/// that waited for longer would be old itself.
const LEAD: Duration = Duration::from_millis(100);

/// The holders of one scope. Complete, because nothing of the scope can be had in this generation, and none was
/// had since: its counts are the same.
pub(super) type ByUser = HashMap<UserId, Entry>;

/// What was issued of each coupon of a scope, in the catalogue's order: pieces by the stock and the next serial. They change in one
/// generation when a person corrects a row by hand, or the database's clock steps back across a closing. Pieces alone would not
/// do: one that is taken back and issued again leaves as many as before.
type Counts = Vec<(u32, u32)>;

/// A scope in which no coupon can be had any more.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Exhausted {
    scope: u16,
    counts: Counts,
}

impl Exhausted {
    fn issued(&self) -> u64 {
        self.counts.iter().map(|(issued, _)| u64::from(*issued)).sum()
    }
}

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
    complete: HashMap<u16, (Counts, Arc<ByUser>)>,
    /// To be read, in the order of their turns.
    missing: Vec<Exhausted>,
    /// How much each scope is asked for; whatever the round.
    asked: HashMap<u16, u64>,
}

impl State {
    fn knows(&self, exhausted: &Exhausted) -> bool {
        self.complete.get(&exhausted.scope).is_some_and(|(counts, _)| *counts == exhausted.counts)
    }

    /// The exhausted scopes, as far as there is room for their holders: the most asked first. One that has its place counts double, so
    /// that two which are asked alike do not take it from each other in turn.
    fn wanted(&self, catalogue: &Catalogue) -> Vec<Exhausted> {
        let mut scopes = exhausted(catalogue);
        scopes.sort_by_key(|it| {
            let asked = self.asked.get(&it.scope).copied().unwrap_or(0);
            let has_place =
                self.complete.contains_key(&it.scope) || self.missing.iter().any(|missing| missing.scope == it.scope);
            (Reverse(if has_place { 2 * asked } else { asked }), !has_place, it.scope)
        });
        let mut room = MOST;
        scopes.retain(|it| {
            let fits = it.issued() <= room;
            room -= if fits { it.issued() } else { 0 };
            fits
        });
        scopes
    }
}

impl Holders {
    /// What is known by scope in the catalogue's generation, after a short wait for what is not; what belongs to another is
    /// forgotten.
    pub(super) async fn known(&self, catalogue: &Catalogue) -> HashMap<u16, Arc<ByUser>> {
        self.want(catalogue);
        let _ = tokio::time::timeout(LEAD, self.nothing_is_missing()).await;
        let state = self.state.lock();
        state.complete.iter().map(|(scope, (_, by_user))| (*scope, Arc::clone(by_user))).collect()
    }

    /// Notes how many orders have met each scope in vain since the last look.
    pub(super) fn asked(&self, orders: impl Iterator<Item = (u16, u32)>) {
        let mut state = self.state.lock();
        state.asked.retain(|_, asked| {
            *asked -= asked.div_ceil(LOOKS);
            *asked > 0
        });
        for (scope, count) in orders.filter(|(_, count)| *count > 0) {
            *state.asked.entry(scope).or_default() += LOOKS * u64::from(count);
        }
    }

    fn want(&self, catalogue: &Catalogue) {
        let of = (catalogue.generation, catalogue.round);
        let mut state = self.state.lock();
        if state.of != of {
            *state = State { of, asked: std::mem::take(&mut state.asked), ..State::default() };
        }
        let mut missing = state.wanted(catalogue);
        state.complete.retain(|scope, (counts, _)| missing.iter().any(|it| it.scope == *scope && it.counts == *counts));
        missing.retain(|it| !state.knows(it));
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
            while let Some((of, next)) = self.next() {
                let (scope, read) = (next.scope, lane.entries(of.1, next.scope).await);
                if let Err(error) = &read {
                    tracing::warn!(error = error as &dyn std::error::Error, scope, "cannot read the holders");
                }
                self.remember(of, next, read.ok());
                self.ended.notify_waiters();
            }
        }
    }

    fn next(&self) -> Option<((u64, u32), Exhausted)> {
        let state = self.state.lock();
        state.missing.first().map(|next| (state.of, next.clone()))
    }

    /// A scope that could not be read is left out, and its orders ask the database; the next look asks for it again.
    fn remember(&self, of: (u64, u32), read: Exhausted, entries: Option<Vec<Entry>>) {
        let mut state = self.state.lock();
        // An administrative change meanwhile may have made stock that can be had; or another scope has got the place.
        let Some(place) = state.missing.iter().position(|missing| *missing == read) else { return };
        if state.of != of {
            return;
        }
        state.missing.remove(place);
        if let Some(entries) = entries {
            let by_user = entries.into_iter().map(|entry| (entry.user_id.clone(), entry)).collect();
            state.complete.insert(read.scope, (read.counts, Arc::new(by_user)));
        }
    }
}

/// The scopes in which no coupon can be had any more in this generation: of every coupon nothing is left, or its time is over.
fn exhausted(catalogue: &Catalogue) -> Vec<Exhausted> {
    let mut scopes: BTreeMap<u16, Option<Counts>> = BTreeMap::new();
    for (coupon, scope) in &catalogue.coupons {
        let counts = scopes.entry(*scope).or_insert_with(|| Some(Counts::new()));
        if coupon.remaining == 0 || coupon.effective.is_over(catalogue.now) {
            if let Some(counts) = counts {
                counts.push((coupon.total - coupon.remaining, coupon.next_serial));
            }
        } else {
            *counts = None;
        }
    }
    scopes.into_iter().filter_map(|(scope, counts)| Some(Exhausted { scope, counts: counts? })).collect()
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::super::tests::{catalogue, coupon, watched};
    use super::*;
    use crate::coupons::{Coupon, Window};

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

    #[tokio::test(start_paused = true)]
    async fn holders_are_not_used_when_another_number_was_issued_than_they_were_read_at() {
        let (known, reads) = (Holders::default(), AtomicUsize::new(0));
        let look = async |coupon: Coupon| {
            let catalogue = catalogue(vec![(coupon, 1)]);
            known.want(&catalogue);
            while let Some((of, next)) = known.next() {
                reads.fetch_add(1, Ordering::Relaxed);
                known.remember(of, next, Some(vec![]));
            }
            (known.known(&catalogue).await.len(), reads.load(Ordering::Relaxed))
        };
        let sold_out = coupon("A", 0, None);
        assert_eq!(look(sold_out.clone()).await, (1, 1));
        assert_eq!(look(sold_out.clone()).await, (1, 1));
        // A piece came back by hand, and was issued before the next look.
        assert_eq!(look(Coupon { next_serial: 12, ..sold_out.clone() }).await, (1, 2));
        // The clock stepped back before a closing, and the window closed again after another piece.
        let closed = |issued: u32| coupon("A", 10 - issued, Some(100));
        assert_eq!(look(closed(3)).await, (1, 3));
        assert_eq!(look(Coupon { effective: Window::default(), ..closed(3) }).await, (0, 3));
        assert_eq!(look(closed(4)).await, (1, 4));
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_read_for_a_count_that_is_no_more_is_not_remembered() {
        let (known, sold_out) = (Holders::default(), coupon("A", 0, None));
        known.want(&catalogue(vec![(sold_out.clone(), 1)]));
        let (of, reading) = known.next().unwrap();
        let later = catalogue(vec![(Coupon { next_serial: 12, ..sold_out }, 1)]);
        known.want(&later);

        known.remember(of, reading.clone(), Some(vec![]));

        assert!(known.known(&later).await.is_empty());
        assert_ne!(known.next().unwrap().1, reading);
    }

    #[tokio::test(start_paused = true)]
    async fn the_places_go_to_the_scopes_that_are_asked_for_and_are_not_taken_in_turn() {
        let known = Holders::default();
        let both = || {
            let large = |code| Coupon { total: 60_000, ..coupon(code, 0, None) };
            catalogue(vec![(large("OLD"), 1), (large("YOUNG"), 2), (coupon("SMALL", 0, None), 3)])
        };
        let look = |asked: [u32; 2]| {
            known.asked([1, 2].into_iter().zip(asked));
            known.want(&both());
            while let Some((of, next)) = known.next() {
                known.remember(of, next, Some(vec![]));
            }
            let mut scopes: Vec<_> = known.state.lock().complete.keys().copied().collect();
            scopes.sort_unstable();
            scopes
        };
        assert_eq!(look([0, 0]), [1, 3]);
        assert_eq!(look([0, 1]), [2, 3]);
        for _ in 0..20 {
            assert_eq!(look([100, 100]), [2, 3]);
        }
        let looks = |many, asked| (0..many).fold(vec![], |_, _| look(asked));
        assert_eq!(looks(20, [100, 0]), [1, 3]);
        assert_eq!(looks(100, [0, 0]), [1, 3]);
        assert!(known.state.lock().asked.is_empty());
    }

    #[test]
    fn a_scope_is_exhausted_when_none_of_its_coupons_can_be_had() {
        let issued =
            |coupons| exhausted(&catalogue(coupons)).iter().map(|it| (it.scope, it.issued())).collect::<Vec<_>>();
        let shared = |b: Coupon| issued(vec![(coupon("A", 0, None), 0), (b, 0)]);
        assert_eq!(shared(coupon("B", 1, None)), []);
        assert_eq!(shared(coupon("B", 1, Some(101))), []);
        assert_eq!(shared(coupon("B", 1, Some(100))), [(0, 19)]);
        assert_eq!(shared(coupon("B", 0, None)), [(0, 20)]);
        assert_eq!(issued(vec![(coupon("A", 0, None), 1), (coupon("B", 1, None), 2)]), [(1, 10)]);
    }
}
