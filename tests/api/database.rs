//! A database that is there and does not do its work: it takes no writes, its tables are locked, its settings are unusual.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use coupon_rush::store::migrate;
use futures_util::future::join_all;
use serde_json::json;
use sqlx::Executor;

use crate::support::{Cluster, FaultProxy, OwnServer, Replica, Setup, eventually, pace, until};

/// How soon a replica must see what became of its database.
const SEEN: Duration = Duration::from_secs(2);

/// Most connections of a replica for batches, and in all: for batches, wallets, memory, administration and audits.
const BATCHES: usize = 8;
const CONNECTIONS: usize = BATCHES + 4 + 2 + 1 + 1;

/// Waits until all replicas say so of themselves.
async fn until_all_are(cluster: &Cluster, status: u16) {
    until(format!("/readyz is {status}"), SEEN, async || {
        let urls = cluster.replicas.iter().map(|replica| format!("{}/readyz", replica.ops_url));
        let found = join_all(urls.map(|url| async move { cluster.client.get(&url).await.status })).await;
        if found.iter().all(|found| *found == status) { Ok(()) } else { Err(format!("{found:?}")) }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_that_takes_no_writes_is_no_database() {
    let mut own = OwnServer::start().await;
    let cluster = Setup::new("batched").coupons([("A", 1), ("B", 9)]).on(&own.servers).start().await;
    assert_eq!(cluster.issue(0, "A", "winner", "k").await.status, 201);
    cluster.until_state("A", "sold-out").await;
    let kinds: &[&str] =
        if own.is_mysql() { &["read_only", "super_read_only", "offline_mode"] } else { &["read_only"] };
    for (number, kind) in kinds.iter().enumerate() {
        if *kind == "super_read_only" {
            // It brings the other with it, and does not take it away again.
            own.set("read_only", "1").await;
        }
        own.set(kind, "1").await;
        until_all_are(&cluster, 503).await;
        // Memory knew that nothing is left of A, and the holders: all of that may be another server's by now.
        for (code, user) in [("A", "loser"), ("A", "winner"), ("B", "u-1")] {
            assert_eq!(cluster.issue(0, code, user, "k").await.status, 503, "{kind}: {user} of {code}");
        }
        assert_eq!(cluster.get(1, "/users/winner/coupons").await.status, 503, "{kind}");
        own.restore().await;
        until_all_are(&cluster, 200).await;
        let issued = cluster.issue(1, "B", &format!("u-{number}"), "k").await;
        assert_eq!(issued.status, 201, "{kind}: {}", issued.text);
        assert_eq!(cluster.issue(0, "A", "loser", "k").await.status, 410, "{kind}");
        assert_eq!(cluster.get(1, "/users/winner/coupons").await.status, 200, "{kind}");
    }
    cluster.finish().await;
}

/// The same database as `cluster` has, on another server, with an account that no other test uses; returns its URL.
async fn twin(cluster: &Cluster, own: &mut OwnServer, urls: [&str; 2]) {
    let admins = [&cluster.servers, &own.servers].map(|servers| servers.mysql.as_ref().unwrap().admin_url.clone());
    for (admin, url) in admins.iter().zip(urls) {
        migrate(admin, url).await.unwrap();
    }
    let coupon =
        "INSERT INTO coupon (code, discount_percent, total, remaining, round, scope) VALUES ('A', 10, 9, 9, 1, 0)";
    own.run(&format!("USE {}", cluster.name)).await;
    own.run("INSERT INTO event (name, exclusive, exclusive_next) VALUES ('test', FALSE, FALSE)").await;
    own.run(coupon).await;
    own.run("UPDATE coupon SET scope = id").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_a_failover_nobody_asks_the_demoted_server_any_more() {
    let mut own = OwnServer::start().await;
    let mut cluster = Setup::new("batched").replicas(0).coupons([("A", 9)]).start().await;
    let demoted = {
        let (_, address) = own.servers.mysql.as_ref().unwrap().url.rsplit_once('@').unwrap();
        address.split('/').next().unwrap().parse().unwrap()
    };
    let url = |address| format!("mysql://{0}:{0}@{address}/{0}", cluster.name);
    twin(&cluster, &mut own, [&url(cluster.database_address()), &url(demoted)]).await;
    let proxy = FaultProxy::start(demoted).await.unwrap();
    let through = url(([127, 0, 0, 1], proxy.port).into());
    let mut arguments = cluster.arguments();
    let (_, file) = arguments.iter_mut().find(|(flag, _)| flag == "--database-url-file").unwrap();
    file.push_str(".failover");
    std::fs::write(file, through).unwrap();
    cluster.replicas.push(Replica::start(arguments).await);
    cluster.until_ready(0).await;
    for user in ["before", "again"] {
        assert_eq!(cluster.issue(0, "A", user, "k").await.status, 201);
        assert_ne!(cluster.get(0, &format!("/users/{user}/coupons")).await.text, "[]");
    }

    proxy.lead_to(cluster.database_address());
    own.set("read_only", "1").await;

    until("orders are issued by the new server", SEEN, async || {
        let answer = cluster.issue(0, "A", "after", "k").await;
        if answer.status == 201 { Ok(()) } else { Err(answer.text) }
    })
    .await;
    assert_eq!(cluster.get(0, "/users/before/coupons").await.text, "[]", "the new server knows nothing of the user");
    let list = "SELECT COUNT(*) FROM information_schema.processlist WHERE user = DATABASE()";
    eventually("nobody is connected to the demoted one", async || own.number(list).await == 0).await;
    own.restore().await;
    own.run(&format!("DROP DATABASE {}", cluster.name)).await;
    cluster.finish().await;
}

/// What keeps the service from its tables.
#[derive(Clone, Copy, Debug)]
enum Obstacle {
    /// Another session has locked the table.
    TableLocked,
    /// A backup has locked all tables.
    EverythingLocked,
    /// A transaction has locked the row.
    RowLocked,
    /// A migration waits behind a long transaction, and all others behind the migration.
    AlterWaits,
    /// A call waits for something that no bound of the session holds for.
    CallHangs,
}

impl Obstacle {
    /// Puts it there for so long, and takes it away.
    async fn stays(self, cluster: &Cluster, lasts: Duration) {
        let mut sql = cluster.sql().await;
        let mut alter = cluster.sql().await;
        let block = match self {
            Self::TableLocked => "LOCK TABLES coupon WRITE",
            Self::EverythingLocked => "FLUSH TABLES WITH READ LOCK",
            Self::RowLocked | Self::AlterWaits | Self::CallHangs => "START TRANSACTION",
        };
        if matches!(self, Self::CallHangs) {
            hang(cluster).await;
        }
        sql.execute(block).await.unwrap();
        match self {
            Self::RowLocked => drop(sql.execute("SELECT * FROM coupon FOR UPDATE").await.unwrap()),
            Self::AlterWaits => drop(sql.execute("SELECT COUNT(*) FROM coupon").await.unwrap()),
            Self::CallHangs => drop(sql.execute("SELECT * FROM slow FOR UPDATE").await.unwrap()),
            _ => {}
        }
        let altered = async {
            if matches!(self, Self::AlterWaits) {
                alter.execute("ALTER TABLE coupon ADD COLUMN note INT NULL").await.unwrap();
            }
        };
        let ends = async {
            tokio::time::sleep(lasts).await;
            match self {
                Self::TableLocked | Self::EverythingLocked => sql.execute("UNLOCK TABLES").await.unwrap(),
                Self::RowLocked | Self::AlterWaits => sql.execute("ROLLBACK").await.unwrap(),
                Self::CallHangs => sql.execute("DROP TRIGGER hang").await.unwrap(),
            };
        };
        tokio::join!(altered, ends);
    }
}

/// From now on an issue waits for a table of the test's, which has no bound of its own. Under the service's own name, because the service
/// may kill nothing that works under another.
async fn hang(cluster: &Cluster) {
    let url = cluster.database_url();
    let account = format!("'{}'@'%'", url.strip_prefix("mysql://").unwrap().split(':').next().unwrap());
    cluster.run("CREATE TABLE slow AS SELECT 1 AS id").await;
    cluster.run(&format!("GRANT SELECT, UPDATE ON slow TO {account}")).await;
    cluster.run(&format!("GRANT TRIGGER ON wallet TO {account}")).await;
    let trigger = "TRIGGER hang BEFORE INSERT ON wallet FOR EACH ROW IF NEW.user_id LIKE 'w-%' THEN \
                   SET SESSION innodb_lock_wait_timeout = 60; SELECT id INTO @id FROM slow FOR UPDATE; END IF";
    cluster.run(&format!("CREATE DEFINER = {account} {trigger}")).await;
}

/// Clients of both replicas that ask for all codes and look into their wallets, until it is over.
async fn load(cluster: &Cluster, over: &AtomicBool) {
    let clients = (0..24).map(|client: usize| async move {
        let mut pace = pace(Duration::from_millis(10));
        for ask in 0.. {
            if over.load(Ordering::Relaxed) {
                return;
            }
            let user = format!("w-{client}-{ask}");
            let replica = client % 2;
            let answer = cluster.issue(replica, &format!("C{}", client % 12), &user, "k").await;
            assert!(matches!(answer.status, 200 | 201 | 503), "{}", answer.text);
            let wallet = cluster.get(replica, &format!("/users/{user}/coupons")).await;
            assert!(matches!(wallet.status, 200 | 503), "{}", wallet.text);
            pace.tick().await;
        }
    });
    join_all(clients).await;
}

/// The most connections that the service had while `work` was done.
async fn most_connections(cluster: &Cluster, work: impl Future<Output = ()>) -> usize {
    let (over, mut most) = (AtomicBool::new(false), 0);
    let count = async {
        let mut pace = pace(Duration::from_millis(200));
        while !over.load(Ordering::Relaxed) {
            most = most.max(cluster.connections().await.len());
            // Given up after two seconds, and killed.
            assert!(cluster.oldest_statement().await <= 6, "a statement was left behind");
            pace.tick().await;
        }
    };
    let work = async {
        work.await;
        over.store(true, Ordering::Relaxed);
    };
    tokio::join!(count, work, load(cluster, &over));
    most
}

/// The account's connections stay within their bound while the obstacle is there, and afterwards orders are issued soon.
async fn survives(obstacle: Obstacle, cluster: Cluster) {
    /// As long as the connections would take to become four times as many.
    const LASTS: Duration = Duration::from_secs(12);
    let connections = Box::pin(most_connections(&cluster, obstacle.stays(&cluster, LASTS))).await;
    // What is given up is ended by the next new connection.
    let given_up = if matches!(obstacle, Obstacle::CallHangs) { BATCHES } else { 0 };
    let most = (CONNECTIONS + given_up) * cluster.replicas.len();
    assert!(connections <= most, "{obstacle:?}: {connections} connections, not {most}");
    for replica in 0..cluster.replicas.len() {
        until(format!("{obstacle:?}: it is issued again"), SEEN, async || {
            let answer = cluster.issue(replica, "C0", &format!("after-{replica}"), "k").await;
            if matches!(answer.status, 200 | 201) { Ok(()) } else { Err(answer.text) }
        })
        .await;
    }
    println!("{obstacle:?}: {connections} connections");
    cluster.finish().await;
}

fn twelve_codes(strategy: &str) -> Setup {
    Setup::new(strategy).coupons((0..12).map(|code| (format!("C{code}"), 100_000)))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tables_that_are_locked_cost_time_and_no_connections() {
    let obstacles = [
        ("batched", Obstacle::TableLocked),
        ("batched", Obstacle::RowLocked),
        ("batched", Obstacle::AlterWaits),
        ("batched", Obstacle::CallHangs),
        ("pessimistic", Obstacle::TableLocked),
    ];
    join_all(obstacles.map(|(strategy, obstacle)| async move {
        Box::pin(survives(obstacle, twelve_codes(strategy).start().await)).await;
    }))
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backup_that_locks_everything_costs_time_and_no_connections() {
    let own = OwnServer::start().await;
    Box::pin(survives(Obstacle::EverythingLocked, twelve_codes("batched").on(&own.servers).start().await)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_of_wallet_reads_does_not_keep_a_closing_out() {
    let cluster = Setup::new("batched").replicas(1).start().await;
    let mut sql = cluster.sql().await;
    // Every read takes as long as it may.
    sql.execute("LOCK TABLES wallet WRITE").await.unwrap();
    let over = AtomicBool::new(false);
    let flood = (0..100).map(|client| {
        let (cluster, over) = (&cluster, &over);
        async move {
            while !over.load(Ordering::Relaxed) {
                assert_eq!(cluster.get(0, &format!("/users/u-{client}/coupons")).await.status, 503);
            }
        }
    });
    let close = async {
        // Others have a lane for some time already.
        let in_flight = async || cluster.metric(0, "coupon_in_flight").await >= 100.0;
        eventually("the flood is there", in_flight).await;
        let closed = json!({"exclusive": false, "opensAt": null, "closesAt": "2020-01-01T00:00:00Z"});
        let answer = cluster.admin(0, "PUT", "/admin/event", Some(closed)).await;
        over.store(true, Ordering::Relaxed);
        answer
    };
    let (answer, _) = tokio::join!(close, join_all(flood));
    assert_eq!(answer.status, 200, "{}", answer.text);
    sql.execute("UNLOCK TABLES").await.unwrap();
    assert_eq!(cluster.issue(0, "A", "late", "k").await.status, 403);
    cluster.finish().await;
}

/// Unusual defaults, for both servers; then those of one alone.
const DEFAULTS: [(&str, &str); 19] = [
    ("autocommit", "0"),
    ("completion_type", "'CHAIN'"),
    ("sql_safe_updates", "1"),
    ("sql_select_limit", "1"),
    ("sql_big_selects", "0"),
    ("max_join_size", "1"),
    ("sql_auto_is_null", "1"),
    ("foreign_key_checks", "0"),
    ("unique_checks", "0"),
    ("time_zone", "'+09:00'"),
    ("character_set_client", "latin1"),
    ("character_set_results", "latin1"),
    ("collation_connection", "latin1_swedish_ci"),
    ("default_storage_engine", "MyISAM"),
    ("wait_timeout", "1"),
    ("innodb_lock_wait_timeout", "50"),
    ("lock_wait_timeout", "31536000"),
    ("div_precision_increment", "0"),
    ("group_concat_max_len", "4"),
];
const DEFAULTS_OF_MYSQL: [(&str, &str); 4] = [
    ("transaction_isolation", "'SERIALIZABLE'"),
    ("transaction_read_only", "1"),
    ("max_execution_time", "1"),
    ("innodb_strict_mode", "0"),
];
const DEFAULTS_OF_MARIADB: [(&str, &str); 4] = [
    ("tx_isolation", "'SERIALIZABLE'"),
    ("tx_read_only", "1"),
    ("max_statement_time", "0.001"),
    ("check_constraint_checks", "0"),
];

/// The modes of each kind that change what a statement means.
const MODES: [&str; 2] = [
    "ANSI_QUOTES,NO_BACKSLASH_ESCAPES,PAD_CHAR_TO_FULL_LENGTH,NO_UNSIGNED_SUBTRACTION,HIGH_NOT_PRECEDENCE,IGNORE_SPACE,\
     REAL_AS_FLOAT,ONLY_FULL_GROUP_BY",
    "",
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_the_servers_defaults_are_the_promises_hold() {
    let mut own = OwnServer::start().await;
    let others = if own.is_mysql() { DEFAULTS_OF_MYSQL } else { DEFAULTS_OF_MARIADB };
    let mut modes: Vec<_> = MODES.to_vec();
    modes.extend((!own.is_mysql()).then_some("ORACLE"));
    for mode in modes {
        for (name, value) in DEFAULTS.iter().chain(&others) {
            own.set(name, value).await;
        }
        own.set("sql_mode", &format!("'{mode}'")).await;
        for strategy in ["batched", "conditional", "pessimistic"] {
            let setup = Setup::new(strategy).exclusive().coupons([("A", 3), ("B", 3)]);
            works(setup.on(&own.servers).start().await, &format!("{mode}: {strategy}")).await;
        }
        own.restore().await;
    }
}

/// Everything that a replica does, once.
async fn works(cluster: Cluster, under: &str) {
    let asks = (0..8).map(|ask| {
        let cluster = &cluster;
        async move { cluster.decided(ask % 2, ["A", "B"][ask / 4], &format!("u-{}", ask % 4)).await.status }
    });
    let answers = join_all(asks).await;
    assert_eq!(answers.iter().filter(|status| **status < 300).count(), 4, "{under}: {answers:?}");
    let one_more = json!({"discountPercent": 5, "total": 4, "opensAt": null, "closesAt": null});
    let put = cluster.admin(1, "PUT", "/admin/coupons/A", Some(one_more)).await;
    assert_eq!(put.status, 200, "{under}: {}", put.text);
    for user in ["v-0", "v-1", "v-2"] {
        let first = cluster.decided(0, "A", user).await.status;
        let second = cluster.decided(1, "B", user).await.status;
        assert!(matches!((first, second), (200 | 201, 409 | 410) | (410, 200 | 201)), "{under}: {first}, {second}");
    }
    for code in ["A", "B"] {
        cluster.until_state(code, "sold-out").await;
        assert_eq!(cluster.decided(0, code, "loser").await.status, 410, "{under}");
    }
    for user in ["u-0", "u-1", "u-2", "u-3", "v-0", "v-1", "v-2"] {
        let wallet = cluster.get(1, &format!("/users/{user}/coupons")).await;
        let held = wallet.json();
        let [entry] = held.as_array().unwrap().as_slice() else { panic!("{under}: {held}") };
        let code = entry["code"].as_str().unwrap();
        assert_eq!(cluster.decided(0, code, user).await.status, 200, "{under}: {user}");
    }
    assert_eq!(cluster.admin(0, "GET", "/admin/audit", None).await.status, 200, "{under}");
    cluster.finish().await;
}
