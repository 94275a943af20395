//! One measurement: a fresh round, a warm-up, the load between two looks at all counters, and the verdict on the tables.

use std::time::Duration;

use super::crowd;
use super::plan::{CROSS_CHECK_RATE, RATE, Scenario, Step};
use super::sample::{Quiet, Sample};
use crate::admin::Window;
use crate::histogram::Histogram;
use crate::jump::Jump;
use crate::load::{Load, Outcome, Pace, Plan, Requests, Until, Users, load};
use crate::stage::{Moment, Stage};
use crate::verify::Ack;

/// The hot coupon: more pieces than any measurement issues.
const HOT: &str = "HOT";
const HOT_PIECES: u32 = 1_000_000;
/// Codes that share a load.
const CODES: u32 = 32;
const CODE_PIECES: u32 = 100_000;
/// The coupon that is gone, and everybody who has one.
const GONE: &str = "GONE";
const GONE_PIECES: u32 = 10_000;
/// Codes whose last pieces are fought for, and how often each is asked for.
const FOUGHT_CODES: u32 = 200;
const FOUGHT_PIECES: u32 = 20;
const FOUGHT_REQUESTS: u32 = 40;

/// Connections of what is no question of connections.
const CONNECTIONS: usize = 200;
const MANY: usize = 1_000;

const WARM_UP: Duration = Duration::from_millis(700);
/// Of most loads.
const SHORT: Duration = Duration::from_secs(3);
/// Where a percentile needs more requests, or a strategy issues few.
const LONG: Duration = Duration::from_secs(4);
/// To find a strategy's best pool.
const PROBE: Duration = Duration::from_millis(1_500);

/// How long it takes, for the record.
pub const TIMES: [(&str, Duration); 5] =
    [("warmUp", WARM_UP), ("short", SHORT), ("long", LONG), ("probe", PROBE), ("arrival", crowd::ARRIVAL_TIME)];

/// The coupons that a scenario asks for.
pub fn coupons(scenario: Scenario) -> Vec<(String, u32)> {
    let hot = (HOT.to_owned(), HOT_PIECES);
    match scenario {
        Scenario::Version(_) | Scenario::Refused | Scenario::Rush | Scenario::Arrival => Vec::new(),
        Scenario::Codes | Scenario::RateOfCodes => shared_codes().into_iter().map(|code| (code, CODE_PIECES)).collect(),
        Scenario::SoldOut | Scenario::AlreadyIssued => vec![(GONE.to_owned(), GONE_PIECES)],
        Scenario::Jump => (1..=FOUGHT_CODES).map(|number| (fought_code(number), FOUGHT_PIECES)).chain([hot]).collect(),
        _ => vec![hot],
    }
}

fn shared_codes() -> Vec<String> {
    (1..=CODES).map(|number| format!("W-{number:02}")).collect()
}

fn fought_code(number: u32) -> String {
    format!("F-{number:03}")
}

/// Measures one step. `peak` is the highest rate of issues in this round so far.
pub async fn measure(stage: &mut Stage, step: Step, peak: Option<f64>) -> anyhow::Result<Sample> {
    match step.scenario {
        Scenario::Rush => crowd::rush(stage, step).await,
        Scenario::Arrival => crowd::arrival(stage, step).await,
        scenario => {
            let ask = ask(scenario, peak)?;
            let mut sample = run(stage, step, &ask).await?;
            if scenario == Scenario::Jump {
                fought(stage, &mut sample).await?;
            }
            Ok(sample)
        }
    }
}

/// What a scenario asks.
struct Ask {
    connections: usize,
    pace: Pace,
    until: Until,
    requests: Requests,
    expect: Vec<u16>,
    /// Everybody gets one of these before.
    given_away: bool,
}

fn ask(scenario: Scenario, peak: Option<f64>) -> anyhow::Result<Ask> {
    let issue = |connections, pace, time| Ask {
        connections,
        pace,
        until: Until::Elapsed(time),
        requests: issue(vec![HOT.to_owned()], new("m")),
        expect: vec![201],
        given_away: false,
    };
    let closed = |connections| issue(connections, Pace::Closed, SHORT);
    // Many connections, for a fixed rate, too: few would leave no batches to speak of.
    let shared = |pace| Ask { requests: self::issue(shared_codes(), new("m")), ..issue(MANY, pace, LONG) };
    let ask = match scenario {
        Scenario::Version(connections) => {
            Ask { requests: Requests::Get { path: "/version".to_owned() }, expect: vec![200], ..closed(connections) }
        }
        Scenario::Refused => Ask { requests: Requests::Refused, expect: vec![422], ..closed(CONNECTIONS) },
        Scenario::Issue(connections) => issue(connections, Pace::Closed, LONG),
        Scenario::Codes => shared(Pace::Closed),
        Scenario::RateOfCodes => shared(Pace::Open(RATE)),
        Scenario::Alone => closed(1),
        Scenario::Open(share) => {
            let peak =
                peak.ok_or_else(|| anyhow::anyhow!("the peak is not known: it was not measured in this round"))?;
            issue(MANY, Pace::Open(peak / f64::from(share)), LONG)
        }
        Scenario::Rate(_) => issue(CONNECTIONS, Pace::Open(RATE), LONG),
        Scenario::CrossCheck => issue(CONNECTIONS, Pace::Open(CROSS_CHECK_RATE.into()), crowd::ARRIVAL_TIME),
        Scenario::SoldOut => Ask {
            requests: self::issue(vec![GONE.to_owned()], new("m")),
            expect: vec![410],
            given_away: true,
            ..closed(CONNECTIONS)
        },
        Scenario::AlreadyIssued => {
            let users = Users::Fixed { prefix: "g".to_owned(), count: u64::from(GONE_PIECES) };
            let requests = self::issue(vec![GONE.to_owned()], users);
            Ask { requests, expect: vec![409], given_away: true, ..closed(CONNECTIONS) }
        }
        Scenario::Jump => Ask {
            until: Until::Sent(u64::from(FOUGHT_CODES * FOUGHT_REQUESTS)),
            requests: self::issue(one_after_the_other(), new("m")),
            expect: vec![201, 410],
            ..issue(CONNECTIONS, Pace::Open(RATE), LONG)
        },
        Scenario::Probe(..) => issue(CONNECTIONS, Pace::Closed, PROBE),
        Scenario::Best(_) => issue(CONNECTIONS, Pace::Closed, LONG),
        Scenario::Rush | Scenario::Arrival => unreachable!("k6 asks these"),
    };
    Ok(ask)
}

fn issue(codes: Vec<String>, users: Users) -> Requests {
    Requests::Issue { codes, users, key: "first".to_owned() }
}

fn new(prefix: &str) -> Users {
    Users::New { prefix: prefix.to_owned() }
}

/// Each code asked for many times before the next: a small rush each.
fn one_after_the_other() -> Vec<String> {
    (1..=FOUGHT_CODES).flat_map(|number| std::iter::repeat_n(fought_code(number), FOUGHT_REQUESTS as usize)).collect()
}

async fn run(stage: &mut Stage, step: Step, ask: &Ask) -> anyhow::Result<Sample> {
    let plan = Plan {
        url: stage.url()?,
        connections: ask.connections,
        pace: ask.pace,
        until: ask.until,
        requests: ask.requests.clone(),
        expect: ask.expect.clone(),
        keep_acks: touches_tables(step.scenario),
    };
    let mut acks = Vec::new();
    if touches_tables(step.scenario) {
        // Sold out is said from memory when a whole scope is: of an exclusive event that has other coupons left, one code is not.
        let exclusive = !ask.given_away;
        if stage.admin().event().await?.exclusive_next != exclusive {
            stage.admin().put_event(exclusive, Window::default()).await?;
        }
        stage.fresh_round().await?;
    }
    if ask.given_away {
        acks.extend(load(give_away(&plan)).await?.acks()?);
        // A replica remembers that all is gone once it had to say so.
        load(strangers(&plan)).await?;
    }
    acks.extend(load(warm_up(&plan, step.scenario)).await?.acks()?);
    let load = Load::connect(plan).await?;
    let before = stage.before().await?;
    let outcome = load.run().await?;
    let after = stage.look().await?;
    let mut sample = Sample::of(step.scenario.to_string(), step.round, &outcome);
    counters(&mut sample, stage, &before, &after, &outcome)?;
    sample.broken = doubt(step.scenario, ask, &outcome);
    if touches_tables(step.scenario) {
        acks.extend(outcome.acks()?);
        judge(stage, &mut sample, &acks).await?;
    }
    Ok(sample)
}

fn touches_tables(scenario: Scenario) -> bool {
    !matches!(scenario, Scenario::Version(_) | Scenario::Refused)
}

/// Everybody who can have a piece of the coupon that is gone gets one.
fn give_away(plan: &Plan) -> Plan {
    let users = Users::Fixed { prefix: "g".to_owned(), count: u64::from(GONE_PIECES) };
    let requests = Requests::Issue { codes: vec![GONE.to_owned()], users, key: "given".to_owned() };
    Plan { requests, until: Until::Sent(GONE_PIECES.into()), pace: Pace::Closed, ..plan.clone() }
}

/// Users who come too late.
fn strangers(plan: &Plan) -> Plan {
    Plan { requests: issue(vec![GONE.to_owned()], new("s")), until: Until::Elapsed(WARM_UP), ..plan.clone() }
}

/// The same load for a moment, by other users. What is fought for must stay for the measurement.
fn warm_up(plan: &Plan, scenario: Scenario) -> Plan {
    let mut plan = Plan { until: Until::Elapsed(WARM_UP), ..plan.clone() };
    if let Requests::Issue { codes, users, .. } = &mut plan.requests {
        if let Users::New { prefix } = users {
            "w".clone_into(prefix);
        }
        if scenario == Scenario::Jump {
            *codes = vec![HOT.to_owned()];
        }
    }
    plan
}

/// What all counters say about the measurement.
fn counters(
    sample: &mut Sample,
    stage: &Stage,
    before: &Moment,
    after: &Moment,
    outcome: &Outcome,
) -> anyhow::Result<()> {
    sample.cpu_seconds = after.used.clone();
    for (part, used) in &mut sample.cpu_seconds {
        *used -= before.used.get(part).copied().unwrap_or(0.0);
    }
    let parts: f64 = sample.cpu_seconds.values().sum();
    let (machine, own) = (after.machine.since(before.machine), after.own - before.own);
    let others = (machine.all - machine.idle - machine.stolen - parts - own).max(0.0);
    sample.quiet = Quiet {
        all: machine.all,
        idle: machine.idle,
        others,
        stolen: machine.stolen,
        speed: stage.speed(before, after),
    };
    sample.cpu_seconds.insert("loader".to_owned(), outcome.cpu_seconds);
    sample.memory = stage.parts().memory()?;
    let nodes = stage.cluster().redis.len();
    (sample.redis_commands, sample.mysql) = after.asked.since(before.asked, nodes);
    sample.lock_wait_p99 = lock_wait(before, after).quantile(0.99).map(|seconds| seconds * 1_000.0);
    Ok(())
}

/// How long requests waited for the exclusive right between two moments, at all replicas.
fn lock_wait(before: &Moment, after: &Moment) -> Histogram {
    Histogram::between(&before.pages, &after.pages, "coupon_lock_wait_seconds", "result=\"granted\"")
}

/// Why a load has no figure; a fast refusal is no fast service.
fn doubt(scenario: Scenario, ask: &Ask, outcome: &Outcome) -> Option<String> {
    // A strategy that cannot keep up says so; its rate is that of its issues.
    let is_fine = |status: u16| ask.expect.contains(&status) || (scenario.is_strategy() && status == 503);
    let strange: Vec<_> = outcome.by_status.iter().filter(|(status, _)| !is_fine(*status)).collect();
    if let Some((status, count)) = strange.first() {
        return Some(format!("{count} answers with {status}"));
    }
    if outcome.errors.sum() > 0 {
        return Some(format!("{:?}", outcome.errors));
    }
    (outcome.answers == 0).then(|| "no answer that counts".to_owned())
}

async fn judge(stage: &mut Stage, sample: &mut Sample, acks: &[Ack]) -> anyhow::Result<()> {
    let report = stage.verify(acks).await?;
    if !report.is_clean() {
        sample.broken = Some(report.verdict());
    }
    Ok(())
}

async fn fought(stage: &Stage, sample: &mut Sample) -> anyhow::Result<()> {
    let audit = stage.admin().audit().await?;
    let Some(jump) = Jump::of(audit.coupons.iter().filter(|it| it.code.starts_with("F-"))) else {
        sample.broken = Some("no code was sold out with a loser".to_owned());
        return Ok(());
    };
    #[expect(clippy::cast_precision_loss, reason = "hundreds")]
    let codes = jump.codes as f64;
    sample.figures.extend([("jumpP50", jump.p50), ("jumpP95", jump.p95), ("jumpMax", jump.max), ("jumpCodes", codes)]);
    Ok(())
}
