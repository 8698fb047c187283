//! The Projection: events -> project -> changes. Pure; and what its loop and its stores tell each
//! other about places in the log.

use std::collections::BTreeMap;

use super::message::Record;
use super::stream::parse_event_key;
use super::time::Timestamp;
use uuid::Uuid;

/// A place in one partition of the log, as a projection counts: each replay has an epoch of its
/// own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Place {
    /// How many times this partition was rewound.
    pub epoch: u32,
    /// Where the epoch began.
    pub epoch_start: i64,
    /// The next offset to be applied.
    pub next_offset: i64,
}

/// What a store holds of one partition.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Held {
    /// The newest place; `None` if the store has nothing of that partition.
    pub place: Option<Place>,
    /// The id of the topic that it was read from.
    pub topic_id: Option<Uuid>,
    /// For a store whose rows are the checkpoint: the end of all rows, whatever their epoch.
    pub rows_end: Option<i64>,
    /// The streams that are parked, each with the offset of its first parked event.
    pub parked: BTreeMap<String, i64>,
    /// For such a store without any row: the epoch of what is parked. What stood before the first
    /// parked event may have left no row, or its rows are lost: it is read again in a later epoch.
    pub parked_epoch: Option<u32>,
}

/// Why an event was put aside.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Cause {
    /// Its bytes are no event.
    Undecodable,
    /// The projection's code broke on it.
    ProjectionFailed,
    /// The store does not take what follows from it.
    StoreRefused,
    /// An earlier event of its stream is parked, and order is kept.
    BehindParked,
}

impl Cause {
    /// Its name in headers and tables.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Undecodable => "Undecodable",
            Self::ProjectionFailed => "ProjectionFailed",
            Self::StoreRefused => "StoreRefused",
            Self::BehindParked => "BehindParked",
        }
    }
}

/// An event that is put aside instead of being applied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parked {
    /// The event as it stands in the log.
    pub record: Record,
    /// Why.
    pub cause: Cause,
    /// What was said about it.
    pub error: String,
    /// How often it was tried; never, if it stands behind another one.
    pub attempts: u32,
}

/// Consecutive records of one partition, applied or put aside as one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Batch {
    /// The place before the batch: what the store must hold when it is applied.
    pub from: Place,
    /// The records to be applied, by offset.
    pub records: Vec<Record>,
    /// The records between them that are put aside, by offset.
    pub parked: Vec<Parked>,
    /// Whether more records have come already, so that another batch follows at once.
    pub has_followers: bool,
}

impl Batch {
    /// The next offset once all of the batch is applied.
    #[must_use]
    pub fn end(&self) -> i64 {
        let applied = self.records.last();
        let last = applied.into_iter().chain(self.parked.last().map(|parked| &parked.record));
        last.map(|record| record.offset + 1).max().unwrap_or(self.from.next_offset)
    }

    /// What is put aside in front of that offset.
    pub fn parked_before(&self, offset: i64) -> impl Iterator<Item = &Parked> {
        self.parked.iter().take_while(move |parked| parked.record.offset < offset)
    }

    /// Everything, by offset.
    #[must_use]
    pub fn into_records(self) -> Vec<Record> {
        let mut records = self.records;
        if !self.parked.is_empty() {
            records.extend(self.parked.into_iter().map(|parked| parked.record));
            records.sort_by_key(|record| record.offset);
        }
        records
    }
}

/// How far a batch was applied.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Applied {
    /// The next offset to apply; below the batch's end if something is in the way.
    pub next_offset: i64,
    /// How many events became changes.
    pub events: u64,
    /// How many events were passed over because their type is not known here.
    pub passed_over: u64,
    /// What stands at `next_offset`, if it could not be applied.
    pub obstacle: Option<Obstacle>,
}

/// What came of parked events that were tried again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Redriven {
    /// How many are applied and off the list; none, if it is too early for them.
    pub events: u64,
    /// Whether the stream has more that are parked.
    pub has_more: bool,
}

/// Why an event cannot become changes.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Obstacle {
    /// Its schema is not known yet: the partition waits and tries again.
    #[error("offset {offset}: schema id {schema_id} is not known here (is the registry running?)")]
    UnknownSchema {
        /// Where.
        offset: i64,
        /// The id in the event's first bytes.
        schema_id: u32,
    },
    /// Its bytes are not an event.
    #[error("offset {offset}: {reason}")]
    Undecodable {
        /// Where.
        offset: i64,
        /// What is wrong.
        reason: String,
    },
    /// Its stream's events before it are missing: the log or the store is corrupt.
    #[error(
        "offset {offset}: stream {stream} has version {version}, but the next event is number \
         {sequence}: events are missing"
    )]
    Gap {
        /// Where.
        offset: i64,
        /// The aggregate id.
        stream: String,
        /// The version of its row.
        version: u64,
        /// The sequence of the event that was found instead of `version + 1`.
        sequence: u64,
    },
}

impl Obstacle {
    /// Whether it may go away by itself.
    #[must_use]
    pub const fn is_transient(&self) -> bool {
        matches!(self, Self::UnknownSchema { .. })
    }
}

/// What an event's key and headers say; the event itself is still bytes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Head<'a> {
    /// The aggregate id.
    pub stream: &'a str,
    /// The event's number in its stream, from 1.
    pub sequence: u64,
    /// The event's id.
    pub event_id: Uuid,
    /// The full record name.
    pub event_type: &'a str,
    /// The version of its schema.
    pub schema_version: u16,
    /// When it happened.
    pub occurred_at: Timestamp,
    /// The command that it follows from.
    pub command_id: Option<Uuid>,
    /// What it belongs to.
    pub correlation_id: Option<&'a str>,
    /// What caused it.
    pub causation_id: Option<&'a str>,
}

impl<'a> Head<'a> {
    /// Reads key and headers of an event.
    ///
    /// # Errors
    /// Says which of them is missing or malformed.
    pub fn read(record: &'a Record) -> Result<Self, String> {
        let key = record.key.as_deref().unwrap_or_default();
        let (stream, sequence) =
            parse_event_key(key).ok_or_else(|| "the key is no event key".to_owned())?;
        let mut head = Self {
            stream,
            sequence,
            event_id: Uuid::nil(),
            event_type: "",
            schema_version: 0,
            occurred_at: Timestamp(i64::MIN),
            command_id: None,
            correlation_id: None,
            causation_id: None,
        };
        for (name, value) in record.headers.iter() {
            let text = value.and_then(|value| std::str::from_utf8(value).ok());
            if let Some(text) = text {
                head.take(name, text);
            }
        }
        let missing = [
            ("ce_id", head.event_id.is_nil()),
            ("ce_type", head.event_type.is_empty()),
            ("ce_time", head.occurred_at.0 == i64::MIN),
            ("schema_version", head.schema_version == 0),
        ];
        match missing.iter().find(|(_, is_missing)| *is_missing) {
            Some((name, _)) => Err(format!("the header {name} is missing or malformed")),
            None => Ok(head),
        }
    }

    fn take(&mut self, name: &str, text: &'a str) {
        match name {
            "ce_id" => self.event_id = Uuid::try_parse(text).unwrap_or_default(),
            "ce_type" => self.event_type = text,
            "ce_time" => {
                if let Some(time) = Timestamp::parse_rfc3339(text) {
                    self.occurred_at = time;
                }
            }
            "schema_version" => self.schema_version = text.parse().unwrap_or(0),
            "command_id" => self.command_id = Uuid::try_parse(text).ok(),
            "correlation_id" => self.correlation_id = Some(text),
            "causation_id" => self.causation_id = Some(text),
            _ => {}
        }
    }

    /// The last part of the record's name: `MoneyDeposited`.
    #[must_use]
    pub fn short_type(&self) -> &'a str {
        self.event_type.rsplit_once('.').map_or(self.event_type, |(_, short)| short)
    }
}

/// Events of one kind of aggregate -> changes, gathered over a batch.
pub trait Projection {
    /// What happened.
    type Event;

    /// Adds what follows from one event to the changes so far. It never fails, logs or reads a
    /// clock; events of one stream come in order, each once. `None` is an event of an unknown
    /// type: it changes nothing but the stream's version.
    fn project(&mut self, head: &Head<'_>, event: Option<&Self::Event>);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::message::Headers;
    use crate::kernel::stream::event_key;

    fn record(without: &str) -> Record {
        let mut headers = Headers::default();
        for (name, value) in [
            ("ce_id", "0198c0de-0000-8000-8000-000000000001"),
            ("ce_type", "millrace.banking.account.MoneyDeposited"),
            ("ce_time", "2026-11-21T10:15:00.123456Z"),
            ("schema_version", "2"),
            ("correlation_id", "abc"),
        ] {
            if name != without {
                headers.push(name, value);
            }
        }
        let key = Some(event_key("acc-1", 7).into());
        Record { key, headers, ..Record::default() }
    }

    #[test]
    fn an_events_head_is_read_from_key_and_headers() {
        let record = record("");
        let head = Head::read(&record).unwrap();
        assert_eq!((head.stream, head.sequence), ("acc-1", 7));
        assert_eq!(head.short_type(), "MoneyDeposited");
        assert_eq!(head.schema_version, 2);
        assert_eq!(head.occurred_at.to_rfc3339(), "2026-11-21T10:15:00.123456Z");
        assert_eq!(head.correlation_id, Some("abc"));
        assert_eq!(head.causation_id, None);
    }

    #[test]
    fn a_missing_header_is_named() {
        for name in ["ce_id", "ce_type", "ce_time", "schema_version"] {
            let record = record(name);
            let error = Head::read(&record).unwrap_err();
            assert!(error.contains(name), "{error}");
        }
        assert!(Head::read(&Record::default()).unwrap_err().contains("key"));
    }
}
