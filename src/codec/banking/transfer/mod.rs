//! The transfer saga's messages: Avro and JSON <-> its commands and events.

mod sources;
#[cfg(test)]
mod tests;

use std::sync::{Arc, LazyLock};

pub use sources::SOURCES;

use crate::codec::command::{self, Entry, Extract, FieldError, Shape};
use crate::codec::event::{self, Current};
use crate::codec::result;
use crate::codec::schemas::Schemas;
use crate::domain::banking::account::AMOUNT_WHOLE_DIGITS_MAX;
use crate::domain::banking::transfer::{
    Abandon, Command, Event, RecordFailed, RecordRefused, Resume, StartTransfer, Step, Transfer,
};
use crate::kernel::codec::{Codec, CodecError, Decoded, EventType, Undecoded};
use crate::kernel::result::{Accepted, CommandResult};

const NAMESPACE: &str = "millrace.banking.transfer";

const SHAPE: Shape<Command> = Shape {
    namespace: NAMESPACE,
    id_field: "transfer_id",
    field_names: &[
        "amount",
        "code",
        "currency",
        "fee",
        "from_account_id",
        "reason",
        "received",
        "reference",
        "step",
        "to_account_id",
        "transfer_id",
        "user_id",
    ],
    commands: COMMANDS,
};

const COMMANDS: &[Entry<Command>] = &[
    ("StartTransfer", |fields| {
        Ok(Command::StartTransfer(StartTransfer {
            user_id: fields.id("user_id")?,
            currency: fields.currency("currency")?,
            from_account_id: fields.id("from_account_id")?,
            to_account_id: fields.id("to_account_id")?,
            amount: fields.money("amount", AMOUNT_WHOLE_DIGITS_MAX)?,
            fee: fields.money("fee", AMOUNT_WHOLE_DIGITS_MAX)?,
            reference: fields.optional_text("reference")?,
        }))
    }),
    ("RecordReceived", |_| Ok(Command::RecordReceived)),
    ("RecordSettled", |_| Ok(Command::RecordSettled)),
    ("RecordReversed", |_| Ok(Command::RecordReversed)),
    ("RecordRefused", |fields| {
        Ok(Command::RecordRefused(RecordRefused {
            step: step(fields)?,
            code: fields.text("code")?,
        }))
    }),
    ("RecordFailed", |fields| {
        Ok(Command::RecordFailed(RecordFailed { step: step(fields)?, code: fields.text("code")? }))
    }),
    ("Wake", |_| Ok(Command::Wake)),
    ("Resume", |fields| {
        let received = match fields.optional_text("received")?.as_deref() {
            None => None,
            Some("YES") => Some(true),
            Some("NO") => Some(false),
            Some(_) => return Err(FieldError::invalid("received", "must be YES or NO")),
        };
        Ok(Command::Resume(Resume { received }))
    }),
    ("Abandon", |fields| Ok(Command::Abandon(Abandon { reason: fields.optional_text("reason")? }))),
];

fn step(fields: &mut Extract<'_, '_>) -> Result<Step, FieldError> {
    let text = fields.text("step")?;
    Step::parse(&text)
        .ok_or_else(|| FieldError::invalid("step", "must be RECEIVE, SETTLE or REVERSE"))
}

/// The events in their current versions, in the order of [`place`].
static CURRENT: LazyLock<[Current; EVENTS.len()]> = LazyLock::new(|| EVENTS.map(Current::of));

const EVENTS: [&str; 8] = [
    "millrace.banking.transfer.TransferStarted",
    "millrace.banking.transfer.TransferReceived",
    "millrace.banking.transfer.TransferCompleted",
    "millrace.banking.transfer.ReversalStarted",
    "millrace.banking.transfer.TransferReversed",
    "millrace.banking.transfer.StepFailed",
    "millrace.banking.transfer.StepRepeated",
    "millrace.banking.transfer.TransferParked",
];

const fn place(event: &Event) -> usize {
    match event {
        Event::TransferStarted(_) => 0,
        Event::TransferReceived(_) => 1,
        Event::TransferCompleted(_) => 2,
        Event::ReversalStarted(_) => 3,
        Event::TransferReversed(_) => 4,
        Event::StepFailed(_) => 5,
        Event::StepRepeated(_) => 6,
        Event::TransferParked(_) => 7,
    }
}

/// Reads and writes everything that a transfer's topics hold.
#[derive(Clone, Debug)]
#[expect(clippy::module_name_repetitions, reason = "named so where all codecs are wired")]
pub struct TransferCodec {
    schemas: Arc<Schemas>,
}

impl TransferCodec {
    /// Makes a codec over the schemas that are shared.
    #[must_use]
    pub const fn new(schemas: Arc<Schemas>) -> Self {
        Self { schemas }
    }
}

impl Codec<Transfer> for TransferCodec {
    fn decode_command(
        &self,
        key_id: Option<&str>,
        value: Option<&[u8]>,
    ) -> Result<Decoded<Command>, Undecoded> {
        command::decode(&SHAPE, &self.schemas, key_id, value)
    }

    fn encode_event(&self, event: &Event, value: &mut Vec<u8>) -> Result<EventType, CodecError> {
        let current = &CURRENT[place(event)];
        match event {
            Event::TransferStarted(event) => current.encode(&self.schemas, event, value),
            Event::TransferReceived(event) => current.encode(&self.schemas, event, value),
            Event::TransferCompleted(event) => current.encode(&self.schemas, event, value),
            Event::ReversalStarted(event) => current.encode(&self.schemas, event, value),
            Event::TransferReversed(event) => current.encode(&self.schemas, event, value),
            Event::StepFailed(event) => current.encode(&self.schemas, event, value),
            Event::StepRepeated(event) => current.encode(&self.schemas, event, value),
            Event::TransferParked(event) => current.encode(&self.schemas, event, value),
        }
    }

    fn decode_event(&self, value: &[u8]) -> Result<Event, CodecError> {
        event::decode(&self.schemas, NAMESPACE, value, |name, datum| {
            Some(match name {
                "TransferStarted" => datum.read().map(Event::TransferStarted),
                "TransferReceived" => datum.read().map(Event::TransferReceived),
                "TransferCompleted" => datum.read().map(Event::TransferCompleted),
                "ReversalStarted" => datum.read().map(Event::ReversalStarted),
                "TransferReversed" => datum.read().map(Event::TransferReversed),
                "StepFailed" => datum.read().map(Event::StepFailed),
                "StepRepeated" => datum.read().map(Event::StepRepeated),
                "TransferParked" => datum.read().map(Event::TransferParked),
                _ => return None,
            })
        })
    }

    fn encode_result(&self, result: &CommandResult, value: &mut Vec<u8>) -> Result<(), CodecError> {
        result::encode(&self.schemas, result, value)
    }

    fn decode_result(&self, value: &[u8]) -> Result<CommandResult, CodecError> {
        result::decode(&self.schemas, value)
    }

    fn decode_accepted<'v>(&self, value: &'v [u8]) -> Option<Accepted<'v>> {
        result::decode_accepted(&self.schemas, value)
    }
}
