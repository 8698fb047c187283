//! What may be told to a transfer, and why it may refuse to hear it.

use super::event::Step;
use crate::domain::money::{Amount, Currency};
use crate::kernel::decider;

/// News about one transfer, or an operator's wish. All of them are internal.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the others are described at their structs")]
pub enum Command {
    StartTransfer(StartTransfer),
    /// The receiver has the money.
    RecordReceived,
    /// The sender knows that the receiver has the money.
    RecordSettled,
    /// The sender has the money back.
    RecordReversed,
    RecordRefused(RecordRefused),
    RecordFailed(RecordFailed),
    /// The time of a step is over.
    Wake,
    Resume(Resume),
    Abandon(Abandon),
}

/// Money has left an account.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StartTransfer {
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
    /// The fee that was paid for it.
    pub fee: Amount,
    /// The sender's own words about it.
    pub reference: Option<String>,
}

/// A step was refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecordRefused {
    /// Which.
    pub step: Step,
    /// The refusal's code.
    pub code: String,
}

/// A step broke: it may have to be sent again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecordFailed {
    /// Which.
    pub step: Step,
    /// The failure's code.
    pub code: String,
}

/// An operator wants a parked transfer to go on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resume {
    /// What the receiver's whole history says, if somebody has read it.
    pub received: Option<bool>,
}

/// An operator wants a transfer to be left alone. It reverses nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Abandon {
    /// Why.
    pub reason: Option<String>,
}

/// A typed refusal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rejection {
    /// Nobody has told of that transfer yet.
    TransferNotFound,
    /// It is completed or reversed.
    TransferEnded,
    /// News says that it was received, but it is being or has been given back.
    TransferContradicted,
    /// The receiver's history cannot tell yet: the transfer may still be received.
    StillReceivable,
}

impl decider::Rejection for Rejection {
    fn code(&self) -> &'static str {
        match self {
            Self::TransferNotFound => "TransferNotFound",
            Self::TransferEnded => "TransferEnded",
            Self::TransferContradicted => "TransferContradicted",
            Self::StillReceivable => "StillReceivable",
        }
    }

    fn message(&self) -> String {
        let text = match self {
            Self::TransferNotFound => "There is no transfer with this id.",
            Self::TransferEnded => "The transfer is completed or reversed.",
            Self::TransferContradicted => "The transfer was refused before: it is given back.",
            Self::StillReceivable => {
                "The transfer may still be received: a day after it has \
                                      expired, the receiver's history tells."
            }
        };
        text.to_owned()
    }
}
