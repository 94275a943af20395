//! nginx with the project's own configuration, before the replicas of a test.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::process::Stdio;

use tokio::process::{Child, Command};

use super::{Client, Cluster, eventually, free_port};

/// The configuration that every cluster uses; what differs between them is rendered.
const CONFIGURATION: [(&str, &str); 4] = [
    ("nginx.conf", include_str!("../../../nginx/nginx.conf")),
    ("headers.conf", include_str!("../../../nginx/headers.conf")),
    ("pages.conf", include_str!("../../../nginx/pages.conf")),
    ("problems.conf", include_str!("../../../nginx/problems.conf")),
];

/// What `local/nginx.py` writes for the service's own deadline.
const PATIENCE: &str = "proxy_read_timeout 6000ms;\nproxy_next_upstream_timeout 6500ms;\n";

/// What it writes of a server's failures.
const FAILED: &str = "max_fails=3 fail_timeout=1s";

/// How nginx chooses a replica for an order.
#[derive(Clone, Copy)]
enum Balance {
    /// The one with the fewest requests, so that replicas race.
    Scattered,
    /// The home of its code, which takes so many at a time.
    Home { orders_max: usize },
}

/// nginx; it is killed, and its workers with it, when the test ends.
pub struct Balancer {
    pub url: String,
    nginx: Child,
    folder: PathBuf,
}

impl Balancer {
    /// Starts nginx before these replicas, given by their URLs, and waits until it serves. Each order goes to the least busy one.
    pub async fn start(cluster: &Cluster, replicas: &[&str]) -> Self {
        Self::start_with(cluster, replicas, Balance::Scattered).await
    }

    /// The same, but each order goes to the home of its code, unless that has `orders_max` in hand.
    pub async fn start_with_homes(cluster: &Cluster, replicas: &[&str], orders_max: usize) -> Self {
        Self::start_with(cluster, replicas, Balance::Home { orders_max }).await
    }

    async fn start_with(cluster: &Cluster, replicas: &[&str], balance: Balance) -> Self {
        let port = free_port();
        let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("{}.nginx", cluster.name));
        std::fs::create_dir_all(folder.join("runtime")).unwrap();
        std::fs::create_dir_all(folder.join("limits")).unwrap();
        let configuration = CONFIGURATION.map(|(name, text)| (name, text.to_owned()));
        for (name, text) in configuration.into_iter().chain(limits(replicas, balance)).chain(runtime(port, replicas)) {
            std::fs::write(folder.join(name), text).unwrap();
        }
        let nginx = Command::new("nginx")
            .arg("-p")
            .arg(&folder)
            .args(["-e", "stderr", "-c", "nginx.conf"])
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let balancer = Self { url: format!("http://127.0.0.1:{port}"), nginx, folder };
        let status = format!("{}/nginx_status", balancer.url);
        eventually("nginx serves", async || Client::new().get(&status).await.status == 200).await;
        balancer
    }

    /// Ends it when all that it has begun is answered.
    pub async fn stop(mut self) {
        let pid = self.nginx.id().expect("nginx runs").to_string();
        assert!(std::process::Command::new("kill").args(["-s", "QUIT", &pid]).status().unwrap().success());
        assert!(self.nginx.wait().await.unwrap().success());
        std::fs::remove_dir_all(&self.folder).unwrap();
    }
}

/// What `local/nginx.py` makes of the knobs.
fn limits(replicas: &[&str], balance: Balance) -> [(&'static str, String); 3] {
    let (orders_max, orders) = match balance {
        Balance::Scattered => (0, "proxy_pass http://coupon;\n"),
        Balance::Home { orders_max } => {
            let orders = "recursive_error_pages on;\nerror_page 502 = @anywhere;\ninclude problems.conf;\nproxy_pass http://home;\n";
            (orders_max, orders)
        }
    };
    let homes = servers(replicas, &format!("max_conns={orders_max} {FAILED}"));
    [
        ("limits/patience.conf", PATIENCE.to_owned()),
        ("limits/homes.conf", format!("hash $code consistent;\n{homes}")),
        ("limits/orders.conf", orders.to_owned()),
    ]
}

fn servers(replicas: &[&str], options: &str) -> String {
    replicas.iter().fold(String::new(), |mut text, url| {
        writeln!(text, "server {} {options};", url.strip_prefix("http://").unwrap()).unwrap();
        text
    })
}

/// The files that it renders for a cluster. In the foreground and without a master, so that it is one process.
fn runtime(port: u16, replicas: &[&str]) -> [(&'static str, String); 4] {
    let temporary = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"].map(|it| format!("{it}_temp_path {it};\n"));
    let process = "daemon off;\nmaster_process off;\npid nginx.pid;\nerror_log stderr crit;\n\
                   events { worker_connections 16384; }\n";
    [
        ("runtime/process.conf", process.to_owned()),
        ("runtime/http.conf", format!("{}access_log off;\n", temporary.concat())),
        ("runtime/listen.conf", format!("listen 127.0.0.1:{port};\n")),
        ("runtime/servers.conf", servers(replicas, FAILED)),
    ]
}
