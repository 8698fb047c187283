//! Which streams are put aside, and how the one that stops a batch is found: refusals -> smaller
//! batches -> one stream.
//!
//! A batch that is refused is halved by offset, so that whatever can be applied is applied on the
//! way and nothing is tried out of order; a store or a fold that can name the event saves the
//! halving. The stream of the event that is refused alone is parked, and all later events of that
//! stream go behind it untried.

use std::collections::BTreeMap;

use hashbrown::HashMap;

use super::Refusal;
use crate::kernel::message::Record;
use crate::kernel::projection::{Batch, Cause, Held, Parked};
use crate::kernel::stream::parse_event_key;

/// The parked streams of one partition, and the search for the next one.
#[derive(Debug)]
pub(super) struct Parking {
    /// Each with the offset of its first parked event.
    streams: HashMap<String, i64>,
    /// The events that were found, by offset, until they are put aside for good.
    found: BTreeMap<i64, Found>,
    search: Option<Search>,
    /// The most rows of a batch: fewer after a refusal, doubled by each batch that goes well.
    rows: usize,
    rows_max: usize,
    streams_max: usize,
}

#[derive(Clone, Debug)]
struct Found {
    cause: Cause,
    error: String,
    attempts: u32,
}

/// Somewhere in front of `end` stands an event that is refused.
#[derive(Debug)]
struct Search {
    end: i64,
    suspect: Option<i64>,
    refusals: u32,
    /// How many rows the first batch had that was refused.
    rows: usize,
}

/// What a refusal led to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Try again: a smaller batch, or without the stream that was found.
    TryAgain,
    /// As many streams are parked as may be.
    Full,
    /// What is refused cannot be put aside: it has no stream, or the store does not take it as a
    /// parked event either.
    Hopeless,
}

impl Parking {
    pub(super) fn new(rows_max: usize, streams_max: usize) -> Self {
        let streams = HashMap::new();
        let found = BTreeMap::new();
        Self { streams, found, search: None, rows: rows_max, rows_max, streams_max }
    }

    /// Takes over what the store holds, of streams that were parked in front of that offset: the
    /// others will be read again from their first parked event on.
    pub(super) fn load(&mut self, held: &Held, before: i64) {
        let stay = held.parked.iter().filter(|(_, first)| **first < before);
        self.streams = stay.map(|(stream, first)| (stream.clone(), *first)).collect();
    }

    /// Forgets the search: what was being looked for may come from elsewhere now.
    pub(super) fn forget_search(&mut self) {
        self.search = None;
        self.found.clear();
    }

    /// Holds on to the streams of a batch that will be tried again as it is.
    pub(super) fn keep(&mut self, batch: &Batch) {
        for record in batch.parked.iter().map(|parked| &parked.record) {
            if let Some(stream) = stream_of(record) {
                let first = self.streams.entry_ref(stream).or_insert(record.offset);
                *first = record.offset.min(*first);
            }
        }
    }

    pub(super) fn len(&self) -> usize {
        self.streams.len()
    }

    pub(super) fn contains(&self, stream: &str) -> bool {
        self.streams.contains_key(stream)
    }

    pub(super) fn remove(&mut self, stream: &str) {
        self.streams.remove(stream);
    }

    /// How many rows the next batch may have; `before` counts records in front of an offset.
    pub(super) fn next_rows(&self, before: impl Fn(i64) -> usize) -> usize {
        let Some(search) = &self.search else { return self.rows };
        let all = before(search.end).max(1);
        match search.suspect.map(before) {
            Some(0) => 1,
            Some(count) => count.min(all),
            None => (all / 2).max(1),
        }
    }

    /// Parts records into what is applied and what is put aside.
    pub(super) fn part(&self, records: Vec<Record>) -> (Vec<Record>, Vec<Parked>) {
        if self.streams.is_empty() {
            return (records, Vec::new());
        }
        let mut apply = Vec::with_capacity(records.len());
        let mut parked = Vec::new();
        for record in records {
            // What stands before a stream's first parked event may be read again; the tombstone
            // of an erased event changes nothing.
            let first = stream_of(&record).and_then(|stream| self.streams.get(stream));
            let is_parked =
                record.value.is_some() && first.is_some_and(|first| *first <= record.offset);
            if is_parked {
                parked.push(self.put_aside(record));
            } else {
                apply.push(record);
            }
        }
        (apply, parked)
    }

    fn put_aside(&self, record: Record) -> Parked {
        if let Some(found) = self.found.get(&record.offset).cloned() {
            let Found { cause, error, attempts } = found;
            return Parked { record, cause, error, attempts };
        }
        let error = "an earlier event of its stream is parked".to_owned();
        Parked { record, cause: Cause::BehindParked, error, attempts: 0 }
    }

    /// Narrows the search down, or parks the stream that was found.
    pub(super) fn refused(&mut self, batch: &Batch, refusal: &Refusal) -> Verdict {
        let rows = batch.records.len();
        let search = self.search.get_or_insert(Search {
            end: batch.end(),
            suspect: None,
            refusals: 0,
            rows,
        });
        search.end = batch.end();
        search.refusals = search.refusals.saturating_add(1);
        let is_within = |offset: &i64| batch.records.iter().any(|record| record.offset == *offset);
        search.suspect = refusal.suspect.filter(is_within);
        match batch.records.as_slice() {
            [] => Verdict::Hopeless,
            [record] => {
                let attempts = search.refusals;
                search.suspect = Some(record.offset);
                let verdict = self.park(record, refusal.cause, &refusal.reason, attempts);
                // What was found before is put aside first, if this one has no room.
                let is_first = batch.parked_before(record.offset).next().is_none();
                if is_first || verdict != Verdict::Full { verdict } else { Verdict::TryAgain }
            }
            _ => Verdict::TryAgain,
        }
    }

    /// Parks the stream of an event that is known to be the one.
    pub(super) fn park(
        &mut self,
        record: &Record,
        cause: Cause,
        error: &str,
        attempts: u32,
    ) -> Verdict {
        let Some(stream) = stream_of(record) else { return Verdict::Hopeless };
        if self.streams.len() >= self.streams_max {
            return Verdict::Full;
        }
        self.streams.insert(stream.to_owned(), record.offset);
        self.found.insert(record.offset, Found { cause, error: error.to_owned(), attempts });
        if let Some(search) = self.search.take() {
            self.rows = (search.rows / 2).clamp(1, self.rows_max);
        }
        Verdict::TryAgain
    }

    /// A batch went in up to that offset.
    pub(super) fn applied(&mut self, next_offset: i64) {
        self.found = self.found.split_off(&next_offset);
        let Some(search) = &mut self.search else {
            self.rows = self.rows.saturating_mul(2).min(self.rows_max);
            return;
        };
        if next_offset >= search.end {
            // It went away by itself.
            self.search = None;
        } else if search.suspect.is_some_and(|suspect| suspect < next_offset) {
            search.suspect = None;
        }
    }
}

/// The stream that a record belongs to.
pub(super) fn stream_of(record: &Record) -> Option<&str> {
    parse_event_key(record.key.as_deref()?).map(|(stream, _)| stream)
}
