//! What banking shows: events -> balances, transactions and transfers, volumes and fees.
//!
//! Postgres has what comes of accounts and transfers. ClickHouse has every event of all four
//! aggregates.

pub mod account_summary;
pub mod account_transaction;
pub mod dashboard;
pub mod event;
mod facts;
mod panels;
pub mod postgres;
pub mod transfer;

use std::sync::Arc;

use crate::domain::banking::account::Account;
use crate::domain::banking::account_opening::Opening;
use crate::domain::banking::customer::Customer;
use crate::domain::banking::transfer::Transfer;
use crate::domain::money::{Amount, Currency};
use crate::kernel::codec::{Codec, CodecError};
use crate::kernel::decider::Decider;
use crate::kernel::message::Record;
use crate::kernel::projection::Head;
use rust_decimal::Decimal;

/// The domain's name in groups, schemas and views.
pub const DOMAIN: &str = "banking";

/// Read the events of each aggregate.
#[derive(Clone)]
pub struct Codecs {
    /// The accounts'.
    pub accounts: Arc<dyn Codec<Account>>,
    /// The customers'.
    pub customers: Arc<dyn Codec<Customer>>,
    /// The transfers'.
    pub transfers: Arc<dyn Codec<Transfer>>,
    /// The openings'.
    pub openings: Arc<dyn Codec<Opening>>,
}

/// The events of an account that the projections of this version know.
const ACCOUNT_EVENTS: [&str; 11] = [
    "AccountCreated",
    "MoneyDeposited",
    "MoneyWithdrawn",
    "MoneyTransferred",
    "MoneyReceived",
    "TransferReversed",
    "TransferSettled",
    "AccountFrozen",
    "AccountUnfrozen",
    "AccountClosed",
    "EntryCorrected",
];

/// Those of a customer.
const CUSTOMER_EVENTS: [&str; 5] =
    ["SlotReserved", "SlotDenied", "SlotConfirmed", "SlotReleased", "SlotFreed"];

/// Those of a transfer.
const TRANSFER_EVENTS: [&str; 8] = [
    "TransferStarted",
    "TransferReceived",
    "TransferCompleted",
    "ReversalStarted",
    "TransferReversed",
    "StepFailed",
    "StepRepeated",
    "TransferParked",
];

/// Those of an opening.
const OPENING_EVENTS: [&str; 5] =
    ["OpeningStarted", "OpeningAdvanced", "StepFailed", "OpeningParked", "OpeningEnded"];

/// Decodes an event, if its type is one of those that are known here.
fn decode<D: Decider>(
    codec: &dyn Codec<D>,
    known: &[&str],
    head: &Head<'_>,
    record: &Record,
) -> Result<Option<D::Event>, CodecError> {
    if !known.contains(&head.short_type()) {
        return Ok(None);
    }
    let value = record.value.as_deref().unwrap_or_default();
    codec.decode_event(value).map(Some)
}

/// An amount with its currency's decimals, or more if it needs them.
fn numeric(amount: Amount, currency: Currency) -> Decimal {
    let mut units = amount.units();
    let mut scale = 8;
    while scale > currency.decimals() && units % 10 == 0 {
        units /= 10;
        scale -= 1;
    }
    Decimal::from_i128_with_scale(units, scale)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::compiled;
    use crate::kernel::stream::Kind;

    #[test]
    fn every_event_that_is_written_is_known() {
        let known: [&[&str]; 4] =
            [&ACCOUNT_EVENTS, &CUSTOMER_EVENTS, &TRANSFER_EVENTS, &OPENING_EVENTS];
        let aggregates = [Account::NAME, Customer::NAME, Transfer::NAME, Opening::NAME];
        for (aggregate, known) in aggregates.into_iter().zip(known) {
            let namespace = aggregate.record_namespace() + ".";
            let mut written: Vec<&str> = compiled::all()
                .iter()
                .filter(|schema| schema.source.kind == Kind::Events && schema.current)
                .filter_map(|schema| schema.source.record.strip_prefix(&namespace))
                .collect();
            let mut known = known.to_vec();
            written.sort_unstable();
            known.sort_unstable();
            assert_eq!(written, known, "{aggregate}");
        }
    }

    #[test]
    fn amounts_have_their_currencys_decimals() {
        let text = |text: &str, code: &str| {
            let currency = Currency::parse(code).unwrap();
            numeric(Amount::parse(text).unwrap(), currency).to_string()
        };
        assert_eq!(text("150", "USD"), "150.00");
        assert_eq!(text("-0.5", "USD"), "-0.50");
        assert_eq!(text("0", "EUR"), "0.00");
        assert_eq!(text("700", "JPY"), "700");
        assert_eq!(text("1.125", "USD"), "1.125");
    }
}
