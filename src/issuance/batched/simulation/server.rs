//! The database server as a model: sessions that lock rows, write, commit and answer in virtual time, and what goes wrong
//! with them. A session is a task of its own: a caller that gives up on it does not end it.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{Notify, OwnedMutexGuard, OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, sleep, timeout};
use tokio_util::task::TaskTracker;

use super::books::{Books, Call, Draft};
use super::plan::{CallFault, ChangeKind, Plan, Poison};
use super::{Guard, hop, millis};
use crate::coupons::{Code, Coupon, Entry, Order, Settlement, Timestamp, UserId, Window};
use crate::store::{BATCHES, Calls, Catalogue, Database, Held, STATEMENT_TIMEOUT, Source, StoreError};

/// `innodb_lock_wait_timeout`.
const LOCK_WAIT: Duration = Duration::from_secs(1);

/// Longest time until the answer to a read of the catalogue arrives: longer than memory may be used.
const LATE_READ_MS: u64 = 1_300;

/// Longest time between two statements that should be one.
const TWO_MOMENTS_MS: u64 = 200;

/// The server.
pub(super) struct Server {
    epoch: Instant,
    pub(super) books: Mutex<Books>,
    rows: BTreeMap<Code, Arc<tokio::sync::Mutex<()>>>,
    /// Users with a row that is not committed, by scope.
    pending: Mutex<BTreeSet<(u16, UserId)>>,
    /// Pieces taken by transactions that have not ended.
    uncommitted: Mutex<BTreeMap<Code, u32>>,
    ended: Notify,
    faults: Mutex<VecDeque<CallFault>>,
    poison: Option<Poison>,
    pub(super) sessions: TaskTracker,
    pub(super) problems: Mutex<Vec<String>>,
    pub(super) panics: Mutex<usize>,
}

/// One connection to it, and the turn that its holder has taken.
pub(super) struct Connection(Arc<Server>, #[expect(dead_code, reason = "held")] Option<OwnedSemaphorePermit>);

fn broken(what: &str) -> sqlx::Error {
    sqlx::Error::Protocol(what.to_owned())
}

impl Server {
    pub(super) fn new(plan: &Plan, without: Option<Guard>) -> Arc<Self> {
        let books = Books::new(&plan.stock, plan.exclusive, without);
        Arc::new(Self {
            epoch: Instant::now(),
            rows: books.coupons.keys().map(|code| (code.clone(), Arc::default())).collect(),
            books: Mutex::new(books),
            pending: Mutex::default(),
            uncommitted: Mutex::default(),
            ended: Notify::new(),
            faults: Mutex::new(plan.calls.iter().copied().collect()),
            poison: plan.poison,
            sessions: TaskTracker::new(),
            problems: Mutex::default(),
            panics: Mutex::default(),
        })
    }

    /// Virtual time since the beginning.
    pub(super) fn now_ms(&self) -> u64 {
        u64::try_from(self.epoch.elapsed().as_millis()).unwrap()
    }

    fn now(&self) -> Timestamp {
        Timestamp(0) + self.epoch.elapsed()
    }

    /// The codes, in the order of the plan.
    pub(super) fn codes(&self) -> Vec<Code> {
        self.rows.keys().cloned().collect()
    }

    fn next_fault(&self) -> CallFault {
        self.faults.lock().pop_front().unwrap_or(CallFault::None)
    }

    fn lacks(&self, guard: Guard) -> bool {
        self.books.lock().without == Some(guard)
    }

    async fn lock_row(&self, code: &Code) -> Result<Option<OwnedMutexGuard<()>>, StoreError> {
        if self.lacks(Guard::RowLock) {
            return Ok(None);
        }
        match timeout(LOCK_WAIT, Arc::clone(&self.rows[code]).lock_owned()).await {
            Ok(row) => Ok(Some(row)),
            Err(_) => Err(StoreError::Contended(broken("1205"))),
        }
    }

    /// One call, from BEGIN to its answer.
    async fn session(self: Arc<Self>, call: Call, fault: CallFault) -> Result<Settlement, StoreError> {
        if let CallFault::Orphaned { later_ms } | CallFault::Silent { later_ms } = fault {
            sleep(millis(later_ms)).await;
        }
        let row = self.lock_row(&call.code).await?;
        hop().await;
        let mut draft = self.write(&call).await?;
        hop().await;
        if let CallFault::Slow { ms } = fault {
            sleep(millis(ms)).await;
        }
        let rolled_back = self.rolls_back(fault);
        if rolled_back.is_none() {
            self.books.lock().commit(&draft, self.now_ms());
        }
        self.end(&draft);
        drop(row);
        if let Some(Err(error)) = rolled_back {
            return Err(error);
        }
        hop().await;
        draft.settlement.held = self.books.lock().second_result(&call, &draft);
        Ok(draft.settlement)
    }

    /// Writes what is to be written, after other sessions that write a row of the same user.
    async fn write(&self, call: &Call) -> Result<Draft, StoreError> {
        loop {
            let ended = self.ended.notified();
            let draft = self.books.lock().draft(call, self.now());
            if draft.entries.iter().any(|entry| self.is_poisoned(&entry.user_id)) {
                return Err(StoreError::Rejected(broken("1406")));
            }
            if self.begin(&draft) {
                return Ok(draft);
            }
            if timeout(LOCK_WAIT, ended).await.is_err() {
                return Err(StoreError::Contended(broken("1205")));
            }
        }
    }

    /// Takes the keys of the draft's rows, all or none of them.
    fn begin(&self, draft: &Draft) -> bool {
        let mut pending = self.pending.lock();
        let keys = draft.entries.iter().map(|entry| (draft.scope, entry.user_id.clone()));
        if !self.lacks(Guard::UserKey) && keys.clone().any(|key| pending.contains(&key)) {
            return false;
        }
        pending.extend(keys);
        *self.uncommitted.lock().entry(draft.code.clone()).or_default() += draft.settlement.issued;
        true
    }

    /// Whether the transaction fails before its commit, and what its caller is told then.
    fn rolls_back(&self, fault: CallFault) -> Option<Result<(), StoreError>> {
        match fault {
            CallFault::Deadlock => Some(Err(StoreError::Contended(broken("1213")))),
            CallFault::Duplicate => Some(Err(StoreError::Duplicate(broken("1062")))),
            CallFault::Unsent => Some(Err(StoreError::Unknown(Some(broken("reset"))))),
            CallFault::Slow { .. } if self.lacks(Guard::CommitBeforeAnswer) => Some(Ok(())),
            _ => None,
        }
    }

    fn end(&self, draft: &Draft) {
        let mut pending = self.pending.lock();
        for entry in &draft.entries {
            pending.remove(&(draft.scope, entry.user_id.clone()));
        }
        *self.uncommitted.lock().get_mut(&draft.code).unwrap() -= draft.settlement.issued;
        self.ended.notify_waiters();
    }

    fn is_poisoned(&self, user: &UserId) -> bool {
        self.poison.is_some_and(|poison| {
            user.as_str() == super::world::user_name(poison.user) && self.now_ms() < poison.until_ms
        })
    }

    /// What an administrator does: it takes its turn at the rows.
    pub(super) async fn change(&self, kind: ChangeKind) {
        let mut rows = Vec::new();
        for row in self.rows.values() {
            rows.push(row.lock().await);
        }
        self.books.lock().change(kind, self.now_ms());
    }

    /// The orders of a batch come as they arrived, those without a stamp last.
    fn inspect(&self, orders: &[Order]) {
        if !orders.is_sorted_by_key(|order| order.arrived_ms.unwrap_or(u64::MAX)) {
            self.problems.lock().push(format!("a batch is out of order: {orders:?}"));
        }
    }
}

/// A replica's way to it.
pub(super) struct Access {
    server: Arc<Server>,
    pub(super) turns: Arc<Semaphore>,
}

impl Access {
    pub(super) fn new(server: &Arc<Server>) -> Self {
        Self { server: Arc::clone(server), turns: Arc::new(Semaphore::new(BATCHES)) }
    }

    /// A connection beside those that orders take turns at.
    pub(super) fn connection(&self) -> Connection {
        Connection(Arc::clone(&self.server), None)
    }
}

impl Database for Access {
    type Lane = Connection;

    async fn lane(&self) -> Connection {
        let turn = Arc::clone(&self.turns).acquire_owned().await.unwrap();
        Connection(Arc::clone(&self.server), Some(turn))
    }

    fn lanes_are_lent(&self) -> bool {
        self.turns.available_permits() == 0
    }
}

impl Calls for Connection {
    async fn issue_batch(&mut self, round: u32, code: &Code, orders: &[Order]) -> Result<Settlement, StoreError> {
        let server = &self.0;
        let fault = server.next_fault();
        server.inspect(orders);
        hop().await;
        match fault {
            CallFault::Unreachable => return Err(StoreError::Unavailable(broken("refused"))),
            CallFault::Stalled { ms } => sleep(millis(ms)).await,
            CallFault::Panic => {
                *server.panics.lock() += 1;
                // Without the hook: a planned panic prints nothing.
                std::panic::resume_unwind(Box::new("planned"));
            }
            _ => {}
        }
        let call = Call { round, code: code.clone(), orders: orders.to_vec() };
        let session = server.sessions.spawn(Arc::clone(server).session(call, fault));
        match fault {
            CallFault::Orphaned { .. } => return Err(StoreError::Unknown(None)),
            CallFault::Silent { .. } => sleep(STATEMENT_TIMEOUT).await,
            _ => {}
        }
        let Ok(ended) = timeout(STATEMENT_TIMEOUT, session).await else { return Err(StoreError::Unknown(None)) };
        hop().await;
        match fault {
            CallFault::Silent { .. } | CallFault::Unanswered => Err(StoreError::Unknown(None)),
            _ => ended.unwrap(),
        }
    }

    async fn held(&mut self, code: &Code, orders: &[Order]) -> Result<Held, StoreError> {
        hop().await;
        if self.0.next_fault() != CallFault::None {
            return Err(StoreError::Unknown(None));
        }
        let first = self.0.books.lock().round;
        if self.0.lacks(Guard::OneMoment) {
            sleep(millis(fastrand::u64(..TWO_MOMENTS_MS))).await;
        }
        let books = self.0.books.lock();
        let scope = books.scope(&books.coupons[code]);
        let round = if books.without == Some(Guard::OneMoment) { first } else { books.round };
        Ok(Held { round, entries: books.held(books.round, scope, orders) })
    }
}

impl Source for Connection {
    async fn catalogue(&mut self) -> Result<Catalogue, StoreError> {
        let asked = Instant::now();
        hop().await;
        let mut catalogue = self.read(asked);
        if fastrand::u8(..8) == 0 {
            sleep(millis(fastrand::u64(..LATE_READ_MS))).await;
        }
        hop().await;
        catalogue.answered = Instant::now();
        Ok(catalogue)
    }

    async fn entries(&mut self, round: u32, scope: u16) -> Result<Vec<Entry>, StoreError> {
        // Sessions that are still issuing in the scope end first.
        for code in self.0.codes() {
            self.0.lock_row(&code).await?;
        }
        hop().await;
        let books = self.0.books.lock();
        let of_scope = books.wallet.iter().filter(|(of, entry)| *of == scope && entry.round == round);
        Ok(of_scope.map(|(_, entry)| entry.clone()).collect())
    }
}

impl Connection {
    fn read(&self, asked: Instant) -> Catalogue {
        let dirty = self.0.lacks(Guard::CommittedReads);
        let (books, uncommitted) = (self.0.books.lock(), self.0.uncommitted.lock());
        let coupons = books.coupons.iter().map(|(code, row)| {
            let taken = if dirty { uncommitted.get(code).copied().unwrap_or(0) } else { 0 };
            let window =
                if books.open { Window::default() } else { Window { opens_at: None, closes_at: Some(Timestamp(0)) } };
            let coupon = Coupon {
                code: code.clone(),
                discount_percent: 10,
                total: row.total,
                remaining: row.remaining - taken,
                next_serial: row.next_serial,
                window,
                effective: window,
            };
            (coupon, books.scope(row))
        });
        Catalogue {
            asked,
            answered: asked,
            now: self.0.now(),
            generation: books.generation,
            round: books.round,
            coupons: coupons.collect(),
        }
    }
}
