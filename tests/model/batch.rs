//! Lock × orphaned call × rerun, exhaustively: every order in which two replicas, a lock that lies, calls of which the callers
//! have given up, and users that ask everywhere can meet over two pieces. `docs/ARCHITECTURE.md` says what follows from it.

use stateright::{Checker, HasDiscoveries, Model, Property};

use super::REPLICAS;

const STOCK: usize = 2;
const USERS: usize = 3;
const RUNS_MAX: usize = 3;
/// Connections that break, in all.
const BREAKS_MAX: usize = 2;

/// What the model is given; each test takes something away.
#[derive(Clone)]
struct Service {
    row_lock: bool,
    user_key: bool,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
struct State {
    /// Holders, by serial.
    wallet: Vec<usize>,
    replicas: [Replica; REPLICAS],
    /// Sorted: which of two equal orphans is which makes no difference.
    sessions: Vec<Session>,
    /// What each user was told at last.
    told: [Option<Told>; USERS],
    breaks: usize,
    /// Whether a user was told "sold out" while stock was left.
    falsely_refused: bool,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
struct Replica {
    waiting: Vec<usize>,
    batch: Vec<usize>,
    run: usize,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
struct Session {
    /// None, once its connection is broken.
    caller: Option<usize>,
    batch: Vec<usize>,
    step: Step,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Step {
    Sent,
    /// The coupon's row is locked and read: so many pieces are gone.
    Read {
        gone: usize,
    },
    Committed,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Told {
    Serial(usize),
    SoldOut,
}

#[derive(Clone, Debug, PartialEq)]
enum Action {
    /// A user asks a replica, for the first time or again.
    Ask(usize, usize),
    /// A replica that waits gets the lock and closes its batch. Any other may hold it, too: nodes forget, leases end.
    Grant(usize),
    /// The server goes on with a session.
    Proceed(usize),
    /// The connection of a session breaks: its caller runs the batch again or gives up, the session lives on.
    Break(usize),
    /// The server finds out that a session's caller is gone, and rolls back.
    RollBack(usize),
    /// The answer of a session reaches its caller.
    Answer(usize),
}

impl State {
    fn asks(&self, user: usize, replica: usize) -> bool {
        let Replica { waiting, batch, .. } = &self.replicas[replica];
        waiting.contains(&user) || batch.contains(&user)
    }

    fn call(&mut self, replica: usize) {
        let batch = self.replicas[replica].batch.clone();
        self.sessions.push(Session { caller: Some(replica), batch, step: Step::Sent });
    }

    fn free(&mut self, replica: usize) {
        self.replicas[replica].batch.clear();
        self.replicas[replica].run = 0;
    }

    fn break_connection(&mut self, session: usize) {
        self.breaks += 1;
        let Some(replica) = self.sessions[session].caller.take() else { return };
        self.replicas[replica].run += 1;
        if self.replicas[replica].run < RUNS_MAX {
            self.call(replica);
        } else {
            // "Busy": they may ask again.
            self.free(replica);
        }
    }

    fn answer(&mut self, session: usize) {
        let Session { caller, batch, .. } = self.sessions.remove(session);
        for user in batch {
            let held = self.wallet.iter().position(|holder| *holder == user);
            let told = held.map_or(Told::SoldOut, Told::Serial);
            self.falsely_refused |= told == Told::SoldOut && self.wallet.len() < STOCK;
            self.told[user] = Some(told);
        }
        if let Some(replica) = caller {
            self.free(replica);
        }
    }
}

impl Service {
    /// Whether the server can go on with a session.
    fn can_proceed(&self, state: &State, session: &Session) -> bool {
        let is_locked = state.sessions.iter().any(|other| matches!(other.step, Step::Read { .. }));
        match session.step {
            Step::Sent => !(self.row_lock && is_locked),
            Step::Read { .. } => true,
            Step::Committed => false,
        }
    }

    fn proceed(&self, state: &mut State, session: usize) {
        let Session { batch, step, .. } = state.sessions[session].clone();
        state.sessions[session].step = match step {
            Step::Sent => Step::Read { gone: state.wallet.len() },
            Step::Read { gone } => {
                let holders = state.wallet.clone();
                let winners = batch.into_iter().filter(|user| !self.user_key || !holders.contains(user));
                state.wallet.extend(winners.take(STOCK.saturating_sub(gone)));
                Step::Committed
            }
            Step::Committed => return,
        };
        // No replica waits for the answer of an orphan.
        state.sessions.retain(|session| session.caller.is_some() || session.step != Step::Committed);
    }
}

impl Model for Service {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        vec![State::default()]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        for replica in 0..REPLICAS {
            let unanswered = (0..USERS).filter(|user| state.told[*user].is_none());
            let asks = unanswered.filter(|user| !state.asks(*user, replica));
            actions.extend(asks.map(|user| Action::Ask(user, replica)));
            let Replica { waiting, batch, .. } = &state.replicas[replica];
            if !waiting.is_empty() && batch.is_empty() {
                actions.push(Action::Grant(replica));
            }
        }
        for (place, session) in state.sessions.iter().enumerate() {
            let is_open = session.step != Step::Committed;
            if self.can_proceed(state, session) {
                actions.push(Action::Proceed(place));
            }
            if session.caller.is_some() && state.breaks < BREAKS_MAX {
                actions.push(Action::Break(place));
            }
            if session.caller.is_none() && is_open {
                actions.push(Action::RollBack(place));
            }
            if session.caller.is_some() && !is_open {
                actions.push(Action::Answer(place));
            }
        }
    }

    fn next_state(&self, last: &State, action: Action) -> Option<State> {
        let mut state = last.clone();
        match action {
            Action::Ask(user, replica) => {
                state.replicas[replica].waiting.push(user);
                // By arrival within a replica is one of the orders; sorting leaves the others out.
                state.replicas[replica].waiting.sort_unstable();
            }
            Action::Grant(replica) => {
                state.replicas[replica].batch = std::mem::take(&mut state.replicas[replica].waiting);
                state.call(replica);
            }
            Action::Proceed(session) => self.proceed(&mut state, session),
            Action::Break(session) => state.break_connection(session),
            Action::RollBack(session) => {
                state.sessions.remove(session);
            }
            Action::Answer(session) => state.answer(session),
        }
        state.sessions.retain(|session| session.caller.is_some() || session.step != Step::Committed);
        state.sessions.sort();
        Some(state)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always("never oversold", |_, state: &State| state.wallet.len() <= STOCK),
            Property::always("never twice", |_, state: &State| {
                (0..USERS).all(|user| state.wallet.iter().filter(|holder| **holder == user).count() <= 1)
            }),
            Property::always("nobody is sent away while stock is left", |_, state: &State| !state.falsely_refused),
            Property::always("what was told is held", |_, state: &State| {
                state.told.iter().zip(0..).all(|(told, user)| match told {
                    Some(Told::Serial(serial)) => state.wallet.get(*serial) == Some(&user),
                    _ => true,
                })
            }),
            Property::sometimes("everything is issued and everybody answered", |_, state: &State| {
                state.wallet.len() == STOCK && state.told.iter().all(Option::is_some)
            }),
            Property::sometimes("an orphan outlives the rerun of its batch", |_, state: &State| {
                state.sessions.iter().any(|session| session.caller.is_none()) && state.told.iter().any(Option::is_some)
            }),
        ]
    }
}

#[test]
fn neither_a_lying_lock_nor_an_orphan_nor_a_rerun_breaks_a_promise() {
    let checked = Service { row_lock: true, user_key: true }.checker().threads(2).spawn_bfs().join();
    checked.assert_properties();
    assert!(checked.unique_state_count() > 10_000, "{} states", checked.unique_state_count());
}

/// Searches until it finds how this promise breaks.
fn expect_broken(service: Service, promise: &'static str) {
    let until_found = HasDiscoveries::AnyOf([promise].into());
    service.checker().finish_when(until_found).spawn_bfs().join().assert_any_discovery(promise);
}

#[test]
fn without_the_row_lock_they_oversell() {
    expect_broken(Service { row_lock: false, user_key: true }, "never oversold");
}

#[test]
fn without_the_key_they_issue_twice() {
    expect_broken(Service { row_lock: true, user_key: false }, "never twice");
}
