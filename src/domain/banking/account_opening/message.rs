//! What may be told to an opening, what can have happened to it, and why it may refuse to hear.

use serde::{Deserialize, Serialize};

use crate::domain::banking::account::AccountType;
use crate::domain::money::{Amount, Currency};
use crate::kernel::decider;
use crate::kernel::time::Timestamp;

/// News about one opening, or an operator's wish. All of them are internal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// A client wants an account.
    StartOpening(Wanted),
    /// The customer has a slot for it.
    RecordReserved,
    /// The customer has none.
    RecordDenied {
        /// The code of the no.
        code: String,
    },
    /// The account is there.
    RecordOpened,
    /// The customer knows that the account is there.
    RecordConfirmed,
    /// The customer knows that there is no account.
    RecordReleased,
    /// The account was closed.
    RecordClosed,
    /// The customer knows that the account was closed.
    RecordFreed,
    /// A step was refused.
    RecordRefused {
        /// Which.
        step: Step,
        /// The refusal's code.
        code: String,
    },
    /// A step broke: it may have to be sent again.
    RecordFailed {
        /// Which.
        step: Step,
        /// The failure's code.
        code: String,
    },
    /// The time of a step is over.
    Wake,
    /// An operator wants a parked opening to go on.
    Resume,
    /// An operator wants an opening to be left alone. It releases nothing.
    Abandon {
        /// Why.
        reason: Option<String>,
    },
}

/// What a client has asked for, as it was found to be right.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wanted {
    /// Who will own the account.
    pub user_id: String,
    /// The account.
    pub account_id: String,
    /// What kind of account.
    pub account_type: AccountType,
    /// What is paid in at the opening.
    pub initial_deposit: Amount,
    /// The account's currency.
    pub currency: Currency,
    /// The client's command id, under which it waits for the result.
    pub client_command_id: String,
    /// What the client wants echoed.
    pub client_reply_to: Option<String>,
}

/// A fact about one opening. Field names are those of the stored records.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(untagged)]
#[expect(missing_docs, reason = "each variant is described at its struct")]
pub enum Event {
    OpeningStarted(OpeningStarted),
    OpeningAdvanced(OpeningAdvanced),
    StepFailed(StepFailed),
    OpeningParked(OpeningParked),
    OpeningEnded(OpeningEnded),
}

/// What one of the others is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Step {
    /// The customer sets a slot aside.
    Reserve,
    /// The account is opened.
    Open,
    /// The account tells the client that there is no slot.
    Refuse,
    /// The customer learns that the account is there.
    Confirm,
    /// The customer learns that there is no account.
    Release,
    /// The customer learns that the account was closed.
    Free,
}

impl Step {
    /// All of them.
    pub const ALL: [Self; 6] =
        [Self::Reserve, Self::Open, Self::Refuse, Self::Confirm, Self::Release, Self::Free];

    /// The name as it is stored, and in the step's command id: never to be changed.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Reserve => "RESERVE",
            Self::Open => "OPEN",
            Self::Refuse => "REFUSE",
            Self::Confirm => "CONFIRM",
            Self::Release => "RELEASE",
            Self::Free => "FREE",
        }
    }

    /// Reads the name; `None` if it is none.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|step| step.as_str() == text)
    }
}

/// How an opening has ended so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Outcome {
    /// The account is there.
    Opened,
    /// The client was refused.
    Refused,
    /// The account was there, and was closed.
    Closed,
}

/// A client wants an account. The customer is asked for a slot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OpeningStarted {
    /// Who will own the account.
    pub user_id: String,
    /// The account.
    pub account_id: String,
    /// What kind of account.
    pub account_type: AccountType,
    /// What is paid in at the opening.
    pub initial_deposit: Amount,
    /// The account's currency.
    pub currency: Currency,
    /// The client's command id.
    pub client_command_id: String,
    /// What the client wants echoed.
    pub client_reply_to: Option<String>,
    /// Until when an answer is waited for.
    pub deadline: Timestamp,
}

/// A step is sent, with everything that it needs: the next one, or one again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OpeningAdvanced {
    /// Who will own the account.
    pub user_id: String,
    /// The account.
    pub account_id: String,
    /// What kind of account.
    pub account_type: AccountType,
    /// What is paid in at the opening.
    pub initial_deposit: Amount,
    /// The account's currency.
    pub currency: Currency,
    /// The client's command id.
    pub client_command_id: String,
    /// What the client wants echoed.
    pub client_reply_to: Option<String>,
    /// Which step.
    pub step: Step,
    /// Which attempt, from 1.
    pub attempt: u32,
    /// Why there will be no account, if so.
    pub reason: Option<String>,
    /// Until when an answer is waited for.
    pub deadline: Timestamp,
}

/// A step broke. It is sent again after a while.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StepFailed {
    /// Who will own the account.
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

/// Nothing is sent any more until an answer or an operator comes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OpeningParked {
    /// Who will own the account.
    pub user_id: String,
    /// At which step.
    pub step: Step,
    /// Why.
    pub reason: String,
}

/// The account is there, or will never be, or is there no more.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OpeningEnded {
    /// Who owns the account.
    pub user_id: String,
    /// The account.
    pub account_id: String,
    /// Which of the three.
    pub outcome: Outcome,
    /// Why there is no account, if it was refused.
    pub reason: Option<String>,
}

impl Event {
    /// The short name: `OpeningStarted`.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::OpeningStarted(_) => "OpeningStarted",
            Self::OpeningAdvanced(_) => "OpeningAdvanced",
            Self::StepFailed(_) => "StepFailed",
            Self::OpeningParked(_) => "OpeningParked",
            Self::OpeningEnded(_) => "OpeningEnded",
        }
    }
}

/// A typed refusal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rejection {
    /// Nobody has asked for it yet.
    OpeningNotFound,
    /// It has ended.
    OpeningEnded,
    /// News says that there is an account, but it was refused.
    OpeningContradicted,
}

impl decider::Rejection for Rejection {
    fn code(&self) -> &'static str {
        match self {
            Self::OpeningNotFound => "OpeningNotFound",
            Self::OpeningEnded => "OpeningEnded",
            Self::OpeningContradicted => "OpeningContradicted",
        }
    }

    fn message(&self) -> String {
        let text = match self {
            Self::OpeningNotFound => "There is no opening with this id.",
            Self::OpeningEnded => "The opening has ended.",
            Self::OpeningContradicted => "The account was refused before, and yet it is there.",
        };
        text.to_owned()
    }
}
