//! A code has a home: the replica that nginx sends its orders to, as long as that can take them.

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use serde_json::json;

use crate::balanced::{LONGEST, ONE, SLACK, ask, in_time, load, more, rows};
use crate::support::{Answer, Balancer, Client, Cluster, Process, Setup, eventually, pace, sample};

/// More than any of these tests sends at a time.
const ENOUGH: usize = 500;

/// How long a lock lives when its holder dies: the service's default.
const TTL: Duration = Duration::from_millis(1_500);

/// The series that counts the coupons issued of a code.
fn issued(code: &str) -> String {
    format!(r#"coupon_issue_total{{code="{code}",outcome="issued"}}"#)
}

async fn order(client: &Client, url: &str, code: &str, user: &str) -> Answer {
    client.send("POST", &format!("{url}/coupons/issue"), &[], Some(&json!({"code": code, "userId": user}))).await
}

/// How many orders each replica has in hand.
async fn in_hand(client: &Client, replicas: &[Process]) -> Vec<f64> {
    join_all(replicas.iter().map(|it| sample(client, &it.ops_url, "coupon_in_flight"))).await
}

async fn processes(cluster: &Cluster, count: usize) -> Vec<Process> {
    let arguments = cluster.arguments();
    join_all((0..count).map(|_| Process::replica(&arguments))).await
}

fn urls(replicas: &[Process]) -> Vec<&str> {
    replicas.iter().map(|replica| &*replica.url).collect()
}

/// The place of the replica that serves the orders for `A`.
async fn home_of_a(cluster: &Cluster, balancer: &Balancer, replicas: &[Process]) -> usize {
    assert_eq!(ask(&cluster.client, &balancer.url, "finds-the-home", None).await.status, 201);
    let series = issued("A");
    let counts = join_all(replicas.iter().map(|it| sample(&cluster.client, &it.ops_url, &series))).await;
    counts.iter().position(|count| *count > 0.0).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_orders_for_a_code_go_to_one_replica_and_those_for_many_codes_to_all() {
    const ORDERS: usize = 6;
    let codes: Vec<_> = (0..30).map(|number| format!("C{number}")).collect();
    let cluster = Setup::new("batched").replicas(3).coupons(codes.iter().map(|code| (code.clone(), 10))).start().await;
    let replicas: Vec<_> = cluster.replicas.iter().map(|replica| &*replica.url).collect();
    let balancer = Balancer::start_with_homes(&cluster, &replicas, ENOUGH).await;
    let orders = codes.iter().flat_map(|code| (0..ORDERS).map(move |user| (code, format!("u-{user}"))));
    let answers = orders.map(async |(code, user)| order(&cluster.client, &balancer.url, code, &user).await.status);
    assert!(join_all(answers).await.iter().all(|status| *status == 201));
    let mut homes = vec![0; replicas.len()];
    for code in &codes {
        let series = issued(code);
        let counts = join_all((0..replicas.len()).map(|replica| cluster.metric(replica, &series))).await;
        let home = counts.iter().position(|count| *count > 0.0).unwrap();
        assert_eq!(counts[home], ORDERS as f64, "{code}: {counts:?}");
        homes[home] += 1;
    }
    assert!(homes.iter().all(|codes| *codes > 0), "{homes:?}");
    balancer.stop().await;
    cluster.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_order_that_hides_its_code_is_served_by_any_replica() {
    let cluster = Setup::new("batched").start().await;
    let replicas: Vec<_> = cluster.replicas.iter().map(|replica| &*replica.url).collect();
    let balancer = Balancer::start_with_homes(&cluster, &replicas, ENOUGH).await;
    let url = format!("{}/coupons/issue", balancer.url);
    let bodies = [r#"{"code":"\u0041","userId":"u-1"}"#, r#"{"c\u006fde":"A","userId":"u-2"}"#];
    for body in bodies {
        let answer = cluster.client.raw("POST", &url, &[("content-type", "application/json")], body.into()).await;
        assert_eq!(answer.status, 201, "{}", answer.text);
    }
    balancer.stop().await;
    cluster.finish().await;
}

/// Three replicas, whose bounds are used up one after the other, and one replica, which has no other to hand on to.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_home_hands_on_to_the_next_replica_and_when_all_are_full_each_takes_its_share() {
    for (count, orders_max, steps) in [(3, 2, vec![(2, 1), (4, 2), (6, 3), (12, 3)]), (1, 2, vec![(2, 1), (7, 1)])] {
        let cluster = Setup::new("batched").replicas(0).patient().coupons([("A", 100)]).start().await;
        let replicas = processes(&cluster, count).await;
        let balancer = Balancer::start_with_homes(&cluster, &urls(&replicas), orders_max).await;
        let row = cluster.hold("A").await;
        let mut asked = Vec::new();
        for (orders, busy) in steps {
            while asked.len() < orders {
                let (client, url, user) = (Client::new(), balancer.url.clone(), format!("u-{}", asked.len()));
                asked.push(tokio::spawn(async move { ask(&client, &url, &user, None).await.status }));
            }
            eventually("so many orders are at so many replicas", async || {
                let hands = in_hand(&cluster.client, &replicas).await;
                let spread = hands.iter().fold(0.0_f64, |most, hand| most.max(*hand));
                hands.iter().sum::<f64>() == orders as f64
                    && hands.iter().filter(|hand| **hand > 0.0).count() == busy
                    && spread <= orders.div_ceil(busy) as f64
            })
            .await;
        }
        row.release().await;
        for status in asked {
            assert_eq!(status.await.unwrap(), 201);
        }
        balancer.stop().await;
        cluster.finish().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_home_costs_its_code_no_more_than_a_lease() {
    let cluster = Setup::new("batched").replicas(0).coupons([("A", 100_000)]).start().await;
    let replicas = processes(&cluster, 3).await;
    let balancer = Balancer::start_with_homes(&cluster, &urls(&replicas), ENOUGH).await;
    let home = home_of_a(&cluster, &balancer, &replicas).await;
    let mut gap = Duration::ZERO;
    let served = load(&balancer, async |served| {
        more(served, 300).await;
        replicas[home].signal("KILL");
        let killed = Instant::now();
        more(served, 300).await;
        gap = killed.elapsed();
    })
    .await;
    assert!(gap < TTL + Duration::from_secs(1) + SLACK, "{gap:?}");
    assert_eq!(rows(&cluster).await, served + 1);
    balancer.stop().await;
    cluster.finish().await;
}

/// After the first orders ran into nginx's time-out, one order a second at most is lent to the frozen home to see whether it lives.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_frozen_home_loses_its_code_to_the_next_replica_until_it_wakes() {
    const CLIENTS: usize = 12;
    const FROZEN: Duration = Duration::from_secs(20);
    let cluster = Setup::new("batched").replicas(0).coupons([("A", 100_000)]).start().await;
    let replicas = processes(&cluster, 2).await;
    let balancer = Balancer::start_with_homes(&cluster, &urls(&replicas), ENOUGH).await;
    let home = &replicas[home_of_a(&cluster, &balancer, &replicas).await];
    home.signal("STOP");
    let started = Instant::now();
    let clients = (0..CLIENTS).map(|number| slow_orders(&balancer.url, number, started + FROZEN));
    let slow: usize = join_all(clients).await.into_iter().sum();
    home.signal("CONT");
    // Everybody's first, and from then on one a second.
    let probes = FROZEN.saturating_sub(ONE).as_secs() as usize;
    assert!((CLIENTS..=CLIENTS + probes + 1).contains(&slow), "{slow} orders waited for the frozen one");
    let before = sample(&cluster.client, &home.ops_url, &issued("A")).await;
    let mut user = 0;
    eventually("the home that woke has its code back", async || {
        user += 1;
        assert!(matches!(
            in_time(ask(&cluster.client, &balancer.url, &format!("late-{user}"), None)).await.status,
            201
        ));
        sample(&cluster.client, &home.ops_url, &issued("A")).await > before + 3.0
    })
    .await;
    balancer.stop().await;
    cluster.finish().await;
}

/// Orders until `end`; returns how many took as long as nginx waits for a replica. Each is answered in time.
async fn slow_orders(url: &str, number: usize, end: Instant) -> usize {
    let (client, mut pace, mut slow) = (Client::new(), pace(Duration::from_millis(50)), 0);
    for order in 0.. {
        if Instant::now() > end {
            break;
        }
        let asked = Instant::now();
        let answer = in_time(ask(&client, url, &format!("u-{number}-{order}"), None)).await;
        assert_eq!(answer.status, 201, "{}", answer.text);
        assert!(asked.elapsed() < LONGEST, "{:?}", asked.elapsed());
        slow += usize::from(asked.elapsed() > ONE);
        pace.tick().await;
    }
    slow
}
