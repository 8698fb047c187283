//! The transfer saga: what became of money that left one account -> what the two accounts are told.
//!
//! Its id is the transfer's, the id of the `MoneyTransferred` event.
//!
//! ```text
//! started -> RECEIVE at the receiver -> received -> SETTLE at the sender  -> completed
//!                                    -> refused  -> REVERSE at the sender -> reversed
//! ```
//!
//! - A step has one command id for life. It is sent again when no answer comes and after a failure;
//!   after three attempts the saga parks, and any answer that still comes, or an operator, takes it
//!   further.
//! - Only a definite refusal reverses. No answer, a failure, a conflict of ids and `Unverifiable`
//!   are none: the command may have been accepted, or may still be.
//! - `valid_until` is fixed at the start, before the first send. After it the receiver refuses for
//!   good, so every transfer can be brought to an end.

mod command;
mod decide;
mod event;
mod reactor;
#[cfg(test)]
mod tests;

#[expect(clippy::module_name_repetitions, reason = "their names on the wire")]
pub use command::{
    Abandon, Command, RecordFailed, RecordRefused, Rejection, Resume, StartTransfer,
};
pub use decide::{Phase, Transfer};
#[expect(clippy::module_name_repetitions, reason = "their names on the wire")]
pub use event::{
    Event, ReversalStarted, Step, StepFailed, StepRepeated, TransferCompleted, TransferParked,
    TransferReceived, TransferReversed, TransferStarted,
};
#[expect(clippy::module_name_repetitions, reason = "named so where all reactors are wired")]
pub use reactor::TransferReactor;

use crate::kernel::stream::AggregateName;

/// What transfers are called.
pub const NAME: AggregateName = AggregateName { domain: "banking", aggregate: "transfer" };
