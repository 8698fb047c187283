//! What banking's reactors have in common: records -> causes, causes -> commands.

use serde_json::Value;
use uuid::Uuid;

use crate::kernel::message::{Headers, Record};
use crate::kernel::reactor::{Dispatch, step_id};
use crate::kernel::result::{CommandResult, PROCESS_MANAGER, RESULT_OF};
use crate::kernel::stream::{AggregateName, parse_event_key};

/// An event that something may follow from.
pub(super) struct Cause<'a> {
    /// The aggregate.
    pub id: &'a str,
    /// The event's id.
    pub event_id: &'a str,
    /// The event's bytes.
    pub value: &'a [u8],
    event_type: &'a str,
    correlation_id: Option<&'a str>,
    headers: &'a Headers,
}

impl<'a> Cause<'a> {
    /// Takes an event's record apart; `None` for a tombstone.
    pub(super) fn of(record: &'a Record) -> Option<Self> {
        let (id, _) = parse_event_key(record.key.as_deref()?)?;
        Some(Self {
            id,
            event_id: record.headers.text("ce_id")?,
            value: record.value.as_deref()?,
            event_type: record.headers.text("ce_type")?,
            correlation_id: record.headers.text("correlation_id"),
            headers: &record.headers,
        })
    }

    /// Whether the event's short name is among these. What is not need not be read, and may be
    /// newer than this program.
    pub(super) fn is_one_of(&self, names: &[&str]) -> bool {
        let name = self.event_type.rsplit_once('.').map_or(self.event_type, |(_, name)| name);
        names.contains(&name)
    }

    /// A command that follows from it.
    pub(super) fn dispatch(
        &self,
        aggregate: AggregateName,
        id: &str,
        command_id: Uuid,
        body: &Value,
        reply_to: Option<&str>,
    ) -> Dispatch {
        Dispatch {
            aggregate,
            id: id.to_owned(),
            command_id,
            body: bytes(body),
            reply_to: reply_to.map(str::to_owned),
            correlation_id: self.correlation_id.map(str::to_owned),
            causation_id: Some(self.event_id.to_owned()),
            metadata: carried(self.headers),
        }
    }
}

/// What goes along from an event or a result to what follows from it.
pub(super) fn carried(headers: &Headers) -> Vec<(String, String)> {
    let mut carried = Vec::new();
    for (name, value) in headers.iter() {
        let name = match name {
            "command_time" => "ce_time",
            "actor" | "ip_address" | "traceparent" => name,
            free if free.starts_with("meta_") => free,
            _ => continue,
        };
        if let Some(value) = value.and_then(|value| std::str::from_utf8(value).ok()) {
            carried.push((name.to_owned(), value.to_owned()));
        }
    }
    carried
}

/// The saga that a result answers, and the result's bytes; `None` if a client had asked.
pub(super) fn asked_by(record: &Record) -> Option<(&str, &[u8])> {
    if record.headers.text(RESULT_OF) != Some(PROCESS_MANAGER) {
        return None;
    }
    Some((record.headers.text("reply_to")?, record.value.as_deref()?))
}

/// The id of the command that tells a saga of an answer. A failure may be answered several times
/// under one command id; each is news of its own.
pub(super) fn answer_id(saga: &str, result: &CommandResult, offset: i64) -> Uuid {
    step_id(saga, &format!("{}/{}/{offset}", result.command_id, result.decided_at.0))
}

/// A command's body as any client would write it.
pub(super) fn bytes(body: &Value) -> Vec<u8> {
    body.to_string().into_bytes()
}
