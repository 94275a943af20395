//! What docs/OPERATIONS.md tells an operator to run while the service is in use: a later release's migration, and the removal of
//! old rounds.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use coupon_rush::store::{migrate, purge};
use futures_util::future::join_all;
use sqlx::migrate::Migrator;

use crate::support::{Cluster, Setup};

/// What a later release may bring: a column with a default, and another version of the procedure under a new name.
const LATER: [(&str, &str); 2] = [
    ("9001_channel.sql", "ALTER TABLE wallet ADD COLUMN channel VARCHAR(20) NOT NULL DEFAULT 'web' COMMENT 'A test.'"),
    ("9002_issue_batch_2.sql", "CREATE PROCEDURE issue_batch_2() SELECT 2"),
];

/// A folder with this release's migrations and the later ones.
fn later_migrations(cluster: &Cluster) -> PathBuf {
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("{}.migrations", cluster.name));
    std::fs::create_dir_all(&folder).unwrap();
    for file in std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/migrations")).unwrap() {
        let file = file.unwrap();
        // Only databases of before `seed` know that one as a migration.
        if file.file_name() != "0005_seed.sql" {
            std::fs::copy(file.path(), folder.join(file.file_name())).unwrap();
        }
    }
    for (name, statement) in LATER {
        std::fs::write(folder.join(name), statement).unwrap();
    }
    folder
}

/// Clients of both replicas that ask without a pause, each time as a new user, while `work` is done; all of them are served.
async fn served_during(cluster: &Cluster, work: impl Future<Output = ()>) -> usize {
    let over = AtomicBool::new(false);
    let clients = (0..8).map(|client| {
        let over = &over;
        async move {
            let mut served = 0;
            // A few more come after the work, so that they meet what it has changed.
            let mut more = 20;
            while more > 0 {
                more -= i32::from(over.load(Ordering::Relaxed));
                let answer = cluster.issue(client % 2, "A", &format!("u-{client}-{served}"), "k").await;
                assert_eq!(answer.status, 201, "{}", answer.text);
                served += 1;
            }
            served
        }
    });
    let work = async {
        work.await;
        over.store(true, Ordering::Relaxed);
    };
    let (served, ()) = tokio::join!(join_all(clients), work);
    served.into_iter().sum()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_later_releases_migration_is_applied_under_load_and_an_earlier_one_does_not_touch_it() {
    let cluster = Setup::new("batched").coupons([("A", 100_000)]).start().await;
    let folder = later_migrations(&cluster);
    let served = Box::pin(served_during(&cluster, async {
        let migrator = Migrator::new(folder.as_path()).await.unwrap();
        migrator.run(&mut cluster.sql().await).await.unwrap();
    }))
    .await;
    let new_columns = cluster.number("SELECT COUNT(*) FROM wallet WHERE channel = 'web'").await;
    assert_eq!(usize::try_from(new_columns).unwrap(), served);
    let admin = &cluster.servers.mysql.as_ref().unwrap().admin_url;
    let refused = migrate(admin, &cluster.database_url()).await.unwrap_err();
    assert!(format!("{refused:#}").contains("9001"), "{refused:#}");
    assert_eq!(cluster.issue(0, "A", "later", "k").await.status, 201, "a refused migration changes nothing");
    std::fs::remove_dir_all(folder).unwrap();
    cluster.finish().await;
}

/// Rows of a round, without asking for each.
async fn fill(cluster: &Cluster, round: u32, rows: u32) {
    let digits = "(SELECT 0 AS d UNION ALL SELECT 1 UNION ALL SELECT 2 UNION ALL SELECT 3 UNION ALL SELECT 4 UNION ALL SELECT 5 \
                   UNION ALL SELECT 6 UNION ALL SELECT 7 UNION ALL SELECT 8 UNION ALL SELECT 9)";
    let number = "a.d * 1000 + b.d * 100 + c.d * 10 + e.d + 1";
    cluster
        .run(&format!(
            "INSERT INTO wallet (round, scope, user_id, coupon_id, serial, request_id, issued_at) \
             SELECT {round}, k.id, CONCAT('old-', {number}), k.id, {number}, UNHEX(REPEAT('0', 32)), UTC_TIMESTAMP(6) \
               FROM coupon AS k, {digits} AS a, {digits} AS b, {digits} AS c, {digits} AS e WHERE {number} <= {rows}"
        ))
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn old_rounds_are_removed_in_small_steps_while_the_current_one_goes_on() {
    let cluster = Setup::new("batched").coupons([("A", 100_000)]).start().await;
    for round in 1..=3 {
        fill(&cluster, round, 2_500).await;
        cluster.reset(0).await;
    }
    let (admin, url) = (cluster.servers.mysql.as_ref().unwrap().admin_url.clone(), cluster.database_url());
    assert!(purge(&admin, &url, 0, |_| ()).await.is_err());
    assert_eq!(purge(&admin, &url, 4, |_| ()).await.unwrap(), 0, "so many rounds stay");

    let mut steps = Vec::new();
    let served = Box::pin(served_during(&cluster, async {
        // It is interrupted after a step, and run again.
        let mut started = false;
        let interrupted = purge(&admin, &url, 2, |_| started = true);
        tokio::time::timeout(Duration::from_millis(40), interrupted).await.unwrap_err();
        assert!(purge(&admin, &url, 2, |removed| steps.push(removed)).await.unwrap() >= 4_000);
    }))
    .await;

    assert!(steps.windows(2).all(|it| it[1] - it[0] <= 250) && steps.len() >= 16, "{steps:?}");
    let rows = async |round: u32| cluster.number(&format!("SELECT COUNT(*) FROM wallet WHERE round = {round}")).await;
    assert_eq!([rows(1).await, rows(2).await, rows(3).await], [0, 0, 2_500]);
    assert_eq!(usize::try_from(rows(4).await).unwrap(), served, "nothing of the current round");
    cluster.finish().await;
}
