//! How a partition of a handler fares: written by its lane, read by whoever asks.

use std::time::Duration;

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
    /// How much of its state it has read back, in per cent.
    pub restored_percent: u8,
    /// How long it took from the assignment until its first command could be handled.
    pub ready_after: Option<Duration>,
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

impl LaneStatus {
    /// What it is doing, in words.
    #[must_use]
    pub fn state_text(&self) -> String {
        match self.state {
            LaneState::Restoring => format!("restoring {} %", self.restored_percent),
            LaneState::Fencing | LaneState::Running | LaneState::Waiting | LaneState::Stopped => {
                self.state.as_str().to_owned()
            }
        }
    }
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
