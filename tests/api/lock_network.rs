//! Lock nodes elsewhere: behind TLS, and under names that come to mean another address.

use std::path::{Path, PathBuf};

use crate::support::{Cluster, Nodes, Process, Setup, eventually, free_port, sample, until};

/// The certificate of an authority that signed nothing here.
const ANOTHER_CA: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/api/another-ca.pem");

fn openssl(folder: &Path, arguments: &str) {
    let made = std::process::Command::new("openssl").args(arguments.split(' ')).current_dir(folder).output().unwrap();
    assert!(made.status.success(), "{arguments}: {}", String::from_utf8_lossy(&made.stderr));
}

/// An authority, and a certificate for 127.0.0.1 that it has signed: `ca.pem`, `node.pem` and `node.key`.
fn certificates(cluster: &Cluster) -> PathBuf {
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("{}.tls", cluster.name));
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join("names"), "subjectAltName=IP:127.0.0.1\nbasicConstraints=CA:FALSE\n").unwrap();
    let new = "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes";
    openssl(&folder, &format!("req -x509 {new} -keyout ca.key -out ca.pem -days 2 -subj /CN=test-authority"));
    openssl(&folder, &format!("req {new} -keyout node.key -out node.csr -subj /CN=node"));
    openssl(
        &folder,
        "x509 -req -in node.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 -extfile names -out node.pem",
    );
    folder
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_lock_works_over_tls_with_nodes_that_its_authority_has_signed_and_with_no_others() {
    let mut cluster = Setup::new("redlock").replicas(0).start().await;
    let folder = certificates(&cluster);
    let file = |name: &str| folder.join(name).to_str().unwrap().to_owned();
    let mut nodes = Vec::new();
    for _ in 0..3 {
        let port = free_port();
        let (certificate, key, ca, port_text) = (file("node.pem"), file("node.key"), file("ca.pem"), port.to_string());
        let tls = ["--tls-port", &port_text, "--tls-cert-file", &certificate, "--tls-key-file", &key];
        let only = ["--tls-ca-cert-file", &ca, "--tls-auth-clients", "no", "--port", "0"];
        nodes.push((Process::redis_with("127.0.0.1", port, &[&tls[..], &only].concat()).await, port));
    }
    let urls: Vec<_> = nodes.iter().map(|(_, port)| format!("rediss://127.0.0.1:{port}/")).collect();
    for ca in [file("ca.pem"), ANOTHER_CA.to_owned()] {
        let mut arguments = cluster.arguments();
        arguments.retain(|(flag, _)| flag != "--redis-urls");
        arguments.push(("--redis-urls".to_owned(), urls.join(",")));
        arguments.push(("--redis-ca-file".to_owned(), ca));
        cluster.start_replica(arguments).await;
    }

    // `redlock` issues nothing without a quorum.
    assert_eq!(cluster.decided(0, "A", "u-1").await.status, 201);
    let refused = async || cluster.metric(1, r#"coupon_redis_refusals_total{kind="unreachable"}"#).await > 0.0;
    eventually("the others are refused", refused).await;
    let lost = async || cluster.metric(1, r#"coupon_redis_node_up{node="1"}"#).await == 0.0;
    eventually("the others are not used", lost).await;
    assert_eq!(cluster.issue(1, "A", "u-2", "k").await.status, 503);
    cluster.finish().await;
}

/// The rights that the checklist gives to the service's account suffice, for the prober, too.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_account_of_the_checklist_may_do_what_the_lock_needs() {
    const CHECKLIST: &str = include_str!("../../SECURITY.md");
    let mut cluster = Setup::new("redlock").replicas(0).start().await;
    let rights = CHECKLIST.split('`').find(|text| text.starts_with("ACL SETUSER coupon ")).unwrap();
    let rights = rights.replace("~coupon-rush:", &format!("~{}:", cluster.name));
    let nodes = Nodes::start().await;
    for node in 0..3 {
        for order in [rights.as_str(), "ACL SETUSER default off"] {
            let (name, arguments) = order.split_once(' ').unwrap();
            let mut command = redis::cmd(name);
            command.arg(arguments.split(' ').collect::<Vec<_>>());
            command.query_async::<()>(&mut nodes.admin(node).await).await.unwrap();
        }
    }
    let mut arguments = cluster.arguments();
    arguments.retain(|(flag, _)| flag != "--redis-urls");
    arguments.push(("--redis-urls".to_owned(), nodes.urls().replace("redis://", "redis://coupon:PASSWORD@")));
    for strategy in ["redlock", "batched"] {
        arguments.retain(|(flag, _)| flag != "--strategy");
        arguments.push(("--strategy".to_owned(), strategy.to_owned()));
        cluster.start_replica(arguments.clone()).await;
    }
    assert_eq!(cluster.decided(0, "A", "u-1").await.status, 201);
    let looked = async || cluster.metric(1, r#"coupon_lock_attempts_total{result="granted"}"#).await > 3.0;
    let mut user = 1;
    until("the lock is granted again and again", crate::support::SOON, async || {
        user += 1;
        let answer = cluster.decided(1, "A", &format!("u-{}", user.min(9))).await;
        if looked().await { Ok(()) } else { Err(answer.text) }
    })
    .await;
    for replica in 0..2 {
        assert_eq!(cluster.metric(replica, r#"coupon_redis_refusals_total{kind="noperm"}"#).await, 0.0);
        assert_eq!(cluster.metric(replica, r#"coupon_redis_node_up{node="3"}"#).await, 1.0);
    }
    cluster.finish().await;
}

/// The node hangs at its old address, so that no broken connection tells of its end.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_whose_name_means_another_address_is_found_there() {
    let cluster = Setup::new("redlock").replicas(0).start().await;
    let hosts = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("{}.hosts", cluster.name));
    let mean = |address: &str| std::fs::write(&hosts, format!("127.0.0.1 localhost\n{address} lock-node\n")).unwrap();
    mean("127.0.0.1");
    // A file of its own in the place of the machine's, for this process alone.
    let script = r#"mount --bind "$0" /etc/hosts && exec "$@""#;
    let through = ["unshare", "-rm", "sh", "-c", script, hosts.to_str().unwrap()];
    if !std::process::Command::new("unshare").args(["-rm", "true"]).status().is_ok_and(|it| it.success()) {
        eprintln!("NOT TESTED: no process may have names of its own here");
        return cluster.finish().await;
    }
    let port = free_port();
    let old = Process::redis(port).await;
    let mut arguments = cluster.arguments();
    arguments.retain(|(flag, _)| flag != "--redis-urls");
    arguments.push(("--redis-urls".to_owned(), format!("redis://lock-node:{port}/")));
    let replica = Process::replica_through(&through, &arguments).await;
    let issue = async |user: &str| replica.issue(&cluster.client, "A", user).await.status;
    until("the lock is granted", crate::support::SOON, async || match issue("u-1").await {
        200 | 201 => Ok(()),
        status => Err(status),
    })
    .await;

    old.signal("STOP");
    let up = async || sample(&cluster.client, &replica.ops_url, r#"coupon_redis_node_up{node="1"}"#).await;
    eventually("the node is lost", async || up().await == 0.0).await;
    let _new = Process::redis_with("127.0.0.2", port, &["--port", &port.to_string()]).await;
    mean("127.0.0.2");

    eventually("the node is found", async || up().await == 1.0).await;
    until("the lock is granted", crate::support::SOON, async || match issue("u-2").await {
        200 | 201 => Ok(()),
        status => Err(status),
    })
    .await;
    old.signal("CONT");
    cluster.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn how_long_a_healthy_node_may_take_is_a_setting() {
    let nodes = Nodes::start().await;
    let setup = Setup::new("batched").replicas(1).set("--redis-urls", nodes.urls()).set("--probe-timeout-ms", 400);
    let cluster = setup.start().await;
    assert_eq!(cluster.issue(0, "A", "u-1", "k").await.status, 201);
    // Every other look takes longer than the default would allow, and none longer than this one.
    let slow = async {
        loop {
            let mut node = nodes.admin(0).await;
            redis::cmd("CLIENT").arg("PAUSE").arg(150).query_async::<()>(&mut node).await.unwrap();
            tokio::time::sleep(std::time::Duration::from_millis(200)).await;
        }
    };
    let refusals = async || cluster.metric(0, r#"coupon_redis_refusals_total{kind="silent"}"#).await;
    let issues = async {
        for user in 0..8 {
            assert_eq!(cluster.issue(0, "A", &format!("slow-{user}"), "k").await.status, 201);
            tokio::time::sleep(std::time::Duration::from_millis(200)).await;
        }
    };
    tokio::select! {
        () = slow => unreachable!("it never ends"),
        () = issues => {}
    }
    assert_eq!(refusals().await, 0.0);
    assert_eq!(cluster.metric(0, r#"coupon_redis_node_up{node="1"}"#).await, 1.0);
    cluster.finish().await;
}
