//! Where a handler stands, twice: as a record in its snapshots topic, and as the metadata of the
//! offset that it commits. Both are written by every transaction, so they agree or tell the tale.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::origin::Source;
use crate::kernel::time::Timestamp;

/// The form of the position record that is written. The one before it is read, too.
const FORM: u8 = 2;
const FORM_BEFORE: u8 = 1;

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
}

/// The record as it was before `command_time`.
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
            FORM_BEFORE => {
                let before: PositionBefore = postcard::from_bytes(rest).ok()?;
                let PositionBefore { topic_id, next_offset, nonce, origins } = before;
                Some(Self { topic_id, next_offset, nonce, origins, command_time: None })
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
        };
        assert_eq!(Position::from_bytes(&position.to_bytes()), Some(position.clone()));
        assert_eq!(Position::from_bytes(&[3, 0]), None);
        // The form before ended with the origins.
        let mut before = Position { command_time: None, ..position }.to_bytes();
        assert_eq!(before.pop(), Some(0));
        before[0] = FORM_BEFORE;
        let read = Position::from_bytes(&before).unwrap();
        assert_eq!((read.next_offset, read.command_time), (42, None));
        assert_eq!(read.origins.len(), 1);
        assert_eq!(Position::from_bytes(&[]), None);
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
