//! What a replica remembers between two looks at the database: the coupons, their windows, and the holders once nothing is left. It
//! answers without I/O what it can answer exactly, and nothing else.
//!
//! It may be trusted because every administrative change bumps a generation, the memory is read anew every 250 ms, nothing
//! older than a second is used, and a change is answered only when every replica must have seen it.

mod holders;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use self::holders::{ByUser, Holders};
use crate::coupons::{Code, Coupon, Order, Outcome, Timestamp, Window};
use crate::metrics::IssueMetrics;
use crate::store::{Catalogue, Source, StoreError};

/// Time between two looks at the database.
const POLL_INTERVAL: Duration = Duration::from_millis(250);

/// Least time between two looks when something asks for one.
const POKE_INTERVAL: Duration = Duration::from_millis(20);

/// Memory older than this is not used.
pub const AGE_MAX: Duration = Duration::from_secs(1);

/// How long an administrative change waits before it is answered: longer than any replica trusts what it knew before.
pub const CHANGE_SEEN_BY_ALL: Duration = Duration::from_millis(1_100);

/// One look at the database.
pub struct Snapshot {
    catalogue: Catalogue,
    places: HashMap<Code, usize>,
    /// By scope, exhausted scopes only.
    holders: HashMap<u16, Arc<ByUser>>,
    /// By place, how many orders have met a coupon of which nothing can be had.
    in_vain: Vec<AtomicU32>,
    /// By place, the earliest arrival that was told "sold out" in this round, in milliseconds since 1970, or [`NO_ARRIVAL`]. All looks of
    /// a round share it.
    earliest_refused: Vec<Arc<AtomicU64>>,
}

/// Later than every arrival.
const NO_ARRIVAL: u64 = u64::MAX;

/// What every user without an entry gets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The round that it is about; in another one it says nothing.
    pub round: u32,
    /// The answer.
    pub outcome: Outcome,
}

/// What is known of an order without asking the database.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Known {
    /// This is the exact answer.
    Answer(Outcome),
    /// There is stock, or not all holders are known, or memory is too old: the database decides.
    Undecided,
    /// Memory is too old, and the code was not in it.
    Unavailable,
}

/// The memory of one replica.
#[derive(Default)]
pub struct Memory {
    snapshot: ArcSwapOption<Snapshot>,
    poke: Notify,
    holders: Holders,
    lacks_event: AtomicBool,
}

impl Snapshot {
    /// A look after the `last` one.
    fn new(catalogue: Catalogue, holders: HashMap<u16, Arc<ByUser>>, last: Option<&Self>) -> Self {
        let codes = || catalogue.coupons.iter().map(|(coupon, _)| &coupon.code);
        let earliest_refused = codes()
            .map(|code| last.and_then(|last| last.earliest_refused(code, catalogue.round)).cloned())
            .map(|earliest| earliest.unwrap_or_else(|| Arc::new(AtomicU64::new(NO_ARRIVAL))))
            .collect();
        let places = codes().cloned().zip(0..).collect();
        let in_vain = codes().map(|_| AtomicU32::new(0)).collect();
        Self { catalogue, places, holders, in_vain, earliest_refused }
    }

    /// Where the earliest arrival is noted that was told "sold out" in `round`, if this is a look at that round.
    fn earliest_refused(&self, code: &Code, round: u32) -> Option<&Arc<AtomicU64>> {
        let place = *self.places.get(code)?;
        (self.round() == round).then(|| &self.earliest_refused[place])
    }

    fn is_fresh(&self) -> bool {
        self.catalogue.asked.elapsed() < AGE_MAX
    }

    /// The latest that the database's clock can show, reckoned on from when it was read.
    pub fn now(&self) -> Timestamp {
        self.catalogue.now + self.catalogue.asked.elapsed()
    }

    /// Whether it is surely closed; at the very moment of an opening or a closing the database decides.
    fn is_closed(&self, window: Window) -> bool {
        let earliest = self.catalogue.now + self.catalogue.answered.elapsed();
        window.is_over(earliest) || window.is_ahead(self.now())
    }

    /// The round.
    pub fn round(&self) -> u32 {
        self.catalogue.round
    }

    /// All coupons.
    pub fn coupons(&self) -> impl Iterator<Item = &Coupon> {
        self.catalogue.coupons.iter().map(|(coupon, _)| coupon)
    }

    /// One coupon and the scope of its holders.
    pub fn coupon(&self, code: &Code) -> Option<&(Coupon, u16)> {
        self.places.get(code).map(|&place| &self.catalogue.coupons[place])
    }

    /// What every user without an entry gets; `None` when there may be stock to be had.
    fn refusal(&self, coupon: &Coupon) -> Option<Outcome> {
        if self.is_closed(coupon.effective) {
            return Some(Outcome::NotOpen(coupon.effective.opens_in(self.now())));
        }
        (coupon.remaining == 0).then_some(Outcome::SoldOut)
    }

    fn knows(&self, order: &Order) -> Known {
        let Some(&place) = self.places.get(&order.code) else {
            return if self.is_fresh() { Known::Answer(Outcome::UnknownCoupon) } else { Known::Unavailable };
        };
        if !self.is_fresh() {
            return Known::Undecided;
        }
        let (coupon, scope) = &self.catalogue.coupons[place];
        let Some(refusal) = self.refusal(coupon) else { return Known::Undecided };
        self.in_vain[place].fetch_add(1, Ordering::Relaxed);
        let Some(holders) = self.holders.get(scope) else { return Known::Undecided };
        Known::Answer(holders.get(&order.user).map_or(refusal, |entry| entry.clone().answer(order)))
    }

    /// Each scope with the orders that have met a coupon of it of which nothing can be had; a scope may come several times.
    fn in_vain(&self) -> impl Iterator<Item = (u16, u32)> {
        let scopes = self.catalogue.coupons.iter().map(|(_, scope)| *scope);
        scopes.zip(&self.in_vain).map(|(scope, count)| (scope, count.load(Ordering::Relaxed)))
    }
}

impl Memory {
    /// What is known of an order without I/O.
    pub fn knows(&self, order: &Order) -> Known {
        self.snapshot.load().as_ref().map_or(Known::Unavailable, |snapshot| snapshot.knows(order))
    }

    /// What every order for `code` gets if its user holds nothing; `None` when the database decides.
    pub fn refusal(&self, code: &Code) -> Option<Refusal> {
        let snapshot = self.fresh()?;
        let (coupon, _) = snapshot.coupon(code)?;
        Some(Refusal { round: snapshot.round(), outcome: snapshot.refusal(coupon)? })
    }

    /// The last look, if it may be trusted.
    pub fn fresh(&self) -> Option<Arc<Snapshot>> {
        self.snapshot.load_full().filter(|snapshot| snapshot.is_fresh())
    }

    /// The last known round; `None` before the first look.
    pub fn round(&self) -> Option<u32> {
        self.snapshot.load().as_ref().map(|snapshot| snapshot.round())
    }

    /// The database's clock, reckoned on from the last look; `None` before the first.
    pub fn now(&self) -> Option<Timestamp> {
        self.snapshot.load().as_ref().map(|snapshot| snapshot.now())
    }

    /// Whether the database works, as last seen, and has no event.
    pub fn lacks_event(&self) -> bool {
        self.lacks_event.load(Ordering::Relaxed)
    }

    /// How old the memory is.
    pub fn age(&self) -> Duration {
        self.snapshot.load().as_ref().map_or(Duration::MAX, |snapshot| snapshot.catalogue.asked.elapsed())
    }

    /// Asks for a look soon: something happened that memory does not know.
    pub fn poke(&self) {
        self.poke.notify_one();
    }

    /// Notes the arrival of an order that was told "sold out" in `round`.
    pub fn refused(&self, code: &Code, round: u32, arrived_ms: Option<u64>) {
        let (snapshot, arrived) = (self.snapshot.load(), arrived_ms.unwrap_or(NO_ARRIVAL));
        let earliest = snapshot.as_ref().and_then(|snapshot| snapshot.earliest_refused(code, round));
        // Arrivals grow, so that a write is rare.
        if let Some(earliest) = earliest.filter(|earliest| arrived < earliest.load(Ordering::Relaxed)) {
            earliest.fetch_min(arrived, Ordering::Relaxed);
        }
    }

    /// The earliest arrival that this replica told "sold out" in `round`, in milliseconds since 1970.
    pub fn earliest_loser(&self, code: &Code, round: u32) -> Option<u64> {
        let snapshot = self.snapshot.load();
        let earliest = snapshot.as_ref()?.earliest_refused(code, round)?.load(Ordering::Relaxed);
        (earliest < NO_ARRIVAL).then_some(earliest)
    }

    /// Looks at the database every 250 ms, and when poked, until `stopped`. The second lane reads the holders, which may take long:
    /// meanwhile the rest must not grow old.
    pub async fn watch(&self, lanes: [impl Source; 2], metrics: IssueMetrics, stopped: CancellationToken) {
        let [mut lane, mut holders] = lanes;
        // In this order, so that a simulation is the same every time.
        tokio::join!(
            biased;
            self.watch_catalogue(&mut lane, metrics, &stopped),
            self.holders.watch(&mut holders, &stopped),
        );
    }

    async fn watch_catalogue(&self, lane: &mut impl Source, metrics: IssueMetrics, stopped: &CancellationToken) {
        while !stopped.is_cancelled() {
            let looked = self.look(lane, &metrics).await;
            let lacks_event = matches!(looked, Err(StoreError::NoEvent));
            let was_known = self.lacks_event.swap(lacks_event, Ordering::Relaxed) && lacks_event;
            if let Err(error) = looked
                && !was_known
            {
                tracing::warn!(error = &error as &dyn std::error::Error, "cannot read the catalogue");
            }
            tokio::select! {
                biased;
                () = tokio::time::sleep(POLL_INTERVAL) => {}
                () = self.poked() => {}
                () = stopped.cancelled() => {}
            }
        }
    }

    async fn poked(&self) {
        tokio::time::sleep(POKE_INTERVAL).await;
        self.poke.notified().await;
    }

    /// Takes a snapshot, with the holders that are known.
    async fn look(&self, lane: &mut impl Source, metrics: &IssueMetrics) -> Result<(), StoreError> {
        let catalogue = lane.catalogue().await?;
        metrics.remaining(catalogue.coupons.iter().map(|(coupon, _)| coupon));
        let last = self.snapshot.load_full();
        if let Some(last) = &last {
            self.holders.asked(last.in_vain());
        }
        let holders = self.holders.known(&catalogue).await;
        self.snapshot.store(Some(Arc::new(Snapshot::new(catalogue, holders, last.as_deref()))));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use parking_lot::Mutex;
    use tokio::time::Instant;

    use super::*;
    use crate::coupons::Entry;
    use crate::metrics::Metrics;

    pub(super) fn coupon(code: &str, remaining: u32, closes_at: Option<i64>) -> Coupon {
        let window = Window { opens_at: None, closes_at: closes_at.map(Timestamp) };
        let code = Code::parse(code).unwrap();
        Coupon {
            code,
            discount_percent: 10,
            total: 10,
            remaining,
            next_serial: 11 - remaining,
            window,
            effective: window,
        }
    }

    pub(super) fn catalogue(coupons: Vec<(Coupon, u16)>) -> Catalogue {
        let (asked, now) = (Instant::now(), Timestamp(100));
        Catalogue { asked, answered: asked, now, generation: 1, round: 1, coupons }
    }

    /// A database whose catalogue is always the same; its holders take an hour to read, or a moment.
    struct Slow {
        coupons: Vec<(Coupon, u16)>,
        reads: Arc<Mutex<Vec<u16>>>,
        takes: Duration,
    }

    impl Source for Slow {
        async fn catalogue(&mut self) -> Result<Catalogue, StoreError> {
            Ok(catalogue(self.coupons.clone()))
        }

        async fn entries(&mut self, _round: u32, scope: u16) -> Result<Vec<Entry>, StoreError> {
            self.reads.lock().push(scope);
            tokio::time::sleep(self.takes).await;
            Ok(Vec::new())
        }
    }

    /// What is known after some time with such a database, and which scopes were read.
    pub(super) async fn watched(
        coupons: Vec<(Coupon, u16)>,
        takes: Duration,
        after: Duration,
    ) -> (Arc<Memory>, Vec<u16>) {
        let (memory, reads, stopped) = (Arc::<Memory>::default(), Arc::default(), CancellationToken::new());
        let lane = || Slow { coupons: coupons.clone(), reads: Arc::clone(&reads), takes };
        let (watched, metrics, lanes) = (Arc::clone(&memory), Metrics::new("batched", 3).issue, [lane(), lane()]);
        tokio::spawn(async move { watched.watch(lanes, metrics, stopped).await });
        tokio::time::sleep(after).await;
        let reads = reads.lock().clone();
        (memory, reads)
    }

    #[tokio::test(start_paused = true)]
    async fn a_coupon_is_closed_when_every_time_that_it_may_be_says_so() {
        let mut catalogue = catalogue(vec![]);
        tokio::time::advance(Duration::from_micros(10)).await;
        catalogue.answered = Instant::now();
        let snapshot = Snapshot::new(catalogue, HashMap::new(), None);
        // The database said 100 at some moment of the last ten microseconds.
        let closed = |opens: Option<i64>, closes: Option<i64>| {
            snapshot.is_closed(Window { opens_at: opens.map(Timestamp), closes_at: closes.map(Timestamp) })
        };
        assert_eq!([100, 101, 110].map(|closes| closed(None, Some(closes))), [true, false, false]);
        assert_eq!([100, 110, 111].map(|opens| closed(Some(opens), None)), [false, false, true]);
    }

    #[tokio::test(start_paused = true)]
    async fn while_holders_take_long_to_read_the_rest_does_not_grow_old() {
        let coupons = vec![(coupon("A", 0, None), 1)];
        let (memory, reads) = watched(coupons, Duration::from_hours(1), Duration::from_secs(5)).await;
        assert_eq!(reads, [1]);
        assert!(memory.fresh().is_some(), "the memory is {:?} old", memory.age());
    }

    #[tokio::test(start_paused = true)]
    async fn the_earliest_refused_arrival_lives_as_long_as_its_round() {
        let (memory, a) = (Memory::default(), Code::parse("A").unwrap());
        let look = |round| {
            let catalogue =
                Catalogue { round, ..catalogue(vec![(coupon("B", 0, None), 1), (coupon("A", 0, None), 2)]) };
            let last = memory.snapshot.load_full();
            memory.snapshot.store(Some(Arc::new(Snapshot::new(catalogue, HashMap::new(), last.as_deref()))));
        };
        look(1);
        for arrived in [Some(7), None, Some(5), Some(6)] {
            memory.refused(&a, 1, arrived);
            look(1);
        }
        // One of another round, which memory does not know yet or no longer.
        memory.refused(&a, 2, Some(1));
        assert_eq!([1, 2].map(|round| memory.earliest_loser(&a, round)), [Some(5), None]);

        look(2);
        memory.refused(&a, 1, Some(1));
        assert_eq!([1, 2].map(|round| memory.earliest_loser(&a, round)), [None, None]);
        memory.refused(&a, 2, Some(9));
        assert_eq!(memory.earliest_loser(&a, 2), Some(9));
        assert_eq!(memory.earliest_loser(&Code::parse("B").unwrap(), 2), None);
    }
}
