//! Records that wait to be applied: records -> batches, bounded by rows, bytes and time.

use std::mem;

use super::Retry;
use crate::kernel::message::Record;
use crate::kernel::time::Timestamp;

/// What a batch and a buffer may hold, and how long records may wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// The most records in a batch.
    pub rows: usize,
    /// The most bytes in a batch, headers and bookkeeping included.
    pub bytes: usize,
    /// How long a batch that is not full waits for more, in microseconds.
    pub linger_us: i64,
    /// How long an applied offset may stay uncommitted in Kafka, in microseconds.
    pub commit_every_us: i64,
    /// How often and how long to wait when something fails.
    pub retry: Retry,
    /// The most streams that may be parked: with more the partition waits.
    pub parked_streams: usize,
}

/// What a record costs beside its bytes.
const RECORD_OVERHEAD: usize = size_of::<Record>() + 64;

/// The buffer of one partition.
#[derive(Debug, Default)]
pub(super) struct Buffer {
    records: Vec<Record>,
    bytes: usize,
    since: Option<Timestamp>,
    /// The lowest offset that may come next; `None` while the reader is elsewhere.
    next: Option<i64>,
}

impl Buffer {
    /// Forgets everything, and takes nothing until it is opened.
    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }

    /// Takes records from that offset on.
    pub(super) const fn open_at(&mut self, offset: i64) {
        self.next = Some(offset);
    }

    /// Whether it takes records.
    pub(super) const fn is_open(&self) -> bool {
        self.next.is_some()
    }

    /// Takes a record, if it is not from before.
    pub(super) fn offer(&mut self, now: Timestamp, record: Record) {
        if self.next.is_none_or(|next| record.offset < next) {
            return;
        }
        self.next = Some(record.offset + 1);
        self.bytes += cost(&record);
        self.since.get_or_insert(now);
        self.records.push(record);
    }

    /// The oldest record.
    pub(super) fn first(&self) -> Option<&Record> {
        self.records.first()
    }

    /// When what is there has waited long enough.
    pub(super) fn due(&self, limits: &Limits) -> Option<Timestamp> {
        self.since.map(|since| Timestamp(since.0.saturating_add(limits.linger_us)))
    }

    /// Whether it holds all that it should: two batches by rows, one by bytes.
    pub(super) fn is_full(&self, limits: &Limits) -> bool {
        self.records.len() >= 2 * limits.rows || self.bytes >= limits.bytes
    }

    /// How many records stand in front of that offset.
    pub(super) fn count_before(&self, offset: i64) -> usize {
        self.records.partition_point(|record| record.offset < offset)
    }

    /// Takes a batch of at most that many rows off the front, if one is full or due.
    pub(super) fn take(
        &mut self,
        now: Timestamp,
        limits: &Limits,
        rows: usize,
    ) -> Option<Vec<Record>> {
        let rows = rows.clamp(1, limits.rows);
        let is_full = self.records.len() >= rows || self.bytes >= limits.bytes;
        if !is_full && self.due(limits)? > now {
            return None;
        }
        let batch = self.take_front(limits, rows);
        // What a smaller batch leaves behind has waited as long as the batch has.
        let since = if rows < limits.rows { self.since } else { Some(now) };
        self.since = since.filter(|_| !self.records.is_empty());
        Some(batch)
    }

    fn take_front(&mut self, limits: &Limits, rows: usize) -> Vec<Record> {
        if self.records.len() <= rows && self.bytes <= limits.bytes {
            self.bytes = 0;
            return mem::take(&mut self.records);
        }
        let (mut count, mut bytes) = (0, 0);
        for record in self.records.iter().take(rows) {
            let cost = cost(record);
            // One always fits, however large.
            if count > 0 && bytes + cost > limits.bytes {
                break;
            }
            count += 1;
            bytes += cost;
        }
        let rest = self.records.split_off(count);
        self.bytes -= bytes.min(self.bytes);
        mem::replace(&mut self.records, rest)
    }

    /// Puts the records from that offset on back in front; they are due at once.
    pub(super) fn put_back(
        &mut self,
        now: Timestamp,
        limits: &Limits,
        records: Vec<Record>,
        from: i64,
    ) {
        let mut all: Vec<Record> =
            records.into_iter().filter(|record| record.offset >= from).collect();
        all.append(&mut self.records);
        self.bytes = all.iter().map(cost).sum();
        self.records = all;
        self.since = Some(Timestamp(now.0.saturating_sub(limits.linger_us)));
    }
}

fn cost(record: &Record) -> usize {
    record.byte_count() + RECORD_OVERHEAD
}
