//! A bank account: commands -> events. The balance is never below zero, at no prefix of the log.
//!
//! A transfer takes the money out here; until it is settled or reversed, it is *under way*. Limits
//! and fees are amounts in the account's own currency.

mod command;
mod decide;
mod event;
mod opening;
#[cfg(test)]
mod properties;
mod rejection;
mod state;
#[cfg(test)]
mod tests;

#[expect(clippy::module_name_repetitions, reason = "their names on the wire")]
pub use command::{
    CloseAccount, Command, CorrectEntry, CreateAccount, Deposit, FreezeAccount, Grant,
    ReceiveTransfer, ReverseTransfer, SettleTransfer, Transfer, UnfreezeAccount, Withdraw,
};
pub use decide::AMOUNT_WHOLE_DIGITS_MAX;
#[expect(clippy::module_name_repetitions, reason = "their names on the wire")]
pub use event::{
    AccountClosed, AccountCreated, AccountFrozen, AccountType, AccountUnfrozen, EntryCorrected,
    Event, MoneyDeposited, MoneyReceived, MoneyTransferred, MoneyWithdrawn, TransferReversed,
    TransferSettled,
};
pub use rejection::Rejection;
pub use state::{Account, Opened, Status, UnderWay};

use crate::domain::money::Amount;
use crate::kernel::stream::AggregateName;

/// What accounts are called.
pub const NAME: AggregateName = AggregateName { domain: "banking", aggregate: "account" };

/// The least that an account is opened with.
#[must_use]
pub fn minimum_deposit() -> Amount {
    Amount::whole(100)
}
