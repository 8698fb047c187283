//! Where a command that one of us sent on comes from, signed: `origin` header <-> [`Origin`].
//!
//! A sender that crosses partitions sends outside any transaction, so it may repeat itself. The
//! target keeps the highest origin of each source and drops what is not above it. The signature
//! covers the command too, so that an origin cannot be put on another one.
//!
//! Operators have no offsets to count by, only clocks that disagree: what they send stands in no
//! order, and their command ids alone tell a repeat.

use std::fmt::Write as _;

use ring::hmac;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// One partition that somebody reads and sends from.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Source {
    /// The sender's consumer group.
    pub group: String,
    /// The topic that it read, by its id.
    pub topic_id: Uuid,
    /// The partition that it read.
    pub partition: i32,
}

/// Who sent a command on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sender {
    /// A handler, because the command had landed on another partition than its own. It is still
    /// the client's.
    Router,
    /// A process manager: internal commands are taken from nobody but it and an operator.
    ProcessManager,
    /// An operator, in a process manager's place.
    Operator,
}

impl Sender {
    /// Whether its commands are a process manager's: internal ones are taken from it.
    #[must_use]
    pub const fn is_process_manager(self) -> bool {
        matches!(self, Self::ProcessManager | Self::Operator)
    }

    /// Whether its origins rise, so that one that does not is a repeat.
    #[must_use]
    pub const fn is_ordered(self) -> bool {
        matches!(self, Self::Router | Self::ProcessManager)
    }
}

/// The cause of a command that was sent on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    /// Who sent it.
    pub sender: Sender,
    /// Where its cause stands.
    pub source: Source,
    /// The cause's offset.
    pub offset: i64,
    /// Its place among the commands of the same cause.
    pub index: u32,
}

/// The parts of a command that an origin's signature covers.
#[derive(Clone, Copy, Debug)]
pub struct Signed<'a> {
    /// The topic that the command is sent to, with its namespace.
    pub topic: &'a str,
    /// The record's key.
    pub key: &'a [u8],
    /// The command id's header.
    pub command_id: &'a [u8],
    /// The record's value.
    pub value: &'a [u8],
}

impl Origin {
    /// An operator's.
    #[must_use]
    pub fn operator() -> Self {
        let source =
            Source { group: "millrace.operator".to_owned(), topic_id: Uuid::nil(), partition: 0 };
        Self { sender: Sender::Operator, source, offset: 0, index: 0 }
    }

    /// The header's text.
    #[must_use]
    pub fn to_header(&self, signed: Signed<'_>, key: &hmac::Key) -> String {
        let mut text = self.unsigned();
        let tag = sign(&text, signed, key);
        text.push(';');
        for byte in tag.as_ref() {
            // Writing to a String cannot fail.
            let _ = write!(text, "{byte:02x}");
        }
        text
    }

    fn unsigned(&self) -> String {
        let sender = match self.sender {
            Sender::Router => "router",
            Sender::ProcessManager => "process-manager",
            Sender::Operator => "operator",
        };
        let Source { group, topic_id, partition } = &self.source;
        format!("{sender};{group};{topic_id};{partition};{};{}", self.offset, self.index)
    }

    /// Reads the header; `None` if it is malformed or its signature is wrong.
    #[must_use]
    pub fn verify(header: &[u8], signed: Signed<'_>, key: &hmac::Key) -> Option<Self> {
        let header = std::str::from_utf8(header).ok()?;
        let (text, tag) = header.rsplit_once(';')?;
        let origin = Self::parse(text)?;
        let tag = from_hex(tag)?;
        hmac::verify(key, &covered(text, signed), &tag).ok()?;
        Some(origin)
    }

    /// Reads the header without a key: who somebody says has sent it.
    #[must_use]
    pub fn claimed(header: &[u8]) -> Option<Self> {
        let (text, _) = std::str::from_utf8(header).ok()?.rsplit_once(';')?;
        Self::parse(text)
    }

    fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split(';');
        let sender = match parts.next()? {
            "router" => Sender::Router,
            "process-manager" => Sender::ProcessManager,
            "operator" => Sender::Operator,
            _ => return None,
        };
        let group = parts.next()?.to_owned();
        let topic_id = parts.next()?.parse().ok()?;
        let partition = parts.next()?.parse().ok()?;
        let offset = parts.next()?.parse().ok()?;
        let index = parts.next()?.parse().ok()?;
        let source = Source { group, topic_id, partition };
        parts.next().is_none().then_some(Self { sender, source, offset, index })
    }
}

fn sign(text: &str, signed: Signed<'_>, key: &hmac::Key) -> hmac::Tag {
    hmac::sign(key, &covered(text, signed))
}

/// Every part with its length, so that no two different commands read the same.
fn covered(text: &str, signed: Signed<'_>) -> Vec<u8> {
    let parts =
        [text.as_bytes(), signed.topic.as_bytes(), signed.key, signed.command_id, signed.value];
    let mut bytes = Vec::with_capacity(parts.iter().map(|part| part.len() + 8).sum());
    for part in parts {
        bytes.extend_from_slice(&(part.len() as u64).to_be_bytes());
        bytes.extend_from_slice(part);
    }
    bytes
}

/// A tag's 32 bytes.
fn from_hex(text: &str) -> Option<[u8; 32]> {
    let digits: &[u8; 64] = text.as_bytes().try_into().ok()?;
    let digit = |digit: u8| match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    };
    let mut bytes = [0; 32];
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        *byte = digit(pair[0])? << 4 | digit(pair[1])?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn origin() -> Origin {
        Origin {
            sender: Sender::ProcessManager,
            source: Source {
                group: "millrace.reactor.transfer".to_owned(),
                topic_id: Uuid::from_u128(5),
                partition: 2,
            },
            offset: 99,
            index: 1,
        }
    }

    const SIGNED: Signed<'static> =
        Signed { topic: "banking.account.commands", key: b"acc-1", command_id: b"c", value: b"{}" };

    #[test]
    fn an_origin_holds_for_its_own_command_under_its_own_key_only() {
        let key = hmac::Key::new(hmac::HMAC_SHA256, b"secret");
        let header = origin().to_header(SIGNED, &key);
        assert_eq!(Origin::verify(header.as_bytes(), SIGNED, &key), Some(origin()));

        let other_value = Signed { value: b"{\"amount\":\"1000000\"}", ..SIGNED };
        assert_eq!(Origin::verify(header.as_bytes(), other_value, &key), None);
        let moved = Signed { key: b"acc-1c", command_id: b"", ..SIGNED };
        assert_eq!(Origin::verify(header.as_bytes(), moved, &key), None);
        let other_key = hmac::Key::new(hmac::HMAC_SHA256, b"guess");
        assert_eq!(Origin::verify(header.as_bytes(), SIGNED, &other_key), None);
        let raised = header.replace(";99;", ";98;");
        assert_eq!(Origin::verify(raised.as_bytes(), SIGNED, &key), None);
    }

    #[test]
    fn an_operators_origin_reads_back_and_stands_in_no_order() {
        let key = hmac::Key::new(hmac::HMAC_SHA256, b"secret");
        let header = Origin::operator().to_header(SIGNED, &key);
        let found = Origin::verify(header.as_bytes(), SIGNED, &key).unwrap();
        assert_eq!(found, Origin::operator());
        assert!(found.sender.is_process_manager() && !found.sender.is_ordered());
        assert!(!Sender::Router.is_process_manager());
    }

    #[test]
    fn nonsense_is_no_origin() {
        let key = hmac::Key::new(hmac::HMAC_SHA256, b"secret");
        for header in ["", ";", "router;g;x", "router;g;0;0;0;0;zz", "\u{fc};\u{fc}"] {
            assert_eq!(Origin::verify(header.as_bytes(), SIGNED, &key), None, "{header}");
        }
    }
}
