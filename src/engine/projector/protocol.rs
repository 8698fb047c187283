//! What the projection loop is told and what it asks for: inputs, actions, failures, states.

use std::sync::Arc;

use super::Position;
use crate::kernel::projection::{Applied, Batch, Cause, Place, Redriven};

/// What happened.
#[derive(Debug)]
pub enum Input {
    /// Time has passed, or records have come.
    Tick,
    /// Committed offset, store and log were read.
    PositionRead(Result<Box<Position>, String>),
    /// Whether an event lies in the range that was asked about.
    LookedBetween(Result<bool, String>),
    /// Whether the store's place was replaced; `false` is a lost compare-and-set.
    CheckpointReset(Result<bool, String>),
    /// The offset was committed in Kafka.
    Committed(Result<(), String>),
    /// The reader stands at the offset.
    Sought(Result<(), String>),
    /// The batch was applied, as far as it says.
    Applied(Result<Applied, Failure>),
    /// Somebody wants the parked events of these streams tried again.
    Redrive(Vec<String>),
    /// What came of parked events that were tried again.
    Redriven(Result<Redriven, Failure>),
    /// The stream's parked events stay, and why is written down.
    Kept(Result<(), String>),
    /// The reader stands still, or reads something else: find out anew where to go on.
    Lost(String),
    /// Nothing new shall be begun: the partition goes to somebody else, or the process ends.
    Finish,
}

/// Why a batch was not applied.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// The store may answer differently later, or may even have applied it.
    #[error("{0}")]
    Transient(String),
    /// The store is not at the batch's place: somebody else was here.
    #[error("the store is at another place than this batch: another owner was at work")]
    Conflict,
    /// Something in the batch is refused, whenever it is tried.
    #[error("{0}")]
    Refused(Refusal),
    /// It will fail again, whatever is in the batch.
    #[error("{0}")]
    Permanent(String),
}

/// Why something in a batch is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
pub struct Refusal {
    /// Who refuses.
    pub cause: Cause,
    /// What was said.
    pub reason: String,
    /// The event that it is likely about.
    pub suspect: Option<i64>,
}

/// What the driver shall do.
#[derive(Debug, PartialEq, Eq)]
pub enum Action {
    /// Read committed offset, store and log.
    ReadPosition,
    /// Find out whether an event lies in `from..to`.
    LookBetween {
        /// The first offset to look at.
        from: i64,
        /// The offset to stop before.
        to: i64,
    },
    /// Replace the store's place by a compare-and-set.
    ResetCheckpoint {
        /// What the store must still hold; `None` is nothing.
        expected: Option<Place>,
        /// The new place.
        place: Place,
        /// Whether the partition's rows go.
        clear: bool,
    },
    /// Commit the offset in Kafka and wait for the answer.
    Commit {
        /// The offset.
        offset: i64,
        /// What to write beside it.
        metadata: String,
    },
    /// Have the reader go on at this offset.
    Seek {
        /// The offset.
        offset: i64,
    },
    /// Apply the batch.
    Apply {
        /// The batch; kept here until the store has answered.
        batch: Arc<Batch>,
    },
    /// Try a stream's oldest parked events again, and take those that are applied off the list.
    Redrive {
        /// What the store must hold.
        from: Place,
        /// The stream.
        stream: String,
        /// The most events.
        rows: usize,
    },
    /// Write down why a stream's first parked event still cannot be applied, and that nobody waits
    /// for it any more.
    Keep {
        /// The stream.
        stream: String,
        /// Why.
        refusal: Refusal,
    },
    /// Read no more: the partition cannot go on. The reason is in [`super::Projector::error`].
    Stop,
}

/// What a partition is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum State {
    /// Finding out where it stands.
    Locating,
    /// Moving the store's place, Kafka's commit and the reader to where it shall go on.
    Positioning,
    /// Waiting for records.
    Ready,
    /// Applying a batch.
    Applying,
    /// Committing in Kafka.
    Committing,
    /// Trying parked events again.
    Redriving,
    /// Waiting before another try.
    BackingOff,
    /// Stopped by something that will not go away by itself.
    Stopped,
    /// Finished, as asked.
    Finished,
}
