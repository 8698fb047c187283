//! What a turn writes: verdict -> event, result and dead-letter records with their headers.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::digest;
use uuid::Uuid;
use uuid::fmt::{Hyphenated, Simple};

use super::dedup::CommandKey;
use super::metadata::{Metadata, derived_id};
use super::protocol::Settings;
use crate::kernel::codec::{Codec, CodecError, EventType};
use crate::kernel::decider::Decider;
use crate::kernel::message::{Headers, Outgoing, Record};
use crate::kernel::result::{CommandResult, Outcome, PROCESS_MANAGER, RESULT_OF};
use crate::kernel::stream::{Kind, StreamHash, event_key};
use crate::kernel::time::Timestamp;
use crate::kernel::token;

/// The code of a command id that comes back with other content.
pub const IDEMPOTENCY_CONFLICT: &str = "IdempotencyConflict";
/// The code of an expected version that is not met.
pub const VERSION_CONFLICT: &str = "VersionConflict";
/// The code of an internal command that no process manager signed.
pub const FORBIDDEN: &str = "Forbidden";
/// The code of a decision that broke.
pub const INTERNAL_ERROR: &str = "InternalError";

/// The most characters of a message or a detail.
const TEXT_CHARS_MAX: usize = 500;
/// The most bytes of a dead letter: what its topic takes.
const DEAD_LETTER_BYTES_MAX: usize = 8 * 1024 * 1024;

/// What an event's own headers take, but for texts of any length.
const EVENT_HEADER_BYTES: usize = 400;
/// What a result takes, but for texts of any length.
const RESULT_BYTES: usize = 128;
/// The most digits of a number.
const DIGITS_MAX: usize = 20;

/// A command on its way through the turn.
pub(super) struct Request<'r> {
    /// The command as it came; a timer's command has none.
    pub(super) record: Option<&'r Record>,
    pub(super) aggregate_id: &'r str,
    /// The hash of its stream.
    pub(super) stream: StreamHash,
    pub(super) command_id: Uuid,
    pub(super) content_hash: [u8; 32],
    pub(super) metadata: Metadata<'r>,
    pub(super) from_process_manager: bool,
    /// The client's command that this one answers too: it is what the events come from.
    pub(super) on_behalf_of: Option<Uuid>,
}

impl Request<'_> {
    /// What the command is remembered by.
    pub(super) fn key(&self) -> CommandKey {
        CommandKey::new(self.stream, self.command_id, self.from_process_manager)
    }
}

/// Where a command stood first: topic id, partition, offset. It gets its id from there if it came
/// without one.
#[derive(Clone, Copy)]
pub(super) struct Place(pub(super) Uuid, pub(super) i32, pub(super) i64);

impl Place {
    pub(super) fn id(self) -> Uuid {
        derived_id(self.0, self.1, self.2)
    }
}

/// How a command ends.
pub(super) enum Verdict {
    Accepted {
        version: u64,
        event_count: u64,
    },
    Refused(Refusal),
    Failed(String),
    Repeat(CommandResult),
    /// Somebody else decides first; there is no result yet.
    HandedOn,
}

/// Why a command was refused, whoever found out.
#[derive(Default)]
pub(super) struct Refusal {
    pub(super) code: &'static str,
    pub(super) message: String,
    pub(super) retryable: bool,
    pub(super) details: Vec<(String, String)>,
    pub(super) is_malformed: bool,
}

/// Where an event stands.
#[derive(Clone, Copy)]
pub(super) struct EventPlace<'t> {
    pub(super) sequence: u64,
    /// Its time, as text.
    pub(super) at: &'t str,
}

/// The record of one event.
pub(super) fn event_record(
    settings: &Settings,
    request: &Request<'_>,
    place: EventPlace<'_>,
    event_type: EventType,
    value: Vec<u8>,
) -> Outgoing {
    let EventPlace { sequence, at } = place;
    // As much as is needed: what a turn holds until it is written should fit a processor's cache.
    let texts = event_type.full_name.len() + settings.events_topic.len();
    let room = EVENT_HEADER_BYTES + texts + request.aggregate_id.len();
    let mut headers = Headers::with_capacity(room + request.metadata.byte_count());
    let event_id = request.stream.event_id(sequence);
    headers.push("ce_specversion", "1.0");
    headers.push("ce_id", uuid_text(event_id, &mut [0; Hyphenated::LENGTH]));
    headers.push("ce_type", event_type.full_name);
    headers.push("ce_source", &settings.events_topic);
    headers.push("ce_subject", request.aggregate_id);
    headers.push("ce_time", at);
    headers.push("sequence", decimal(sequence, &mut [0; DIGITS_MAX]));
    let schema_version = u64::from(event_type.schema_version);
    headers.push("schema_version", decimal(schema_version, &mut [0; DIGITS_MAX]));
    push_cause(&mut headers, request);
    let key = Some(event_key(request.aggregate_id, sequence));
    Outgoing { kind: Kind::Events, key, value: Some(value), headers }
}

/// The record of a result.
pub(super) fn result_record<D: Decider>(
    codec: &impl Codec<D>,
    request: &Request<'_>,
    result: &CommandResult,
) -> Result<Outgoing, CodecError> {
    let texts = result.aggregate_id.len() + result.consistency_token.len();
    let mut value = Vec::with_capacity(RESULT_BYTES + texts);
    codec.encode_result(result, &mut value)?;
    let mut headers = Headers::default();
    push_optional(&mut headers, "reply_to", request.metadata.reply_to);
    push_optional(&mut headers, "correlation_id", request.metadata.correlation_id);
    push_optional(&mut headers, "traceparent", request.metadata.traceparent);
    if request.from_process_manager {
        // What the client had said goes along with the saga, also where no event holds it.
        push_optional(&mut headers, "command_time", request.metadata.time_text);
        push_optional(&mut headers, "actor", request.metadata.actor);
        push_optional(&mut headers, "ip_address", request.metadata.ip_address);
        for (name, value) in &request.metadata.free {
            headers.push(name, value);
        }
        headers.push(RESULT_OF, PROCESS_MANAGER);
    }
    let mut buffer = [0; Hyphenated::LENGTH];
    let key = uuid_text(request.command_id, &mut buffer).as_bytes().to_vec();
    Ok(Outgoing { kind: Kind::Results, key: Some(key), value: Some(value), headers })
}

/// The result of a command; `version` is its stream's after it.
pub(super) fn command_result(
    settings: &Settings,
    request: &Request<'_>,
    verdict: Verdict,
    version: u64,
    now: Timestamp,
) -> CommandResult {
    let mut result = CommandResult {
        command_id: request.command_id,
        aggregate_id: request.aggregate_id.to_owned(),
        outcome: Outcome::Accepted,
        code: None,
        message: None,
        retryable: false,
        details: Vec::new(),
        content_hash: request.content_hash,
        first_sequence: None,
        last_sequence: None,
        version,
        decided_at: now,
        duplicate: false,
        consistency_token: String::new(),
    };
    match verdict {
        Verdict::Accepted { version, event_count } => {
            result.version = version;
            result.first_sequence = (event_count > 0).then(|| version + 1 - event_count);
            result.last_sequence = (event_count > 0).then_some(version);
        }
        Verdict::Refused(refusal) => {
            result.outcome = Outcome::Rejected;
            result.code = Some(refusal.code.to_owned());
            result.message = Some(refusal.message);
            result.retryable = refusal.retryable;
            result.details = refusal.details;
        }
        Verdict::Failed(reason) => {
            result.outcome = Outcome::Failed;
            result.code = Some(INTERNAL_ERROR.to_owned());
            result.message = Some(reason);
            result.retryable = true;
        }
        Verdict::Repeat(repeat) => result = repeat,
        // Nobody asks for the result of what has none.
        Verdict::HandedOn => {}
    }
    result.message = result.message.map(shortened);
    for (_, value) in &mut result.details {
        *value = shortened(std::mem::take(value));
    }
    result.details.sort();
    let (topic_id, partition) = (settings.events_topic_id, settings.partition);
    result.consistency_token = token(topic_id, partition, &result.aggregate_id, result.version);
    result
}

/// Cuts text that may quote a client's: results are kept for a day, and must fit their record.
fn shortened(mut text: String) -> String {
    // One more for the mark, so that what was cut once is not cut again.
    if text.chars().count() > TEXT_CHARS_MAX + 1 {
        let end = text.char_indices().nth(TEXT_CHARS_MAX).map_or(text.len(), |(end, _)| end);
        text.truncate(end);
        text.push('…');
    }
    text
}

/// Names what a reader must have seen: topic id, partition, sequence, stream.
fn token(topic_id: Uuid, partition: i32, aggregate_id: &str, version: u64) -> String {
    let mut text = String::with_capacity(64 + aggregate_id.len() * 2);
    text.push_str(token::FORM);
    text.push('.');
    text.push_str(topic_id.simple().encode_lower(&mut [0; Simple::LENGTH]));
    text.push('.');
    // Never below zero.
    let partition = u64::from(partition.unsigned_abs());
    text.push_str(decimal(partition, &mut [0; DIGITS_MAX]));
    text.push('.');
    text.push_str(decimal(version, &mut [0; DIGITS_MAX]));
    text.push('.');
    URL_SAFE_NO_PAD.encode_string(aggregate_id, &mut text);
    text
}

/// A number as text; there are several for every command, so nothing is allocated.
fn decimal(number: u64, buffer: &mut [u8; DIGITS_MAX]) -> &str {
    let mut rest = number;
    let mut start = buffer.len();
    loop {
        start -= 1;
        // A remainder by ten is a digit.
        buffer[start] = b'0' + u8::try_from(rest % 10).unwrap_or_default();
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    std::str::from_utf8(&buffer[start..]).unwrap_or_default()
}

/// The command's bytes as they came, with what was wrong.
pub(super) fn dead_letter(
    settings: &Settings,
    request: &Request<'_>,
    result: &CommandResult,
    now: Timestamp,
) -> Option<Outgoing> {
    let record = request.record?;
    let mut headers = Headers::with_capacity(record.headers.byte_count() + 512);
    for (name, value) in record.headers.iter() {
        headers.push_optional(name, value);
    }
    let code = result.code.as_deref().unwrap_or_default();
    let message: String =
        result.message.as_deref().unwrap_or_default().chars().take(1_000).collect();
    headers.push("error_code", code);
    headers.push("error_message", message);
    headers.push("source_topic", &settings.commands_topic);
    headers.push("source_partition", settings.partition.to_string());
    headers.push("source_offset", record.offset.to_string());
    headers.push("component", &settings.group);
    headers.push("attempts", "1");
    headers.push("failed_at", now.to_rfc3339());
    let key = record.key.as_deref().map(<[u8]>::to_vec);
    let value = record.value.as_deref().map(<[u8]>::to_vec);
    let mut letter = Outgoing { kind: Kind::DeadLetters, key, value, headers };
    if letter.byte_count() > DEAD_LETTER_BYTES_MAX
        && let Some(value) = letter.value.take()
    {
        // Compressed, a command may be larger than any record that we may write. It still stands
        // where the headers say.
        letter.headers.push("value_bytes", value.len().to_string());
    }
    if letter.byte_count() > DEAD_LETTER_BYTES_MAX {
        letter.headers = short_headers(&letter.headers);
        letter.key = None;
    }
    Some(letter)
}

/// Only the headers that are short: enough to find the rest.
fn short_headers(headers: &Headers) -> Headers {
    let mut short = Headers::default();
    for (name, value) in headers.iter() {
        if name.len() + value.map_or(0, <[u8]>::len) <= 2_048 && short.byte_count() < 65_536 {
            short.push_optional(name, value);
        }
    }
    short
}

/// SHA-256 over aggregate id and bytes, for a command whose content could not be read.
#[must_use]
pub fn raw_content_hash(aggregate_id: &str, value: Option<&[u8]>) -> [u8; 32] {
    let mut context = digest::Context::new(&digest::SHA256);
    context.update(aggregate_id.as_bytes());
    context.update(b"\0raw\0");
    context.update(value.unwrap_or_default());
    let mut hash = [0; 32];
    hash.copy_from_slice(context.finish().as_ref());
    hash
}

pub(super) fn malformed(code: &'static str, field: Option<String>, reason: String) -> Refusal {
    let message = match &field {
        Some(field) => format!("{field}: {reason}"),
        None => reason.clone(),
    };
    let mut details = vec![("reason".to_owned(), reason)];
    details.extend(field.map(|field| ("field".to_owned(), field)));
    Refusal { code, message, retryable: false, details, is_malformed: true }
}

pub(super) fn version_conflict(expected: u64, actual: u64) -> Verdict {
    Verdict::Refused(Refusal {
        code: VERSION_CONFLICT,
        message: format!("expected version {expected}, but the stream is at {actual}"),
        retryable: true,
        details: vec![
            ("expected".to_owned(), expected.to_string()),
            ("actual".to_owned(), actual.to_string()),
        ],
        is_malformed: false,
    })
}

/// What led to an event: the command, and what the command itself named.
fn push_cause(headers: &mut Headers, request: &Request<'_>) {
    let metadata = &request.metadata;
    let mut buffer = [0; Hyphenated::LENGTH];
    let command_id = request.on_behalf_of.unwrap_or(request.command_id);
    let command_id = uuid_text(command_id, &mut buffer);
    headers.push("command_id", command_id);
    push_optional(headers, "command_time", metadata.time_text);
    headers.push("correlation_id", metadata.correlation_id.unwrap_or(command_id));
    headers.push("causation_id", metadata.causation_id.unwrap_or(command_id));
    push_optional(headers, "actor", metadata.actor);
    push_optional(headers, "ip_address", metadata.ip_address);
    push_optional(headers, "traceparent", metadata.traceparent);
    for (name, value) in &metadata.free {
        headers.push(name, value);
    }
}

fn push_optional(headers: &mut Headers, name: &str, value: Option<&str>) {
    if let Some(value) = value {
        headers.push(name, value);
    }
}

fn uuid_text(id: Uuid, buffer: &mut [u8; Hyphenated::LENGTH]) -> &str {
    id.hyphenated().encode_lower(buffer)
}

pub(super) fn owned(details: Vec<(&'static str, String)>) -> Vec<(String, String)> {
    details.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

/// What a broken decision is told as.
pub(super) fn panic_text(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    format!("the decision broke: {}", text.unwrap_or("unknown panic"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_written_as_they_are() {
        for number in [0, 7, 10, 90_210, u64::MAX] {
            assert_eq!(decimal(number, &mut [0; DIGITS_MAX]), number.to_string());
        }
    }

    #[test]
    fn a_token_is_one_that_readers_take() {
        for (stream, sequence) in [("acc-1", 7), ("ü/.=", 0), ("x", 1 << 40)] {
            let topic_id = Uuid::from_u128(9);
            let written = token(topic_id, 3, stream, sequence);
            let read = token::Token::parse(&written).unwrap();
            let stream = stream.to_owned();
            assert_eq!(read, token::Token { topic_id, partition: 3, sequence, stream });
        }
    }

    #[test]
    fn what_quotes_a_client_is_cut_once() {
        let long = "ü".repeat(1_000_000);
        let short = shortened(long);
        assert_eq!(short.chars().count(), TEXT_CHARS_MAX + 1);
        assert_eq!(shortened(short.clone()), short, "a repeat says the same");
        assert_eq!(shortened("fine".to_owned()), "fine");
    }
}
