//! The waves of a run, all of it drawn from its seed: the same seed and wave give the same faults and the same crowds.

use std::time::Duration;

use fastrand::Rng;

use super::fault::Fault;

/// Coupons offered in every wave, and the pieces of each: few, because races happen at the edges of a stock.
pub const COUPONS: [(&str, u32); 10] = [
    ("W-1", 1),
    ("W-2", 3),
    ("W-3", 5),
    ("W-4", 8),
    ("W-5", 10),
    ("W-6", 12),
    ("W-7", 15),
    ("W-8", 20),
    ("W-9", 30),
    ("W-10", 50),
];

/// Seconds of a wave without its fault: the reset, the crowd, the verdict.
const WAVE_SECONDS: f64 = 3.0;
const FAULT_AT: Duration = Duration::from_millis(300);
/// One in so many waves draws a second fault; a third of these would take hold of the same part as the first, and are dropped.
const TWO_FAULTS: u32 = 4;
/// Waves before the event's rule changes: a change takes a second.
const RULE_LASTS: u32 = 7;

/// A wave: every coupon sold from its full stock while something breaks.
#[derive(Clone, Debug, PartialEq)]
pub struct Wave {
    pub number: u32,
    /// What breaks; a second fault begins with the first.
    pub faults: Vec<Disturbance>,
    /// One coupon per user over all codes. Nobody here asks for two codes, so the books are the same.
    pub exclusive: bool,
    pub users: Vec<User>,
}

/// A fault with what was drawn for it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Disturbance {
    pub fault: Fault,
    /// When it begins, from the start of the wave.
    pub at: Duration,
    /// How long it lasts, where that is ours to choose.
    pub lasts: Duration,
    /// Which one of several equal parts it hits, and at which step: taken modulo what there is.
    pub pick: u32,
    /// Whose home it hits, where it hits one: a coupon with a large crowd, which begins to ask with the fault.
    pub code: &'static str,
}

/// One user: asks for one coupon until the answer is final.
#[derive(Clone, Debug, PartialEq)]
pub struct User {
    pub code: &'static str,
    /// Unique in the run: what a wave before left on its way would pass for a request of this one's.
    pub name: String,
    /// When the first attempt begins, from the start of the wave.
    pub starts: Duration,
    pub habit: Habit,
    /// Whether nginx cannot read the code in its orders.
    pub hides: bool,
    /// Whether it looks at its wallet when it has its last answer.
    pub looks: bool,
    /// For the pauses between attempts.
    pub seed: u64,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Habit {
    /// Once, and again while the answer is not final.
    Plain,
    /// Twice at the same time with the same key.
    DoubleClick,
    /// The first attempt is dropped after this time, answered or not.
    HangUp(Duration),
    /// Once more with another key when the first has its answer.
    Greedy,
    /// So many times with the same key, whatever the answer was, each after a pause of at most so long.
    Again { times: u32, pause: Duration },
}

/// The waves from `first` on. Every fault comes once before any comes again.
pub fn waves(seed: u64, faults: &[Fault], first: u32, count: u32) -> impl Iterator<Item = Wave> {
    (first..first.saturating_add(count)).map(move |number| wave(seed, faults, number))
}

fn wave(seed: u64, faults: &[Fault], number: u32) -> Wave {
    let size = u32::try_from(faults.len()).unwrap_or(u32::MAX);
    let mut order: Vec<Fault> = faults.to_vec();
    rng(seed, u64::from(number / size) << 32).shuffle(&mut order);
    let mut rng = rng(seed, u64::from(number));
    let first = disturbance(order[(number % size) as usize], &mut rng);
    let mut wave = Wave { number, faults: vec![first], exclusive: (number / RULE_LASTS) % 2 == 1, users: Vec::new() };
    if rng.u32(..TWO_FAULTS) == 0 {
        let second = disturbance(faults[rng.usize(..faults.len())], &mut rng);
        if first.fault.goes_with(second.fault) {
            wave.faults.push(second);
        }
    }
    wave.users = COUPONS.iter().flat_map(|(code, pieces)| wave.crowd(code, *pieces, &mut rng)).collect();
    wave
}

impl Wave {
    pub fn name(&self) -> String {
        let faults: Vec<_> = self.faults.iter().map(|it| it.fault.name()).collect();
        format!("wave {}: {}", self.number, faults.join(" + "))
    }

    pub fn estimate(&self) -> f64 {
        WAVE_SECONDS + self.faults.iter().map(|it| it.lasts.as_secs_f64()).fold(0.0, f64::max)
    }

    pub fn find(&self, fault: Fault) -> Option<Disturbance> {
        self.faults.iter().copied().find(|it| it.fault == fault)
    }

    pub fn has(&self, fault: Fault) -> bool {
        self.find(fault).is_some()
    }

    /// When an administrator is at work.
    pub fn administration(&self) -> Option<Disturbance> {
        self.faults.iter().copied().find(|it| it.fault.is_administered())
    }

    /// Three to six times as many users as pieces.
    fn crowd(&self, code: &'static str, pieces: u32, rng: &mut Rng) -> Vec<User> {
        let (starts, spread) = self.when(code, rng);
        let count = rng.u32(pieces * 3..=pieces * 6);
        let user = |number: u32| User {
            code,
            name: format!("{}-{code}-{number}", self.number),
            starts: starts + spread.mul_f64(rng.f64()),
            habit: self.habit(rng),
            hides: self.has(Fault::CodesHidden) && rng.u32(..3) == 0,
            looks: self.administration().is_none() && rng.bool(),
            seed: rng.u64(..),
        };
        (1..=count).map(user).collect()
    }

    /// When the crowd for a code begins to ask, and over which time its users spread. Most crowds begin within some milliseconds of the
    /// fault, so that it meets orders at every stage of their way; the others ask while it lasts.
    fn when(&self, code: &str, rng: &mut Rng) -> (Duration, Duration) {
        let Disturbance { at, lasts, .. } = self.faults[0];
        let before = at.saturating_sub(ms(60));
        if let Some(moves) = self.find(Fault::HomesMoved) {
            // Coupons are still to be had when their homes move.
            (between(before, at, rng), moves.lasts)
        } else if self.faults.iter().any(|it| it.code == code) {
            // The home has orders in hand when it is hit.
            (between(at.saturating_sub(ms(150)), at.saturating_sub(ms(100)), rng), ms(rng.u64(300..700)))
        } else {
            let starts =
                if rng.u32(..10) < 6 { between(before, at + ms(40), rng) } else { between(at, at + lasts, rng) };
            (starts, if rng.bool() { Duration::ZERO } else { ms(rng.u64(1..800)) })
        }
    }

    fn habit(&self, rng: &mut Rng) -> Habit {
        if let Some(Disturbance { lasts, .. }) = self.administration() {
            // Who was told "sold out" before a change asks again after it.
            let times = rng.u32(3..15);
            return Habit::Again { times, pause: lasts * 2 / times };
        }
        let hang_up = |rng: &mut Rng| Habit::HangUp(Duration::from_micros(rng.u64(..30_000)));
        match rng.u32(..10) {
            0 => hang_up(rng),
            1 => Habit::DoubleClick,
            2 => Habit::Greedy,
            _ if self.has(Fault::ClientsHangUp) => hang_up(rng),
            _ => Habit::Plain,
        }
    }
}

fn disturbance(fault: Fault, rng: &mut Rng) -> Disturbance {
    let (shortest, longest) = fault.lasts().into_inner();
    let lasts = between(ms(shortest), ms(longest), rng);
    let (code, _) = COUPONS[rng.usize(COUPONS.len() / 2..COUPONS.len())];
    Disturbance { fault, at: FAULT_AT, lasts, pick: rng.u32(..), code }
}

/// A generator for one part of the run, which does not change when another part draws more or less.
fn rng(seed: u64, part: u64) -> Rng {
    Rng::with_seed(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ part)
}

fn between(low: Duration, high: Duration, rng: &mut Rng) -> Duration {
    low + high.saturating_sub(low).mul_f64(rng.f64())
}

const fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::super::fault::Ground;
    use super::*;

    #[test]
    fn the_same_seed_gives_the_same_wave_wherever_a_run_begins() {
        let at = |seed, first, count| waves(seed, Fault::ALL, first, count).last().unwrap();

        assert_eq!(at(7, 0, 21), at(7, 20, 1));
        assert_ne!(at(7, 20, 1), at(8, 20, 1));
    }

    #[test]
    fn every_fault_comes_once_before_any_comes_again_and_none_with_another_that_needs_the_same_part() {
        for (hosts, group) in [(false, false), (true, false), (false, true), (true, true)] {
            let faults = Fault::of(Ground { hosts, group });
            let size = faults.len();
            let waves: Vec<_> = waves(1, &faults, 0, u32::try_from(18 * size).unwrap()).collect();

            for block in waves.chunks(size) {
                assert_eq!(block.iter().map(|wave| wave.faults[0].fault).collect::<HashSet<_>>().len(), size);
            }
            let pairs: Vec<_> =
                waves.iter().filter_map(|wave| Some((wave.faults[0].fault, wave.faults.get(1)?.fault))).collect();
            assert!(pairs.len() > size, "{} pairs", pairs.len());
            assert!(pairs.iter().all(|(first, second)| first.goes_with(*second)));
        }
    }

    #[test]
    fn a_crowd_asks_for_a_code_before_and_after_the_code_s_home_is_hit() {
        let homes = [Fault::HomeKilled, Fault::HomeFrozen];
        for Wave { faults, users, .. } in waves(4, &homes, 0, 200) {
            let Disturbance { code, at, .. } = faults[0];
            let crowd = users.iter().filter(|user| user.code == code);
            let (before, after): (Vec<_>, Vec<_>) = crowd.partition(|user| user.starts < at);
            assert!(!before.is_empty() && after.len() > 10, "{code}: {} before, {} after", before.len(), after.len());
        }
    }

    #[test]
    fn users_hide_their_codes_only_in_waves_that_say_so() {
        for wave in waves(5, Fault::ALL, 0, 200) {
            let hidden = wave.users.iter().filter(|user| user.hides).count();
            let expected = if wave.has(Fault::CodesHidden) { wave.users.len() / 5..wave.users.len() / 2 } else { 0..1 };
            assert!(expected.contains(&hidden), "{}: {hidden} of {}", wave.name(), wave.users.len());
        }
    }

    #[test]
    fn nobody_asks_in_two_waves() {
        let [first, second] = [6, 7].map(|number| waves(3, Fault::ALL, number, 1).next().unwrap().users);

        assert!(first.iter().all(|user| second.iter().all(|other| other.name != user.name)));
    }

    #[test]
    fn every_stock_is_wanted_by_more_users_than_it_has_pieces_and_each_wants_one_code() {
        for Wave { users, .. } in waves(3, Fault::ALL, 0, 50) {
            assert_eq!(users.iter().map(|user| &user.name).collect::<HashSet<_>>().len(), users.len());
            for (code, pieces) in COUPONS {
                assert!(users.iter().filter(|user| user.code == code).count() >= 3 * pieces as usize);
            }
        }
    }
}
