//! A simulated database of read models: rows and checkpoint in one transaction, the checkpoint by
//! compare-and-set.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash, Hasher};

use hashbrown::HashMap;
use millrace::engine::projector::{Failure, Refusal};
use millrace::kernel::message::Record;
use millrace::kernel::projection::{Applied, Batch, Cause, Held, Obstacle, Place, Redriven};
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
    /// What is put aside, by offset.
    parked: BTreeMap<i64, Record>,
    /// The streams that are refused.
    poison: BTreeSet<String>,
}

impl Shelf {
    fn take(&mut self, record: &Record) -> u64 {
        let (stream, sequence) = identity(record);
        let row = self.rows.entry(stream.to_owned()).or_default();
        // What a row has already is a repeat of a replay.
        if sequence <= row.version {
            return 0;
        }
        assert_eq!(sequence, row.version + 1, "a gap in front of {stream} in the rows");
        row.follow(record);
        1
    }

    fn refuses(&self, record: &Record) -> bool {
        let (stream, sequence) = identity(record);
        let version = self.rows.get(stream).map_or(0, |row| row.version);
        sequence > version && self.poison.contains(stream)
    }

    fn first_parked(&self) -> BTreeMap<String, i64> {
        let mut first = BTreeMap::new();
        for (offset, record) in &self.parked {
            first.entry(identity(record).0.to_owned()).or_insert(*offset);
        }
        first
    }
}

fn identity(record: &Record) -> (&str, u64) {
    parse_event_key(record.key.as_deref().unwrap()).unwrap()
}

fn refused(suspect: Option<i64>) -> Failure {
    let reason = "it violates a constraint".to_owned();
    Failure::Refused(Refusal { cause: Cause::StoreRefused, reason, suspect })
}

/// The database: what it holds of each partition.
#[derive(Debug, Default)]
pub(crate) struct Store(HashMap<memory::Place, Shelf>);

impl Store {
    pub(crate) fn held(&self, place: memory::Place) -> Held {
        let held = |shelf: &Shelf| Held { parked: shelf.first_parked(), ..shelf.held.clone() };
        self.0.get(&place).map(held).unwrap_or_default()
    }

    /// From now on a stream is refused.
    pub(crate) fn poison(&mut self, place: memory::Place, stream: &str) {
        self.0.entry(place).or_default().poison.insert(stream.to_owned());
    }

    /// From now on nothing is refused any more.
    pub(crate) fn mend(&mut self, place: memory::Place) {
        if let Some(shelf) = self.0.get_mut(&place) {
            shelf.poison.clear();
        }
    }

    /// The streams that have parked events.
    pub(crate) fn parked(&self, place: memory::Place) -> Vec<String> {
        self.0
            .get(&place)
            .map(|shelf| shelf.first_parked().into_keys().collect())
            .unwrap_or_default()
    }

    /// Applies a stream's oldest parked events.
    pub(crate) fn redrive(
        &mut self,
        place: memory::Place,
        from: Place,
        (stream, rows): (&str, usize),
    ) -> Result<Redriven, Failure> {
        let shelf = self.0.entry(place).or_default();
        if shelf.held.place != Some(from) {
            return Err(Failure::Conflict);
        }
        if shelf.poison.contains(stream) {
            return Err(refused(None));
        }
        let own = |(_, record): &(&i64, &Record)| identity(record).0 == stream;
        let mut offsets: Vec<i64> =
            shelf.parked.iter().filter(own).map(|(offset, _)| *offset).collect();
        let has_more = offsets.len() > rows;
        offsets.truncate(rows);
        let events = offsets.len() as u64;
        for offset in offsets {
            let record = shelf.parked.remove(&offset).unwrap();
            shelf.take(&record);
        }
        Ok(Redriven { events, has_more })
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
        let first = shelf.first_parked();
        shelf.parked.retain(|_, record| first[identity(record).0] < next.next_offset);
        shelf.held = Held { place: Some(next), topic_id: Some(topic_id), ..Held::default() };
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
        if let Some(bad) = records.clone().find(|record| shelf.refuses(record)) {
            // Some stores say which one they mean.
            return Err(refused(Some(bad.offset).filter(|offset| offset % 2 == 0)));
        }
        for record in records {
            applied.events += shelf.take(record);
        }
        for parked in batch.parked_before(applied.next_offset) {
            shelf.parked.insert(parked.record.offset, parked.record.clone());
        }
        shelf.held.place = Some(Place { next_offset: applied.next_offset, ..batch.from });
        Ok(applied)
    }

    /// Loses what it holds of a partition.
    pub(crate) fn wipe(&mut self, place: memory::Place) {
        self.0.remove(&place);
    }
}
