//! From where on a restore reads the events: position record -> a place in them, or their start.
//!
//! | what is found | what is read |
//! |---|---|
//! | no such place in the record (an older version wrote it), or no record | all |
//! | the place is in another events topic, or behind the end of this one | all, with a warning |
//! | it relies on snapshots of another form or state schema | all, with a warning |
//! | a gap behind the place, or other numbers than the record's in the end | all, with an error |
//! | anything else | the events from the place on |
//!
//! Guarantees: a restore that has not read everything is believed only if it comes to the very
//! number of streams and events that the last transaction counted.

use super::command_handler::CommandHandler;
use super::draft::Changes;
use super::position::{Bound, Figures};
use super::protocol::{Action, From, Settings};
use super::snapshot;
use crate::kernel::codec::Codec;
use crate::kernel::decider::Decider;
use crate::kernel::stream::Kind;
use crate::kernel::time::Timestamp;

impl<D: Decider, C: Codec<D>> CommandHandler<D, C> {
    /// The place for the position record of a transaction with these changes.
    pub(super) fn bound(&self, changes: &Changes<D>) -> Bound {
        Bound {
            events_topic_id: self.settings.events_topic_id,
            snapshots: snapshot::header::<D>(),
            events_from: self.sweep.events_from(&changes.swept),
            figures: Some(Figures {
                streams: self.streams.len().0 + changes.new_streams,
                events: self.sweep.events() + changes.event_count,
            }),
        }
    }

    /// Where to begin with the events.
    pub(super) fn events_begin(&mut self) -> From {
        self.counts.events_from = 0;
        let bound = self.position.as_ref().and_then(|position| position.bound.as_ref());
        let Some(&Bound { events_topic_id, snapshots, events_from, .. }) = bound else {
            return From::Start;
        };
        if self.reads_whole || events_from <= 0 {
            return From::Start;
        }
        let Settings { events_topic, partition, .. } = &self.settings;
        let end = self.committed.events_end;
        let why_not = if events_topic_id != self.settings.events_topic_id {
            "the events topic was made again"
        } else if snapshots != snapshot::header::<D>() {
            "the snapshots are those of another version"
        } else if events_from > end {
            "the events end before the place where reading them was to begin"
        } else {
            self.counts.events_from = events_from;
            return From::Offset(events_from);
        };
        tracing::warn!(%events_topic, partition, events_from, end, why_not,
            "snapshots do not tell where to begin with the events; reading all");
        From::Start
    }

    /// The events are read to their end: whether all are there. If not, and only some were read,
    /// all are read.
    pub(super) fn all_found(&mut self, now: Timestamp) -> Option<Action> {
        let bound = self.position.as_ref().and_then(|position| position.bound.as_ref())?;
        let is_same_topic = bound.events_topic_id == self.settings.events_topic_id;
        let expected = bound.figures.filter(|_| is_same_topic)?;
        let found = Figures { streams: self.streams.len().0, events: self.sweep.events() };
        if found == expected {
            return None;
        }
        let reason = format!("{expected:?} were committed, {found:?} are found");
        if self.counts.events_from > 0 {
            return Some(self.read_whole(&reason, now));
        }
        let Settings { events_topic, partition, .. } = &self.settings;
        tracing::error!(%events_topic, partition, reason,
            "the events topic does not hold what was committed: compare it with a back-up");
        None
    }

    /// What was read from the place on is not enough.
    pub(super) fn read_whole(&mut self, reason: &str, now: Timestamp) -> Action {
        let Settings { events_topic, partition, .. } = &self.settings;
        let events_from = self.counts.events_from;
        tracing::error!(%events_topic, partition, events_from, reason,
            "the snapshots do not hold what is before the place where reading the events began; \
             reading all");
        self.reads_whole = true;
        self.counts.whole_reads += 1;
        self.restore(Kind::Snapshots, now)
    }
}
