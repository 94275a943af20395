//! What clients see behind nginx, with the project's own configuration, while replicas die, stop and are replaced.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use serde_json::json;

use tokio::net::TcpListener;

use crate::support::documented::{assert_named, assert_problem};
use crate::support::{Answer, Balancer, Client, Cluster, Process, Setup, eventually, free_port, pace, sample};

/// Clients that ask at the same time.
const CLIENTS: usize = 16;

/// Longest time to an answer through nginx, whatever replicas do (README, P7): two of them are asked, each for a second longer than
/// its own deadline and for half a second in which to connect, and a second goes to those that are gone.
pub const LONGEST: Duration = Duration::from_secs(14);

/// How long nginx waits for one replica.
pub const ONE: Duration = Duration::from_secs(6);

/// What a busy machine adds to a time.
pub const SLACK: Duration = Duration::from_secs(2);

/// Waits for an answer that must come in time.
pub async fn in_time(asked: impl Future<Output = Answer>) -> Answer {
    let started = Instant::now();
    let answer = asked.await;
    assert!(started.elapsed() < LONGEST + SLACK, "{:?}: {}", started.elapsed(), answer.text);
    answer
}

pub async fn ask(client: &Client, url: &str, user: &str, key: Option<&str>) -> Answer {
    let headers: Vec<_> = key.map(|key| ("idempotency-key", key)).into_iter().collect();
    client.send("POST", &format!("{url}/coupons/issue"), &headers, Some(&json!({"code": "A", "userId": user}))).await
}

/// Clients that ask without a pause, each time as a new user, until `stop` has done its work. Returns how many were served;
/// every one of them must be.
pub async fn load(balancer: &Balancer, stop: impl AsyncFnOnce(&AtomicUsize)) -> usize {
    let (served, over) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let clients = (0..CLIENTS).map(|number| {
        let (served, over) = (&served, &over);
        async move {
            let client = Client::new();
            for order in 0.. {
                if over.load(Ordering::Relaxed) > 0 {
                    return;
                }
                let answer = ask(&client, &balancer.url, &format!("u-{number}-{order}"), Some("k")).await;
                assert!(matches!(answer.status, 200 | 201), "{}: {}", answer.status, answer.text);
                served.fetch_add(1, Ordering::Relaxed);
            }
        }
    });
    let end = async {
        stop(&served).await;
        over.store(1, Ordering::Relaxed);
    };
    tokio::join!(join_all(clients), end);
    served.into_inner()
}

/// Waits until so many more were served.
pub async fn more(served: &AtomicUsize, answers: usize) {
    let goal = served.load(Ordering::Relaxed) + answers;
    eventually("the load goes on", async || served.load(Ordering::Relaxed) >= goal).await;
}

pub async fn rows(cluster: &Cluster) -> usize {
    usize::try_from(cluster.number("SELECT COUNT(*) FROM wallet").await).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn when_no_replica_answers_nginx_says_not_now_as_a_replica_would() {
    let cluster = Setup::new("batched").replicas(0).start().await;
    let silent = [TcpListener::bind("127.0.0.1:0").await.unwrap(), TcpListener::bind("127.0.0.1:0").await.unwrap()];
    let silent = silent.each_ref().map(|it| format!("http://{}", it.local_addr().unwrap()));
    let nobody = format!("http://127.0.0.1:{}", free_port());
    // Where nobody listens, nginx itself says 502; where nobody ever answers, 504, and of two it asks both.
    for replicas in [&[&*nobody][..], &[&*silent[0], &*silent[1]]] {
        for orders_max in [None, Some(500)] {
            let balancer = match orders_max {
                None => Balancer::start(&cluster, replicas).await,
                Some(orders_max) => Balancer::start_with_homes(&cluster, replicas, orders_max).await,
            };
            let pages = ["/coupons", "/users/u-1/coupons", "/docs/"].map(|page| format!("{}{page}", balancer.url));
            let reads = join_all(pages.iter().map(|page| in_time(cluster.client.get(page))));
            let issue = in_time(ask(&cluster.client, &balancer.url, "u-1", Some("k")));
            let (mut answers, issue) = tokio::join!(reads, issue);
            answers.push(issue);
            for answer in &answers {
                assert_problem(answer, 503, "/problems/unavailable");
                assert_named(answer, false);
            }
            balancer.stop().await;
        }
    }
    cluster.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_killed_with_requests_in_hand_costs_none_of_their_clients_a_coupon() {
    let cluster = Setup::new("batched").replicas(0).coupons([("A", 100)]).start().await;
    let (one, other) = (Process::replica(&cluster.arguments()).await, Process::replica(&cluster.arguments()).await);
    let balancer = Balancer::start(&cluster, &[&one.url, &other.url]).await;
    let row = cluster.hold("A").await;
    let users: Vec<_> = (0..10).map(|user| format!("u-{user}")).collect();
    // Without a key nginx's id names the request; it stays the same over nginx's own retry.
    let asks = users.iter().enumerate().map(|(place, user)| {
        let key = (place % 2 == 0).then_some("k");
        ask(&cluster.client, &balancer.url, user, key)
    });
    let kill = async {
        let in_hand = async || {
            let one = sample(&cluster.client, &one.ops_url, "coupon_in_flight").await;
            let other = sample(&cluster.client, &other.ops_url, "coupon_in_flight").await;
            (one, other) == (5.0, 5.0)
        };
        eventually("each replica has half of them in hand", in_hand).await;
        eventually("one of them waits for the row", async || cluster.waiting_for_rows().await == 1).await;
        one.signal("KILL");
        row.release().await;
    };
    let (answers, ()) = tokio::join!(join_all(asks), kill);
    for answer in &answers {
        assert!(matches!(answer.status, 200 | 201), "{}: {}", answer.status, answer.text);
        assert!(answer.header("x-request-id").len() == 32, "{:?}", answer.headers);
    }
    assert_eq!(rows(&cluster).await, users.len());
    balancer.stop().await;
    cluster.finish().await;
}

/// Every user asks again until it is served, first with an order in hand at each replica, then while one of them is frozen, and
/// after it has woken up in the middle of what it was doing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_user_that_asks_while_a_replica_is_frozen_is_answered_in_time_and_gets_one_coupon() {
    const FROZEN: Duration = Duration::from_secs(15);
    let cluster = Setup::new("batched").replicas(0).coupons([("A", 100_000)]).start().await;
    let (frozen, other) = (Process::replica(&cluster.arguments()).await, Process::replica(&cluster.arguments()).await);
    let balancer = Balancer::start(&cluster, &[&frozen.url, &other.url]).await;
    let (row, over) = (cluster.hold("A").await, AtomicBool::new(false));
    let clients = (0..CLIENTS).map(|number| asks_and_reads(&balancer.url, number, &over));
    let freeze = async {
        let in_hand =
            async |replica: &Process| sample(&cluster.client, &replica.ops_url, "coupon_in_flight").await >= 2.0;
        eventually("both have some of them in hand", async || in_hand(&frozen).await && in_hand(&other).await).await;
        eventually("one of them waits for the row", async || cluster.waiting_for_rows().await == 1).await;
        frozen.signal("STOP");
        row.release().await;
        tokio::time::sleep(FROZEN).await;
        frozen.signal("CONT");
        let ready = format!("{}/readyz", frozen.ops_url);
        eventually("the frozen one is ready again", async || cluster.client.get(&ready).await.status == 200).await;
        over.store(true, Ordering::Relaxed);
    };
    let (clients, ()) = tokio::join!(join_all(clients), freeze);
    let (served, firsts): (Vec<_>, Vec<_>) = clients.into_iter().unzip();
    assert_eq!(rows(&cluster).await, served.iter().sum::<usize>());
    assert!(served.iter().all(|served| *served > 1), "{served:?}");
    // The first orders of half of them were in hand at the frozen one.
    let moved = firsts.iter().filter(|first| **first > ONE).min();
    assert!(moved.is_some_and(|moved| *moved < ONE + SLACK), "{firsts:?}");
    balancer.stop().await;
    cluster.finish().await;
}

/// Orders and reads in turn until it is over; returns how many users were served, and how long the first one took.
async fn asks_and_reads(url: &str, number: usize, over: &AtomicBool) -> (usize, Duration) {
    let (client, mut pace, mut served) = (Client::new(), pace(Duration::from_millis(50)), 0);
    let (started, mut first) = (Instant::now(), None);
    while !over.load(Ordering::Relaxed) {
        let user = format!("u-{number}-{served}");
        while let answer = in_time(ask(&client, url, &user, Some("k"))).await
            && !matches!(answer.status, 200 | 201)
        {
            assert_problem(&answer, 503, answer.member("type").as_str().unwrap_or("none"));
        }
        served += 1;
        first.get_or_insert_with(|| started.elapsed());
        for page in ["/coupons".to_owned(), format!("/users/{user}/coupons")] {
            let answer = in_time(client.get(&format!("{url}{page}"))).await;
            if answer.status != 200 {
                assert_problem(&answer, 503, answer.member("type").as_str().unwrap_or("none"));
            }
        }
        pace.tick().await;
    }
    (served, first.expect("one was served"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_that_stops_under_load_fails_nobodys_request() {
    let cluster = Setup::new("batched").replicas(0).coupons([("A", 100_000)]).start().await;
    let mut stopping = Process::replica(&cluster.arguments()).await;
    let staying = Process::replica(&cluster.arguments()).await;
    let balancer = Balancer::start(&cluster, &[&stopping.url, &staying.url]).await;
    let served = load(&balancer, async |served| {
        more(served, 300).await;
        stopping.signal("TERM");
        assert!(stopping.ended().await, "the exit code is not 0");
        more(served, 300).await;
    })
    .await;
    assert_eq!(rows(&cluster).await, served);
    assert_eq!(cluster.held_locks().await, Vec::<String>::new());
    balancer.stop().await;
    cluster.finish().await;
}

/// A later version may add columns with defaults and procedures of other names (docs/OPERATIONS.md, "Rolling upgrade"); it
/// may also issue in another way. Here the second replica is this version with another strategy.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_versions_serve_side_by_side_while_the_later_ones_schema_arrives() {
    let cluster = Setup::new("batched").replicas(0).coupons([("A", 100_000)]).start().await;
    let mut earlier = Process::replica(&cluster.arguments()).await;
    let mut arguments = cluster.arguments();
    arguments.iter_mut().find(|(flag, _)| flag == "--strategy").unwrap().1 = "redlock".to_owned();
    let later = Process::replica(&arguments).await;
    let balancer = Balancer::start(&cluster, &[&earlier.url, &later.url]).await;
    let served = load(&balancer, async |served| {
        more(served, 100).await;
        cluster.run("ALTER TABLE coupon ADD COLUMN artwork VARCHAR(200) NULL").await;
        cluster.run("ALTER TABLE wallet ADD COLUMN channel VARCHAR(20) NOT NULL DEFAULT 'web'").await;
        cluster.run("CREATE PROCEDURE issue_batch_2() BEGIN END").await;
        // Not by some number of issues: a lease of `batched` may stay for half a second where nobody sleeps before the lock.
        let issued = async |replica: &Process| {
            let series = r#"coupon_issue_total{code="A",outcome="issued"}"#;
            sample(&cluster.client, &replica.ops_url, series).await
        };
        let before = [issued(&earlier).await, issued(&later).await];
        eventually("both versions issue with the later schema", async || {
            issued(&earlier).await > before[0] && issued(&later).await > before[1]
        })
        .await;
        earlier.signal("TERM");
        assert!(earlier.ended().await, "the exit code is not 0");
        more(served, 100).await;
    })
    .await;
    assert_eq!(rows(&cluster).await, served);
    balancer.stop().await;
    cluster.finish().await;
}
