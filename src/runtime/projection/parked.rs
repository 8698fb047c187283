//! A look at the parked events now and then: store -> how many there are, and which ones somebody
//! wants tried again.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::Thread;

use crossbeam_channel::Sender;

use super::group::{Completion, Key};
use crate::engine::projector::Input;
use crate::read_model::store::parked::Count;
use crate::read_model::store::{Source, Store};

/// What was seen, shared with the look that is under way; there is one at most.
#[derive(Clone, Default)]
pub(super) struct Counts(Arc<Mutex<Seen>>);

#[derive(Default)]
struct Seen {
    is_under_way: bool,
    counts: HashMap<Key, (u64, u64)>,
}

/// About which partitions, and whom to tell.
pub(super) struct LookAtParked {
    pub(super) asked: Vec<(Key, Arc<Source>)>,
    pub(super) give: Sender<Completion>,
    pub(super) poller: Thread,
}

impl Counts {
    fn lock(&self) -> MutexGuard<'_, Seen> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many events of a partition are parked, and of how many streams.
    pub(super) fn of(&self, key: Key) -> (u64, u64) {
        self.lock().counts.get(&key).copied().unwrap_or_default()
    }

    /// Looks in the background, unless somebody still does.
    pub(super) fn begin<S: Store>(
        &self,
        runtime: &tokio::runtime::Handle,
        store: Arc<S>,
        look: LookAtParked,
    ) {
        if std::mem::replace(&mut self.lock().is_under_way, true) {
            return;
        }
        let seen = self.clone();
        runtime.spawn(async move {
            match store.parked().await {
                Ok(found) => look.take(&seen, found),
                // Whether the store answers is the batches' business.
                Err(error) => tracing::debug!(error = error.chain(), "parked events not counted"),
            }
            seen.lock().is_under_way = false;
        });
    }
}

impl LookAtParked {
    fn take(self, seen: &Counts, mut found: Vec<Count>) {
        let mut counts = HashMap::new();
        for (key, source) in self.asked {
            let is_its = |count: &&mut Count| {
                count.topic == source.topic && count.partition == source.partition
            };
            let Some(count) = found.iter_mut().find(is_its) else { continue };
            counts.insert(key, (count.events, count.streams));
            let wanted = std::mem::take(&mut count.wanted);
            if !wanted.is_empty() {
                let (nonce, input) = (source.nonce, Input::Redrive(wanted));
                // If there is no room, the next look says it again.
                let _ = self.give.try_send(Completion { key, nonce, topic_id: None, input });
                self.poller.unpark();
            }
        }
        seen.lock().counts = counts;
    }
}
