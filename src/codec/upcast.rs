//! Earlier versions of stored events: each version -> the next -> ... -> today's.
//!
//! An event on the log keeps the schema that it was written with for ever. So every version that
//! was ever registered has a struct here and a step (`From`) to the one after it, and a file of
//! golden bytes that is read in the tests. A version is added so: copy the current `.avsc` to
//! `<Record>.v<n>.avsc`, change the current one (new fields with a default), move the old struct
//! here, write the step.

use serde::{Deserialize, Serialize};

use crate::domain::banking::account::{AccountClosed, AccountCreated, AccountType, MoneyDeposited};
use crate::domain::money::{Amount, Currency};

/// `MoneyDeposited` before deposits had a reference.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MoneyDepositedV1 {
    /// Who owns the account.
    pub user_id: String,
    /// The account's currency.
    pub currency: Currency,
    /// How much.
    pub amount: Amount,
    /// The balance after it.
    pub balance_after: Amount,
}

impl From<MoneyDepositedV1> for MoneyDeposited {
    fn from(old: MoneyDepositedV1) -> Self {
        Self {
            user_id: old.user_id,
            currency: old.currency,
            amount: old.amount,
            balance_after: old.balance_after,
            reference: None,
        }
    }
}

/// `AccountCreated` before customers had slots.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AccountCreatedV1 {
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
}

impl From<AccountCreatedV1> for AccountCreated {
    fn from(old: AccountCreatedV1) -> Self {
        Self {
            account_id: old.account_id,
            user_id: old.user_id,
            account_type: old.account_type,
            initial_deposit: old.initial_deposit,
            currency: old.currency,
            slot_id: None,
        }
    }
}

/// `AccountClosed` before customers had slots.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AccountClosedV1 {
    /// Who owns the account.
    pub user_id: String,
    /// The account's currency.
    pub currency: Currency,
    /// Why.
    pub reason: Option<String>,
}

impl From<AccountClosedV1> for AccountClosed {
    fn from(old: AccountClosedV1) -> Self {
        Self { user_id: old.user_id, currency: old.currency, reason: old.reason, slot_id: None }
    }
}
