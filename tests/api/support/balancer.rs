//! nginx with the project's own configuration, before the replicas of a test.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::process::Stdio;

use tokio::process::{Child, Command};

use super::{Client, Cluster, eventually, free_port};

/// The configuration that every cluster uses; what differs between them is rendered.
const CONFIGURATION: [(&str, &str); 3] = [
    ("nginx.conf", include_str!("../../../nginx/nginx.conf")),
    ("headers.conf", include_str!("../../../nginx/headers.conf")),
    ("pages.conf", include_str!("../../../nginx/pages.conf")),
];

/// What `local/nginx.py` writes for the service's own deadline.
const PATIENCE: &str = "proxy_read_timeout 6000ms;\nproxy_next_upstream_timeout 6500ms;\n";

/// nginx; it is killed, and its workers with it, when the test ends.
pub struct Balancer {
    pub url: String,
    nginx: Child,
    folder: PathBuf,
}

impl Balancer {
    /// Starts nginx before these replicas, given by their URLs, and waits until it serves.
    pub async fn start(cluster: &Cluster, replicas: &[&str]) -> Self {
        let port = free_port();
        let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("{}.nginx", cluster.name));
        std::fs::create_dir_all(folder.join("runtime")).unwrap();
        std::fs::create_dir_all(folder.join("limits")).unwrap();
        std::fs::write(folder.join("limits/patience.conf"), PATIENCE).unwrap();
        for (name, text) in CONFIGURATION {
            std::fs::write(folder.join(name), text).unwrap();
        }
        for (name, text) in runtime(port, replicas) {
            std::fs::write(folder.join("runtime").join(name), text).unwrap();
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

/// The files that `local/nginx.py` renders for a cluster. In the foreground and without a master, so that it is one process.
fn runtime(port: u16, replicas: &[&str]) -> [(&'static str, String); 4] {
    let servers = replicas.iter().fold(String::new(), |mut text, url| {
        let address = url.strip_prefix("http://").unwrap();
        writeln!(text, "server {address} max_fails=3 fail_timeout=1s;").unwrap();
        text
    });
    let temporary = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"].map(|it| format!("{it}_temp_path {it};\n"));
    [
        (
            "process.conf",
            "daemon off;\nmaster_process off;\npid nginx.pid;\nerror_log stderr crit;\n\
             events { worker_connections 16384; }\n"
                .to_owned(),
        ),
        ("http.conf", format!("{}access_log off;\n", temporary.concat())),
        ("listen.conf", format!("listen 127.0.0.1:{port};\n")),
        ("servers.conf", servers),
    ]
}
