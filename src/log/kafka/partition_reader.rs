//! One partition, from some place on -> committed records in order, and where its end is.
//!
//! For the doors (command line, HTTP): it joins no group, commits nothing and blocks its thread.

use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::types::RDKafkaErrorCode;
use rdkafka::{Offset, TopicPartitionList};

use super::client::{self, Quiet};
use super::{CALL_TIMEOUT, Error, convert};
use crate::config;
use crate::kernel::message::Record;

/// The time between two questions to a partition that has no leader.
const LEADER_WAIT: Duration = Duration::from_millis(50);

/// Where to begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// At the oldest record.
    Beginning,
    /// At this offset, or the next one that there is.
    At(i64),
    /// Behind the newest record.
    End,
}

/// What came next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Next {
    /// A record.
    Record(Box<Record>),
    /// There is nothing more at the moment; the next record will have this offset or a higher one.
    End(i64),
    /// Nothing happened in the time given.
    Nothing,
}

/// Reads one partition of one topic.
pub struct PartitionReader {
    consumer: BaseConsumer<Quiet>,
    topic: String,
    partition: i32,
    /// What reading began with, by offset.
    begin: i64,
}

impl PartitionReader {
    /// Opens a partition. The end, if that is the start, is fixed when this returns: a record that
    /// is sent afterwards will be read.
    ///
    /// # Errors
    /// The brokers do not answer, or the topic does not exist.
    pub fn open(
        kafka: &config::Kafka,
        topic: &str,
        partition: i32,
        start: Start,
    ) -> Result<Self, Error> {
        let consumer = client::consumer(&client::end_reader(kafka), Quiet)?;
        let mut reader = Self { consumer, topic: topic.to_owned(), partition, begin: 0 };
        reader.go_to(topic, partition, start)?;
        Ok(reader)
    }

    /// Leaves its partition for another one, or for another place in it. Returns the offset where
    /// reading begins, and the one behind the newest committed record.
    ///
    /// # Errors
    /// As [`PartitionReader::open`].
    pub fn go_to(
        &mut self,
        topic: &str,
        partition: i32,
        start: Start,
    ) -> Result<(i64, i64), Error> {
        topic.clone_into(&mut self.topic);
        self.partition = partition;
        let (low, high) = self.watermarks()?;
        // For a reader of committed records the end is the last stable offset: what a transaction
        // that is under way has sent counts as new.
        self.begin = match start {
            Start::Beginning => low,
            Start::At(offset) => offset.max(low),
            Start::End => high,
        };
        let mut list = TopicPartitionList::new();
        list.add_partition_offset(topic, partition, Offset::Offset(self.begin))
            .map_err(Error::call(format!("naming {topic}/{partition}")))?;
        self.consumer
            .assign(&list)
            .map_err(Error::call(format!("assigning {topic}/{partition}")))?;
        Ok((self.begin, high))
    }

    /// The offset of the oldest record, and the one behind the newest that is committed.
    ///
    /// # Errors
    /// The brokers do not answer, or the topic does not exist.
    pub fn watermarks(&self) -> Result<(i64, i64), Error> {
        let deadline = Instant::now() + CALL_TIMEOUT;
        let found = loop {
            let found = self.consumer.fetch_watermarks(&self.topic, self.partition, CALL_TIMEOUT);
            match found {
                // A topic that was made this moment: its leader does not know yet that it is.
                Err(error) if has_no_leader(&error) && Instant::now() < deadline => {
                    std::thread::sleep(LEADER_WAIT);
                }
                found => break found,
            }
        };
        found.map_err(|source| match source.rdkafka_error_code() {
            Some(
                RDKafkaErrorCode::UnknownTopicOrPartition | RDKafkaErrorCode::UnknownPartition,
            ) => Error::NoTopic(self.topic.clone()),
            Some(_) | None => Error::Call {
                action: format!("asking for the ends of {}/{}", self.topic, self.partition),
                source,
            },
        })
    }

    /// Waits for the next record, the end, or the time to pass.
    ///
    /// # Errors
    /// The place to read from does not exist, or the brokers refuse.
    pub fn next(&mut self, timeout: Duration) -> Result<Next, Error> {
        let deadline = Instant::now() + timeout;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.consumer.poll(left) {
                None => return Ok(Next::Nothing),
                Some(Ok(message)) => {
                    return Ok(Next::Record(Box::new(convert::to_record(&message))));
                }
                Some(Err(KafkaError::PartitionEOF(at))) if at == self.partition => {
                    return Ok(Next::End(self.position()?));
                }
                // Of a partition that was left.
                Some(Err(KafkaError::PartitionEOF(_))) => {}
                Some(Err(error)) if is_passing(&error) => {
                    tracing::debug!(topic = self.topic, %error, "the broker is away, waiting");
                }
                Some(Err(source)) => {
                    return Err(Error::Call {
                        action: format!("reading {}/{}", self.topic, self.partition),
                        source,
                    });
                }
            }
        }
    }

    /// Reads everything up to the end and hands each record on, until `visit` says stop.
    ///
    /// # Errors
    /// As [`PartitionReader::next`]; or nothing comes for the longest time of a call.
    pub fn to_end(&mut self, mut visit: impl FnMut(Record) -> Visit) -> Result<(), Error> {
        loop {
            match self.next(CALL_TIMEOUT)? {
                Next::Record(record) => {
                    if visit(*record) == Visit::Stop {
                        return Ok(());
                    }
                }
                Next::End(_) => return Ok(()),
                Next::Nothing => {
                    return Err(Error::Unexpected(format!(
                        "nothing came from {}/{} in {} s: is the broker running?",
                        self.topic,
                        self.partition,
                        CALL_TIMEOUT.as_secs()
                    )));
                }
            }
        }
    }

    fn position(&self) -> Result<i64, Error> {
        let list = self
            .consumer
            .position()
            .map_err(Error::call(format!("asking where {} is", self.topic)))?;
        let found = list.find_partition(&self.topic, self.partition);
        Ok(match found.map(|element| element.offset()) {
            Some(Offset::Offset(offset)) => offset,
            // Nothing was read yet.
            Some(_) | None => self.begin,
        })
    }
}

/// Whether to go on with the next record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Visit {
    /// Go on.
    Continue,
    /// That was enough.
    Stop,
}

/// Whether the partition's leader is not in office yet, or not any more.
fn has_no_leader(error: &KafkaError) -> bool {
    use RDKafkaErrorCode as Code;
    let code = error.rdkafka_error_code();
    matches!(code, Some(Code::NotLeaderForPartition | Code::LeaderNotAvailable))
}

/// Whether librdkafka tries again by itself.
fn is_passing(error: &KafkaError) -> bool {
    use RDKafkaErrorCode as Code;
    matches!(
        error.rdkafka_error_code(),
        Some(
            Code::BrokerTransportFailure
                | Code::AllBrokersDown
                | Code::Resolve
                | Code::OperationTimedOut
                | Code::NotLeaderForPartition
                | Code::LeaderNotAvailable
        )
    )
}
