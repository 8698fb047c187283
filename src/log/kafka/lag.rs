//! How far a group is behind: committed offsets + the log -> events and seconds.
//!
//! Offsets have holes (transaction markers, aborted and compacted records), so the distance between
//! two offsets only bounds what lies between them. A short distance is read and counted; a long one
//! is given as the bound. Zero always means: nothing is left to read.

use std::time::Duration;

use rdkafka::TopicPartitionList;
use rdkafka::consumer::{BaseConsumer, Consumer};
use serde::Serialize;

use super::client::{self, Quiet};
use super::members::{Owned, Owner, owned_by};
use super::partition_reader::{Next, PartitionReader, Start};
use super::{CALL_TIMEOUT, Error, ffi};
use crate::config;
use crate::kernel::time::Timestamp;

/// The longest distance that is read to count what lies in it.
const COUNTED_MAX: i64 = 2_000;
/// The longest to wait for the next record of a distance.
const READ_TIMEOUT: Duration = Duration::from_secs(3);

/// A group's state and place.
#[derive(Clone, Debug, Serialize)]
pub struct Group {
    /// Its name, namespace included.
    pub group: String,
    /// What it is doing: `running`, `rebalancing`, `stopped`.
    pub state: &'static str,
    /// How many processes share its work.
    pub members: usize,
    /// Records that are not processed yet.
    pub lag_events: i64,
    /// Whether `lag_events` was counted; otherwise it is at most this.
    pub exact: bool,
    /// The age of the oldest of them.
    pub lag_seconds: f64,
    /// The same for each partition.
    pub partitions: Vec<Partition>,
}

/// A group's place in one partition.
#[derive(Clone, Debug, Serialize)]
pub struct Partition {
    /// The topic.
    pub topic: String,
    /// The partition.
    pub partition: i32,
    /// Who owns it, while the group is at rest.
    pub owner: Option<Owner>,
    /// The offset that it has committed; `None` if it never has.
    pub committed: Option<i64>,
    /// The offset behind the last committed record.
    pub end: i64,
    /// Records that are not processed yet.
    pub lag_events: i64,
    /// Whether `lag_events` was counted; otherwise it is at most this.
    pub exact: bool,
    /// The age of the oldest of them.
    pub lag_seconds: f64,
}

/// Looks at groups, again and again over the same connections. It blocks its thread.
pub struct Observer {
    kafka: config::Kafka,
    reader: Option<PartitionReader>,
    witnesses: Vec<(String, BaseConsumer<Quiet>)>,
}

impl Observer {
    /// Connects when it first looks.
    #[must_use]
    pub fn new(kafka: &config::Kafka) -> Self {
        Self { kafka: kafka.clone(), reader: None, witnesses: Vec::new() }
    }

    /// Looks at a group: its state, and its place in every partition of these topics.
    ///
    /// # Errors
    /// The brokers do not answer, or a topic does not exist.
    pub fn group(
        &mut self,
        group: &str,
        topics: &[(String, i32)],
        now: Timestamp,
    ) -> Result<Group, Error> {
        let place = match self.witnesses.iter().position(|(name, _)| name == group) {
            Some(place) => place,
            None => {
                let mut options = client::witness(&self.kafka, group);
                // What is committed now, not what will be once a transaction has ended.
                options.set("isolation.level", "read_uncommitted");
                self.witnesses.push((group.to_owned(), client::consumer(&options, Quiet)?));
                self.witnesses.len() - 1
            }
        };
        let witness = &self.witnesses[place].1;
        let (state, members, owned) = state_of(witness, group)?;
        let mut list = TopicPartitionList::new();
        for (topic, count) in topics {
            for partition in 0..*count {
                list.add_partition(topic, partition);
            }
        }
        let committed = witness
            .committed_offsets(list, CALL_TIMEOUT)
            .map_err(Error::call(format!("asking for the offsets of {group}")))?;
        let committed = ffi::committed_offsets(&committed);
        let mut partitions = Vec::with_capacity(committed.len());
        for entry in committed {
            let reader = match &mut self.reader {
                Some(reader) => reader,
                none => none.insert(PartitionReader::open(
                    &self.kafka,
                    &entry.topic,
                    entry.partition,
                    Start::End,
                )?),
            };
            let measured = measure(reader, &entry, now);
            if measured.is_err() {
                self.reader = None;
            }
            let place = (entry.topic.clone(), entry.partition);
            let owner = owned.iter().find(|(found, _)| *found == place);
            let owner = owner.map(|(_, owner)| owner.clone());
            partitions.push(Partition { owner, ..measured? });
        }
        let lag_events = partitions.iter().map(|partition| partition.lag_events).sum();
        let exact = partitions.iter().all(|partition| partition.exact);
        let oldest = partitions.iter().map(|partition| partition.lag_seconds);
        let lag_seconds = oldest.fold(0.0, f64::max);
        let group = group.to_owned();
        Ok(Group { group, state, members, lag_events, exact, lag_seconds, partitions })
    }
}

fn measure(
    reader: &mut PartitionReader,
    entry: &ffi::CommittedOffset,
    now: Timestamp,
) -> Result<Partition, Error> {
    let start = entry.offset.map_or(Start::Beginning, Start::At);
    let (begin, end) = reader.go_to(&entry.topic, entry.partition, start)?;
    let distance = (end - begin).max(0);
    let mut partition = Partition {
        topic: entry.topic.clone(),
        partition: entry.partition,
        owner: None,
        committed: entry.offset,
        end,
        lag_events: 0,
        exact: true,
        lag_seconds: 0.0,
    };
    if distance == 0 {
        return Ok(partition);
    }
    let count_all = distance <= COUNTED_MAX;
    let mut oldest = None;
    while let Next::Record(record) = reader.next(READ_TIMEOUT)? {
        // What came after we looked for the end is not waited for.
        if record.offset >= end {
            break;
        }
        oldest.get_or_insert(record.timestamp_ms);
        partition.lag_events += 1;
        if !count_all {
            break;
        }
    }
    if let Some(oldest) = oldest {
        if !count_all {
            partition.lag_events = distance;
            partition.exact = false;
        }
        partition.lag_seconds = seconds_between(Timestamp::from_millis(oldest), now);
    }
    Ok(partition)
}

/// Seconds with milliseconds, never below zero.
fn seconds_between(from: Timestamp, to: Timestamp) -> f64 {
    let millis = to.millis().saturating_sub(from.millis()).max(0);
    Duration::from_millis(millis.unsigned_abs()).as_secs_f64()
}

/// What a group is doing, how many members it has, and who owns what.
type Described = (&'static str, usize, Vec<Owned>);

fn state_of(witness: &BaseConsumer<Quiet>, group: &str) -> Result<Described, Error> {
    let list = witness
        .client()
        .fetch_group_list(Some(group), CALL_TIMEOUT)
        .map_err(Error::call(format!("asking for the state of {group}")))?;
    let found = list.groups().iter().find(|found| found.name() == group);
    Ok(found.map_or_else(
        || ("stopped", 0, Vec::new()),
        |found| {
            let members = found.members().len();
            let state = match found.state() {
                "Stable" if members > 0 => "running",
                "PreparingRebalance" | "CompletingRebalance" => "rebalancing",
                _ => "stopped",
            };
            (state, members, found.members().iter().flat_map(owned_by).collect())
        },
    ))
}
