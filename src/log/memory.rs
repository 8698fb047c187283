//! A log in memory with the transaction semantics of the real one, for the simulator.
//!
//! | kept from Kafka | how |
//! |---|---|
//! | isolation | a reader sees committed records up to the first open transaction, and no further |
//! | fencing | `init_producer` raises the epoch; older ones are refused and aborted |
//! | atomicity | records and the group's offset become visible together, or never |
//! | holes | commit and abort write a marker that takes an offset |
//! | a pending offset | `committed_offset` fails while a transaction holds one |
//!
//! It holds the topics of one aggregate and one consumer group. Nothing is random here: faults are
//! the simulator's.

use std::collections::{BTreeMap, BTreeSet};

use crate::kernel::message::{Outgoing, Record};
use crate::kernel::stream::Kind;

/// A place that records are appended to.
pub type Place = (Kind, i32);

/// The log.
#[expect(clippy::module_name_repetitions, reason = "it is used without its module's name")]
#[derive(Debug, Default)]
pub struct MemoryLog {
    partitions: BTreeMap<Place, Vec<Slot>>,
    offsets: BTreeMap<i32, (i64, String)>,
    producers: BTreeMap<String, Producer>,
}

#[derive(Debug)]
enum Slot {
    Record { record: Record, state: State },
    Marker,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum State {
    Visible,
    Open(String),
    Aborted,
}

#[derive(Debug, Default)]
struct Producer {
    epoch: u32,
    open: Option<Open>,
}

#[derive(Debug, Default)]
struct Open {
    places: BTreeSet<Place>,
    offset: Option<(i32, i64, String)>,
}

/// Why a call was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// A newer producer has the id.
    #[error("a newer producer has this transactional id")]
    Fenced,
    /// No transaction is open, or one is already.
    #[error("the transaction is not in the state for that")]
    State,
    /// A transaction holds an offset of that partition.
    #[error("a transaction is pending")]
    Pending,
}

impl MemoryLog {
    /// Gives an id to a new producer: aborts what the last one left open and fences it off.
    pub fn init_producer(&mut self, id: &str) -> u32 {
        let open = self.producers.entry(id.to_owned()).or_default().open.take();
        if let Some(open) = open {
            self.end(id, &open, false);
        }
        let producer = self.producers.entry(id.to_owned()).or_default();
        producer.epoch += 1;
        producer.epoch
    }

    fn producer(&mut self, id: &str, epoch: u32) -> Result<&mut Producer, Refused> {
        match self.producers.get_mut(id) {
            Some(producer) if producer.epoch == epoch => Ok(producer),
            _ => Err(Refused::Fenced),
        }
    }

    /// Opens a transaction.
    ///
    /// # Errors
    /// The producer is fenced off, or has one open.
    pub fn begin(&mut self, id: &str, epoch: u32) -> Result<(), Refused> {
        let producer = self.producer(id, epoch)?;
        if producer.open.is_some() {
            return Err(Refused::State);
        }
        producer.open = Some(Open::default());
        Ok(())
    }

    /// Adds the group's offset to the open transaction.
    ///
    /// # Errors
    /// The producer is fenced off, or has none open.
    pub fn send_offset(
        &mut self,
        (id, epoch): (&str, u32),
        partition: i32,
        offset: i64,
        metadata: &str,
    ) -> Result<(), Refused> {
        let open = self.producer(id, epoch)?.open.as_mut().ok_or(Refused::State)?;
        open.offset = Some((partition, offset, metadata.to_owned()));
        Ok(())
    }

    /// Writes a record in the open transaction.
    ///
    /// # Errors
    /// The producer is fenced off, or has none open.
    pub fn send(
        &mut self,
        (id, epoch): (&str, u32),
        partition: i32,
        record: &Outgoing,
        timestamp_ms: i64,
    ) -> Result<(), Refused> {
        let place = (record.kind, partition);
        let open = self.producer(id, epoch)?.open.as_mut().ok_or(Refused::State)?;
        open.places.insert(place);
        self.push(place, record, timestamp_ms, State::Open(id.to_owned()));
        Ok(())
    }

    /// Makes the open transaction visible.
    ///
    /// # Errors
    /// The producer is fenced off, or has none open.
    pub fn commit(&mut self, id: &str, epoch: u32) -> Result<(), Refused> {
        let open = self.producer(id, epoch)?.open.take().ok_or(Refused::State)?;
        self.end(id, &open, true);
        Ok(())
    }

    /// Undoes the open transaction.
    ///
    /// # Errors
    /// The producer is fenced off, or has none open.
    pub fn abort(&mut self, id: &str, epoch: u32) -> Result<(), Refused> {
        let open = self.producer(id, epoch)?.open.take().ok_or(Refused::State)?;
        self.end(id, &open, false);
        Ok(())
    }

    fn end(&mut self, id: &str, open: &Open, committed: bool) {
        let state = if committed { State::Visible } else { State::Aborted };
        for place in &open.places {
            let slots = self.partitions.entry(*place).or_default();
            for slot in slots.iter_mut() {
                if let Slot::Record { state: found, .. } = slot
                    && *found == State::Open(id.to_owned())
                {
                    *found = state.clone();
                }
            }
            slots.push(Slot::Marker);
        }
        if let (true, Some((partition, offset, metadata))) = (committed, &open.offset) {
            self.offsets.insert(*partition, (*offset, metadata.clone()));
        }
    }

    /// The offset behind a partition's last record or marker.
    #[must_use]
    pub fn end_of(&self, place: Place) -> i64 {
        self.partitions
            .get(&place)
            .map_or(0, |slots| i64::try_from(slots.len()).unwrap_or(i64::MAX))
    }

    /// Appends outside any transaction.
    pub fn append(&mut self, partition: i32, record: &Outgoing, timestamp_ms: i64) {
        self.push((record.kind, partition), record, timestamp_ms, State::Visible);
    }

    fn push(&mut self, place: Place, outgoing: &Outgoing, timestamp_ms: i64, state: State) {
        let slots = self.partitions.entry(place).or_default();
        let record = Record {
            offset: i64::try_from(slots.len()).unwrap_or(i64::MAX),
            timestamp_ms,
            key: outgoing.key.as_deref().map(Box::from),
            value: outgoing.value.as_deref().map(Box::from),
            headers: outgoing.headers.clone(),
        };
        slots.push(Slot::Record { record, state });
    }

    /// Reads committed records from an offset on, at most `max`; says from where to read on, and
    /// whether the end of what can be read is reached.
    #[must_use]
    pub fn read(&self, place: Place, from: i64, max: usize) -> (Vec<Record>, i64, bool) {
        let mut records = Vec::new();
        let mut next = usize::try_from(from).unwrap_or(0);
        let slots = self.partitions.get(&place).map_or(&[][..], Vec::as_slice);
        while let Some(slot) = slots.get(next) {
            match slot {
                Slot::Record { state: State::Open(_), .. } => break,
                Slot::Record { record, state: State::Visible } => {
                    if records.len() == max {
                        return (records, i64::try_from(next).unwrap_or(i64::MAX), false);
                    }
                    records.push(record.clone());
                }
                Slot::Record { state: State::Aborted, .. } | Slot::Marker => {}
            }
            next += 1;
        }
        (records, i64::try_from(next).unwrap_or(i64::MAX), true)
    }

    /// The group's offset for a commands partition.
    ///
    /// # Errors
    /// A transaction that holds it is open.
    pub fn committed_offset(&self, partition: i32) -> Result<Option<(i64, String)>, Refused> {
        let pending = self.producers.values().filter_map(|producer| producer.open.as_ref());
        let mut held = pending.filter_map(|open| open.offset.as_ref());
        if held.any(|(found, ..)| *found == partition) {
            return Err(Refused::Pending);
        }
        Ok(self.offsets.get(&partition).cloned())
    }

    /// Sets or removes the group's offset, as an operator with Kafka's tools does.
    pub fn reset_offset(&mut self, partition: i32, offset: Option<i64>) {
        match offset {
            Some(offset) => self.offsets.insert(partition, (offset, String::new())),
            None => self.offsets.remove(&partition),
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::message::Headers;

    fn event(text: &str) -> Outgoing {
        let bytes = Some(text.as_bytes().to_vec());
        Outgoing {
            kind: Kind::Events,
            key: bytes.clone(),
            value: bytes,
            headers: Headers::default(),
        }
    }

    fn texts(log: &MemoryLog) -> Vec<String> {
        let (records, _, _) = log.read((Kind::Events, 0), 0, usize::MAX);
        let text = |record: Record| String::from_utf8(record.value.unwrap().to_vec()).unwrap();
        records.into_iter().map(text).collect()
    }

    #[test]
    fn nothing_is_seen_behind_an_open_transaction() {
        let mut log = MemoryLog::default();
        let (a, b) = (log.init_producer("a"), log.init_producer("b"));
        log.begin("a", a).unwrap();
        log.send(("a", a), 0, &event("first"), 0).unwrap();
        log.begin("b", b).unwrap();
        log.send(("b", b), 0, &event("second"), 0).unwrap();
        log.commit("b", b).unwrap();
        assert_eq!(texts(&log), Vec::<String>::new(), "b is behind a");
        log.commit("a", a).unwrap();
        assert_eq!(texts(&log), ["first", "second"]);
    }

    #[test]
    fn a_new_producer_aborts_and_fences_the_old_one() {
        let mut log = MemoryLog::default();
        let old = log.init_producer("a");
        log.begin("a", old).unwrap();
        log.send(("a", old), 0, &event("lost"), 0).unwrap();
        log.send_offset(("a", old), 0, 5, "x").unwrap();
        assert_eq!(log.committed_offset(0), Err(Refused::Pending));
        let new = log.init_producer("a");
        assert_eq!(log.commit("a", old), Err(Refused::Fenced));
        assert_eq!(log.committed_offset(0), Ok(None));
        log.begin("a", new).unwrap();
        log.send(("a", new), 0, &event("kept"), 0).unwrap();
        log.send_offset(("a", new), 0, 6, "y").unwrap();
        log.commit("a", new).unwrap();
        assert_eq!(texts(&log), ["kept"]);
        assert_eq!(log.committed_offset(0), Ok(Some((6, "y".to_owned()))));
    }

    #[test]
    fn reading_goes_on_where_it_stopped_across_holes() {
        let mut log = MemoryLog::default();
        let epoch = log.init_producer("a");
        for text in ["1", "2", "3"] {
            log.begin("a", epoch).unwrap();
            log.send(("a", epoch), 0, &event(text), 0).unwrap();
            log.commit("a", epoch).unwrap();
        }
        let (first, next, end) = log.read((Kind::Events, 0), 0, 2);
        assert_eq!((first.len(), end), (2, false));
        let (rest, _, end) = log.read((Kind::Events, 0), next, 2);
        assert_eq!((rest.len(), rest[0].offset, end), (1, 4, true));
    }
}
