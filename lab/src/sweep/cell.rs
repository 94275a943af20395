//! One cell: the cluster as it is to be, the crowd by k6, the counters of every process around the measured window, the
//! tiny rounds, and the verdict on the tables.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, bail, ensure};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::fairness::{self, shares};
use super::found::{Drain, Found, Part, Processors, Times, Verdict};
use super::plan::{Cell, Settings, Shape};
use super::series;
use crate::cluster::private::Knobs;
use crate::database;
use crate::histogram::{Histogram, Pages, counter};
use crate::interrupt::Interrupt;
use crate::k6::{Summary, of_scenario, with_knobs};
use crate::processes;
use crate::script::{self, Running};
use crate::stage::{Moment, Stage};
use crate::verify;

/// The window of an open model in so many parts.
const PARTS: u32 = 4;
/// The window ends a little before the load does, for its beginning is seen a little late.
const MARGIN: Duration = Duration::from_millis(400);
/// k6 needs seconds to start its users, and more to open hundreds of coupons.
const START_PATIENCE: Duration = Duration::from_mins(2);
/// Between two looks whether the load has begun.
const PAUSE: Duration = Duration::from_millis(100);
/// The crowd of every cell is the same.
const CROWD: &str = "1";
/// k6's status when a threshold was crossed: the run itself is complete.
const THRESHOLD_CROSSED: i32 = 99;
/// What k6 counts of the answers, by the words of the table.
const OUTCOMES: [(&str, &str); 8] = [
    ("issued", "coupon_issued"),
    ("replayed", "coupon_replayed"),
    ("already issued", "coupon_already_issued"),
    ("sold out", "coupon_sold_out"),
    ("not open", "coupon_not_open"),
    ("busy", "coupon_busy"),
    ("gave up", "coupon_gave_up"),
    ("unexpected", "coupon_unexpected"),
];

/// Where a cell is measured, and with what.
pub struct Site<'a> {
    /// The cluster.
    pub stage: &'a mut Stage,
    /// What all cells share.
    pub settings: &'a Settings,
    /// Where the cell's raw results go.
    pub folder: &'a Path,
}

/// k6 on its way, or done.
pub struct Crowd {
    script: &'static str,
    running: Running,
}

/// Measures a cell. What it finds is complete, or the error says why there is none.
pub async fn measure(mut site: Site<'_>, cell: Cell, commit: &str) -> anyhow::Result<Found> {
    let (began, started) = (Instant::now(), OffsetDateTime::now_utc().format(&Rfc3339)?);
    let knobs = Knobs { strategy: cell.strategy, replicas: cell.replicas, others: others() };
    site.stage.set(knobs).await?;
    site.stage.admin().ready(START_PATIENCE).await?;
    site.stage.empty_wallets().await?;
    let (window, since) = load(&mut site, cell.shape).await?;
    let script = script_of(cell.shape);
    let summary = Summary::read(&site.folder.join(script))?;
    let verdict = site.judge(script).await?;
    let drain = if cell.shape == Shape::Rush { Some(drain(&mut site).await?) } else { None };
    series::keep(site.stage.cluster(), since, site.folder).await?;
    let fairness = fairness::measure(&mut site).await?;
    let (first, last) = (&window[0], &window[window.len() - 1]);
    Ok(Found {
        cell,
        started,
        took_seconds: began.elapsed().as_secs_f64(),
        commit: commit.to_owned(),
        whole: part(first, last),
        parts: if cell.shape == Shape::Rush {
            Vec::new()
        } else {
            window.windows(2).map(|it| part(&it[0], &it[1])).collect()
        },
        client: client(&summary, cell.shape),
        outcomes: outcomes(&summary, cell.shape),
        sent: whole(summary.number(&scoped("http_reqs", cell.shape), "count")),
        dropped: whole(summary.number(&scoped("dropped_iterations", cell.shape), "count")),
        drain,
        processors: processors(first, last, site.stage.speed(&first.moment, &last.moment)),
        batch_size: batch_size(first, last),
        shares: shares(&issues_by_replica(&first.moment.pages, &last.moment.pages)),
        fairness,
        verdict,
        remarks: summary.broken_thresholds(),
    })
}

/// The exporters would cost a part of the processors that is not the service's.
pub fn others() -> BTreeMap<String, String> {
    [("EXPORTERS".to_owned(), "off".to_owned())].into()
}

fn script_of(shape: Shape) -> &'static str {
    if shape == Shape::Rush { "rush" } else { "arrival" }
}

/// The name of a metric of k6 over what is measured.
fn scoped(metric: &str, shape: Shape) -> String {
    if shape == Shape::Rush { metric.to_owned() } else { of_scenario(metric, "arrival") }
}

/// All counters at one edge of the window.
struct Edge {
    at: Instant,
    moment: Moment,
    /// Processor seconds of k6.
    generator: f64,
}

/// Sends the load and looks at the counters at the edges of the window and of its parts. Returns when k6 has ended, and when
/// the load began.
async fn load(site: &mut Site<'_>, shape: Shape) -> anyhow::Result<(Vec<Edge>, SystemTime)> {
    let Settings { rate, warm_up, seconds, users, .. } = *site.settings;
    let knobs = match shape.codes() {
        Some(codes) => vec![
            ("RATE", rate.to_string()),
            ("WARMUP", format!("{warm_up}s")),
            ("DURATION", format!("{seconds}s")),
            ("CODES", codes.to_string()),
            ("DROPS", "allow".to_owned()),
        ],
        None => vec![("VUS", users.to_string()), ("DURATION", format!("{seconds}s"))],
    };
    let crowd = site.start(script_of(shape), &knobs)?;
    let id = crowd.running.id().context("k6 ended at once")?;
    let interrupt = site.stage.script().2.clone();
    let watch = watch(site.stage, id, shape, site.settings);
    let finish = finish(crowd, &interrupt);
    tokio::pin!(watch, finish);
    let edges = tokio::select! {
        edges = &mut watch => edges?,
        done = &mut finish => {
            done?;
            bail!("k6 ended before its load was over");
        }
    };
    finish.await?;
    Ok(edges)
}

/// The edges of the window. A rush is one burst, cold: its window is all of it.
async fn watch(
    stage: &mut Stage,
    k6: u32,
    shape: Shape,
    settings: &Settings,
) -> anyhow::Result<(Vec<Edge>, SystemTime)> {
    let before = edge(stage, k6).await?;
    load_begins(stage, &before.moment.pages).await?;
    let (begin, since) = (Instant::now(), SystemTime::now());
    let all = Duration::from_secs(settings.seconds.into()).saturating_sub(MARGIN);
    let (mut edges, from, parts) = match shape {
        Shape::Rush => (vec![before], begin, 1),
        _ => (Vec::new(), begin + Duration::from_secs(settings.warm_up.into()), PARTS),
    };
    let first = u32::try_from(edges.len())?;
    for number in first..=parts {
        tokio::time::sleep_until((from + all * number / parts).into()).await;
        edges.push(edge(stage, k6).await?);
    }
    Ok((edges, since))
}

async fn edge(stage: &mut Stage, k6: u32) -> anyhow::Result<Edge> {
    let (at, generator) = (Instant::now(), processes::of_tree(k6)?);
    Ok(Edge { at, generator, moment: stage.look().await? })
}

/// Returns when the first replica has answered an issue request, which nothing but the load sends.
async fn load_begins(stage: &Stage, before: &Pages) -> anyhow::Result<()> {
    let answered = |page: &str| counter(page, "coupon_issue_total", &[]);
    let (name, page) = before.first_key_value().context("the cluster has no replica")?;
    let deadline = Instant::now() + START_PATIENCE;
    while answered(&stage.admin().metrics_of(name).await?) <= answered(page) {
        ensure!(Instant::now() < deadline, "no load reached {name} within {START_PATIENCE:?}");
        tokio::time::sleep(PAUSE).await;
    }
    Ok(())
}

async fn finish(crowd: Crowd, interrupt: &Interrupt) -> anyhow::Result<()> {
    let done = crowd.running.end(Some(interrupt)).await?;
    if done.status.code() == Some(THRESHOLD_CROSSED) {
        return Ok(());
    }
    done.must(&format!("local/k6 {}", crowd.script)).map(drop)
}

impl Site<'_> {
    /// Starts a script of `k6/` with these knobs and no others; its results go into a folder of its name.
    pub fn start(&self, name: &'static str, knobs: &[(&str, String)]) -> anyhow::Result<Crowd> {
        let folder = self.folder.join(name);
        fs::create_dir_all(&folder).with_context(|| format!("cannot write to {}", folder.display()))?;
        let (root, environment, _) = self.stage.script();
        let environment = with_knobs(environment, &[&[("SEED", CROWD.to_owned())], knobs].concat());
        let into = folder.display().to_string();
        let running = script::start(root, &["local/k6", name, "--no-verify", "--into", &into], &environment)?;
        Ok(Crowd { script: name, running })
    }

    /// Judges the tables, also by what a script was told. Evidence that nothing speaks against is megabytes of no use.
    pub async fn judge(&mut self, script: &str) -> anyhow::Result<Verdict> {
        let path = self.folder.join(script).join("acks.log");
        let verdict = Verdict::from(&self.stage.verify(&verify::read_acks(&path)?).await?);
        if verdict.clean {
            fs::remove_file(&path).with_context(|| format!("cannot delete {}", path.display()))?;
        }
        Ok(verdict)
    }

    /// Waits for its end.
    pub async fn finish(&self, crowd: Crowd) -> anyhow::Result<()> {
        finish(crowd, self.stage.script().2).await
    }
}

fn part(from: &Edge, to: &Edge) -> Part {
    let (before, after) = (&from.moment.pages, &to.moment.pages);
    let seconds = (to.at - from.at).as_secs_f64();
    let counted = |labels: &[&str]| {
        let sum = |pages: &Pages| pages.values().map(|page| counter(page, "coupon_issue_total", labels)).sum::<f64>();
        (sum(after) - sum(before)) / seconds
    };
    let times = |name, label| Times::of(&Histogram::between(before, after, name, label));
    Part {
        seconds,
        issued: counted(&["outcome=\"issued\""]),
        answered: counted(&[]),
        lock_wait: times("coupon_lock_wait_seconds", "result=\"granted\""),
        latency: times("http_request_duration_seconds", "route=\"/coupons/issue\""),
    }
}

fn client(summary: &Summary, shape: Shape) -> Times {
    let at = |field| summary.number(&scoped("http_req_duration", shape), field);
    Times { p50: at("med"), p95: at("p(95)"), p99: at("p(99)") }
}

fn outcomes(summary: &Summary, shape: Shape) -> BTreeMap<String, u64> {
    let count = |metric| whole(summary.number(&scoped(metric, shape), "count"));
    OUTCOMES.iter().map(|(name, metric)| ((*name).to_owned(), count(metric))).collect()
}

/// Coupons that each replica issued between two looks.
pub fn issues_by_replica(before: &Pages, after: &Pages) -> BTreeMap<String, f64> {
    let issued = |page: &String| counter(page, "coupon_issue_total", &["outcome=\"issued\""]);
    let since = |(name, page): (&String, &String)| (name.clone(), issued(page) - before.get(name).map_or(0.0, issued));
    after.iter().map(since).collect()
}

fn batch_size(from: &Edge, to: &Edge) -> Option<f64> {
    let sum = |edge: &Edge, name: &str| edge.moment.pages.values().map(|page| counter(page, name, &[])).sum::<f64>();
    let since = |name: &str| sum(to, name) - sum(from, name);
    let batches = since("coupon_batch_size_count");
    (batches > 0.0).then(|| since("coupon_batch_size_sum") / batches)
}

fn processors(from: &Edge, to: &Edge, speed: Option<f64>) -> Processors {
    let (machine, before) = (to.moment.machine.since(from.moment.machine), &from.moment.used);
    let seconds = (to.at - from.at).as_secs_f64();
    let used = |part: &str| {
        let of = |name: &String| name == part || (part == "replica" && name.starts_with("replica-"));
        let since = |(name, used): (&String, &f64)| used - before.get(name).unwrap_or(&0.0);
        to.moment.used.iter().filter(|(name, _)| of(name)).map(since).sum::<f64>() / seconds
    };
    let mut found = Processors {
        all: machine.all / seconds,
        generator: (to.generator - from.generator) / seconds,
        service: used("replica"),
        proxy: used("nginx"),
        database: used("mysqld"),
        locks: used("redis"),
        watching: used("prometheus") + (to.moment.own - from.moment.own) / seconds,
        others: 0.0,
        stolen: machine.stolen / seconds,
        speed,
    };
    let known = found.busy();
    found.others = ((machine.all - machine.idle) / seconds - known).max(0.0);
    found
}

async fn drain(site: &mut Site<'_>) -> anyhow::Result<Drain> {
    let sold_out = {
        let audit = site.stage.admin().audit().await?;
        // The coupons of the experiments have stock, too, but a rush does not ask for them.
        let mut rushed = audit.coupons.iter().filter(|coupon| coupon.rows > 0).peekable();
        rushed.peek().is_some() && rushed.all(|coupon| coupon.remaining == 0)
    };
    let found = database::drain(site.stage.database()).await?;
    #[expect(clippy::cast_precision_loss, reason = "microseconds of one run")]
    let seconds = found.micros.unwrap_or(0) as f64 / 1e6;
    Ok(Drain { issued: u32::try_from(found.issued)?, seconds, sold_out })
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "counts of one run, which k6 writes as they are"
)]
fn whole(count: f64) -> u64 {
    count as u64
}
