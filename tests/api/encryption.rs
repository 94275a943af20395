//! TLS to the database, as `DATABASE_URL` asks for it: with `MySQL`'s own certificates, and refused where there are none.
#![expect(clippy::disallowed_methods, reason = "the server is asked what it sees of the service")]

use std::net::SocketAddr;

use coupon_rush::store::{Store, StoreError};
use tokio::net::{TcpListener, TcpStream};

use crate::support::{Cluster, Replica, Setup};

/// The certificate of an authority that signed nothing here.
const ANOTHER_CA: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/api/another-ca.pem");

/// The file of the authority that signed the server's certificate; `MySQL` makes both when it makes its data folder.
async fn servers_ca(cluster: &Cluster) -> String {
    let folder: String = sqlx::query_scalar("SELECT @@datadir").fetch_one(&mut cluster.sql().await).await.unwrap();
    format!("{folder}ca.pem")
}

/// The whole chain of reasons why a URL does not work.
async fn refusal(url: &str) -> String {
    let error: StoreError = Store::new(url, 1).unwrap().batches.free().await.connect().await.expect_err(url);
    format!("{:#}", anyhow::Error::from(error))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_speaks_tls_with_a_server_that_its_own_authority_has_signed_and_with_no_other() {
    let mut cluster = Setup::new("batched").replicas(0).start().await;
    let url = cluster.database_url();
    if !cluster.is_mysql() {
        eprintln!("NOT TESTED: this MariaDB has no certificates. What is tested is that a replica insists on them.");
        for mode in ["REQUIRED", "VERIFY_CA", "VERIFY_IDENTITY"] {
            let said = refusal(&format!("{url}?ssl-mode={mode}")).await;
            assert!(said.contains("does not support TLS"), "{mode}: {said}");
        }
        cluster.finish().await;
        return;
    }
    let ca = servers_ca(&cluster).await;
    let mut arguments = cluster.arguments();
    let (_, file) = arguments.iter_mut().find(|(flag, _)| flag == "--database-url-file").unwrap();
    *file = format!("{file}.tls");
    std::fs::write(file, format!("{url}?ssl-mode=VERIFY_CA&ssl-ca={ca}")).unwrap();
    cluster.replicas.push(Replica::start(arguments).await);
    cluster.until_ready(0).await;
    assert_eq!(cluster.issue(0, "A", "u-1", "k").await.status, 201);
    assert!(connections(&cluster, "= 'SSL/TLS'").await > 0, "the replica is connected");
    assert_eq!(connections(&cluster, "<> 'SSL/TLS'").await, 0, "every connection is encrypted");

    let stranger = refusal(&format!("{url}?ssl-mode=VERIFY_CA&ssl-ca={ANOTHER_CA}")).await;
    assert!(stranger.contains("UnknownIssuer"), "{stranger}");
    // MySQL's own certificate names no host.
    let nameless = refusal(&format!("{url}?ssl-mode=VERIFY_IDENTITY&ssl-ca={ca}")).await;
    assert!(nameless.contains("certificate"), "{nameless}");
    let missing = refusal(&format!("{url}?ssl-mode=VERIFY_CA&ssl-ca=/nonexistent/ca.pem")).await;
    assert!(missing.contains("No such file"), "{missing}");
    cluster.finish().await;
}

/// The service's connections of this kind to this cluster's database.
async fn connections(cluster: &Cluster, kind: &str) -> i64 {
    let user = cluster.database_url().strip_prefix("mysql://").unwrap().split(':').next().unwrap().to_owned();
    let of = format!("processlist_db = '{}' AND processlist_user = '{user}'", cluster.name);
    cluster
        .number(&format!("SELECT COUNT(*) FROM performance_schema.threads WHERE {of} AND connection_type {kind}"))
        .await
}

#[tokio::test]
async fn without_a_word_about_it_tls_is_used_where_the_server_has_it() {
    let cluster = Setup::new("batched").replicas(1).start().await;
    assert_eq!(cluster.issue(0, "A", "u-1", "k").await.status, 201);
    if cluster.is_mysql() {
        assert!(connections(&cluster, "= 'SSL/TLS'").await > 0, "the replica is connected");
        assert_eq!(connections(&cluster, "<> 'SSL/TLS'").await, 0, "every connection is encrypted");
    }
    cluster.finish().await;
}

/// A way to `server` from this machine's own IPv6 address; `None`, and a word about it, where there is no such address.
async fn way_by_ipv6(server: SocketAddr) -> Option<SocketAddr> {
    let Ok(listener) = TcpListener::bind("[::1]:0").await else {
        eprintln!("NOT TESTED: this machine has no IPv6");
        return None;
    };
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut server = TcpStream::connect(server).await.unwrap();
                // How a connection ends is its users' matter.
                let _ = tokio::io::copy_bidirectional(&mut client, &mut server).await;
            });
        }
    });
    Some(address)
}

#[tokio::test]
async fn a_host_that_is_an_ipv6_address_is_reached_with_tls_like_any_other() {
    let cluster = Setup::new("batched").replicas(0).start().await;
    let direct = cluster.database_address();
    if let Some(way) = way_by_ipv6(direct).await {
        let url = cluster.database_url().replace(&direct.to_string(), &way.to_string());
        Store::new(&url, 1).unwrap().batches.free().await.connect().await.unwrap();
        if cluster.is_mysql() {
            let mode = format!("ssl-mode=VERIFY_CA&ssl-ca={}", servers_ca(&cluster).await);
            Store::new(&format!("{url}?{mode}"), 1).unwrap().batches.free().await.connect().await.unwrap();
        }
    }
    cluster.finish().await;
}
