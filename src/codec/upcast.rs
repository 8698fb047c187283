//! Earlier versions of stored events: each version -> the next -> ... -> today's.
//!
//! An event on the log keeps the schema that it was written with for ever. So every version that
//! was ever registered has a struct here and a step (`From`) to the one after it, and a file of
//! golden bytes that is read in the tests. A version is added so: copy the current `.avsc` to
//! `<Record>.v<n>.avsc`, change the current one (new fields with a default), move the old struct
//! here, write the step.

use serde::{Deserialize, Serialize};

use crate::domain::banking::account::MoneyDeposited;
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
