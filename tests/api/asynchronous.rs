//! Why a group: with asynchronous replication in its place the checker finds coupons that were acknowledged and are lost.

use std::net::SocketAddr;

use coupon_lab::cluster::Cluster as Servers;
use coupon_lab::verify::{Kind, Report};
use coupon_rush::store::migrate;
use sqlx::{AssertSqlSafe, Connection, Executor, MySqlConnection, Row};

use crate::support::{Cluster, FaultProxy, OwnServer, Recorder, Setup, eventually};

const PIECES: u32 = 9;
/// Coupons acknowledged before the failover.
const ACKNOWLEDGED: usize = 6;

/// Two servers, of which the second copies the first one's rows when it gets to it, and two replicas that find the one through a proxy.
struct Pair {
    cluster: Cluster,
    copy: OwnServer,
    /// From the first server to its copy.
    link: FaultProxy,
    /// From the replicas to the server that is the primary.
    way: FaultProxy,
}

async fn until_copied(cluster: &Cluster, rows: usize) {
    eventually("the copy has the rows", async || {
        cluster.number("SELECT COUNT(*) FROM wallet").await == i64::try_from(rows).unwrap()
    })
    .await;
}

fn address(servers: &Servers) -> SocketAddr {
    let (_, address) = servers.mysql.as_ref().unwrap().url.rsplit_once('@').unwrap();
    address.split('/').next().unwrap().parse().unwrap()
}

impl Pair {
    /// `None` on a server that says it in other words.
    async fn start() -> Option<Self> {
        let (copy, first) = (OwnServer::start().await, crate::support::servers());
        if !copy.is_mysql() {
            return None;
        }
        let mut cluster = Setup::new("batched").replicas(0).coupons([("A", PIECES)]).on(&copy.servers).start().await;
        let (link, way) =
            (FaultProxy::start(address(&first)).await.unwrap(), FaultProxy::start(address(&first)).await.unwrap());
        let name = &cluster.name;
        // An account that no other test uses.
        let url = |address| format!("mysql://{name}:{name}@{address}/{name}");
        for servers in [&first, &copy.servers] {
            migrate(&servers.mysql.as_ref().unwrap().admin_url, &url(address(servers))).await.unwrap();
        }
        let admin = &first.mysql.as_ref().unwrap().admin_url;
        let mut sql = MySqlConnection::connect(admin).await.unwrap();
        for statement in [
            format!("USE {name}"),
            "INSERT INTO event (name, exclusive, exclusive_next) VALUES ('test', FALSE, FALSE)".to_owned(),
            format!(
                "INSERT INTO coupon (code, discount_percent, total, remaining, round, scope) VALUES ('A', 10, {PIECES}, {PIECES}, 1, 1)"
            ),
        ] {
            sql.execute(AssertSqlSafe(statement)).await.unwrap();
        }
        let through = url(([127, 0, 0, 1], way.port).into());
        let arguments = cluster.arguments_through(&way);
        let (_, file) = arguments.iter().find(|(flag, _)| flag == "--database-url-file").unwrap();
        std::fs::write(file, through).unwrap();
        for _ in 0..2 {
            cluster.start_replica(arguments.clone()).await;
        }
        let mut pair = Self { cluster, copy, link, way };
        pair.replicate(&first).await;
        Some(pair)
    }

    async fn replicate(&mut self, first: &Servers) {
        let admin = &first.mysql.as_ref().unwrap().admin_url;
        let mut sql = MySqlConnection::connect(admin).await.unwrap();
        let end = sql.fetch_one("SHOW BINARY LOG STATUS").await.unwrap();
        let (file, position): (String, u64) = (end.get(0), end.get(1));
        // The administrator's password is too long for a copy.
        for statement in [
            "CREATE USER IF NOT EXISTS 'copy'@'127.0.0.1' IDENTIFIED BY 'copy'",
            "GRANT REPLICATION SLAVE ON *.* TO 'copy'@'127.0.0.1'",
        ] {
            sql.execute(statement).await.unwrap();
        }
        self.copy.set("server_id", "2").await;
        for statement in [
            format!("CHANGE REPLICATION FILTER REPLICATE_WILD_DO_TABLE = ('{}.%')", self.cluster.name),
            format!(
                "CHANGE REPLICATION SOURCE TO SOURCE_HOST = '127.0.0.1', SOURCE_PORT = {}, SOURCE_USER = 'copy', SOURCE_PASSWORD = 'copy', SOURCE_LOG_FILE = '{file}', SOURCE_LOG_POS = {position}, SOURCE_SSL = 1",
                self.link.port
            ),
            "START REPLICA".to_owned(),
        ] {
            self.copy.run(&statement).await;
        }
    }

    /// The copy becomes the primary, as if the first server had died.
    async fn fail_over(&self, recorder: &Recorder<'_>) {
        self.link.refuse();
        self.way.lead_to(address(&self.copy.servers));
        self.way.cut();
        recorder.insist(0, "A", "after", "k").await;
    }

    async fn end(mut self) {
        for statement in ["STOP REPLICA", "RESET REPLICA ALL", "CHANGE REPLICATION FILTER REPLICATE_WILD_DO_TABLE = ()"]
        {
            self.copy.run(statement).await;
        }
        self.copy.restore().await;
        self.cluster.discard().await;
    }
}

/// Users get coupons of two replicas, then the copy takes over. What the checker says, where the copy had so many of the rows by then.
async fn judged(copied: usize) -> Option<Report> {
    let pair = Pair::start().await?;
    let Pair { cluster, link, .. } = &pair;
    let recorder = Recorder::new(cluster);
    for user in 0..ACKNOWLEDGED {
        if user == copied {
            until_copied(cluster, user).await;
            link.silence();
        }
        recorder.insist(user % 2, "A", &format!("u-{user}"), "k").await;
    }
    until_copied(cluster, copied).await;
    pair.fail_over(&recorder).await;
    let report = recorder.judge().await;
    pair.end().await;
    Some(report)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn coupons_that_were_acknowledged_before_another_server_had_them_are_found_lost() {
    let Some(lossy) = judged(ACKNOWLEDGED / 2).await else { return };
    let lost = lossy.findings.iter().find(|finding| finding.kind == Kind::AckLost);
    assert!(lost.is_some(), "{lossy}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_the_other_server_had_them_all_the_same_failover_loses_nothing() {
    let Some(report) = judged(ACKNOWLEDGED).await else { return };
    assert!(report.is_clean(), "{report}");
}
