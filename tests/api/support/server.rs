//! Replicas: tasks of this process, or processes of their own that a test may stop and kill.

use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::{Output, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use coupon_rush::app::App;
use serde_json::json;
use tokio::process::{Child, Command};

use super::{Answer, Client, SOON, eventually, settings};

/// A replica in this process, on ports of its own.
pub struct Replica {
    pub url: String,
    pub ops_url: String,
}

impl Replica {
    pub async fn start(arguments: Vec<(String, String)>) -> Self {
        let app: Arc<App> = App::start(&settings(&arguments)).await.unwrap();
        let public = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let ops = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", public.local_addr().unwrap());
        let ops_url = format!("http://{}", ops.local_addr().unwrap());
        tokio::spawn(async move { app.serve(public, ops, std::future::pending()).await.unwrap() });
        Self { url, ops_url }
    }
}

/// A process that is killed when the test ends.
pub struct Process {
    pub url: String,
    pub ops_url: String,
    child: Child,
}

impl Process {
    /// Starts the service's binary and waits until it is ready.
    pub async fn replica(arguments: &[(String, String)]) -> Self {
        Self::replica_through(&[], arguments).await
    }

    /// Starts the service's binary.
    pub fn spawn(arguments: &[(String, String)]) -> Self {
        Self::spawn_with(&[], arguments, |command| command.env("LOG", "warn"))
    }

    /// Starts the service's binary by a program that becomes it, and waits until it is ready.
    pub async fn replica_through(through: &[&str], arguments: &[(String, String)]) -> Self {
        let process = Self::spawn_with(through, arguments, |command| command.env("LOG", "warn"));
        let (client, ready) = (Client::new(), format!("{}/readyz", process.ops_url));
        eventually("the process is ready", async || client.get(&ready).await.status == 200).await;
        process
    }

    /// Starts the service's binary with this `LOG`; all that it says goes into `file`.
    pub fn spawn_telling(arguments: &[(String, String)], log: &str, file: &Path) -> Self {
        Self::spawn_saying(arguments, &[("LOG", log)], std::fs::File::create(file).unwrap())
    }

    /// Starts the service's binary with these variables; all that it says goes into `out`, a file or a pipe.
    pub fn spawn_saying(arguments: &[(String, String)], variables: &[(&str, &str)], out: impl Into<OwnedFd>) -> Self {
        let out = out.into();
        let other = out.try_clone().unwrap();
        Self::spawn_with(&[], arguments, |command| command.envs(variables.iter().copied()).stdout(out).stderr(other))
    }

    fn spawn_with(
        through: &[&str],
        arguments: &[(String, String)],
        set: impl FnOnce(&mut Command) -> &mut Command,
    ) -> Self {
        let (public, ops) = (free_port(), free_port());
        let words = [through, &[env!("CARGO_BIN_EXE_coupon-rush"), "serve"]].concat();
        let mut command = Command::new(words[0]);
        set(command.args(&words[1..]));
        for (flag, value) in arguments {
            let value = match flag.as_str() {
                "--listen" => format!("127.0.0.1:{public}"),
                "--ops-listen" => format!("127.0.0.1:{ops}"),
                _ => value.clone(),
            };
            command.arg(flag).arg(value);
        }
        let child = command.kill_on_drop(true).spawn().unwrap();
        let (url, ops_url) = (format!("http://127.0.0.1:{public}"), format!("http://127.0.0.1:{ops}"));
        Self { url, ops_url, child }
    }

    /// Starts a Redis server that keeps nothing on disk, and could not, and waits until it listens.
    pub async fn redis(port: u16) -> Self {
        Self::redis_with("127.0.0.1", port, &["--port", &port.to_string()]).await
    }

    /// The same at another address, with other settings of which one makes it listen on the port.
    pub async fn redis_with(address: &str, port: u16, settings: &[&str]) -> Self {
        let mut command = Command::new("redis-server");
        let arguments = ["--bind", address, "--save", "", "--appendonly", "no", "--dir", "/proc"];
        let child = command.args(settings).args(arguments);
        let child = child.stdout(Stdio::null()).kill_on_drop(true).spawn().unwrap();
        let listens = async || tokio::net::TcpStream::connect((address, port)).await.is_ok();
        eventually("Redis listens", listens).await;
        Self { url: format!("redis://{address}:{port}/"), ops_url: String::new(), child }
    }

    /// `POST /coupons/issue`, always with the same key.
    pub async fn issue(&self, client: &Client, code: &str, user: &str) -> Answer {
        let (url, body) = (format!("{}/coupons/issue", self.url), json!({"code": code, "userId": user}));
        client.send("POST", &url, &[("idempotency-key", "k")], Some(&body)).await
    }

    /// Sends a signal by name, such as `STOP`.
    pub fn signal(&self, name: &str) {
        let pid = self.child.id().expect("the process runs").to_string();
        let sent = std::process::Command::new("kill").args(["-s", name, &pid]).status().unwrap();
        assert!(sent.success());
    }

    /// What everybody on the machine can read of how it was started.
    pub fn command_line(&self) -> String {
        let pid = self.child.id().expect("the process runs");
        String::from_utf8(std::fs::read(format!("/proc/{pid}/cmdline")).unwrap()).unwrap()
    }

    /// Its memory in bytes: resident now, and the most it ever was.
    pub fn memory(&self) -> (usize, usize) {
        let pid = self.child.id().expect("the process runs");
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        let bytes = |name: &str| -> usize {
            let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
            line.split_whitespace().next().unwrap().parse::<usize>().unwrap() * 1024
        };
        (bytes("VmRSS:"), bytes("VmHWM:"))
    }

    /// How many files and sockets it has open.
    pub fn open_files(&self) -> usize {
        let pid = self.child.id().expect("the process runs");
        std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count()
    }

    /// Waits for its end and returns whether it was a success.
    pub async fn ended(&mut self) -> bool {
        self.child.wait().await.unwrap().success()
    }
}

/// Runs the binary to its end with nothing but these variables.
pub async fn run(subcommand: &str, variables: &[(&str, &str)]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_coupon-rush"));
    command.arg(subcommand).env_clear().envs(variables.iter().copied()).kill_on_drop(true);
    let ended = tokio::time::timeout(SOON, command.output()).await;
    ended.unwrap_or_else(|_| panic!("`{subcommand}` did not end with {variables:?}")).unwrap()
}

/// A port that is free now and will not be given to an outgoing connection: it lies below the range of those.
pub fn free_port() -> u16 {
    static TRIED: AtomicU32 = AtomicU32::new(0);
    loop {
        let number = std::process::id().wrapping_mul(131).wrapping_add(TRIED.fetch_add(1, Ordering::Relaxed));
        let port = 10_240 + u16::try_from(number % 20_000).unwrap();
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}
