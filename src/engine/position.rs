//! Where a handler stands, twice: as a record in its snapshots topic, and as the metadata of the
//! offset that it commits. Both are written by every transaction, so they agree or tell the tale.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::origin::Source;
use crate::kernel::time::Timestamp;

/// The form of the position record that is written. Those before it are read, too.
const FORM: u8 = 3;
/// Without `bound`.
const FORM_WITHOUT_BOUND: u8 = 2;
/// Without `command_time` and `bound`.
const FORM_WITHOUT_TIME: u8 = 1;

/// What the owner of a partition must know to go on where the last transaction ended.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Position {
    /// The commands topic that the offset belongs to: a topic made again has another id.
    pub topic_id: Uuid,
    /// The next command to read.
    pub next_offset: i64,
    /// The number drawn for the transaction that wrote this.
    pub nonce: u64,
    /// The highest origin taken from each source: what is not above it is a repeat.
    pub origins: BTreeMap<Source, (i64, u32)>,
    /// When the newest command before `next_offset` was appended, as far as the handler's own clock
    /// agrees. Answers are remembered from here back: by the log's time, so that neither a handler
    /// that was away for a day nor a clock that is wrong forgets one that a repeat still needs.
    pub command_time: Option<Timestamp>,
    /// From where on a restore reads the events; `None` is from the oldest on.
    pub bound: Option<Bound>,
}

/// A place in the events partition: whatever is before it is in the latest snapshot of its stream.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bound {
    /// The events topic that it is a place in.
    pub events_topic_id: Uuid,
    /// How the snapshots begin that it relies on: their form and the state's schema. Who reads
    /// others finds none.
    pub snapshots: [u8; 3],
    /// The first event to read.
    pub events_from: i64,
    /// What a restore must have found in the end.
    pub figures: Option<Figures>,
}

/// What there is in all, so that a restore can tell whether it has found everything.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Figures {
    /// The streams.
    pub streams: u64,
    /// The sum of their versions.
    pub events: u64,
}

/// The record as it was before `bound` and before `command_time`, which came last.
#[derive(Deserialize)]
struct PositionBefore {
    topic_id: Uuid,
    next_offset: i64,
    nonce: u64,
    origins: BTreeMap<Source, (i64, u32)>,
}

impl Position {
    /// The record's value.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        // Serialising these types into a growing buffer cannot fail; an empty record is refused.
        postcard::to_extend(self, vec![FORM]).unwrap_or_default()
    }

    /// Reads the record's value; `None` if it has another form.
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (&form, rest) = bytes.split_first()?;
        match form {
            FORM => postcard::from_bytes(rest).ok(),
            FORM_WITHOUT_BOUND | FORM_WITHOUT_TIME => {
                let (before, rest) = postcard::take_from_bytes(rest).ok()?;
                let PositionBefore { topic_id, next_offset, nonce, origins } = before;
                let command_time = match form {
                    FORM_WITHOUT_BOUND => postcard::from_bytes(rest).ok()?,
                    _ => None,
                };
                Some(Self { topic_id, next_offset, nonce, origins, command_time, bound: None })
            }
            _ => None,
        }
    }
}

/// What stands beside a committed offset of ours.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Witness {
    /// The cluster it was written in.
    pub cluster_id: String,
    /// The offset it was written with: a tool that moves the offset alone gives itself away.
    pub offset: i64,
    /// The transaction's number.
    pub nonce: u64,
}

impl Witness {
    /// The metadata's text.
    #[must_use]
    pub fn to_text(&self) -> String {
        format!("millrace1;{};{};{:016x}", self.cluster_id, self.offset, self.nonce)
    }

    /// Reads metadata; `None` if it is somebody else's, or stands beside another offset.
    #[must_use]
    pub fn parse(text: &str, committed_offset: i64) -> Option<Self> {
        let mut parts = text.split(';');
        if parts.next() != Some("millrace1") {
            return None;
        }
        let cluster_id = parts.next()?.to_owned();
        let offset = parts.next()?.parse().ok()?;
        let nonce = u64::from_str_radix(parts.next()?, 16).ok()?;
        (parts.next().is_none() && offset == committed_offset).then_some(Self {
            cluster_id,
            offset,
            nonce,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_position_reads_back() {
        let source = Source { group: "g".to_owned(), topic_id: Uuid::nil(), partition: 3 };
        let position = Position {
            topic_id: Uuid::from_u128(7),
            next_offset: 42,
            nonce: 9,
            origins: [(source, (17, 2))].into(),
            command_time: Some(Timestamp(5)),
            bound: Some(Bound {
                events_topic_id: Uuid::from_u128(8),
                snapshots: [2, 0, 1],
                events_from: 1_000,
                figures: Some(Figures { streams: 3, events: 1_200 }),
            }),
        };
        let bytes = position.to_bytes();
        assert_eq!(Position::from_bytes(&bytes), Some(position.clone()));
        for length in 0..bytes.len() {
            assert_eq!(Position::from_bytes(&bytes[..length]), None, "{length} bytes");
        }
        assert_eq!(Position::from_bytes(&[FORM + 1, 0]), None);
        // The form before ended with the command's time, the one before that with the origins.
        let mut before = Position { bound: None, ..position.clone() }.to_bytes();
        assert_eq!(before.pop(), Some(0));
        before[0] = FORM_WITHOUT_BOUND;
        let expected = Position { bound: None, ..position.clone() };
        assert_eq!(Position::from_bytes(&before), Some(expected));
        let mut before =
            Position { bound: None, command_time: None, ..position.clone() }.to_bytes();
        assert_eq!((before.pop(), before.pop()), (Some(0), Some(0)));
        before[0] = FORM_WITHOUT_TIME;
        let expected = Position { bound: None, command_time: None, ..position };
        assert_eq!(Position::from_bytes(&before), Some(expected));
    }

    #[test]
    fn a_witness_stands_only_beside_its_own_offset() {
        let witness = Witness { cluster_id: "c".to_owned(), offset: 5, nonce: u64::MAX };
        assert_eq!(Witness::parse(&witness.to_text(), 5), Some(witness.clone()));
        assert_eq!(Witness::parse(&witness.to_text(), 6), None);
        assert_eq!(Witness::parse("", 5), None);
        assert_eq!(Witness::parse("something else", 5), None);
    }
}
