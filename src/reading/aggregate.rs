//! The kinds of aggregates that can be read: bytes -> fields, events -> state -> JSON.

use std::sync::Arc;

use serde::Serialize;
use serde_json::Value;

use crate::codec::banking::account_opening::AccountOpeningCodec;
use crate::codec::banking::customer::CustomerCodec;
use crate::codec::banking::transfer::TransferCodec;
use crate::codec::banking::{AccountCodec, payload};
use crate::codec::schemas::Schemas;
use crate::domain::banking::account::Account;
use crate::domain::banking::account_opening::Opening;
use crate::domain::banking::customer::Customer;
use crate::domain::banking::transfer::Transfer;
use crate::domain::banking::{account, account_opening, customer, transfer};
use crate::kernel::codec::{Codec, CodecError};
use crate::kernel::decider::Decider;
use crate::kernel::time::Timestamp;

/// Reads an event's value into its fields as JSON.
pub type Decode = Box<dyn Fn(&[u8]) -> Result<Value, CodecError> + Send + Sync>;

/// How the events of an aggregate (`banking.account`) are read; `None` if there is none such.
#[must_use]
pub fn decoder(aggregate: &str, schemas: &Arc<Schemas>) -> Option<Decode> {
    let schemas = Arc::clone(schemas);
    let names = [account::NAME, customer::NAME, transfer::NAME, account_opening::NAME];
    let name = names.into_iter().find(|name| name.to_string() == aggregate)?;
    Some(match name {
        account::NAME => decoding(AccountCodec::new(schemas)),
        customer::NAME => decoding(CustomerCodec::new(schemas)),
        transfer::NAME => decoding(TransferCodec::new(schemas)),
        account_opening::NAME => decoding(AccountOpeningCodec::new(schemas)),
        _ => return None,
    })
}

fn decoding<D: Decider<Event: Serialize>>(codec: impl Codec<D>) -> Decode {
    Box::new(move |value| {
        serde_json::to_value(codec.decode_event(value)?)
            .map_err(|error| CodecError::Corrupt { what: "an event", reason: error.to_string() })
    })
}

/// A stream's state under way from event to event.
pub trait Folding: Send {
    /// Takes the next event in.
    ///
    /// # Errors
    /// It is none of this aggregate's, or a field is missing: nothing is taken in.
    fn take(&mut self, event_type: &str, fields: &Value, at: Timestamp) -> Result<(), CodecError>;

    /// The state for people.
    fn to_json(&self) -> Value;
}

/// The state before the first event of an aggregate; `None` if there is none such.
#[must_use]
pub fn unfolded(aggregate: &str) -> Option<Box<dyn Folding>> {
    let names = [account::NAME, customer::NAME, transfer::NAME, account_opening::NAME];
    let name = names.into_iter().find(|name| name.to_string() == aggregate)?;
    Some(match name {
        account::NAME => folding::<Account>(payload::account_event, Account::to_json),
        customer::NAME => folding::<Customer>(payload::customer_event, Customer::to_json),
        transfer::NAME => folding::<Transfer>(payload::transfer_event, Transfer::to_json),
        account_opening::NAME => folding::<Opening>(payload::opening_event, Opening::to_json),
        _ => return None,
    })
}

struct Fold<D: Decider> {
    state: D::State,
    read: fn(&str, Value) -> Result<D::Event, CodecError>,
    show: fn(&D::State) -> Value,
}

fn folding<D: Decider>(
    read: fn(&str, Value) -> Result<D::Event, CodecError>,
    show: fn(&D::State) -> Value,
) -> Box<dyn Folding> {
    Box::new(Fold::<D> { state: D::State::default(), read, show })
}

impl<D: Decider> Folding for Fold<D> {
    fn take(&mut self, event_type: &str, fields: &Value, at: Timestamp) -> Result<(), CodecError> {
        // Of an erased event nothing is left to take in.
        if !fields.is_null() {
            let event = (self.read)(event_type, fields.clone())?;
            D::evolve(&mut self.state, &event, at);
        }
        Ok(())
    }

    fn to_json(&self) -> Value {
        (self.show)(&self.state)
    }
}
