//! A command that broke, kept as a dead letter -> the same command, signed for an operator.
//!
//! A failure is not remembered, so the command is decided anew under its own id. Its first origin
//! is taken by then: sent again with that one it would be dropped as a repeat.

use ring::hmac;
use uuid::Uuid;

use super::origin::{Origin, Signed};
use super::protocol::Crossing;
use super::reply::INTERNAL_ERROR;
use crate::kernel::message::{Headers, Outgoing, Record};
use crate::kernel::stream::{Kind, partition_of};

/// The first of the headers that a handler puts behind the command's own.
const ERROR_CODE: &str = "error_code";

/// Why a dead letter cannot be sent again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unsendable {
    /// Nobody who knows this key has sent the command.
    #[error("it is not signed with this installation's key")]
    NotOurs,
    /// The record was too large to be kept.
    #[error("only its headers were kept")]
    Incomplete,
}

/// A command of a process manager that broke while it was decided.
#[derive(Clone, Debug)]
pub struct Broken {
    /// The aggregate that it is for.
    pub id: String,
    /// The command's id.
    pub command_id: Uuid,
    /// What broke, for people.
    pub error: String,
    /// When, as text.
    pub failed_at: String,
    /// The command's bytes.
    pub value: Box<[u8]>,
    /// The command's own headers.
    headers: Headers,
}

impl Broken {
    /// Reads a dead letter; `None` if it holds a command that was refused, or a client's. Whose it
    /// says it is, is not proved before [`Broken::again`].
    #[must_use]
    pub fn of(letter: &Record) -> Option<Self> {
        let headers = &letter.headers;
        if headers.text(ERROR_CODE) != Some(INTERNAL_ERROR) {
            return None;
        }
        // A client's is the client's to send again.
        let origin = Origin::claimed(headers.get("origin")?)?;
        if !origin.sender.is_process_manager() {
            return None;
        }
        let id = std::str::from_utf8(letter.key.as_deref()?).ok()?;
        let text = |name| headers.text(name).unwrap_or_default().to_owned();
        Some(Self {
            id: id.to_owned(),
            command_id: headers.text("ce_id")?.parse().ok()?,
            error: text("error_message"),
            failed_at: text("failed_at"),
            value: letter.value.clone().unwrap_or_default(),
            headers: own(headers),
        })
    }

    /// What it all belongs to.
    #[must_use]
    pub fn correlation_id(&self) -> Option<String> {
        self.headers.text("correlation_id").map(str::to_owned)
    }

    /// What caused it.
    #[must_use]
    pub fn causation_id(&self) -> Option<String> {
        self.headers.text("causation_id").map(str::to_owned)
    }

    /// The command as it was, for that topic, with an operator's signature instead of its own.
    ///
    /// # Errors
    /// It is not a process manager's, or not whole.
    pub fn again(&self, topic: (&str, i32), key: &hmac::Key) -> Result<Crossing, Unsendable> {
        if self.value.is_empty() {
            return Err(Unsendable::Incomplete);
        }
        let (topic, partition_count) = topic;
        let signed = Signed {
            topic,
            key: self.id.as_bytes(),
            command_id: self.headers.get("ce_id").unwrap_or_default(),
            value: &self.value,
        };
        // Else whoever can write a command could have an operator sign it.
        let header = self.headers.get("origin").unwrap_or_default();
        Origin::verify(header, signed, key)
            .filter(|origin| origin.sender.is_process_manager())
            .ok_or(Unsendable::NotOurs)?;
        let mut headers = Headers::with_capacity(self.headers.byte_count() + 256);
        for (name, value) in self.headers.iter().filter(|(name, _)| *name != "origin") {
            headers.push_optional(name, value);
        }
        headers.push("origin", Origin::operator().to_header(signed, key));
        let record = Outgoing {
            kind: Kind::Commands,
            key: Some(self.id.clone().into_bytes()),
            value: Some(self.value.to_vec()),
            headers,
        };
        let partition = partition_of(&self.id, partition_count);
        Ok(Crossing { topic: topic.into(), partition, record })
    }
}

/// The headers that the command came with: what stands before the handler's own.
#[must_use]
pub fn own(headers: &Headers) -> Headers {
    let added = headers.iter().filter(|(name, _)| *name == ERROR_CODE).count();
    let (mut own, mut seen) = (Headers::default(), 0);
    for (name, value) in headers.iter() {
        seen += usize::from(name == ERROR_CODE);
        if seen == added {
            break;
        }
        own.push_optional(name, value);
    }
    own
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::origin::{Sender, Source};

    const TOPIC: &str = "banking.transfer.commands";
    const ID: &str = "0e1f6a52-8c1d-8f0e-9d2b-000000000002";

    fn letter(sender: Sender, code: &str) -> Record {
        let key = hmac::Key::new(hmac::HMAC_SHA256, b"secret");
        let source = Source { group: "g".to_owned(), topic_id: Uuid::nil(), partition: 0 };
        let origin = Origin { sender, source, offset: 7, index: 0 };
        let signed = Signed { topic: TOPIC, key: b"t-1", command_id: ID.as_bytes(), value: b"{}" };
        let mut headers = Headers::default();
        headers.push("ce_id", ID);
        headers.push("reply_to", "t-9");
        // A sender's own header of that name is not the handler's.
        headers.push("error_code", "mine");
        headers.push("origin", origin.to_header(signed, &key));
        headers.push("meta_x", "1");
        headers.push("error_code", code);
        headers.push("error_message", "the decision broke");
        headers.push("failed_at", "2026-01-01T00:00:00Z");
        let (key, value) = (Some(b"t-1"[..].into()), Some(b"{}"[..].into()));
        Record { key, value, headers, ..Record::default() }
    }

    #[test]
    fn what_broke_is_the_same_command_again_under_an_operators_origin() {
        let key = hmac::Key::new(hmac::HMAC_SHA256, b"secret");
        let broken = Broken::of(&letter(Sender::ProcessManager, INTERNAL_ERROR)).unwrap();
        assert_eq!((broken.id.as_str(), broken.error.as_str()), ("t-1", "the decision broke"));
        assert_eq!(broken.command_id.to_string(), ID);
        let again = broken.again((TOPIC, 4), &key).unwrap();
        assert_eq!(again.partition, partition_of("t-1", 4));
        let names: Vec<_> = again.record.headers.iter().map(|(name, _)| name).collect();
        assert_eq!(names, ["ce_id", "reply_to", "error_code", "meta_x", "origin"]);
        assert_eq!(again.record.headers.text("error_code"), Some("mine"));
        let signed = Signed { topic: TOPIC, key: b"t-1", command_id: ID.as_bytes(), value: b"{}" };
        let header = again.record.headers.get("origin").unwrap();
        assert_eq!(Origin::verify(header, signed, &key), Some(Origin::operator()));
        // What breaks again is kept again, and can be sent again.
        let mut headers = again.record.headers.clone();
        headers.push("error_code", INTERNAL_ERROR);
        let value = again.record.value.map(Vec::into_boxed_slice);
        let kept = Record { key: Some(b"t-1"[..].into()), value, headers, ..Record::default() };
        assert!(Broken::of(&kept).unwrap().again((TOPIC, 4), &key).is_ok());
    }

    #[test]
    fn an_operator_signs_nothing_that_no_process_manager_had_signed() {
        let key = hmac::Key::new(hmac::HMAC_SHA256, b"secret");
        assert!(Broken::of(&letter(Sender::Router, INTERNAL_ERROR)).is_none());
        let ours = Broken::of(&letter(Sender::ProcessManager, INTERNAL_ERROR)).unwrap();
        assert_eq!(ours.again(("other", 4), &key).err(), Some(Unsendable::NotOurs));
        let other = hmac::Key::new(hmac::HMAC_SHA256, b"guess");
        assert_eq!(ours.again((TOPIC, 4), &other).err(), Some(Unsendable::NotOurs));
        let cut = Record { value: None, ..letter(Sender::ProcessManager, INTERNAL_ERROR) };
        let cut = Broken::of(&cut).unwrap();
        assert_eq!(cut.again((TOPIC, 4), &key).err(), Some(Unsendable::Incomplete));
        assert!(Broken::of(&letter(Sender::ProcessManager, "InvalidField")).is_none());
    }
}
