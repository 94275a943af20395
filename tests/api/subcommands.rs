//! The subcommands beside `serve`.

use coupon_rush::store::migrate;
use futures_util::future::join_all;
use sqlx::{AssertSqlSafe, Executor};

use crate::support::{Cluster, FaultProxy, Process, Setup, eventually, run, sample};

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
async fn a_server_that_takes_connections_and_says_nothing_ends_each_step_with_a_word_about_it() {
    let cluster = Setup::new("batched").replicas(0).start().await;
    let (url, proxy) = (cluster.database_url(), FaultProxy::start(cluster.database_address()).await.unwrap());
    proxy.silence();
    let admin = through(&cluster, &proxy);
    let variables = [("DATABASE_URL", url.as_str()), ("ADMIN_DATABASE_URL", &admin), ("KEEP_ROUNDS", "1")];
    for output in join_all(["migrate", "seed", "purge"].map(|step| run(step, &variables))).await {
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && said.contains("cannot connect with ADMIN_DATABASE_URL"), "{said}");
    }
    cluster.finish().await;
}

/// The administrator's URL by way of `proxy`.
fn through(cluster: &Cluster, proxy: &FaultProxy) -> String {
    let admin = &cluster.servers.mysql.as_ref().unwrap().admin_url;
    let way = admin.replace(&cluster.database_address().to_string(), &format!("127.0.0.1:{}", proxy.port));
    assert_ne!(*admin, way);
    way
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_migration_that_meets_a_locked_table_says_so_and_keeps_nobody_waiting_behind_it() {
    let cluster = Setup::new("batched").replicas(0).start().await;
    let (url, admin) = (cluster.database_url(), &cluster.servers.mysql.as_ref().unwrap().admin_url);
    let mut sql = cluster.sql().await;
    sql.execute("LOCK TABLES coupon WRITE").await.unwrap();
    let output = run("migrate", &[("DATABASE_URL", &url), ("ADMIN_DATABASE_URL", admin)]).await;
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && said.contains("Lock wait timeout"), "{said}");
    sql.execute("UNLOCK TABLES").await.unwrap();
    migrate(admin, &url).await.unwrap();
    cluster.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_migration_whose_host_is_lost_does_not_keep_the_next_one_out() {
    let cluster = Setup::new("batched").replicas(0).start().await;
    let (url, proxy) = (cluster.database_url(), FaultProxy::start(cluster.database_address()).await.unwrap());
    // It has a step to finish, and waits for its row.
    cluster.run("UPDATE _sqlx_migrations SET success = FALSE WHERE version = 3").await;
    let mut sql = cluster.sql().await;
    for statement in ["START TRANSACTION", "SELECT * FROM _sqlx_migrations WHERE version = 3 FOR UPDATE"] {
        sql.execute(statement).await.unwrap();
    }
    let next = async {
        eventually("it is at work", async || cluster.runs("UPDATE _sqlx_migrations").await).await;
        proxy.silence();
        sql.execute("ROLLBACK").await.unwrap();
        migrate(&cluster.servers.mysql.as_ref().unwrap().admin_url, &url).await.unwrap();
    };
    let admin = through(&cluster, &proxy);
    tokio::select! {
        lost = migrate(&admin, &url) => panic!("nobody was to be told how it ends: {lost:?}"),
        () = next => {}
    }
    cluster.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_migration_that_was_broken_off_is_finished_by_the_next_run() {
    let cluster = Setup::new("batched").replicas(0).start().await;
    let fresh = Fresh::new(&cluster);
    for (version, undo) in
        [(3, "DROP TABLE wallet"), (4, "DROP PROCEDURE issue_batch"), (6, "DO 0"), (3, "DO 0"), (4, "DO 0")]
    {
        fresh.step("migrate").await;
        fresh.run(&format!("UPDATE _sqlx_migrations SET success = FALSE WHERE version = {version}")).await;
        fresh.run(undo).await;
    }
    for step in ["migrate", "seed"] {
        fresh.step(step).await;
    }
    assert_eq!(fresh.rows().await, [1, 3, 0]);
    let procedures = "SELECT COUNT(*) FROM information_schema.routines WHERE routine_schema = '{d}'";
    assert_eq!(cluster.number(&procedures.replace("{d}", &fresh.name)).await, 1);
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
    let ask = replica.issue(&cluster.client, "A", "u-1");
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
