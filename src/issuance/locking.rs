//! The lock as a batch sees it: the Redlock, or in the simulation a model that fails on demand.

use std::sync::Arc;

use crate::lock::{Lease, LockError, Locks};

/// What a batch asks of the lock. [`Locks`] says what each call promises.
pub(super) trait Locking: Send + Sync + 'static {
    /// A held lock.
    type Lease: Send + Sync;

    fn acquire(
        &self,
        name: &str,
        wanted: impl FnMut() -> bool + Send,
    ) -> impl Future<Output = Result<Self::Lease, LockError>> + Send;

    fn may_stay(&self, lease: &Self::Lease) -> impl Future<Output = bool> + Send;

    fn hand_over(&self, lease: Self::Lease) -> impl Future<Output = ()> + Send;
}

impl Locking for Arc<Locks> {
    type Lease = Lease;

    async fn acquire(&self, name: &str, wanted: impl FnMut() -> bool + Send) -> Result<Lease, LockError> {
        Locks::acquire(self, name, wanted).await
    }

    async fn may_stay(&self, lease: &Lease) -> bool {
        Locks::may_stay(self, lease).await
    }

    async fn hand_over(&self, lease: Lease) {
        Locks::hand_over(self, lease).await;
    }
}
