//! A database of three members: which of them takes writes changes, and nobody loses a coupon or is told something old.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use serde_json::json;

use crate::support::{Cluster, Group, Recorder, SOON, SOUND, Setup, eventually, in_each, pace, until};

/// Pieces enough for any rush here.
const PLENTY: u32 = 100_000;

/// Longest time without an issue when the primary dies: five seconds of suspicion, and the election.
const FAILOVER: Duration = Duration::from_secs(10);

/// Longest time for which a replica trusts what it knew before.
const FORGOTTEN: Duration = coupon_rush::memory::CHANGE_SEEN_BY_ALL;

/// A crowd that asks for `A` at both replicas, each time as another user, until it is told to end. A user that is told "not now" insists.
struct Rush<'a> {
    recorder: Recorder<'a>,
    users: AtomicUsize,
    issued: AtomicUsize,
    refused: AtomicUsize,
    is_over: AtomicBool,
}

impl<'a> Rush<'a> {
    fn new(cluster: &'a Cluster) -> Self {
        let (users, issued, refused) = (AtomicUsize::new(0), AtomicUsize::new(0), AtomicUsize::new(0));
        Self { recorder: Recorder::new(cluster), users, issued, refused, is_over: AtomicBool::new(false) }
    }

    /// Runs the rush beside `meanwhile`, and ends it then.
    async fn beside(&self, clients: usize, meanwhile: impl Future<Output = ()>) {
        let crowd = join_all((0..clients).map(|client| self.client(client % 2)));
        tokio::join!(crowd, async {
            meanwhile.await;
            self.is_over.store(true, Ordering::Relaxed);
        });
    }

    async fn client(&self, replica: usize) {
        while !self.is_over.load(Ordering::Relaxed) {
            let user = format!("u-{}", self.users.fetch_add(1, Ordering::Relaxed));
            if !self.recorder.ask(replica, "A", &user, &user).await.is_final() {
                self.refused.fetch_add(1, Ordering::Relaxed);
                self.recorder.insist(replica, "A", &user, &user).await;
            }
            self.issued.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Waits until so many more are issued; returns how long that took.
    async fn goes_on(&self, more: usize) -> Duration {
        let (begun, before) = (Instant::now(), self.issued.load(Ordering::Relaxed));
        until("the rush goes on", 2 * SOON, async || {
            let more_yet = before + more - self.issued.load(Ordering::Relaxed).min(before + more);
            if more_yet == 0 { Ok(()) } else { Err(format!("{more_yet} are missing")) }
        })
        .await;
        begun.elapsed()
    }

    async fn proves_clean(self) {
        let report = self.recorder.judge().await;
        assert!(report.is_clean(), "{}", report.verdict());
    }
}

#[tokio::test]
async fn a_replica_finds_the_primary_whichever_member_it_is() {
    let Some(group) = Group::start().await else { return };
    for member in group.members() {
        group.switch_to(member).await;
        let cluster = Setup::new("batched").on(&group.servers).start().await;
        for replica in 0..2 {
            let user = format!("u-{replica}");
            assert_eq!(cluster.issue(replica, "A", &user, "k").await.status, 201, "member {member}");
            assert_eq!(cluster.get(replica, &format!("/users/{user}/coupons")).await.json()[0]["code"], "A");
        }
        cluster.finish().await;
    }
}

#[tokio::test]
async fn a_planned_switch_under_load_refuses_nobody_and_loses_nothing() {
    let Some(group) = Group::start().await else { return };
    let cluster = Setup::new("batched").on(&group.servers).coupons([("A", PLENTY)]).sure_of_nodes().start().await;
    let rush = Rush::new(&cluster);

    Box::pin(rush.beside(16, async {
        for _ in 0..2 {
            rush.goes_on(100).await;
            let primary = group.primary().await;
            group.switch_to((primary + 1) % group.members().len()).await;
            assert!(rush.goes_on(100).await < SOON);
        }
    }))
    .await;

    assert_eq!(rush.refused.load(Ordering::Relaxed), 0);
    assert!(cluster.metric(0, "coupon_database_primary_changes_total").await >= 2.0);
    rush.proves_clean().await;
    cluster.finish().await;
}

#[tokio::test]
async fn every_strategy_that_keeps_the_promises_keeps_them_over_a_switch() {
    let Some(group) = Group::start().await else { return };
    let setup = |strategy: &str| Setup::new(strategy).on(&group.servers).coupons([("A", PLENTY)]);
    // The switch is one for all of them.
    let (ready, go) = (AtomicUsize::new(0), AtomicBool::new(false));
    let switch = async {
        eventually("all strategies issue", async || ready.load(Ordering::Relaxed) == SOUND.len()).await;
        let primary = group.primary().await;
        group.switch_to((primary + 1) % group.members().len()).await;
        go.store(true, Ordering::Relaxed);
    };
    let strategies = in_each(SOUND, setup, async |strategy, cluster| {
        let rush = Rush::new(&cluster);
        rush.beside(4, async {
            rush.goes_on(10).await;
            ready.fetch_add(1, Ordering::Relaxed);
            eventually("another primary", async || go.load(Ordering::Relaxed)).await;
            rush.goes_on(10).await;
        })
        .await;
        assert_eq!(rush.refused.load(Ordering::Relaxed), 0, "{strategy}");
        rush.proves_clean().await;
        cluster.finish().await;
    });
    tokio::join!(switch, strategies);
}

#[tokio::test]
async fn a_killed_primary_takes_no_acknowledged_coupon_with_it_and_issuing_goes_on() {
    let Some(group) = Group::start().await else { return };
    let cluster = Setup::new("batched").on(&group.servers).coupons([("A", PLENTY)]).sure_of_nodes().start().await;
    let rush = Rush::new(&cluster);

    Box::pin(rush.beside(16, async {
        rush.goes_on(100).await;
        group.signal(group.primary().await, "KILL");
        // What was under way is counted, too.
        let without = rush.goes_on(50).await;
        assert!(without < FAILOVER, "{without:?} without an issue");
    }))
    .await;

    rush.proves_clean().await;
    cluster.finish().await;
}

#[tokio::test]
async fn a_primary_without_a_majority_says_neither_sold_out_nor_a_wallet() {
    let Some(group) = Group::start().await else { return };
    let setup = Setup::new("batched").on(&group.servers).coupons([("A", 10), ("B", 1)]);
    let cluster = setup.start().await;
    assert_eq!(cluster.issue(0, "B", "holder", "k").await.status, 201);
    cluster.until_state("B", "sold-out").await;
    assert_eq!(cluster.issue(1, "B", "late", "k").await.status, 410);
    let primary = group.primary().await;

    let others: Vec<_> = group.members().filter(|&member| member != primary).collect();
    for &member in &others {
        group.signal(member, "STOP");
    }
    let cut_off = Instant::now();
    eventually("memory is forgotten", async || cut_off.elapsed() > FORGOTTEN).await;

    let replicas = [0, 1].map(|replica| {
        let cluster = &cluster;
        async move {
            let wallet = cluster.get(replica, "/users/holder/coupons");
            let (sold_out, again) =
                (cluster.issue(replica, "B", "later", "k"), cluster.issue(replica, "B", "holder", "k"));
            let (new, all) = (cluster.issue(replica, "A", "new", "k"), cluster.get(replica, "/coupons"));
            let answers = tokio::join!(wallet, sold_out, again, new, all);
            let ready = cluster.client.get(&format!("{}/readyz", cluster.replicas[replica].ops_url)).await;
            [answers.0, answers.1, answers.2, answers.3, answers.4, ready].map(|answer| answer.status)
        }
    });
    assert_eq!(join_all(replicas).await, [[503; 6]; 2]);

    for &member in &others {
        group.signal(member, "CONT");
    }
    until("the majority is back", 4 * SOON, async || {
        let answer = cluster.issue(0, "A", "afterwards", "k").await;
        if matches!(answer.status, 200 | 201) { Ok(()) } else { Err(answer.text) }
    })
    .await;
    cluster.finish().await;
}

#[tokio::test]
async fn a_primary_that_wakes_after_another_took_its_place_says_nothing_old() {
    let Some(group) = Group::start().await else { return };
    let frozen = group.primary().await;
    let mut cluster = Setup::new("batched").on(&group.servers).coupons([("A", 10), ("B", 1)]).start().await;
    // What the frozen member says when it wakes is all that these two replicas can say.
    for _ in 0..2 {
        cluster.join_at(frozen).await;
    }
    assert_eq!(cluster.issue(0, "B", "holder", "k").await.status, 201);
    cluster.until_state("B", "sold-out").await;

    group.signal(frozen, "STOP");
    group.primary_but(Some(frozen)).await;
    until("a reset at the new primary", 2 * SOON, async || {
        let answer = cluster.admin(0, "POST", "/admin/reset", Some(json!({"round": 1}))).await;
        if matches!(answer.status, 200 | 409) { Ok(()) } else { Err(answer.text) }
    })
    .await;
    let woken = AtomicBool::new(false);
    let questions = join_all((0..12).map(|client| ask_until(&woken, &cluster, 2 + client % 2)));
    let wake = async {
        let since = Instant::now();
        eventually("questions are under way", async || since.elapsed() > FORGOTTEN).await;
        group.signal(frozen, "CONT");
        woken.store(true, Ordering::Relaxed);
    };
    tokio::join!(questions, wake);

    cluster.finish().await;
}

#[tokio::test]
async fn a_member_that_is_told_to_stay_out_while_another_one_is_called_back_stays_out() {
    const CALLED: &str =
        "SELECT COUNT(*) FROM performance_schema.threads WHERE processlist_info LIKE 'START GROUP_REPLICATION%'";
    const ONLINE: &str = "SELECT COUNT(*) FROM performance_schema.replication_group_members \
                           WHERE member_id = @@server_uuid AND member_state = 'ONLINE'";
    let Some(group) = Group::start().await else { return };
    let primary = group.primary().await;
    // The healer calls them in this order.
    let others: Vec<_> = group.members().filter(|&member| member != primary).collect();
    let [called, kept] = others[..] else { panic!("{others:?}") };
    let stopped = others.iter().map(|&member| group.run(member, "STOP GROUP_REPLICATION"));
    for stopped in join_all(stopped).await {
        stopped.unwrap();
    }

    until("the healer calls", 2 * SOON, async || {
        if group.number(called, CALLED).await == Some(1) { Ok(()) } else { Err("not yet") }
    })
    .await;
    group.run(kept, "SET GLOBAL group_replication_start_on_boot = OFF").await.unwrap();
    until(
        "one is back",
        2 * SOON,
        async || {
            if group.number(called, ONLINE).await == Some(1) { Ok(()) } else { Err("not yet") }
        },
    )
    .await;
    // What the healer does next it has done within a moment.
    let since = Instant::now();
    eventually("a moment", async || since.elapsed() > FORGOTTEN).await;

    assert_eq!((group.number(kept, CALLED).await, group.number(kept, ONLINE).await), (Some(0), Some(0)));
    let joins = "SET GLOBAL group_replication_start_on_boot = ON; START GROUP_REPLICATION";
    group.run(kept, joins).await.unwrap();
}

/// Asks a replica of which the member was frozen for what was true before, until some time after it has woken.
async fn ask_until(woken: &AtomicBool, cluster: &Cluster, replica: usize) {
    let (mut left, mut pace) = (50, pace(Duration::from_millis(20)));
    while left > 0 {
        let wallet = cluster.get(replica, "/users/holder/coupons").await;
        assert_eq!(wallet.status, 503, "an old wallet: {}", wallet.text);
        let refusal = cluster.issue(replica, "B", "another", "k").await;
        assert_eq!(refusal.status, 503, "an old refusal: {}", refusal.text);
        left -= usize::from(woken.load(Ordering::Relaxed));
        pace.tick().await;
    }
}
