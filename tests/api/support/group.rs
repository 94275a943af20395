//! A database of three members whose primary a test may change, stop and kill: for one test at a time, and not the server that all
//! share.

use std::io::Write;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use coupon_lab::cluster::Cluster as Servers;
use sqlx::{AssertSqlSafe, Connection, MySqlConnection};
use tokio::sync::{Mutex, MutexGuard};

use super::own_server::up;
use super::{Cluster, SOON, pace, servers, until};

static TURN: Mutex<()> = Mutex::const_new(());

/// Longer than a group takes to elect another primary.
const ELECTION: Duration = SOON;

/// How long a member that ends may take to be back, and for how long all are to be there then.
const WHOLE: Duration = Duration::from_mins(1);
const A_WHILE: Duration = Duration::from_secs(2);

/// The right to it.
pub struct Group {
    pub servers: Servers,
    /// One URL for each member, of an account that may do everything.
    admin_urls: Vec<String>,
    home: PathBuf,
    _turn: MutexGuard<'static, ()>,
}

impl Group {
    /// Waits for the tests that have it, and for all of its members; `local/test-rust` ends it. `None`, and a word about it, where the
    /// database is `MariaDB`, which has no such groups.
    pub async fn start() -> Option<Self> {
        if servers().mysql.unwrap().engine != "mysql" {
            // Not by `eprintln`, which a test that passes keeps for itself.
            #[expect(clippy::explicit_write, reason = "libtest keeps what eprintln! says of a test that passes")]
            writeln!(std::io::stderr(), "skipped: MariaDB has no groups").unwrap();
            return None;
        }
        let turn = TURN.lock().await;
        let servers = up("group", 200, &[("DB_MEMBERS", "3")]).await;
        let home = PathBuf::from(std::env::var_os("CLUSTER_FILE").unwrap()).with_file_name("group");
        let admin_urls = each_member(&servers.mysql.as_ref().unwrap().admin_url);
        let group = Self { servers, admin_urls, home, _turn: turn };
        until("all members are there to stay", WHOLE, async || group.is_whole_for_a_while().await).await;
        Some(group)
    }

    /// A member that was frozen is expelled some time after it woke, and takes itself for well until then.
    async fn is_whole_for_a_while(&self) -> Result<(), String> {
        let all = "SELECT COUNT(*) FROM performance_schema.replication_group_members WHERE MEMBER_STATE = 'ONLINE'";
        let (since, mut pace) = (Instant::now(), pace(Duration::from_millis(100)));
        while since.elapsed() < A_WHILE {
            for member in self.members() {
                let seen = self.number(member, all).await;
                if seen != Some(3) {
                    return Err(format!("member {member} sees {seen:?}"));
                }
            }
            pace.tick().await;
        }
        Ok(())
    }

    /// The members, by their places.
    pub fn members(&self) -> std::ops::Range<usize> {
        0..self.admin_urls.len()
    }

    /// The place of the member that takes writes, as soon as there is one beside `not`.
    pub async fn primary_but(&self, not: Option<usize>) -> usize {
        until("another primary", ELECTION, async || {
            for member in self.members().filter(|&member| Some(member) != not) {
                if self.number(member, "SELECT 1 - @@GLOBAL.read_only").await == Some(1) {
                    return Ok(member);
                }
            }
            Err("no member takes writes")
        })
        .await
    }

    pub async fn primary(&self) -> usize {
        self.primary_but(None).await
    }

    /// Makes a member the primary, as one does before the other is restarted.
    pub async fn switch_to(&self, member: usize) {
        // A group that is about to change in another way refuses.
        let switch = "SELECT group_replication_set_as_primary(@@server_uuid)";
        until("the switch", ELECTION, async || self.run(member, switch).await).await;
    }

    /// Runs statements at one member.
    pub async fn run(&self, member: usize, statements: &'static str) -> sqlx::Result<()> {
        let mut sql = MySqlConnection::connect(&self.admin_urls[member]).await?;
        sqlx::raw_sql(statements).execute(&mut sql).await.map(drop)
    }

    /// Sends a signal by name, such as `STOP`, to a member.
    pub fn signal(&self, member: usize, name: &str) {
        let file = self.home.join(format!("data/mysql-{}/server.pid", member + 1));
        let pid = std::fs::read_to_string(file).unwrap();
        let sent = std::process::Command::new("kill").args(["-s", name, pid.trim()]).status().unwrap();
        assert!(sent.success(), "member {member} does not run");
    }

    /// Reads one number at one member; `None` of one that does not answer.
    pub async fn number(&self, member: usize, query: &str) -> Option<i64> {
        let ask = async {
            let mut sql = MySqlConnection::connect(&self.admin_urls[member]).await.ok()?;
            let query = format!("SELECT CAST(({query}) AS SIGNED)");
            sqlx::query_scalar(AssertSqlSafe(query)).fetch_one(&mut sql).await.ok()
        };
        tokio::time::timeout(Duration::from_secs(1), ask).await.ok()?
    }
}

impl Cluster {
    /// Starts one more replica in this process, which knows one member alone.
    pub async fn join_at(&mut self, member: usize) {
        let url = each_member(&self.database_url()).remove(member);
        let mut arguments = self.arguments();
        let (_, file) = arguments.iter_mut().find(|(flag, _)| flag == "--database-url-file").unwrap();
        *file = format!("{file}.member-{member}");
        std::fs::write(file, url).unwrap();
        self.start_replica(arguments).await;
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // A test may have stopped in the middle. A member that does not run needs no waking.
        for member in self.members() {
            let file = self.home.join(format!("data/mysql-{}/server.pid", member + 1));
            let pid = std::fs::read_to_string(file).unwrap_or_default();
            let _ = std::process::Command::new("kill").args(["-s", "CONT", pid.trim()]).status();
        }
    }
}

/// A URL with several hosts as URLs with one.
fn each_member(url: &str) -> Vec<String> {
    let (account, rest) = url.rsplit_once('@').unwrap();
    let (hosts, database) = rest.split_once('/').unwrap();
    hosts.split(',').map(|host| format!("{account}@{host}/{database}")).collect()
}
