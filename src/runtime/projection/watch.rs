//! Whether the generation that is being written is still the one that users see: store -> a flag.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::task::JoinHandle;

use crate::read_model::store::Store;

/// The time between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// Looks in the background until it is dropped.
pub(super) struct Watch {
    is_over: Arc<AtomicBool>,
    task: JoinHandle<()>,
}

impl Watch {
    /// Starts to look; wakes the thread that called it.
    pub(super) fn start<S: Store>(runtime: &tokio::runtime::Handle, store: &Arc<S>) -> Self {
        let is_over = Arc::new(AtomicBool::new(false));
        let (store, over, poller) =
            (Arc::clone(store), Arc::clone(&is_over), std::thread::current());
        let task = runtime.spawn(async move {
            loop {
                tokio::time::sleep(LOOK_EVERY).await;
                match store.in_use().await {
                    Ok(in_use) if in_use.generation == store.generation() && !in_use.is_held => {}
                    Ok(_) => break,
                    // Whether the store answers is the batches' business.
                    Err(error) => tracing::debug!(error = error.chain(), "generation not known"),
                }
            }
            over.store(true, Ordering::Release);
            poller.unpark();
        });
        Self { is_over, task }
    }

    /// Whether another generation is in use now, or is about to be.
    pub(super) fn is_over(&self) -> bool {
        self.is_over.load(Ordering::Acquire)
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.task.abort();
    }
}
