//! What Kafka knows about a partition's place: group, topic, partition -> committed, log, ids.

use std::time::Duration;

use uuid::Uuid;

use crate::config;
use crate::engine::reset_protocol::{Committed, Position};
use crate::kernel::projection::Held;
use crate::log::kafka::Error;
use crate::log::kafka::group::{Place, Witness};
use crate::log::kafka::partition_reader::{Next, PartitionReader, Start};

/// How long to wait for one record when looking between two offsets.
const LOOK_TIMEOUT: Duration = Duration::from_secs(10);

/// Asks about partitions without being a member of the group.
pub(super) struct Positions {
    kafka: config::Kafka,
    witness: Witness,
    cluster_id: String,
}

impl Positions {
    /// Connects, and checks that the topics are there.
    pub(super) fn new(kafka: &config::Kafka, group: &str, topics: &[&str]) -> Result<Self, Error> {
        let witness = Witness::open(kafka, group)?;
        let cluster_id = witness.cluster_id()?;
        witness.topic_ids(topics)?;
        Ok(Self { kafka: kafka.clone(), witness, cluster_id })
    }

    /// Reads all but what the store holds.
    pub(super) fn read(&self, place: &Place) -> Result<Position, Error> {
        let (topic, partition) = place;
        let ids = self.witness.topic_ids(&[topic])?;
        let topic_id = ids.first().copied().ok_or_else(|| Error::NoTopic(topic.clone()))?;
        let action = || format!("reading where the group stands on {topic}/{partition}");
        let standing = self.witness.standing(place).map_err(Error::call(action()))?;
        Ok(Position {
            cluster_id: self.cluster_id.clone(),
            topic_id,
            log_start: standing.log_start,
            log_end: standing.log_end,
            committed: standing.committed.map(|(offset, metadata)| Committed { offset, metadata }),
            held: Held::default(),
        })
    }

    /// The log's end as a reader of committed records sees it.
    pub(super) fn log_end(&self, place: &Place) -> Result<i64, Error> {
        let (topic, partition) = place;
        let action = format!("reading the end of {topic}/{partition}");
        let standing = self.witness.standing(place).map_err(Error::call(action))?;
        Ok(standing.log_end)
    }

    /// The topics' ids, in order.
    pub(super) fn topic_ids(&self, topics: &[&str]) -> Result<Vec<Uuid>, Error> {
        self.witness.topic_ids(topics)
    }

    /// Whether a committed record lies in `from..to`; markers and aborted ones do not count.
    pub(super) fn has_events(&self, place: &Place, from: i64, to: i64) -> Result<bool, Error> {
        if from >= to {
            return Ok(false);
        }
        let (topic, partition) = place;
        let mut reader = PartitionReader::open(&self.kafka, topic, *partition, Start::At(from))?;
        match reader.next(LOOK_TIMEOUT)? {
            Next::Record(record) => Ok(record.offset < to),
            Next::End(_) => Ok(false),
            Next::Nothing => Err(Error::Unexpected(format!(
                "no word from the brokers on {topic}/{partition} from offset {from}"
            ))),
        }
    }
}
