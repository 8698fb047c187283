//! One pass over a partition of the log: records -> of each stream, the fold of its row, digests of
//! its other rows, and whether anything looks wrong.
//!
//! It keeps at most so many streams: those whose hashes are lowest. Whoever is left out is so from
//! his first event to his last, because the limit only ever falls; so what is kept is whole. What
//! was left out is the next pass's, or, of a sample, nobody's.

use std::collections::{HashMap, HashSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::time::{Duration, Instant};

use uuid::Uuid;

use super::banking::snapshot::Snapshot;
use super::banking::{Aggregate, Fold, account, event};
use super::cell::Digest;
use super::fact::{Decoders, Fact, Writers, stream_and_sequence};
use super::snapshots::Found;
use super::{Progress, Rest};
use crate::kernel::message::Record;
use crate::kernel::stream::partition_of;
use crate::log::kafka::Error;
use crate::log::kafka::partition_reader::{Next, PartitionReader, Start};

/// The longest wait for the next record.
const READ_TIMEOUT: Duration = Duration::from_secs(30);
/// How long, and how often, events are waited for that a snapshot tells of.
const LATE_PAUSE: Duration = Duration::from_millis(50);
const LATE_TRIES: u32 = 40;
/// How many records are read between two rests.
const RECORDS_AT_ONCE: u64 = 2_000;

/// What a partition is compared up to.
#[derive(Clone, Debug)]
pub(super) struct Part {
    pub(super) aggregate: Aggregate,
    pub(super) topic: String,
    pub(super) topic_id: Uuid,
    pub(super) partition: i32,
    pub(super) count: i32,
    /// The offset behind the log's last record.
    pub(super) end: i64,
    /// Where the last 30 days begin, for Postgres.
    pub(super) recent_from: i64,
    /// Postgres has what lies before it.
    pub(super) postgres: Option<i64>,
    /// ClickHouse has what lies before it.
    pub(super) clickhouse: Option<i64>,
    /// The first parked event of a stream, in Postgres and in ClickHouse.
    pub(super) parked: [HashMap<String, u64>; 2],
}

impl Part {
    /// Whether Postgres must have that event.
    pub(super) fn in_postgres(&self, fact: &Fact) -> bool {
        self.postgres.is_some_and(|cut| fact.offset < cut) && !self.is_parked(0, fact)
    }

    /// Whether ClickHouse must have that event.
    pub(super) fn in_clickhouse(&self, fact: &Fact) -> bool {
        self.clickhouse.is_some_and(|cut| fact.offset < cut) && !self.is_parked(1, fact)
    }

    fn is_parked(&self, store: usize, fact: &Fact) -> bool {
        let parked = &self.parked[store];
        !parked.is_empty() && parked.get(&fact.stream).is_some_and(|first| fact.sequence >= *first)
    }
}

/// Which streams are kept.
#[derive(Clone, Debug)]
pub(super) struct Choice {
    /// Only these.
    pub(super) ids: Option<Arc<HashSet<String>>>,
    /// Hashes from here.
    pub(super) from: u64,
    /// Up to here, not included; `None` is to the last.
    pub(super) to: Option<u64>,
    /// How many at most.
    pub(super) max: usize,
    /// Whether those that are left out are nobody's.
    pub(super) is_sample: bool,
    pub(super) salt: u64,
}

impl Choice {
    pub(super) fn takes(&self, id: &str) -> bool {
        let hash = self.hash(id);
        self.ids.as_ref().is_none_or(|ids| ids.contains(id))
            && hash >= self.from
            && self.to.is_none_or(|to| hash < to)
    }

    fn hash(&self, id: &str) -> u64 {
        let mut hasher = DefaultHasher::new();
        (self.salt, id).hash(&mut hasher);
        hasher.finish()
    }
}

/// What is known of a stream.
#[derive(Debug, Default)]
pub(super) struct Stream {
    /// The sequence of its last event.
    pub(super) last: u64,
    /// How many records it has.
    pub(super) records: u64,
    /// Whether it must be looked at in full.
    pub(super) is_suspect: bool,
    /// Whether its events were erased: nothing is expected of it.
    pub(super) is_erased: bool,
    /// Its row, as far as the log goes.
    fold: Option<Fold>,
    /// Its row where Postgres stands, if that is not the same.
    frozen: Option<Fold>,
    /// The offset of the last event that Postgres has.
    pub(super) applied: Option<i64>,
    pub(super) transactions: [Digest; 2],
    pub(super) events: [Digest; 2],
    pub(super) has_row: bool,
    snapshot: Option<Snapshot>,
}

impl Stream {
    /// Its row where Postgres stands; `None` if there is to be none.
    pub(super) fn row(&self) -> Option<&Fold> {
        let fold = self.frozen.as_ref().or(self.fold.as_ref());
        fold.filter(|fold| fold.version() > 0)
    }
}

/// The pass itself.
pub(super) struct Pass {
    pub(super) part: Arc<Part>,
    pub(super) choice: Choice,
    pub(super) streams: HashMap<String, Stream>,
    pub(super) snapshots: HashMap<String, Found>,
    /// Records whose key is no event's: offset and what it is.
    pub(super) strange: Vec<(i64, String)>,
    pub(super) events: u64,
    /// Streams whose snapshot tells of more events than were read yet.
    waiting: HashSet<String>,
}

impl Pass {
    pub(super) fn new(part: Arc<Part>, choice: Choice, found: &HashMap<String, Found>) -> Self {
        let ours = found.iter().filter(|(id, _)| choice.takes(id));
        let snapshots: HashMap<String, Found> =
            ours.map(|(id, found)| (id.clone(), found.clone())).collect();
        let waiting = snapshots.keys().cloned().collect();
        let (streams, strange) = (HashMap::new(), Vec::new());
        Self { part, choice, streams, snapshots, strange, events: 0, waiting }
    }

    /// Reads the partition from its beginning to the end that was taken down, and further only
    /// where a snapshot tells of more.
    pub(super) fn read(
        &mut self,
        reader: &mut PartitionReader,
        writers: &Writers,
        rest: Rest,
        progress: &Progress,
    ) -> Result<(), Error> {
        let decoders = writers.decoders();
        let part = Arc::clone(&self.part);
        let (begin, _) = reader.go_to(&part.topic, part.partition, Start::Beginning)?;
        let length = u64::try_from(part.end - begin).unwrap_or_default();
        let (mut tries, mut has_ended) = (0, false);
        let mut pace = Pace::new(rest);
        loop {
            let timeout = if has_ended { LATE_PAUSE } else { READ_TIMEOUT };
            match reader.next(timeout)? {
                Next::Record(record) if record.offset < part.end || !self.waiting.is_empty() => {
                    if pace.counts() {
                        let done = u64::try_from(record.offset - begin).unwrap_or_default();
                        progress(done.min(length), length);
                    }
                    self.take(&record, &decoders);
                }
                Next::Record(_) => break,
                // A snapshot may be seen a moment before its events are.
                Next::End(_) | Next::Nothing if self.waiting.is_empty() || tries >= LATE_TRIES => {
                    break;
                }
                Next::End(_) => has_ended = true,
                Next::Nothing if has_ended => tries += 1,
                Next::Nothing => {
                    let topic = &part.topic;
                    return Err(Error::Unexpected(format!("nothing came from {topic}")));
                }
            }
        }
        progress(length, length);
        self.finish();
        Ok(())
    }

    fn take(&mut self, record: &Record, decoders: &Decoders<'_>) {
        let key = record.key.as_deref().unwrap_or_default();
        let Some((id, sequence)) = stream_and_sequence(key) else {
            if self.choice.from == 0 && self.strange.len() < 1_000 && self.choice.ids.is_none() {
                self.strange.push((record.offset, String::from_utf8_lossy(key).into_owned()));
            }
            return;
        };
        if !self.choice.takes(id) {
            return;
        }
        if !self.streams.contains_key(id) {
            self.shrink();
            if !self.choice.takes(id) {
                return;
            }
        }
        self.events += 1;
        let Self { part, streams, snapshots, waiting, .. } = self;
        let stream = streams.entry(id.to_owned()).or_default();
        stream.records += 1;
        if record.value.is_none() {
            stream.is_erased = true;
            stream.last = stream.last.max(sequence);
            waiting.remove(id);
            return;
        }
        stream.is_suspect |=
            sequence != stream.last + 1 || partition_of(id, part.count) != part.partition;
        if sequence <= stream.last {
            return;
        }
        stream.last = sequence;
        let fact = decoders.read(record).and_then(|mut fact| {
            if part.aggregate.events().contains(&fact.name.as_str()) {
                decoders.fill(&mut fact, record)?;
            }
            Ok(fact)
        });
        match fact {
            Ok(fact) => stream.take(part, &fact, snapshots, waiting),
            Err(_) => stream.is_suspect = true,
        }
    }

    /// Makes room for a new stream: leaves out those with the highest hashes.
    fn shrink(&mut self) {
        let room = if self.choice.is_sample { self.choice.max * 2 } else { self.choice.max };
        if self.streams.len() < room.max(1) {
            return;
        }
        let kept = if self.choice.is_sample { self.choice.max } else { self.choice.max / 2 };
        self.keep(kept.max(1));
    }

    fn keep(&mut self, count: usize) {
        if self.streams.len() <= count {
            return;
        }
        let mut hashes: Vec<u64> = self.streams.keys().map(|id| self.choice.hash(id)).collect();
        let (_, to, _) = hashes.select_nth_unstable(count);
        self.choice.to = Some(*to);
        let choice = &self.choice;
        self.streams.retain(|id, _| choice.takes(id));
        self.snapshots.retain(|id, _| choice.takes(id));
        self.waiting.retain(|id| choice.takes(id));
    }

    fn finish(&mut self) {
        if self.choice.is_sample {
            self.keep(self.choice.max);
            // Of a sample, only what the log has is looked at.
            let streams = &self.streams;
            self.snapshots.retain(|id, _| streams.contains_key(id));
        }
        for (id, found) in &self.snapshots {
            let stream = self.streams.entry(id.clone()).or_default();
            let version = found.snapshot.as_ref().map_or(0, |snapshot| snapshot.version);
            let is_older = version < found.highest;
            stream.is_suspect |= is_older || found.snapshot.is_err() || self.waiting.contains(id);
        }
        for stream in self.streams.values_mut() {
            stream.is_suspect &= !stream.is_erased;
        }
    }
}

impl Stream {
    fn take(
        &mut self,
        part: &Part,
        fact: &Fact,
        snapshots: &HashMap<String, Found>,
        waiting: &mut HashSet<String>,
    ) {
        if self.fold.is_none() {
            self.fold = Fold::new(part.aggregate, part.recent_from);
        }
        if let Some(Fold::Account(account)) = &self.fold {
            self.is_suspect |= !account.check(fact).is_empty();
        }
        if part.in_postgres(fact) {
            self.applied = Some(fact.offset);
            if part.aggregate == Aggregate::Account
                && let Some(row) = account::transaction(fact)
            {
                self.transactions[0].add(&row);
            }
        } else if part.postgres.is_some() && self.frozen.is_none() {
            self.frozen = self.fold.clone();
        }
        if let Some(fold) = &mut self.fold {
            fold.take(fact);
        }
        if part.in_clickhouse(fact)
            && let Some(row) = event::row(part.aggregate, fact, part.topic_id, part.partition)
        {
            self.events[0].add(&row);
        }
        if waiting.contains(&fact.stream) {
            self.meet(part, fact, snapshots, waiting);
        }
    }

    /// Compares with the stream's snapshot once its version is reached.
    fn meet(
        &mut self,
        part: &Part,
        fact: &Fact,
        snapshots: &HashMap<String, Found>,
        waiting: &mut HashSet<String>,
    ) {
        let own = self.snapshot.get_or_insert_with(|| Snapshot::new(part.aggregate));
        own.take(fact);
        let found = snapshots.get(&fact.stream).map(|found| &found.snapshot);
        let Some(Ok(found)) = found else {
            waiting.remove(&fact.stream);
            return;
        };
        if own.version >= found.version {
            self.is_suspect |= !own.compare(found).is_empty();
            self.snapshot = None;
            waiting.remove(&fact.stream);
        }
    }
}

/// Rests now and then, so that others have the machine too.
struct Pace {
    rest: Rest,
    count: u64,
    since: Instant,
}

impl Pace {
    fn new(rest: Rest) -> Self {
        Self { rest, count: 0, since: Instant::now() }
    }

    /// Counts a record; `true` now and then.
    fn counts(&mut self) -> bool {
        self.count += 1;
        if !self.count.is_multiple_of(RECORDS_AT_ONCE) {
            return false;
        }
        if let Rest::Times(times) = self.rest {
            std::thread::sleep(self.since.elapsed() * times);
            self.since = Instant::now();
        }
        true
    }
}
