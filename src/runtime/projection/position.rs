//! What Kafka knows about a partition's place: group, topic, partition -> committed, log, ids.

use std::sync::Arc;
use std::time::Duration;

use uuid::Uuid;

use crate::config;
use crate::engine::reset_protocol::{CommitMetadata, Committed, Position};
use crate::kernel::projection::Held;
use crate::log::kafka::Error;
use crate::log::kafka::group::{Place, Witness};
use crate::log::kafka::partition_reader::{Next, PartitionReader, Start};

/// How long to wait for one record when looking between two offsets.
const LOOK_TIMEOUT: Duration = Duration::from_secs(10);

/// Asks about partitions without being a member of the group.
///
/// What we commit of the first generation of tables names the cluster; of a later one, both. A
/// commit of another generation's says nothing about this one's place.
pub(super) struct Positions {
    kafka: config::Kafka,
    witness: Arc<Witness>,
    cluster_id: String,
    generation: i32,
}

impl Positions {
    /// Connects, and checks that the topics are there.
    pub(super) fn new(kafka: &config::Kafka, group: &str, topics: &[&str]) -> Result<Self, Error> {
        let witness = Arc::new(Witness::open(kafka, group)?);
        let cluster_id = witness.cluster_id()?;
        witness.topic_ids(topics)?;
        Ok(Self { kafka: kafka.clone(), witness, cluster_id, generation: 1 })
    }

    /// The same for a generation of tables.
    pub(super) fn of_generation(&self, generation: i32) -> Self {
        let (kafka, witness) = (self.kafka.clone(), Arc::clone(&self.witness));
        Self { kafka, witness, cluster_id: self.cluster_id.clone(), generation }
    }

    /// Whether a commit is ours, and of another generation.
    fn is_of_other(&self, committed: &Committed) -> bool {
        CommitMetadata::parse(&committed.metadata).is_some_and(|found| {
            let (cluster, generation) = cluster_and_generation(&found.cluster_id);
            found.place.next_offset == committed.offset
                && cluster == self.cluster_id
                && generation != self.generation
        })
    }

    /// Reads all but what the store holds.
    pub(super) fn read(&self, place: &Place) -> Result<Position, Error> {
        let (topic, partition) = place;
        let ids = self.witness.topic_ids(&[topic])?;
        let topic_id = ids.first().copied().ok_or_else(|| Error::NoTopic(topic.clone()))?;
        let action = || format!("reading where the group stands on {topic}/{partition}");
        let standing = self.witness.standing(place).map_err(Error::call(action()))?;
        let committed = standing.committed.map(|(offset, metadata)| Committed { offset, metadata });
        Ok(Position {
            cluster_id: with_generation(&self.cluster_id, self.generation),
            topic_id,
            log_start: standing.log_start,
            log_end: standing.log_end,
            committed: committed.filter(|committed| !self.is_of_other(committed)),
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

/// What stands for the cluster in the commits of a generation.
fn with_generation(cluster_id: &str, generation: i32) -> String {
    if generation == 1 {
        return cluster_id.to_owned();
    }
    format!("{cluster_id}{GENERATION}{generation}")
}

/// The other way round.
pub(super) fn cluster_and_generation(text: &str) -> (&str, i32) {
    let found = text.rsplit_once(GENERATION);
    let found = found.and_then(|(cluster, number)| Some((cluster, number.parse().ok()?)));
    found.unwrap_or((text, 1))
}

/// No cluster's id has a dot in it.
const GENERATION: &str = ".g";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_commit_names_its_generation() {
        assert_eq!(with_generation("5L6g3nShT-eMCtK--X86sw", 1), "5L6g3nShT-eMCtK--X86sw");
        for generation in [1, 2, 17] {
            let text = with_generation("5L6g3nShT-eMCtK--X86sw", generation);
            assert_eq!(cluster_and_generation(&text), ("5L6g3nShT-eMCtK--X86sw", generation));
        }
        assert_eq!(cluster_and_generation("a.gb"), ("a.gb", 1));
    }
}
