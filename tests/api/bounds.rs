//! Bounds: full queues, passed deadlines, more codes than connections, floods, slow and idle clients.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Body;
use axum::http::Request;
use coupon_rush::app::App;
use coupon_rush::issuance::QUEUE_MAX;
use futures_util::future::join_all;
use http_body_util::BodyExt;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tower::ServiceExt;

use crate::support::{
    BYTES_PER_IDLE, BYTES_PER_ORDER, Cluster, Process, SOON, Setup, alone, connect, eventually, pace, sample, settings,
    until, value,
};

/// A replica without ports: ten thousand requests at once need no ten thousand sockets.
async fn portless(cluster: &Cluster) -> Arc<App> {
    let app = App::start(&settings(&cluster.arguments())).await.unwrap();
    eventually("the replica is ready", async || page(&app, "/readyz").await.0 == 200).await;
    app
}

/// A page of its ops listener: status and text.
async fn page(app: &App, path: &str) -> (u16, String) {
    let response = app.operations().oneshot(Request::get(path).body(Body::empty()).unwrap()).await.unwrap();
    let status = response.status().as_u16();
    let body = response.into_body().collect().await.unwrap().to_bytes();
    (status, String::from_utf8(body.to_vec()).unwrap())
}

/// Asks a replica without ports; returns the status and the problem's type.
async fn ask(router: Router, user: String) -> (u16, String) {
    let body = json!({"code": "A", "userId": user}).to_string();
    let request = Request::post("/coupons/issue").header("content-type", "application/json").body(Body::from(body));
    let response = router.oneshot(request.unwrap()).await.unwrap();
    let status = response.status().as_u16();
    let body: Value = serde_json::from_slice(&response.into_body().collect().await.unwrap().to_bytes()).unwrap();
    (status, body["type"].as_str().unwrap_or_default().to_owned())
}

async fn metric(app: &App, series: &str) -> f64 {
    value(&page(app, "/metrics").await.1, series)
}

/// Fills the queue of `A`, and asks for some more users, which are sent away at once.
async fn overfill(app: &App) -> JoinSet<(u16, String)> {
    const TOO_MANY: usize = 25;
    let router = app.router();
    let mut waiting = JoinSet::new();
    for user in 0..QUEUE_MAX {
        waiting.spawn(ask(router.clone(), format!("u-{user}")));
    }
    until("the queue is full", SOON, async || {
        let (depth, shed) = (metric(app, "coupon_queue_depth").await, metric(app, "coupon_shed_total").await);
        let lacking = format!("{depth} in the queue, {shed} sent away");
        if depth as usize == QUEUE_MAX { Ok(()) } else { Err(lacking) }
    })
    .await;
    assert_eq!(metric(app, "coupon_shed_total").await, 0.0);
    for user in 0..TOO_MANY {
        let told = ask(router.clone(), format!("late-{user}")).await;
        assert_eq!(told, (503, "/problems/busy".to_owned()));
    }
    assert_eq!(metric(app, "coupon_shed_total").await as usize, TOO_MANY);
    assert_eq!(waiting.try_join_next().map(Result::unwrap), None, "nobody in the queue was answered");
    waiting
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_queue_answers_busy_at_once_and_loses_nobody_who_is_in_it() {
    let setup =
        Setup::new("batched").patient().replicas(0).coupons([("A", 20_000)]).set("--request-deadline-ms", 60_000);
    let cluster = setup.start().await;
    let app = portless(&cluster).await;
    let lock = cluster.hold_lock("A").await;
    let waiting = overfill(&app).await;
    lock.release().await;
    let answers = waiting.join_all().await;
    assert!(answers.iter().all(|(status, _)| *status == 201), "{:?}", answers.iter().find(|(it, _)| *it != 201));
    assert_eq!(metric(&app, "coupon_queue_depth").await, 0.0);
    assert_eq!(cluster.number("SELECT COUNT(*) FROM wallet").await, i64::try_from(QUEUE_MAX).unwrap());
    cluster.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_queue_of_a_strategy_without_batches_answers_busy_at_once_too() {
    let setup = Setup::new("pessimistic").replicas(0).set("--pool-size", 1).set("--request-deadline-ms", 60_000);
    let cluster = setup.start().await;
    let app = portless(&cluster).await;
    let row = cluster.hold("A").await;
    let mut waiting = overfill(&app).await;
    // Ten thousand clients hang up: their places are free again.
    waiting.abort_all();
    while waiting.join_next().await.is_some() {}
    eventually("the queue is empty", async || metric(&app, "coupon_queue_depth").await == 0.0).await;
    row.release().await;
    let router = app.router();
    eventually("the next one is served", async || ask(router.clone(), "next".to_owned()).await.0 < 300).await;
    cluster.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_order_whose_deadline_passed_in_the_queue_takes_no_coupon() {
    join_all(["batched", "conditional", "pessimistic"].map(|strategy| async move {
        let setup = Setup::new(strategy).replicas(1).set("--pool-size", 1).set("--request-deadline-ms", 600);
        let cluster = setup.start().await;
        let row = cluster.hold("A").await;
        let first = cluster.issue(0, "A", "in-hand", "k");
        let second = async {
            eventually("the first has begun", async || cluster.waiting_for_rows().await == 1).await;
            cluster.issue(0, "A", "queued", "k").await
        };
        let (first, second) = tokio::join!(first, second);
        for answer in [first, second] {
            assert_eq!((answer.status, answer.member("type")), (503, "/problems/busy".into()), "{strategy}");
            assert_ne!(answer.header("retry-after"), "", "{strategy}");
        }
        row.release().await;
        // A later order is served after them, so nothing is to be expected of the queue any more.
        let last = cluster.decided(0, "A", "last").await;
        // 200 when an answer before it came too late.
        assert!(matches!(last.status, 200 | 201), "{strategy}: {}", last.text);
        assert_eq!(last.member("serial"), 2, "{strategy}");
        assert_eq!(cluster.number("SELECT COUNT(*) FROM wallet WHERE user_id = 'queued'").await, 0, "{strategy}");
        assert_eq!(cluster.number("SELECT COUNT(*) FROM wallet WHERE user_id = 'in-hand'").await, 1, "{strategy}");
        assert_eq!(cluster.metric(0, "coupon_queue_depth").await, 0.0, "{strategy}");
        let busy = cluster.metric(0, "coupon_issue_total{code=\"A\",outcome=\"busy\"}").await;
        assert!(busy >= 2.0, "{strategy}: {busy} counted");
        let expired = cluster.metric(0, "coupon_lock_wait_seconds_count{result=\"expired\"}").await;
        // All of these but the first, which was at work.
        assert!((1.0..=busy - 1.0).contains(&expired), "{strategy}: {expired} waits expired of {busy}");
        // Asked again with the same keys, both get what is theirs.
        assert_eq!(cluster.decided(0, "A", "in-hand").await.status, 200, "{strategy}");
        let queued = cluster.decided(0, "A", "queued").await;
        assert!(matches!(queued.status, 200 | 201), "{strategy}: {}", queued.text);
        cluster.finish().await;
    }))
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sixty_four_codes_share_eight_connections() {
    const LANES: i64 = 8;
    const MEMORY: usize = 2;
    let codes: Vec<_> = (0..64).map(|code| (format!("C{code}"), 10)).collect();
    let cluster = Setup::new("batched").replicas(1).coupons(codes.clone()).start().await;
    let rows = cluster.hold("C%").await;
    let asks =
        codes.iter().flat_map(|(code, _)| (0..3).map(move |user| (code, format!("u-{user}")))).map(|(code, user)| {
            let cluster = &cluster;
            async move { cluster.issue(0, code, &user, "k").await.status }
        });
    let release = async {
        eventually("eight calls are under way", async || cluster.waiting_for_rows().await == LANES).await;
        let connections = cluster.connections().await.len();
        rows.release().await;
        connections
    };
    let (answers, meanwhile) = tokio::join!(join_all(asks), release);
    assert!(answers.iter().all(|status| *status == 201), "{answers:?}");
    let most = usize::try_from(LANES).unwrap() + MEMORY;
    for connections in [meanwhile, cluster.connections().await.len()] {
        assert!(connections <= most, "{connections} connections");
    }
    cluster.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn codes_whose_rows_are_locked_cost_another_code_a_moment() {
    /// A call that waits for a row gives up then.
    const ROW_WAIT: Duration = Duration::from_secs(1);
    let stuck: Vec<_> = (0..4).map(|code| format!("STUCK-{code}")).collect();
    let coupons = stuck.iter().cloned().chain(["FREE".to_owned()]).map(|code| (code, 10)).collect::<Vec<_>>();
    let cluster = Setup::new("batched").replicas(1).coupons(coupons).start().await;
    let rows = cluster.hold("STUCK%").await;
    let asks = stuck.iter().map(|code| cluster.decided(0, code, "u"));
    let meanwhile = async {
        eventually("the stuck calls are under way", async || cluster.waiting_for_rows().await == 4).await;
        let asked = Instant::now();
        assert_eq!(cluster.issue(0, "FREE", "u", "k").await.status, 201);
        let waited = asked.elapsed();
        rows.release().await;
        waited
    };
    let (answers, waited) = tokio::join!(join_all(asks), meanwhile);
    assert!(waited < ROW_WAIT / 2, "{waited:?}");
    assert!(answers.iter().all(|answer| matches!(answer.status, 200 | 201)), "{answers:?}");
    cluster.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_of_unknown_codes_leaves_no_trace_but_a_count() {
    const CLIENTS: usize = 50;
    const ASKS: usize = 100;
    let cluster = Setup::new("batched").replicas(1).start().await;
    let series = async || {
        let metrics = cluster.client.get(&format!("{}/metrics", cluster.replicas[0].ops_url)).await.text;
        metrics.lines().filter(|line| !line.starts_with('#')).count()
    };
    let before = series().await;
    let flood = (0..CLIENTS).map(|client| {
        let cluster = &cluster;
        async move {
            for ask in 0..ASKS {
                let answer = cluster.issue(0, &format!("nothing-{client}-{ask}"), "u-1", "k").await;
                assert_eq!(answer.status, 404, "{}", answer.text);
            }
        }
    });
    join_all(flood).await;
    assert_eq!(series().await, before);
    let counted = cluster.metric(0, "coupon_issue_total{code=\"other\",outcome=\"unknown-coupon\"}").await;
    assert_eq!(counted as usize, CLIENTS * ASKS);
    assert_eq!(cluster.metric(0, "coupon_queue_depth").await, 0.0);
    assert_eq!(cluster.metric(0, "coupon_lock_attempts_total{result=\"granted\"}").await, 0.0);
    assert_eq!(cluster.redis_keys().await, Vec::<String>::new());
    cluster.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_body_that_comes_a_byte_at_a_time_is_answered_within_the_deadline() {
    const LENGTH: usize = 100;
    let cluster = Setup::new("batched").replicas(1).set("--request-deadline-ms", 500).start().await;
    let address = cluster.replicas[0].url.strip_prefix("http://").unwrap();
    let slow = async {
        let (mut reader, mut writer) = TcpStream::connect(address).await.unwrap().into_split();
        let head = format!(
            "POST /coupons/issue HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: {LENGTH}\r\n\r\n"
        );
        writer.write_all(head.as_bytes()).await.unwrap();
        let dribble = async {
            let mut pace = pace(Duration::from_millis(50));
            for sent in 1..LENGTH {
                pace.tick().await;
                if writer.write_all(b" ").await.is_err() {
                    return sent;
                }
            }
            LENGTH
        };
        let mut answer = vec![0; 1024];
        tokio::select! {
            size = reader.read(&mut answer) => String::from_utf8_lossy(&answer[..size.unwrap()]).into_owned(),
            sent = dribble => panic!("no answer after {sent} bytes"),
        }
    };
    let others = async {
        for user in 0..10 {
            let answer = cluster.decided(0, "A", &format!("u-{user}")).await;
            assert!(matches!(answer.status, 200 | 201), "{}", answer.text);
        }
    };
    let (answer, ()) = tokio::join!(slow, others);
    assert!(answer.starts_with("HTTP/1.1 503"), "{answer}");
    assert_eq!(cluster.metric(0, "coupon_in_flight").await, 0.0);
    cluster.finish().await;
}

/// Connections that stay idle.
const IDLE: usize = 10_000;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_idle_connections_change_nothing_for_others_and_cost_little_memory() {
    let _alone = alone().await;
    let cluster = Setup::new("batched").replicas(0).coupons([("A", 1_000)]).start().await;
    let replica = Process::replica(&cluster.arguments()).await;
    let (before, _) = replica.memory();
    let idle = connect(&replica.url, IDLE).await;
    let body = |user: usize| json!({"code": "A", "userId": format!("u-{user}")});
    let url = format!("{}/coupons/issue", replica.url);
    for user in 0..200 {
        let answer = cluster.client.send("POST", &url, &[("idempotency-key", "k")], Some(&body(user))).await;
        assert_eq!(answer.status, 201, "{}", answer.text);
    }
    assert_eq!(sample(&cluster.client, &replica.ops_url, "coupon_in_flight").await, 0.0);
    let (after, _) = replica.memory();
    println!("{IDLE} idle connections: {before} -> {after} bytes");
    assert!(after - before < IDLE * BYTES_PER_IDLE, "{before} -> {after} bytes");
    drop(idle);
    cluster.finish().await;
}

/// Writes one order on a connection of its own.
async fn send_order(mut connection: TcpStream, user: usize) -> TcpStream {
    let body = json!({"code": "A", "userId": format!("u-{user}")}).to_string();
    let head = format!(
        "POST /coupons/issue HTTP/1.1\r\nhost: x\r\nidempotency-key: k\r\ncontent-type: application/json\r\n\
         content-length: {}\r\n\r\n{body}",
        body.len()
    );
    connection.write_all(head.as_bytes()).await.unwrap();
    connection
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_queue_takes_little_memory_and_everybody_in_it_is_served() {
    const ORDERS: usize = 9_000;
    let _alone = alone().await;
    let setup =
        Setup::new("batched").patient().replicas(0).coupons([("A", 20_000)]).set("--request-deadline-ms", 60_000);
    let cluster = setup.start().await;
    let replica = Process::replica(&cluster.arguments()).await;
    let (before, _) = replica.memory();
    let lock = cluster.hold_lock("A").await;
    let connections = connect(&replica.url, ORDERS).await;
    let asked = join_all(connections.into_iter().enumerate().map(|(user, it)| send_order(it, user))).await;
    let all = async || sample(&cluster.client, &replica.ops_url, "coupon_queue_depth").await as usize >= ORDERS;
    eventually("all of them wait", all).await;
    lock.release().await;
    let answers = join_all(asked.into_iter().map(|mut connection| async move {
        let mut head = [0; 12];
        connection.read_exact(&mut head).await.unwrap();
        assert_eq!(&head, b"HTTP/1.1 201");
    }));
    answers.await;
    let (_, most) = replica.memory();
    println!("{ORDERS} orders in the queue: {before} -> {most} bytes at most");
    assert!(most - before < ORDERS * BYTES_PER_ORDER, "{before} -> {most} bytes");
    assert_eq!(cluster.number("SELECT COUNT(*) FROM wallet").await as usize, ORDERS);
    cluster.finish().await;
}
