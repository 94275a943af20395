//! What is asked of which cluster, and for how long. Pure.

use std::time::Duration;

use crate::load::{Pace, Requests, Users};

/// Coupons that do not sell out, whatever is measured.
const PLENTY: u32 = 1_000_000;
/// Connections of a small closed loop, and of a large one.
pub const FEW: usize = 64;
pub const MANY: usize = 1_000;
/// The same load before anything is measured.
pub const WARM_UP: Duration = Duration::from_millis(700);
/// Codes of coupons that are fought for.
pub const FOUGHT: &str = "F-";

/// How an issue can be answered when nothing is wrong; 503 is "busy".
pub const ANSWERS: [u16; 6] = [200, 201, 403, 409, 410, 503];

/// What is asked, and what there is to be had.
#[derive(Clone, Debug)]
pub struct Scenario {
    pub stock: Stock,
    pub connections: usize,
    pub pace: Pace,
    /// The same load before anything is measured.
    pub warm_up: Duration,
    pub time: Duration,
    pub requests: Requests,
    /// The statuses that a figure may be made of.
    pub expect: Vec<u16>,
    /// Those that are in no figure and yet nothing to wonder at.
    pub tolerate: Vec<u16>,
}

/// What there is to be had when the measurement begins: always a new round.
#[derive(Clone, Debug, PartialEq)]
pub enum Stock {
    /// As it is; nobody asks for any.
    Untouched,
    /// These coupons with so many pieces, beside whatever else is offered.
    Of(Vec<(String, u32)>),
    /// This coupon with so many pieces, all of which [`holders`] have.
    Gone(String, u32),
}

impl Stock {
    /// Whether somebody asks for it, so that the tables change.
    pub fn is_touched(&self) -> bool {
        *self != Self::Untouched
    }

    /// Coupons that must be offered before.
    pub fn coupons(&self) -> Vec<(String, u32)> {
        match self {
            Self::Untouched => Vec::new(),
            Self::Of(coupons) => coupons.clone(),
            Self::Gone(code, pieces) => vec![(code.clone(), *pieces)],
        }
    }
}

/// So many codes of coupons that do not sell out. The first is the one that everybody wants.
pub fn plenty(codes: u32) -> Vec<String> {
    (1..=codes).map(|number| format!("L-{number:02}")).collect()
}

/// Issues of each of these in turn, each request by a user who asks for the first time.
pub fn issues(codes: Vec<String>) -> Requests {
    Requests::Issue { codes, users: Users::new("user"), key: "first".to_owned() }
}

/// Those who have a coupon that is gone.
pub fn holders(pieces: u32) -> Users {
    Users { count: Some(pieces.into()), ..Users::new("holder") }
}

impl Scenario {
    /// Whether tiny coupons are fought for, so that it says who overtook whom.
    pub fn is_contest(&self) -> bool {
        self.stock.coupons().iter().any(|(code, _)| code.starts_with(FOUGHT))
    }

    /// Issues of these coupons, of which there are plenty; a load that is not answered with 201 has no figure.
    pub fn issues(codes: Vec<String>, connections: usize, pace: Pace, [warm_up, time]: [Duration; 2]) -> Self {
        let stock = Stock::Of(codes.iter().map(|code| (code.clone(), PLENTY)).collect());
        let (requests, expect, tolerate) = (issues(codes), vec![201], Vec::new());
        Self { stock, connections, pace, warm_up, time, requests, expect, tolerate }
    }
}

/// Tiny coupons, fought for one after the other: what came of "first come" is in the wallet and in every replica's audit.
#[derive(Clone, Copy, Debug)]
pub struct Contests {
    pub coupons: u32,
    /// Of each.
    pub pieces: u32,
    /// Times as many users ask for each.
    pub over: u32,
    /// Requests a second.
    pub rate: u32,
}

impl Contests {
    /// How long all of them are asked for.
    pub fn time(self) -> Duration {
        Duration::from_secs_f64(f64::from(self.coupons * self.pieces * self.over) / f64::from(self.rate))
    }

    /// The load. Before the first of them, it warms up on a coupon that does not sell out.
    pub fn scenario(self, connections: usize, warm_up: Duration) -> Scenario {
        let code = |number| format!("{FOUGHT}{number:03}");
        let mut stock: Vec<_> = (1..=self.coupons).map(|number| (code(number), self.pieces)).collect();
        let hot = plenty(1);
        stock.extend(hot.iter().map(|code| (code.clone(), PLENTY)));
        // Each request takes the next of these, so the warm-up ends where the first contest begins.
        let before = warm_up.as_millis() * u128::from(self.rate) / 1_000;
        let warming = std::iter::repeat_n(hot[0].clone(), usize::try_from(before).unwrap_or(0));
        let each = (self.pieces * self.over) as usize;
        let fought = (1..=self.coupons).flat_map(|number| std::iter::repeat_n(code(number), each));
        let requests = issues(warming.chain(fought).collect());
        let load = Scenario::issues(hot, connections, Pace::Open(self.rate.into()), [warm_up, self.time()]);
        Scenario { stock: Stock::Of(stock), requests, expect: vec![201, 410], ..load }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn contests_begin_when_the_load_is_warm_and_come_one_after_the_other() {
        let contests = Contests { coupons: 2, pieces: 2, over: 2, rate: 100 };

        let Scenario { requests, time, .. } = contests.scenario(1, Duration::from_millis(30));

        let Requests::Issue { codes, .. } = requests else { panic!("they are issues") };
        assert_eq!(codes.join(" "), "L-01 L-01 L-01 F-001 F-001 F-001 F-001 F-002 F-002 F-002 F-002");
        assert_eq!(time, Duration::from_millis(80));
    }
}
