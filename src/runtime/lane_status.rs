//! How a partition of a handler fares: written by its lane, read by whoever asks.

use crate::engine::protocol::Counts;

/// How a partition fares.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LaneStatus {
    /// The commands topic.
    pub topic: String,
    /// The partition.
    pub partition: i32,
    /// What it is doing.
    pub state: LaneState,
    /// What it has done.
    pub counts: Counts,
    /// The last thing that went wrong.
    pub last_error: Option<String>,
}

/// What a lane is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LaneState {
    /// Fencing off older owners.
    Fencing,
    /// Reading state back from the log.
    Restoring,
    /// Handling commands.
    Running,
    /// Waiting for a service that does not answer.
    Waiting,
    /// Stopped for good: somebody must act.
    Stopped,
}

impl LaneState {
    /// The word for it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Fencing => "fencing",
            Self::Restoring => "restoring",
            Self::Running => "running",
            Self::Waiting => "waiting",
            Self::Stopped => "stopped",
        }
    }
}
