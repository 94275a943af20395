//! Replicas, clients and what they were told.

use std::sync::atomic::AtomicBool;
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

use tokio::task::JoinSet;
use tokio::time::{sleep, timeout, timeout_at};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::keys::Keys;
use super::plan::{Ask, Plan};
use super::server::{Access, Server};
use super::{Guard, millis};
use crate::coupons::{Code, Order, Outcome, RequestId, UserId};
use crate::issuance::batched::Batched;
use crate::issuance::batched::queue::Answer;
use crate::issuance::reserve::Reserve;
use crate::issuance::{IssueError, OnLockLoss, Parts, Strategy, Ticket};
use crate::memory::{Known, Memory};
use crate::metrics::{Metrics, outcome_label};
use crate::store::{BATCHES, StoreError};

/// Longest time from asking to an answer.
pub(super) const DEADLINE: Duration = Duration::from_secs(5);

/// Attempts of one client. The faults of a plan end long before.
const ATTEMPTS_MAX: usize = 60;

/// Longest pause of a client before it asks again.
const PAUSE_MAX_MS: u64 = 300;

/// How long replicas and server may be at work after the last client has gone.
const DRAIN: Duration = Duration::from_secs(20);

/// The users that ask last, to see whether every queue is still attended to.
const PROBES: u8 = 100;

/// Needed, and looked at by no test here; made once because it is large.
static METRICS: LazyLock<Metrics> = LazyLock::new(|| Metrics::new("batched", 3));

/// One attempt of a client.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Attempt {
    pub(super) code: Code,
    pub(super) user: UserId,
    pub(super) request: RequestId,
    pub(super) asked_ms: u64,
    pub(super) told_ms: u64,
    pub(super) told: Told,
}

/// What an attempt came to.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Told {
    Final(Outcome),
    Busy,
    Unavailable,
    /// Unavailable, because the database refused the data.
    Rejected,
    /// The client did not wait for it.
    HungUp,
}

impl Told {
    pub(super) fn name(&self) -> &'static str {
        match self {
            Self::Final(outcome) => outcome_label(outcome),
            Self::Busy => "busy",
            Self::Unavailable => "unavailable",
            Self::Rejected => "rejected",
            Self::HungUp => "hung up",
        }
    }
}

/// Everything that happened.
pub(super) struct Record {
    pub(super) attempts: Vec<Attempt>,
    pub(super) server: Arc<Server>,
    pub(super) keys: Arc<Keys>,
}

struct Replica {
    parts: Arc<Parts<Access, Arc<Keys>>>,
    batched: Arc<Batched<Access, Arc<Keys>>>,
}

/// All that runs in one simulation.
struct World {
    server: Arc<Server>,
    replicas: Vec<Replica>,
    attempts: parking_lot::Mutex<Vec<Attempt>>,
}

pub(super) fn user_name(user: u8) -> String {
    format!("u-{user}")
}

/// Runs a plan to its end, in virtual time on one thread.
pub(super) fn run(plan: &Plan, without: Option<Guard>) -> Record {
    // Everything random below, the service's own jitter included, comes from this thread's generator.
    fastrand::seed(plan.seed);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    runtime.block_on(simulate(plan, without))
}

async fn simulate(plan: &Plan, without: Option<Guard>) -> Record {
    let (server, keys) = (Server::new(plan, without), Keys::new(&plan.attempts));
    let stopped = CancellationToken::new();
    let replicas = (0..plan.replicas).map(|_| Replica::start(plan, &server, &keys, &stopped)).collect();
    let world = Arc::new(World { server: Arc::clone(&server), replicas, attempts: parking_lot::Mutex::default() });
    let (changes, administrator) = (plan.changes.clone(), Arc::clone(&server));
    server.sessions.spawn(async move {
        for change in changes {
            sleep(millis(change.after_ms)).await;
            administrator.change(change.kind).await;
        }
    });
    world.all(plan.asks.clone()).await;
    world.all(world.probes()).await;
    world.drain().await;
    stopped.cancel();
    let attempts = std::mem::take(&mut *world.attempts.lock());
    Record { attempts, server, keys }
}

impl World {
    /// Runs these clients until each of them has got as many final answers as it asks for.
    async fn all(self: &Arc<Self>, asks: Vec<Ask>) {
        let clients: JoinSet<()> = asks.into_iter().map(|ask| Arc::clone(self).client(ask)).collect();
        clients.join_all().await;
    }

    /// A last user for every code at every replica.
    fn probes(&self) -> Vec<Ask> {
        let codes = self.server.codes().len();
        (0..self.replicas.len() * codes)
            .map(|probe| {
                let user = PROBES + u8::try_from(probe).unwrap();
                Ask { user, code: probe % codes, replica: probe / codes, stamped: true, ..Ask::default() }
            })
            .collect()
    }

    async fn client(self: Arc<Self>, ask: Ask) {
        sleep(millis(ask.at_ms)).await;
        let mut left = 1 + ask.again;
        for attempt in 0..ATTEMPTS_MAX {
            let patience = ask.patience_ms.filter(|_| attempt == 0).map(millis);
            let replica = &self.replicas[(ask.replica + attempt) % self.replicas.len()];
            let order = self.order(&ask);
            let asked_ms = self.server.now_ms();
            let answer = timeout(patience.unwrap_or(Duration::MAX), replica.ask(order.clone())).await;
            let told = answer.map_or(Told::HungUp, told);
            left -= usize::from(matches!(told, Told::Final(_)));
            let Order { code, user, request, .. } = order;
            let told_ms = self.server.now_ms();
            self.attempts.lock().push(Attempt { code, user, request, asked_ms, told_ms, told });
            if left == 0 {
                return;
            }
            sleep(millis(fastrand::u64(1..PAUSE_MAX_MS))).await;
        }
        self.server.problems.lock().push(format!("no final answer: {ask:?}"));
    }

    fn order(&self, ask: &Ask) -> Order {
        let codes = self.server.codes();
        let place = ask.code % codes.len();
        let mut request = [0; 16];
        request[..3].copy_from_slice(&[ask.user, u8::try_from(place).unwrap(), ask.key]);
        Order {
            code: codes[place].clone(),
            user: UserId::parse(&user_name(ask.user)).unwrap(),
            request: RequestId(request),
            arrived_ms: ask.stamped.then(|| self.server.now_ms()),
        }
    }

    /// Waits for all work, and notes what did not come back.
    async fn drain(&self) {
        let mut problems = Vec::new();
        for Replica { parts, batched } in &self.replicas {
            parts.tasks.close();
            if timeout(DRAIN, parts.tasks.wait()).await.is_err() {
                problems.push("a task does not end".to_owned());
            }
            let turns = parts.store.turns.available_permits();
            if turns != BATCHES {
                problems.push(format!("{turns} lanes are left"));
            }
            if self.server.codes().iter().any(|code| batched.queues.has_waiting(code)) {
                problems.push("somebody still waits".to_owned());
            }
        }
        self.server.sessions.close();
        if timeout(DRAIN, self.server.sessions.wait()).await.is_err() {
            problems.push("a session does not end".to_owned());
        }
        self.server.problems.lock().extend(problems);
    }
}

impl Replica {
    fn start(plan: &Plan, server: &Arc<Server>, keys: &Arc<Keys>, stopped: &CancellationToken) -> Self {
        let parts = Arc::new(Parts {
            strategy: Strategy::Batched,
            on_lock_loss: if plan.bypass { OnLockLoss::Bypass } else { OnLockLoss::Refuse },
            store: Access::new(server),
            has_several_members: false,
            locks: Arc::clone(keys),
            memory: Arc::new(Memory::default()),
            issue: METRICS.issue.clone(),
            lock: METRICS.lock.clone(),
            reserve: Reserve::new(DEADLINE),
            tasks: TaskTracker::new(),
        });
        let (memory, stopped) = (Arc::clone(&parts.memory), stopped.clone());
        let lanes = [(); 2].map(|()| parts.store.connection());
        tokio::spawn(async move { memory.watch(lanes, METRICS.issue.clone(), stopped).await });
        Self { batched: Batched::new(Arc::clone(&parts)), parts }
    }

    /// What [`crate::issuance::Issuer::issue`] does for this strategy.
    async fn ask(&self, order: Order) -> Answer {
        match self.parts.memory.knows(&order) {
            Known::Answer(outcome) => return Ok(outcome),
            Known::Unavailable => return Err(IssueError::Unavailable(None)),
            Known::Undecided => {}
        }
        let Some(round) = self.parts.memory.round() else { return Err(IssueError::Unavailable(None)) };
        let due = tokio::time::Instant::now() + DEADLINE;
        let ticket = Ticket { order, round, entered: Instant::now(), has_waited: AtomicBool::new(false), due };
        timeout_at(due, self.batched.issue(ticket)).await.unwrap_or(Err(IssueError::Busy))
    }
}

fn told(answer: Answer) -> Told {
    match answer {
        Ok(outcome) => Told::Final(outcome),
        Err(IssueError::Busy) => Told::Busy,
        Err(IssueError::Unavailable(Some(error))) if matches!(*error, StoreError::Rejected(_)) => Told::Rejected,
        Err(IssueError::Unavailable(_)) => Told::Unavailable,
    }
}
