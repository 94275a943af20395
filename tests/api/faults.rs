//! A database that fails: connections cut at every point of an issue, and data that is refused.
//! Nobody loses a coupon, nobody gets two, and asking again with the same key yields the entry.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use futures_util::future::join_all;

use crate::support::{Answer, Cluster, Fault, FaultProxy, SOON, SOUND, Setup, eventually, pace, until};

/// Users that ask at the same time while something breaks.
const USERS: usize = 2;

/// A replica behind a proxy. One connection for transactions, so that it is known which one breaks.
fn setup(strategy: &str) -> Setup {
    Setup::new(strategy).sure_of_nodes().replicas(0).coupons([("A", 100_000)]).set("--pool-size", 1)
}

/// A cluster of one such replica, and its proxy.
async fn proxied(strategy: &str) -> (Cluster, FaultProxy) {
    let mut cluster = setup(strategy).start().await;
    let proxy = cluster.join_through_proxy().await;
    (cluster, proxy)
}

/// `USERS` new users ask at once while something breaks, and after `heal` again until they have it. Each gets exactly one
/// entry, whatever the first answer was.
async fn ask_through(cluster: &Cluster, name: &str, heal: impl FnOnce()) -> [u16; USERS] {
    let user = |number: usize| format!("{name}-{number}");
    let firsts =
        join_all((0..USERS).map(|number| async move { cluster.issue(0, "A", &user(number), "k").await })).await;
    heal();
    let told = std::array::from_fn(|number| firsts[number].status);
    for (number, first) in firsts.into_iter().enumerate() {
        assert!(matches!(first.status, 200 | 201 | 503), "{name}: {} {}", first.status, first.text);
        let later = cluster.decided(0, "A", &user(number)).await;
        assert!(matches!(later.status, 200 | 201), "{name}: {} {}", later.status, later.text);
        if first.status != 503 {
            assert_eq!((later.status, later.json()), (200, first.json()), "{name}");
        }
    }
    told
}

/// Every user that asked has one coupon, and the books are right.
async fn finish(cluster: Cluster) {
    let users = cluster.number("SELECT COUNT(DISTINCT user_id) FROM wallet").await;
    assert_eq!(cluster.number("SELECT COUNT(*) FROM wallet").await, users);
    cluster.finish().await;
}

/// Cuts a connection that is in use already at each of its next turns. `statements` is what one issue sends.
async fn cut_at_every_statement(strategy: &str, statements: u32) {
    let (cluster, proxy) = proxied(strategy).await;
    for fault in [Fault::Unsent, Fault::Orphaned, Fault::Unanswered] {
        for turn in 1..=statements {
            assert_eq!(cluster.decided(0, "A", &format!("warm-{fault:?}-{turn}")).await.status, 201);
            let before = cluster.unknown_outcomes(0).await;
            proxy.break_existing(turn, fault);
            ask_through(&cluster, &format!("{fault:?}-{turn}"), || proxy.heal()).await;
            let after = cluster.unknown_outcomes(0).await;
            assert!(after > before, "{strategy}: {fault:?} at turn {turn} was not noticed");
        }
    }
    finish(cluster).await;
}

/// Cuts every new connection at each of its turns: connecting, authenticating, preparing, issuing. `own` is how many of them
/// are turns of an order at least, because its statements are prepared or carried out: one fewer than it has, for what the server sends
/// unasked after the TLS handshake makes one turn more or not, and so a turn may be met twice and another not at all.
async fn cut_at_every_turn_of_a_new_connection(strategy: &str, own: usize) {
    /// Greeting to COMMIT, with every statement prepared first; the next order may come on the same connection.
    const TURNS: u32 = 20;
    let (cluster, proxy) = proxied(strategy).await;
    for fault in [Fault::Unsent, Fault::Unanswered] {
        let (mut met_an_order, mut met_nobody) = (vec![], vec![]);
        for turn in 1..=TURNS {
            let before = (proxy.struck(), cluster.unknown_outcomes(0).await);
            proxy.break_new(turn, fault);
            proxy.cut();
            ask_through(&cluster, &format!("new-{fault:?}-{turn}"), || proxy.heal()).await;
            if proxy.struck() == before.0 {
                met_nobody.push(turn);
            }
            // One may be the call for which the old connection was cut.
            if cluster.unknown_outcomes(0).await - before.1 > 1.0 {
                met_an_order.push(turn);
            }
        }
        assert!(met_an_order.len() >= own, "{strategy}: {fault:?} met an order at {met_an_order:?} alone");
        assert!(met_nobody.iter().all(|turn| *turn > 4), "{strategy}: {fault:?} met nobody at {met_nobody:?}");
    }
    finish(cluster).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cut_at_any_statement_of_batched_costs_nobody_a_coupon_and_gives_nobody_two() {
    cut_at_every_statement("batched", 1).await;
    cut_at_every_turn_of_a_new_connection("batched", 1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cut_at_any_statement_of_conditional_costs_nobody_a_coupon_and_gives_nobody_two() {
    cut_at_every_statement("conditional", 4).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cut_at_any_statement_of_optimistic_costs_nobody_a_coupon_and_gives_nobody_two() {
    cut_at_every_statement("optimistic", 5).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cut_at_any_statement_of_pessimistic_costs_nobody_a_coupon_and_gives_nobody_two() {
    cut_at_every_statement("pessimistic", 5).await;
    cut_at_every_turn_of_a_new_connection("pessimistic", 7).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cut_at_any_statement_of_redlock_costs_nobody_a_coupon_and_gives_nobody_two() {
    cut_at_every_statement("redlock", 4).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_that_falls_silent_costs_nobody_a_coupon_and_gives_nobody_two() {
    let cases = [("batched", 1), ("conditional", 2), ("pessimistic", 3), ("redlock", 4)];
    join_all(cases.map(|(strategy, turn)| async move {
        let (cluster, proxy) = proxied(strategy).await;
        for fault in [Fault::Frozen, Fault::FrozenAnswer] {
            assert_eq!(cluster.decided(0, "A", &format!("warm-{fault:?}")).await.status, 201);
            let before = cluster.unknown_outcomes(0).await;
            proxy.break_existing(turn, fault);
            let told = ask_through(&cluster, &format!("{fault:?}"), || proxy.heal()).await;
            // The silent connection has given up its place: the same work is run again on another, within the deadline.
            assert!(told.iter().all(|status| *status < 300), "{strategy}: {fault:?}: {told:?}");
            assert!(cluster.unknown_outcomes(0).await > before, "{strategy}: {fault:?}");
        }
        finish(cluster).await;
    }))
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_that_is_not_made_in_time_is_made_again_within_the_deadline() {
    /// Longer than the wait for one connection.
    const SILENT: Duration = Duration::from_millis(1_500);
    join_all(SOUND.map(|strategy| async move {
        let (cluster, proxy) = proxied(strategy).await;
        assert_eq!(cluster.decided(0, "A", "warm").await.status, 201);
        proxy.silence();
        proxy.cut();
        let heal = async {
            tokio::time::sleep(SILENT).await;
            proxy.heal();
        };
        let (answer, ()) = tokio::join!(cluster.issue(0, "A", "u-1", "k"), heal);
        assert_eq!(answer.status, 201, "{strategy}: {}", answer.text);
        // The runs for which there was no connection are no batches.
        let batches = if strategy == "batched" { 2.0 } else { 0.0 };
        assert_eq!(cluster.metric(0, "coupon_batch_size_count").await, batches, "{strategy}");
        finish(cluster).await;
    }))
    .await;
}

/// Lets a user's order get as far as its row, plans what befalls its connection at the `turn`-th statement from there, and lets it go on.
/// Counted from before the order, sqlx's own question whether the connection lives could be among the statements, or not.
async fn ask_and_break(cluster: &Cluster, proxy: &FaultProxy, user: &str, turn: u32, fault: Fault) -> Answer {
    let row = cluster.hold("A").await;
    let strike = async {
        eventually("the order waits for its row", async || cluster.waiting_for_rows().await == 1).await;
        proxy.break_existing(turn, fault);
        row.release().await;
    };
    tokio::join!(cluster.issue(0, "A", user, "k"), strike).0
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_that_a_firewall_has_forgotten_cost_an_order_no_more_than_a_question() {
    join_all(["batched", "conditional", "pessimistic"].map(|strategy| async move {
        let (cluster, proxy) = proxied(strategy).await;
        for turn in 1..=2 {
            assert_eq!(cluster.decided(0, "A", &format!("warm-{turn}")).await.status, 201);
            // All but the memory's own, which never rests.
            let forgotten = until("the connection rests", SOON, async || {
                let forgotten = proxy.break_idle(Duration::from_millis(1_100), Fault::Frozen);
                if forgotten > 0 { Ok(forgotten) } else { Err("none does") }
            })
            .await;
            let answer = cluster.issue(0, "A", &format!("u-{turn}"), "k").await;
            assert_eq!(answer.status, 201, "{strategy}: {}", answer.text);
            // The question was lost; no order was.
            assert!((1..=turn as usize * forgotten).contains(&(proxy.struck() as usize)), "{strategy}: {turn}");
            assert_eq!(cluster.unknown_outcomes(0).await, 0.0, "{strategy}: {turn}");
        }
        finish(cluster).await;
    }))
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_that_vanishes_in_the_middle_of_a_transaction_does_not_keep_the_row() {
    join_all(["conditional", "optimistic", "pessimistic", "redlock"].map(|strategy| async move {
        let (cluster, proxy) = proxied(strategy).await;
        assert_eq!(cluster.decided(0, "A", "warm").await.status, 201);
        let answer = ask_and_break(&cluster, &proxy, "u-1", 1, Fault::Vanished).await;
        assert!(matches!(answer.status, 201 | 503), "{strategy}: {}", answer.text);
        proxy.heal();
        for user in ["u-1", "u-2"] {
            let later = cluster.decided(0, "A", user).await;
            assert!(matches!(later.status, 200 | 201), "{strategy}: {}", later.text);
        }
        // The first is the statement that vanished.
        assert!(cluster.given_up(0).await > 1.0, "{strategy}: no row was locked");
        finish(cluster).await;
    }))
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_connections_during_a_race_break_no_promise() {
    join_all(["batched", "conditional", "pessimistic", "redlock"].map(storm)).await;
}

/// Two replicas race for every code while the server kills all their connections again and again.
async fn storm(strategy: &str) {
    const CODES: usize = 2;
    const STOCK: u32 = 15;
    const ASKERS: usize = 25;
    const KILLS: usize = 40;
    let coupons = (0..CODES).map(|code| (format!("R{code}"), STOCK));
    let cluster = Setup::new(strategy).sure_of_nodes().coupons(coupons).set("--pool-size", 4).start().await;
    let asks = (0..CODES * ASKERS).flat_map(|ask| [(ask, 0), (ask, 1)]).map(|(ask, replica)| {
        let (cluster, code, user) = (&cluster, format!("R{}", ask % CODES), format!("u-{}", ask / CODES));
        async move { (code.clone(), cluster.decided(replica, &code, &user).await) }
    });
    let rows = cluster.hold("R%").await;
    let kills = async {
        eventually("an order waits for its row", async || cluster.waiting_for_rows().await > 0).await;
        cluster.kill_connections().await;
        rows.release().await;
        kill(&cluster, KILLS).await
    };
    let (answers, killed) = tokio::join!(join_all(asks), kills);
    assert!(killed >= KILLS, "{strategy}: only {killed} connections were killed");
    let unknown = cluster.unknown_outcomes(0).await + cluster.unknown_outcomes(1).await;
    assert!(unknown > 0.0, "{strategy}: no kill met an order");
    for code in (0..CODES).map(|code| format!("R{code}")) {
        let winners: Vec<&Answer> =
            answers.iter().filter(|(of, it)| *of == code && it.status < 300).map(|(_, it)| it).collect();
        let serials: HashSet<_> = winners.iter().map(|it| it.member("serial").as_u64()).collect();
        assert_eq!((winners.len(), serials.len()), (2 * STOCK as usize, STOCK as usize), "{strategy}: {code}");
        let losers = answers.iter().filter(|(of, it)| *of == code && it.status == 410).count();
        assert_eq!(losers, 2 * (ASKERS - STOCK as usize), "{strategy}: {code}");
    }
    cluster.finish().await;
}

/// Every 30 ms: kills all connections of the service to this database, until that many are gone.
async fn kill(cluster: &Cluster, least: usize) -> usize {
    let (mut killed, started, mut pace) = (0, Instant::now(), pace(Duration::from_millis(30)));
    while killed < least {
        assert!(started.elapsed() < 3 * SOON, "only {killed} of {least} connections could be killed");
        killed += cluster.kill_connections().await;
        pace.tick().await;
    }
    killed
}

#[tokio::test]
async fn connections_that_died_while_nobody_used_them_fail_nobody() {
    const CODES: u8 = 4;
    /// Longer than the service trusts an idle connection, however the server rounds.
    const IDLE_SECONDS: u32 = 3;
    let codes = (0..CODES).map(|code| format!("C{code}"));
    let cluster = Setup::new("batched").replicas(1).coupons(codes.clone().map(|code| (code, 10))).start().await;
    let rows = cluster.hold("C%").await;
    let asks = codes.map(|code| {
        let cluster = &cluster;
        async move { cluster.issue(0, &code, "u-1", "k").await }
    });
    let open_all = async {
        eventually("all wait", async || cluster.waiting_for_rows().await == i64::from(CODES)).await;
        rows.release().await;
    };
    let (answers, ()) = tokio::join!(join_all(asks), open_all);
    assert!(answers.iter().all(|answer| answer.status == 201), "{answers:?}");
    // The memory's own connection never rests.
    eventually("the others have rested", async || cluster.connections_used_within(IDLE_SECONDS).await.len() <= 1).await;
    assert!(cluster.kill_connections().await > usize::from(CODES));
    for turn in 0..CODES {
        let wallet = cluster.get(0, "/users/u-1/coupons").await;
        assert_eq!(wallet.status, 200, "{turn}: {}", wallet.text);
        let answer = cluster.issue(0, &format!("C{turn}"), "u-2", "k").await;
        assert_eq!(answer.status, 201, "{}", answer.text);
    }
    assert_eq!(cluster.unknown_outcomes(0).await, 0.0);
    cluster.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_that_died_just_after_they_were_used_cost_an_order_one_of_its_runs() {
    /// More than an order has runs.
    const CODES: u8 = 4;
    join_all(["batched", "pessimistic"].map(|strategy| async move {
        let codes = (0..CODES).map(|code| format!("C{code}"));
        let setup = Setup::new(strategy).sure_of_nodes().replicas(0).coupons(codes.clone().map(|code| (code, 10)));
        let mut cluster = setup.start().await;
        let proxy = cluster.join_through_proxy().await;
        let rows = cluster.hold("C%").await;
        let asks = codes.map(|code| {
            let cluster = &cluster;
            async move { cluster.issue(0, &code, "u-1", "k").await.status }
        });
        let open_all = async {
            eventually("all wait", async || cluster.waiting_for_rows().await == i64::from(CODES)).await;
            rows.release().await;
        };
        let (told, ()) = tokio::join!(join_all(asks), open_all);
        assert_eq!(told, [201; CODES as usize], "{strategy}");
        let before = cluster.unknown_outcomes(0).await;

        proxy.cut();

        let answer = cluster.issue(0, "C0", "u-2", "k").await;
        assert_eq!(answer.status, 201, "{strategy}: {}", answer.text);
        assert!(cluster.unknown_outcomes(0).await <= before + 1.0, "{strategy}");
        cluster.finish().await;
    }))
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_poisoned_batch_is_split_until_the_bad_request_stands_alone() {
    const TOGETHER: usize = 9;
    let cluster = Setup::new("batched").patient().replicas(1).start().await;
    cluster
        .run(
            "CREATE TRIGGER poison BEFORE INSERT ON wallet FOR EACH ROW \
             IF NEW.user_id = 'u-4' THEN SIGNAL SQLSTATE '22001' SET MYSQL_ERRNO = 1406, MESSAGE_TEXT = 'poison'; END IF",
        )
        .await;
    // Nobody gets the lock until all wait for it, so all are in one batch.
    let lock = cluster.hold_lock("A").await;
    let asks = (0..TOGETHER).map(|user| {
        let cluster = &cluster;
        async move { cluster.issue(0, "A", &format!("u-{user}"), "k").await }
    });
    let release = async {
        let all = || async { cluster.metric(0, "coupon_queue_depth").await == TOGETHER as f64 };
        eventually("all wait", async || all().await).await;
        lock.release().await;
    };
    let (answers, ()) = tokio::join!(join_all(asks), release);
    for (user, answer) in answers.iter().enumerate() {
        assert_eq!(answer.status, if user == 4 { 503 } else { 201 }, "u-{user}: {}", answer.text);
    }
    assert_eq!(answers[4].member("type"), "/problems/unavailable");
    let serials: HashSet<_> = answers.iter().filter_map(|it| it.member("serial").as_u64()).collect();
    assert_eq!(serials, (1..TOGETHER as u64).collect());
    // Its neighbours in later batches are not held up either, and once the data is taken it gets its coupon, too.
    assert_eq!(cluster.issue(0, "A", "u-4", "k").await.status, 503);
    assert_eq!(cluster.issue(0, "A", "u-10", "k").await.status, 201);
    cluster.run("DROP TRIGGER poison").await;
    assert_eq!(cluster.issue(0, "A", "u-4", "k").await.member("serial"), 10);
    cluster.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_that_outlives_its_connection_and_its_own_rerun_issue_once() {
    let (cluster, proxy) = proxied("batched").await;
    assert_eq!(cluster.issue(0, "A", "warm", "k").await.status, 201);
    let row = cluster.hold("A").await;
    proxy.break_existing(1, Fault::Orphaned);
    let release = async {
        eventually("orphan and rerun wait for the row", async || cluster.waiting_for_rows().await >= 2).await;
        row.release().await;
    };
    let (answer, ()) = tokio::join!(cluster.issue(0, "A", "u-1", "k"), release);
    assert!(matches!(answer.status, 200 | 201), "{}", answer.text);
    let again = cluster.decided(0, "A", "u-1").await;
    assert_eq!((again.status, again.json()), (200, answer.json()));
    finish(cluster).await;
}
