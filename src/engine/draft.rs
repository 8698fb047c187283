//! What a turn has come to, owned: it outlives the chunks that the turn is decided in.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use hashbrown::HashMap;

use super::dedup::{Answer, CommandKey};
use super::origin::Source;
use super::protocol::Crossing;
use super::sweep::{Swept, save};
use super::turn::Overlay;
use crate::kernel::decider::Decider;
use crate::kernel::message::Outgoing;
use crate::kernel::time::Timestamp;

/// What a turn changes in memory once it is committed.
#[derive(Debug)]
pub struct Changes<D: Decider> {
    /// The streams as they are after the turn.
    pub streams: Overlay<D::State>,
    /// How many of them are new.
    pub new_streams: u64,
    /// The new answers.
    pub answers: HashMap<CommandKey, Answer>,
    /// The origins taken.
    pub origins: BTreeMap<Source, (i64, u32)>,
    /// The timers that were set (to when) or cleared, by aggregate and name.
    pub timers: BTreeMap<(String, String), Option<Timestamp>>,
    /// How many commands were decided, repeats and refusals included.
    pub command_count: u64,
    /// How many events follow.
    pub event_count: u64,
    /// The streams that were covered by a snapshot until now.
    pub unsaved: Vec<Arc<str>>,
    /// What was swept.
    pub swept: Swept,
}

impl<D: Decider> Default for Changes<D> {
    fn default() -> Self {
        Self {
            streams: Overlay::new(),
            new_streams: 0,
            answers: HashMap::new(),
            origins: BTreeMap::new(),
            timers: BTreeMap::new(),
            command_count: 0,
            event_count: 0,
            unsaved: Vec::new(),
            swept: Swept::default(),
        }
    }
}

/// A turn between two chunks.
pub struct Draft<D: Decider> {
    pub(super) now: Timestamp,
    pub(super) fetched: Overlay<D::State>,
    pub(super) changes: Changes<D>,
    pub(super) snapshots_due: BTreeSet<String>,
    pub(super) time_text: (Timestamp, String),
    pub(super) records: Vec<Outgoing>,
    pub(super) crossings: Vec<Crossing>,
}

impl<D: Decider> Draft<D> {
    /// Begins a turn at that moment.
    #[must_use]
    pub fn new(now: Timestamp) -> Self {
        Self {
            now,
            fetched: Overlay::new(),
            changes: Changes::default(),
            snapshots_due: BTreeSet::new(),
            time_text: (now, now.to_rfc3339()),
            records: Vec::new(),
            crossings: Vec::new(),
        }
    }

    /// Makes room for a turn of that many commands, of which so many are decided at a time: growing
    /// bit by bit copies everything each time.
    pub fn reserve(&mut self, commands: usize, chunk: usize) {
        self.records.reserve(chunk * 2 + 1);
        self.changes.streams.reserve(commands);
        self.changes.answers.reserve(commands);
    }

    /// Adds what is written once for a turn, behind all commands: snapshots and timers.
    pub fn finish(&mut self) {
        for id in std::mem::take(&mut self.snapshots_due) {
            self.records.extend(save::<D>(&mut self.changes.streams, &id));
        }
        let timers = super::timer::records(&self.changes.timers);
        self.records.extend(timers);
    }
}
