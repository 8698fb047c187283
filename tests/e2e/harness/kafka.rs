//! Kafka as a foreign client sees it: librdkafka with its own defaults, no partition named.

use std::ffi::{CStr, CString};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::message::{Header, Headers as _, Message as _, OwnedHeaders};
use rdkafka::producer::{FutureProducer, FutureRecord, Producer as _};
use rdkafka::{Offset, TopicPartitionList};

use super::namespace::{Namespace, Stack};

/// How long reading may stand still.
const READ_TIMEOUT: Duration = Duration::from_secs(30);

/// A record to be sent.
#[derive(Clone, Debug, Default)]
pub(crate) struct Message {
    pub(crate) key: Option<Vec<u8>>,
    pub(crate) value: Option<Vec<u8>>,
    pub(crate) headers: Vec<(String, Vec<u8>)>,
    /// `None`: librdkafka's default partitioner chooses.
    pub(crate) partition: Option<i32>,
}

impl Message {
    pub(crate) fn new(key: &str, value: impl Into<Vec<u8>>) -> Self {
        Self { key: Some(key.into()), value: Some(value.into()), ..Self::default() }
    }

    pub(crate) fn header(mut self, name: &str, value: impl AsRef<[u8]>) -> Self {
        self.headers.push((name.to_owned(), value.as_ref().to_vec()));
        self
    }
}

/// Where a record stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Place {
    pub(crate) partition: i32,
    pub(crate) offset: i64,
}

/// A client that writes. While nothing of it is acknowledged for long, it is told where the brokers
/// are once more: a lone broker that comes back from a pause names no broker at all in its
/// metadata, and librdkafka then knows none for five minutes.
pub(crate) struct Producer(Arc<FutureProducer>);

/// How long nothing may be acknowledged.
const SILENCE_MAX: Duration = Duration::from_secs(5);

fn keep(producer: &Weak<FutureProducer>, brokers: &CStr) {
    let (mut waiting, mut since) = (0, Instant::now());
    loop {
        std::thread::sleep(Duration::from_millis(500));
        let Some(producer) = producer.upgrade() else { return };
        let now = producer.in_flight_count();
        if now == 0 || now != waiting {
            (waiting, since) = (now, Instant::now());
        } else if since.elapsed() > SILENCE_MAX {
            since = Instant::now();
            let client = producer.client().native_ptr();
            #[expect(unsafe_code, reason = "rdkafka has no safe call for it")]
            // SAFETY: the handle lives as long as the producer, the text outlives the call.
            unsafe {
                rdkafka::bindings::rd_kafka_brokers_add(client, brokers.as_ptr());
            }
        }
    }
}

impl Producer {
    pub(crate) fn new(stack: &Stack) -> Self {
        Self::with(stack, &[])
    }

    /// A client that sets more than its library does.
    pub(crate) fn with(stack: &Stack, settings: &[(&str, &str)]) -> Self {
        let mut config = stack.kafka();
        config.set("message.max.bytes", "8388608").set("linger.ms", "0");
        for (key, value) in settings {
            config.set(*key, *value);
        }
        let producer = Arc::new(config.create().unwrap());
        let (kept, brokers) = (Arc::downgrade(&producer), CString::new(&*stack.brokers).unwrap());
        std::thread::spawn(move || keep(&kept, &brokers));
        Self(producer)
    }

    /// Sends one after the other, and waits until Kafka has them all.
    pub(crate) fn send(&self, topic: &str, messages: &[Message]) -> Vec<Place> {
        let sending: Vec<_> = messages.iter().map(|message| self.start(topic, message)).collect();
        let sent = futures::executor::block_on(futures::future::join_all(sending));
        sent.into_iter()
            .map(|delivered| {
                let delivery = delivered.unwrap().unwrap_or_else(|(error, _)| panic!("{error}"));
                Place { partition: delivery.partition, offset: delivery.offset }
            })
            .collect()
    }

    /// Sends one and does not wait; librdkafka sees to it.
    pub(crate) fn send_off(&self, topic: &str, message: &Message) {
        drop(self.start(topic, message));
    }

    fn start(&self, topic: &str, message: &Message) -> rdkafka::producer::DeliveryFuture {
        let headers = message.headers.iter().fold(OwnedHeaders::new(), |headers, (key, value)| {
            headers.insert(Header { key, value: Some(value) })
        });
        let mut record: FutureRecord<'_, Vec<u8>, Vec<u8>> =
            FutureRecord::to(topic).headers(headers);
        record.key = message.key.as_ref();
        record.payload = message.value.as_ref();
        record.partition = message.partition;
        match self.0.send_result(record) {
            Ok(sending) => sending,
            Err((error, _)) => panic!("{topic}: {error}"),
        }
    }
}

/// A record that was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Record {
    pub(crate) place: Place,
    pub(crate) key: Option<Vec<u8>>,
    pub(crate) value: Option<Vec<u8>>,
    pub(crate) headers: Vec<(String, Option<Vec<u8>>)>,
}

impl Record {
    /// A header's text.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let (_, value) = self.headers.iter().find(|(found, _)| found == name)?;
        std::str::from_utf8(value.as_deref()?).ok()
    }

    fn new(message: &rdkafka::message::BorrowedMessage<'_>) -> Self {
        let headers = message.headers().map(|headers| {
            let one = |header: Header<'_, &[u8]>| {
                (header.key.to_owned(), header.value.map(<[u8]>::to_vec))
            };
            headers.iter().map(one).collect()
        });
        Self {
            place: Place { partition: message.partition(), offset: message.offset() },
            key: message.key().map(<[u8]>::to_vec),
            value: message.payload().map(<[u8]>::to_vec),
            headers: headers.unwrap_or_default(),
        }
    }
}

/// Reads a topic from its start, as far as it goes, again and again.
pub(crate) struct Reader {
    consumer: BaseConsumer,
    partitions: usize,
}

impl Reader {
    pub(crate) fn new(namespace: &Namespace, topic: &str) -> Self {
        let consumer: BaseConsumer = namespace
            .stack
            .kafka()
            .set("group.id", format!("{}.reader", namespace.name))
            .set("enable.auto.commit", "false")
            .set("isolation.level", "read_committed")
            .set("enable.partition.eof", "true")
            .set("auto.offset.reset", "earliest")
            .set("fetch.wait.max.ms", "20")
            .set("fetch.queue.backoff.ms", "5")
            .create()
            .unwrap();
        let metadata = consumer.fetch_metadata(Some(topic), Duration::from_secs(10)).unwrap();
        let mut list = TopicPartitionList::new();
        for partition in metadata.topics()[0].partitions() {
            list.add_partition_offset(topic, partition.id(), Offset::Beginning).unwrap();
        }
        consumer.assign(&list).unwrap();
        Self { consumer, partitions: list.count() }
    }

    /// The next record; `None` at a partition's end.
    fn next(&self, wait: Duration) -> Option<Result<Record, i32>> {
        match self.consumer.poll(wait)? {
            Ok(message) => Some(Ok(Record::new(&message))),
            Err(KafkaError::PartitionEOF(partition)) => Some(Err(partition)),
            Err(error) => panic!("{error}"),
        }
    }

    /// Every record from where it stands to the ends of all partitions.
    pub(crate) fn to_end(&self) -> Vec<Record> {
        let mut records = Vec::new();
        self.each_to_end(|record| records.push(record));
        records
    }

    /// As [`Reader::to_end`], for who need not keep them.
    pub(crate) fn each_to_end(&self, mut take: impl FnMut(Record)) {
        let mut ended = std::collections::BTreeSet::new();
        while ended.len() < self.partitions {
            match self.next(READ_TIMEOUT).expect("a record, or the end of a partition") {
                Ok(record) => take(record),
                Err(partition) => drop(ended.insert(partition)),
            }
        }
    }

    /// What comes within that time.
    pub(crate) fn poll(&self, wait: Duration) -> Option<Record> {
        self.next(wait).and_then(Result::ok)
    }
}

/// Everything in a topic that is committed.
pub(crate) fn read_all(namespace: &Namespace, topic: &str) -> Vec<Record> {
    Reader::new(namespace, topic).to_end()
}

/// Where a group stands, by partition; -1 where it has committed nothing.
pub(crate) fn committed(namespace: &Namespace, group: &str, topic: &str) -> Vec<i64> {
    let consumer: BaseConsumer = namespace.stack.kafka().set("group.id", group).create().unwrap();
    let mut list = TopicPartitionList::new();
    for partition in 0..namespace.partitions {
        list.add_partition(topic, partition);
    }
    let committed = consumer.committed_offsets(list, Duration::from_secs(30)).unwrap();
    let offset = |offset: Offset| match offset {
        Offset::Offset(offset) => offset,
        _ => -1,
    };
    committed.elements().iter().map(|element| offset(element.offset())).collect()
}

/// Where Java's default partitioner, and so the owner of an aggregate, puts a key.
pub(crate) fn own_partition(key: &[u8], count: i32) -> i32 {
    (murmur2(key) & 0x7fff_ffff).cast_signed() % count
}

fn murmur2(data: &[u8]) -> u32 {
    const M: u32 = 0x5bd1_e995;
    let mut hash = 0x9747_b28c ^ u32::try_from(data.len()).unwrap();
    let mut chunks = data.chunks_exact(4);
    for chunk in &mut chunks {
        let mut k = u32::from_le_bytes(chunk.try_into().unwrap()).wrapping_mul(M);
        k = (k ^ (k >> 24)).wrapping_mul(M);
        hash = hash.wrapping_mul(M) ^ k;
    }
    let rest = chunks.remainder();
    if !rest.is_empty() {
        for (index, byte) in rest.iter().enumerate() {
            hash ^= u32::from(*byte) << (8 * index);
        }
        hash = hash.wrapping_mul(M);
    }
    hash = (hash ^ (hash >> 13)).wrapping_mul(M);
    hash ^ (hash >> 15)
}
