//! One record after the other -> its partition, acknowledged. For the doors: command line, HTTP.

use std::time::Duration;

use rdkafka::config::FromClientConfigAndContext;
use rdkafka::producer::{FutureProducer, FutureRecord, Producer};
use rdkafka::util::Timeout;
use uuid::Uuid;

use super::client::{self, Quiet, RECORD_BYTES_MAX};
use super::{CALL_TIMEOUT, Error, convert, ffi};
use crate::config;
use crate::kernel::message::Headers;

/// Sends single records.
#[derive(Clone)]
pub struct Sender {
    producer: FutureProducer<Quiet>,
}

/// Where a record stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// The partition.
    pub partition: i32,
    /// The offset.
    pub offset: i64,
}

impl Sender {
    /// Connects.
    ///
    /// # Errors
    /// The options are wrong, or no broker answers.
    pub fn open(kafka: &config::Kafka) -> Result<Self, Error> {
        let mut options = client::base(kafka);
        options
            .set("enable.idempotence", "true")
            .set("acks", "all")
            .set("linger.ms", "0")
            .set("message.max.bytes", RECORD_BYTES_MAX.to_string())
            // Whoever waits at a door is told after this long.
            .set("message.timeout.ms", CALL_TIMEOUT.as_millis().to_string());
        let producer = FutureProducer::from_config_and_context(&options, Quiet)
            .map_err(Error::call("creating a producer"))?;
        let metadata = producer.client().fetch_metadata(None, CALL_TIMEOUT);
        client::answered(&options, metadata)?;
        Ok(Self { producer })
    }

    /// The number of partitions of a topic.
    ///
    /// # Errors
    /// The topic does not exist, or the brokers do not answer.
    pub fn partition_count(&self, topic: &str) -> Result<i32, Error> {
        let metadata = self.producer.client().fetch_metadata(Some(topic), CALL_TIMEOUT);
        let metadata = metadata.map_err(Error::call(format!("looking for {topic}")))?;
        let count = metadata.topics().first().map_or(0, |found| found.partitions().len());
        match i32::try_from(count) {
            Ok(count) if count > 0 => Ok(count),
            Ok(_) | Err(_) => Err(Error::NoTopic(topic.to_owned())),
        }
    }

    /// The ids of topics, in order; `None` for one that does not exist. Blocks.
    ///
    /// # Errors
    /// The brokers do not answer.
    pub fn topic_ids(&self, topics: &[&str]) -> Result<Vec<Option<Uuid>>, Error> {
        ffi::topic_ids(self.producer.client(), topics, CALL_TIMEOUT)
    }

    /// Sends a record and waits until the brokers have it.
    ///
    /// # Errors
    /// They do not take it in time, or refuse it.
    pub async fn send(
        &self,
        topic: &str,
        partition: i32,
        key: &[u8],
        value: &[u8],
        headers: &Headers,
    ) -> Result<Place, Error> {
        let record = FutureRecord::to(topic)
            .partition(partition)
            .key(key)
            .payload(value)
            .headers(convert::to_owned_headers(headers));
        // The queue of a single sender is never full for long.
        let queue_timeout = Timeout::After(Duration::from_secs(1));
        let sent = self.producer.send(record, queue_timeout).await;
        sent.map(|place| Place { partition: place.partition, offset: place.offset }).map_err(
            |(source, _)| Error::Call {
                action: format!("sending to {topic} partition {partition}"),
                source,
            },
        )
    }
}
