//! Results: [`CommandResult`] <-> `millrace.CommandResult` in Avro, one record for all domains.

use std::fmt;
use std::sync::LazyLock;

use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_bytes::ByteArray;
use uuid::Uuid;

use super::flat::{boolean, long, put_bytes, put_long, text};
use super::schemas::Schemas;
use super::{avro, compiled};
use crate::kernel::codec::CodecError;
use crate::kernel::result::{Accepted, CommandResult, Outcome};
use crate::kernel::stream::Kind;
use crate::kernel::time::Timestamp;

const RECORD: &str = "millrace.CommandResult";

/// The record's schema.
pub const SOURCE: compiled::Source = compiled::Source {
    record: RECORD,
    version: 1,
    kind: Kind::Results,
    text: include_str!("../../schemas/millrace/CommandResult.avsc"),
};

static CURRENT: LazyLock<Option<usize>> = LazyLock::new(|| compiled::current(RECORD));

#[derive(Deserialize)]
#[cfg_attr(test, derive(Debug, PartialEq))]
struct Read {
    command_id: String,
    aggregate_id: String,
    outcome: Symbol,
    code: Option<String>,
    message: Option<String>,
    retryable: bool,
    details: ReadDetails,
    content_hash: ByteArray<32>,
    first_sequence: Option<i64>,
    last_sequence: Option<i64>,
    version: i64,
    decided_at: i64,
    duplicate: bool,
    consistency_token: String,
}

#[derive(Clone, Copy, Deserialize)]
#[cfg_attr(test, derive(Debug, PartialEq, serde::Serialize))]
#[serde(rename_all = "UPPERCASE")]
enum Symbol {
    Accepted,
    Rejected,
    Failed,
}

#[cfg_attr(test, derive(Debug, PartialEq))]
struct ReadDetails(Vec<(String, String)>);

impl<'de> Deserialize<'de> for ReadDetails {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Pairs;

        impl<'de> Visitor<'de> for Pairs {
            type Value = ReadDetails;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a map of strings")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<ReadDetails, A::Error> {
                let mut details = Vec::new();
                while let Some(entry) = map.next_entry()? {
                    details.push(entry);
                }
                details.sort();
                Ok(ReadDetails(details))
            }
        }

        deserializer.deserialize_map(Pairs)
    }
}

/// Appends a result's wire form. There is one for every command, so it is written by hand.
///
/// # Errors
/// Its schema has no id yet, or a number is beyond Avro's.
pub fn encode(
    schemas: &Schemas,
    result: &CommandResult,
    value: &mut Vec<u8>,
) -> Result<(), CodecError> {
    let unencodable = |reason: String| CodecError::Unencodable { what: RECORD, reason };
    let Some(id) = CURRENT.and_then(|own| schemas.own_id(own)) else {
        let reason = "its schema has no id yet: run `millrace schemas register`".to_owned();
        return Err(unencodable(reason));
    };
    let long = |number: u64| {
        i64::try_from(number).map_err(|_| unencodable(format!("{number} is no Avro long")))
    };
    let first_sequence = result.first_sequence.map(long).transpose()?;
    let last_sequence = result.last_sequence.map(long).transpose()?;
    let version = long(result.version)?;
    value.push(avro::MAGIC);
    value.extend_from_slice(&id.to_be_bytes());
    let mut text = Uuid::encode_buffer();
    put_bytes(value, result.command_id.hyphenated().encode_lower(&mut text).as_bytes());
    put_bytes(value, result.aggregate_id.as_bytes());
    let outcome = match result.outcome {
        Outcome::Accepted => 0,
        Outcome::Rejected => 1,
        Outcome::Failed => 2,
    };
    put_long(value, outcome);
    put_optional_text(value, result.code.as_deref());
    put_optional_text(value, result.message.as_deref());
    value.push(u8::from(result.retryable));
    if !result.details.is_empty() {
        put_long(value, i64::try_from(result.details.len()).unwrap_or(i64::MAX));
        for (name, text) in &result.details {
            put_bytes(value, name.as_bytes());
            put_bytes(value, text.as_bytes());
        }
    }
    put_long(value, 0);
    value.extend_from_slice(&result.content_hash);
    put_optional_long(value, first_sequence);
    put_optional_long(value, last_sequence);
    put_long(value, version);
    put_long(value, result.decided_at.0);
    value.push(u8::from(result.duplicate));
    put_bytes(value, result.consistency_token.as_bytes());
    Ok(())
}

fn put_optional_text(value: &mut Vec<u8>, text: Option<&str>) {
    put_long(value, i64::from(text.is_some()));
    if let Some(text) = text {
        put_bytes(value, text.as_bytes());
    }
}

fn put_optional_long(value: &mut Vec<u8>, number: Option<i64>) {
    put_long(value, i64::from(number.is_some()));
    if let Some(number) = number {
        put_long(value, number);
    }
}

/// Reads a datum of the compiled-in schema; `None` if the general reader must look at it.
fn read_own(datum: &[u8]) -> Option<Read> {
    let rest = &mut &*datum;
    let command_id = text(rest)?.to_owned();
    let aggregate_id = text(rest)?.to_owned();
    let outcome = match long(rest)? {
        0 => Symbol::Accepted,
        1 => Symbol::Rejected,
        2 => Symbol::Failed,
        _ => return None,
    };
    let code = optional(rest, text)?.map(str::to_owned);
    let message = optional(rest, text)?.map(str::to_owned);
    let retryable = boolean(rest)?;
    if long(rest)? != 0 {
        return None; // Details: refusals are few.
    }
    let (content_hash, after) = rest.split_first_chunk::<32>()?;
    *rest = after;
    let read = Read {
        command_id,
        aggregate_id,
        outcome,
        code,
        message,
        retryable,
        details: ReadDetails(Vec::new()),
        content_hash: ByteArray::new(*content_hash),
        first_sequence: optional(rest, long)?,
        last_sequence: optional(rest, long)?,
        version: long(rest)?,
        decided_at: long(rest)?,
        duplicate: boolean(rest)?,
        consistency_token: text(rest)?.to_owned(),
    };
    rest.is_empty().then_some(read)
}

fn optional<'a, T>(
    rest: &mut &'a [u8],
    read: impl FnOnce(&mut &'a [u8]) -> Option<T>,
) -> Option<Option<T>> {
    match long(rest)? {
        0 => Some(None),
        1 => read(rest).map(Some),
        _ => None,
    }
}

/// Reads what is remembered of an accepted command; `None` if [`decode`] must look at it.
#[must_use]
pub fn decode_accepted<'v>(schemas: &Schemas, value: &'v [u8]) -> Option<Accepted<'v>> {
    let (id, datum) = avro::split(value)?;
    let own = CURRENT.is_some_and(|own| schemas.own_id(own) == Some(id));
    let rest = &mut &*datum;
    let command_id = if own { text(rest)? } else { return None };
    let aggregate_id = text(rest)?;
    let accepted = long(rest)? == 0;
    let blank = long(rest)? == 0 && long(rest)? == 0 && !boolean(rest)? && long(rest)? == 0;
    if !accepted || !blank {
        return None;
    }
    let (content_hash, after) = rest.split_first_chunk::<32>()?;
    *rest = after;
    let (first, last) = (optional(rest, long)?, optional(rest, long)?);
    let accepted = Accepted {
        command_id: Uuid::try_parse_ascii(command_id.as_bytes()).ok()?,
        aggregate_id,
        content_hash: *content_hash,
        event_count: match (first, last) {
            (None, None) => 0,
            (Some(first), Some(last)) => u64::try_from(last.checked_sub(first)? + 1).ok()?,
            _ => return None,
        },
        version: u64::try_from(long(rest)?).ok()?,
        decided_at: Timestamp(long(rest)?),
        duplicate: boolean(rest)?,
    };
    text(rest)?;
    rest.is_empty().then_some(accepted)
}

/// Reads a result.
///
/// # Errors
/// Its schema is not known here, or the bytes are corrupt.
pub fn decode(schemas: &Schemas, value: &[u8]) -> Result<CommandResult, CodecError> {
    let corrupt = |reason: String| CodecError::Corrupt { what: RECORD, reason };
    let Some((id, datum)) = avro::split(value) else {
        return Err(corrupt("it is not in the registry's wire format".to_owned()));
    };
    let writer = schemas.writer(id)?;
    if writer.record != RECORD {
        return Err(corrupt(format!("it is a {}", writer.record)));
    }
    let own = if writer.version == Some(SOURCE.version) { read_own(datum) } else { None };
    let read = match own {
        Some(read) => read,
        None => avro::decode(&writer.schema, datum).map_err(corrupt)?,
    };
    let count =
        |number: i64| u64::try_from(number).map_err(|_| corrupt(format!("{number} is below zero")));
    Ok(CommandResult {
        command_id: Uuid::parse_str(&read.command_id)
            .map_err(|_| corrupt(format!("{:?} is no command id", read.command_id)))?,
        aggregate_id: read.aggregate_id,
        outcome: match read.outcome {
            Symbol::Accepted => Outcome::Accepted,
            Symbol::Rejected => Outcome::Rejected,
            Symbol::Failed => Outcome::Failed,
        },
        code: read.code,
        message: read.message,
        retryable: read.retryable,
        details: read.details.0,
        content_hash: read.content_hash.into_array(),
        first_sequence: read.first_sequence.map(count).transpose()?,
        last_sequence: read.last_sequence.map(count).transpose()?,
        version: count(read.version)?,
        decided_at: Timestamp(read.decided_at),
        duplicate: read.duplicate,
        consistency_token: read.consistency_token,
    })
}

#[cfg(test)]
mod tests {
    use serde::ser::SerializeMap;
    use serde::{Serialize, Serializer};

    use super::*;

    /// The record as serde writes it by its schema.
    #[derive(Serialize)]
    struct Written<'a> {
        command_id: &'a str,
        aggregate_id: &'a str,
        outcome: Symbol,
        code: Option<&'a str>,
        message: Option<&'a str>,
        retryable: bool,
        details: WrittenDetails<'a>,
        content_hash: &'a ByteArray<32>,
        first_sequence: Option<i64>,
        last_sequence: Option<i64>,
        version: i64,
        decided_at: i64,
        duplicate: bool,
        consistency_token: &'a str,
    }

    struct WrittenDetails<'a>(&'a [(String, String)]);

    impl Serialize for WrittenDetails<'_> {
        fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
            let mut map = serializer.serialize_map(Some(self.0.len()))?;
            for (name, text) in self.0 {
                map.serialize_entry(name, text)?;
            }
            map.end()
        }
    }

    /// By the schema, field by field.
    fn encoded_by_schema(schemas: &Schemas, result: &CommandResult) -> Vec<u8> {
        let own = CURRENT.unwrap();
        let long = |number: u64| i64::try_from(number).unwrap();
        let written = Written {
            command_id: &result.command_id.to_string(),
            aggregate_id: &result.aggregate_id,
            outcome: match result.outcome {
                Outcome::Accepted => Symbol::Accepted,
                Outcome::Rejected => Symbol::Rejected,
                Outcome::Failed => Symbol::Failed,
            },
            code: result.code.as_deref(),
            message: result.message.as_deref(),
            retryable: result.retryable,
            details: WrittenDetails(&result.details),
            content_hash: &ByteArray::new(result.content_hash),
            first_sequence: result.first_sequence.map(long),
            last_sequence: result.last_sequence.map(long),
            version: long(result.version),
            decided_at: result.decided_at.0,
            duplicate: result.duplicate,
            consistency_token: &result.consistency_token,
        };
        let mut value = Vec::new();
        let schema = &compiled::all()[own].schema;
        avro::encode(schemas.own_id(own).unwrap(), schema, &written, &mut value).unwrap();
        value
    }

    fn result() -> CommandResult {
        CommandResult {
            command_id: Uuid::from_u128(7),
            aggregate_id: "acc-1".to_owned(),
            outcome: Outcome::Rejected,
            code: Some("InsufficientFunds".to_owned()),
            message: Some("The balance does not cover it.".to_owned()),
            retryable: true,
            details: vec![
                ("available".to_owned(), "1.00".to_owned()),
                ("requested".to_owned(), "2.00".to_owned()),
            ],
            content_hash: [0xab; 32],
            first_sequence: None,
            last_sequence: None,
            version: 3,
            decided_at: Timestamp(1_767_225_600_000_001),
            duplicate: false,
            consistency_token: "token".to_owned(),
        }
    }

    #[test]
    fn reads_back_what_it_writes() {
        let schemas = Schemas::numbered_from(1);
        let accepted = CommandResult {
            outcome: Outcome::Accepted,
            code: None,
            message: None,
            details: Vec::new(),
            first_sequence: Some(4),
            last_sequence: Some(5),
            version: 5,
            retryable: false,
            duplicate: true,
            ..result()
        };
        let failed = CommandResult { outcome: Outcome::Failed, ..result() };
        for result in [result(), accepted, failed] {
            let mut value = b"before".to_vec();
            encode(&schemas, &result, &mut value).unwrap();
            assert_eq!(value[6..], encoded_by_schema(&schemas, &result));
            assert_eq!(decode(&schemas, &value[6..]), Ok(result.clone()));
            let accepted = decode_accepted(&schemas, &value[6..]);
            assert_eq!(accepted.is_some(), result.outcome == Outcome::Accepted);
            if let Some(accepted) = accepted {
                let expected = Accepted {
                    command_id: result.command_id,
                    aggregate_id: &result.aggregate_id,
                    content_hash: result.content_hash,
                    event_count: 2,
                    version: result.version,
                    decided_at: result.decided_at,
                    duplicate: result.duplicate,
                };
                assert_eq!(accepted, expected);
                for length in 0..value.len() - 6 {
                    assert_eq!(decode_accepted(&schemas, &value[6..6 + length]), None);
                }
            }
            if result.details.is_empty() {
                let general = avro::decode(&compiled::all()[CURRENT.unwrap()].schema, &value[11..]);
                let general: Read = general.unwrap();
                assert_eq!(read_own(&value[11..]), Some(general));
            }
        }
    }

    #[test]
    fn says_what_is_wrong() {
        let schemas = Schemas::numbered_from(1);
        let mut value = Vec::new();
        let beyond = CommandResult { version: u64::MAX, ..result() };
        assert!(encode(&schemas, &beyond, &mut value).is_err());
        assert!(encode(&Schemas::default(), &result(), &mut value).is_err());
        assert!(value.is_empty());
        encode(&schemas, &result(), &mut value).unwrap();
        assert!(matches!(decode(&Schemas::default(), &value), Err(CodecError::UnknownSchema(_))));
        for broken in [&value[..value.len() - 1], &value[..4], &[&value[..], &[0]].concat()] {
            assert!(matches!(decode(&schemas, broken), Err(CodecError::Corrupt { .. })));
        }
    }
}
