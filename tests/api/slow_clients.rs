//! Clients that are slow or silent, before nginx with the project's own configuration: they keep nothing from the others, and
//! nothing of them reaches a replica.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::future::join_all;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::{Balancer, Client, Cluster, Process, Setup, alone, connect, eventually, pace, sample};

/// Clients that send a byte now and then: half of them in the head of their request, half of them in its body.
const SLOW: usize = 500;

/// The pause between two bytes.
const PAUSE: Duration = Duration::from_millis(100);

/// Others, and how often each of them asks meanwhile.
const OTHERS: usize = 16;
const ASKS: usize = 20;

/// More sockets than the others and the replica's own servers can account for, and far fewer than the slow and the idle.
const SOCKETS_OF_OTHERS: usize = 64;

/// One replica behind nginx, warm: its connections to the database and to Redis are there.
async fn start() -> (Cluster, Process, Balancer) {
    let cluster = Setup::new("batched").replicas(0).coupons([("A", 10_000)]).start().await;
    let replica = Process::replica(&cluster.arguments()).await;
    let balancer = Balancer::start(&cluster, &[&replica.url]).await;
    others_are_served(&balancer, "warm").await;
    (cluster, replica, balancer)
}

async fn others_are_served(balancer: &Balancer, kind: &str) {
    let url = format!("{}/coupons/issue", balancer.url);
    let others = (0..OTHERS).map(|other| {
        let url = &url;
        async move {
            let client = Client::new();
            for ask in 0..ASKS {
                let body = json!({"code": "A", "userId": format!("{kind}-{other}-{ask}")});
                let answer = client.send("POST", url, &[], Some(&body)).await;
                assert_eq!(answer.status, 201, "{}", answer.text);
            }
        }
    });
    join_all(others).await;
}

async fn issued(cluster: &Cluster, replica: &Process) -> usize {
    let series = r#"http_request_duration_seconds_count{method="POST",route="/coupons/issue",status="201"}"#;
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a count")]
    let count = sample(&cluster.client, &replica.ops_url, series).await as usize;
    count
}

/// What the slow clients share.
#[derive(Default)]
struct Crowd {
    bytes: AtomicUsize,
    hurry: AtomicBool,
}

impl Crowd {
    /// Sends a byte at a time until there is hurry, then the rest; returns the status line of the answer.
    async fn dribble(&self, mut connection: TcpStream, number: usize) -> String {
        let body = json!({"code": "A", "userId": format!("slow-{number}")}).to_string();
        let head = format!(
            "POST /coupons/issue HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
            body.len()
        );
        let mut sent = if number.is_multiple_of(2) { 10 } else { head.len() };
        let request = [head, body].concat().into_bytes();
        connection.write_all(&request[..sent]).await.unwrap();
        let mut pace = pace(PAUSE);
        while !self.hurry.load(Ordering::Relaxed) {
            // The last byte is kept until there is hurry, however slow the others are.
            if sent < request.len() - 1 {
                connection.write_all(&request[sent..=sent]).await.unwrap();
                sent += 1;
                self.bytes.fetch_add(1, Ordering::Relaxed);
            }
            pace.tick().await;
        }
        connection.write_all(&request[sent..]).await.unwrap();
        let mut answer = [0; 12];
        connection.read_exact(&mut answer).await.unwrap();
        String::from_utf8_lossy(&answer).into_owned()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slow_heads_and_slow_bodies_do_not_reach_a_replica_before_they_are_whole() {
    let (cluster, replica, balancer) = start().await;
    let (sockets, before) = (replica.open_files(), issued(&cluster, &replica).await);
    let crowd = Crowd::default();
    let slow = connect(&balancer.url, SLOW).await;
    let slow = slow.into_iter().enumerate().map(|(number, connection)| crowd.dribble(connection, number));
    let meanwhile = async {
        let some = async || crowd.bytes.load(Ordering::Relaxed) >= 3 * SLOW;
        eventually("each of them has sent a few bytes", some).await;
        others_are_served(&balancer, "meanwhile").await;
        assert_eq!(sample(&cluster.client, &replica.ops_url, "coupon_in_flight").await, 0.0);
        assert_eq!(issued(&cluster, &replica).await, before + OTHERS * ASKS);
        let now = replica.open_files();
        assert!(now < sockets + SOCKETS_OF_OTHERS, "{sockets} -> {now} open files");
        crowd.hurry.store(true, Ordering::Relaxed);
    };
    let (answers, ()) = tokio::join!(join_all(slow), meanwhile);
    assert!(answers.iter().all(|answer| answer == "HTTP/1.1 201"), "{answers:?}");
    balancer.stop().await;
    cluster.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_idle_clients_of_nginx_change_nothing_for_the_others() {
    const IDLE: usize = 10_000;
    let _alone = alone().await;
    let (cluster, replica, balancer) = start().await;
    let sockets = replica.open_files();
    let idle = connect(&balancer.url, IDLE).await;
    let status = format!("{}/nginx_status", balancer.url);
    let active = async || {
        let status = cluster.client.get(&status).await.text;
        let active = status.strip_prefix("Active connections: ").unwrap().split_whitespace().next().unwrap();
        active.parse::<usize>().unwrap() >= IDLE
    };
    eventually("nginx has all of them", active).await;
    others_are_served(&balancer, "meanwhile").await;
    let now = replica.open_files();
    assert!(now < sockets + SOCKETS_OF_OTHERS, "{sockets} -> {now} open files");
    drop(idle);
    balancer.stop().await;
    cluster.finish().await;
}
