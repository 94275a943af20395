//! Headers that a client writes itself: they gain it no place in the queue and nothing of another user's.

use futures_util::future::join_all;
use serde_json::{Value, json};

use crate::support::{Answer, Balancer, Cluster, Setup, eventually};

/// Stamps that no nginx would write now.
const FORGED: [&str; 7] =
    ["t=0", "t=0.000", "t=-1.000", "t=1000000000.000", "t=9999999999.999", "long ago", "t=1.000, t=2.000"];

type Headers<'a> = Vec<(&'a str, &'a str)>;

async fn order(cluster: &Cluster, url: &str, user: &str, headers: &Headers<'_>) -> Answer {
    let body = json!({"code": "A", "userId": user});
    cluster.client.send("POST", &format!("{url}/coupons/issue"), headers, Some(&body)).await
}

/// Lets these users ask one after the other while the test holds the lock, so that one batch settles them all. Returns their
/// serials.
async fn serials(cluster: &Cluster, url: &str, asks: &[(String, Headers<'_>)]) -> Vec<Value> {
    let lock = cluster.hold_lock("A").await;
    let orders = asks.iter().enumerate().map(|(place, (user, headers))| async move {
        eventually("those before wait", async || waiting(cluster).await >= place as f64).await;
        order(cluster, url, user, headers).await
    });
    let release = async {
        eventually("all wait", async || waiting(cluster).await == asks.len() as f64).await;
        lock.release().await;
    };
    let (answers, ()) = tokio::join!(join_all(orders), release);
    answers.iter().map(|answer| answer.member("serial")).collect()
}

async fn waiting(cluster: &Cluster) -> f64 {
    cluster.metric(0, "coupon_queue_depth").await
}

fn users<'a>(stamps: impl IntoIterator<Item = Option<&'a str>>) -> Vec<(String, Headers<'a>)> {
    let stamps = stamps.into_iter().enumerate();
    stamps
        .map(|(place, stamp)| {
            (format!("u-{place}"), stamp.map(|stamp| ("x-request-start", stamp)).into_iter().collect())
        })
        .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_forged_stamp_gains_no_place_before_earlier_orders() {
    let cluster = Setup::new("batched").patient().replicas(1).start().await;
    let balancer = Balancer::start(&cluster, &[&cluster.replicas[0].url]).await;
    let asks = users([None; 3].into_iter().chain(FORGED.map(Some)));
    let given = serials(&cluster, &balancer.url, &asks).await;
    assert_eq!(given, (1..=10).map(Value::from).collect::<Vec<_>>());
    let stamped = "SELECT COUNT(*) FROM wallet WHERE ABS(arrived_ms / 1000 - UNIX_TIMESTAMP()) < 600";
    assert_eq!(cluster.number(stamped).await, 10, "every stamp is nginx's");
    balancer.stop().await;
    cluster.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_order_without_a_stamp_that_can_be_read_comes_after_those_that_came_through_nginx() {
    let cluster = Setup::new("batched").patient().replicas(1).start().await;
    let unreadable = [None, Some("t=0"), Some("t=-1.000"), Some("long ago"), Some("t=99999999999.000")];
    let asks = users(unreadable.into_iter().chain([Some("t=1700000000.100"), Some("t=1700000000.200")]));
    let given = serials(&cluster, &cluster.replicas[0].url, &asks).await;
    assert_eq!(given, [3, 4, 5, 6, 7, 1, 2].map(Value::from));
    cluster.finish().await;
}

/// An unwanted truth: a replica cannot tell nginx's stamp from a forged one. So only nginx may reach it (SECURITY.md).
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_gets_past_nginx_is_believed_and_gains_a_place_but_breaks_no_promise() {
    let cluster = Setup::new("batched").patient().replicas(1).start().await;
    let asks = users([Some("t=1700000000.100"), Some("t=1700000000.200"), Some("t=0.001")]);
    let given = serials(&cluster, &cluster.replicas[0].url, &asks).await;
    assert_eq!(given, [2, 3, 1].map(Value::from));
    cluster.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_request_id_or_key_of_another_user_shows_and_takes_nothing() {
    let cluster = Setup::new("batched").patient().coupons([("A", 5)]).start().await;
    let (one, other) = (&cluster.replicas[0].url, &cluster.replicas[1].url);
    let balancer = Balancer::start(&cluster, &[one]).await;
    let unkeyed = order(&cluster, &balancer.url, "victim-1", &vec![]).await;
    let keyed = order(&cluster, &balancer.url, "victim-2", &vec![("idempotency-key", "k")]).await;
    assert_eq!((unkeyed.status, keyed.status), (201, 201));
    let id = unkeyed.member("requestId").as_str().unwrap().to_owned();
    let stolen = [("x-request-id", &*id), ("idempotency-key", "k")];

    // Through nginx, past it, and once nothing is left.
    for (thief, url, header) in
        [("t-1", &balancer.url, stolen[0]), ("t-2", other, stolen[0]), ("t-3", &balancer.url, stolen[1])]
    {
        let answer = order(&cluster, url, thief, &vec![header]).await;
        assert_eq!((answer.status, answer.member("userId")), (201, json!(thief)), "{header:?}");
    }
    for url in [&balancer.url, other] {
        for header in stolen {
            let late = order(&cluster, url, "t-4", &vec![header]).await;
            assert_eq!((late.status, late.member("entry")), (410, Value::Null), "{header:?}");
        }
    }

    for (victim, entry) in [("victim-1", unkeyed.json()), ("victim-2", keyed.json())] {
        assert_eq!(cluster.get(1, &format!("/users/{victim}/coupons")).await.json(), json!([entry]));
    }
    let shown = order(&cluster, &balancer.url, "t-5", &vec![stolen[0]]).await;
    assert_ne!(shown.header("x-request-id"), id, "the id in the answer is nginx's own");
    balancer.stop().await;
    cluster.finish().await;
}
