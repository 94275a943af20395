//! The settings of a process: what it refuses, and what stands for what is left out.

use crate::support::{ADMIN_TOKEN, Process, Setup, run};

/// Settings with which no replica starts.
const BAD_SETTINGS: &[(&str, Option<&str>)] = &[
    ("DATABASE_URL", None),
    ("DATABASE_URL", Some("")),
    ("DATABASE_URL", Some("postgres://somewhere/db")),
    ("DATABASE_URL", Some("mysql://coupon:pw@127.0.0.1:3306")),
    ("DATABASE_URL", Some("mysql://coupon:pw@127.0.0.1:3306/db?ssl_mode=VERIFY_CA")),
    ("DATABASE_URL", Some("mysql://coupon:pw@127.0.0.1:3306/db?ssl-mode=SURELY")),
    ("DATABASE_URL", Some("mysql://coupon:pw@127.0.0.1:3306/db\nmysql://coupon:pw@127.0.0.1:3306/another")),
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
        assert!(!said.contains("must be replaced"), "{name}={value:?}: {said}");
        for secret in ["postgres://somewhere/db", "short"] {
            assert!(name == "REPLICA" || !said.contains(secret), "{name}: a secret in {said}");
        }
    }
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
async fn a_replica_without_a_name_takes_the_hosts() {
    let cluster = Setup::new("batched").replicas(0).start().await;
    let mut arguments = cluster.arguments();
    arguments.retain(|(flag, _)| flag != "--replica");
    let replica = Process::replica(&arguments).await;
    let answer = replica.issue(&cluster.client, "A", "u-1").await;
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap();
    assert_eq!(answer.header("x-replica"), host.trim());
    cluster.finish().await;
}
