//! What must not be readable, whatever happens to a replica: passwords and tokens anywhere, users in the log of a normal one.

use std::path::PathBuf;

use serde_json::json;

use crate::support::{ADMIN_TOKEN, Answer, Client, Cluster, FaultProxy, Process, Setup, eventually};

/// The password of lock nodes that do not exist or want none.
const REDIS_PASSWORD: &str = "Redis-s3cret-of-this-test";

/// The token of another service, sent here by mistake.
const FOREIGN_TOKEN: &str = "t0ken-that-opens-something-else-altogether";

/// A user that must not be found in a log.
const USER: &str = "u-very.private:7";

/// A replica of which everything is kept that it says.
struct Overheard {
    process: Process,
    log: PathBuf,
    said: String,
    client: Client,
}

impl Overheard {
    fn start(cluster: &Cluster, arguments: &[(String, String)], level: &str, name: &str) -> Self {
        let log = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("{}.{name}.log", cluster.name));
        let process = Process::spawn_telling(arguments, level, &log);
        let said = process.command_line();
        Self { process, log, said, client: Client::new() }
    }

    fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap()
    }

    async fn until(&self, path: &str, status: u16) {
        let url = format!("{}{path}", self.process.ops_url);
        eventually(path, async || self.client.get(&url).await.status == status).await;
    }

    async fn ask(
        &mut self,
        method: &str,
        url: String,
        headers: &[(&str, &str)],
        body: Option<serde_json::Value>,
    ) -> u16 {
        let answer: Answer = self.client.send(method, &url, headers, body.as_ref()).await;
        self.said.extend([format!("{:?}", answer.headers), answer.text]);
        answer.status
    }

    /// Everything that a replica is asked, with the right token, a wrong one and none.
    async fn ask_all(&mut self) -> Vec<u16> {
        let (public, ops) = (self.process.url.clone(), self.process.ops_url.clone());
        let order = json!({"code": "A", "userId": USER});
        let mut statuses = vec![
            self.ask("POST", format!("{public}/coupons/issue"), &[("idempotency-key", "k")], Some(order)).await,
            self.ask("GET", format!("{public}/users/{USER}/coupons"), &[], None).await,
        ];
        for token in [ADMIN_TOKEN, FOREIGN_TOKEN] {
            let header = format!("Bearer {token}");
            let headers = [("authorization", &*header)];
            for (method, path) in [("GET", "/admin/audit"), ("PUT", "/admin/event"), ("GET", "/admin/event")] {
                statuses.push(self.ask(method, format!("{ops}{path}"), &headers, Some(json!({}))).await);
            }
            self.ask("GET", format!("{public}/coupons"), &headers, None).await;
        }
        for path in ["/readyz", "/livez", "/metrics"] {
            self.ask("GET", format!("{ops}{path}"), &[], None).await;
        }
        statuses
    }

    /// Ends it; all that was ever said, by answers, command line and log.
    async fn end(mut self) -> String {
        self.process.signal("TERM");
        assert!(self.process.ended().await);
        let log = self.log();
        std::fs::remove_file(&self.log).unwrap();
        self.said + &log
    }
}

/// The password in a database URL.
fn password(url: &str) -> &str {
    url.split(['@', '/']).nth(2).unwrap().split_once(':').unwrap().1
}

fn with(arguments: &[(String, String)], flag: &str, value: String) -> Vec<(String, String)> {
    let mut arguments = arguments.to_vec();
    arguments.retain(|(known, _)| known != flag);
    arguments.push((flag.to_owned(), value));
    arguments
}

fn file(cluster: &Cluster, name: &str, content: &str) -> String {
    let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("{}.{name}", cluster.name));
    std::fs::write(&path, content).unwrap();
    path.to_str().unwrap().to_owned()
}

/// One node that is there and wants no password, two that are not there.
fn redis_with_passwords(cluster: &Cluster) -> String {
    let real = cluster.servers.redis[0].url.replace("redis://", &format!("redis://:{REDIS_PASSWORD}@"));
    format!("{real}\nredis://:{REDIS_PASSWORD}@127.0.0.1:1/\nredis://user:{REDIS_PASSWORD}@127.0.0.1:2/")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_that_logs_everything_tells_no_secret_whether_it_works_or_not() {
    let cluster = Setup::new("batched").replicas(0).start().await;
    let url = cluster.database_url();
    let proxy = FaultProxy::start(cluster.database_address()).await.unwrap();
    proxy.refuse();
    let normal = cluster.arguments();
    let wrong = url.replace(password(&url), "Wr0ng-password-of-this-test");
    let cases = [
        ("normal", normal.clone(), 200),
        ("lock", with(&normal, "--redis-urls-file", file(&cluster, "redis", &redis_with_passwords(&cluster))), 200),
        ("unreachable", cluster.arguments_through(&proxy), 503),
        ("refused", with(&normal, "--database-url-file", file(&cluster, "wrong", &wrong)), 503),
    ];
    for (name, arguments, ready) in cases {
        let mut replica = Overheard::start(&cluster, &arguments, "trace,access=info", name);
        replica.until("/livez", 200).await;
        replica.until("/readyz", ready).await;
        let statuses = replica.ask_all().await;
        assert!(if ready == 200 { statuses[0] < 300 } else { statuses[0] == 503 }, "{name}: {statuses:?}");
        assert_eq!(statuses[5..], [401; 3], "{name}");
        let said = replica.end().await;
        assert!(said.contains("serving") && said.contains("answered"), "{name}: the log is there");
        for secret in [password(&url), password(&wrong), ADMIN_TOKEN, FOREIGN_TOKEN, REDIS_PASSWORD] {
            let line = said.lines().find(|line| line.contains(secret));
            assert_eq!(line, None, "{name}: {secret}");
        }
    }
    cluster.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_that_cannot_start_says_why_without_the_secret() {
    const SECRET: &str = "S3cret-of-a-broken-setting";
    let cluster = Setup::new("batched").replicas(0).start().await;
    let cases = [
        ("--database-url-file", format!("mysql://coupon:{SECRET}@127.0.0.1:port/db")),
        ("--database-url-file", format!("mysql://coupon:{SECRET}@[::1/db")),
        ("--database-url-file", format!("mysql://coupon:{SECRET}@127.0.0.1:3306")),
        ("--database-url-file", format!("mysql://coupon:what?{SECRET}@127.0.0.1/db")),
        ("--database-url-file", format!("mysql://c:{SECRET}@127.0.0.1/db?ssl-mode=SURELY")),
        ("--database-url-file", format!("maria://c:{SECRET}@127.0.0.1/db")),
        ("--redis-urls-file", format!("redis://:{SECRET}@127.0.0.1:port/")),
        ("--redis-urls-file", format!("http://:{SECRET}@127.0.0.1/")),
        ("--redis-urls-file", format!("redis://:{SECRET}@127.0.0.1:1/,redis://:{SECRET}@127.0.0.1:1/")),
        ("--admin-token-file", SECRET.to_owned()),
        ("--admin-token-file", format!("changeme-{SECRET}")),
        ("--admin-token-file", format!("{SECRET}-is here twice, with spaces in it")),
    ];
    for (place, (flag, content)) in cases.into_iter().enumerate() {
        let arguments = with(&cluster.arguments(), flag, file(&cluster, &format!("broken-{place}"), &content));
        let mut replica = Overheard::start(&cluster, &arguments, "trace", "broken");
        assert!(!replica.process.ended().await, "{content} was accepted");
        let (said, setting) = (replica.log(), flag.trim_start_matches('-').trim_end_matches("-file"));
        assert!(said.contains(&setting.replace('-', "_").to_uppercase()), "{content}: {said}");
        assert!(!said.contains(SECRET), "{said}");
    }
    cluster.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_log_of_a_normal_replica_names_no_user() {
    let cluster = Setup::new("batched").replicas(0).coupons([("A", 1)]).start().await;
    let proxy = FaultProxy::start(cluster.database_address()).await.unwrap();
    let mut replica = Overheard::start(&cluster, &cluster.arguments_through(&proxy), "info,access=info", "info");
    replica.until("/readyz", 200).await;
    // A server that quotes the data which it refuses, as servers do.
    cluster
        .run(
            "CREATE TRIGGER quote BEFORE INSERT ON wallet FOR EACH ROW BEGIN \
               DECLARE said VARCHAR(100) DEFAULT CONCAT('Incorrect value: ', NEW.user_id); \
               SIGNAL SQLSTATE '22001' SET MYSQL_ERRNO = 1406, MESSAGE_TEXT = said; END",
        )
        .await;
    assert_eq!(replica.ask_all().await[0], 503);
    cluster.run("DROP TRIGGER quote").await;
    assert_eq!(replica.ask_all().await[..2], [201, 200]);
    assert_eq!(cluster.number("SELECT remaining FROM coupon").await, 0);
    proxy.refuse();
    replica.until("/readyz", 503).await;
    replica.ask_all().await;

    let log = replica.log();
    replica.end().await;
    assert!(log.contains("/coupons/issue") && log.contains("a batch failed"), "{log}");
    assert_eq!(log.lines().find(|line| line.contains(USER)), None);
    cluster.finish().await;
}
