//! A look at our partitions now and then: brokers -> ends of logs, and whether a topic is still the
//! one that was read.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crossbeam_channel::Sender;

use super::group::{Completion, Key, chain, place_of};
use super::position::Positions;
use crate::engine::projector::Input;
use crate::log::kafka::Error;
use crate::read_model::store::Source;

/// What was seen, shared with the look that is under way; there is one at most.
#[derive(Clone, Default)]
pub(super) struct Sightings(Arc<Mutex<Seen>>);

#[derive(Default)]
struct Seen {
    is_under_way: bool,
    ends: HashMap<Key, i64>,
    outcome: Option<Result<(), String>>,
}

/// Whom to ask about what, and whom to tell.
pub(super) struct Look {
    pub(super) positions: Arc<Positions>,
    pub(super) topics: Vec<String>,
    pub(super) asked: Vec<(Key, Arc<Source>)>,
    pub(super) give: Sender<Completion>,
}

impl Sightings {
    fn lock(&self) -> MutexGuard<'_, Seen> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The end of a partition's log, when it was last seen.
    pub(super) fn end(&self, key: Key) -> Option<i64> {
        self.lock().ends.get(&key).copied()
    }

    /// How the last look ended, once.
    pub(super) fn take_outcome(&self) -> Option<Result<(), String>> {
        self.lock().outcome.take()
    }

    /// Looks in the background, unless somebody still does.
    pub(super) fn begin(&self, runtime: &tokio::runtime::Handle, look: Look) {
        if std::mem::replace(&mut self.lock().is_under_way, true) {
            return;
        }
        let sightings = self.clone();
        runtime.spawn_blocking(move || {
            let outcome = look.carry_out(&sightings).map_err(|error| chain(&error));
            let mut seen = sightings.lock();
            seen.outcome = Some(outcome);
            seen.is_under_way = false;
        });
    }
}

impl Look {
    /// Ends at the first error: what is away is away for the others too.
    fn carry_out(&self, sightings: &Sightings) -> Result<(), Error> {
        let topics: Vec<&str> = self.topics.iter().map(String::as_str).collect();
        let ids = self.positions.topic_ids(&topics)?;
        for (key, source) in &self.asked {
            let is_other = ids.get(key.0).is_some_and(|id| *id != source.topic_id);
            if is_other && !source.topic_id.is_nil() {
                let input = Input::Lost(format!("topic {} was made anew", source.topic));
                let (key, nonce) = (*key, source.nonce);
                // If there is no room, the next look says it again.
                let _ = self.give.try_send(Completion { key, nonce, topic_id: None, input });
                continue;
            }
            let end = self.positions.log_end(&place_of(source))?;
            sightings.lock().ends.insert(*key, end);
        }
        Ok(())
    }
}
