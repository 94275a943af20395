//! What a batch asks of the outside: a database and a lock. In the service they are the store and the Redlock; in the simulation
//! they are models that fail on demand. Every call is dispatched at compile time and boxes nothing.

use std::sync::Arc;

use crate::coupons::{Code, Order, Settlement};
use crate::lock::{Lease, LockError, Locks, Patience};
use crate::store::{Held, Lane, Store, StoreError};

/// Where lanes lead to.
pub(super) trait Database: Send + Sync + 'static {
    /// The right to one connection.
    type Lane: Calls;

    /// A lane for batches, as soon as one is free.
    fn lane(&self) -> impl Future<Output = Self::Lane> + Send;

    /// Whether all of these are lent.
    fn lanes_are_lent(&self) -> bool;
}

/// What a batch asks of a lane. [`Lane`] says what each call promises.
pub(super) trait Calls: Send + 'static {
    fn connect(&mut self) -> impl Future<Output = Result<(), StoreError>> + Send;

    fn issue_batch(
        &mut self,
        round: u32,
        code: &Code,
        orders: &[Order],
    ) -> impl Future<Output = Result<Settlement, StoreError>> + Send;

    fn held(&mut self, code: &Code, orders: &[Order]) -> impl Future<Output = Result<Held, StoreError>> + Send;
}

/// What a batch asks of the lock. [`Locks`] says what each call promises.
pub(super) trait Locking: Send + Sync + 'static {
    /// A held lock.
    type Lease: Send + Sync;

    fn acquire(
        &self,
        name: &str,
        patience: Patience,
        wanted: impl FnMut() -> bool + Send,
    ) -> impl Future<Output = Result<Self::Lease, LockError>> + Send;

    fn may_stay(&self, lease: &Self::Lease) -> impl Future<Output = bool> + Send;

    fn release(&self, lease: Self::Lease) -> impl Future<Output = ()> + Send;
}

impl Database for Store {
    type Lane = Lane;

    fn lane(&self) -> impl Future<Output = Lane> + Send {
        self.batches.free()
    }

    fn lanes_are_lent(&self) -> bool {
        self.batches.are_lent()
    }
}

impl Calls for Lane {
    fn connect(&mut self) -> impl Future<Output = Result<(), StoreError>> + Send {
        Self::connect(self)
    }

    fn issue_batch(
        &mut self,
        round: u32,
        code: &Code,
        orders: &[Order],
    ) -> impl Future<Output = Result<Settlement, StoreError>> + Send {
        Self::issue_batch(self, round, code, orders)
    }

    fn held(&mut self, code: &Code, orders: &[Order]) -> impl Future<Output = Result<Held, StoreError>> + Send {
        Self::held(self, code, orders)
    }
}

impl Locking for Arc<Locks> {
    type Lease = Lease;

    fn acquire(
        &self,
        name: &str,
        patience: Patience,
        wanted: impl FnMut() -> bool + Send,
    ) -> impl Future<Output = Result<Lease, LockError>> + Send {
        Locks::acquire(self, name, patience, wanted)
    }

    fn may_stay(&self, lease: &Lease) -> impl Future<Output = bool> + Send {
        Locks::may_stay(self, lease)
    }

    fn release(&self, lease: Lease) -> impl Future<Output = ()> + Send {
        Locks::release(self, lease)
    }
}
