//! Command line and environment, read once. Every setting has a name, and a bad one is refused with that name before any port
//! is opened. Secrets come from files (or, for a quick try, from the environment), never from the command line.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, ensure};
use clap::{Args, Parser, Subcommand, value_parser};

use crate::issuance::{OnLockLoss, Strategy};
use crate::lock::LockConfig;
use crate::telemetry::LogFormat;

/// Shortest admin token: 32 characters of anything random cannot be guessed.
const ADMIN_TOKEN_LENGTH_MIN: usize = 32;

/// Least number of different characters in it. Random hex of that length has fewer once in ten million times.
const ADMIN_TOKEN_CHARACTERS_MIN: usize = 8;

/// What stands in documentation and templates in a token's place, in lower case and without `-` and `_`.
const PLACEHOLDERS: [&str; 6] = ["changeme", "replaceme", "placeholder", "example", "default", "yourtoken"];

/// How to make a good token.
const ADMIN_TOKEN_CURE: &str = "make one with `openssl rand -hex 32`";

/// Tokens that are valid at the same time: the new one and the old one, until every caller has the new one.
const ADMIN_TOKENS_MAX: usize = 2;

/// Shortest time-to-live of a lock: a hung Redis node may cost half a second, and the row lock is waited for one second.
const LOCK_TTL_MS_MIN: u64 = 1_100;

/// Longest lame duck: a balancer that needs more than a minute to see that a replica is leaving sees nothing.
const LAME_DUCK_MS_MAX: u64 = 60_000;

/// Where the operations listener is where no setting says otherwise.
const OPS_LISTEN: &str = "127.0.0.1:8201";

/// First come, first served coupons that stay exact and fast while a crowd hits them.
#[derive(Debug, Parser)]
#[command(version)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,

    /// What to log, as a tracing filter such as `warn` or `info,coupon_rush=debug`; `info,access=info` adds a line per request.
    #[arg(long, env = "LOG", default_value = "info", global = true)]
    pub log: String,

    /// How a line of the log is written.
    #[arg(long, env = "LOG_FORMAT", value_enum, default_value = "text", global = true)]
    pub log_format: LogFormat,
}

/// The subcommands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run one replica until SIGTERM.
    Serve(Box<Serve>),
    /// Make or update database, schema and the service's account; run it once before the replicas.
    Migrate(Migrate),
    /// Make the laboratory's event with its coupons, unless there is an event.
    Seed(Seed),
    /// End a round and start the next: full stock, empty wallets.
    Reset(Reset),
    /// Remove the wallet rows of old rounds in small steps, beside a running round.
    Purge(Purge),
    /// Ask the replica on this host whether it is ready; the exit status tells. For containers, which bring no other client.
    Healthcheck(Healthcheck),
}

/// Where the database is.
#[derive(Args, Debug)]
pub struct Database {
    /// File with the service's database URL, `mysql://user:password@host:port/database`; of a group with all of its members,
    /// `mysql://user:password@host1:port,host2:port,host3:port/database`. Without it the variable `DATABASE_URL` holds the URL itself.
    #[arg(long, env = "DATABASE_URL_FILE")]
    database_url_file: Option<PathBuf>,
}

impl Database {
    /// The URL.
    pub fn url(&self) -> anyhow::Result<String> {
        one_line("DATABASE_URL", self.database_url_file.as_deref())
    }
}

/// Settings of `migrate`.
#[derive(Args, Debug)]
pub struct Migrate {
    /// The service's own account and database; they are made if missing.
    #[command(flatten)]
    pub database: Database,

    /// File with the URL of an account that may create databases and accounts; of a group with all of its members. Without it the
    /// variable `ADMIN_DATABASE_URL` holds the URL itself.
    #[arg(long, env = "ADMIN_DATABASE_URL_FILE")]
    admin_database_url_file: Option<PathBuf>,
}

impl Migrate {
    /// The administrator's URL.
    pub fn admin_url(&self) -> anyhow::Result<String> {
        one_line("ADMIN_DATABASE_URL", self.admin_database_url_file.as_deref())
    }
}

/// Settings of `seed`.
#[derive(Args, Debug)]
pub struct Seed {
    /// The database, as `migrate` has it.
    #[command(flatten)]
    pub migrate: Migrate,

    /// Make the event alone, without coupons: nothing can be had until `PUT /admin/coupons/{code}` makes one.
    #[arg(long)]
    pub bare: bool,
}

/// Settings of `purge`.
#[derive(Args, Debug)]
pub struct Purge {
    /// The database, as `migrate` has it: the service's own account may not delete.
    #[command(flatten)]
    pub migrate: Migrate,

    /// So many rounds stay, the current one among them.
    #[arg(long, env = "KEEP_ROUNDS", value_parser = value_parser!(u32).range(1..))]
    pub keep_rounds: u32,
}

/// Settings of `reset`.
#[derive(Args, Debug)]
pub struct Reset {
    /// Where the service's database is.
    #[command(flatten)]
    pub database: Database,

    /// The round to end. It must be the current one, so that a reset that is repeated by mistake ends nothing.
    #[arg(long, env = "ROUND")]
    pub round: Option<u32>,
}

/// Settings of `healthcheck`.
#[derive(Args, Debug)]
pub struct Healthcheck {
    /// Address of the replica's operations listener, as `serve` has it.
    #[arg(long, env = "OPS_LISTEN", default_value = OPS_LISTEN)]
    pub ops_listen: SocketAddr,
}

/// Settings of `serve`.
#[derive(Args, Debug)]
pub struct Serve {
    /// Where the service's database is.
    #[command(flatten)]
    pub database: Database,

    /// Address of the public API; nginx stands in front of it.
    #[arg(long, env = "LISTEN", default_value = "127.0.0.1:8101")]
    pub listen: SocketAddr,

    /// Address for health, metrics and administration; never proxied.
    #[arg(long, env = "OPS_LISTEN", default_value = OPS_LISTEN)]
    pub ops_listen: SocketAddr,

    /// Name of this replica in `x-replica`; by default the host's name, which in a container is the container's own.
    #[arg(long, env = "REPLICA", default_value_t = host_name(), hide_default_value = true)]
    pub replica: String,

    /// How an issue is made exclusive.
    #[arg(long, env = "STRATEGY", value_enum, default_value = "batched")]
    pub strategy: Strategy,

    /// The independent Redis servers of the lock: 1, 3 or 5 URLs, separated by commas. URLs with a password belong into a file.
    #[arg(
        long,
        env = "REDIS_URLS",
        value_delimiter = ',',
        default_value = "redis://127.0.0.1:6379/",
        hide_env_values = true
    )]
    redis_urls: Vec<String>,

    /// File with these URLs instead.
    #[arg(long, env = "REDIS_URLS_FILE")]
    redis_urls_file: Option<PathBuf>,

    /// File with the authority (PEM) that signed the certificates of Redis servers with `rediss://`; by default the system's authorities.
    #[arg(long, env = "REDIS_CA_FILE")]
    redis_ca_file: Option<PathBuf>,

    /// Milliseconds within which a healthy Redis server answers: several times the round trip to it. One that takes twice as long, two
    /// times in a row, is not asked for locks.
    #[arg(long, env = "PROBE_TIMEOUT_MS", default_value_t = 40, value_parser = value_parser!(u64).range(10..=400))]
    probe_timeout_ms: u64,

    /// Milliseconds a crashed holder of a lock blocks the others.
    #[arg(long, env = "LOCK_TTL_MS", default_value_t = 1_500, value_parser = value_parser!(u64).range(LOCK_TTL_MS_MIN..=60_000))]
    lock_ttl_ms: u64,

    /// What the keys in Redis start with; replicas that share a database share it.
    #[arg(long, env = "LOCK_PREFIX", default_value = "coupon-rush:")]
    lock_prefix: String,

    /// What `batched` does while the lock cannot be had: go on with the row lock alone, or answer 503.
    #[arg(long, env = "ON_LOCK_LOSS", value_enum, default_value = "bypass")]
    pub on_lock_loss: OnLockLoss,

    /// Database connections for the strategies that issue one by one.
    #[arg(long, env = "POOL_SIZE", default_value_t = 8, value_parser = value_parser!(u32).range(1..=256))]
    pub pool_size: u32,

    /// Milliseconds within which every request is answered.
    #[arg(long, env = "REQUEST_DEADLINE_MS", default_value_t = 5_000, value_parser = value_parser!(u64).range(100..=60_000))]
    pub request_deadline_ms: u64,

    /// Milliseconds for which a replica that is told to stop still serves everybody while `/readyz` says no: as long as its
    /// balancer needs to see that. 0 where the balancer is told first; a second SIGTERM cuts it short. What stops the process must
    /// wait for this and DRAIN_MS together before it kills.
    #[arg(long, env = "LAME_DUCK_MS", default_value_t = 5_000, value_parser = value_parser!(u64).range(..=LAME_DUCK_MS_MAX))]
    pub lame_duck_ms: u64,

    /// Milliseconds a stopping replica gives to what it has begun.
    #[arg(long, env = "DRAIN_MS", default_value_t = 10_000)]
    pub drain_ms: u64,

    /// Threads that answer requests. One replica per core with one thread each is the fastest on a small machine.
    #[arg(long, env = "THREADS", default_value_t = 1, value_parser = value_parser!(u8).range(1..=64))]
    pub threads: u8,

    /// File with the token for administrative calls, at least 32 characters; a second line may hold another one, which is
    /// valid, too. Without it the variable `ADMIN_TOKEN` holds them.
    #[arg(long, env = "ADMIN_TOKEN_FILE")]
    admin_token_file: Option<PathBuf>,
}

impl Serve {
    /// Refuses what cannot work, with the name of the setting.
    pub fn check(&self) -> anyhow::Result<()> {
        self.lock().map(drop)?;
        ensure!(
            !self.replica.is_empty() && self.replica.bytes().all(|b| b.is_ascii_graphic()),
            "REPLICA: visible ASCII characters"
        );
        self.admin_tokens().map(drop)?;
        self.database.url().map(drop)
    }

    /// The independent Redis servers of the lock.
    fn redis_urls(&self) -> anyhow::Result<Vec<String>> {
        let urls = match self.redis_urls_file.as_deref() {
            Some(file) => {
                secret("REDIS_URLS", Some(file))?.split([',', '\n']).map(|url| url.trim().to_owned()).collect()
            }
            None => self.redis_urls.clone(),
        };
        ensure!(matches!(urls.len(), 1 | 3 | 5), "REDIS_URLS: 1, 3 or 5 independent servers, not {}", urls.len());
        Ok(urls)
    }

    /// The tokens of administrative calls: one, or two while callers change from one to the other.
    pub fn admin_tokens(&self) -> anyhow::Result<Vec<String>> {
        let tokens: Vec<_> =
            secret("ADMIN_TOKEN", self.admin_token_file.as_deref())?.lines().map(str::to_owned).collect();
        ensure!(
            tokens.len() <= ADMIN_TOKENS_MAX,
            "ADMIN_TOKEN: at most {ADMIN_TOKENS_MAX} lines, not {}",
            tokens.len()
        );
        for token in &tokens {
            strong(token).with_context(|| format!("ADMIN_TOKEN: {ADMIN_TOKEN_CURE}"))?;
        }
        Ok(tokens)
    }

    /// What the lock is told.
    pub fn lock(&self) -> anyhow::Result<LockConfig> {
        let read = |file: &PathBuf| {
            std::fs::read(file).with_context(|| format!("REDIS_CA_FILE: cannot read {}", file.display()))
        };
        Ok(LockConfig {
            urls: self.redis_urls()?,
            ca: self.redis_ca_file.as_ref().map(read).transpose()?,
            ttl: Duration::from_millis(self.lock_ttl_ms),
            prefix: self.lock_prefix.clone(),
            probe_timeout: Duration::from_millis(self.probe_timeout_ms),
        })
    }

    /// REQUEST_DEADLINE_MS.
    pub fn request_deadline(&self) -> Duration {
        Duration::from_millis(self.request_deadline_ms)
    }

    /// LAME_DUCK_MS.
    pub fn lame_duck(&self) -> Duration {
        Duration::from_millis(self.lame_duck_ms)
    }

    /// DRAIN_MS.
    pub fn drain(&self) -> Duration {
        Duration::from_millis(self.drain_ms)
    }
}

/// Refuses a token that could be guessed or could not be sent in a header.
fn strong(token: &str) -> anyhow::Result<()> {
    ensure!(token.bytes().all(|b| b.is_ascii_graphic()), "a token has visible ASCII characters alone");
    ensure!(token.len() >= ADMIN_TOKEN_LENGTH_MIN, "at least {ADMIN_TOKEN_LENGTH_MIN} characters, not {}", token.len());
    let different = token.bytes().collect::<BTreeSet<_>>().len();
    ensure!(
        different >= ADMIN_TOKEN_CHARACTERS_MIN,
        "at least {ADMIN_TOKEN_CHARACTERS_MIN} different characters, not {different}"
    );
    let plain = token.to_ascii_lowercase().replace(['-', '_'], "");
    ensure!(!PLACEHOLDERS.iter().any(|word| plain.contains(word)), "this is a placeholder");
    Ok(())
}

/// What the kernel calls this host or container.
fn host_name() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    if name.trim().is_empty() { "replica-1".to_owned() } else { name.trim().to_owned() }
}

/// The content of `file`, else of the environment variable `name`.
fn secret(name: &str, file: Option<&Path>) -> anyhow::Result<String> {
    let text = match file {
        Some(path) => {
            std::fs::read_to_string(path).with_context(|| format!("{name}_FILE: cannot read {}", path.display()))?
        }
        None => std::env::var(name).ok().with_context(|| format!("{name}_FILE or {name} is not set"))?,
    };
    let text = text.trim().to_owned();
    ensure!(!text.is_empty(), "{name}: is empty");
    Ok(text)
}

/// A secret that is a URL; a parser of URLs would join its lines.
fn one_line(name: &str, file: Option<&Path>) -> anyhow::Result<String> {
    let text = secret(name, file)?;
    ensure!(text.lines().count() == 1, "{name}: one line, not {}", text.lines().count());
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_long_varied_and_nobodys_example() {
        let hex = "3f9c1e0a7b5d2846c0e1f2a3b4c5d6e7";
        for good in [hex, "a-token-for-tests-of-more-than-32-characters", &"Zq8~+w.k".repeat(5)] {
            strong(good).unwrap();
        }
        let long = |word: &str| format!("{word}{hex}");
        let bad = [
            String::new(),
            hex[1..].to_owned(),
            "0".repeat(64),
            "1234567".repeat(6),
            long("changeme"),
            long("Change-Me_"),
            long("<YOUR_TOKEN>"),
            long("this-is-an-example-"),
            long("two words "),
            long("ü"),
        ];
        for token in bad {
            assert!(strong(&token).is_err(), "{token}");
        }
    }
}
