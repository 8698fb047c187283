//! Parked events in the stores: put aside in the order of the log, kept with all that it takes to
//! apply them later, taken off the list when that was done.
//!
//! In Postgres they are written in the transaction of the rows and the checkpoint. In ClickHouse,
//! where the rows are the checkpoint, they are written before the rows: what is written twice has
//! the same key, and what is read again is parked again.

pub(super) mod clickhouse;
mod clickhouse_letters;
pub(super) mod postgres;

use serde_json::Value;

use crate::engine::projector::{Failure, Refusal};
use crate::kernel::message::{Headers, Record};
use crate::kernel::projection::Batch;
use crate::kernel::stream::parse_event_key;
use crate::kernel::time::Timestamp;

/// The most characters of an error that are kept.
const ERROR_CHARS_MAX: usize = 1_000;

/// How many events of one partition are parked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Count {
    /// The projection.
    pub projection: String,
    /// The topic.
    pub topic: String,
    /// The partition.
    pub partition: i32,
    /// The events.
    pub events: u64,
    /// Their streams.
    pub streams: u64,
    /// The streams that somebody wants tried again.
    pub wanted: Vec<String>,
}

/// Which parked events to look at.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// Only this projection's.
    pub projection: Option<String>,
    /// Only of this topic, namespace included.
    pub topic: Option<String>,
    /// Only of this stream.
    pub stream: Option<String>,
    /// The most events.
    pub limit: usize,
}

/// A parked event, as people look at it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Letter {
    /// The projection that could not apply it.
    pub projection: String,
    /// The generation of its tables.
    pub generation: i32,
    /// The topic that the event stands in.
    pub topic: String,
    /// The partition.
    pub partition: i32,
    /// The stream.
    pub stream: String,
    /// The event's number in its stream.
    pub sequence: u64,
    /// Why it is parked, in one word.
    pub error_code: String,
    /// What was said.
    pub error: String,
    /// How often it was tried.
    pub attempts: u32,
    /// Since when it is parked.
    pub parked_at: Timestamp,
    /// Whether somebody wants it tried again and it was not yet.
    pub is_wanted: bool,
    /// The event as it stands in the log.
    pub record: Record,
}

/// Headers as JSON: `[["ce_type", "..."], ...]`; a value that is no UTF-8 is `{"hex": "..."}`.
#[must_use]
pub fn headers_to_json(headers: &Headers) -> Value {
    let value = |value: Option<&[u8]>| match value.map(|bytes| (bytes, std::str::from_utf8(bytes)))
    {
        None => Value::Null,
        Some((_, Ok(text))) => Value::from(text),
        Some((bytes, Err(_))) => {
            let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
            serde_json::json!({ "hex": hex })
        }
    };
    headers.iter().map(|(name, bytes)| Value::from(vec![Value::from(name), value(bytes)])).collect()
}

/// The headers that JSON of that form says.
fn headers_from_json(text: &str) -> Headers {
    let pairs: Vec<(String, Value)> = serde_json::from_str(text).unwrap_or_default();
    let mut headers = Headers::with_capacity(text.len());
    for (name, value) in &pairs {
        let hex = value.get("hex").and_then(Value::as_str).map(from_hex);
        let bytes = hex.or_else(|| value.as_str().map(|text| text.as_bytes().to_vec()));
        headers.push_optional(name, bytes.as_deref());
    }
    headers
}

fn from_hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text
        .chars()
        .filter_map(|digit| digit.to_digit(16))
        .filter_map(|digit| u8::try_from(digit).ok())
        .collect();
    digits.chunks_exact(2).map(|pair| (pair[0] << 4) | pair[1]).collect()
}

/// A stream's name in Postgres, which has no text with a NUL.
fn without_nul(text: &str) -> String {
    text.replace('\0', "\u{2400}")
}

/// The event's type, as far as its headers say one.
fn event_type(record: &Record) -> &str {
    record.headers.text("ce_type").unwrap_or_default()
}

/// The stream and the sequence of a record that is parked, which has both.
fn identity(record: &Record) -> (&str, u64) {
    record.key.as_deref().and_then(parse_event_key).unwrap_or_default()
}

/// Finds the event that a store means, if its words name a stream of the batch, and leaves the
/// words out that repeat the row: they may be about a person.
pub(super) fn pointed_out(failure: Failure, batch: &Batch) -> Failure {
    let Failure::Refused(mut refusal) = failure else { return failure };
    if refusal.suspect.is_none() {
        refusal.suspect = suspect(batch, &refusal.reason);
    }
    Failure::Refused(shortened(refusal))
}

fn shortened(refusal: Refusal) -> Refusal {
    let line = refusal.reason.split("\nDETAIL:").next().unwrap_or_default();
    let line = line.split("Column values:").next().unwrap_or_default().trim();
    let reason = line.chars().take(ERROR_CHARS_MAX).collect();
    Refusal { reason, ..refusal }
}

/// The first event of a batch whose stream is named in a text, as a word of its own.
fn suspect(batch: &Batch, text: &str) -> Option<i64> {
    let is_part = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_.:/".contains(byte);
    let names = |record: &&Record| {
        let (stream, _) = identity(record);
        !stream.is_empty()
            && text.match_indices(stream).any(|(at, _)| {
                let before = text.as_bytes().get(at.wrapping_sub(1));
                let after = text.as_bytes().get(at + stream.len());
                !before.is_some_and(is_part) && !after.is_some_and(is_part)
            })
    };
    batch.records.iter().find(names).map(|record| record.offset)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::projection::Cause;
    use crate::kernel::stream::event_key;

    #[test]
    fn headers_survive_whatever_they_hold() {
        let mut headers = Headers::default();
        headers.push("ce_type", "a \"word\" \0 é");
        headers.push_optional("none", None);
        headers.push("bytes", [0xff, 0x00, 0x1a]);
        let text = headers_to_json(&headers).to_string();
        assert!(!text.contains('\0'));
        assert_eq!(headers_from_json(&text), headers);
    }

    #[test]
    fn the_event_that_a_store_names_is_found_and_its_row_is_left_out() {
        let record = |(offset, stream): (i64, &&str)| Record {
            offset,
            key: Some(event_key(stream, 1).into()),
            ..Record::default()
        };
        let records = (0..).zip(&["acc-1", "acc-17", "acc-7", "acc-17"]).map(record).collect();
        let batch = Batch { records, ..Batch::default() };
        let refused = |reason: &str| {
            let refusal =
                Refusal { cause: Cause::StoreRefused, reason: reason.to_owned(), suspect: None };
            let Failure::Refused(refusal) = pointed_out(Failure::Refused(refusal), &batch) else {
                panic!("not a refusal")
            };
            (refusal.suspect, refusal.reason)
        };
        let postgres =
            "violates check constraint \"x\"\nDETAIL: Failing row contains (acc-17, ada)";
        let told = "violates check constraint \"x\"".to_owned();
        assert_eq!(refused(postgres), (Some(1), told));
        let clickhouse = "is violated at row 3. Column values: aggregate_id = 'acc-7'";
        assert_eq!(refused(clickhouse).0, Some(2));
        assert_eq!(refused("numeric field overflow").0, None);
        let other = Failure::Transient("acc-1".to_owned());
        assert_eq!(pointed_out(other.clone(), &batch), other);
    }
}
