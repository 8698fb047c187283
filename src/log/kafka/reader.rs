//! Reads a partition from some place to its end, as it stands under read_committed.
//!
//! The end is the partition-EOF event and nothing else: offsets have holes (markers, aborts,
//! compaction), so no arithmetic tells it.

use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::{Offset, TopicPartitionList};

use super::client::{self, Quiet};
use super::convert::to_record;
use super::{CALL_TIMEOUT, Error};
use crate::config;
use crate::kernel::message::Record;
use crate::kernel::time::Timestamp;

/// The most records that are handed over at a time.
const CHUNK: usize = 2_000;
const POLL: Duration = Duration::from_millis(100);
/// A reader that hears nothing at all for so long says so instead of waiting for ever.
const SILENCE_MAX: Duration = Duration::from_secs(30);

/// Where reading begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Begin {
    /// At the oldest record.
    Oldest,
    /// At the first record since that moment.
    Moment(Timestamp),
    /// At that offset.
    Offset(i64),
}

/// Long-lived readers, handed out one at a time each: making one costs threads and a second.
#[expect(clippy::module_name_repetitions, reason = "it is used without its module's name")]
pub struct ReaderPool {
    kafka: config::Kafka,
    give: Sender<Option<BaseConsumer<Quiet>>>,
    take: Receiver<Option<BaseConsumer<Quiet>>>,
}

impl ReaderPool {
    /// Makes a pool of at most that many readers; each is made when it is first needed.
    #[must_use]
    pub fn new(kafka: &config::Kafka, size: usize) -> Self {
        let (give, take) = bounded(size.max(1));
        for _ in 0..size.max(1) {
            // The channel has just that room.
            let _ = give.try_send(None);
        }
        Self { kafka: kafka.clone(), give, take }
    }

    /// The oldest offset of a partition, and the one behind its newest committed record. `None` if
    /// every reader is busy.
    ///
    /// # Errors
    /// The brokers do not answer.
    pub fn ends(&self, topic: &str, partition: i32) -> Result<Option<(i64, i64)>, Error> {
        let Ok(place) = self.take.try_recv() else { return Ok(None) };
        let opened = match place {
            Some(reader) => Ok(reader),
            None => client::consumer(&client::end_reader(&self.kafka), Quiet),
        };
        let found = opened.and_then(|reader| Ok((ends(&reader, topic, partition)?, reader)));
        match found {
            Ok((found, reader)) => {
                let _ = self.give.try_send(Some(reader));
                Ok(Some(found))
            }
            Err(error) => {
                let _ = self.give.try_send(None);
                Err(error)
            }
        }
    }

    /// Reads a partition to its end, handing records to `sink` chunk by chunk.
    ///
    /// `sink` returns whether to go on. From an offset that the partition does not hold there is
    /// nothing to read. Returns whether the end was reached.
    ///
    /// # Errors
    /// The brokers do not answer. What was handed over stays handed over: start again from the
    /// beginning.
    pub fn read_to_end(
        &self,
        topic: &str,
        partition: i32,
        from: Begin,
        mut sink: impl FnMut(Vec<Record>) -> bool,
    ) -> Result<bool, Error> {
        let place = loop {
            match self.take.recv_timeout(POLL) {
                Ok(place) => break place,
                Err(RecvTimeoutError::Timeout) if sink(Vec::new()) => {}
                Err(RecvTimeoutError::Timeout) => return Ok(false),
                Err(RecvTimeoutError::Disconnected) => {
                    let reason = "the pool of readers is closed";
                    return Err(Error::Unexpected(reason.to_owned()));
                }
            }
        };
        let reader = match place {
            Some(reader) => reader,
            None => match client::consumer(&client::end_reader(&self.kafka), Quiet) {
                Ok(reader) => reader,
                Err(error) => {
                    let _ = self.give.try_send(None);
                    return Err(error);
                }
            },
        };
        let outcome = read(&reader, topic, partition, from, sink);
        let clean = reader.unassign().is_ok() && outcome.is_ok();
        let _ = self.give.try_send(clean.then_some(reader));
        outcome
    }
}

fn read(
    reader: &BaseConsumer<Quiet>,
    topic: &str,
    partition: i32,
    from: Begin,
    mut sink: impl FnMut(Vec<Record>) -> bool,
) -> Result<bool, Error> {
    let place = || format!("{topic} partition {partition}");
    let mut assignment = TopicPartitionList::new();
    let start = match from {
        Begin::Oldest => Offset::Beginning,
        Begin::Moment(since) => offset_at(reader, topic, partition, since)?,
        Begin::Offset(offset) => {
            let (low, high) = ends(reader, topic, partition)?;
            if !(low..high).contains(&offset) {
                return Ok(true);
            }
            Offset::Offset(offset)
        }
    };
    assignment
        .add_partition_offset(topic, partition, start)
        .map_err(Error::call(format!("reading {}", place())))?;
    reader.assign(&assignment).map_err(Error::call(format!("reading {}", place())))?;
    let mut chunk = Vec::new();
    let mut heard = Instant::now();
    loop {
        match reader.poll(POLL) {
            Some(Ok(message)) => {
                heard = Instant::now();
                chunk.push(to_record(&message));
                if chunk.len() >= CHUNK && !sink(std::mem::take(&mut chunk)) {
                    return Ok(false);
                }
            }
            Some(Err(KafkaError::PartitionEOF(at))) if at == partition => {
                return Ok(chunk.is_empty() || sink(chunk));
            }
            Some(Err(KafkaError::PartitionEOF(_))) => {}
            Some(Err(source)) if is_transient(&source) => {}
            Some(Err(source)) => return Err(Error::call(format!("reading {}", place()))(source)),
            None => {
                // Nothing to read but no end either: hand over what there is, and ask whether
                // anybody still wants the rest.
                if !sink(std::mem::take(&mut chunk)) {
                    return Ok(false);
                }
            }
        }
        if heard.elapsed() > SILENCE_MAX {
            return Err(Error::Unexpected(format!("no word from the brokers on {}", place())));
        }
    }
}

/// The oldest offset of a partition, and the one behind its newest committed record.
fn ends(reader: &BaseConsumer<Quiet>, topic: &str, partition: i32) -> Result<(i64, i64), Error> {
    reader
        .fetch_watermarks(topic, partition, CALL_TIMEOUT)
        .map_err(Error::call(format!("asking for the ends of {topic} partition {partition}")))
}

/// Connections come and go; librdkafka reports that and goes on by itself.
fn is_transient(error: &KafkaError) -> bool {
    use rdkafka::error::RDKafkaErrorCode as Code;
    matches!(
        error.rdkafka_error_code(),
        Some(Code::BrokerTransportFailure | Code::AllBrokersDown | Code::OperationTimedOut)
    )
}

fn offset_at(
    reader: &BaseConsumer<Quiet>,
    topic: &str,
    partition: i32,
    since: Timestamp,
) -> Result<Offset, Error> {
    let what = || format!("looking up offsets of {topic} partition {partition}");
    let mut times = TopicPartitionList::new();
    times
        .add_partition_offset(topic, partition, Offset::Offset(since.millis().max(0)))
        .map_err(Error::call(what()))?;
    let found = reader.offsets_for_times(times, CALL_TIMEOUT).map_err(Error::call(what()))?;
    let element = found.find_partition(topic, partition);
    if let Some(element) = &element {
        // Else an error would read as "nothing since then", and answers would be forgotten.
        element.error().map_err(Error::call(what()))?;
    }
    Ok(match element.map(|element| element.offset()) {
        Some(Offset::Offset(offset)) => Offset::Offset(offset),
        _ => Offset::End,
    })
}
