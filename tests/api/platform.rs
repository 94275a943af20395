//! What another platform sees of a replica: its log, its trace, its leave-taking, its liveness.

use std::io::PipeReader;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use coupon_rush::app::App;
use futures_util::future::join_all;
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio::process::Command;
use tokio::sync::Notify;

use crate::support::{
    Answer, Balancer, Client, Cluster, FaultProxy, Process, SOON, Setup, eventually, sample, settings,
};

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";

/// What the kernel keeps for a peer that does not read.
const PIPE: usize = 65_536;

/// Both ends of a pipe into which not one byte more goes.
fn full_pipe() -> (PipeReader, std::io::PipeWriter) {
    let (reader, writer) = std::io::pipe().unwrap();
    let mut filler = std::process::Command::new("head");
    filler.args(["-c", &PIPE.to_string(), "/dev/zero"]).stdout(writer.try_clone().unwrap());
    assert!(filler.status().unwrap().success());
    (reader, writer)
}

async fn ask(client: &Client, url: &str, user: &str, traceparent: Option<&str>) -> Answer {
    let headers: Vec<_> = traceparent.map(|parent| ("traceparent", parent)).into_iter().collect();
    let body = json!({"code": "A", "userId": user});
    client.send("POST", &format!("{url}/coupons/issue"), &headers, Some(&body)).await
}

async fn readyz(cluster: &Cluster, replica: &Process) -> Answer {
    cluster.client.get(&format!("{}/readyz", replica.ops_url)).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_that_nobody_reads_stops_no_replica() {
    let cluster = Setup::new("batched").replicas(0).coupons([("A", 100_000)]).start().await;
    let (_unread, pipe) = full_pipe();
    let variables = [("LOG", "trace,access=info")];
    let mut replica = Process::spawn_saying(&cluster.arguments(), &variables, pipe);
    eventually("it is ready", async || readyz(&cluster, &replica).await.status == 200).await;
    let mut users = 0;
    let lines_are_dropped = async || {
        let names: Vec<_> = (users..users + 100).map(|user| format!("u-{user}")).collect();
        users += names.len();
        for answer in join_all(names.iter().map(|user| ask(&cluster.client, &replica.url, user, None))).await {
            assert_eq!(answer.status, 201, "{}", answer.text);
        }
        sample(&cluster.client, &replica.ops_url, "coupon_log_lines_dropped_total").await > 0.0
    };
    eventually("the queue of lines is full", lines_are_dropped).await;
    assert_eq!(ask(&cluster.client, &replica.url, "after", None).await.status, 201);
    replica.signal("TERM");
    let ended = tokio::time::timeout(SOON, replica.ended()).await;
    assert!(ended.expect("it ends within its drain time"), "the exit code is not 0");
    cluster.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_whose_last_words_nobody_reads_ends_all_the_same() {
    let (_unread, pipe) = full_pipe();
    let mut command = Command::new(env!("CARGO_BIN_EXE_coupon-rush"));
    let nowhere = ["healthcheck", "--ops-listen", "127.0.0.1:1"];
    let mut child = command.args(nowhere).stdout(Stdio::null()).stderr(pipe).kill_on_drop(true).spawn().unwrap();
    let ended = tokio::time::timeout(SOON, child.wait()).await.expect("it ends");
    assert!(!ended.unwrap().success());
}

/// A replica behind nginx that logs in JSON into a file.
struct Logged {
    cluster: Cluster,
    proxy: FaultProxy,
    replica: Process,
    balancer: Balancer,
    file: PathBuf,
}

impl Logged {
    async fn start(log: &str) -> Self {
        let cluster = Setup::new("batched").replicas(0).start().await;
        let proxy = FaultProxy::start(cluster.database_address()).await.unwrap();
        let file = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("{}.json.log", cluster.name));
        let variables = [("LOG", log), ("LOG_FORMAT", "json")];
        let out = std::fs::File::create(&file).unwrap();
        let replica = Process::spawn_saying(&cluster.arguments_through(&proxy), &variables, out);
        eventually("it is ready", async || readyz(&cluster, &replica).await.status == 200).await;
        let balancer = Balancer::start(&cluster, &[&replica.url]).await;
        Self { cluster, proxy, replica, balancer, file }
    }

    /// Stops all of it and returns the lines of the log.
    async fn end(mut self) -> Vec<Value> {
        self.replica.signal("TERM");
        assert!(self.replica.ended().await);
        self.balancer.stop().await;
        self.cluster.finish().await;
        let text = std::fs::read_to_string(&self.file).unwrap();
        std::fs::remove_file(&self.file).unwrap();
        assert!(!text.contains("u-private"), "{text}");
        text.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"))).collect()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_trace_of_a_request_reaches_its_line_and_the_line_of_its_failure_through_nginx() {
    let logged = Logged::start("warn,access=info").await;
    let (client, url) = (&logged.cluster.client, &logged.balancer.url);
    let good = format!("00-{TRACE}-00f067aa0ba902b7-01");
    let forged = format!("00-{TRACE}-00f067aa0ba902b7-01 level=ERROR forged");
    let traced = ask(client, url, "u-private-1", Some(&good)).await;
    let malformed = ask(client, url, "u-private-2", Some(&forged)).await;
    let bare = ask(client, url, "u-private-3", None).await;
    assert_eq!([traced.status, malformed.status, bare.status], [201; 3], "{}", traced.text);
    logged.proxy.refuse();
    let wallet = format!("{url}/users/u-private-1/coupons");
    let failed = client.send("GET", &wallet, &[("traceparent", &good)], None).await;
    assert_eq!(failed.status, 503, "{}", failed.text);
    logged.proxy.heal();
    let lines = logged.end().await;

    let of_request = |answer: &Answer| {
        let id = json!(answer.header("x-request-id"));
        let mut found: Vec<_> = lines.iter().filter(|line| line["target"] == "access" && line["id"] == id).collect();
        assert_eq!(found.len(), 1, "{found:?}");
        found.remove(0)
    };
    let line = of_request(&traced);
    assert_eq!(
        [&line["level"], &line["method"], &line["route"], &line["status"], &line["trace_id"]],
        [&json!("INFO"), &json!("POST"), &json!("/coupons/issue"), &json!(201), &json!(TRACE)]
    );
    assert!(line["duration_ms"].is_f64() && line["timestamp"].is_string(), "{line}");
    assert_eq!([&of_request(&malformed)["trace_id"], &of_request(&bare)["trace_id"]], [&Value::Null; 2]);
    assert_eq!([&of_request(&failed)["trace_id"], &of_request(&failed)["status"]], [&json!(TRACE), &json!(503)]);
    let warned = lines.iter().find(|line| line["level"] == "WARN" && line["span"]["trace_id"] == TRACE);
    assert_eq!(warned.unwrap()["message"], "the database gave no answer");
    assert!(!lines.iter().any(|line| line.to_string().contains("forged")));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_are_logged_only_where_the_filter_asks_for_them() {
    for log in ["info", "debug,hyper=off"] {
        let logged = Logged::start(log).await;
        assert_eq!(ask(&logged.cluster.client, &logged.balancer.url, "u-private", None).await.status, 201);
        let lines = logged.end().await;
        assert!(lines.iter().any(|line| line["message"] == "serving"), "{log}: the log is there");
        let answered = lines.iter().find(|line| line["target"] == "access" || line["message"] == "answered");
        assert_eq!(answered, None, "{log}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_that_leaves_says_so_and_lets_everybody_in_until_its_time_is_over_or_it_is_told_again() {
    let cluster = Setup::new("batched").replicas(0).coupons([("A", 100)]).start().await;
    // The first is told again, long before its time is over; the second waits until it is.
    for (lame_duck, told_again) in [("60000", true), ("2000", false)] {
        let mut arguments = cluster.arguments();
        arguments.retain(|(flag, _)| flag != "--lame-duck-ms");
        arguments.push(("--lame-duck-ms".to_owned(), lame_duck.to_owned()));
        let mut replica = Process::replica(&arguments).await;
        replica.signal("TERM");
        let leaves = async || readyz(&cluster, &replica).await.member("draining") == true;
        eventually("it says that it leaves", leaves).await;
        assert_eq!(readyz(&cluster, &replica).await.status, 503);
        if told_again {
            for user in 0..20 {
                let answer = ask(&Client::new(), &replica.url, &format!("u-{user}"), None).await;
                assert_eq!((answer.status, answer.header("connection")), (201, "close"), "{}", answer.text);
            }
            assert_eq!(cluster.client.get(&format!("{}/livez", replica.ops_url)).await.status, 200);
            replica.signal("TERM");
        }
        let address = replica.url.strip_prefix("http://").unwrap().to_owned();
        eventually("nobody new is let in", async || TcpStream::connect(&address).await.is_err()).await;
        assert!(replica.ended().await, "the exit code is not 0");
    }
    cluster.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watcher_that_ends_takes_the_replicas_liveness_with_it() {
    let cluster = Setup::new("batched").replicas(0).start().await;
    let app = App::start(&settings(&cluster.arguments())).await.unwrap();
    let (public, ops) =
        (TcpListener::bind("127.0.0.1:0").await.unwrap(), TcpListener::bind("127.0.0.1:0").await.unwrap());
    let url = format!("http://{}", ops.local_addr().unwrap());
    let (seen, observed) = (Arc::clone(&app), Arc::new(Notify::new()));
    let stop = {
        let observed = Arc::clone(&observed);
        async move {
            seen.has_lost_a_watcher().await;
            observed.notified().await;
        }
    };
    let serving = tokio::spawn(Arc::clone(&app).serve(public, ops, stop));
    let get = async |path: &str| cluster.client.get(&format!("{url}{path}")).await;
    eventually("it is ready", async || get("/readyz").await.status == 200).await;
    assert_eq!(get("/livez").await.status, 200);

    app.watch_over("the watcher of this test", async { panic!("on purpose") });

    eventually("it is not alive", async || get("/livez").await.status == 503).await;
    assert_eq!(get("/livez").await.text, "the watcher of this test has ended\n");
    assert_eq!(get("/readyz").await.status, 503);
    observed.notify_one();
    let ended = tokio::time::timeout(Duration::from_secs(15), serving).await.unwrap().unwrap();
    assert_eq!(ended.unwrap_err().to_string(), "the watcher of this test has ended");
    cluster.finish().await;
}
