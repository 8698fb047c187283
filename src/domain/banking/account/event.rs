//! What can have happened to an account.

use serde::{Deserialize, Serialize};

use crate::domain::money::{Amount, Currency};

/// A fact about one account. Field names are those of the stored records.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(untagged)]
#[expect(missing_docs, reason = "each variant is described at its struct")]
pub enum Event {
    AccountCreated(AccountCreated),
    MoneyDeposited(MoneyDeposited),
    MoneyWithdrawn(MoneyWithdrawn),
    MoneyTransferred(MoneyTransferred),
    MoneyReceived(MoneyReceived),
    TransferReversed(TransferReversed),
    TransferSettled(TransferSettled),
    AccountFrozen(AccountFrozen),
    AccountUnfrozen(AccountUnfrozen),
    AccountClosed(AccountClosed),
    EntryCorrected(EntryCorrected),
}

/// What kind of account it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum AccountType {
    /// For everyday payments.
    Checking,
    /// For savings; large withdrawals cost a fee.
    Savings,
    /// For a business.
    Business,
    /// For investments.
    Investment,
}

impl AccountType {
    /// Reads a type in any case; `None` if it is none.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        [Self::Checking, Self::Savings, Self::Business, Self::Investment]
            .into_iter()
            .find(|known| known.as_str().eq_ignore_ascii_case(text))
    }

    /// The name as it is stored: upper case.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Checking => "CHECKING",
            Self::Savings => "SAVINGS",
            Self::Business => "BUSINESS",
            Self::Investment => "INVESTMENT",
        }
    }
}

/// An account was opened with a first deposit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AccountCreated {
    /// The account.
    pub account_id: String,
    /// Who owns the account.
    pub user_id: String,
    /// What kind of account it is.
    pub account_type: AccountType,
    /// What was paid in at the opening.
    pub initial_deposit: Amount,
    /// The account's currency.
    pub currency: Currency,
    /// The customer's slot that it took, if openings were granted then.
    pub slot_id: Option<String>,
}

/// Money was paid in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MoneyDeposited {
    /// Who owns the account.
    pub user_id: String,
    /// The account's currency.
    pub currency: Currency,
    /// How much.
    pub amount: Amount,
    /// The balance after it.
    pub balance_after: Amount,
    /// The sender's own words about it.
    pub reference: Option<String>,
}

/// Money was paid out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MoneyWithdrawn {
    /// Who owns the account.
    pub user_id: String,
    /// The account's currency.
    pub currency: Currency,
    /// How much, without the fee.
    pub amount: Amount,
    /// The fee for it.
    pub fee: Amount,
    /// The balance after it.
    pub balance_after: Amount,
    /// The sender's own words about it.
    pub reference: Option<String>,
}

/// Money was sent to another account; it is under way until settled or reversed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MoneyTransferred {
    /// Who owns the account.
    pub user_id: String,
    /// The account's currency.
    pub currency: Currency,
    /// The transfer: this event's own id.
    pub transfer_id: String,
    /// Who shall have it.
    pub to_account_id: String,
    /// How much, without the fee.
    pub amount: Amount,
    /// The fee for it.
    pub transfer_fee: Amount,
    /// The balance after it.
    pub balance_after: Amount,
    /// The sender's own words about it.
    pub reference: Option<String>,
}

/// Money from another account came in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MoneyReceived {
    /// Who owns the account.
    pub user_id: String,
    /// The account's currency.
    pub currency: Currency,
    /// The transfer.
    pub transfer_id: String,
    /// Who sent it.
    pub from_account_id: String,
    /// How much.
    pub amount: Amount,
    /// The balance after it.
    pub balance_after: Amount,
    /// The sender's own words about it.
    pub reference: Option<String>,
}

/// A transfer was refused by its receiver; amount and fee were given back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TransferReversed {
    /// Who owns the account.
    pub user_id: String,
    /// The account's currency.
    pub currency: Currency,
    /// The transfer.
    pub transfer_id: String,
    /// The amount that was given back.
    pub amount: Amount,
    /// The fee that was given back.
    pub transfer_fee: Amount,
    /// The balance after it.
    pub balance_after: Amount,
    /// Why.
    pub reason: Option<String>,
}

/// A transfer has arrived; it is under way no longer. No money moves here.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TransferSettled {
    /// Who owns the account.
    pub user_id: String,
    /// The account's currency.
    pub currency: Currency,
    /// The transfer.
    pub transfer_id: String,
    /// Who received it.
    pub to_account_id: String,
    /// How much arrived.
    pub amount: Amount,
}

/// The account was frozen.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AccountFrozen {
    /// Who owns the account.
    pub user_id: String,
    /// The account's currency.
    pub currency: Currency,
    /// Why.
    pub reason: Option<String>,
}

/// The account was unfrozen.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AccountUnfrozen {
    /// Who owns the account.
    pub user_id: String,
    /// The account's currency.
    pub currency: Currency,
    /// Why.
    pub reason: Option<String>,
}

/// The account was closed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AccountClosed {
    /// Who owns the account.
    pub user_id: String,
    /// The account's currency.
    pub currency: Currency,
    /// Why.
    pub reason: Option<String>,
    /// The customer's slot that it gives back, if it had one.
    pub slot_id: Option<String>,
}

/// An earlier entry was put right by a compensating one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EntryCorrected {
    /// Who owns the account.
    pub user_id: String,
    /// The account's currency.
    pub currency: Currency,
    /// The event that was wrong.
    pub compensates_event_id: String,
    /// What was added to the balance; negative if taken away.
    pub amount: Amount,
    /// The balance after it.
    pub balance_after: Amount,
    /// Why.
    pub reason: Option<String>,
}

impl Event {
    /// The short name: `MoneyDeposited`.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::AccountCreated(_) => "AccountCreated",
            Self::MoneyDeposited(_) => "MoneyDeposited",
            Self::MoneyWithdrawn(_) => "MoneyWithdrawn",
            Self::MoneyTransferred(_) => "MoneyTransferred",
            Self::MoneyReceived(_) => "MoneyReceived",
            Self::TransferReversed(_) => "TransferReversed",
            Self::TransferSettled(_) => "TransferSettled",
            Self::AccountFrozen(_) => "AccountFrozen",
            Self::AccountUnfrozen(_) => "AccountUnfrozen",
            Self::AccountClosed(_) => "AccountClosed",
            Self::EntryCorrected(_) => "EntryCorrected",
        }
    }

    /// Who owns the account.
    #[must_use]
    pub fn user_id(&self) -> &str {
        match self {
            Self::AccountCreated(event) => &event.user_id,
            Self::MoneyDeposited(event) => &event.user_id,
            Self::MoneyWithdrawn(event) => &event.user_id,
            Self::MoneyTransferred(event) => &event.user_id,
            Self::MoneyReceived(event) => &event.user_id,
            Self::TransferReversed(event) => &event.user_id,
            Self::TransferSettled(event) => &event.user_id,
            Self::AccountFrozen(event) => &event.user_id,
            Self::AccountUnfrozen(event) => &event.user_id,
            Self::AccountClosed(event) => &event.user_id,
            Self::EntryCorrected(event) => &event.user_id,
        }
    }

    /// The account's currency.
    #[must_use]
    pub const fn currency(&self) -> Currency {
        match self {
            Self::AccountCreated(event) => event.currency,
            Self::MoneyDeposited(event) => event.currency,
            Self::MoneyWithdrawn(event) => event.currency,
            Self::MoneyTransferred(event) => event.currency,
            Self::MoneyReceived(event) => event.currency,
            Self::TransferReversed(event) => event.currency,
            Self::TransferSettled(event) => event.currency,
            Self::AccountFrozen(event) => event.currency,
            Self::AccountUnfrozen(event) => event.currency,
            Self::AccountClosed(event) => event.currency,
            Self::EntryCorrected(event) => event.currency,
        }
    }

    /// The event's own amount (an opening's is its deposit); `None` if it is about no money.
    #[must_use]
    pub const fn amount(&self) -> Option<Amount> {
        match self {
            Self::AccountCreated(event) => Some(event.initial_deposit),
            Self::MoneyDeposited(event) => Some(event.amount),
            Self::MoneyWithdrawn(event) => Some(event.amount),
            Self::MoneyTransferred(event) => Some(event.amount),
            Self::MoneyReceived(event) => Some(event.amount),
            Self::TransferReversed(event) => Some(event.amount),
            Self::TransferSettled(event) => Some(event.amount),
            Self::EntryCorrected(event) => Some(event.amount),
            Self::AccountFrozen(_) | Self::AccountUnfrozen(_) | Self::AccountClosed(_) => None,
        }
    }
}
