//! An opening's messages: Avro and JSON <-> commands and events.

mod sources;
#[cfg(test)]
mod tests;

use std::sync::{Arc, LazyLock};

pub use sources::SOURCES;

use crate::codec::command::{self, Entry, Shape};
use crate::codec::command::{Extract, FieldError};
use crate::codec::event::{self, Current};
use crate::codec::result;
use crate::codec::schemas::Schemas;
use crate::domain::banking::account::{AMOUNT_WHOLE_DIGITS_MAX, AccountType};
use crate::domain::banking::account_opening::{Command, Event, Opening, Step, Wanted};
use crate::kernel::codec::{Codec, CodecError, Decoded, EventType, Undecoded};
use crate::kernel::result::{Accepted, CommandResult};

const NAMESPACE: &str = "millrace.banking.account_opening";

const SHAPE: Shape<Command> = Shape {
    namespace: NAMESPACE,
    id_field: "slot_id",
    field_names: &[
        "account_id",
        "account_type",
        "client_command_id",
        "client_reply_to",
        "code",
        "currency",
        "initial_deposit",
        "reason",
        "slot_id",
        "step",
        "user_id",
    ],
    commands: COMMANDS,
};

const COMMANDS: &[Entry<Command>] = &[
    ("StartOpening", |fields| {
        Ok(Command::StartOpening(Wanted {
            user_id: fields.id("user_id")?,
            account_id: fields.id("account_id")?,
            account_type: account_type(fields)?,
            initial_deposit: fields.money("initial_deposit", AMOUNT_WHOLE_DIGITS_MAX)?,
            currency: fields.currency("currency")?,
            client_command_id: fields.text("client_command_id")?,
            client_reply_to: fields.optional_text("client_reply_to")?,
        }))
    }),
    ("RecordReserved", |_| Ok(Command::RecordReserved)),
    ("RecordDenied", |fields| Ok(Command::RecordDenied { code: fields.text("code")? })),
    ("RecordOpened", |_| Ok(Command::RecordOpened)),
    ("RecordConfirmed", |_| Ok(Command::RecordConfirmed)),
    ("RecordReleased", |_| Ok(Command::RecordReleased)),
    ("RecordClosed", |_| Ok(Command::RecordClosed)),
    ("RecordFreed", |_| Ok(Command::RecordFreed)),
    ("RecordRefused", |fields| {
        Ok(Command::RecordRefused { step: step(fields)?, code: fields.text("code")? })
    }),
    ("RecordFailed", |fields| {
        Ok(Command::RecordFailed { step: step(fields)?, code: fields.text("code")? })
    }),
    ("Wake", |_| Ok(Command::Wake)),
    ("Resume", |_| Ok(Command::Resume)),
    ("Abandon", |fields| Ok(Command::Abandon { reason: fields.optional_text("reason")? })),
];

fn step(fields: &mut Extract<'_, '_>) -> Result<Step, FieldError> {
    let text = fields.text("step")?;
    Step::parse(&text).ok_or_else(|| FieldError::invalid("step", "is none of the saga's steps"))
}

fn account_type(fields: &mut Extract<'_, '_>) -> Result<AccountType, FieldError> {
    let text = fields.caseless_text("account_type")?;
    AccountType::parse(&text)
        .ok_or_else(|| FieldError::invalid("account_type", "is none of the four"))
}

/// The events in their current versions, in the order of [`place`].
static CURRENT: LazyLock<[Current; EVENTS.len()]> = LazyLock::new(|| EVENTS.map(Current::of));

const EVENTS: [&str; 5] = [
    "millrace.banking.account_opening.OpeningStarted",
    "millrace.banking.account_opening.OpeningAdvanced",
    "millrace.banking.account_opening.StepFailed",
    "millrace.banking.account_opening.OpeningParked",
    "millrace.banking.account_opening.OpeningEnded",
];

const fn place(event: &Event) -> usize {
    match event {
        Event::OpeningStarted(_) => 0,
        Event::OpeningAdvanced(_) => 1,
        Event::StepFailed(_) => 2,
        Event::OpeningParked(_) => 3,
        Event::OpeningEnded(_) => 4,
    }
}

/// Reads and writes everything that the aggregate's topics hold.
#[derive(Clone, Debug)]
#[expect(clippy::module_name_repetitions, reason = "named so where all codecs are wired")]
pub struct AccountOpeningCodec {
    schemas: Arc<Schemas>,
}

impl AccountOpeningCodec {
    /// Makes a codec over the schemas that are shared.
    #[must_use]
    pub const fn new(schemas: Arc<Schemas>) -> Self {
        Self { schemas }
    }
}

impl Codec<Opening> for AccountOpeningCodec {
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
            Event::OpeningStarted(event) => current.encode(&self.schemas, event, value),
            Event::OpeningAdvanced(event) => current.encode(&self.schemas, event, value),
            Event::StepFailed(event) => current.encode(&self.schemas, event, value),
            Event::OpeningParked(event) => current.encode(&self.schemas, event, value),
            Event::OpeningEnded(event) => current.encode(&self.schemas, event, value),
        }
    }

    fn decode_event(&self, value: &[u8]) -> Result<Event, CodecError> {
        event::decode(&self.schemas, NAMESPACE, value, |name, datum| {
            Some(match name {
                "OpeningStarted" => datum.read().map(Event::OpeningStarted),
                "OpeningAdvanced" => datum.read().map(Event::OpeningAdvanced),
                "StepFailed" => datum.read().map(Event::StepFailed),
                "OpeningParked" => datum.read().map(Event::OpeningParked),
                "OpeningEnded" => datum.read().map(Event::OpeningEnded),
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
