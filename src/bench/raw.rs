//! The raw limit of a handler: commands -> one event-sized and one result-sized record each, the
//! position and the offset, in the same transactions; no decoding, no decision, no state.
//!
//! Runs in a process of its own, with the consumer, the producer, the threads and the batch of a
//! real handler. What it writes are copies of records that a real handler wrote, sizes, headers and
//! all; only an event's key is the command's id, so that whoever measures can tell them apart.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::thread::JoinHandle;
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};

use super::Error;
use super::child::READY;
use super::ground::names;
use crate::config::Config;
use crate::engine::position::Position;
use crate::kernel::message::{Headers, Outgoing, Record};
use crate::kernel::stream::{Kind, POSITION_KEY};
use crate::log::kafka::group::{ConsumerGroupMetadata, Member, Place, Rebalance};
use crate::log::kafka::partition_reader::{PartitionReader, Start};
use crate::log::kafka::reader::{Begin, ReaderPool};
use crate::log::kafka::transaction::{End, InputOffset, TransactionalProducer};

/// As many as a real lane's.
const QUEUED_MAX: usize = 10_000;
const POLL: Duration = Duration::from_millis(50);
const STOP_CHECK: Duration = Duration::from_millis(100);
/// How many different records are taken as patterns of each kind.
const PATTERNS: usize = 10_000;
/// As long as the metadata that a handler commits.
const METADATA: &str = "millrace1;MkU3OEVBNTcwNTJENDM2Qg;000000;0123456789abcdef";

/// What passes through, and where from.
pub struct Passage {
    /// The topic that is read, namespace included.
    pub commands: String,
    /// The namespace whose events and results are the patterns.
    pub patterns: crate::kernel::stream::Namespace,
    /// The most commands in one transaction.
    pub batch: usize,
    /// Whether only what comes from now on passes.
    pub from_end: bool,
}

/// Passes commands through until it is told to stop.
///
/// # Errors
/// Kafka does not answer, or a transaction fails: a raw limit with retries is none.
pub fn run(config: &Config, passage: &Passage, stop: &Arc<AtomicBool>) -> Result<(), Error> {
    let patterns = Arc::new(Patterns::read(config, &passage.patterns)?);
    let group = config.namespace.dotted("millrace.handler.banking");
    let assigned = Arc::new(Assigned::default());
    let rebalance = Rebalancer(Arc::clone(&assigned));
    let member = Member::join(&config.kafka, &group, None, &[&passage.commands], rebalance)?;
    let member = Arc::new(member);
    let mut lanes: HashMap<i32, (Sender<Record>, JoinHandle<()>)> = HashMap::new();
    let failed: Arc<Mutex<Option<Error>>> = Arc::default();
    while !stop.load(Ordering::Acquire) {
        for place in assigned.take() {
            let start = if passage.from_end { Start::End } else { Start::Beginning };
            let mut reader = PartitionReader::open(&config.kafka, &place.0, place.1, start)?;
            let (offset, _) = reader.go_to(&place.0, place.1, start)?;
            let lane = RawLane {
                producer: TransactionalProducer::open(
                    &config.kafka,
                    &format!("{group}.{}.{}", place.0, place.1),
                )?,
                member: Arc::downgrade(&member),
                place: place.clone(),
                batch: passage.batch,
                topics: names(&config.namespace),
                patterns: Arc::clone(&patterns),
                stop: Arc::clone(stop),
            };
            let (give, take) = bounded(QUEUED_MAX);
            let failed = Arc::clone(&failed);
            let thread = std::thread::spawn(move || {
                let stop = Arc::clone(&lane.stop);
                if let Err(error) = lane.run(&take) {
                    *failed.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
                    stop.store(true, Ordering::Release);
                }
            });
            lanes.insert(place.1, (give, thread));
            let started = member.start_reading(&place, offset);
            started.map_err(|error| Error::Wrong(format!("seeking {place:?}: {error}")))?;
            tracing::info!(partition = place.1, offset, "{READY}");
        }
        let polled = member.poll(POLL, |_, partition, record| {
            if let Some((lane, _)) = lanes.get(&partition) {
                // A lane that has failed has said so.
                let _ = lane.send(record);
            }
        });
        if let Err(error) = polled {
            tracing::warn!(%error, "consumer error");
        }
    }
    for (_, (lane, thread)) in lanes {
        drop(lane);
        let _ = thread.join();
    }
    let failed = failed.lock().unwrap_or_else(PoisonError::into_inner).take();
    failed.map_or(Ok(()), Err)
}

#[derive(Default)]
struct Assigned(Mutex<Vec<Place>>);

impl Assigned {
    fn take(&self) -> Vec<Place> {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

struct Rebalancer(Arc<Assigned>);

impl Rebalance for Rebalancer {
    fn assigned(&self, places: Vec<Place>) {
        self.0.0.lock().unwrap_or_else(PoisonError::into_inner).extend(places);
    }

    fn revoked(&self, _places: &[Place], _lost: bool) {
        // One process alone: partitions go when it does.
    }
}

/// What a handler wrote, to be written again.
struct Patterns {
    events: Vec<Outgoing>,
    results: Vec<Outgoing>,
}

impl Patterns {
    fn read(config: &Config, namespace: &crate::kernel::stream::Namespace) -> Result<Self, Error> {
        let names = names(namespace);
        let pool = ReaderPool::new(&config.kafka, 1);
        let read = |topic: &str, kind: Kind| -> Result<Vec<Outgoing>, Error> {
            let mut found: Vec<Outgoing> = Vec::with_capacity(PATTERNS);
            pool.read_to_end(topic, 0, Begin::Oldest, |records| {
                found.extend(records.into_iter().map(|record| Outgoing {
                    kind,
                    key: record.key.map(Vec::from),
                    value: record.value.map(Vec::from),
                    headers: record.headers,
                }));
                found.len() < PATTERNS
            })?;
            if found.is_empty() {
                return Err(Error::Wrong(format!("{topic} holds no record to copy")));
            }
            Ok(found)
        };
        Ok(Self {
            events: read(&names.events, Kind::Events)?,
            results: read(&names.results, Kind::Results)?,
        })
    }
}

struct RawLane {
    producer: TransactionalProducer,
    member: Weak<Member<Rebalancer>>,
    place: Place,
    batch: usize,
    topics: super::ground::Names,
    patterns: Arc<Patterns>,
    stop: Arc<AtomicBool>,
}

impl RawLane {
    /// Takes what has arrived, up to a batch, and writes it; nothing is put together twice.
    fn run(&self, inbox: &Receiver<Record>) -> Result<(), Error> {
        let mut records: Vec<Outgoing> = Vec::with_capacity(self.batch * 2 + 1);
        let patterns = self.patterns.events.iter().zip(&self.patterns.results).cycle();
        for (event, result) in patterns.take(self.batch) {
            records.push(event.clone());
            records.push(result.clone());
        }
        records.push(position());
        let mut batch = Vec::with_capacity(self.batch);
        while !self.stop.load(Ordering::Acquire) {
            match inbox.recv_timeout(STOP_CHECK) {
                Ok(record) => batch.push(record),
                Err(RecvTimeoutError::Timeout) => continue,
                Err(RecvTimeoutError::Disconnected) => return Ok(()),
            }
            while batch.len() < self.batch {
                match inbox.try_recv() {
                    Ok(record) => batch.push(record),
                    Err(_) => break,
                }
            }
            self.pass(&mut records, &batch)?;
            batch.clear();
        }
        Ok(())
    }

    fn pass(&self, records: &mut [Outgoing], batch: &[Record]) -> Result<(), Error> {
        let Some(last) = batch.last() else { return Ok(()) };
        for (pair, command) in records.chunks_mut(2).zip(batch) {
            if let (Some(key), Some(id)) = (&mut pair[0].key, command.headers.get("ce_id")) {
                key.clear();
                key.extend_from_slice(id);
            }
        }
        let count = batch.len() * 2;
        // The position stands at the end: as the last of a smaller batch it changes places.
        records.swap(count, self.batch * 2);
        let input = InputOffset {
            topic: self.place.0.clone(),
            partition: self.place.1,
            next_offset: last.offset + 1,
            metadata: METADATA.to_owned(),
        };
        let group = || -> Option<ConsumerGroupMetadata> { self.member.upgrade()?.metadata() };
        let topic = |record: &Outgoing| match record.kind {
            Kind::Results => self.topics.results.as_str(),
            Kind::Snapshots => &self.topics.snapshots,
            Kind::Events | Kind::Commands | Kind::DeadLetters | Kind::Timers => &self.topics.events,
        };
        let sent = &records[..=count];
        let begun = self.producer.begin(&input, group);
        let written = begun.and_then(|()| self.producer.write(self.place.1, sent, None, topic));
        let end = written.map_or_else(|end| end, |()| self.producer.commit());
        records.swap(count, self.batch * 2);
        match end {
            End::Committed(_) => Ok(()),
            End::Aborted(reason) | End::Unknown(reason) => {
                Err(Error::Wrong(format!("a raw transaction failed: {reason}")))
            }
        }
    }
}

fn position() -> Outgoing {
    Outgoing {
        kind: Kind::Snapshots,
        key: Some(POSITION_KEY.to_vec()),
        value: Some(Position::default().to_bytes()),
        headers: Headers::default(),
    }
}
