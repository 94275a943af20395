//! The life of a replica as a process: how it starts, stops and dies.

use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};

use futures_util::future::join_all;
use serde_json::Value;
use tokio::net::TcpStream;

use crate::support::{Answer, Cluster, FaultProxy, Process, Setup, eventually, redis_connection, sample};

/// The tables hold exactly what clients were told: as many rows, each with the serial its user knows.
async fn compare(cluster: &Cluster, acknowledged: &[Value]) {
    let rows = cluster.number("SELECT COUNT(*) FROM wallet").await;
    assert_eq!(usize::try_from(rows).unwrap(), acknowledged.len(), "rows and acknowledgements");
    for entry in acknowledged {
        let (user, serial) = (entry["userId"].as_str().unwrap(), &entry["serial"]);
        let query = format!("SELECT COUNT(*) FROM wallet WHERE user_id = '{user}' AND serial = {serial}");
        assert_eq!(cluster.number(&query).await, 1, "{entry}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stopping_replica_answers_everything_it_has_accepted() {
    const ASKS: usize = 20;
    for strategy in ["batched", "redlock", "pessimistic"] {
        let cluster = Setup::new(strategy).replicas(0).coupons([("A", 100)]).start().await;
        let mut replica = Process::replica(&cluster.arguments()).await;
        let row = cluster.hold("A").await;
        let users: Vec<_> = (0..ASKS).map(|user| format!("u-{user}")).collect();
        let asks = join_all(users.iter().map(|user| replica.issue(&cluster.client, "A", user)));
        let stop = async {
            let in_hand = async || sample(&cluster.client, &replica.ops_url, "coupon_in_flight").await as usize == ASKS;
            eventually("all are accepted", in_hand).await;
            replica.signal("TERM");
            let address = replica.url.strip_prefix("http://").unwrap();
            eventually("nobody new is let in", async || TcpStream::connect(address).await.is_err()).await;
            let ready = cluster.client.get(&format!("{}/readyz", replica.ops_url)).await;
            assert_eq!((ready.status, ready.member("draining")), (503, true.into()), "{strategy}");
            row.release().await;
        };
        let (answers, ()) = tokio::join!(asks, stop);
        for answer in &answers {
            assert_eq!(answer.status, 201, "{strategy}: {}", answer.text);
        }
        assert!(replica.ended().await, "{strategy}: the exit code is not 0");
        compare(&cluster, &answers.iter().map(Answer::json).collect::<Vec<_>>()).await;
        assert_eq!(cluster.held_locks().await, Vec::<String>::new(), "{strategy}");
        cluster.finish().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stop_under_load_loses_no_acknowledged_coupon_and_issues_none_unheard() {
    let cluster = Setup::new("batched").replicas(0).coupons([("A", 100_000)]).start().await;
    let mut replica = Process::replica(&cluster.arguments()).await;
    let done = AtomicUsize::new(0);
    let clients = (0..16).map(|client| {
        let (cluster, replica, done) = (&cluster, &replica, &done);
        async move {
            let mut entries = Vec::new();
            loop {
                let answer = replica.issue(&cluster.client, "A", &format!("u-{client}-{}", entries.len())).await;
                if answer.status == 0 {
                    return entries;
                }
                assert_eq!(answer.status, 201, "{}", answer.text);
                entries.push(answer.json());
                done.fetch_add(1, Ordering::Relaxed);
            }
        }
    });
    let stop = async {
        eventually("the load is on", async || done.load(Ordering::Relaxed) >= 300).await;
        replica.signal("TERM");
    };
    let (entries, ()) = tokio::join!(join_all(clients), stop);
    assert!(replica.ended().await, "the exit code is not 0");
    let entries = entries.concat();
    let rows = cluster.number("SELECT COUNT(*) FROM wallet").await;
    assert_eq!(usize::try_from(rows).unwrap(), entries.len(), "rows and acknowledgements");
    assert_eq!(cluster.held_locks().await, Vec::<String>::new());
    cluster.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drain_whose_time_runs_out_ends_the_process_and_costs_nobody_a_coupon() {
    let cluster = Setup::new("batched").replicas(1).start().await;
    let mut arguments = cluster.arguments();
    arguments.push(("--drain-ms".to_owned(), "300".to_owned()));
    let mut stopping = Process::replica(&arguments).await;
    let row = cluster.hold("A").await;
    let ask = stopping.issue(&cluster.client, "A", "u-1");
    let stop = async {
        eventually("the call waits for the row", async || cluster.waiting_for_rows().await == 1).await;
        stopping.signal("TERM");
    };
    let (cut_off, ()) = tokio::join!(ask, stop);
    // The row is still held: the process can only have ended because its time was over.
    assert_eq!(cut_off.status, 0, "{}", cut_off.text);
    assert!(stopping.ended().await, "the exit code is not 0");
    row.release().await;
    let again = cluster.decided(0, "A", "u-1").await;
    assert!(matches!(again.status, 200 | 201), "{}", again.text);
    assert_eq!(cluster.number("SELECT COUNT(*) FROM wallet").await, 1);
    cluster.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_holder_costs_the_others_its_lease_on_that_code_and_nothing_on_others() {
    let cluster = Setup::new("batched")
        .replicas(1)
        .coupons([("A", 10), ("B", 10)])
        .set("--lock-ttl-ms", 4_000)
        .set("--request-deadline-ms", 10_000)
        .start()
        .await;
    let mut holder = Process::replica(&cluster.arguments()).await;
    let row = cluster.hold("A").await;
    let cut_off = holder.issue(&cluster.client, "A", "u-1");
    let kill = async {
        eventually("the call waits for the row", async || cluster.waiting_for_rows().await == 1).await;
        holder.signal("KILL");
    };
    let (cut_off, ()) = tokio::join!(cut_off, kill);
    assert_eq!(cut_off.status, 0);
    assert!(!holder.ended().await);
    row.release().await;

    let others = async {
        for user in 0..5 {
            assert_eq!(cluster.issue(0, "B", &format!("u-{user}"), "k").await.status, 201);
        }
        let mut node = redis_connection(&cluster.servers.redis[0].url).await;
        redis::cmd("EXISTS").arg(cluster.lock_key("A")).query_async::<bool>(&mut node).await.unwrap()
    };
    let (next, still_held) = tokio::join!(cluster.issue(0, "A", "u-2", "k"), others);
    assert!(still_held, "the other code had to wait for the lease");
    assert_eq!(next.status, 201, "{}", next.text);
    let again = cluster.decided(0, "A", "u-1").await;
    assert!(matches!(again.status, 200 | 201), "{}", again.text);
    assert_eq!(cluster.number("SELECT COUNT(*) FROM wallet WHERE coupon_id = scope AND user_id = 'u-1'").await, 2);
    cluster.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_starts_without_a_database_and_gets_ready_when_it_comes() {
    let cluster = Setup::new("batched").replicas(0).start().await;
    let proxy = FaultProxy::start(cluster.database_address()).await.unwrap();
    proxy.refuse();
    let mut replica = Process::spawn(&cluster.arguments_through(&proxy));
    let get = async |path: &str| cluster.client.get(&format!("{}{path}", replica.ops_url)).await;
    eventually("the process lives", async || get("/livez").await.status == 200).await;
    let ready = get("/readyz").await;
    assert_eq!((ready.status, ready.member("database")), (503, false.into()));
    let answer = replica.issue(&cluster.client, "A", "u-1").await;
    assert_eq!((answer.status, answer.member("type")), (503, "/problems/unavailable".into()));
    assert_eq!(cluster.client.get(&format!("{}/version", replica.url)).await.status, 200);
    proxy.heal();
    eventually("it is ready", async || get("/readyz").await.status == 200).await;
    assert_eq!(replica.issue(&cluster.client, "A", "u-1").await.status, 201);
    // The same when it goes and comes back.
    proxy.refuse();
    eventually("it notices", async || get("/readyz").await.status == 503).await;
    assert_eq!(replica.issue(&cluster.client, "A", "u-2").await.status, 503);
    assert_eq!(get("/livez").await.status, 200);
    proxy.heal();
    eventually("it is ready again", async || get("/readyz").await.status == 200).await;
    eventually("it issues", async || replica.issue(&cluster.client, "A", "u-2").await.status < 300).await;
    replica.signal("TERM");
    assert!(replica.ended().await);
    cluster.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_an_event_a_replica_runs_says_once_what_is_missing_and_is_not_ready() {
    let cluster = Setup::new("batched").replicas(0).start().await;
    cluster.run("DELETE FROM coupon").await;
    cluster.run("DELETE FROM event").await;
    let log = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("{}.log", cluster.name));
    let mut replica = Process::spawn_telling(&cluster.arguments(), "warn", &log);
    let ready = async || cluster.client.get(&format!("{}/readyz", replica.ops_url)).await;
    let has_looked = |answer: Answer| answer.status == 503 && answer.member("database") == true;
    eventually("the replica has looked", async || has_looked(ready().await)).await;

    let missing = "there is no event yet: `coupon-rush seed` makes one";
    assert_eq!((ready().await.status, ready().await.member("detail")), (503, missing.into()));
    assert_eq!(replica.issue(&cluster.client, "A", "u-1").await.status, 503);
    let admin = cluster.servers.mysql.as_ref().unwrap().admin_url.clone();
    assert!(coupon_rush::store::seed(&admin, &cluster.database_url(), true).await.unwrap());
    eventually("it is ready", async || ready().await.status == 200).await;
    assert_eq!(replica.issue(&cluster.client, "A001", "u-1").await.status, 404, "no coupon was asked for");
    replica.signal("TERM");
    assert!(replica.ended().await);
    let said = std::fs::read_to_string(&log).unwrap();
    std::fs::remove_file(log).unwrap();
    assert_eq!(said.matches(missing).count(), 1, "{said}");
    cluster.finish().await;
}

/// A refusal that is read without the lock, and an order of a strategy that issues one by one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn why_the_database_decided_nothing_about_an_order_is_in_the_log() {
    join_all(["batched", "conditional"].map(|strategy| async move {
        let cluster = Setup::new(strategy).replicas(0).exclusive().coupons([("A", 1), ("B", 5)]).start().await;
        let log = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("{}.log", cluster.name));
        let mut replica = Process::spawn_telling(&cluster.arguments(), "warn", &log);
        let issues = async || matches!(replica.issue(&cluster.client, "A", "u-1").await.status, 200 | 201);
        eventually("it issues", issues).await;
        let coupon = format!("{}/coupons/A", replica.url);
        let state = async || cluster.client.get(&coupon).await.member("state");
        eventually("it knows that nothing is left", async || state().await == "sold-out").await;

        cluster.run("RENAME TABLE wallet TO elsewhere").await;
        assert_eq!(replica.issue(&cluster.client, "A", "u-2").await.status, 503, "{strategy}");
        cluster.run("RENAME TABLE elsewhere TO wallet").await;

        replica.signal("TERM");
        assert!(replica.ended().await);
        let said = std::fs::read_to_string(&log).unwrap();
        std::fs::remove_file(log).unwrap();
        assert!(said.contains("wallet' doesn't exist"), "{strategy}: {said}");
        cluster.finish().await;
    }))
    .await;
}
