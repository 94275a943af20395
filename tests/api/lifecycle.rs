//! The life of a replica as a process: how it starts, refuses to start, stops and dies; and the subcommands beside `serve`.

use std::path::PathBuf;
use std::process::Output;
use std::sync::atomic::{AtomicUsize, Ordering};

use futures_util::future::join_all;
use serde_json::{Value, json};
use sqlx::{AssertSqlSafe, Executor};
use tokio::net::TcpStream;
use tokio::process::Command;

use crate::support::{
    ADMIN_TOKEN, Answer, Client, Cluster, FaultProxy, Process, SOON, Setup, eventually, redis_connection, sample,
};

async fn issue(client: &Client, process: &Process, code: &str, user: &str) -> Answer {
    let url = format!("{}/coupons/issue", process.url);
    client.send("POST", &url, &[("idempotency-key", "k")], Some(&json!({"code": code, "userId": user}))).await
}

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
        let asks = join_all(users.iter().map(|user| issue(&cluster.client, &replica, "A", user)));
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
                let answer = issue(&cluster.client, replica, "A", &format!("u-{client}-{}", entries.len())).await;
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
    let ask = issue(&cluster.client, &stopping, "A", "u-1");
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
    let cut_off = issue(&cluster.client, &holder, "A", "u-1");
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

/// Runs the binary to its end with nothing but these variables.
async fn run(subcommand: &str, variables: &[(&str, &str)]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_coupon-rush"));
    command.arg(subcommand).env_clear().envs(variables.iter().copied()).kill_on_drop(true);
    let ended = tokio::time::timeout(SOON, command.output()).await;
    ended.unwrap_or_else(|_| panic!("`{subcommand}` did not end with {variables:?}")).unwrap()
}

/// Settings with which no replica starts.
const BAD_SETTINGS: &[(&str, Option<&str>)] = &[
    ("DATABASE_URL", None),
    ("DATABASE_URL", Some("")),
    ("DATABASE_URL", Some("postgres://somewhere/db")),
    ("DATABASE_URL", Some("mysql://coupon:pw@127.0.0.1:3306")),
    ("DATABASE_URL", Some("mysql://coupon:pw@127.0.0.1:3306/db?ssl_mode=VERIFY_CA")),
    ("DATABASE_URL", Some("mysql://coupon:pw@127.0.0.1:3306/db?ssl-mode=SURELY")),
    ("DATABASE_URL_FILE", Some("/nonexistent/url")),
    ("ADMIN_TOKEN", None),
    ("ADMIN_TOKEN", Some("")),
    ("ADMIN_TOKEN", Some("short")),
    ("ADMIN_TOKEN", Some("changeme-changeme-changeme-changeme")),
    ("ADMIN_TOKEN", Some("00000000000000000000000000000000")),
    ("ADMIN_TOKEN_FILE", Some("/nonexistent/token")),
    ("REDIS_URLS", Some("redis://127.0.0.1:6379/,redis://127.0.0.1:6380/")),
    ("REDIS_URLS", Some("redis://127.0.0.1:6379/,redis://127.0.0.1:6380/,redis://127.0.0.1:6379/1")),
    ("REDIS_URLS", Some("http://127.0.0.1/")),
    ("REDIS_CA_FILE", Some("/nonexistent/ca.pem")),
    ("PROBE_TIMEOUT_MS", Some("9")),
    ("PROBE_TIMEOUT_MS", Some("401")),
    ("LOCK_TTL_MS", Some("10")),
    ("LOCK_TTL_MS", Some("soon")),
    ("STRATEGY", Some("hope")),
    ("ON_LOCK_LOSS", Some("panic")),
    ("LOG", Some("coupon_rush=loud")),
    ("LOG_FORMAT", Some("xml")),
    ("LAME_DUCK_MS", Some("60001")),
    ("POOL_SIZE", Some("0")),
    ("POOL_SIZE", Some("257")),
    ("REQUEST_DEADLINE_MS", Some("1")),
    ("REQUEST_DEADLINE_MS", Some("60001")),
    ("LOCK_TTL_MS", Some("60001")),
    ("THREADS", Some("0")),
    ("THREADS", Some("65")),
    ("REPLICA", Some("two words")),
    ("LISTEN", Some("here")),
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn start_up_refuses_a_bad_setting_by_its_name() {
    let cluster = Setup::new("batched").replicas(0).start().await;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (taken, url) = (listener.local_addr().unwrap().to_string(), cluster.database_url());
    let good = [
        ("DATABASE_URL", url.as_str()),
        ("ADMIN_TOKEN", ADMIN_TOKEN),
        ("LISTEN", "127.0.0.1:0"),
        ("OPS_LISTEN", "127.0.0.1:0"),
    ];
    let there = [("LISTEN", Some(taken.as_str())), ("OPS_LISTEN", Some(taken.as_str()))];
    for &(name, value) in BAD_SETTINGS.iter().chain(&there) {
        let mut variables: Vec<_> = good.into_iter().filter(|(known, _)| *known != name).collect();
        variables.extend(value.map(|value| (name, value)));
        let output = run("serve", &variables).await;
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success(), "{name}={value:?} was accepted");
        assert!(said.contains(name), "{name}={value:?}: {said}");
        for secret in ["postgres://somewhere/db", "short"] {
            assert!(name == "REPLICA" || !said.contains(secret), "{name}: a secret in {said}");
        }
    }
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
    let answer = issue(&cluster.client, &replica, "A", "u-1").await;
    assert_eq!((answer.status, answer.member("type")), (503, "/problems/unavailable".into()));
    assert_eq!(cluster.client.get(&format!("{}/version", replica.url)).await.status, 200);
    proxy.heal();
    eventually("it is ready", async || get("/readyz").await.status == 200).await;
    assert_eq!(issue(&cluster.client, &replica, "A", "u-1").await.status, 201);
    // The same when it goes and comes back.
    proxy.refuse();
    eventually("it notices", async || get("/readyz").await.status == 503).await;
    assert_eq!(issue(&cluster.client, &replica, "A", "u-2").await.status, 503);
    assert_eq!(get("/livez").await.status, 200);
    proxy.heal();
    eventually("it is ready again", async || get("/readyz").await.status == 200).await;
    eventually("it issues", async || issue(&cluster.client, &replica, "A", "u-2").await.status < 300).await;
    replica.signal("TERM");
    assert!(replica.ended().await);
    cluster.finish().await;
}

/// A database beside the cluster's own, and the variables of the steps that make it.
struct Fresh<'a> {
    cluster: &'a Cluster,
    name: String,
    variables: [(&'static str, String); 2],
}

impl<'a> Fresh<'a> {
    fn new(cluster: &'a Cluster) -> Self {
        let name = format!("{}_m", cluster.name);
        let url = cluster.database_url().replace(&format!("/{}", cluster.name), &format!("/{name}"));
        let admin = cluster.servers.mysql.as_ref().unwrap().admin_url.clone();
        Self { cluster, name, variables: [("DATABASE_URL", url), ("ADMIN_DATABASE_URL", admin)] }
    }

    /// What a step says when it succeeds.
    async fn step(&self, subcommand: &str) -> String {
        let variables: Vec<_> = self.variables.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let output = run(subcommand, &variables).await;
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    /// Rows of event, coupon and wallet.
    async fn rows(&self) -> [i64; 3] {
        let mut rows = [0; 3];
        for (place, table) in ["event", "coupon", "wallet"].into_iter().enumerate() {
            rows[place] = self.cluster.number(&format!("SELECT COUNT(*) FROM {}.{table}", self.name)).await;
        }
        rows
    }

    async fn run(&self, statement: &str) {
        let mut sql = self.cluster.sql().await;
        for statement in [&format!("USE {}", self.name), statement] {
            sql.execute(AssertSqlSafe(statement.to_owned())).await.unwrap();
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn migrate_makes_nothing_that_can_be_had_and_may_be_run_by_several_at_once() {
    let cluster = Setup::new("batched").replicas(0).start().await;
    let fresh = Fresh::new(&cluster);
    join_all((0..4).map(|_| fresh.step("migrate"))).await;
    assert_eq!(fresh.step("migrate").await, "the database is up to date\n");
    assert_eq!(fresh.rows().await, [0, 0, 0]);
    cluster.run(&format!("DROP DATABASE {}", fresh.name)).await;
    cluster.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn seeding_makes_the_event_once_and_leaves_one_that_exists_as_it_is() {
    let cluster = Setup::new("batched").replicas(0).start().await;
    let fresh = Fresh::new(&cluster);
    let variables: Vec<_> = fresh.variables.iter().map(|(name, value)| (*name, value.as_str())).collect();
    cluster.run(&format!("CREATE DATABASE {}", fresh.name)).await;
    let unready = run("seed", &variables).await;
    let said = String::from_utf8_lossy(&unready.stderr);
    assert!(!unready.status.success() && said.contains("coupon-rush migrate"), "{said}");
    fresh.step("migrate").await;

    let said = join_all((0..4).map(|_| fresh.step("seed"))).await;

    assert_eq!(said.iter().filter(|said| *said == "the event is made\n").count(), 1, "{said:?}");
    assert_eq!(fresh.rows().await, [1, 3, 0]);
    fresh.run("UPDATE coupon SET retired_code = code, code = NULL WHERE code = 'A001'").await;
    fresh.run("UPDATE coupon SET remaining = 7 WHERE code = 'B001'").await;
    fresh.run("UPDATE event SET closes_at = '2020-01-01', round = 5").await;
    for step in ["migrate", "seed"] {
        fresh.step(step).await;
    }
    assert_eq!(fresh.step("seed").await, "there is an event already, and it stays as it is\n");
    let left = "(SELECT COUNT(code) * 1000 FROM {d}.coupon) + (SELECT remaining FROM {d}.coupon WHERE code = 'B001') \
                + (SELECT round * 100000 FROM {d}.event WHERE closes_at = '2020-01-01')";
    assert_eq!(cluster.number(&left.replace("{d}", &fresh.name)).await, 502_007);
    cluster.run(&format!("DROP DATABASE {}", fresh.name)).await;
    cluster.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_that_an_earlier_release_made_with_its_seed_is_migrated_as_it_is() {
    let cluster = Setup::new("batched").replicas(0).start().await;
    let fresh = Fresh::new(&cluster);
    cluster.run(&format!("CREATE DATABASE {}", fresh.name)).await;
    let mut earlier = sqlx::migrate!();
    earlier.migrations.to_mut().retain(|migration| migration.version <= 5);
    let mut sql = cluster.sql().await;
    sql.execute(AssertSqlSafe(format!("USE {}", fresh.name))).await.unwrap();
    earlier.run(&mut sql).await.unwrap();
    fresh.run("UPDATE coupon SET remaining = 7 WHERE code = 'A001'").await;

    for step in ["migrate", "seed", "migrate"] {
        fresh.step(step).await;
    }

    assert_eq!(fresh.rows().await, [1, 3, 0]);
    let left = format!("SELECT remaining FROM {}.coupon WHERE code = 'A001'", fresh.name);
    assert_eq!(cluster.number(&left).await, 7);
    cluster.run(&format!("DROP DATABASE {}", fresh.name)).await;
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
    assert_eq!(issue(&cluster.client, &replica, "A", "u-1").await.status, 503);
    let admin = cluster.servers.mysql.as_ref().unwrap().admin_url.clone();
    assert!(coupon_rush::store::seed(&admin, &cluster.database_url(), true).await.unwrap());
    eventually("it is ready", async || ready().await.status == 200).await;
    assert_eq!(issue(&cluster.client, &replica, "A001", "u-1").await.status, 404, "no coupon was asked for");
    replica.signal("TERM");
    assert!(replica.ended().await);
    let said = std::fs::read_to_string(&log).unwrap();
    std::fs::remove_file(log).unwrap();
    assert_eq!(said.matches(missing).count(), 1, "{said}");
    cluster.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn migrate_refuses_bad_settings_by_their_name() {
    let good = ("DATABASE_URL", "mysql://coupon:pw@127.0.0.1:1/db");
    let admin = ("ADMIN_DATABASE_URL", "mysql://root@127.0.0.1:1");
    for (variables, name) in [
        (vec![good], "ADMIN_DATABASE_URL"),
        (vec![admin], "DATABASE_URL"),
        (vec![good, ("ADMIN_DATABASE_URL", "nonsense")], "ADMIN_DATABASE_URL"),
        (vec![good, admin], "ADMIN_DATABASE_URL"),
        (vec![("DATABASE_URL", "mysql://coupon:pw@127.0.0.1:1"), admin], "DATABASE_URL"),
    ] {
        let output = run("migrate", &variables).await;
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && said.contains(name), "{variables:?}: {said}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_reset_subcommand_starts_a_new_round_that_every_replica_knows_when_it_ends() {
    let cluster = Setup::new("batched").coupons([("A", 1)]).start().await;
    assert_eq!(cluster.decided(0, "A", "u-1").await.status, 201);
    assert_eq!(cluster.decided(1, "A", "u-2").await.status, 410);
    let url = cluster.database_url();
    for (round, why) in [(None, "which round is to end?"), (Some("2"), "round 2 is not the current one")] {
        let mut variables = vec![("DATABASE_URL", url.as_str())];
        variables.extend(round.map(|round| ("ROUND", round)));
        let output = run("reset", &variables).await;
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && said.contains(why) && said.contains("make reset ROUND=1"), "{said}");
    }
    for _ in 0..2 {
        // A reset whose end was not seen may be made again.
        let output = run("reset", &[("DATABASE_URL", &url), ("ROUND", "1")]).await;
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        assert_eq!(output.stdout, b"round 2\n");
    }
    let answer = cluster.issue(1, "A", "u-2", "k").await;
    let told = (answer.status, answer.member("round"), answer.member("serial"));
    assert_eq!(told, (201, 2.into(), 1.into()), "{}", answer.text);
    assert_eq!(cluster.decided(0, "A", "u-1").await.status, 410);
    cluster.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_healthcheck_subcommand_fails_without_a_replica_and_while_one_is_not_ready() {
    let cluster = Setup::new("batched").replicas(0).start().await;
    let replica = Process::replica(&cluster.arguments()).await;
    let address = replica.ops_url.strip_prefix("http://").unwrap();
    let output = run("healthcheck", &[("OPS_LISTEN", address)]).await;
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));

    let row = cluster.hold("A").await;
    let ask = issue(&cluster.client, &replica, "A", "u-1");
    let stop = async {
        let in_hand = async || sample(&cluster.client, &replica.ops_url, "coupon_in_flight").await as usize == 1;
        eventually("the order is accepted", in_hand).await;
        replica.signal("TERM");
        let drains = async || cluster.client.get(&format!("{}/readyz", replica.ops_url)).await.status == 503;
        eventually("the replica drains", drains).await;
        let output = run("healthcheck", &[("OPS_LISTEN", address)]).await;
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && said.contains("\"draining\":true"), "{said}");
        row.release().await;
    };
    tokio::join!(ask, stop);

    let gone = async || {
        let output = run("healthcheck", &[("OPS_LISTEN", address)]).await;
        assert!(!output.status.success());
        String::from_utf8_lossy(&output.stderr).contains("no replica answers")
    };
    eventually("nobody answers", gone).await;
    cluster.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_without_a_name_takes_the_hosts() {
    let cluster = Setup::new("batched").replicas(0).start().await;
    let mut arguments = cluster.arguments();
    arguments.retain(|(flag, _)| flag != "--replica");
    let replica = Process::replica(&arguments).await;
    let answer = issue(&cluster.client, &replica, "A", "u-1").await;
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap();
    assert_eq!(answer.header("x-replica"), host.trim());
    cluster.finish().await;
}
