//! Restoring a handler from its log: position records, events and results -> state in memory.
//!
//! A gap in a stream's sequence is corruption and stops the partition; an exact repeat is passed
//! over. A schema that nobody here has seen yet is looked up before the restore goes on.

use uuid::Uuid;

use super::answers::Noted;
use super::command_handler::CommandHandler;
use super::dedup::{Answer, CommandKey};
use super::position::{Position, Witness};
use super::protocol::{Action, Moment, Settings};
use super::shelf::ShelfError;
use super::snapshot;
use super::sweep::SAVED;
use super::timer::{parse_timer_key, parse_timer_value};
use super::turn::Stream;
use super::upkeep::Then;
use crate::kernel::codec::{Codec, CodecError};
use crate::kernel::decider::Decider;
use crate::kernel::message::Record;
use crate::kernel::result::RESULT_OF;
use crate::kernel::stream::{Kind, POSITION_KEY, StreamHash, parse_event_key};
use crate::kernel::time::Timestamp;

impl<D: Decider, C: Codec<D>> CommandHandler<D, C> {
    /// Takes restored records as far as their schemas are known.
    pub(super) fn fold_restored(&mut self, kind: Kind, now: Timestamp) -> Action {
        if kind == Kind::Results && !self.is_read_on() {
            return self.read_anew(now);
        }
        let last = self.restoring.back().filter(|_| kind == Kind::Results);
        let last = last.map(|record| noted(record, now));
        let count = self.restoring.len() as u64;
        while let Some(record) = self.restoring.pop_front() {
            let outcome = match kind {
                Kind::Snapshots => self.restore_snapshot(&record),
                Kind::Events => self.restore_event(&record),
                Kind::Timers => self.restore_timer(&record),
                Kind::Results => self.restore_result(&record),
                // Neither is ever asked for.
                Kind::Commands | Kind::DeadLetters => Ok(()),
            };
            match outcome {
                Ok(()) => {}
                Err(RestoreError::Schema(id)) => {
                    self.restoring.push_front(record);
                    return Action::LookUpSchema(id);
                }
                Err(RestoreError::Shelf(error)) => {
                    return self.in_trouble(error, Then::Restore(kind));
                }
                Err(RestoreError::Gap(reason)) if self.counts.events_from > 0 => {
                    return self.read_whole(&reason, now);
                }
                Err(RestoreError::Gap(reason) | RestoreError::Corrupt(reason)) => {
                    let Settings { commands_topic, partition, .. } = &self.settings;
                    let offset = record.offset;
                    let kind = kind.as_str();
                    return self.stop(format!(
                        "{commands_topic} partition {partition}: its {kind} topic is corrupt at \
                         offset {offset}: {reason}"
                    ));
                }
            }
        }
        self.answers.note(last, count);
        match self.relieve() {
            Ok(()) => Action::More,
            Err(error) => self.in_trouble(error, Then::Restore(kind)),
        }
    }

    /// Whether the results go on at the record that the shelf knows as the last one.
    fn is_read_on(&mut self) -> bool {
        let Some(first) = self.restoring.front() else { return true };
        let found = noted(first, Timestamp::default());
        self.expected.take().is_none_or(|expected| expected.is(&found))
    }

    /// Where to go on, once everything is restored: the position record rules.
    pub(super) fn restored(&mut self, moment: Moment) -> Action {
        let Settings { commands_topic, commands_topic_id, partition, .. } = &self.settings;
        let partition = *partition;
        let log_start = self.committed.log_start;
        let committed = self.committed.offset.clone();
        let witness = committed.as_ref().and_then(|(offset, text)| Witness::parse(text, *offset));
        let mut position = match self.position.take() {
            Some(position) if position.topic_id == *commands_topic_id => position,
            Some(old) => {
                let old_topic = old.topic_id;
                tracing::warn!(%commands_topic, partition, %old_topic,
                    "the commands topic was made again; reading it from its start");
                Position { next_offset: log_start, origins: old.origins, ..Position::default() }
            }
            None => match &witness {
                Some(witness) if witness.cluster_id == self.settings.cluster_id => {
                    let next_offset = witness.offset;
                    tracing::error!(%commands_topic, partition, next_offset,
                        "the snapshots topic has lost the position record; going on where the \
                         last transaction's offset says");
                    Position { next_offset, nonce: witness.nonce, ..Position::default() }
                }
                _ if !self.streams.is_empty() => {
                    return self.stop(format!(
                        "{commands_topic} partition {partition}: there are events, but neither a \
                         position record in the snapshots topic nor an offset of ours: which \
                         commands were handled cannot be known. Restore the snapshots topic, or \
                         take commands from a new namespace"
                    ));
                }
                _ => Position { next_offset: log_start, ..Position::default() },
            },
        };
        self.reads_whole = false;
        position.topic_id = *commands_topic_id;
        if position.next_offset < log_start {
            let (expected, found) = (position.next_offset, log_start);
            tracing::error!(%commands_topic, partition, expected, found,
                "retention deleted commands before they were handled; going on behind them");
            position.next_offset = log_start;
        }
        if position.next_offset > self.committed.log_end {
            let (expected, found) = (position.next_offset, self.committed.log_end);
            tracing::error!(%commands_topic, partition, expected, found,
                "the brokers have lost the end of the commands; going on at what they have");
            position.next_offset = found;
        }
        self.counts.next_offset = position.next_offset;
        let ours = witness.is_some_and(|witness| {
            witness.offset == position.next_offset
                && witness.nonce == position.nonce
                && witness.cluster_id == self.settings.cluster_id
        });
        if ours {
            return self.ready(position);
        }
        if let Some((offset, _)) = committed {
            let position = position.next_offset;
            tracing::warn!(%commands_topic, partition, committed = offset, position,
                "the group's offset is not the handler's own; a reset of a handler has no effect, \
                 going on at its position");
        }
        self.stamp(position, moment)
    }

    fn restore_snapshot(&mut self, record: &Record) -> Result<(), RestoreError> {
        let Some(key) = record.key.as_deref() else { return Ok(()) };
        if key != POSITION_KEY {
            return self.restore_stream(key, record.value.as_deref());
        }
        let value = record.value.as_deref().unwrap_or_default();
        let position = Position::from_bytes(value).ok_or_else(|| {
            RestoreError::Corrupt(
                "a position record of a form that this version cannot read".into(),
            )
        })?;
        self.position = Some(position);
        Ok(())
    }

    /// Takes a stream's state. One that cannot be read, or was erased, is folded from its events:
    /// an older one before it counts for nothing, since compaction may have it gone next time.
    fn restore_stream(&mut self, key: &[u8], value: Option<&[u8]>) -> Result<(), RestoreError> {
        let Ok(id) = std::str::from_utf8(key) else { return Ok(()) };
        let stream = value.and_then(|value| snapshot::from_bytes::<D>(id, value));
        let stream = stream.unwrap_or_else(|| Stream {
            state: D::State::default(),
            version: 0,
            last_time: Timestamp::default(),
            hash: StreamHash::new(D::NAME, id),
            unsaved_from: SAVED,
        });
        let known = self.streams.restore_mut::<D>(id, self.shelf.as_ref())?;
        let before = known.map_or(0, |known| known.version);
        if before == 0 && stream.version == 0 {
            return Ok(());
        }
        self.counts.restored_snapshots += u64::from(stream.version > 0);
        self.streams.restored(i64::from(stream.version > 0) - i64::from(before > 0));
        self.sweep.restored(before, stream.version);
        self.streams.restore(id, stream);
        Ok(())
    }

    fn restore_event(&mut self, record: &Record) -> Result<(), RestoreError> {
        let (Some(key), Some(value)) = (record.key.as_deref(), record.value.as_deref()) else {
            return Ok(()); // A tombstone: the event is erased.
        };
        self.counts.read_events += 1;
        self.sweep.has_read(record.offset);
        let (id, sequence) = parse_event_key(key)
            .ok_or_else(|| RestoreError::Corrupt("a key that is no event's".to_owned()))?;
        let known = self.streams.restore_mut::<D>(id, self.shelf.as_ref())?;
        let version = known.as_ref().map_or(0, |stream| stream.version);
        if sequence <= version {
            return Ok(()); // An exact repeat that compaction has not removed yet.
        }
        if sequence != version + 1 {
            return Err(RestoreError::Gap(format!(
                "stream {id} jumps from {version} to {sequence}"
            )));
        }
        let event = self.codec.decode_event(value)?;
        let at = record
            .headers
            .text("ce_time")
            .and_then(Timestamp::parse_rfc3339)
            .unwrap_or_else(|| Timestamp::from_millis(record.timestamp_ms));
        self.counts.restored_events += 1;
        let mut is_first = true;
        if let Some(stream) = known {
            is_first = stream.unsaved_from == SAVED;
            if is_first {
                stream.unsaved_from = record.offset;
            }
            D::evolve(&mut stream.state, &event, at);
            stream.version = sequence;
            stream.last_time = at;
        } else {
            let mut state = D::State::default();
            D::evolve(&mut state, &event, at);
            let hash = StreamHash::new(D::NAME, id);
            let unsaved_from = record.offset;
            let stream = Stream { state, version: sequence, last_time: at, hash, unsaved_from };
            self.streams.restore(id, stream);
        }
        if is_first && let Some(name) = self.streams.name(id) {
            self.sweep.push(record.offset, name);
        }
        self.streams.restored(i64::from(version == 0));
        self.sweep.restored(version, sequence);
        Ok(())
    }

    fn restore_timer(&mut self, record: &Record) -> Result<(), RestoreError> {
        let key = record.key.as_deref().unwrap_or_default();
        let corrupt = |what: &str| RestoreError::Corrupt(format!("{what} that is no timer's"));
        let (id, name) = parse_timer_key(key).ok_or_else(|| corrupt("a key"))?;
        let at = match record.value.as_deref() {
            Some(value) => Some(parse_timer_value(value).ok_or_else(|| corrupt("a value"))?),
            None => None,
        };
        self.counts.restored_timers += 1;
        self.timers.set(id, name, at);
        Ok(())
    }

    fn restore_result(&mut self, record: &Record) -> Result<(), RestoreError> {
        let Some(value) = record.value.as_deref() else {
            return Ok(());
        };
        if let Some(accepted) = self.codec.decode_accepted(value) {
            self.counts.restored_results += 1;
            if let Some(answer) = Answer::of_accepted(&accepted) {
                self.remember(record, accepted.aggregate_id, accepted.command_id, answer);
            }
            return Ok(());
        }
        let result = self.codec.decode_result(value)?;
        self.counts.restored_results += 1;
        if let Some(answer) = Answer::of(&result) {
            self.remember(record, &result.aggregate_id, result.command_id, answer);
        }
        Ok(())
    }

    fn remember(&mut self, record: &Record, id: &str, command_id: Uuid, answer: Answer) {
        let stream = StreamHash::new(D::NAME, id);
        let internal = record.headers.get(RESULT_OF).is_some();
        let at = answer.decided_at().max(Timestamp::from_millis(record.timestamp_ms));
        self.answers.insert(CommandKey::new(stream, command_id, internal), answer, at);
    }
}

/// A record of the results topic, noted at that moment.
fn noted(record: &Record, now: Timestamp) -> Noted {
    Noted::new(record.offset, record.key.as_deref(), record.value.as_deref(), now)
}

enum RestoreError {
    Schema(u32),
    Shelf(ShelfError),
    /// A stream's events are not all there.
    Gap(String),
    Corrupt(String),
}

impl From<ShelfError> for RestoreError {
    fn from(error: ShelfError) -> Self {
        Self::Shelf(error)
    }
}

impl From<CodecError> for RestoreError {
    fn from(error: CodecError) -> Self {
        match error {
            CodecError::UnknownSchema(id) => Self::Schema(id),
            CodecError::Corrupt { .. } | CodecError::Unencodable { .. } => {
                Self::Corrupt(error.to_string())
            }
        }
    }
}
