//! What may be wished of an account.

use uuid::Uuid;

use crate::domain::money::Amount;
use crate::kernel::time::Timestamp;

/// A wish about one account. Which account it is stands beside the command, not in it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "each variant is described at its struct")]
pub enum Command {
    CreateAccount(CreateAccount),
    Deposit(Deposit),
    Withdraw(Withdraw),
    Transfer(Transfer),
    ReceiveTransfer(ReceiveTransfer),
    ReverseTransfer(ReverseTransfer),
    SettleTransfer(SettleTransfer),
    FreezeAccount(FreezeAccount),
    UnfreezeAccount(UnfreezeAccount),
    CloseAccount(CloseAccount),
    CorrectEntry(CorrectEntry),
}

/// Opens an account with a first deposit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CreateAccount {
    /// The new account's id: the stream's own.
    pub account_id: String,
    /// Who owns it; empty if the sender left it out.
    pub user_id: String,
    /// `CHECKING`, `SAVINGS`, `BUSINESS` or `INVESTMENT`, as the sender wrote it.
    pub account_type: String,
    /// What is paid in at the opening.
    pub initial_deposit: Amount,
    /// The currency's code, as the sender wrote it.
    pub currency: String,
    /// What the customer has said to it. Only the process manager may say so.
    pub grant: Option<Grant>,
}

/// What the customer has said to an opening, and whom to answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grant {
    /// The slot.
    pub slot_id: String,
    /// The client's command id, under which it waits for the result.
    pub client_command_id: Uuid,
    /// What the client wants echoed.
    pub client_reply_to: Option<String>,
    /// The code of the no, if the customer has no slot.
    pub refused: Option<String>,
}

/// Pays money in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Deposit {
    /// How much.
    pub amount: Amount,
    /// The sender's own words about it.
    pub reference: Option<String>,
}

/// Pays money out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Withdraw {
    /// How much, without the fee.
    pub amount: Amount,
    /// The sender's own words about it.
    pub reference: Option<String>,
}

/// Sends money to another account.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transfer {
    /// Who shall have it.
    pub to_account_id: String,
    /// How much, without the fee.
    pub amount: Amount,
    /// The sender's own words about it.
    pub reference: Option<String>,
}

/// Takes in money that another account has sent. Only the process manager may say so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReceiveTransfer {
    /// The transfer.
    pub transfer_id: String,
    /// Who sent it.
    pub from_account_id: String,
    /// How much.
    pub amount: Amount,
    /// The sender's currency.
    pub currency: String,
    /// The sender's own words about it.
    pub reference: Option<String>,
    /// After this moment it is refused for good.
    pub valid_until: Timestamp,
}

/// Gives a transfer that was refused back to its sender. Only the process manager may say so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReverseTransfer {
    /// The transfer.
    pub transfer_id: String,
    /// Why it is reversed.
    pub reason: Option<String>,
}

/// Tells the sender that the receiver has the money. Only the process manager may say so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SettleTransfer {
    /// The transfer.
    pub transfer_id: String,
    /// Who received it.
    pub to_account_id: String,
}

/// Stops all movements but corrections.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FreezeAccount {
    /// Why.
    pub reason: Option<String>,
}

/// Allows movements again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnfreezeAccount {
    /// Why.
    pub reason: Option<String>,
}

/// Ends an account that is empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CloseAccount {
    /// Why.
    pub reason: Option<String>,
}

/// Puts an earlier entry right by a compensating one; history itself is never edited.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CorrectEntry {
    /// The event that was wrong.
    pub compensates_event_id: String,
    /// What is added to the balance; negative takes away.
    pub amount: Amount,
    /// Why.
    pub reason: Option<String>,
}
