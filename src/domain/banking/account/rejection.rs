//! Why an account refuses a wish.

use crate::domain::money::{Amount, Currency};
use crate::kernel::decider;

/// A typed refusal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Rejection {
    /// The type is none of the four.
    InvalidAccountType {
        /// What was asked for.
        account_type: String,
    },
    /// The owner is missing.
    MissingUser,
    /// The currency is unknown, or its code is not in upper case.
    InvalidCurrency {
        /// What was asked for.
        currency: String,
    },
    /// The first deposit is too small.
    MinimumDeposit {
        /// What was offered.
        initial_deposit: Amount,
        /// The currency of both.
        currency: Currency,
    },
    /// The id is taken.
    AccountExists,
    /// The owner has as many open accounts as anybody may have.
    AccountLimit,
    /// There is no such account.
    AccountNotFound,
    /// The account is frozen or closed.
    AccountInactive,
    /// The amount is not above zero (a correction's: is zero).
    NonPositiveAmount {
        /// What was asked for.
        amount: Amount,
    },
    /// There is not enough money.
    InsufficientFunds {
        /// The balance.
        available: Amount,
        /// Amount and fee.
        requested: Amount,
        /// The currency of both.
        currency: Currency,
    },
    /// Sender and receiver are the same account.
    SelfTransfer,
    /// The transfer's time is over.
    Expired,
    /// The transfer's time is over for so long that nobody here remembers whether it was received.
    Unverifiable,
    /// The money is in another currency than the account.
    CurrencyMismatch {
        /// The account's currency.
        expected: Currency,
        /// The money's.
        actual: String,
    },
    /// The balance would grow beyond what can be held.
    LimitExceeded,
    /// No open transfer of that id was sent from here.
    TransferNotOpen {
        /// The transfer.
        transfer_id: String,
    },
    /// There is money left.
    BalanceNotZero {
        /// How much.
        balance: Amount,
        /// In which currency.
        currency: Currency,
    },
    /// A transfer is still under way.
    TransferPending,
    /// The account has no such event.
    UnknownEvent {
        /// What was named.
        event_id: String,
    },
    /// A field is not what it must be.
    InvalidField {
        /// Which.
        field: &'static str,
        /// What is wrong with it.
        reason: String,
    },
}

impl decider::Rejection for Rejection {
    fn code(&self) -> &'static str {
        match self {
            Self::InvalidAccountType { .. } => "InvalidAccountType",
            Self::MissingUser => "MissingUser",
            Self::InvalidCurrency { .. } => "InvalidCurrency",
            Self::MinimumDeposit { .. } => "MinimumDeposit",
            Self::AccountExists => "AccountExists",
            Self::AccountLimit => "AccountLimit",
            Self::AccountNotFound => "AccountNotFound",
            Self::AccountInactive => "AccountInactive",
            Self::NonPositiveAmount { .. } => "NonPositiveAmount",
            Self::InsufficientFunds { .. } => "InsufficientFunds",
            Self::SelfTransfer => "SelfTransfer",
            Self::Expired => "Expired",
            Self::Unverifiable => "Unverifiable",
            Self::CurrencyMismatch { .. } => "CurrencyMismatch",
            Self::LimitExceeded => "LimitExceeded",
            Self::TransferNotOpen { .. } => "TransferNotOpen",
            Self::BalanceNotZero { .. } => "BalanceNotZero",
            Self::TransferPending => "TransferPending",
            Self::UnknownEvent { .. } => "UnknownEvent",
            Self::InvalidField { .. } => "InvalidField",
        }
    }

    fn message(&self) -> String {
        match self {
            Self::InvalidAccountType { account_type } => format!(
                "{account_type:?} is no account type: CHECKING, SAVINGS, BUSINESS or INVESTMENT."
            ),
            Self::MissingUser => "An account needs an owner: user_id is missing.".to_owned(),
            Self::InvalidCurrency { currency } => {
                format!("{currency:?} is not an ISO 4217 currency code in upper case.")
            }
            Self::MinimumDeposit { initial_deposit, currency } => format!(
                "The first deposit must be at least {} {currency}, not {}.",
                currency.format(super::minimum_deposit()),
                currency.format(*initial_deposit)
            ),
            Self::AccountExists => "There is already an account with this id.".to_owned(),
            Self::AccountLimit => "The owner has five open accounts already.".to_owned(),
            Self::AccountNotFound => "There is no account with this id.".to_owned(),
            Self::AccountInactive => "The account is frozen or closed.".to_owned(),
            Self::NonPositiveAmount { amount } if amount.is_zero() => {
                "The amount must not be zero.".to_owned()
            }
            Self::NonPositiveAmount { .. } => "The amount must be above zero.".to_owned(),
            Self::InsufficientFunds { available, requested, currency } => format!(
                "The balance of {} {currency} does not cover {} {currency}.",
                currency.format(*available),
                currency.format(*requested)
            ),
            Self::SelfTransfer => "An account cannot send money to itself.".to_owned(),
            Self::Expired => {
                "The time in which this transfer could be received is over.".to_owned()
            }
            Self::Unverifiable => {
                "The transfer is too old to say whether it was received.".to_owned()
            }
            Self::CurrencyMismatch { expected, actual } => {
                format!("The account is in {expected}, the money in {actual}.")
            }
            Self::LimitExceeded => {
                "The balance would have more than 18 digits before the point.".to_owned()
            }
            Self::TransferNotOpen { transfer_id } => {
                format!("No open transfer {transfer_id:?} was sent from this account.")
            }
            Self::BalanceNotZero { balance, currency } => {
                format!("The account still holds {} {currency}.", currency.format(*balance))
            }
            Self::TransferPending => "A transfer from this account has not arrived yet.".to_owned(),
            Self::UnknownEvent { event_id } => {
                format!("This account has no event {event_id:?}.")
            }
            Self::InvalidField { field, reason } => format!("The field {field} {reason}."),
        }
    }

    fn details(&self) -> Vec<(&'static str, String)> {
        match self {
            Self::InvalidAccountType { account_type } => {
                vec![("account_type", account_type.clone())]
            }
            Self::InvalidCurrency { currency } => vec![("currency", currency.clone())],
            Self::MinimumDeposit { initial_deposit, currency } => vec![
                ("minimum", currency.format(super::minimum_deposit())),
                ("initial_deposit", currency.format(*initial_deposit)),
            ],
            Self::NonPositiveAmount { amount } => vec![("amount", amount.to_string())],
            Self::InsufficientFunds { available, requested, currency } => vec![
                ("available", currency.format(*available)),
                ("requested", currency.format(*requested)),
            ],
            Self::CurrencyMismatch { expected, actual } => {
                vec![("expected", expected.to_string()), ("actual", actual.clone())]
            }
            Self::TransferNotOpen { transfer_id } => vec![("transfer_id", transfer_id.clone())],
            Self::BalanceNotZero { balance, currency } => {
                vec![("balance", currency.format(*balance))]
            }
            Self::UnknownEvent { event_id } => {
                vec![("compensates_event_id", event_id.clone())]
            }
            Self::InvalidField { field, reason } => {
                vec![("field", (*field).to_owned()), ("reason", reason.clone())]
            }
            Self::MissingUser
            | Self::AccountExists
            | Self::AccountLimit
            | Self::AccountNotFound
            | Self::AccountInactive
            | Self::SelfTransfer
            | Self::Expired
            | Self::Unverifiable
            | Self::LimitExceeded
            | Self::TransferPending => Vec::new(),
        }
    }

    fn is_malformed(&self) -> bool {
        matches!(self, Self::InvalidField { .. })
    }

    /// Only what passes by itself; all else needs somebody to do something first.
    fn is_retryable(&self) -> bool {
        matches!(self, Self::TransferPending)
    }
}
