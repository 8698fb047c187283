//! Restoring a handler from its log: position records, events and results -> state in memory.
//!
//! A gap in a stream's sequence is corruption and stops the partition; an exact repeat is passed
//! over. A schema that nobody here has seen yet is looked up before the restore goes on.

use super::command_handler::CommandHandler;
use super::dedup::{Answer, CommandKey};
use super::position::Position;
use super::protocol::{Action, Settings};
use super::reply::RESULT_OF;
use super::snapshot;
use super::timer::{parse_timer_key, parse_timer_value};
use super::turn::Stream;
use crate::kernel::codec::{Codec, CodecError};
use crate::kernel::decider::Decider;
use crate::kernel::message::Record;
use crate::kernel::stream::{Kind, POSITION_KEY, StreamHash, parse_event_key};
use crate::kernel::time::Timestamp;

impl<D: Decider, C: Codec<D>> CommandHandler<D, C> {
    /// Takes restored records as far as their schemas are known.
    pub(super) fn fold_restored(&mut self, kind: Kind) -> Action {
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
                Err(RestoreError::Corrupt(reason)) => {
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
        Action::More
    }

    fn restore_snapshot(&mut self, record: &Record) -> Result<(), RestoreError> {
        let Some(key) = record.key.as_deref() else { return Ok(()) };
        if key != POSITION_KEY {
            self.restore_stream(key, record.value.as_deref());
            return Ok(());
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

    /// Takes a stream's state; one that cannot be read is folded from its events.
    fn restore_stream(&mut self, key: &[u8], value: Option<&[u8]>) {
        let Ok(id) = std::str::from_utf8(key) else { return };
        match value {
            Some(value) => {
                if let Some(stream) = snapshot::from_bytes::<D>(id, value) {
                    self.counts.restored_snapshots += 1;
                    self.streams.insert(id.into(), stream);
                }
            }
            None => {
                self.streams.remove(id);
            }
        }
    }

    fn restore_event(&mut self, record: &Record) -> Result<(), RestoreError> {
        let (Some(key), Some(value)) = (record.key.as_deref(), record.value.as_deref()) else {
            return Ok(()); // A tombstone: the event is erased.
        };
        let (id, sequence) = parse_event_key(key)
            .ok_or_else(|| RestoreError::Corrupt("a key that is no event's".to_owned()))?;
        let known = self.streams.get_mut(id);
        let version = known.as_ref().map_or(0, |stream| stream.version);
        if sequence <= version {
            return Ok(()); // An exact repeat that compaction has not removed yet.
        }
        if sequence != version + 1 {
            return Err(RestoreError::Corrupt(format!(
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
        if let Some(stream) = known {
            D::evolve(&mut stream.state, &event, at);
            stream.version = sequence;
            stream.last_time = at;
            return Ok(());
        }
        let mut state = D::State::default();
        D::evolve(&mut state, &event, at);
        let hash = StreamHash::new(D::NAME, id);
        self.streams.insert(id.into(), Stream { state, version: sequence, last_time: at, hash });
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
        self.timers.set(id, name, at);
        Ok(())
    }

    fn restore_result(&mut self, record: &Record) -> Result<(), RestoreError> {
        let Some(value) = record.value.as_deref() else {
            return Ok(());
        };
        let result = self.codec.decode_result(value)?;
        if let Some(answer) = Answer::of(&result) {
            let stream = StreamHash::new(D::NAME, &result.aggregate_id);
            let internal = record.headers.get(RESULT_OF).is_some();
            self.answers.insert(CommandKey::new(stream, result.command_id, internal), answer);
        }
        Ok(())
    }
}

enum RestoreError {
    Schema(u32),
    Corrupt(String),
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
