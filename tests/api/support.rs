//! What every test needs: a database of its own, replicas over it, and a client.
#![expect(clippy::disallowed_methods, reason = "tests look at the tables themselves")]

mod balancer;
mod client;
mod counts;
mod crowd;
pub mod documented;
mod group;
mod nodes;
mod obstacles;
mod own_server;
mod recorder;
mod server;

use std::fmt::Display;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use clap::Parser;
use coupon_lab::cluster::Cluster as Servers;
use coupon_lab::verify::Report;
use coupon_rush::config::{Cli, Command};
use futures_util::future::join_all;
use serde_json::json;
use sqlx::{AssertSqlSafe, Connection, Executor, MySqlConnection};
use tokio::time::{Interval, MissedTickBehavior, interval_at};

pub use balancer::Balancer;
pub use client::{Answer, Client};
pub use counts::{PrivateRedis, added};
pub use coupon_lab::proxy::{Fault, FaultProxy};
pub use crowd::{alone, connect};
pub use group::Group;
pub use nodes::Nodes;
pub use obstacles::{Held, redis_connection, sample, value};
pub use own_server::OwnServer;
pub use recorder::Recorder;
pub use server::{Process, Replica, free_port, run};

/// The token of all test replicas.
pub const ADMIN_TOKEN: &str = "a-token-for-tests-of-more-than-32-characters";

/// Most memory that a replica may take for an idle connection, and for an order in its queue with the client behind it.
pub const BYTES_PER_IDLE: usize = 4 * 1024;
pub const BYTES_PER_ORDER: usize = 24 * 1024;

/// Longest wait for anything that should happen soon.
pub const SOON: Duration = Duration::from_secs(15);

/// The strategies that keep the promises.
pub const SOUND: [&str; 5] = ["conditional", "optimistic", "pessimistic", "redlock", "batched"];

/// The servers that all tests share.
pub fn servers() -> Servers {
    let path =
        std::env::var_os("CLUSTER_FILE").expect("CLUSTER_FILE is not set; `make test` starts the servers and sets it");
    Servers::read(&PathBuf::from(path)).unwrap()
}

/// What a test wants to begin with.
#[derive(Clone)]
pub struct Setup {
    strategy: String,
    replicas: usize,
    exclusive: bool,
    coupons: Vec<(String, u32)>,
    settings: Vec<(String, String)>,
    servers: Option<Servers>,
}

impl Setup {
    /// Two replicas with `strategy`, one coupon `A` of ten pieces, one coupon per user and code.
    pub fn new(strategy: &str) -> Self {
        Self {
            strategy: strategy.to_owned(),
            replicas: 2,
            exclusive: false,
            coupons: vec![("A".to_owned(), 10)],
            settings: Vec::new(),
            servers: None,
        }
    }

    /// On these servers instead of those that all tests share.
    pub fn on(self, servers: &Servers) -> Self {
        Self { servers: Some(servers.clone()), ..self }
    }

    /// That many replicas in this process; 0 for tests that start their own.
    pub fn replicas(self, replicas: usize) -> Self {
        Self { replicas, ..self }
    }

    /// One coupon per user over the whole event.
    pub fn exclusive(self) -> Self {
        Self { exclusive: true, ..self }
    }

    /// These coupons instead.
    pub fn coupons<C: Into<String>>(self, coupons: impl IntoIterator<Item = (C, u32)>) -> Self {
        Self { coupons: coupons.into_iter().map(|(code, total)| (code.into(), total)).collect(), ..self }
    }

    /// With a time-to-live so long that a replica waits for a lock for as long as a test keeps it.
    pub fn patient(self) -> Self {
        self.set("--lock-ttl-ms", 60_000)
    }

    /// With lock nodes that may take ten times as long to answer: what else runs on the machine is not to make them count as lost.
    pub fn sure_of_nodes(self) -> Self {
        self.set("--probe-timeout-ms", 400)
    }

    /// A setting of `serve` by its flag, such as `--pool-size`.
    #[expect(clippy::needless_pass_by_value, reason = "values are written down where they are set")]
    pub fn set(mut self, flag: &str, value: impl ToString) -> Self {
        self.settings.push((flag.to_owned(), value.to_string()));
        self
    }

    /// Makes the database and starts the replicas; all of them are ready.
    pub async fn start(self) -> Cluster {
        static DATABASES: AtomicU32 = AtomicU32::new(0);
        let servers = self.servers.clone().unwrap_or_else(servers);
        let number = DATABASES.fetch_add(1, Ordering::Relaxed);
        let name = format!("t_{}_{number}", std::process::id());
        let mysql = servers.mysql.as_ref().expect("the cluster has no database");
        let url = format!("{}/{name}", mysql.url.rsplit_once('/').unwrap().0);
        coupon_rush::store::migrate(&mysql.admin_url, &url).await.unwrap();
        let mut cluster = Cluster { servers, name, url, setup: self, replicas: Vec::new(), client: Client::new() };
        cluster.stock().await;
        for _ in 0..cluster.setup.replicas {
            let replica = Replica::start(cluster.arguments()).await;
            cluster.replicas.push(replica);
        }
        for replica in 0..cluster.replicas.len() {
            cluster.until_ready(replica).await;
        }
        cluster
    }
}

/// A database with replicas over it.
pub struct Cluster {
    /// The servers that all tests share.
    pub servers: Servers,
    /// The name of the database.
    pub name: String,
    /// The replicas in this process.
    pub replicas: Vec<Replica>,
    /// Asks them.
    pub client: Client,
    url: String,
    setup: Setup,
}

impl Cluster {
    /// The flags of `serve` for this cluster, without addresses: any free ports.
    pub fn arguments(&self) -> Vec<(String, String)> {
        let redis: Vec<_> = self.servers.redis.iter().map(|node| node.url.clone()).collect();
        let mut arguments = vec![
            ("--listen".to_owned(), "127.0.0.1:0".to_owned()),
            ("--ops-listen".to_owned(), "127.0.0.1:0".to_owned()),
            ("--replica".to_owned(), "replica-1".to_owned()),
            ("--strategy".to_owned(), self.setup.strategy.clone()),
            // No balancer here waits for anything.
            ("--lame-duck-ms".to_owned(), "0".to_owned()),
            ("--redis-urls".to_owned(), redis.join(",")),
            ("--lock-prefix".to_owned(), format!("{}:", self.name)),
            ("--database-url-file".to_owned(), self.secret("url", &self.url)),
            ("--admin-token-file".to_owned(), self.secret("token", ADMIN_TOKEN)),
        ];
        for (flag, value) in &self.setup.settings {
            arguments.retain(|(known, _)| known != flag);
            arguments.push((flag.clone(), value.clone()));
        }
        arguments
    }

    /// A file in cargo's folder for tests; rewritten with the same content by every caller.
    fn secret(&self, kind: &str, content: &str) -> String {
        let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("{}.{kind}", self.name));
        std::fs::write(&path, content).unwrap();
        path.to_str().unwrap().to_owned()
    }

    /// A connection that may do everything, in this cluster's database.
    pub async fn sql(&self) -> MySqlConnection {
        let admin = &self.servers.mysql.as_ref().unwrap().admin_url;
        let base = admin.split('?').next().unwrap().trim_end_matches('/');
        let mut connection = if base.contains(',') {
            until("a member takes writes", SOON, async || self.servers.connect().await).await
        } else {
            MySqlConnection::connect(base).await.unwrap()
        };
        // A test may have changed the server's defaults.
        let plain = "SET /*!80000 max_execution_time = 0, */ /*M! max_statement_time = 0, */ autocommit = 1, completion_type = 0, sql_safe_updates = 0, sql_big_selects = 1, \
                     sql_select_limit = 18446744073709551615, sql_mode = ''; SET SESSION TRANSACTION READ WRITE";
        connection.execute(plain).await.unwrap();
        connection.execute(AssertSqlSafe(format!("USE {}", self.name))).await.unwrap();
        connection
    }

    /// Runs one statement in this cluster's database.
    pub async fn run(&self, statement: &str) {
        self.sql().await.execute(AssertSqlSafe(statement.to_owned())).await.unwrap();
    }

    /// Reads one number from this cluster's database.
    pub async fn number(&self, query: &str) -> i64 {
        let query = format!("SELECT CAST(({query}) AS SIGNED)");
        sqlx::query_scalar(AssertSqlSafe(query)).fetch_one(&mut self.sql().await).await.unwrap()
    }

    /// Makes the event and the coupons that the setup asks for.
    async fn stock(&self) {
        let exclusive = self.setup.exclusive;
        let scope = if exclusive { "scope" } else { "id" };
        let event =
            format!("INSERT INTO event (name, exclusive, exclusive_next) VALUES ('chicken', {exclusive}, {exclusive})");
        let coupons = self.setup.coupons.iter().map(|(code, total)| {
            format!(
                "INSERT INTO coupon (code, discount_percent, total, remaining, round, scope) \
                 VALUES ('{code}', 10, {total}, {total}, 1, 0)"
            )
        });
        let mut sql = self.sql().await;
        for statement in [event].into_iter().chain(coupons) {
            sql.execute(AssertSqlSafe(statement)).await.unwrap();
        }
        sql.execute(AssertSqlSafe(format!("UPDATE coupon SET scope = {scope}"))).await.unwrap();
    }

    /// Waits until a replica says that it is ready.
    pub async fn until_ready(&self, replica: usize) {
        let url = format!("{}/readyz", self.replicas[replica].ops_url);
        eventually("the replica is ready", async || self.client.get(&url).await.status == 200).await;
    }

    /// Waits until every replica's memory has a coupon in a state, such as `sold-out`.
    pub async fn until_state(&self, code: &str, state: &str) {
        let path = format!("/coupons/{code}");
        for replica in 0..self.replicas.len() {
            let seen = async || self.get(replica, &path).await.member("state") == state;
            eventually("the replica has seen the state", seen).await;
        }
    }

    /// `POST /coupons/issue` to one replica.
    pub async fn issue(&self, replica: usize, code: &str, user: &str, key: &str) -> Answer {
        let url = format!("{}/coupons/issue", self.replicas[replica].url);
        let body = json!({"code": code, "userId": user});
        self.client.send("POST", &url, &[("idempotency-key", key)], Some(&body)).await
    }

    /// `GET` from one replica's public listener.
    pub async fn get(&self, replica: usize, path: &str) -> Answer {
        self.client.get(&format!("{}{path}", self.replicas[replica].url)).await
    }

    /// An administrative call to one replica.
    pub async fn admin(&self, replica: usize, method: &str, path: &str, body: Option<serde_json::Value>) -> Answer {
        let url = format!("{}{path}", self.replicas[replica].ops_url);
        let token = format!("Bearer {ADMIN_TOKEN}");
        self.client.send(method, &url, &[("authorization", &token)], body.as_ref()).await
    }

    /// Ends the current round at one replica; returns the next one.
    pub async fn reset(&self, replica: usize) -> u64 {
        let round = self.admin(replica, "GET", "/admin/event", None).await.member("round");
        let answer = self.admin(replica, "POST", "/admin/reset", Some(json!({ "round": round }))).await;
        assert_eq!(answer.status, 200, "{}", answer.text);
        answer.member("round").as_u64().unwrap()
    }

    /// One sample of a replica's `/metrics`, such as `coupon_shed_total`; series with labels are written as they are exposed.
    pub async fn metric(&self, replica: usize, series: &str) -> f64 {
        sample(&self.client, &self.replicas[replica].ops_url, series).await
    }

    /// What the one verifier says of the tables.
    pub async fn verify(&self) -> Report {
        coupon_lab::verify(&mut self.sql().await, None).await.unwrap()
    }

    /// Proves that no promise is broken, and takes the database away.
    pub async fn finish(self) {
        let report = self.verify().await;
        assert!(report.is_clean(), "{}", report.verdict());
        self.discard().await;
    }

    /// Takes the database away.
    pub async fn discard(self) {
        self.run(&format!("DROP DATABASE {}", self.name)).await;
    }
}

/// Runs `test` on a cluster for every strategy at once, when all of the clusters have started. Their pools are small, so
/// that the server has connections for all of them.
pub async fn in_each<T: Future<Output = ()>>(
    strategies: impl IntoIterator<Item = &'static str>,
    setup: impl Fn(&str) -> Setup,
    test: impl Fn(&'static str, Cluster) -> T,
) {
    let starting = strategies.into_iter().map(|strategy| {
        let cluster = setup(strategy).sure_of_nodes().set("--pool-size", 3).start();
        async move { (strategy, cluster.await) }
    });
    let clusters = join_all(starting).await;
    join_all(clusters.into_iter().map(|(strategy, cluster)| test(strategy, cluster))).await;
}

/// The settings of `serve` as the command line parses them.
pub fn settings(arguments: &[(String, String)]) -> Box<coupon_rush::config::Serve> {
    let words = arguments.iter().flat_map(|(flag, value)| [flag.clone(), value.clone()]);
    let cli = Cli::parse_from(["coupon-rush".to_owned(), "serve".to_owned()].into_iter().chain(words));
    match cli.command {
        Command::Serve(settings) => settings,
        _ => unreachable!("`serve` was asked for"),
    }
}

/// Waits until `condition` holds, or panics saying what never came true.
pub async fn eventually(what: &str, mut condition: impl AsyncFnMut() -> bool) {
    until(what, SOON, async || condition().await.then_some(()).ok_or("not yet")).await;
}

/// Tries until it succeeds, or panics with what the last try lacked.
pub async fn until<T, E: Display>(
    what: impl Display,
    within: Duration,
    mut attempt: impl AsyncFnMut() -> Result<T, E>,
) -> T {
    let (started, mut pace) = (Instant::now(), pace(Duration::from_millis(20)));
    loop {
        let lacking = match attempt().await {
            Ok(found) => return found,
            Err(lacking) => lacking,
        };
        assert!(started.elapsed() < within, "{what}: not within {within:?}: {lacking}");
        pace.tick().await;
    }
}

/// The pace of doing something every `period`, and no faster after a delay.
pub fn pace(period: Duration) -> Interval {
    let mut pace = interval_at(tokio::time::Instant::now() + period, period);
    pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
    pace
}
