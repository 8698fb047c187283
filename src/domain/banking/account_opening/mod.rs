//! The saga that opens an account only if its customer has a slot for it.
//!
//! Its id is the slot's, a hash of the account's id and the client's command id.
//!
//! ```text
//! RESERVE at the customer -> reserved -> OPEN at the account -> opened  -> CONFIRM -> OPENED
//!                                                            -> refused -> RELEASE -> REFUSED
//!                         -> denied   -> REFUSE at the account (answers the client) -> REFUSED
//! the account is closed   -> FREE at the customer -> CLOSED
//! ```
//!
//! - A step has one command id for life; a saga that gets no answer parks, and goes on with any.
//! - The slot is released only when the account has refused for good.
//! - A start of one that has ended sends again what answers the client.

mod decide;
mod message;
mod reactor;
#[cfg(test)]
mod tests;

pub use decide::{Opening, Phase};
pub use message::{
    Command, Event, OpeningAdvanced, OpeningEnded, OpeningParked, OpeningStarted, Outcome,
    Rejection, Step, StepFailed, Wanted,
};
#[expect(clippy::module_name_repetitions, reason = "named so where all reactors are wired")]
pub use reactor::AccountOpeningReactor;

use uuid::Uuid;

use crate::kernel::reactor::step_id;
use crate::kernel::stream::AggregateName;

/// What openings are called.
pub const NAME: AggregateName = AggregateName { domain: "banking", aggregate: "account-opening" };

/// The slot, and so the saga, of a client's wish for an account.
#[must_use]
pub fn slot_id(account_id: &str, command_id: Uuid) -> String {
    step_id(account_id, &command_id.to_string()).to_string()
}
