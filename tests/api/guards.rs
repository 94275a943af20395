//! The checker has teeth: with one guard taken away, it finds what the guard kept out; with all guards in place, the same
//! races show nothing. A race is a code of its own with tiny stock.

use std::ops::Range;

use coupon_lab::history::Told;
use coupon_lab::verify::{Kind, Report};
use futures_util::future::join_all;
use serde_json::json;
use sqlx::{AssertSqlSafe, Executor};

use crate::support::{Cluster, Fault, FaultProxy, Recorder, Setup, eventually};

/// Pieces per race.
const STOCK: u32 = 5;
/// Users per race.
const USERS: usize = 20;
/// Races at the same time.
const TOGETHER: usize = 8;
/// Races within which a missing guard must have shown.
const RACES: usize = 200;
/// Races that must show nothing while every guard is in place.
const QUIET_RACES: usize = 40;

/// The procedure as it is migrated.
const PROCEDURE: &str = include_str!("../../migrations/0004_issue_batch.sql");

/// What the clients of a race do when they do not know whether they got a coupon.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Doubt {
    /// Ask again with the same key.
    AskAgain,
    /// Read the wallet, and believe it.
    ReadWallet,
}

fn code(race: usize) -> String {
    format!("R{race}")
}

/// A database for that many races; its replicas come when the guard is gone.
async fn prepare(races: usize) -> Cluster {
    Setup::new("batched").replicas(0).coupons((0..races).map(|race| (code(race), STOCK))).start().await
}

/// Two replicas that meet nowhere but in the database.
async fn populate(cluster: &mut Cluster) {
    for _ in 0..2 {
        cluster.join_with_own_lock().await;
    }
}

/// Replaces parts of the procedure; every one of them must be in it.
async fn rewrite(cluster: &Cluster, changes: &[(&str, &str)]) {
    let mut procedure = PROCEDURE.to_owned();
    for (old, new) in changes {
        assert!(procedure.contains(old), "the procedure has no {old:?}");
        procedure = procedure.replace(old, new);
    }
    let mut sql = cluster.sql().await;
    sql.execute("DROP PROCEDURE issue_batch").await.unwrap();
    sql.execute(AssertSqlSafe(procedure)).await.unwrap();
    // The right to call it went with the old one.
    let mysql = cluster.servers.mysql.as_ref().unwrap();
    coupon_rush::store::migrate(&mysql.admin_url, &cluster.database_url()).await.unwrap();
}

/// Every user asks both replicas at once, by two requests.
async fn click_twice(recorder: &Recorder<'_>, race: usize) {
    let asks = (0..USERS).flat_map(|user| [(user, 0, "k"), (user, 1, "l")]).map(|(user, replica, key)| async move {
        recorder.insist(replica, &code(race), &format!("u-{user}"), key).await;
    });
    join_all(asks).await;
}

/// The races at the same time, from the first on, until one shows `kind`, if it ever does.
async fn races(cluster: &Cluster, many: usize, kind: Option<Kind>) -> Report {
    let mut first = 0;
    loop {
        let volley: Range<usize> = first..(first + TOGETHER).min(many);
        let recorder = Recorder::new(cluster);
        join_all(volley.clone().map(|race| click_twice(&recorder, race))).await;
        let report = recorder.judge().await;
        if volley.end == many || kind.map_or(!report.is_clean(), |kind| shows(&report, kind)) {
            return report;
        }
        first = volley.end;
    }
}

fn shows(report: &Report, kind: Kind) -> bool {
    report.findings.iter().any(|finding| finding.kind == kind)
}

/// All users of a race ask one replica. When all are answered, every connection to the database is killed; then every user
/// without a decision asks again.
async fn lose_connections(cluster: &Cluster, race: usize) -> Report {
    let (recorder, code, replica) = (Recorder::new(cluster), code(race), race % 2);
    let asks = (0..USERS).map(|user| {
        let (recorder, code) = (&recorder, &code);
        async move { recorder.ask(replica, code, &format!("u-{user}"), "k").await }
    });
    let told = join_all(asks).await;
    cluster.kill_connections().await;
    for (user, _) in told.iter().enumerate().filter(|(_, told)| !told.is_final()) {
        recorder.insist(1 - replica, &code, &format!("u-{user}"), "k").await;
    }
    recorder.judge().await
}

/// One user's connection to the database breaks with the call on its way, which waits for the row. The client hangs up and
/// resolves its doubt; then the call goes on.
async fn leave_in_doubt(cluster: &Cluster, proxy: &FaultProxy, race: usize, doubt: Doubt) -> Report {
    let (recorder, code) = (Recorder::new(cluster), code(race));
    let row = cluster.hold(&code).await;
    proxy.break_existing(1, Fault::Orphaned);
    let waits = eventually("the call waits for the row", async || cluster.waiting_for_rows().await > 0);
    recorder.hang_up(0, &code, "u-1", "k", waits).await;
    if doubt == Doubt::ReadWallet {
        let wallet = cluster.get(1, "/users/u-1/coupons").await.json();
        assert_eq!(wallet, json!([]), "the call has not waited");
        recorder.conclude(&code, "u-1", "k", Told::SoldOut);
    }
    row.release().await;
    proxy.heal();
    if doubt == Doubt::AskAgain {
        recorder.insist(1, &code, "u-1", "k").await;
    }
    let rows = format!("SELECT COUNT(*) FROM wallet JOIN coupon ON coupon.id = coupon_id WHERE code = '{code}'");
    eventually("the call goes through", async || cluster.number(&rows).await == 1).await;
    recorder.judge().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_the_row_lock_an_oversell_is_found() {
    let mut cluster = prepare(RACES).await;
    // The other guards would turn most of these races into errors.
    cluster.run("ALTER TABLE wallet DROP KEY wallet_serial").await;
    let clamped = "remaining = GREATEST(CAST(remaining AS SIGNED) - CAST(v_issued AS SIGNED), 0)";
    rewrite(&cluster, &[(" FOR UPDATE", ""), ("remaining = remaining - v_issued", clamped)]).await;
    populate(&mut cluster).await;
    let report = races(&cluster, RACES, Some(Kind::Oversold)).await;
    assert!(shows(&report, Kind::Oversold), "{report}");
    assert!(shows(&report, Kind::SerialTwice), "{report}");
    cluster.discard().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_the_key_on_users_a_second_coupon_is_found() {
    let mut cluster = prepare(RACES).await;
    cluster.run("ALTER TABLE wallet DROP PRIMARY KEY, ADD KEY holders (round, scope, user_id)").await;
    populate(&mut cluster).await;
    let report = races(&cluster, RACES, Some(Kind::UserTwice)).await;
    assert!(shows(&report, Kind::UserTwice), "{report}");
    assert!(shows(&report, Kind::IssuedTwice), "{report}");
    cluster.discard().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_before_the_commit_is_found_when_a_connection_dies() {
    let mut cluster = prepare(RACES).await;
    rewrite(&cluster, &[("  COMMIT;\n", "")]).await;
    populate(&mut cluster).await;
    let mut race = 0;
    let report = loop {
        let report = lose_connections(&cluster, race).await;
        race += 1;
        if shows(&report, Kind::AckLost) || race == RACES {
            break report;
        }
    };
    assert!(shows(&report, Kind::AckLost), "{report}");
    cluster.discard().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wallet_taken_as_proof_is_found_when_the_call_goes_through_after_all() {
    let mut cluster = prepare(3).await;
    let proxy = cluster.join_through_proxy().await;
    cluster.join_with_own_lock().await;
    assert_eq!(cluster.issue(0, &code(2), "warm", "k").await.status, 201);
    let report = leave_in_doubt(&cluster, &proxy, 0, Doubt::ReadWallet).await;
    assert!(shows(&report, Kind::SoldOutHolder) && shows(&report, Kind::FalseSoldOut), "{report}");
    let report = leave_in_doubt(&cluster, &proxy, 1, Doubt::AskAgain).await;
    assert!(report.is_clean(), "{report}");
    cluster.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_every_guard_in_place_the_same_races_show_nothing() {
    let mut cluster = prepare(2 * QUIET_RACES).await;
    populate(&mut cluster).await;
    let report = races(&cluster, QUIET_RACES, None).await;
    assert!(report.is_clean(), "{report}");
    for race in QUIET_RACES..2 * QUIET_RACES {
        let report = lose_connections(&cluster, race).await;
        assert!(report.is_clean(), "race {race}: {report}");
    }
    cluster.finish().await;
}

#[tokio::test]
async fn the_server_has_a_commit_on_disk_before_it_says_so() {
    let cluster = Setup::new("batched").replicas(0).start().await;
    for setting in ["innodb_flush_log_at_trx_commit", "sync_binlog"] {
        assert_eq!(cluster.number(&format!("SELECT @@GLOBAL.{setting}")).await, 1, "{setting}");
    }
    cluster.finish().await;
}
