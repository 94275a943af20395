//! What a test puts in the way of an issue: a held row, a held lock, a broken way to the database; and what it sees of it.

use std::net::SocketAddr;

use redis::aio::MultiplexedConnection;
use sqlx::mysql::MySqlRow;
use sqlx::{AssertSqlSafe, Connection, Executor, MySqlConnection, Row};

use super::{Answer, Client, Cluster, FaultProxy, Replica, SOON, until};

/// Coupon rows that a transaction of the test has locked.
pub struct Held(MySqlConnection);

impl Held {
    pub async fn release(mut self) {
        self.0.execute("COMMIT").await.unwrap();
        self.0.close().await.unwrap();
    }
}

/// The lock of one code, held by the test, which gives it back when it wants to.
pub struct HeldLock {
    key: String,
    nodes: Vec<MultiplexedConnection>,
}

impl HeldLock {
    pub async fn release(mut self) {
        for node in &mut self.nodes {
            redis::cmd("DEL").arg(&self.key).query_async::<()>(node).await.unwrap();
        }
    }
}

impl Cluster {
    /// Locks the coupon rows whose code matches a LIKE pattern.
    pub async fn hold(&self, codes: &str) -> Held {
        let mut connection = self.sql().await;
        let lock = format!("SELECT code FROM coupon WHERE code LIKE '{codes}' ORDER BY id FOR UPDATE");
        connection.execute("START TRANSACTION").await.unwrap();
        connection.execute(AssertSqlSafe(lock)).await.unwrap();
        Held(connection)
    }

    /// How many transactions of the service wait for a row now.
    pub async fn waiting_for_rows(&self) -> i64 {
        let database = &self.name;
        // `information_schema.innodb_trx` stays as it is while it is read more often than every 100 ms.
        let query = if self.is_mysql() {
            format!(
                "SELECT COUNT(DISTINCT w.requesting_thread_id) FROM performance_schema.data_lock_waits AS w \
                   JOIN performance_schema.threads AS t ON t.thread_id = w.requesting_thread_id \
                  WHERE t.processlist_db = '{database}'"
            )
        } else {
            format!(
                "SELECT COUNT(*) FROM information_schema.processlist \
                  WHERE db = '{database}' AND id <> CONNECTION_ID() AND command <> 'Sleep' AND time_ms > 30 \
                    AND info NOT LIKE '%LEFT JOIN coupon%'"
            )
        };
        self.number(&query).await
    }

    /// Whether the database is `MySQL` and not `MariaDB`.
    pub fn is_mysql(&self) -> bool {
        self.servers.mysql.as_ref().unwrap().engine == "mysql"
    }

    /// The server's numbers of the service's connections to this cluster's database.
    pub async fn connections(&self) -> Vec<u64> {
        self.connections_used_within(u32::MAX).await
    }

    /// The same of those that were used within the last `seconds`.
    pub async fn connections_used_within(&self, seconds: u32) -> Vec<u64> {
        let user = self.database_url().strip_prefix("mysql://").unwrap().split(':').next().unwrap().to_owned();
        let name = &self.name;
        let (table, of) = if self.is_mysql() {
            ("performance_schema.threads", "processlist_")
        } else {
            ("information_schema.processlist", "")
        };
        let list = format!(
            "SELECT CAST({of}id AS UNSIGNED) FROM {table} \
              WHERE {of}db = '{name}' AND {of}user = '{user}' AND {of}time < {seconds}"
        );
        let rows = self.sql().await.fetch_all(AssertSqlSafe(list)).await.unwrap();
        rows.iter().map(|row| row.get(0)).collect()
    }

    /// For how many seconds the oldest statement of the service has been at work.
    pub async fn oldest_statement(&self) -> i64 {
        // A test waits for nothing that is prepared, and a trigger runs under another name.
        let at_work = |session: &&MySqlRow| session.get::<&str, _>("Command") == "Execute";
        self.sessions().await.iter().filter(at_work).map(|session| session.get_unchecked("Time")).max().unwrap_or(0)
    }

    /// Whether a statement with these words runs.
    pub async fn runs(&self, words: &str) -> bool {
        let sessions = self.sessions().await;
        sessions.iter().any(|session| session.get::<Option<&str>, _>("Info").is_some_and(|text| text.contains(words)))
    }

    /// What is connected to this cluster's database. `information_schema` would fail while any statement holds bytes that are no text.
    async fn sessions(&self) -> Vec<MySqlRow> {
        let mut sessions = self.sql().await.fetch_all("SHOW FULL PROCESSLIST").await.unwrap();
        sessions.retain(|session| session.get::<Option<&str>, _>("db") == Some(&self.name));
        sessions
    }

    /// Kills all of the service's connections to this cluster's database. Returns how many.
    pub async fn kill_connections(&self) -> usize {
        let (mut admin, mut killed) = (self.sql().await, 0);
        for connection in self.connections().await {
            // One that has ended by itself meanwhile cannot be killed.
            killed += usize::from(admin.execute(AssertSqlSafe(format!("KILL CONNECTION {connection}"))).await.is_ok());
        }
        killed
    }

    /// Of how many calls a replica does not know whether they were carried out.
    pub async fn unknown_outcomes(&self, replica: usize) -> f64 {
        self.metric(replica, "coupon_unknown_outcomes_total").await
    }

    /// How many statements a replica has given up: the server said that the row stays locked, or did not say so in time. InnoDB looks once
    /// a second at most which waits are over, so that a wait of one second may take more than the two that the service listens.
    pub async fn given_up(&self, replica: usize) -> f64 {
        let contended = self.metric(replica, r#"coupon_batch_reruns_total{reason="contended"}"#).await;
        contended + self.unknown_outcomes(replica).await
    }

    /// The service's own URL of this cluster's database.
    pub fn database_url(&self) -> String {
        let file = self.arguments().into_iter().find(|(flag, _)| flag == "--database-url-file").unwrap().1;
        std::fs::read_to_string(file).unwrap()
    }

    /// The flags of `serve` for a replica that reaches the database through `proxy`.
    pub fn arguments_through(&self, proxy: &FaultProxy) -> Vec<(String, String)> {
        let direct = format!("@{}/", self.database_address());
        let url = self.database_url().replace(&direct, &format!("@127.0.0.1:{}/", proxy.port));
        let mut arguments = self.arguments();
        let (_, file) = arguments.iter_mut().find(|(flag, _)| flag == "--database-url-file").unwrap();
        *file = format!("{file}.{}", proxy.port);
        std::fs::write(file, url).unwrap();
        arguments
    }

    /// Starts one more replica in this process, with locks of its own name: it never waits for another.
    pub async fn join_with_own_lock(&mut self) {
        self.join_with("--lock-prefix", format!("{}-{}:", self.name, self.replicas.len())).await;
    }

    /// Starts one more replica in this process, for which a setting is another.
    pub async fn join_with(&mut self, flag: &str, value: String) {
        let mut arguments = self.arguments();
        arguments.retain(|(given, _)| given != flag);
        arguments.push((flag.to_owned(), value));
        self.start_replica(arguments).await;
    }

    /// Starts one more replica in this process, behind a new proxy.
    pub async fn join_through_proxy(&mut self) -> FaultProxy {
        let proxy = FaultProxy::start(self.database_address()).await.unwrap();
        self.replicas.push(Replica::start(self.arguments_through(&proxy)).await);
        self.until_ready(self.replicas.len() - 1).await;
        proxy
    }

    /// Starts one more replica in this process, with these settings.
    pub async fn start_replica(&mut self, arguments: Vec<(String, String)>) {
        self.replicas.push(Replica::start(arguments).await);
        self.until_ready(self.replicas.len() - 1).await;
    }

    /// How many batches a replica has settled without the lock.
    pub async fn bypassed(&self, replica: usize) -> f64 {
        let reasons =
            ["no-quorum", "no-grant"].map(|reason| format!("coupon_lock_bypassed_total{{reason=\"{reason}\"}}"));
        self.metric(replica, &reasons[0]).await + self.metric(replica, &reasons[1]).await
    }

    /// Where the database listens.
    pub fn database_address(&self) -> SocketAddr {
        let url = self.database_url();
        url.rsplit_once('@').unwrap().1.split('/').next().unwrap().parse().unwrap()
    }

    /// Takes the lock of `code` on every node, as a holder that does not come back. It must be free.
    pub async fn hold_lock(&self, code: &str) -> HeldLock {
        let key = self.lock_key(code);
        let mut nodes = Vec::new();
        for node in &self.servers.redis {
            let mut node = redis_connection(&node.url).await;
            let mut set = redis::cmd("SET");
            set.arg(&key).arg("a test").arg("NX").arg("PX").arg(60_000);
            assert!(set.query_async::<bool>(&mut node).await.unwrap(), "{key} is taken");
            nodes.push(node);
        }
        HeldLock { key, nodes }
    }

    /// The key of the lock of `code`.
    pub fn lock_key(&self, code: &str) -> String {
        format!("{}:lock:{code}", self.name)
    }

    /// The locks of this cluster that are held on any shared Redis node.
    pub async fn held_locks(&self) -> Vec<String> {
        let keys = self.redis_keys().await;
        keys.into_iter().filter(|key| key.starts_with(&self.lock_key(""))).collect()
    }

    /// The keys of this cluster on all shared Redis nodes.
    pub async fn redis_keys(&self) -> Vec<String> {
        let mut all = Vec::new();
        for node in &self.servers.redis {
            let mut node = redis_connection(&node.url).await;
            let keys: Vec<String> =
                redis::cmd("KEYS").arg(format!("{}:*", self.name)).query_async(&mut node).await.unwrap();
            // The prober's own keys come and go.
            all.extend(keys.into_iter().filter(|key| !key.contains(":probe")));
        }
        all
    }

    /// Asks one replica until it gives a decision: an answer other than "not now". That there is none at all is an answer, too.
    pub async fn decided(&self, replica: usize, code: &str, user: &str) -> Answer {
        until(format!("a decision about {user} and {code}"), 3 * SOON, async || {
            let answer = self.issue(replica, code, user, "k").await;
            if answer.status == 503 { Err(answer.text) } else { Ok(answer) }
        })
        .await
    }
}

/// A connection to one Redis node.
pub async fn redis_connection(url: &str) -> MultiplexedConnection {
    redis::Client::open(url).unwrap().get_multiplexed_async_connection().await.unwrap()
}

/// One sample of `/metrics` at `ops_url`.
pub async fn sample(client: &Client, ops_url: &str, series: &str) -> f64 {
    value(&client.get(&format!("{ops_url}/metrics")).await.text, series)
}

/// One sample of what `/metrics` says.
pub fn value(metrics: &str, series: &str) -> f64 {
    let line = metrics.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
    line.unwrap_or_else(|| panic!("no series {series} in:\n{metrics}")).parse().unwrap()
}
