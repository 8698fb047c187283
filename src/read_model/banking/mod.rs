//! What banking shows: account events -> balances and transactions, volumes and fees.

pub mod account_summary;
pub mod account_transaction;
pub mod dashboard;
pub mod event;
mod panels;
pub mod postgres;

use std::sync::Arc;

use crate::domain::banking::account::{self, Account, Event};
use crate::domain::money::{Amount, Currency};
use crate::kernel::codec::{Codec, CodecError};
use crate::kernel::message::Record;
use crate::kernel::projection::Head;
use crate::kernel::stream::AggregateName;
use rust_decimal::Decimal;

/// The domain's name in groups, schemas and views.
pub const DOMAIN: &str = "banking";

/// Whose events are read.
pub const AGGREGATES: [AggregateName; 1] = [account::NAME];

/// Reads account events.
pub type AccountCodec = Arc<dyn Codec<Account>>;

/// The events that the projections of this version know.
const KNOWN: [&str; 11] = [
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

/// Decodes an event, if its type is known here.
fn decode(
    codec: &AccountCodec,
    head: &Head<'_>,
    record: &Record,
) -> Result<Option<Event>, CodecError> {
    if !KNOWN.contains(&head.short_type()) {
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
