//! Events as read models keep them: a type's short name and JSON fields -> the event.
//!
//! What is written there is the event of this program's form, so it reads back as it was; the form
//! of an older program may lack a field, which is an error here: the log has it.

use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::domain::banking::{account, account_opening, customer, transfer};
use crate::kernel::codec::CodecError;

/// Reads an account's event.
///
/// # Errors
/// No event of that name, or a field is missing or wrong.
pub fn account_event(name: &str, fields: Value) -> Result<account::Event, CodecError> {
    use account::Event;
    Ok(match name {
        "AccountCreated" => Event::AccountCreated(read(fields)?),
        "MoneyDeposited" => Event::MoneyDeposited(read(fields)?),
        "MoneyWithdrawn" => Event::MoneyWithdrawn(read(fields)?),
        "MoneyTransferred" => Event::MoneyTransferred(read(fields)?),
        "MoneyReceived" => Event::MoneyReceived(read(fields)?),
        "TransferReversed" => Event::TransferReversed(read(fields)?),
        "TransferSettled" => Event::TransferSettled(read(fields)?),
        "AccountFrozen" => Event::AccountFrozen(read(fields)?),
        "AccountUnfrozen" => Event::AccountUnfrozen(read(fields)?),
        "AccountClosed" => Event::AccountClosed(read(fields)?),
        "EntryCorrected" => Event::EntryCorrected(read(fields)?),
        other => return Err(unknown(other)),
    })
}

/// Reads a customer's event.
///
/// # Errors
/// As [`account_event`].
pub fn customer_event(name: &str, fields: Value) -> Result<customer::Event, CodecError> {
    use customer::Event;
    Ok(match name {
        "SlotReserved" => Event::SlotReserved(read(fields)?),
        "SlotDenied" => Event::SlotDenied(read(fields)?),
        "SlotConfirmed" => Event::SlotConfirmed(read(fields)?),
        "SlotReleased" => Event::SlotReleased(read(fields)?),
        "SlotFreed" => Event::SlotFreed(read(fields)?),
        other => return Err(unknown(other)),
    })
}

/// Reads a transfer's event.
///
/// # Errors
/// As [`account_event`].
pub fn transfer_event(name: &str, fields: Value) -> Result<transfer::Event, CodecError> {
    use transfer::Event;
    Ok(match name {
        "TransferStarted" => Event::TransferStarted(read(fields)?),
        "TransferReceived" => Event::TransferReceived(read(fields)?),
        "TransferCompleted" => Event::TransferCompleted(read(fields)?),
        "ReversalStarted" => Event::ReversalStarted(read(fields)?),
        "TransferReversed" => Event::TransferReversed(read(fields)?),
        "StepFailed" => Event::StepFailed(read(fields)?),
        "StepRepeated" => Event::StepRepeated(read(fields)?),
        "TransferParked" => Event::TransferParked(read(fields)?),
        other => return Err(unknown(other)),
    })
}

/// Reads an opening's event.
///
/// # Errors
/// As [`account_event`].
pub fn opening_event(name: &str, fields: Value) -> Result<account_opening::Event, CodecError> {
    use account_opening::Event;
    Ok(match name {
        "OpeningStarted" => Event::OpeningStarted(read(fields)?),
        "OpeningAdvanced" => Event::OpeningAdvanced(read(fields)?),
        "StepFailed" => Event::StepFailed(read(fields)?),
        "OpeningParked" => Event::OpeningParked(read(fields)?),
        "OpeningEnded" => Event::OpeningEnded(read(fields)?),
        other => return Err(unknown(other)),
    })
}

fn read<T: DeserializeOwned>(fields: Value) -> Result<T, CodecError> {
    serde_json::from_value(fields).map_err(|error| corrupt(error.to_string()))
}

fn unknown(name: &str) -> CodecError {
    corrupt(format!("no event is called {name}"))
}

fn corrupt(reason: String) -> CodecError {
    CodecError::Corrupt { what: "an event's payload", reason }
}
