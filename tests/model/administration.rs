//! Memory × database × administration, exhaustively: every order in which the looks of two replicas, two users that ask again, resets and
//! top-ups can meet over one piece.

use stateright::{Checker, HasDiscoveries, Model, Property};

use super::REPLICAS;

const USERS: u8 = 2;
const CHANGES_MAX: u8 = 2;
const ASKS_MAX: u8 = 4;

/// What the model is given.
#[derive(Clone)]
struct Service {
    compares_rounds: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Books {
    round: u8,
    left: u8,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct State {
    books: Books,
    /// Rounds and users.
    wallet: Vec<(u8, u8)>,
    /// What each replica saw when it looked.
    memories: [Books; REPLICAS],
    orders: Vec<Order>,
    changes: u8,
    asks: u8,
    /// Whether a user was told "sold out" that held a piece, or could have had one, at every moment that the answer may be about.
    falsely_refused: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
struct Order {
    user: u8,
    /// The round in which it was made.
    round: u8,
    /// Memory had nothing left.
    expects_refusal: bool,
    /// There was a moment at which nothing was left and its user held nothing.
    is_refusable: bool,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Action {
    Look(usize),
    Reset,
    TopUp,
    Ask(u8, usize),
    /// The database reads for an order, and it is answered.
    Serve(usize),
}

impl State {
    fn holds(&self, round: u8, user: u8) -> bool {
        self.wallet.contains(&(round, user))
    }

    fn ask(&mut self, user: u8, Books { round, left }: Books) {
        let is_refusable = left == 0 && !self.holds(round, user);
        self.orders.push(Order { user, round, expects_refusal: left == 0, is_refusable });
        self.asks += 1;
    }

    fn serve(&mut self, order: Order, compares_rounds: bool) {
        let Books { round, left } = self.books;
        let is_of_another = order.round != round && (compares_rounds || !order.expects_refusal);
        if is_of_another || self.holds(round, order.user) {
            return;
        }
        if order.expects_refusal || left == 0 {
            self.falsely_refused |= !order.is_refusable;
        } else {
            self.books.left -= 1;
            self.wallet.push((round, order.user));
            self.wallet.sort_unstable();
        }
    }

    /// The answer to an order that waits may be about this moment, too.
    fn pass(&mut self) {
        let Books { round, left } = self.books;
        let wallet = &self.wallet;
        for order in &mut self.orders {
            order.is_refusable |= left == 0 && !wallet.contains(&(round, order.user));
        }
        self.orders.sort_unstable();
    }
}

impl Model for Service {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        let books = Books { round: 1, left: 1 };
        let (wallet, orders, memories) = (vec![], vec![], [books; REPLICAS]);
        vec![State { books, wallet, memories, orders, changes: 0, asks: 0, falsely_refused: false }]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        actions.extend((0..REPLICAS).filter(|replica| state.memories[*replica] != state.books).map(Action::Look));
        if state.changes < CHANGES_MAX {
            actions.extend([Action::Reset, Action::TopUp]);
        }
        if state.asks < ASKS_MAX {
            actions.extend((0..USERS).flat_map(|user| (0..REPLICAS).map(move |replica| Action::Ask(user, replica))));
        }
        actions.extend((0..state.orders.len()).map(Action::Serve));
    }

    fn next_state(&self, last: &State, action: Action) -> Option<State> {
        let mut state = last.clone();
        match action {
            Action::Look(replica) => state.memories[replica] = state.books,
            Action::Reset => state.books = Books { round: state.books.round + 1, left: 1 },
            Action::TopUp => state.books.left += 1,
            Action::Ask(user, replica) => state.ask(user, state.memories[replica]),
            Action::Serve(place) => {
                let order = state.orders.remove(place);
                state.serve(order, self.compares_rounds);
            }
        }
        state.changes += u8::from(matches!(action, Action::Reset | Action::TopUp));
        state.pass();
        Some(state)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always("nobody is sent away for another round's stock", |_, state: &State| {
                !state.falsely_refused
            }),
            Property::sometimes("a holder's order meets the next round", |_, state: &State| {
                let meets = |order: &Order| order.round < state.books.round && state.holds(order.round, order.user);
                state.orders.iter().any(meets)
            }),
        ]
    }
}

#[test]
fn where_rounds_are_compared_no_change_makes_an_answer_false() {
    let checked = Service { compares_rounds: true }.checker().threads(2).spawn_bfs().join();
    checked.assert_properties();
    assert!(checked.unique_state_count() > 1_000, "{} states", checked.unique_state_count());
}

#[test]
fn where_rounds_are_not_compared_a_holder_is_sent_away() {
    let promise = "nobody is sent away for another round's stock";
    let until_found = HasDiscoveries::AnyOf([promise].into());
    let checker = Service { compares_rounds: false }.checker().finish_when(until_found);
    checker.spawn_bfs().join().assert_any_discovery(promise);
}
