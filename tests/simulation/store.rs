//! A simulated database of read models: rows and checkpoint in one transaction, the checkpoint by
//! compare-and-set.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};

use hashbrown::HashMap;
use millrace::engine::projector::Failure;
use millrace::kernel::message::Record;
use millrace::kernel::projection::{Applied, Batch, Held, Obstacle, Place};
use millrace::kernel::stream::parse_event_key;
use millrace::log::memory;
use uuid::Uuid;

/// A stream's row: how many events it has, and a digest of them all in order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Row {
    pub(crate) version: u64,
    pub(crate) digest: u64,
}

impl Row {
    pub(crate) fn follow(&mut self, record: &Record) {
        let mut hasher = DefaultHasher::new();
        (self.digest, &record.key, &record.value).hash(&mut hasher);
        self.version += 1;
        self.digest = hasher.finish();
    }
}

#[derive(Debug, Default)]
struct Shelf {
    held: Held,
    rows: BTreeMap<String, Row>,
}

/// The database: what it holds of each partition.
#[derive(Debug, Default)]
pub(crate) struct Store(HashMap<memory::Place, Shelf>);

impl Store {
    pub(crate) fn held(&self, place: memory::Place) -> Held {
        self.0.get(&place).map(|shelf| shelf.held.clone()).unwrap_or_default()
    }

    pub(crate) fn rows(&self, place: memory::Place) -> BTreeMap<String, Row> {
        self.0.get(&place).map(|shelf| shelf.rows.clone()).unwrap_or_default()
    }

    /// Replaces the checkpoint if it is still the expected one.
    pub(crate) fn reset(
        &mut self,
        place: memory::Place,
        topic_id: Uuid,
        (expected, next, clear): (Option<Place>, Place, bool),
    ) -> bool {
        let shelf = self.0.entry(place).or_default();
        if shelf.held.place != expected {
            return false;
        }
        if clear {
            shelf.rows.clear();
        }
        shelf.held = Held { place: Some(next), topic_id: Some(topic_id), rows_end: None };
        true
    }

    /// Applies a batch, as far as the obstacle that somebody has put there lets it.
    pub(crate) fn apply(
        &mut self,
        place: memory::Place,
        batch: &Batch,
        obstacle: Option<Obstacle>,
    ) -> Result<Applied, Failure> {
        let shelf = self.0.entry(place).or_default();
        if shelf.held.place != Some(batch.from) {
            return Err(Failure::Conflict);
        }
        let mut applied = Applied { next_offset: batch.end(), obstacle, ..Applied::default() };
        if let Some(Obstacle::UnknownSchema { offset, .. }) = applied.obstacle {
            applied.next_offset = offset;
        }
        let records = batch.records.iter().filter(|record| record.offset < applied.next_offset);
        for record in records {
            let (stream, sequence) = parse_event_key(record.key.as_deref().unwrap()).unwrap();
            let row = shelf.rows.entry(stream.to_owned()).or_default();
            // What a row has already is a repeat of a replay.
            if sequence > row.version {
                assert_eq!(sequence, row.version + 1, "a gap in front of {stream} in the rows");
                row.follow(record);
                applied.events += 1;
            }
        }
        shelf.held.place = Some(Place { next_offset: applied.next_offset, ..batch.from });
        Ok(applied)
    }

    /// Loses what it holds of a partition.
    pub(crate) fn wipe(&mut self, place: memory::Place) {
        self.0.remove(&place);
    }
}
