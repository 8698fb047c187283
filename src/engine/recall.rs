//! What a turn knows of what was before it: streams and answers, in memory or on the shelf.
//!
//! A shelf that does not answer spoils the whole turn: it is thrown away and decided anew.

use super::answers::Answers;
use super::dedup::{Answer, CommandKey};
use super::reply::{IDEMPOTENCY_CONFLICT, Refusal, Request, Verdict, raw_content_hash};
use super::shelf::Shelf;
use super::streams::{self, Streams};
use super::turn::{Stream, Turn};
use crate::kernel::codec::Codec;
use crate::kernel::decider::Decider;
use crate::kernel::stream::StreamHash;

/// What is remembered of the commands before a turn: in memory, and on the shelf.
pub struct Memory<'a, S> {
    /// The streams as they are committed.
    pub streams: &'a Streams<S>,
    /// The answers that were given.
    pub answers: &'a Answers,
    /// Where those are that memory has no room for.
    pub shelf: &'a dyn Shelf,
    /// No event of this turn will stand before this place in its partition.
    pub log_end: i64,
}

impl<D: Decider, C: Codec<D>> Turn<'_, D, C> {
    pub(super) fn stream_hash(&self, id: &str) -> StreamHash {
        self.stream(id).map_or_else(|| StreamHash::new(D::NAME, id), |stream| stream.hash)
    }

    pub(super) fn stream(&self, id: &str) -> Option<&Stream<D::State>> {
        let changed = self.changes.streams.get(id);
        changed.or_else(|| self.memory.streams.get(id)).or_else(|| self.fetched.get(id))
    }

    /// Has a stream at hand that is on the shelf.
    pub(super) fn fetch(&mut self, id: &str) {
        let is_far = self.memory.streams.may_be_far(id)
            && !self.changes.streams.contains_key(id)
            && !self.fetched.contains_key(id);
        if !is_far {
            return;
        }
        match streams::fetch::<D>(id, self.memory.shelf) {
            Ok(Some(stream)) => {
                self.fetched.insert(id.into(), stream);
            }
            Ok(None) => {}
            Err(error) => self.trouble = Some(error),
        }
    }

    /// The answer to a command id, wherever it is.
    fn remembered(&mut self, key: CommandKey) -> Option<Answer> {
        let recent = self.changes.answers.get(&key).or_else(|| self.memory.answers.recent(key));
        if let Some(answer) = recent {
            return Some(answer.clone());
        }
        match self.memory.answers.shelved(key, self.memory.shelf) {
            Ok(answer) => answer,
            Err(error) => {
                self.trouble = Some(error);
                None
            }
        }
    }

    /// The answer to a command id that was answered before.
    pub(super) fn known(&mut self, request: &Request<'_>) -> Option<Verdict> {
        let answer = self.remembered(request.key())?;
        // What could not be read then may be readable now: the same bytes are the same command.
        let value = request.record.and_then(|record| record.value.as_deref());
        let is_same = answer.is_for(&request.content_hash)
            || answer.is_for(&raw_content_hash(request.aggregate_id, value));
        if is_same {
            let id = request.command_id;
            let repeat = answer.repeat(id, request.aggregate_id, request.content_hash);
            return Some(Verdict::Repeat(repeat));
        }
        Some(Verdict::Refused(Refusal {
            code: IDEMPOTENCY_CONFLICT,
            message: "this command id was answered for a command with other content".to_owned(),
            ..Refusal::default()
        }))
    }
}
