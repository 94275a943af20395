//! What stays shut: the administration to those without the token or on another listener, the database to its own service.
#![expect(clippy::disallowed_methods, reason = "the service's account is tried out by hand")]

use serde_json::json;
use sqlx::{AssertSqlSafe, Connection, Executor, MySqlConnection};

use crate::support::{ADMIN_TOKEN, Balancer, Cluster, Replica, Setup};

/// An administrative question with this token.
async fn audit(cluster: &Cluster, url: &str, token: &str) -> (u16, serde_json::Value) {
    let headers = [("authorization", &*format!("Bearer {token}"))];
    let answer = cluster.client.send("GET", &format!("{url}/admin/audit"), &headers, None).await;
    (answer.status, answer.member("type"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_administration_is_on_the_operations_listener_alone() {
    let cluster = Setup::new("batched").replicas(1).start().await;
    let replica = &cluster.replicas[0];
    let balancer = Balancer::start(&cluster, &[&replica.url]).await;
    assert_eq!(audit(&cluster, &replica.ops_url, ADMIN_TOKEN).await.0, 200);
    for url in [&replica.url, &balancer.url] {
        assert_eq!(audit(&cluster, url, ADMIN_TOKEN).await, (404, json!("/problems/not-found")), "{url}");
        for path in
            ["/admin/reset", "/ADMIN/reset", "//admin/reset", "/admin%2Freset", "/coupons/../admin/reset", "/metrics"]
        {
            let headers = [("authorization", &*format!("Bearer {ADMIN_TOKEN}"))];
            let answer = cluster.client.send("POST", &format!("{url}{path}"), &headers, None).await;
            assert!(matches!(answer.status, 404 | 405), "{url}{path}: {} {}", answer.status, answer.text);
        }
    }
    assert_eq!(cluster.number("SELECT round FROM event").await, 1);
    balancer.stop().await;
    cluster.finish().await;
}

#[tokio::test]
async fn two_tokens_are_valid_while_callers_change_from_one_to_the_other() {
    const NEW: &str = "the-new-one-of-more-than-32-characters-as-well";
    let mut cluster = Setup::new("batched").replicas(1).start().await;
    let mut arguments = cluster.arguments();
    let (_, file) = arguments.iter_mut().find(|(flag, _)| flag == "--admin-token-file").unwrap();
    *file = format!("{file}.two");
    std::fs::write(file, format!("{NEW}\n{ADMIN_TOKEN}\n")).unwrap();
    cluster.replicas.push(Replica::start(arguments).await);
    cluster.until_ready(1).await;
    let (before, changing) = (&cluster.replicas[0].ops_url, &cluster.replicas[1].ops_url);
    for (url, token, status) in [
        (before, ADMIN_TOKEN, 200),
        (before, NEW, 401),
        (changing, ADMIN_TOKEN, 200),
        (changing, NEW, 200),
        (changing, &*format!("{NEW}\n{ADMIN_TOKEN}").replace('\n', " "), 401),
    ] {
        assert_eq!(audit(&cluster, url, token).await.0, status, "{token}");
    }
    cluster.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_services_account_may_do_only_what_the_service_does() {
    let cluster = Setup::new("batched").replicas(1).start().await;
    assert_eq!(cluster.issue(0, "A", "u-1", "k").await.status, 201);
    let other = format!("{}_other", cluster.name);
    cluster.run(&format!("CREATE DATABASE {other}")).await;
    cluster.run(&format!("CREATE TABLE {other}.coupon (id INT)")).await;
    let elsewhere = ["SELECT * FROM {}.coupon", "INSERT INTO {}.coupon VALUES (1)", "DROP DATABASE {}"];
    let elsewhere = elsewhere.map(|statement| statement.replace("{}", &other));
    let mut service = MySqlConnection::connect(&cluster.database_url()).await.unwrap();
    for statement in DENIED.into_iter().chain(elsewhere.iter().map(String::as_str)) {
        let error = service.execute(AssertSqlSafe(statement.to_owned())).await.expect_err(statement).to_string();
        assert!(error.contains("denied") || error.contains("do not have the SUPER privilege"), "{statement}: {error}");
    }
    // This one is not refused, it only finds nothing.
    let read: Option<Vec<u8>> =
        sqlx::query_scalar("SELECT LOAD_FILE('/etc/hostname')").fetch_one(&mut service).await.unwrap();
    assert_eq!(read, None);
    service.close().await.unwrap();
    cluster.run(&format!("DROP DATABASE {other}")).await;
    cluster.finish().await;
}

/// What a thief with the service's password would try.
const DENIED: [&str; 32] = [
    "DELETE FROM wallet",
    "DELETE FROM coupon",
    "DELETE FROM event",
    "UPDATE wallet SET user_id = 'u-2'",
    "REPLACE INTO wallet SELECT * FROM wallet",
    "INSERT INTO event (name, exclusive, exclusive_next) VALUES ('x', TRUE, TRUE)",
    "TRUNCATE TABLE wallet",
    "DROP TABLE wallet",
    "DROP PROCEDURE issue_batch",
    "ALTER TABLE coupon DROP CONSTRAINT coupon_stock",
    "CREATE TABLE loot (id INT)",
    "CREATE TEMPORARY TABLE loot (id INT)",
    "CREATE INDEX i ON wallet (user_id)",
    "CREATE VIEW loot AS SELECT 1",
    "CREATE TRIGGER t BEFORE INSERT ON wallet FOR EACH ROW SET NEW.user_id = 'u-2'",
    "CREATE PROCEDURE loot() BEGIN END",
    "CREATE EVENT loot ON SCHEDULE EVERY 1 SECOND DO DO 1",
    "CREATE DATABASE loot",
    "LOCK TABLES wallet WRITE",
    "SELECT * FROM _sqlx_migrations",
    "SELECT * FROM mysql.user",
    "UPDATE mysql.user SET Host = '%'",
    "SELECT user_id FROM wallet INTO OUTFILE 'coupon-rush-loot'",
    "LOAD DATA INFILE 'coupon-rush-loot' INTO TABLE coupon",
    "GRANT ALL ON *.* TO CURRENT_USER()",
    "GRANT SELECT ON wallet TO CURRENT_USER()",
    "CREATE USER thief IDENTIFIED BY 'x'",
    "DROP USER admin@localhost",
    "SET GLOBAL max_connections = 1",
    "SET GLOBAL innodb_flush_log_at_trx_commit = 0",
    "FLUSH TABLES",
    "SHUTDOWN",
];
