//! A stream's events straight from the log: a few readers, kept for the next question.

use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{Semaphore, mpsc};
use uuid::Uuid;

use crate::config;
use crate::kernel::message::Record;
use crate::kernel::stream::{parse_event_key, partition_of};
use crate::log::kafka::Error;
use crate::log::kafka::partition_reader::{PartitionReader, Start, Visit};
use crate::log::kafka::sender::Sender;

/// How many partitions are read at once.
const READERS_MAX: usize = 4;
/// How many events wait to be looked at while the next ones are read.
const WAITING_MAX: usize = 1_000;

/// Where a stream's events are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) topic: String,
    pub(super) topic_id: Uuid,
    pub(super) partition: i32,
}

/// A way to the log.
#[derive(Clone)]
pub(super) struct Log {
    kafka: config::Kafka,
    sender: Arc<Mutex<Option<Sender>>>,
    /// A reader stays with its topic: the end of a partition that was left names no topic.
    idle: Arc<Mutex<Vec<(String, PartitionReader)>>>,
    turns: Arc<Semaphore>,
}

impl Log {
    pub(super) fn new(kafka: &config::Kafka) -> Self {
        Self {
            kafka: kafka.clone(),
            sender: Arc::default(),
            idle: Arc::default(),
            turns: Arc::new(Semaphore::new(READERS_MAX)),
        }
    }

    /// Finds the partition of a stream.
    ///
    /// # Errors
    /// The brokers do not answer, or there is no such topic.
    pub(super) async fn place(&self, topic: &str, id: &str) -> Result<Place, Error> {
        let (kafka, known) = (self.kafka.clone(), Arc::clone(&self.sender));
        let (topic, id) = (topic.to_owned(), id.to_owned());
        blocking(move || {
            let lock = || known.lock().unwrap_or_else(PoisonError::into_inner);
            let sender = lock().clone();
            let sender = sender.map_or_else(|| Sender::open(&kafka), Ok)?;
            lock().get_or_insert_with(|| sender.clone());
            let partition = partition_of(&id, sender.partition_count(&topic)?);
            let found = sender.topic_ids(&[&topic])?.into_iter().flatten().next();
            let topic_id = found.ok_or_else(|| Error::NoTopic(topic.clone()))?;
            Ok(Place { topic, topic_id, partition })
        })
        .await
    }

    /// Hands out the stream's events from an offset on, to the end of what is committed now. The
    /// channel is closed at the end; what went wrong comes last.
    pub(super) fn read(
        &self,
        place: &Place,
        id: &str,
        start: Start,
    ) -> mpsc::Receiver<Result<(u64, Record), Error>> {
        let (give, take) = mpsc::channel(WAITING_MAX);
        let (log, place, id) = (self.clone(), place.clone(), id.to_owned());
        tokio::spawn(async move {
            let Ok(_turn) = log.turns.acquire().await else { return };
            let (reading, events) = (log.clone(), give.clone());
            let read = blocking(move || reading.read_to_end(&place, &id, start, &events)).await;
            if let Err(error) = read {
                // Nobody may be there any more.
                let _ = give.send(Err(error)).await;
            }
        });
        take
    }

    fn read_to_end(
        &self,
        place: &Place,
        id: &str,
        start: Start,
        events: &mpsc::Sender<Result<(u64, Record), Error>>,
    ) -> Result<(), Error> {
        let idle = || self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        let known = {
            let mut idle = idle();
            let at = idle.iter().position(|(topic, _)| *topic == place.topic);
            at.map(|at| idle.swap_remove(at).1)
        };
        let mut is_whole = true;
        let mut reader = match known {
            Some(mut reader) => {
                let (begin, end) = reader.go_to(&place.topic, place.partition, start)?;
                if begin >= end {
                    idle().push((place.topic.clone(), reader));
                    return Ok(());
                }
                reader
            }
            None => PartitionReader::open(&self.kafka, &place.topic, place.partition, start)?,
        };
        reader.to_end(|record| {
            let key = record.key.as_deref().and_then(parse_event_key);
            let sequence = key.and_then(|(found, sequence)| (found == id).then_some(sequence));
            let Some(sequence) = sequence else { return Visit::Continue };
            // It is closed when nobody wants the rest.
            is_whole = events.blocking_send(Ok((sequence, record))).is_ok();
            if is_whole { Visit::Continue } else { Visit::Stop }
        })?;
        let mut idle = idle();
        if is_whole && idle.len() < READERS_MAX {
            idle.push((place.topic.clone(), reader));
        }
        Ok(())
    }
}

/// Runs what blocks on a thread of its own.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|error| Error::Unexpected(format!("a thread broke: {error}")))?
}
