//! What was answered under which command id: a repeat gets the first answer again.
//!
//! How many are remembered, for how long and where is in `answers`.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::kernel::result::{Accepted, CommandResult, Outcome};
use crate::kernel::stream::StreamHash;
use crate::kernel::time::Timestamp;

/// Names a command of one aggregate: the same id at another aggregate is another command, and so
/// is one that a process manager sent (a client must not be able to use up its ids).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct CommandKey {
    /// Half of the stream's hash; its last bit says whether a process manager sent the command.
    stream: u64,
    id: [u64; 2],
}

impl CommandKey {
    /// Makes the key of a command.
    #[must_use]
    pub fn new(stream: StreamHash, command_id: Uuid, from_process_manager: bool) -> Self {
        let [stream, _] = halves(stream.0);
        let stream = (stream & !1) | u64::from(from_process_manager);
        Self { stream, id: halves(command_id.as_u128()) }
    }

    /// The key as it stands on a shelf.
    #[must_use]
    pub fn to_bytes(self) -> [u8; 24] {
        let mut bytes = [0; 24];
        let parts = [self.stream, self.id[0], self.id[1]];
        for (place, part) in bytes.chunks_exact_mut(8).zip(parts) {
            place.copy_from_slice(&part.to_be_bytes());
        }
        bytes
    }
}

fn halves(number: u128) -> [u64; 2] {
    let (high, low) = Uuid::from_u128(number).as_u64_pair();
    [high, low]
}

/// An answer, as small as it can be kept: what the repeated command itself holds is left out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answer {
    content: [u8; 16],
    decided_at: Timestamp,
    version: u64,
    event_count: u32,
    refusal: Option<Box<Refusal>>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Refusal {
    code: Option<String>,
    message: Option<String>,
    retryable: bool,
    details: Vec<(String, String)>,
}

impl Answer {
    /// Keeps what a repeat must be told; `None` if the result is not an id's final answer.
    #[must_use]
    pub fn of(result: &CommandResult) -> Option<Self> {
        let conflict = result.code.as_deref() == Some(super::reply::IDEMPOTENCY_CONFLICT);
        if result.outcome == Outcome::Failed || result.duplicate || conflict {
            return None;
        }
        let mut content = [0; 16];
        content.copy_from_slice(&result.content_hash[..16]);
        let event_count = match (result.first_sequence, result.last_sequence) {
            (Some(first), Some(last)) => u32::try_from(last + 1 - first).unwrap_or(u32::MAX),
            _ => 0,
        };
        let refusal = (result.outcome == Outcome::Rejected).then(|| {
            Box::new(Refusal {
                code: result.code.clone(),
                message: result.message.clone(),
                retryable: result.retryable,
                details: result.details.clone(),
            })
        });
        Some(Self {
            content,
            decided_at: result.decided_at,
            version: result.version,
            event_count,
            refusal,
        })
    }

    /// As [`Answer::of`], of what is remembered of an accepted command.
    #[must_use]
    pub fn of_accepted(accepted: &Accepted<'_>) -> Option<Self> {
        let mut content = [0; 16];
        content.copy_from_slice(&accepted.content_hash[..16]);
        (!accepted.duplicate).then(|| Self {
            content,
            decided_at: accepted.decided_at,
            version: accepted.version,
            event_count: u32::try_from(accepted.event_count).unwrap_or(u32::MAX),
            refusal: None,
        })
    }

    /// When it was given.
    #[must_use]
    pub const fn decided_at(&self) -> Timestamp {
        self.decided_at
    }

    /// The answer as it stands on a shelf; `None` if it cannot be written, which is a bug.
    #[must_use]
    pub fn to_bytes(&self) -> Option<Vec<u8>> {
        postcard::to_extend(self, Vec::with_capacity(48)).ok()
    }

    /// Reads it again; `None` if it is damaged.
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (answer, rest) = postcard::take_from_bytes(bytes).ok()?;
        rest.is_empty().then_some(answer)
    }

    /// Whether a command with that content is the one that was answered.
    #[must_use]
    pub fn is_for(&self, content_hash: &[u8; 32]) -> bool {
        content_hash[..16] == self.content
    }

    /// Writes the first result again, marked as a repeat; the token is the caller's to fill in.
    #[must_use]
    pub fn repeat(&self, command_id: Uuid, aggregate_id: &str, hash: [u8; 32]) -> CommandResult {
        let count = u64::from(self.event_count);
        let sequences = (count > 0).then(|| (self.version + 1 - count, self.version));
        let refusal = self.refusal.as_deref();
        CommandResult {
            command_id,
            aggregate_id: aggregate_id.to_owned(),
            outcome: if refusal.is_some() { Outcome::Rejected } else { Outcome::Accepted },
            code: refusal.and_then(|refusal| refusal.code.clone()),
            message: refusal.and_then(|refusal| refusal.message.clone()),
            retryable: refusal.is_some_and(|refusal| refusal.retryable),
            details: refusal.map(|refusal| refusal.details.clone()).unwrap_or_default(),
            content_hash: hash,
            first_sequence: sequences.map(|(first, _)| first),
            last_sequence: sequences.map(|(_, last)| last),
            version: self.version,
            decided_at: self.decided_at,
            duplicate: true,
            consistency_token: String::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn result(outcome: Outcome) -> CommandResult {
        let accepted = outcome == Outcome::Accepted;
        CommandResult {
            command_id: Uuid::from_u128(1),
            aggregate_id: "acc-1".to_owned(),
            outcome,
            code: (!accepted).then(|| "InsufficientFunds".to_owned()),
            message: (!accepted).then(|| "not enough".to_owned()),
            retryable: false,
            details: if accepted { vec![] } else { vec![("available".into(), "1.00".into())] },
            content_hash: [7; 32],
            first_sequence: accepted.then_some(4),
            last_sequence: accepted.then_some(5),
            version: 5,
            decided_at: Timestamp(1_000),
            duplicate: false,
            consistency_token: String::new(),
        }
    }

    #[test]
    fn a_repeat_is_the_first_answer_but_for_its_mark() {
        for outcome in [Outcome::Accepted, Outcome::Rejected] {
            let first = result(outcome);
            let answer = Answer::of(&first).unwrap();
            assert!(answer.is_for(&[7; 32]));
            assert!(!answer.is_for(&[8; 32]));
            let repeat = answer.repeat(first.command_id, "acc-1", [7; 32]);
            assert_eq!(repeat, CommandResult { duplicate: true, ..first });
        }
    }

    #[test]
    fn failures_conflicts_and_repeats_are_no_answers() {
        assert_eq!(Answer::of(&result(Outcome::Failed)), None);
        let repeat = CommandResult { duplicate: true, ..result(Outcome::Accepted) };
        assert_eq!(Answer::of(&repeat), None);
        let conflict = CommandResult {
            code: Some(super::super::reply::IDEMPOTENCY_CONFLICT.to_owned()),
            ..result(Outcome::Rejected)
        };
        assert_eq!(Answer::of(&conflict), None);
    }

    #[test]
    fn the_same_id_elsewhere_or_from_a_process_manager_is_another_command() {
        let (one, two) = (StreamHash(0xffff << 64), StreamHash(0x1234 << 64));
        let id = Uuid::from_u128(99);
        let key = CommandKey::new(one, id, false);
        assert_ne!(key, CommandKey::new(two, id, false));
        assert_ne!(key, CommandKey::new(one, id, true));
        assert_eq!(key, CommandKey::new(one, id, false));
    }

    #[test]
    fn an_answer_and_its_key_come_back_from_bytes() {
        for outcome in [Outcome::Accepted, Outcome::Rejected] {
            let answer = Answer::of(&result(outcome)).unwrap();
            let bytes = answer.to_bytes().unwrap();
            assert_eq!(Answer::from_bytes(&bytes), Some(answer));
            assert_eq!(Answer::from_bytes(&bytes[..bytes.len() - 1]), None);
            assert_eq!(Answer::from_bytes(&[&bytes[..], &[0]].concat()), None);
        }
        let key = |id| CommandKey::new(StreamHash(5), Uuid::from_u128(id), false).to_bytes();
        assert_ne!(key(1), key(2));
        assert_eq!(key(1), key(1));
    }
}
