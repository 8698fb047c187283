//! A log in memory with the transaction semantics of the real one, for the simulator.
//!
//! | kept from Kafka | how |
//! |---|---|
//! | isolation | a reader sees committed records up to the first open transaction, and no further |
//! | fencing | `init_producer` raises the epoch; older ones are refused and aborted |
//! | atomicity | records and the group's offset become visible together, or never |
//! | holes | commit and abort write a marker that takes an offset; compaction leaves holes too |
//! | a pending offset | `committed_offset` fails while a transaction holds one |
//! | a marker lost in a crash | the offset is pending until that producer's next marker |
//!
//! Beyond Kafka it knows the order in which records became visible, all partitions together: what
//! must hold at every prefix of the log is checked in that order. Nothing is random here: faults
//! are the simulator's.

use hashbrown::{HashMap, HashSet};

use crate::kernel::message::{Outgoing, Record};
use crate::kernel::stream::{AggregateName, Kind};
use crate::kernel::time::Timestamp;

/// One partition of one of an aggregate's topics.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place {
    /// The aggregate.
    pub aggregate: AggregateName,
    /// Which of its topics.
    pub kind: Kind,
    /// The partition.
    pub partition: i32,
}

/// An offset that a group commits, with what stands beside it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupOffset {
    /// The consumer group.
    pub group: &'static str,
    /// What it reads.
    pub place: Place,
    /// The next offset to read.
    pub offset: i64,
    /// The commit metadata; empty if a tool set the offset.
    pub metadata: String,
}

/// The log.
#[expect(clippy::module_name_repetitions, reason = "it is used without its module's name")]
#[derive(Debug, Default)]
pub struct MemoryLog {
    partitions: HashMap<Place, Vec<Slot>>,
    offsets: HashMap<(&'static str, Place), (i64, String)>,
    producers: HashMap<String, Producer>,
    /// Where each visible record stands, in the order in which they became so.
    order: Vec<(Place, usize)>,
}

#[derive(Debug)]
enum Slot {
    Record {
        record: Record,
        state: State,
    },
    /// A marker, or a record that compaction has removed.
    Hole,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Visible,
    Open,
    Aborted,
}

#[derive(Debug, Default)]
struct Producer {
    epoch: u32,
    open: Option<Open>,
    /// The offset of a transaction that is committed everywhere but there.
    stuck: Option<GroupOffset>,
}

#[derive(Debug, Default)]
struct Open {
    written: Vec<(Place, usize)>,
    offset: Option<GroupOffset>,
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
            self.end(open, false);
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

    /// Adds a group's offset to the open transaction.
    ///
    /// # Errors
    /// The producer is fenced off, or has none open.
    pub fn send_offset(
        &mut self,
        (id, epoch): (&str, u32),
        offset: GroupOffset,
    ) -> Result<(), Refused> {
        let open = self.producer(id, epoch)?.open.as_mut().ok_or(Refused::State)?;
        open.offset = Some(offset);
        Ok(())
    }

    /// Writes a record in the open transaction.
    ///
    /// # Errors
    /// The producer is fenced off, or has none open.
    pub fn send(
        &mut self,
        (id, epoch): (&str, u32),
        place: Place,
        record: &Outgoing,
        at: Timestamp,
    ) -> Result<(), Refused> {
        // Looked up first: who is fenced off leaves nothing behind.
        if self.producer(id, epoch)?.open.is_none() {
            return Err(Refused::State);
        }
        let index = self.push(place, record, at, State::Open);
        let open = self.producer(id, epoch)?.open.as_mut().ok_or(Refused::State)?;
        open.written.push((place, index));
        Ok(())
    }

    /// Makes the open transaction visible.
    ///
    /// # Errors
    /// The producer is fenced off, or has none open.
    pub fn commit(&mut self, id: &str, epoch: u32) -> Result<(), Refused> {
        let producer = self.producer(id, epoch)?;
        let open = producer.open.take().ok_or(Refused::State)?;
        producer.stuck = None;
        self.end(open, true);
        Ok(())
    }

    /// As [`MemoryLog::commit`], but the marker beside the group's offset is lost: it is pending
    /// until the same producer ends another transaction.
    ///
    /// # Errors
    /// The producer is fenced off, or has none open.
    pub fn commit_without_offset(&mut self, id: &str, epoch: u32) -> Result<(), Refused> {
        let producer = self.producer(id, epoch)?;
        let mut open = producer.open.take().ok_or(Refused::State)?;
        producer.stuck = open.offset.take();
        self.end(open, true);
        Ok(())
    }

    /// Undoes the open transaction.
    ///
    /// # Errors
    /// The producer is fenced off, or has none open.
    pub fn abort(&mut self, id: &str, epoch: u32) -> Result<(), Refused> {
        let producer = self.producer(id, epoch)?;
        let open = producer.open.take().ok_or(Refused::State)?;
        if open.offset.is_some() {
            producer.stuck = None;
        }
        self.end(open, false);
        Ok(())
    }

    fn end(&mut self, open: Open, committed: bool) {
        let outcome = if committed { State::Visible } else { State::Aborted };
        let mut places = Vec::new();
        for (place, index) in open.written {
            let slots = self.partitions.entry(place).or_default();
            if let Some(Slot::Record { state, .. }) = slots.get_mut(index) {
                *state = outcome;
            }
            if !places.contains(&place) {
                places.push(place);
            }
            if committed {
                self.order.push((place, index));
            }
        }
        for place in places {
            self.partitions.entry(place).or_default().push(Slot::Hole);
        }
        if let (true, Some(offset)) = (committed, open.offset) {
            self.commit_offset(offset);
        }
    }

    /// Appends outside any transaction.
    pub fn append(&mut self, place: Place, record: &Outgoing, at: Timestamp) {
        let index = self.push(place, record, at, State::Visible);
        self.order.push((place, index));
    }

    fn push(&mut self, place: Place, outgoing: &Outgoing, at: Timestamp, state: State) -> usize {
        let slots = self.partitions.entry(place).or_default();
        let record = Record {
            offset: to_offset(slots.len()),
            timestamp_ms: at.millis(),
            key: outgoing.key.as_deref().map(Box::from),
            value: outgoing.value.as_deref().map(Box::from),
            headers: outgoing.headers.clone(),
        };
        slots.push(Slot::Record { record, state });
        slots.len() - 1
    }

    fn slots(&self, place: Place) -> &[Slot] {
        self.partitions.get(&place).map_or(&[][..], Vec::as_slice)
    }

    /// The offset behind the last record or marker.
    #[must_use]
    pub fn end_offset(&self, place: Place) -> i64 {
        to_offset(self.slots(place).len())
    }

    /// The first offset whose record is not older than that moment.
    #[must_use]
    pub fn offset_at(&self, place: Place, since: Timestamp) -> i64 {
        let is_new = |slot: &Slot| match slot {
            Slot::Record { record, .. } => record.timestamp_ms >= since.millis(),
            Slot::Hole => false,
        };
        let slots = self.slots(place);
        to_offset(slots.iter().position(is_new).unwrap_or(slots.len()))
    }

    /// Whether a committed record stands at that offset or behind it.
    #[must_use]
    pub fn has_more(&self, place: Place, from: i64) -> bool {
        self.visible(place, from).next().is_some()
    }

    fn visible(&self, place: Place, from: i64) -> impl Iterator<Item = &Record> {
        let from = usize::try_from(from).unwrap_or(0);
        let slots = self.slots(place).get(from..).unwrap_or_default().iter();
        let is_open = |slot: &Slot| matches!(slot, Slot::Record { state: State::Open, .. });
        slots.take_while(move |slot| !is_open(slot)).filter_map(|slot| match slot {
            Slot::Record { record, state: State::Visible } => Some(record),
            Slot::Record { .. } | Slot::Hole => None,
        })
    }

    /// Reads committed records from an offset on, at most `max`; says from where to read on, and
    /// whether the end of what can be read is reached.
    #[must_use]
    pub fn read(&self, place: Place, from: i64, max: usize) -> (Vec<Record>, i64, bool) {
        let mut records = Vec::new();
        let mut next = usize::try_from(from).unwrap_or(0);
        let slots = self.slots(place);
        while let Some(slot) = slots.get(next) {
            match slot {
                Slot::Record { state: State::Open, .. } => break,
                Slot::Record { record, state: State::Visible } => {
                    if records.len() == max {
                        return (records, to_offset(next), false);
                    }
                    records.push(record.clone());
                }
                Slot::Record { state: State::Aborted, .. } | Slot::Hole => {}
            }
            next += 1;
        }
        (records, to_offset(next), true)
    }

    /// The last committed record of that key.
    #[must_use]
    pub fn last_of_key(&self, place: Place, key: &[u8]) -> Option<&Record> {
        let visible = |slot: &'_ Slot| match slot {
            Slot::Record { state: State::Visible, .. } => true,
            Slot::Record { .. } | Slot::Hole => false,
        };
        let slots = self.slots(place).iter().rev().filter(|slot| visible(slot));
        let mut records = slots.filter_map(|slot| match slot {
            Slot::Record { record, .. } => Some(record),
            Slot::Hole => None,
        });
        records.find(|record| record.key.as_deref() == Some(key))
    }

    /// Every visible record of every partition, in the order in which they became visible. What
    /// compaction has removed is not among them.
    pub fn in_order(&self) -> impl Iterator<Item = (Place, &Record)> {
        self.order.iter().filter_map(|(place, index)| match self.slots(*place).get(*index)? {
            Slot::Record { record, .. } => Some((*place, record)),
            Slot::Hole => None,
        })
    }

    /// Removes what a later record of the same key has replaced, but never the last record.
    pub fn compact(&mut self, place: Place) {
        let Some(slots) = self.partitions.get_mut(&place) else { return };
        let end =
            slots.iter().position(|slot| matches!(slot, Slot::Record { state: State::Open, .. }));
        let mut seen = HashSet::new();
        let end = end.unwrap_or(slots.len());
        for slot in slots[..end].iter_mut().rev() {
            let Slot::Record { record, state: State::Visible } = slot else { continue };
            if !seen.insert(record.key.clone()) {
                *slot = Slot::Hole;
            }
        }
    }

    /// A group's offset.
    ///
    /// # Errors
    /// A transaction that holds it is open.
    pub fn committed_offset(
        &self,
        group: &'static str,
        place: Place,
    ) -> Result<Option<(i64, String)>, Refused> {
        let open = self.producers.values().filter_map(|producer| producer.open.as_ref());
        let stuck = self.producers.values().filter_map(|producer| producer.stuck.as_ref());
        let mut held = open.filter_map(|open| open.offset.as_ref()).chain(stuck);
        if held.any(|held| held.group == group && held.place == place) {
            return Err(Refused::Pending);
        }
        Ok(self.offsets.get(&(group, place)).cloned())
    }

    /// Commits a group's offset outside any transaction.
    pub fn commit_offset(&mut self, offset: GroupOffset) {
        let GroupOffset { group, place, offset, metadata } = offset;
        self.offsets.insert((group, place), (offset, metadata));
    }

    /// Sets or removes a group's offset, as an operator with Kafka's tools does.
    pub fn reset_offset(&mut self, group: &'static str, place: Place, offset: Option<i64>) {
        match offset {
            Some(offset) => self.offsets.insert((group, place), (offset, String::new())),
            None => self.offsets.remove(&(group, place)),
        };
    }
}

fn to_offset(index: usize) -> i64 {
    i64::try_from(index).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests;
