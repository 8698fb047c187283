//! A process manager's reactor on one partition: events or results -> commands of other streams.
//!
//! ```text
//! ReadStanding -> Ready -> Receive -> [LookUpSchema] -> Deliver -> [Store] -> Receive ...
//! ```
//!
//! Guarantees: a position is stored only when everything up to it is acknowledged; the group's
//! offsets are never followed, so a reset emits nothing. What is sent again after a crash (at most
//! what came since the last stored position) carries the same origins, and its targets drop it.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use ring::hmac;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::dispatch::Targets;
use super::origin::Source;
use super::position::Witness;
use super::protocol::{Committed, Crossing};
use crate::kernel::codec::CodecError;
use crate::kernel::message::Record;
use crate::kernel::reactor::Reactor;
use crate::kernel::stream::{AggregateName, Kind};
use crate::kernel::time::Timestamp;

/// The most commands that are sent before an acknowledgement of all of them is waited for.
const BATCH_MAX: usize = 1_000;
/// The shortest time between two stored positions of a partition.
const STORE_EVERY: Duration = Duration::from_millis(200);
/// The form of a stored position; another number is not read.
const FORM: u8 = 1;

/// What a reactor is told about its place.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The reactor's consumer group, with its namespace.
    pub group: String,
    /// The cluster, for commit metadata.
    pub cluster_id: String,
    /// The topic that is read, with its namespace.
    pub topic: String,
    /// Its id.
    pub topic_id: Uuid,
    /// Whose topic it is.
    pub aggregate: AggregateName,
    /// What it holds.
    pub kind: Kind,
    /// The partition.
    pub partition: i32,
    /// Where commands go.
    pub targets: Targets,
    /// Signs origins.
    pub key: hmac::Key,
}

/// How far a reactor has come on a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stored {
    /// The topic that the offset belongs to: a topic made again has another id.
    pub topic_id: Uuid,
    /// The next record to react to.
    pub next_offset: i64,
}

impl Stored {
    /// The record's value.
    #[must_use]
    pub fn to_bytes(self) -> Vec<u8> {
        // Serialising this into a growing buffer cannot fail; an empty record is refused.
        postcard::to_extend(&self, vec![FORM]).unwrap_or_default()
    }

    /// Reads the record's value; `None` if it has another form.
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (&form, rest) = bytes.split_first()?;
        if form == FORM { postcard::from_bytes(rest).ok() } else { None }
    }
}

/// What the driver reports.
#[derive(Debug)]
pub enum Input {
    /// Where the reactor and its group stand.
    Standing {
        /// The stored position.
        stored: Option<Stored>,
        /// What the group knows.
        committed: Committed,
    },
    /// The consumer now stands at the offset that `Ready` named.
    Started,
    /// Records have arrived, in order.
    Arrived(Vec<Record>),
    /// Everything that was to be delivered is acknowledged.
    Delivered,
    /// The position is stored and acknowledged.
    Stored,
    /// The registry has said whether the schema exists; the codec knows it by now.
    SchemaLookedUp,
    /// The wait is over, and nothing has come.
    Woken,
}

/// What the driver is to do next. It answers with one input.
#[derive(Debug, PartialEq, Eq)]
pub enum Action {
    /// Read the stored position and the group's committed offset.
    ReadStanding,
    /// Have the partition read from that offset on.
    Ready {
        /// The next record to read.
        next_offset: i64,
    },
    /// Wait for records, or until that moment.
    Receive {
        /// When the position is to be stored.
        until: Option<Timestamp>,
    },
    /// Send these in order and wait until every one is acknowledged.
    Deliver(Vec<Crossing>),
    /// Store this position, then commit its offset with that metadata.
    Store(Stored, String),
    /// Ask the registry for a schema, until it answers.
    LookUpSchema(u32),
    /// Stop this partition: going on would leave something out.
    Stop(String),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Reading,
    Starting,
    Idle,
    LookingUp,
    Delivering,
    Storing,
    Stopped,
}

/// What a reactor has done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Records that were looked at.
    pub records: u64,
    /// Commands sent and acknowledged.
    pub commands: u64,
    /// The next record to react to.
    pub next_offset: i64,
}

/// A reactor on one partition.
pub struct Reacting {
    settings: Settings,
    reactor: Arc<dyn Reactor>,
    source: Source,
    phase: Phase,
    inbox: VecDeque<Record>,
    /// Everything before it is acknowledged.
    next_offset: i64,
    /// The position once what is under way is acknowledged, and how many commands that is.
    delivering: (i64, u64),
    /// The stored position, and when it was stored.
    stored: (i64, Timestamp),
    counts: Counts,
}

impl Reacting {
    /// Makes the reactor of one partition.
    #[must_use]
    pub fn new(settings: Settings, reactor: Arc<dyn Reactor>) -> Self {
        let source = Source {
            group: settings.group.clone(),
            topic_id: settings.topic_id,
            partition: settings.partition,
        };
        Self {
            settings,
            reactor,
            source,
            phase: Phase::Reading,
            inbox: VecDeque::new(),
            next_offset: 0,
            delivering: (0, 0),
            stored: (-1, Timestamp(0)),
            counts: Counts::default(),
        }
    }

    /// The first action.
    #[must_use]
    pub const fn start(&self) -> Action {
        Action::ReadStanding
    }

    /// What it has done.
    #[must_use]
    pub const fn counts(&self) -> Counts {
        Counts { next_offset: self.next_offset, ..self.counts }
    }

    /// What to store before the partition is given back: everything acknowledged so far.
    #[must_use]
    pub fn last_words(&self) -> Option<(Stored, String)> {
        let has_started = !matches!(self.phase, Phase::Reading | Phase::Stopped);
        (has_started && self.stored.0 != self.next_offset).then(|| self.stand())
    }

    /// Takes what came of the last action, and says what to do next.
    pub fn step(&mut self, now: Timestamp, input: Input) -> Action {
        match (self.phase, input) {
            (Phase::Reading, Input::Standing { stored, committed }) => {
                self.begin(stored, &committed, now)
            }
            (Phase::Starting, Input::Started) => self.receive(now),
            (Phase::Idle, Input::Arrived(records)) => {
                self.inbox.extend(records);
                self.react(now)
            }
            (Phase::Idle, Input::Woken) | (Phase::LookingUp, Input::SchemaLookedUp) => {
                self.react(now)
            }
            (Phase::Delivering, Input::Delivered) => {
                let (next_offset, count) = self.delivering;
                self.next_offset = next_offset;
                self.counts.commands += count;
                self.react(now)
            }
            (Phase::Storing, Input::Stored) => {
                self.stored = (self.next_offset, now);
                self.react(now)
            }
            (phase, input) => self.stop(format!("{input:?} while {phase:?}: this is a bug")),
        }
    }

    fn stop(&mut self, reason: String) -> Action {
        self.phase = Phase::Stopped;
        Action::Stop(reason)
    }

    fn stand(&self) -> (Stored, String) {
        let next_offset = self.next_offset;
        let stored = Stored { topic_id: self.settings.topic_id, next_offset };
        let cluster_id = self.settings.cluster_id.clone();
        let witness = Witness { cluster_id, offset: next_offset, nonce: 0 };
        (stored, witness.to_text())
    }

    /// Where to begin: the stored position; the group's offset only if it is our own and nothing is
    /// stored; else the log's start.
    fn begin(&mut self, stored: Option<Stored>, committed: &Committed, now: Timestamp) -> Action {
        let Settings { group, topic, topic_id, partition, .. } = &self.settings;
        let partition = *partition;
        let ours = committed
            .offset
            .as_ref()
            .and_then(|(offset, text)| Witness::parse(text, *offset))
            .filter(|witness| witness.cluster_id == self.settings.cluster_id);
        let (log_start, log_end) = (committed.log_start, committed.log_end);
        let mut next_offset = match (stored, &ours) {
            (Some(stored), _) if stored.topic_id == *topic_id => stored.next_offset,
            (Some(_), _) => {
                tracing::warn!(%group, %topic, partition, "the topic was made again; reacting to \
                    it from its start");
                log_start
            }
            (None, Some(witness)) => {
                let next_offset = witness.offset;
                tracing::error!(%group, %topic, partition, next_offset, "the positions topic has \
                    lost this partition; going on where the last commit says");
                next_offset
            }
            (None, None) => log_start,
        };
        if let Some((offset, _)) = committed.offset
            // A position is stored before its offset is committed, so ours may lie behind.
            && ours.is_none_or(|witness| witness.offset > next_offset)
        {
            tracing::warn!(%group, %topic, partition, committed = offset, position = next_offset,
                "the group's offset is not the reactor's own position; a reset of a reactor has \
                 no effect, going on at its position");
        }
        if next_offset < log_start {
            tracing::error!(%group, %topic, partition, expected = next_offset, found = log_start,
                "retention deleted records before they were reacted to; going on behind them");
            next_offset = log_start;
        }
        if next_offset > log_end {
            tracing::error!(%group, %topic, partition, expected = next_offset, found = log_end,
                "the brokers have lost the topic's end; going on at what they have");
            next_offset = log_end;
        }
        self.next_offset = next_offset;
        // Stored soon, so that a reset shows nowhere.
        self.stored = (-1, now);
        self.phase = Phase::Starting;
        Action::Ready { next_offset }
    }

    fn receive(&mut self, now: Timestamp) -> Action {
        self.phase = Phase::Idle;
        let (stored, at) = self.stored;
        if stored == self.next_offset {
            return Action::Receive { until: None };
        }
        let micros = i64::try_from(STORE_EVERY.as_micros()).unwrap_or(i64::MAX);
        let due = Timestamp(at.0.saturating_add(micros));
        if now < due && now >= at {
            return Action::Receive { until: Some(due) };
        }
        self.phase = Phase::Storing;
        let (stored, metadata) = self.stand();
        Action::Store(stored, metadata)
    }

    /// Reacts to what has arrived, up to a batch of commands.
    fn react(&mut self, now: Timestamp) -> Action {
        let mut crossings = Vec::new();
        let mut next_offset = self.next_offset;
        while crossings.len() < BATCH_MAX {
            let Some(record) = self.inbox.front() else { break };
            if record.offset < next_offset {
                self.inbox.pop_front();
                continue;
            }
            let Settings { aggregate, kind, .. } = self.settings;
            match self.reactor.react(aggregate, kind, record) {
                Ok(dispatches) => {
                    for (index, dispatch) in (0..).zip(&dispatches) {
                        let cause = (&self.source, record.offset, index);
                        let Settings { targets, key, .. } = &self.settings;
                        match targets.address(dispatch, cause, key) {
                            Ok(crossing) => crossings.push(crossing),
                            Err(reason) => return self.stop(reason),
                        }
                    }
                }
                Err(CodecError::UnknownSchema(id)) if crossings.is_empty() => {
                    self.next_offset = next_offset;
                    self.phase = Phase::LookingUp;
                    return Action::LookUpSchema(id);
                }
                // What stands before it is sent first.
                Err(_) if !crossings.is_empty() => break,
                Err(error) => {
                    let Settings { topic, partition, .. } = &self.settings;
                    let offset = record.offset;
                    return self.stop(format!(
                        "{topic} partition {partition} offset {offset} cannot be read: {error}"
                    ));
                }
            }
            next_offset = record.offset + 1;
            self.counts.records += 1;
            self.inbox.pop_front();
        }
        if crossings.is_empty() {
            self.next_offset = next_offset;
            return self.receive(now);
        }
        self.delivering = (next_offset, crossings.len() as u64);
        self.phase = Phase::Delivering;
        Action::Deliver(crossings)
    }
}

#[cfg(test)]
mod tests;
