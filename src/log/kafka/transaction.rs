//! Transactions of one partition's owner: offset, records -> committed, aborted or open.
//!
//! | step | why so |
//! |---|---|
//! | offset first | avoids a fixed 20 ms retry, and blocks a new owner's `committed()` |
//! | flush before commit | with messages in flight, rdkafka's commit costs a flat 100 ms |
//! | a deadline on every call | an abort has blocked for 72 s after a broker's crash |

use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rdkafka::client::ClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::ConsumerGroupMetadata;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{DeliveryResult, Message};
use rdkafka::producer::{BaseProducer, Producer, ProducerContext};
use rdkafka::{Offset, TopicPartitionList};

use super::{Error, client, ffi};
use crate::config;
use crate::kernel::message::Outgoing;
use crate::kernel::stream::Kind;

/// The longest that fencing off an older owner may take before it is tried with a new producer. It
/// takes less than a second; what takes long is a client that lost sight of the brokers.
const INIT_TIMEOUT: Duration = Duration::from_secs(10);
const OFFSETS_TIMEOUT: Duration = Duration::from_secs(10);
const DRAIN_TIMEOUT: Duration = Duration::from_secs(20);
const COMMIT_TIMEOUT: Duration = Duration::from_secs(15);
const ABORT_TIMEOUT: Duration = Duration::from_secs(10);
/// How long the producer's thread waits for something to pass on before it looks whether to stop.
const SERVE: Duration = Duration::from_millis(100);
/// How often the drain yields before it sleeps instead.
const DRAIN_YIELDS: u32 = 50;
const DRAIN_SLEEP: Duration = Duration::from_micros(50);

/// How a transaction ended.
#[derive(Debug)]
pub enum End {
    /// Everything is written; the offset of the marked record, if the brokers have said.
    Committed(Option<i64>),
    /// Nothing is written, for certain.
    Aborted(String),
    /// One or the other, and only the committed offset can tell; the producer is of no use now.
    Unknown(String),
}

/// Where the input's position goes.
#[derive(Clone, Debug)]
pub struct InputOffset {
    /// The commands topic.
    pub topic: String,
    /// Its partition.
    pub partition: i32,
    /// The next record to read.
    pub next_offset: i64,
    /// What stands beside it.
    pub metadata: String,
}

/// The transactional producer of one partition.
pub struct TransactionalProducer {
    producer: Arc<BaseProducer<Deliveries>>,
    deliveries: Deliveries,
    stop: Arc<AtomicBool>,
    /// Serves what the producer has to tell.
    thread: Option<JoinHandle<()>>,
}

/// Keeps the first failed delivery of a transaction, and where its marked record came to stand.
#[derive(Clone, Default)]
struct Deliveries(Arc<Delivered>);

struct Delivered {
    failed: Mutex<Option<String>>,
    marked: AtomicI64,
}

/// No offset yet, or none that anybody knows.
const NOWHERE: i64 = -1;
/// What the marked record carries through the client; all others carry nothing.
const MARK: usize = 1;

impl Default for Delivered {
    fn default() -> Self {
        Self { failed: Mutex::default(), marked: AtomicI64::new(NOWHERE) }
    }
}

impl Deliveries {
    fn take_in(&self, mark: usize, delivery: ffi::Delivery) {
        match delivery {
            Ok(offset) if mark == MARK => {
                self.0.marked.fetch_max(offset, Ordering::AcqRel);
            }
            Ok(_) => {}
            Err(reason) => {
                let failed = &self.0.failed;
                failed.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(reason);
            }
        }
    }

    fn take_failed(&self) -> Option<String> {
        self.0.failed.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    fn take_marked(&self) -> Option<i64> {
        Some(self.0.marked.swap(NOWHERE, Ordering::AcqRel)).filter(|offset| *offset >= 0)
    }
}

impl ClientContext for Deliveries {
    fn error(&self, error: KafkaError, reason: &str) {
        client::log_error(&error, reason);
    }
}

impl ProducerContext for Deliveries {
    type DeliveryOpaque = usize;

    fn delivery(&self, result: &DeliveryResult<'_>, mark: Self::DeliveryOpaque) {
        // Only what is told while the producer is taken down comes this way.
        let delivery = match result {
            Ok(message) => Ok(message.offset()),
            Err((error, _)) => Err(error.to_string()),
        };
        self.take_in(mark, delivery);
    }
}

impl TransactionalProducer {
    /// Makes the producer and fences off every older one with the same id.
    ///
    /// # Errors
    /// The brokers do not answer, or refuse.
    pub fn open(kafka: &config::Kafka, transactional_id: &str) -> Result<Self, Error> {
        let config: ClientConfig = client::transactional_producer(kafka, transactional_id);
        let deliveries = Deliveries::default();
        let producer = Arc::new(client::base_producer(&config, deliveries.clone())?);
        let stop = Arc::new(AtomicBool::new(false));
        let thread = {
            let (producer, deliveries, stop) =
                (Arc::clone(&producer), deliveries.clone(), Arc::clone(&stop));
            std::thread::Builder::new().name("producer".to_owned()).spawn(move || {
                while !stop.load(Ordering::Acquire) {
                    ffi::serve(producer.client(), SERVE, |mark, delivery| {
                        deliveries.take_in(mark, delivery);
                    });
                }
            })
        };
        let thread =
            thread.map_err(|error| Error::Unexpected(format!("cannot start a thread: {error}")))?;
        let opened = Self { producer, deliveries, stop, thread: Some(thread) };
        opened
            .producer
            .init_transactions(INIT_TIMEOUT)
            .map_err(Error::call(format!("fencing {transactional_id}")))?;
        Ok(opened)
    }

    /// Begins a transaction with the input's offset.
    ///
    /// `group` gives the group's metadata if we are a member in good standing.
    ///
    /// # Errors
    /// How the transaction ended already.
    pub fn begin(
        &self,
        input: &InputOffset,
        group: impl FnOnce() -> Option<ConsumerGroupMetadata>,
    ) -> Result<(), End> {
        self.deliveries.take_failed();
        self.deliveries.take_marked();
        self.producer
            .begin_transaction()
            .map_err(|error| End::Unknown(format!("begin: {error}")))?;
        let Some(group) = group() else {
            return Err(self.abort("not a member of the group at the moment".to_owned()));
        };
        let offsets = offsets(input).map_err(|error| self.abort(format!("offset: {error}")))?;
        self.producer
            .send_offsets_to_transaction(&offsets, &group, OFFSETS_TIMEOUT)
            .map_err(|error| self.after_error("sending the offset", &error))
    }

    /// Hands records over for the transaction that was begun; what becomes of them is known when it
    /// ends.
    ///
    /// `topic` names the topic of a record, the same for all of a kind; the end tells the offset of
    /// the last record that was `marked`.
    ///
    /// # Errors
    /// How the transaction ended already.
    pub fn write<'t>(
        &self,
        partition: i32,
        records: &[Outgoing],
        marked: Option<usize>,
        topic: impl Fn(&Outgoing) -> &'t str,
    ) -> Result<(), End> {
        self.send(records, topic, partition, marked)
            .map_err(|error| self.after_error("sending a record", &error))
    }

    /// Commits, once everything has arrived.
    pub fn commit(&self) -> End {
        if !self.drain() {
            return self.abort("the brokers did not take the records in time".to_owned());
        }
        if let Some(failed) = self.deliveries.take_failed() {
            return self.abort(failed);
        }
        self.commit_drained()
    }

    /// Ends whatever the group still holds open for this producer, by aborting a transaction that
    /// has nothing but an offset in it.
    ///
    /// Brokers that were killed while a transaction was being committed have come back with its
    /// marker written everywhere but beside the group's offsets (seen on Kafka 4.3): the offset is
    /// then pending until the same producer's next marker, and nobody is told what it is. After
    /// this the group has the offset of some transaction before: no witness of the last one.
    ///
    /// # Errors
    /// The brokers do not answer, or refuse: make a new producer.
    pub fn end_what_is_open(
        &self,
        input: &InputOffset,
        group: &ConsumerGroupMetadata,
    ) -> Result<(), Error> {
        let failed = || Error::call("aborting what the group holds open");
        self.producer.begin_transaction().map_err(failed())?;
        let offsets = offsets(input).map_err(failed())?;
        let sent = self.producer.send_offsets_to_transaction(&offsets, group, OFFSETS_TIMEOUT);
        sent.map_err(failed())?;
        self.producer.abort_transaction(ABORT_TIMEOUT).map_err(failed())
    }

    fn send<'t>(
        &self,
        records: &[Outgoing],
        topic: impl Fn(&Outgoing) -> &'t str,
        partition: i32,
        marked: Option<usize>,
    ) -> Result<(), KafkaError> {
        let mut outlets: Vec<(Kind, ffi::Outlet<'_>)> = Vec::new();
        for (index, record) in records.iter().enumerate() {
            let place = match outlets.iter().position(|(kind, _)| *kind == record.kind) {
                Some(place) => place,
                None => {
                    let outlet = ffi::Outlet::open(self.producer.client(), topic(record))?;
                    outlets.push((record.kind, outlet));
                    outlets.len() - 1
                }
            };
            let mark = if marked == Some(index) { MARK } else { 0 };
            send_one(&outlets[place].1, partition, record, mark)?;
        }
        Ok(())
    }

    fn drain(&self) -> bool {
        let deadline = Instant::now() + DRAIN_TIMEOUT;
        if !ffi::flush(self.producer.client(), DRAIN_TIMEOUT) {
            return false;
        }
        // What failed is still to be reported, by the producer's own thread.
        let mut yields = 0;
        while self.producer.in_flight_count() > 0 {
            if yields < DRAIN_YIELDS {
                yields += 1;
                std::thread::yield_now();
            } else if Instant::now() > deadline {
                return false;
            } else {
                std::thread::sleep(DRAIN_SLEEP);
            }
        }
        true
    }

    fn commit_drained(&self) -> End {
        let deadline = Instant::now() + COMMIT_TIMEOUT;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let Err(error) = self.producer.commit_transaction(left) else {
                return End::Committed(self.deliveries.take_marked());
            };
            let KafkaError::Transaction(reason) = &error else {
                return End::Unknown(format!("commit: {error}"));
            };
            if reason.txn_requires_abort() {
                return self.abort(format!("commit: {error}"));
            }
            if !reason.is_retriable() || reason.is_fatal() || left.is_zero() {
                return End::Unknown(format!("commit: {error}"));
            }
        }
    }

    /// An error before the commit: abort if the producer still can.
    fn after_error(&self, what: &str, error: &KafkaError) -> End {
        let reason = format!("{what}: {error}");
        let is_fatal = matches!(error, KafkaError::Transaction(cause) if cause.is_fatal());
        if is_fatal || self.producer.client().fatal_error().is_some() {
            return End::Unknown(reason);
        }
        self.abort(reason)
    }

    /// Aborts; the reason is told on.
    pub fn abort(&self, reason: String) -> End {
        // What is still queued would only be sent to be thrown away.
        self.producer.purge(rdkafka::producer::PurgeConfig::default().queue().inflight());
        match self.producer.abort_transaction(ABORT_TIMEOUT) {
            Ok(()) => End::Aborted(reason),
            Err(error) => End::Unknown(format!("{reason}; abort: {error}")),
        }
    }
}

impl Drop for TransactionalProducer {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("a producer's thread broke");
        }
    }
}

/// Hands a record over; waits only while the client's queue is full.
fn send_one(
    outlet: &ffi::Outlet<'_>,
    partition: i32,
    record: &Outgoing,
    mark: usize,
) -> Result<(), KafkaError> {
    let mut full_since: Option<Instant> = None;
    loop {
        match outlet.send(partition, record, mark) {
            Ok(()) => return Ok(()),
            Err(RDKafkaErrorCode::QueueFull)
                if full_since.get_or_insert_with(Instant::now).elapsed() < DRAIN_TIMEOUT =>
            {
                std::thread::sleep(DRAIN_SLEEP);
            }
            Err(code) => return Err(KafkaError::MessageProduction(code)),
        }
    }
}

fn offsets(input: &InputOffset) -> Result<TopicPartitionList, KafkaError> {
    let mut offsets = TopicPartitionList::new();
    let mut element = offsets.add_partition(&input.topic, input.partition);
    element.set_offset(Offset::Offset(input.next_offset))?;
    element.set_metadata(&input.metadata);
    Ok(offsets)
}
