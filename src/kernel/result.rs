//! What a client is told: one result a command.

use uuid::Uuid;

use super::time::Timestamp;

/// The header of a result that says who had asked. Only a handler writes it, so no client can make
/// its own command look like a process manager's.
pub const RESULT_OF: &str = "result_of";
/// Its value if a process manager had: the ids of what those ask are a space of their own.
pub const PROCESS_MANAGER: &str = "process-manager";

/// How a command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// It was done, or was already so.
    Accepted,
    /// A rule or the command's own form was against it.
    Rejected,
    /// Something broke. Not remembered: the same command id may try again.
    Failed,
}

impl Outcome {
    /// The symbol in Avro, JSON and logs.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Accepted => "ACCEPTED",
            Self::Rejected => "REJECTED",
            Self::Failed => "FAILED",
        }
    }
}

/// What is remembered of an accepted command, borrowed from its result's bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Accepted<'v> {
    /// The command that was answered.
    pub command_id: Uuid,
    /// The aggregate.
    pub aggregate_id: &'v str,
    /// SHA-256 over aggregate id, type and normalised fields.
    pub content_hash: [u8; 32],
    /// How many events followed.
    pub event_count: u64,
    /// The stream's version after the command.
    pub version: u64,
    /// When it was decided.
    pub decided_at: Timestamp,
    /// Whether this repeats an earlier answer.
    pub duplicate: bool,
}

/// The answer to one command (`millrace.CommandResult`).
#[expect(clippy::module_name_repetitions, reason = "it is used without its module's name")]
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommandResult {
    /// The command that it answers.
    pub command_id: Uuid,
    /// The aggregate; empty if the command named none.
    pub aggregate_id: String,
    /// How it ended.
    pub outcome: Outcome,
    /// The stable code of a refusal or failure.
    pub code: Option<String>,
    /// One sentence for people.
    pub message: Option<String>,
    /// Whether a new command with the same content may succeed later.
    pub retryable: bool,
    /// What belongs to the code, sorted by name.
    pub details: Vec<(String, String)>,
    /// SHA-256 over aggregate id, type and normalised fields.
    pub content_hash: [u8; 32],
    /// The first event's sequence, if there are events.
    pub first_sequence: Option<u64>,
    /// The last event's sequence, if there are events.
    pub last_sequence: Option<u64>,
    /// The stream's version after the command.
    pub version: u64,
    /// When it was decided.
    pub decided_at: Timestamp,
    /// Whether this repeats an earlier answer.
    pub duplicate: bool,
    /// For reads that must see this command's effect.
    pub consistency_token: String,
}
