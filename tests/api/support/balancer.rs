//! nginx with the project's own configuration, before the replicas of a test.

use std::path::PathBuf;
use std::process::Stdio;

use tokio::process::{Child, Command};

use super::{Client, Cluster, eventually, free_port};

/// nginx; it is killed, and its workers with it, when the test ends.
pub struct Balancer {
    pub url: String,
    nginx: Child,
    folder: PathBuf,
}

impl Balancer {
    /// Starts nginx before these replicas, given by their URLs, and waits until it serves. Each order goes to the least busy one.
    pub async fn start(cluster: &Cluster, replicas: &[&str]) -> Self {
        Self::start_with(cluster, replicas, &[("BALANCE", "scattered")]).await
    }

    /// The same, but each order goes to the home of its code, unless that has `orders_max` in hand.
    pub async fn start_with_homes(cluster: &Cluster, replicas: &[&str], orders_max: usize) -> Self {
        let orders_max = orders_max.to_string();
        Self::start_with(cluster, replicas, &[("BALANCE", "home"), ("HOME_ORDERS", &orders_max)]).await
    }

    async fn start_with(cluster: &Cluster, replicas: &[&str], knobs: &[(&str, &str)]) -> Self {
        let port = free_port();
        let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("{}.nginx", cluster.name));
        let addresses = replicas.iter().map(|url| url.strip_prefix("http://").unwrap());
        let mut render = Command::new(concat!(env!("CARGO_MANIFEST_DIR"), "/.cluster/venv/bin/python"));
        render.args(["-B", concat!(env!("CARGO_MANIFEST_DIR"), "/local/balance.py")]).arg(&folder).args(addresses);
        // None of the knobs that a person may have set.
        assert!(render.env_clear().envs(knobs.iter().copied()).status().await.unwrap().success());
        for (name, text) in runtime(port) {
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

/// What differs between machines. In the foreground and without a master, so that it is one process.
fn runtime(port: u16) -> [(&'static str, String); 3] {
    let process = "daemon off;\nmaster_process off;\nerror_log stderr crit;\nevents { worker_connections 16384; }\n";
    [
        ("process.conf", process.to_owned()),
        ("http.conf", "access_log off;\n".to_owned()),
        ("listen.conf", format!("listen 127.0.0.1:{port};\n")),
    ]
}
