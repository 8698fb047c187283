//! Banking's messages: Avro and JSON <-> commands and events; the account's stand here.

use std::sync::{Arc, LazyLock};

use serde::de::DeserializeOwned;
use uuid::Uuid;

use super::command::{self, Entry, Extract, FieldError, Shape};
use super::compiled;
use super::schemas::Schemas;
use super::{avro, result, upcast};
use crate::domain::banking::account::{
    AMOUNT_WHOLE_DIGITS_MAX, Account, CloseAccount, Command, CorrectEntry, CreateAccount, Deposit,
    Event, FreezeAccount, Grant, ReceiveTransfer, ReverseTransfer, SettleTransfer, Transfer,
    UnfreezeAccount, Withdraw,
};
use crate::kernel::codec::{Codec, CodecError, Decoded, EventType, Undecoded};
use crate::kernel::result::{Accepted, CommandResult};

pub mod account_opening;
pub mod customer;
#[cfg(test)]
mod golden;
pub mod payload;
mod sources;
pub mod transfer;
mod written;

pub use sources::SOURCES;

const NAMESPACE: &str = "millrace.banking.account";

const SHAPE: Shape<Command> = Shape {
    namespace: NAMESPACE,
    id_field: "account_id",
    field_names: &[
        "account_id",
        "account_type",
        "amount",
        "compensates_event_id",
        "currency",
        "from_account_id",
        "grant_client_command_id",
        "grant_client_reply_to",
        "grant_refused",
        "grant_slot_id",
        "initial_deposit",
        "reason",
        "reference",
        "to_account_id",
        "transfer_id",
        "user_id",
        "valid_until",
    ],
    commands: COMMANDS,
};

const COMMANDS: &[Entry<Command>] = &[
    ("CreateAccount", |fields| {
        Ok(Command::CreateAccount(CreateAccount {
            account_id: fields.aggregate_id().to_owned(),
            user_id: fields.id_or_empty("user_id")?,
            account_type: fields.caseless_text("account_type")?,
            initial_deposit: money(fields, "initial_deposit")?,
            currency: fields.text_or("currency", "USD")?,
            grant: grant(fields)?,
        }))
    }),
    ("Deposit", |fields| {
        Ok(Command::Deposit(Deposit {
            amount: money(fields, "amount")?,
            reference: fields.optional_text("reference")?,
        }))
    }),
    ("Withdraw", |fields| {
        Ok(Command::Withdraw(Withdraw {
            amount: money(fields, "amount")?,
            reference: fields.optional_text("reference")?,
        }))
    }),
    ("Transfer", |fields| {
        Ok(Command::Transfer(Transfer {
            to_account_id: fields.id("to_account_id")?,
            amount: money(fields, "amount")?,
            reference: fields.optional_text("reference")?,
        }))
    }),
    ("ReceiveTransfer", |fields| {
        Ok(Command::ReceiveTransfer(ReceiveTransfer {
            transfer_id: fields.id("transfer_id")?,
            from_account_id: fields.id("from_account_id")?,
            amount: money(fields, "amount")?,
            currency: fields.text("currency")?,
            reference: fields.optional_text("reference")?,
            valid_until: fields.moment("valid_until")?,
        }))
    }),
    ("ReverseTransfer", |fields| {
        Ok(Command::ReverseTransfer(ReverseTransfer {
            transfer_id: fields.id("transfer_id")?,
            reason: fields.optional_text("reason")?,
        }))
    }),
    ("SettleTransfer", |fields| {
        Ok(Command::SettleTransfer(SettleTransfer {
            transfer_id: fields.id("transfer_id")?,
            to_account_id: fields.id("to_account_id")?,
        }))
    }),
    ("FreezeAccount", |fields| {
        let reason = fields.optional_text("reason")?;
        Ok(Command::FreezeAccount(FreezeAccount { reason }))
    }),
    ("UnfreezeAccount", |fields| {
        let reason = fields.optional_text("reason")?;
        Ok(Command::UnfreezeAccount(UnfreezeAccount { reason }))
    }),
    ("CloseAccount", |fields| {
        let reason = fields.optional_text("reason")?;
        Ok(Command::CloseAccount(CloseAccount { reason }))
    }),
    ("CorrectEntry", |fields| {
        Ok(Command::CorrectEntry(CorrectEntry {
            compensates_event_id: fields.text("compensates_event_id")?,
            amount: money(fields, "amount")?,
            reason: fields.optional_text("reason")?,
        }))
    }),
];

/// The grant is no part of the content: with and without it, it is the same command.
fn grant(fields: &Extract<'_, '_>) -> Result<Option<Grant>, FieldError> {
    let Some(slot_id) = fields.text_beside("grant_slot_id")? else { return Ok(None) };
    let field = "grant_client_command_id";
    let client = fields.text_beside(field)?.ok_or_else(|| FieldError::missing(field))?;
    Ok(Some(Grant {
        slot_id,
        client_command_id: Uuid::parse_str(&client)
            .map_err(|_| FieldError::invalid(field, "must be a UUID"))?,
        client_reply_to: fields.text_beside("grant_client_reply_to")?,
        refused: fields.text_beside("grant_refused")?,
    }))
}

fn money(
    fields: &mut Extract<'_, '_>,
    field: &'static str,
) -> Result<crate::domain::money::Amount, FieldError> {
    fields.money(field, AMOUNT_WHOLE_DIGITS_MAX)
}

/// The places of the events' current versions among the compiled-in schemas, in the order of
/// [`place`].
static CURRENT: LazyLock<[Option<usize>; EVENTS.len()]> =
    LazyLock::new(|| EVENTS.map(compiled::current));

const EVENTS: [&str; 11] = [
    "millrace.banking.account.AccountCreated",
    "millrace.banking.account.MoneyDeposited",
    "millrace.banking.account.MoneyWithdrawn",
    "millrace.banking.account.MoneyTransferred",
    "millrace.banking.account.MoneyReceived",
    "millrace.banking.account.TransferReversed",
    "millrace.banking.account.TransferSettled",
    "millrace.banking.account.AccountFrozen",
    "millrace.banking.account.AccountUnfrozen",
    "millrace.banking.account.AccountClosed",
    "millrace.banking.account.EntryCorrected",
];

const fn place(event: &Event) -> usize {
    match event {
        Event::AccountCreated(_) => 0,
        Event::MoneyDeposited(_) => 1,
        Event::MoneyWithdrawn(_) => 2,
        Event::MoneyTransferred(_) => 3,
        Event::MoneyReceived(_) => 4,
        Event::TransferReversed(_) => 5,
        Event::TransferSettled(_) => 6,
        Event::AccountFrozen(_) => 7,
        Event::AccountUnfrozen(_) => 8,
        Event::AccountClosed(_) => 9,
        Event::EntryCorrected(_) => 10,
    }
}

/// Reads and writes everything that an account's topics hold.
#[derive(Clone, Debug)]
pub struct AccountCodec {
    schemas: Arc<Schemas>,
}

impl AccountCodec {
    /// Makes a codec over the schemas that are shared.
    #[must_use]
    pub const fn new(schemas: Arc<Schemas>) -> Self {
        Self { schemas }
    }

    /// The schema that an event is written with, and its id.
    fn own(&self, place: usize) -> Result<(&'static compiled::Compiled, u32), CodecError> {
        let full_name = EVENTS[place];
        let unencodable = |reason: String| CodecError::Unencodable { what: full_name, reason };
        let own = CURRENT[place].and_then(|own| Some((own, self.schemas.own_id(own)?)));
        let Some((own, id)) = own else {
            let reason = "its schema has no id yet: run `millrace schemas register`".to_owned();
            return Err(unencodable(reason));
        };
        Ok((&compiled::all()[own], id))
    }
}

impl Codec<Account> for AccountCodec {
    fn decode_command(
        &self,
        key_id: Option<&str>,
        value: Option<&[u8]>,
    ) -> Result<Decoded<Command>, Undecoded> {
        command::decode(&SHAPE, &self.schemas, key_id, value)
    }

    fn encode_event(&self, event: &Event, value: &mut Vec<u8>) -> Result<EventType, CodecError> {
        let place = place(event);
        let (compiled, id) = self.own(place)?;
        value.push(avro::MAGIC);
        value.extend_from_slice(&id.to_be_bytes());
        written::put(event, value);
        Ok(EventType { full_name: EVENTS[place], schema_version: compiled.source.version })
    }

    fn decode_event(&self, value: &[u8]) -> Result<Event, CodecError> {
        let Some((id, datum)) = avro::split(value) else {
            return Err(corrupt("it is not in the registry's wire format".to_owned()));
        };
        let writer = self.schemas.writer(id)?;
        let name = writer.record.strip_prefix(NAMESPACE);
        let name = name.and_then(|name| name.strip_prefix('.'));
        let read = Reader { schema: &writer.schema, datum };
        match (name.unwrap_or_default(), writer.version) {
            ("MoneyDeposited", Some(1)) => {
                let old: upcast::MoneyDepositedV1 = read.read()?;
                Ok(Event::MoneyDeposited(old.into()))
            }
            ("AccountCreated", Some(1)) => {
                let old: upcast::AccountCreatedV1 = read.read()?;
                Ok(Event::AccountCreated(old.into()))
            }
            ("AccountClosed", Some(1)) => {
                let old: upcast::AccountClosedV1 = read.read()?;
                Ok(Event::AccountClosed(old.into()))
            }
            ("AccountCreated", _) => read.read().map(Event::AccountCreated),
            ("MoneyDeposited", _) => read.read().map(Event::MoneyDeposited),
            ("MoneyWithdrawn", _) => read.read().map(Event::MoneyWithdrawn),
            ("MoneyTransferred", _) => read.read().map(Event::MoneyTransferred),
            ("MoneyReceived", _) => read.read().map(Event::MoneyReceived),
            ("TransferReversed", _) => read.read().map(Event::TransferReversed),
            ("TransferSettled", _) => read.read().map(Event::TransferSettled),
            ("AccountFrozen", _) => read.read().map(Event::AccountFrozen),
            ("AccountUnfrozen", _) => read.read().map(Event::AccountUnfrozen),
            ("AccountClosed", _) => read.read().map(Event::AccountClosed),
            ("EntryCorrected", _) => read.read().map(Event::EntryCorrected),
            _ => Err(corrupt(format!("{} is no event of {NAMESPACE}", writer.record))),
        }
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

/// A datum with the schema that it was written with. Fields that a newer writer has added are
/// passed over.
struct Reader<'a> {
    schema: &'a serde_avro_fast::Schema,
    datum: &'a [u8],
}

impl Reader<'_> {
    fn read<T: DeserializeOwned>(&self) -> Result<T, CodecError> {
        avro::decode(self.schema, self.datum).map_err(corrupt)
    }
}

fn corrupt(reason: String) -> CodecError {
    CodecError::Corrupt { what: "an event of banking.account", reason }
}

#[cfg(test)]
mod tests;
