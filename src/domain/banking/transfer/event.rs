//! What can have happened to a transfer.

use serde::{Deserialize, Serialize};

use crate::domain::money::{Amount, Currency};
use crate::kernel::time::Timestamp;

/// A fact about one transfer. Field names are those of the stored records.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(untagged)]
#[expect(missing_docs, reason = "each variant is described at its struct")]
pub enum Event {
    TransferStarted(TransferStarted),
    TransferReceived(TransferReceived),
    TransferCompleted(TransferCompleted),
    ReversalStarted(ReversalStarted),
    TransferReversed(TransferReversed),
    StepFailed(StepFailed),
    StepRepeated(StepRepeated),
    TransferParked(TransferParked),
}

/// What one of the two accounts is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Step {
    /// The receiver takes the money.
    Receive,
    /// The sender learns that it has arrived.
    Settle,
    /// The sender takes it back.
    Reverse,
}

impl Step {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Receive, Self::Settle, Self::Reverse];

    /// The name as it is stored, and in the step's command id: never to be changed.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Receive => "RECEIVE",
            Self::Settle => "SETTLE",
            Self::Reverse => "REVERSE",
        }
    }

    /// Reads the name; `None` if it is none.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|step| step.as_str() == text)
    }
}

/// Money has left an account. The receiver is asked to take it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TransferStarted {
    /// Who owns the sending account.
    pub user_id: String,
    /// The sender's currency.
    pub currency: Currency,
    /// Who sent it.
    pub from_account_id: String,
    /// Who shall have it.
    pub to_account_id: String,
    /// How much, without the fee.
    pub amount: Amount,
    /// The fee for it.
    pub fee: Amount,
    /// The sender's own words about it.
    pub reference: Option<String>,
    /// After this moment the receiver refuses it for good.
    pub valid_until: Timestamp,
    /// Until when an answer is waited for.
    pub deadline: Timestamp,
}

/// The receiver has it. The sender is told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TransferReceived {
    /// Who owns the sending account.
    pub user_id: String,
    /// The sender's currency.
    pub currency: Currency,
    /// Who sent it.
    pub from_account_id: String,
    /// Who has it.
    pub to_account_id: String,
    /// How much arrived.
    pub amount: Amount,
    /// Until when an answer is waited for.
    pub deadline: Timestamp,
}

/// Both accounts know that it has arrived: the end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TransferCompleted {
    /// Who owns the sending account.
    pub user_id: String,
    /// The sender's currency.
    pub currency: Currency,
    /// How much arrived.
    pub amount: Amount,
}

/// The receiver has refused it for good. The sender is asked to take it back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReversalStarted {
    /// Who owns the sending account.
    pub user_id: String,
    /// The sender's currency.
    pub currency: Currency,
    /// Who sent it.
    pub from_account_id: String,
    /// How much goes back, without the fee.
    pub amount: Amount,
    /// The refusal's code.
    pub reason: String,
    /// Until when an answer is waited for.
    pub deadline: Timestamp,
}

/// The sender has it back, with the fee: the end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TransferReversed {
    /// Who owns the sending account.
    pub user_id: String,
    /// The sender's currency.
    pub currency: Currency,
    /// The amount that was given back.
    pub amount: Amount,
    /// The fee that was given back.
    pub fee: Amount,
    /// The refusal's code.
    pub reason: String,
}

/// A step broke. It is sent again after a while.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StepFailed {
    /// Who owns the sending account.
    pub user_id: String,
    /// Which step.
    pub step: Step,
    /// Which attempt, from 1.
    pub attempt: u32,
    /// The failure's code.
    pub reason: String,
    /// Not before this it is sent again.
    pub retry_at: Timestamp,
}

/// A step is sent again, with everything that it needs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StepRepeated {
    /// Who owns the sending account.
    pub user_id: String,
    /// Which step.
    pub step: Step,
    /// Which attempt, from 1; an operator's resumption counts anew.
    pub attempt: u32,
    /// Until when an answer is waited for.
    pub deadline: Timestamp,
    /// The sender's currency.
    pub currency: Currency,
    /// Who sent it.
    pub from_account_id: String,
    /// Who shall have it.
    pub to_account_id: String,
    /// How much, without the fee.
    pub amount: Amount,
    /// The sender's own words about it.
    pub reference: Option<String>,
    /// After this moment the receiver refuses it for good.
    pub valid_until: Timestamp,
    /// Why it is given back, if it is.
    pub reason: Option<String>,
}

/// Nothing is sent any more until an answer or an operator comes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TransferParked {
    /// Who owns the sending account.
    pub user_id: String,
    /// At which step.
    pub step: Step,
    /// Why.
    pub reason: String,
}

impl Event {
    /// The short name: `TransferStarted`.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::TransferStarted(_) => "TransferStarted",
            Self::TransferReceived(_) => "TransferReceived",
            Self::TransferCompleted(_) => "TransferCompleted",
            Self::ReversalStarted(_) => "ReversalStarted",
            Self::TransferReversed(_) => "TransferReversed",
            Self::StepFailed(_) => "StepFailed",
            Self::StepRepeated(_) => "StepRepeated",
            Self::TransferParked(_) => "TransferParked",
        }
    }
}
