//! What a handler and its driver say to each other: settings and inputs in, actions out.

use std::sync::Arc;
use std::time::Duration;

use ring::hmac;
use uuid::Uuid;

use super::dispatch::Targets;
use crate::kernel::message::{Outgoing, Record};
use crate::kernel::stream::Kind;
use crate::kernel::time::Timestamp;

/// What a handler is told about its place.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The handler's consumer group, with its namespace: the source of what it sends on.
    pub group: String,
    /// The cluster, for commit metadata.
    pub cluster_id: String,
    /// The commands topic's name, with its namespace.
    pub commands_topic: String,
    /// The commands topic's id.
    pub commands_topic_id: Uuid,
    /// The events topic's name, with its namespace.
    pub events_topic: String,
    /// The events topic's id, for consistency tokens.
    pub events_topic_id: Uuid,
    /// The results topic's id: what is remembered of it elsewhere is of no use with another one.
    pub results_topic_id: Uuid,
    /// The partition that is owned.
    pub partition: i32,
    /// How many partitions the aggregate's topics have.
    pub partition_count: i32,
    /// The most commands in one transaction.
    pub batch_max: usize,
    /// The most commands that are decided before what they gave is written: a turn with more is
    /// decided and written in turns, so that what it holds fits a processor's cache.
    pub chunk_max: usize,
    /// The most bytes of commands in one transaction.
    pub batch_bytes_max: usize,
    /// Whether an event's time may be the client's.
    pub trust_command_time: bool,
    /// How many events lie between two snapshots of a stream (1 to 10,000).
    pub snapshot_every: u64,
    /// For how long answers are remembered, in seconds.
    pub window_seconds: i64,
    /// How many answers are kept in memory; older ones are put on the shelf.
    pub answers_in_memory: usize,
    /// How many streams are kept in memory; the others are put on the shelf.
    pub streams_in_memory: usize,
    /// About how many events a restore is to read; more have snapshots written.
    pub restore_events: u64,
    /// Signs and verifies origins.
    pub key: hmac::Key,
    /// Where commands can be handed on to.
    pub targets: Targets,
}

/// What the driver reports.
#[derive(Debug)]
pub enum Input {
    /// The producer is ours: older owners are fenced off, their open transaction is aborted.
    Fenced,
    /// The group's committed offset and the ends of the partitions.
    Committed(Committed),
    /// Some records of the topic that is being restored, in order.
    Restored(Vec<Record>),
    /// The topic that is being restored has been read to its end.
    RestoreEnd,
    /// The consumer now stands at the offset that `Ready` named.
    Started,
    /// Commands have arrived, in order.
    Arrived(Vec<Record>),
    /// Everything that was to be delivered is acknowledged.
    Delivered,
    /// The records are in the transaction, which is open; the list is there to be filled again.
    Written(Vec<Outgoing>),
    /// The transaction is committed.
    TransactionCommitted {
        /// The offset of its last result, if the brokers have said.
        last_result: Option<i64>,
    },
    /// The transaction is aborted for certain.
    TransactionAborted(String),
    /// Nobody knows whether the transaction is committed, or the producer is of no use any more.
    TransactionUnknown(String),
    /// The registry has said whether the schema exists; the codec knows it by now.
    SchemaLookedUp,
    /// The wait is over, and nothing has come.
    Woken,
}

/// What the group knows of the partition.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Committed {
    /// The committed offset and what stands beside it.
    pub offset: Option<(i64, String)>,
    /// The first offset that the commands partition still holds.
    pub log_start: i64,
    /// The offset behind the last record of the commands partition.
    pub log_end: i64,
    /// The offset behind the last committed event: what is written from now on stands behind it.
    pub events_end: i64,
}

/// Where a restore begins to read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum From {
    /// At the oldest record.
    Start,
    /// At the first record since that moment.
    Moment(Timestamp),
    /// At that offset. If the partition holds no such offset any more, or not yet, there is nothing
    /// to read.
    Offset(i64),
}

/// What the driver is to do next. It answers with one input, but for `Restore`, which it answers
/// with any number of `Restored` (each answered by `More`) and a `RestoreEnd`.
#[derive(Debug, PartialEq, Eq)]
pub enum Action {
    /// Make a new transactional producer and fence off older owners.
    Fence,
    /// Read the group's committed offset.
    ReadCommitted,
    /// Read that topic's partition from some place to its end.
    Restore {
        /// Which of the aggregate's topics.
        kind: Kind,
        /// From where on.
        from: From,
    },
    /// Go on with the restore.
    More,
    /// Have the commands partition read from that offset on.
    Ready {
        /// The next command to read.
        next_offset: i64,
    },
    /// Wait for commands, or until that moment.
    Receive {
        /// When the next timer is due.
        until: Option<Timestamp>,
    },
    /// Send these, outside any transaction, and wait until every one is acknowledged.
    Deliver(Vec<Crossing>),
    /// Write the offset and these in a new transaction.
    Transact(Transaction),
    /// Write these, too, in the transaction that is open.
    Append(Chunk),
    /// Abort the transaction that is open.
    Abort,
    /// Ask the registry for a schema, until it answers.
    LookUpSchema(u32),
    /// Do nothing for a while.
    Sleep(Duration),
    /// Say what is waited for, and do nothing for a while.
    Wait {
        /// What does not work, and what somebody can do.
        reason: String,
        /// For how long.
        pause: Duration,
    },
    /// Stop this partition: going on would make it wrong.
    Stop(String),
}

/// One transaction, or its beginning: everything or nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transaction {
    /// The next command to read after it.
    pub next_offset: i64,
    /// What stands beside the committed offset.
    pub metadata: String,
    /// The records that come first.
    pub chunk: Chunk,
}

/// Some records of a transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chunk {
    /// The records, in order, all for the owner's own partition.
    pub records: Vec<Outgoing>,
    /// Whether these are all, and the transaction is to be committed; else the answer is `Written`.
    pub is_last: bool,
}

/// The moment of a step and a number that nobody has drawn before: the only things a machine is
/// told about the world beyond its inputs.
#[derive(Clone, Copy, Debug)]
pub struct Moment {
    /// The clock.
    pub now: Timestamp,
    /// A random number.
    pub nonce: u64,
}

/// A handler as its driver sees it, whatever the aggregate.
pub trait Handler: Send {
    /// The first action.
    fn start(&mut self) -> Action;
    /// Takes what came of the last action, and says what to do next.
    fn step(&mut self, moment: Moment, input: Input) -> Action;
    /// What it has done so far.
    fn counts(&self) -> Counts;
}

/// What a handler has done and holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Commands decided in committed transactions.
    pub commands: u64,
    /// Events written in committed transactions.
    pub events: u64,
    /// Transactions committed.
    pub transactions: u64,
    /// Events folded to restore the state.
    pub restored_events: u64,
    /// Events read for that: some of them are in the snapshots.
    pub read_events: u64,
    /// Where they were read from; 0 is the start.
    pub events_from: i64,
    /// Times that all events had to be read, because those from there on were not enough.
    pub whole_reads: u64,
    /// Snapshots taken up to restore the state.
    pub restored_snapshots: u64,
    /// About how many events a restore would read at this moment.
    pub to_restore_events: u64,
    /// Results read to remember the answers.
    pub restored_results: u64,
    /// Timers read.
    pub restored_timers: u64,
    /// Streams that there are.
    pub streams: u64,
    /// Streams in memory.
    pub streams_in_memory: u64,
    /// Answers remembered.
    pub answers: u64,
    /// Answers in memory.
    pub answers_in_memory: u64,
    /// The next command to read.
    pub next_offset: i64,
}

/// A command for another partition, to be sent outside the transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Crossing {
    /// The commands topic, with its namespace.
    pub topic: Arc<str>,
    /// Its partition.
    pub partition: i32,
    /// The record.
    pub record: Outgoing,
}

impl Crossing {
    /// Topic, partition and record.
    #[must_use]
    pub fn parts(&self) -> (&str, i32, &Outgoing) {
        (&self.topic, self.partition, &self.record)
    }
}
