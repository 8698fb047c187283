//! The partitions that are ours, what each waits for, and what is sent for them: shared with
//! rebalances, which give them back with their position stored.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crossbeam_channel::Receiver;

use super::Board;
use crate::config;
use crate::engine::protocol::Crossing;
use crate::engine::reactor::{Reacting, Stored};
use crate::kernel::message::{Outgoing, Record};
use crate::kernel::time::Timestamp;
use crate::log::kafka::crossing::CrossingProducer;
use crate::log::kafka::group::{Place, Rebalance};
use crate::log::kafka::{Error, positions};

/// The longest that the last positions are waited for when partitions are given back.
const LAST_WORDS_MAX: Duration = Duration::from_secs(2);

/// What a machine waits for.
pub(super) enum Doing {
    /// Its standing is to be read, not before that moment.
    Standing(Instant),
    /// The consumer is to be moved.
    Ready(i64),
    Receiving(Option<Timestamp>),
    Delivering(Vec<Crossing>),
    Storing(Stored, String),
    /// A thread asks the registry.
    LookingUp(Receiver<()>),
    Stopped,
}

pub(super) struct Owned {
    pub(super) machine: Reacting,
    pub(super) doing: Doing,
    pub(super) inbox: Vec<Record>,
}

/// The partitions, shared with rebalances, which are called from the same thread's poll.
#[derive(Clone)]
pub(super) struct Partitions {
    pub(super) owned: Arc<Mutex<HashMap<Place, Owned>>>,
    pub(super) given: Arc<Mutex<Vec<Place>>>,
    pub(super) outbox: Arc<Mutex<Outbox>>,
    pub(super) board: Arc<Board>,
}

impl Partitions {
    pub(super) fn lock(&self) -> MutexGuard<'_, HashMap<Place, Owned>> {
        self.owned.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn given(&self) -> MutexGuard<'_, Vec<Place>> {
        self.given.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn outbox(&self) -> MutexGuard<'_, Outbox> {
        self.outbox.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Stores where these stand, as far as the brokers answer, and forgets them.
    pub(super) fn release(&self, places: &[Place]) -> Vec<(Place, Stored, String)> {
        let mut owned = self.lock();
        let gone = places.iter().filter_map(|place| {
            self.board.lock().remove(place);
            let (stored, metadata) = owned.remove(place)?.machine.last_words()?;
            Some((place.clone(), stored, metadata))
        });
        let last: Vec<_> = gone.collect();
        let deadline = Instant::now() + LAST_WORDS_MAX;
        if let Err(error) = self.outbox().store(&last, || Instant::now() > deadline) {
            tracing::warn!(%error, "positions not stored; what was sent since the last ones is \
                sent again and dropped by those who have it");
            return Vec::new();
        }
        last
    }
}

impl Rebalance for Partitions {
    fn assigned(&self, places: Vec<Place>) {
        self.board.join();
        self.given().extend(places);
    }

    fn revoked(&self, places: &[Place], lost: bool) {
        if lost {
            self.board.leave(true);
        }
        self.given().retain(|place| !places.contains(place));
        self.release(places);
    }
}

/// Sends in order, acknowledged.
pub(super) struct Outbox {
    pub(super) kafka: config::Kafka,
    pub(super) group: String,
    pub(super) positions_topic: String,
    pub(super) producer: Option<CrossingProducer>,
}

impl Outbox {
    pub(super) fn deliver<'r>(
        &mut self,
        records: impl Iterator<Item = (&'r str, i32, &'r Outgoing)>,
        give_up: impl Fn() -> bool,
    ) -> Result<(), Error> {
        let producer = match self.producer.take() {
            Some(producer) => producer,
            None => CrossingProducer::open(&self.kafka)?,
        };
        // After an error it is not kept: the next one sends everything again.
        producer.deliver(records, give_up)?;
        self.producer = Some(producer);
        Ok(())
    }

    pub(super) fn store(
        &mut self,
        positions: &[(Place, Stored, String)],
        give_up: impl Fn() -> bool,
    ) -> Result<(), Error> {
        if positions.is_empty() {
            return Ok(());
        }
        let record = |(place, stored, _): &(Place, Stored, String)| {
            positions::record(&self.group, place, stored.to_bytes())
        };
        let records: Vec<_> = positions.iter().map(record).collect();
        let topic = self.positions_topic.clone();
        self.deliver(
            records.iter().map(|record| (topic.as_str(), positions::PARTITION, record)),
            give_up,
        )
    }
}
