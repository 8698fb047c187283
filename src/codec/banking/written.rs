//! An account's events as they are written: [`Event`] -> datum of its current schema.
//!
//! There is one for nearly every command, so they are written by hand, field by field in the
//! schemas' order; a test holds each against what its schema says.

use crate::codec::flat::put_bytes;
use crate::domain::banking::account::Event;
use crate::domain::money::{Amount, Currency};

/// Appends an event's fields.
pub(super) fn put(event: &Event, value: &mut Vec<u8>) {
    match event {
        Event::AccountCreated(event) => {
            put_text(value, &event.account_id);
            put_text(value, &event.user_id);
            put_text(value, event.account_type.as_str());
            put_amount(value, event.initial_deposit);
            put_text(value, event.currency.as_str());
            put_optional(value, event.slot_id.as_deref());
        }
        Event::MoneyDeposited(event) => {
            put_owner(value, &event.user_id, event.currency);
            put_amount(value, event.amount);
            put_amount(value, event.balance_after);
            put_optional(value, event.reference.as_deref());
        }
        Event::MoneyWithdrawn(event) => {
            put_owner(value, &event.user_id, event.currency);
            put_amount(value, event.amount);
            put_amount(value, event.fee);
            put_amount(value, event.balance_after);
            put_optional(value, event.reference.as_deref());
        }
        Event::MoneyTransferred(event) => {
            put_owner(value, &event.user_id, event.currency);
            put_text(value, &event.transfer_id);
            put_text(value, &event.to_account_id);
            put_amount(value, event.amount);
            put_amount(value, event.transfer_fee);
            put_amount(value, event.balance_after);
            put_optional(value, event.reference.as_deref());
        }
        Event::MoneyReceived(event) => {
            put_owner(value, &event.user_id, event.currency);
            put_text(value, &event.transfer_id);
            put_text(value, &event.from_account_id);
            put_amount(value, event.amount);
            put_amount(value, event.balance_after);
            put_optional(value, event.reference.as_deref());
        }
        Event::TransferReversed(_)
        | Event::TransferSettled(_)
        | Event::AccountFrozen(_)
        | Event::AccountUnfrozen(_)
        | Event::AccountClosed(_)
        | Event::EntryCorrected(_) => put_rare(event, value),
    }
}

fn put_rare(event: &Event, value: &mut Vec<u8>) {
    put_owner(value, event.user_id(), event.currency());
    match event {
        Event::TransferReversed(event) => {
            put_text(value, &event.transfer_id);
            put_amount(value, event.amount);
            put_amount(value, event.transfer_fee);
            put_amount(value, event.balance_after);
            put_optional(value, event.reason.as_deref());
        }
        Event::TransferSettled(event) => {
            put_text(value, &event.transfer_id);
            put_text(value, &event.to_account_id);
            put_amount(value, event.amount);
        }
        Event::AccountFrozen(event) => put_optional(value, event.reason.as_deref()),
        Event::AccountUnfrozen(event) => put_optional(value, event.reason.as_deref()),
        Event::AccountClosed(event) => {
            put_optional(value, event.reason.as_deref());
            put_optional(value, event.slot_id.as_deref());
        }
        Event::EntryCorrected(event) => {
            put_text(value, &event.compensates_event_id);
            put_amount(value, event.amount);
            put_amount(value, event.balance_after);
            put_optional(value, event.reason.as_deref());
        }
        Event::AccountCreated(_)
        | Event::MoneyDeposited(_)
        | Event::MoneyWithdrawn(_)
        | Event::MoneyTransferred(_)
        | Event::MoneyReceived(_) => {}
    }
}

/// What every event but the first begins with.
fn put_owner(value: &mut Vec<u8>, user_id: &str, currency: Currency) {
    put_text(value, user_id);
    put_text(value, currency.as_str());
}

fn put_text(value: &mut Vec<u8>, text: &str) {
    put_bytes(value, text.as_bytes());
}

fn put_amount(value: &mut Vec<u8>, amount: Amount) {
    put_bytes(value, amount.to_be_bytes(&mut [0; 16]));
}

/// The branches of `["null", "string"]`, zigzag.
fn put_optional(value: &mut Vec<u8>, text: Option<&str>) {
    match text {
        None => value.push(0),
        Some(text) => {
            value.push(2);
            put_text(value, text);
        }
    }
}
