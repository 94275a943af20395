//! What the servers themselves count: statements that reached the database, commands that reached Redis.

use std::collections::BTreeMap;

use sqlx::{AssertSqlSafe, Executor, Row};

use super::{Cluster, Process, free_port, redis_connection};

/// One server has one log, so one test at a time writes it.
const LOG_LOCK: &str = "'the tests write the general log'";

/// What the prober of a replica sends in each look, which it begins with `PING`; the script has two more.
const LOOK: [&str; 8] = ["set", "lpush", "ltrim", "pexpire", "blpop", "evalsha", "get", "del"];

/// What counts looks, and what others than the prober send to see the sleepers.
const UNCOUNTED: [&str; 2] = ["ping", "info"];

impl Cluster {
    /// Runs `work` and returns the first words of the statements that the service sent to this database meanwhile, as the
    /// server logged them. A replica's regular look at the catalogue does not count.
    pub async fn statements_during<T>(&self, work: impl Future<Output = T>) -> (T, Vec<String>) {
        let mut sql = self.sql().await;
        let (lock, unlock) = (format!("SELECT GET_LOCK({LOG_LOCK}, 60)"), format!("SELECT RELEASE_LOCK({LOG_LOCK})"));
        sql.execute(AssertSqlSafe(lock)).await.unwrap();
        for statement in ["TRUNCATE mysql.general_log", "SET GLOBAL log_output = 'TABLE'", "SET GLOBAL general_log = 1"]
        {
            sql.execute(statement).await.unwrap();
        }
        let done = work.await;
        for statement in ["SET GLOBAL general_log = 0", "SET GLOBAL log_output = 'FILE'"] {
            sql.execute(statement).await.unwrap();
        }
        let sessions: Vec<_> = self.connections().await.iter().map(u64::to_string).collect();
        let logged = format!(
            "SELECT CAST(thread_id AS UNSIGNED), CAST(command_type AS CHAR), CAST(argument AS CHAR) \
               FROM mysql.general_log \
              WHERE thread_id IN ({}) AND command_type IN ('Query', 'Execute') ORDER BY event_time",
            sessions.join(", ")
        );
        let rows = sql.fetch_all(AssertSqlSafe(logged)).await.unwrap();
        for statement in ["TRUNCATE mysql.general_log".to_owned(), unlock] {
            sql.execute(AssertSqlSafe(statement)).await.unwrap();
        }
        let statements: Vec<(u64, String, String)> =
            rows.iter().map(|row| (row.get(0), row.get(1), row.get(2))).collect();
        (done, self.sent(&statements))
    }

    /// The first words of what came from a client.
    fn sent(&self, statements: &[(u64, String, String)]) -> Vec<String> {
        // `MariaDB` also logs the statements inside a procedure, as queries of the session that called it.
        let calls = |session: u64| statements.iter().any(|(of, _, text)| *of == session && text.starts_with("CALL"));
        statements
            .iter()
            .filter(|(_, _, text)| !text.contains("FROM event AS e LEFT JOIN coupon AS c"))
            .filter(|(session, kind, _)| self.is_mysql() || kind != "Query" || !calls(*session))
            .map(|(_, _, text)| text.split_whitespace().next().unwrap_or_default().to_owned())
            .collect()
    }
}

/// Three Redis servers that only one test uses.
pub struct PrivateRedis(Vec<Process>);

impl PrivateRedis {
    pub async fn start() -> Self {
        let mut nodes = Vec::new();
        for _ in 0..3 {
            nodes.push(Process::redis(free_port()).await);
        }
        Self(nodes)
    }

    /// The value of `--redis-urls`.
    pub fn urls(&self) -> String {
        self.0.iter().map(|node| node.url.as_str()).collect::<Vec<_>>().join(",")
    }

    /// How often each command ran on each node so far, those inside scripts too; the prober's do not count.
    pub async fn calls(&self) -> Vec<BTreeMap<String, u64>> {
        let mut all = Vec::new();
        for node in &self.0 {
            all.push(calls_at(&node.url).await);
        }
        all
    }
}

/// How often each command ran at one Redis server since it started; the prober's do not count.
pub async fn calls_at(url: &str) -> BTreeMap<String, u64> {
    let mut node = redis_connection(url).await;
    let info: String = redis::cmd("INFO").arg("commandstats").query_async(&mut node).await.unwrap();
    let calls = info.lines().filter_map(|line| {
        let (command, numbers) = line.strip_prefix("cmdstat_")?.split_once(":calls=")?;
        let is_setup = command.starts_with("client|");
        (!is_setup).then(|| (command.to_owned(), numbers.split(',').next().unwrap().parse().unwrap()))
    });
    let mut calls: BTreeMap<String, u64> = calls.collect();
    let looks = calls.get("ping").copied().unwrap_or(0);
    for command in LOOK {
        calls.entry(command.to_owned()).and_modify(|count| *count = count.saturating_sub(looks));
    }
    calls.retain(|command, _| !UNCOUNTED.contains(&command.as_str()));
    calls
}

/// What was added to each node's counts.
pub fn added(before: &[BTreeMap<String, u64>], after: &[BTreeMap<String, u64>]) -> Vec<BTreeMap<String, u64>> {
    let pairs = before.iter().zip(after);
    pairs
        .map(|(before, after)| {
            let more = after
                .iter()
                .map(|(command, calls)| (command.clone(), calls.saturating_sub(*before.get(command).unwrap_or(&0))));
            more.filter(|(_, calls)| *calls > 0).collect()
        })
        .collect()
}
