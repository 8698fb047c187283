//! For load generators: records out without waiting for each, and several partitions read as one.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rdkafka::client::ClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{DeliveryResult, Message};
use rdkafka::producer::{BaseRecord, Producer, ProducerContext, ThreadedProducer};
use rdkafka::{Offset, TopicPartitionList};

use super::client::{self, Quiet};
use super::convert::{to_owned_headers, to_record};
use super::{CALL_TIMEOUT, Error};
use crate::config;
use crate::kernel::message::{Headers, Record};

const FULL_NAP: Duration = Duration::from_micros(200);
const DRAIN_NAP: Duration = Duration::from_millis(1);
/// The longest that the brokers may take for what was sent.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(60);

/// Sends records, in order, without waiting for their acknowledgements.
pub struct Feed {
    producer: ThreadedProducer<Failures>,
    failures: Failures,
}

/// Keeps the first failed delivery.
#[derive(Clone, Default)]
struct Failures(Arc<Mutex<Option<String>>>);

impl ClientContext for Failures {}

impl ProducerContext for Failures {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): Self::DeliveryOpaque) {
        if let Err((error, message)) = result {
            let text = format!("{} partition {}: {error}", message.topic(), message.partition());
            self.0.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(text);
        }
    }
}

impl Feed {
    /// Makes the producer.
    ///
    /// # Errors
    /// The brokers do not answer.
    pub fn open(kafka: &config::Kafka) -> Result<Self, Error> {
        let failures = Failures::default();
        let mut options = client::crossing_producer(kafka);
        options.set("message.timeout.ms", FLUSH_TIMEOUT.as_millis().to_string());
        Ok(Self { producer: client::threaded_producer(&options, failures.clone())?, failures })
    }

    /// Hands a record over; waits only while the client's queue is full.
    ///
    /// # Errors
    /// The client refuses it, or the brokers have refused an earlier one.
    pub fn send(
        &self,
        topic: &str,
        partition: i32,
        key: &[u8],
        value: &[u8],
        headers: &Headers,
    ) -> Result<(), Error> {
        let mut record: BaseRecord<'_, [u8], [u8]> = BaseRecord::to(topic)
            .partition(partition)
            .key(key)
            .payload(value)
            .headers(to_owned_headers(headers));
        loop {
            match self.producer.send(record) {
                Ok(()) => return Ok(()),
                Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), back)) => {
                    record = back;
                    self.check()?;
                    std::thread::sleep(FULL_NAP);
                }
                Err((source, _)) => {
                    return Err(Error::call(format!("sending to {topic}"))(source));
                }
            }
        }
    }

    /// Waits until everything is acknowledged.
    ///
    /// # Errors
    /// The brokers refused a record, or did not take it in time.
    pub fn flush(&self) -> Result<(), Error> {
        let deadline = Instant::now() + FLUSH_TIMEOUT;
        while self.producer.in_flight_count() > 0 {
            if Instant::now() > deadline {
                return Err(Error::Unexpected("the brokers do not take the load".to_owned()));
            }
            std::thread::sleep(DRAIN_NAP);
        }
        self.check()
    }

    fn check(&self) -> Result<(), Error> {
        let failed = self.failures.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        failed.map_or(Ok(()), |reason| Err(Error::Unexpected(format!("sending failed: {reason}"))))
    }
}

/// Reads the committed records of all of a topic's partitions from their ends on.
pub struct Tail {
    consumer: BaseConsumer<Quiet>,
}

impl Tail {
    /// Stands at the end of every partition when it returns.
    ///
    /// # Errors
    /// The brokers do not answer, or the topic does not exist.
    pub fn open(kafka: &config::Kafka, topic: &str, partitions: i32) -> Result<Self, Error> {
        let failed = || Error::call(format!("reading the end of {topic}"));
        let consumer = client::consumer(&client::end_reader(kafka), Quiet)?;
        let mut list = TopicPartitionList::new();
        for partition in 0..partitions {
            let marks = consumer.fetch_watermarks(topic, partition, CALL_TIMEOUT);
            let (_, end) = marks.map_err(failed())?;
            list.add_partition_offset(topic, partition, Offset::Offset(end)).map_err(failed())?;
        }
        consumer.assign(&list).map_err(failed())?;
        Ok(Self { consumer })
    }

    /// The next record with its partition; `None` if none came in time.
    ///
    /// # Errors
    /// The brokers refuse.
    pub fn next(&self, timeout: Duration) -> Result<Option<(i32, Record)>, Error> {
        match self.consumer.poll(timeout) {
            Some(Ok(message)) => Ok(Some((message.partition(), to_record(&message)))),
            None | Some(Err(KafkaError::PartitionEOF(_))) => Ok(None),
            Some(Err(source)) => Err(Error::call("reading the end of a topic")(source)),
        }
    }
}
