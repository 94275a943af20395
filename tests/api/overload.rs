//! Overload: three times what the service can do. The database is slowed down on purpose, so that its capacity is small, and
//! about the same on every machine.

use std::convert::Infallible;
use std::future::pending;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use coupon_lab::load::{Errors, Outcome, Pace, Plan, Requests, Until, Users, load};
use futures_util::future::join_all;
use serde_json::json;

use crate::support::{BYTES_PER_ORDER, Client, Cluster, Process, Setup, alone, sample};

/// How long each load lasts.
const WINDOW: Duration = Duration::from_secs(6);

/// Longest time to an answer: short, so that a queue of old orders shows within the window.
const DEADLINE_MS: u32 = 2_500;

/// How much is offered of what can be done.
const OVERLOAD: f64 = 3.0;

/// The least share of the peak that must be left of it, and the least share of the coupons that callers must hear of.
const KEPT: f64 = 0.9;

/// Times that it is tried. What a service loses under overload it loses every time; what a machine is busy with it may be only once.
const TRIES: usize = 3;

/// What the allocator may keep in reserve: on a slow machine few orders wait, and then it is more than they take.
const IN_RESERVE: usize = 4 * 1024 * 1024;

/// How many times the clients that wait for the longest answer must be able to wait, so that a late answer keeps no request back.
const SPARE: f64 = 1.6;

/// What makes the database slow, and the crowd that keeps it busy all the same.
struct Brake {
    strategy: &'static str,
    /// Every so many pieces cost a pause.
    pieces: u32,
    pause_ms: u32,
    /// Clients that ask again as soon as they are answered: enough for full batches, few enough to be served in time.
    clients: usize,
}

impl Brake {
    async fn start(&self) -> (Cluster, Process) {
        let setup = Setup::new(self.strategy).replicas(0).coupons([("A", 100_000)]);
        let cluster = setup.set("--pool-size", 1).set("--request-deadline-ms", DEADLINE_MS).start().await;
        let (pieces, pause) = (self.pieces, f64::from(self.pause_ms) / 1e3);
        let trigger = format!(
            "CREATE TRIGGER brake BEFORE INSERT ON wallet FOR EACH ROW \
             IF NEW.serial % {pieces} = 0 THEN DO SLEEP({pause}); END IF"
        );
        cluster.run(&trigger).await;
        let replica = Process::replica(&cluster.arguments()).await;
        (cluster, replica)
    }
}

/// A load of new users with the longest ids, so that a batch holds the fewest orders.
async fn offer(replica: &Process, kind: &str, pace: Pace, connections: usize) -> Outcome {
    let users = Users::new(format!("{kind:x<25}"));
    let requests = Requests::Issue { codes: vec!["A".to_owned()], users, key: "k".to_owned() };
    let (url, until, expect) = (replica.url.clone(), Until::Elapsed(WINDOW), vec![201]);
    let outcome = load(Plan { url, connections, pace, until, requests, expect, keep_acks: true }).await.unwrap();
    println!("{kind}: {outcome}");
    outcome
}

/// Asks once; a user that is sent away must be told when to come back.
async fn ask(client: &Client, replica: &Process, user: String) -> u16 {
    let url = format!("{}/coupons/issue", replica.url);
    let answer = client.send("POST", &url, &[], Some(&json!({"code": "A", "userId": user}))).await;
    match answer.status {
        201 => assert_eq!(answer.header("retry-after"), ""),
        503 => assert!(("1"..="3").contains(&answer.header("retry-after")), "{:?}", answer.headers),
        other => panic!("{other}: {}", answer.text),
    }
    answer.status
}

/// What became of users that ask among the crowd.
#[derive(Default)]
struct PassersBy {
    served: AtomicU32,
    sent_away: AtomicU32,
}

impl PassersBy {
    /// One asks every tenth of a second, whatever becomes of those before; it never ends. A user that asked again as soon as it was
    /// answered would always be among the first of the next batch, and might never be sent away.
    async fn ask(&self, replica: &Process, crowd: &str) -> Infallible {
        const NUMBER: u32 = 60;
        let client = &Client::new();
        let passers_by = (0..NUMBER).map(|number| async move {
            tokio::time::sleep(number * WINDOW / NUMBER).await;
            let status = ask(client, replica, format!("{crowd}-passer-by-{number}")).await;
            let count = if status == 201 { &self.served } else { &self.sent_away };
            count.fetch_add(1, Ordering::Relaxed);
        });
        join_all(passers_by).await;
        pending().await
    }
}

async fn rows(cluster: &Cluster) -> u64 {
    u64::try_from(cluster.number("SELECT COUNT(*) FROM wallet").await).unwrap()
}

/// Coupons a second that these users got, by the database's clock: from the first batch to the last, so that it does not matter how many
/// batches end within a window.
async fn rate(cluster: &Cluster, users: &str) -> f64 {
    let first = format!("(SELECT MIN(issued_at) FROM wallet WHERE user_id LIKE '{users}')");
    let millis = format!(
        "SELECT SUM(issued_at > {first}) * 1e9 / TIMESTAMPDIFF(MICROSECOND, MIN(issued_at), MAX(issued_at)) \
           FROM wallet WHERE user_id LIKE '{users}'"
    );
    cluster.number(&millis).await as f64 / 1e3
}

/// The crowd, with a few passers-by among it that look at their answers closely. Returns what became of it, and how many passers-by
/// were served.
async fn overload(replica: &Process, name: &str, rate: f64, connections: usize) -> (Outcome, u32) {
    let others = PassersBy::default();
    let crowd = tokio::select! {
        crowd = offer(replica, name, Pace::Open(rate), connections) => crowd,
        never = others.ask(replica, name) => match never {},
    };
    assert!(others.sent_away.into_inner() > 0, "nobody was told when to come back");
    assert_eq!((crowd.errors, crowd.unsent), (Errors::default(), 0), "everybody is answered");
    let (served, sent_away) = (crowd.with_status(201), crowd.with_status(503));
    assert_eq!(served + sent_away, crowd.answered(), "{:?}", crowd.by_status);
    assert!(sent_away > served, "{served} served, {sent_away} sent away: no overload");
    (crowd, others.served.into_inner())
}

/// Measures the peak, offers three times that, and looks at what became of it. Rates are the database's, which the brake slows down: they
/// are compared with each other and with nothing else.
#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "some thousands"
)]
async fn goodput_survives(brake: Brake) {
    let _alone = alone().await;
    let (cluster, replica) = brake.start().await;
    let peak = offer(&replica, "peak", Pace::Closed, brake.clients).await;
    // A busy machine may send some away; the rate is what the database did.
    let sent_away = peak.with_status(503);
    assert!(peak.errors == Errors::default() && sent_away < peak.with_status(201), "{:?}", peak.by_status);

    let (peak_rate, before) = (rate(&cluster, "peak%").await, replica.memory().0);
    let offered = OVERLOAD * peak_rate;
    let waiting = offered * f64::from(DEADLINE_MS) / 1e3;
    let mut acks = peak.acks().unwrap();
    for time in 1..=TRIES {
        let (name, issued) = (format!("crowd-{time}"), rows(&cluster).await);
        let (crowd, others) = overload(&replica, &name, offered, (waiting * SPARE) as usize).await;
        acks.extend(crowd.acks().unwrap());
        let kept = rate(&cluster, &format!("{name}%")).await / peak_rate;
        let told = (crowd.with_status(201) + u64::from(others)) as f64 / (rows(&cluster).await - issued) as f64;
        println!("{}: kept {kept:.2}, told {told:.2}", brake.strategy);
        if kept >= KEPT && told >= KEPT {
            break;
        }
        assert!(time < TRIES, "{kept:.2} of the peak is left, and callers were told of {told:.2} of it");
    }
    let most = replica.memory().1;
    println!("{}: {before} -> {most} bytes with {waiting} orders", brake.strategy);
    let bound = (1.2 * waiting) as usize * BYTES_PER_ORDER + IN_RESERVE;
    assert!(most - before < bound, "{before} -> {most} bytes, {waiting} orders");
    recovers(&cluster, &replica).await;
    let report = coupon_lab::verify(&mut cluster.sql().await, Some(&acks)).await.unwrap();
    assert!(report.is_clean(), "{}", report.verdict());
    cluster.discard().await;
}

/// Every order was answered, so that nothing is left of the crowd.
async fn recovers(cluster: &Cluster, replica: &Process) {
    for user in 0..10 {
        assert_eq!(ask(&cluster.client, replica, format!("later-{user}")).await, 201);
    }
    for series in ["coupon_queue_depth", "coupon_in_flight"] {
        assert_eq!(sample(&cluster.client, &replica.ops_url, series).await, 0.0, "{series}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_times_the_capacity_leaves_batches_their_goodput() {
    goodput_survives(Brake { strategy: "batched", pieces: 20, pause_ms: 50, clients: 480 }).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_times_the_capacity_leaves_a_strategy_without_batches_its_goodput() {
    goodput_survives(Brake { strategy: "pessimistic", pieces: 1, pause_ms: 40, clients: 20 }).await;
}
