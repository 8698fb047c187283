//! A customer's messages: Avro and JSON <-> commands and events.

mod sources;
#[cfg(test)]
mod tests;

use std::sync::{Arc, LazyLock};

pub use sources::SOURCES;

use crate::codec::command::{self, Entry, Shape};
use crate::codec::event::{self, Current};
use crate::codec::result;
use crate::codec::schemas::Schemas;
use crate::domain::banking::customer::{Command, Customer, Event};
use crate::kernel::codec::{Codec, CodecError, Decoded, EventType, Undecoded};
use crate::kernel::result::{Accepted, CommandResult};

const NAMESPACE: &str = "millrace.banking.customer";

const SHAPE: Shape<Command> = Shape {
    namespace: NAMESPACE,
    id_field: "user_id",
    field_names: &["account_id", "slot_id", "user_id"],
    commands: COMMANDS,
};

const COMMANDS: &[Entry<Command>] = &[
    ("ReserveSlot", |fields| {
        Ok(Command::ReserveSlot {
            user_id: fields.aggregate_id().to_owned(),
            slot_id: fields.id("slot_id")?,
            account_id: fields.id("account_id")?,
        })
    }),
    ("ConfirmSlot", |fields| Ok(Command::ConfirmSlot { slot_id: fields.id("slot_id")? })),
    ("ReleaseSlot", |fields| Ok(Command::ReleaseSlot { slot_id: fields.id("slot_id")? })),
    ("FreeSlot", |fields| Ok(Command::FreeSlot { slot_id: fields.id("slot_id")? })),
];

/// The events in their current versions, in the order of [`place`].
static CURRENT: LazyLock<[Current; EVENTS.len()]> = LazyLock::new(|| EVENTS.map(Current::of));

const EVENTS: [&str; 5] = [
    "millrace.banking.customer.SlotReserved",
    "millrace.banking.customer.SlotDenied",
    "millrace.banking.customer.SlotConfirmed",
    "millrace.banking.customer.SlotReleased",
    "millrace.banking.customer.SlotFreed",
];

const fn place(event: &Event) -> usize {
    match event {
        Event::SlotReserved(_) => 0,
        Event::SlotDenied(_) => 1,
        Event::SlotConfirmed(_) => 2,
        Event::SlotReleased(_) => 3,
        Event::SlotFreed(_) => 4,
    }
}

/// Reads and writes everything that the aggregate's topics hold.
#[derive(Clone, Debug)]
#[expect(clippy::module_name_repetitions, reason = "named so where all codecs are wired")]
pub struct CustomerCodec {
    schemas: Arc<Schemas>,
}

impl CustomerCodec {
    /// Makes a codec over the schemas that are shared.
    #[must_use]
    pub const fn new(schemas: Arc<Schemas>) -> Self {
        Self { schemas }
    }
}

impl Codec<Customer> for CustomerCodec {
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
            Event::SlotReserved(event) => current.encode(&self.schemas, event, value),
            Event::SlotDenied(event) => current.encode(&self.schemas, event, value),
            Event::SlotConfirmed(event) => current.encode(&self.schemas, event, value),
            Event::SlotReleased(event) => current.encode(&self.schemas, event, value),
            Event::SlotFreed(event) => current.encode(&self.schemas, event, value),
        }
    }

    fn decode_event(&self, value: &[u8]) -> Result<Event, CodecError> {
        event::decode(&self.schemas, NAMESPACE, value, |name, datum| {
            Some(match name {
                "SlotReserved" => datum.read().map(Event::SlotReserved),
                "SlotDenied" => datum.read().map(Event::SlotDenied),
                "SlotConfirmed" => datum.read().map(Event::SlotConfirmed),
                "SlotReleased" => datum.read().map(Event::SlotReleased),
                "SlotFreed" => datum.read().map(Event::SlotFreed),
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
