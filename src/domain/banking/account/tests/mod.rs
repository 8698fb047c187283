//! Every rule and every refusal, one by one.

mod life;
mod movements;
mod transfers;

use super::*;
use crate::domain::money::{Amount, Currency};
use crate::kernel::decider::{Decider, Rejection as _};
use crate::kernel::scenario::{SCENARIO_ID, SCENARIO_NOW, given, scenario_context};

const DAY: i64 = 24 * 60 * 60;

fn amount(text: &str) -> Amount {
    Amount::parse(text).unwrap()
}

fn create(edit: impl FnOnce(&mut CreateAccount)) -> Command {
    let mut command = CreateAccount {
        account_id: SCENARIO_ID.to_owned(),
        user_id: "user-1".to_owned(),
        account_type: "CHECKING".to_owned(),
        initial_deposit: amount("100"),
        currency: "USD".to_owned(),
        grant: None,
    };
    edit(&mut command);
    Command::CreateAccount(command)
}

fn opened_as(account_type: AccountType, deposit: &str, currency: &str) -> Event {
    Event::AccountCreated(AccountCreated {
        account_id: SCENARIO_ID.to_owned(),
        user_id: "user-1".to_owned(),
        account_type,
        initial_deposit: amount(deposit),
        currency: Currency::parse(currency).unwrap(),
        slot_id: None,
    })
}

fn opened(deposit: &str) -> Event {
    opened_as(AccountType::Checking, deposit, "USD")
}

fn deposit(text: &str) -> Command {
    Command::Deposit(Deposit { amount: amount(text), reference: Some("pay".to_owned()) })
}

fn deposited(text: &str, after: &str) -> Event {
    Event::MoneyDeposited(MoneyDeposited {
        user_id: "user-1".to_owned(),
        currency: Currency::USD,
        amount: amount(text),
        balance_after: amount(after),
        reference: Some("pay".to_owned()),
    })
}

fn withdraw(text: &str) -> Command {
    Command::Withdraw(Withdraw { amount: amount(text), reference: None })
}

fn withdrawn(text: &str, fee: &str, after: &str) -> Event {
    Event::MoneyWithdrawn(MoneyWithdrawn {
        user_id: "user-1".to_owned(),
        currency: Currency::USD,
        amount: amount(text),
        fee: amount(fee),
        balance_after: amount(after),
        reference: None,
    })
}

fn transfer(text: &str) -> Command {
    Command::Transfer(Transfer {
        to_account_id: "other".to_owned(),
        amount: amount(text),
        reference: Some("rent".to_owned()),
    })
}

/// The id that a transfer gets which is the stream's second event.
fn transfer_id() -> String {
    let context = scenario_context::<Account>(1, SCENARIO_NOW);
    context.event_id(1).to_string()
}

fn transferred(text: &str, fee: &str, after: &str) -> Event {
    Event::MoneyTransferred(MoneyTransferred {
        user_id: "user-1".to_owned(),
        currency: Currency::USD,
        transfer_id: transfer_id(),
        to_account_id: "other".to_owned(),
        amount: amount(text),
        transfer_fee: amount(fee),
        balance_after: amount(after),
        reference: Some("rent".to_owned()),
    })
}

fn receive(edit: impl FnOnce(&mut ReceiveTransfer)) -> Command {
    let mut command = ReceiveTransfer {
        transfer_id: "t-1".to_owned(),
        from_account_id: "other".to_owned(),
        amount: amount("50"),
        currency: "USD".to_owned(),
        reference: None,
        valid_until: SCENARIO_NOW.plus_seconds(DAY),
    };
    edit(&mut command);
    Command::ReceiveTransfer(command)
}

fn received(after: &str) -> Event {
    Event::MoneyReceived(MoneyReceived {
        user_id: "user-1".to_owned(),
        currency: Currency::USD,
        transfer_id: "t-1".to_owned(),
        from_account_id: "other".to_owned(),
        amount: amount("50"),
        balance_after: amount(after),
        reference: None,
    })
}

fn reverse(transfer_id: String) -> Command {
    Command::ReverseTransfer(ReverseTransfer {
        transfer_id,
        reason: Some("AccountNotFound".to_owned()),
    })
}

fn reversed(text: &str, fee: &str, after: &str) -> Event {
    Event::TransferReversed(TransferReversed {
        user_id: "user-1".to_owned(),
        currency: Currency::USD,
        transfer_id: transfer_id(),
        amount: amount(text),
        transfer_fee: amount(fee),
        balance_after: amount(after),
        reason: Some("AccountNotFound".to_owned()),
    })
}

fn settle(transfer_id: String) -> Command {
    Command::SettleTransfer(SettleTransfer { transfer_id, to_account_id: "other".to_owned() })
}

fn settled(text: &str) -> Event {
    Event::TransferSettled(TransferSettled {
        user_id: "user-1".to_owned(),
        currency: Currency::USD,
        transfer_id: transfer_id(),
        to_account_id: "other".to_owned(),
        amount: amount(text),
    })
}

fn freeze() -> Command {
    Command::FreezeAccount(FreezeAccount { reason: Some("fraud".to_owned()) })
}

fn frozen() -> Event {
    Event::AccountFrozen(AccountFrozen {
        user_id: "user-1".to_owned(),
        currency: Currency::USD,
        reason: Some("fraud".to_owned()),
    })
}

fn unfreeze() -> Command {
    Command::UnfreezeAccount(UnfreezeAccount { reason: None })
}

fn unfrozen() -> Event {
    Event::AccountUnfrozen(AccountUnfrozen {
        user_id: "user-1".to_owned(),
        currency: Currency::USD,
        reason: None,
    })
}

fn close() -> Command {
    Command::CloseAccount(CloseAccount { reason: None })
}

fn closed() -> Event {
    Event::AccountClosed(AccountClosed {
        user_id: "user-1".to_owned(),
        currency: Currency::USD,
        reason: None,
        slot_id: None,
    })
}

/// A closed account's past.
fn past_of_closed() -> [Event; 3] {
    [opened("100"), withdrawn("100", "0", "0"), closed()]
}

/// Corrects the event with that sequence.
fn correct(sequence: u64, text: &str) -> Command {
    let context = scenario_context::<Account>(0, SCENARIO_NOW);
    Command::CorrectEntry(CorrectEntry {
        compensates_event_id: context.event_id(sequence).to_string(),
        amount: amount(text),
        reason: Some("typo".to_owned()),
    })
}

fn corrected(sequence: u64, text: &str, after: &str) -> Event {
    let context = scenario_context::<Account>(0, SCENARIO_NOW);
    Event::EntryCorrected(EntryCorrected {
        user_id: "user-1".to_owned(),
        currency: Currency::USD,
        compensates_event_id: context.event_id(sequence).to_string(),
        amount: amount(text),
        balance_after: amount(after),
        reason: Some("typo".to_owned()),
    })
}

fn too_poor(available: &str, requested: &str) -> Rejection {
    Rejection::InsufficientFunds {
        available: amount(available),
        requested: amount(requested),
        currency: Currency::USD,
    }
}
