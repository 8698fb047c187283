//! librdkafka's messages <-> our records.

use rdkafka::message::{BorrowedMessage, Header, Message, OwnedHeaders};

use super::ffi;
use crate::kernel::message::{Headers, Record};

/// Copies a message out of librdkafka's buffers.
#[must_use]
pub fn to_record(message: &BorrowedMessage<'_>) -> Record {
    let mut headers = Headers::default();
    if let Some(found) = message.headers() {
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
