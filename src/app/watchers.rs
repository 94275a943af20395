//! The tasks without which a replica is not alive. One that returns or panics before the replica is stopped is noted for good.

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// The first watcher that has ended too early, if any.
#[derive(Default)]
pub(super) struct Watchers {
    lost: watch::Sender<Option<&'static str>>,
}

impl Watchers {
    /// Runs `work` in a task. When it ends before `stopped`, however it does, `watcher` is lost.
    pub(super) fn spawn(
        &self,
        watcher: &'static str,
        work: impl Future<Output = ()> + Send + 'static,
        stopped: CancellationToken,
    ) {
        let life = Life { watcher, lost: self.lost.clone(), stopped };
        tokio::spawn(async move {
            let _life = life;
            work.await;
        });
    }

    /// Tells which watcher is lost.
    pub(super) fn lost(&self) -> watch::Receiver<Option<&'static str>> {
        self.lost.subscribe()
    }
}

/// Goes with its watcher's task, also when that panics.
struct Life {
    watcher: &'static str,
    lost: watch::Sender<Option<&'static str>>,
    stopped: CancellationToken,
}

impl Drop for Life {
    fn drop(&mut self) {
        if !self.stopped.is_cancelled() {
            tracing::error!("{} has ended; this replica must be replaced", self.watcher);
            self.lost.send_replace(Some(self.watcher));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_watcher_is_lost_when_it_panics_or_returns_and_not_when_it_is_told_to_end() {
        for (is_stopped, panics, lost) in
            [(false, true, Some("w")), (false, false, Some("w")), (true, true, None), (true, false, None)]
        {
            let (watchers, stopped) = (Watchers::default(), CancellationToken::new());
            let (ended, end) = tokio::sync::oneshot::channel::<()>();
            if is_stopped {
                stopped.cancel();
            }
            let work = async move {
                let _ended = ended;
                assert!(!panics, "on purpose");
            };
            watchers.spawn("w", work, stopped);
            end.await.unwrap_err();
            tokio::task::yield_now().await;
            assert_eq!(*watchers.lost().borrow(), lost, "stopped {is_stopped}, panics {panics}");
        }
    }
}
