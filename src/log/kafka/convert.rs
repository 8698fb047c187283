//! librdkafka's messages <-> our records.

use rdkafka::message::{BorrowedMessage, Header, Headers as _, Message, OwnedHeaders};

use super::ffi;
use crate::kernel::message::{Headers, Record};

/// What a header takes, more or less.
const HEADER_BYTES: usize = 56;

/// Copies a message out of librdkafka's buffers.
#[must_use]
pub fn to_record(message: &BorrowedMessage<'_>) -> Record {
    let mut headers = Headers::default();
    if let Some(found) = message.headers() {
        // About as much as is needed: growing bit by bit copies everything each time.
        headers = Headers::with_capacity(found.count() * HEADER_BYTES);
        ffi::for_each_header(found, |name, value| headers.push_optional(name, value));
    }
    Record {
        offset: message.offset(),
        timestamp_ms: message.timestamp().to_millis().unwrap_or(0),
        key: message.key().map(Box::from),
        value: message.payload().map(Box::from),
        headers,
    }
}

/// Copies headers into librdkafka's form.
#[must_use]
pub fn to_owned_headers(headers: &Headers) -> OwnedHeaders {
    headers.iter().fold(OwnedHeaders::new_with_capacity(headers.len()), |all, (key, value)| {
        all.insert(Header { key, value })
    })
}
