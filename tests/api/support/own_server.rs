//! A database server whose settings a test may change: for one test at a time, and not the one that all share.

use std::path::PathBuf;

use coupon_lab::cluster::Cluster as Servers;
use sqlx::{AssertSqlSafe, Connection, Executor, MySqlConnection, Row};
use tokio::process::Command;
use tokio::sync::{Mutex, MutexGuard};

use super::servers;

static STARTED: Mutex<Option<Started>> = Mutex::const_new(None);

struct Started {
    servers: Servers,
    /// The names of what was changed, and what it was.
    changed: Vec<(String, String)>,
}

/// The right to it.
pub struct OwnServer {
    pub servers: Servers,
    /// Made before any change, so that none concerns it.
    sql: MySqlConnection,
    started: MutexGuard<'static, Option<Started>>,
}

impl OwnServer {
    /// Waits for the tests that have it, and starts it if none had it yet; `local/test-rust` ends it.
    pub async fn start() -> Self {
        let mut started = STARTED.lock().await;
        if started.is_none() {
            *started = Some(Started { servers: up("own", 100, &[]).await, changed: Vec::new() });
        }
        let servers = started.as_ref().unwrap().servers.clone();
        let sql = MySqlConnection::connect(&servers.mysql.as_ref().unwrap().admin_url).await.unwrap();
        let mut own = Self { servers, sql, started };
        // A test before may have stopped in the middle.
        own.restore().await;
        own
    }

    pub fn is_mysql(&self) -> bool {
        self.servers.mysql.as_ref().unwrap().engine == "mysql"
    }

    pub async fn run(&mut self, statement: &str) {
        self.sql.execute(AssertSqlSafe(statement.to_owned())).await.unwrap();
    }

    /// Reads one number.
    pub async fn number(&mut self, query: &str) -> i64 {
        let query = format!("SELECT CAST(({query}) AS SIGNED)");
        self.sql.fetch_one(AssertSqlSafe(query)).await.unwrap().get(0)
    }

    /// Changes a default.
    pub async fn set(&mut self, name: &str, value: &str) {
        let now = format!("SELECT CAST(@@GLOBAL.{name} AS CHAR)");
        let was: String = self.sql.fetch_one(AssertSqlSafe(now)).await.unwrap().get(0);
        let was = if was.parse::<f64>().is_ok() { was } else { format!("'{was}'") };
        self.started.as_mut().unwrap().changed.push((name.to_owned(), was));
        self.run(&format!("SET GLOBAL {name} = {value}")).await;
    }

    /// Makes the defaults what they were.
    pub async fn restore(&mut self) {
        for (name, was) in std::mem::take(&mut self.started.as_mut().unwrap().changed).into_iter().rev() {
            self.run(&format!("SET GLOBAL {name} = {was}")).await;
        }
    }
}

/// Starts servers beside those that all tests share, or those of them that do not run. The lock's nodes may be anybody's.
pub(super) async fn up(folder: &str, offset: u32, settings: &[(&str, &str)]) -> Servers {
    let folder = PathBuf::from(std::env::var_os("CLUSTER_FILE").unwrap()).with_file_name(folder);
    let offset = offset + std::env::var("PORT_OFFSET").unwrap().parse::<u32>().unwrap();
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/local/cluster");
    let mut up = Command::new(script);
    up.args(["up", "--only", "servers"]).env("CLUSTER_DIR", &folder).env("REDIS_NODES", "1");
    let up = up.envs(settings.iter().copied()).env("PORT_OFFSET", offset.to_string()).status().await.unwrap();
    assert!(up.success(), "the server does not start");
    let mut servers = servers();
    servers.mysql = Servers::read(&folder.join("cluster.json")).unwrap().mysql;
    servers
}
