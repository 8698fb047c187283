//! The projection loop of one partition: records, completions, time -> actions.
//!
//! A state machine without I/O. There is at most one outstanding action; its completion comes
//! back as the next input. What it guarantees: a batch is applied only at the place that the store
//! holds, batches go in order, and after anything that went wrong the store is asked where it
//! stands before a record is applied again. An event that is refused for good is parked with all
//! later events of its stream; the other streams go on.

mod buffer;
mod parking;
mod protocol;
mod redrive;
mod retry;

use std::sync::Arc;

pub use buffer::Limits;
pub use protocol::{Action, Failure, Input, Refusal, State};
pub use retry::Retry;

use buffer::Buffer;
use parking::{Parking, Verdict};
use redrive::Redrives;

use super::reset_protocol::{self, CommitMetadata, Decision, Note, Position};
use crate::kernel::message::Record;
use crate::kernel::projection::{Applied, Batch, Cause, Obstacle, Place};
use crate::kernel::time::Timestamp;

/// What comes after a wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Resume {
    Locate,
    Apply,
}

/// The loop of one partition.
#[derive(Debug)]
pub struct Projector {
    limits: Limits,
    state: State,
    place: Place,
    cluster_id: String,
    buffer: Buffer,
    in_hand: Option<Arc<Batch>>,
    parking: Parking,
    redrives: Redrives,
    /// The last thing that was read, until it is acted upon.
    position: Option<Box<Position>>,
    /// A place to go to, until the reader stands there.
    target: Option<(Place, bool)>,
    note: Option<Note>,
    wait: Option<(Timestamp, Resume)>,
    attempts: u32,
    committed: Option<i64>,
    commit_due: Option<Timestamp>,
    finishing: bool,
    /// Why the reader must be put somewhere again, as soon as nothing is outstanding.
    lost: Option<String>,
    error: Option<String>,
}

/// When a commit that failed is tried again.
const COMMIT_RETRY_SECONDS: i64 = 1;

impl Projector {
    /// Starts with nothing known; the first step reads the position.
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            state: State::Locating,
            place: Place::default(),
            cluster_id: String::new(),
            buffer: Buffer::default(),
            in_hand: None,
            parking: Parking::new(limits.rows, limits.parked_streams),
            redrives: Redrives::default(),
            position: None,
            target: None,
            note: None,
            wait: Some((Timestamp(i64::MIN), Resume::Locate)),
            attempts: 0,
            committed: None,
            commit_due: None,
            finishing: false,
            lost: None,
            error: None,
        }
    }

    /// Takes a record that was read. Records from before the place are dropped.
    pub fn offer(&mut self, now: Timestamp, record: Record) {
        self.buffer.offer(now, record);
    }

    /// Takes what happened and says what to do next; `None` is to wait for a completion, for
    /// records, or until [`Projector::deadline`].
    pub fn step(&mut self, now: Timestamp, input: Input) -> Option<Action> {
        match input {
            Input::Tick => {}
            Input::PositionRead(Ok(position)) => {
                self.position = Some(position);
                return self.decide(now, None);
            }
            Input::LookedBetween(Ok(events)) => return self.decide(now, Some(events)),
            // A reset without its stamp is blank and equal: the next owner stamps it.
            Input::CheckpointReset(Ok(true)) if self.finishing => self.state = State::Finished,
            Input::CheckpointReset(Ok(true)) => return Some(self.go_to_target()),
            Input::CheckpointReset(Ok(false)) => self.back_off(now, Resume::Locate, String::new()),
            Input::Committed(Ok(())) if self.target.is_some() => return Some(self.seek()),
            Input::Committed(Ok(())) => {
                self.committed = Some(self.place.next_offset);
                self.commit_due = None;
                self.state = State::Ready;
            }
            Input::Sought(Ok(())) => self.sought(),
            Input::Applied(outcome) => return self.applied(now, outcome),
            Input::Redrive(streams) => self.redrives.ask(streams),
            Input::Redriven(outcome) => return self.redriven(now, outcome),
            Input::Kept(Ok(())) => {
                self.redrives.end();
                self.state = State::Ready;
            }
            Input::Lost(reason) => self.lose(reason),
            Input::Finish => self.finishing = true,
            // An ordinary commit is for operators; the store knows the place.
            Input::Committed(Err(_)) if self.target.is_none() => {
                self.commit_due = Some(now.plus_seconds(COMMIT_RETRY_SECONDS));
                self.committed = None;
                self.state = if self.finishing { State::Finished } else { State::Ready };
            }
            Input::PositionRead(Err(error))
            | Input::LookedBetween(Err(error))
            | Input::CheckpointReset(Err(error))
            | Input::Committed(Err(error))
            | Input::Kept(Err(error))
            | Input::Sought(Err(error)) => self.back_off(now, Resume::Locate, error),
        }
        self.next(now)
    }

    /// When a step is due although nothing happens.
    #[must_use]
    pub fn deadline(&self) -> Option<Timestamp> {
        if self.state == State::BackingOff {
            return self.wait.map(|(until, _)| until);
        }
        if self.state != State::Ready {
            return None;
        }
        let batch = self.buffer.due(&self.limits);
        batch.into_iter().chain(self.commit_due).min()
    }

    /// Whether the buffer holds all that it should: two batches.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.buffer.is_full(&self.limits)
    }

    /// What it is doing.
    #[must_use]
    pub const fn state(&self) -> State {
        self.state
    }

    /// The place up to which everything is applied.
    #[must_use]
    pub const fn place(&self) -> Place {
        self.place
    }

    /// What went wrong last; cleared when it goes on.
    #[must_use]
    pub fn error(&self) -> Option<&str> {
        self.error.as_deref()
    }

    /// How it came to its place, once after each decision.
    pub const fn take_note(&mut self) -> Option<Note> {
        self.note.take()
    }

    /// Kafka's time of the oldest record that is not applied yet, in milliseconds.
    #[must_use]
    pub fn oldest_ms(&self) -> Option<i64> {
        let in_hand = self.in_hand.as_ref().and_then(|batch| batch.records.first());
        in_hand.or_else(|| self.buffer.first()).map(|record| record.timestamp_ms)
    }

    fn decide(&mut self, now: Timestamp, events_between: Option<bool>) -> Option<Action> {
        let Some(position) = self.position.as_ref().filter(|_| !self.finishing) else {
            self.state = State::Finished;
            return None;
        };
        let decision = reset_protocol::decide(position, events_between);
        self.state = State::Positioning;
        if let Decision::LookBetween { from, to } = decision {
            return Some(Action::LookBetween { from, to });
        }
        self.cluster_id.clone_from(&position.cluster_id);
        self.committed = position.committed.as_ref().map(|found| found.offset);
        let before = match &decision {
            Decision::Reset { place, .. } => place.next_offset,
            Decision::Continue { .. } | Decision::Refuse(_) | Decision::LookBetween { .. } => {
                i64::MAX
            }
        };
        self.parking.load(&position.held, before);
        self.position = None;
        match decision {
            Decision::Reset { expected, place, clear, note } => {
                self.note = Some(note);
                self.target = Some((place, true));
                Some(Action::ResetCheckpoint { expected, place, clear })
            }
            Decision::Continue { place, stamp, note } => {
                // After a failed attempt the records are still here, and the reader is behind them.
                let retries = place == self.place && self.buffer.is_open();
                if retries {
                    self.in_hand.iter().for_each(|batch| self.parking.keep(batch));
                    self.commit_due = stamp.then_some(now);
                    self.state = State::Ready;
                    return self.next(now);
                }
                self.note = Some(note);
                self.target = Some((place, stamp));
                Some(self.go_to_target())
            }
            Decision::Refuse(refusal) => Some(self.stop(refusal.to_string())),
            Decision::LookBetween { .. } => None,
        }
    }

    fn go_to_target(&mut self) -> Action {
        match self.target {
            Some((place, true)) => self.commit(place),
            Some((_, false)) | None => self.seek(),
        }
    }

    fn commit(&self, place: Place) -> Action {
        let metadata = CommitMetadata { cluster_id: self.cluster_id.clone(), place };
        Action::Commit { offset: place.next_offset, metadata: metadata.encode() }
    }

    fn seek(&mut self) -> Action {
        if let Some((place, stamped)) = self.target.take() {
            self.place = place;
            if stamped {
                self.committed = Some(place.next_offset);
            }
        }
        self.in_hand = None;
        self.buffer.clear();
        self.parking.forget_search();
        self.commit_due = None;
        Action::Seek { offset: self.place.next_offset }
    }

    fn sought(&mut self) {
        self.buffer.open_at(self.place.next_offset);
        self.state = State::Ready;
        self.attempts = 0;
        self.lost = None;
        self.error = None;
    }

    fn lose(&mut self, reason: String) {
        if matches!(self.state, State::Stopped | State::Finished) {
            return;
        }
        self.buffer.clear();
        if let Some((_, resume)) = &mut self.wait {
            *resume = Resume::Locate;
            self.error = Some(reason);
        } else {
            self.lost = Some(reason);
        }
    }

    fn applied(&mut self, now: Timestamp, outcome: Result<Applied, Failure>) -> Option<Action> {
        let applied = match outcome {
            Ok(applied) => applied,
            Err(Failure::Permanent(error)) => return Some(self.stop(error)),
            Err(Failure::Refused(refusal)) => return self.refused(now, &refusal),
            Err(failure @ (Failure::Transient(_) | Failure::Conflict)) => {
                self.back_off(now, Resume::Locate, failure.to_string());
                return self.next(now);
            }
        };
        if applied.next_offset > self.place.next_offset {
            self.place.next_offset = applied.next_offset;
            let due = Timestamp(now.0.saturating_add(self.limits.commit_every_us));
            self.commit_due.get_or_insert(due);
            self.parking.applied(applied.next_offset);
            self.attempts = 0;
            self.error = None;
        }
        match applied.obstacle {
            None => {
                let all = self.in_hand.as_ref().map_or(i64::MIN, |batch| batch.end());
                if applied.next_offset < all {
                    self.put_back(now);
                }
                self.in_hand = None;
                self.state = State::Ready;
            }
            Some(obstacle) if obstacle.is_transient() => {
                self.put_back(now);
                self.back_off(now, Resume::Apply, obstacle.to_string());
            }
            Some(obstacle) => {
                self.put_back(now);
                let record = self.buffer.first();
                let is_one = matches!(obstacle, Obstacle::Undecodable { .. });
                let verdict = record.filter(|_| is_one).map_or(Verdict::Hopeless, |record| {
                    self.parking.park(record, Cause::Undecodable, &obstacle.to_string(), 1)
                });
                return self.judge(now, verdict, obstacle.to_string());
            }
        }
        self.next(now)
    }

    /// Something in the batch is refused: finds out what.
    fn refused(&mut self, now: Timestamp, refusal: &Refusal) -> Option<Action> {
        let Some(batch) = self.in_hand.clone() else { return self.next(now) };
        let verdict = self.parking.refused(&batch, refusal);
        drop(batch);
        self.put_back(now);
        self.judge(now, verdict, refusal.reason.clone())
    }

    fn judge(&mut self, now: Timestamp, verdict: Verdict, reason: String) -> Option<Action> {
        match verdict {
            Verdict::TryAgain => self.state = State::Ready,
            Verdict::Full => {
                let count = self.parking.len();
                let error = format!(
                    "{count} streams are parked, which is the limit, and the next event is \
                     refused too: mend the cause, then run `millrace dead-letters redrive`: \
                     {reason}"
                );
                self.back_off(now, Resume::Apply, error);
            }
            Verdict::Hopeless => return Some(self.stop(reason)),
        }
        self.next(now)
    }

    /// Puts what was not applied of the batch in hand back in front of the buffer.
    fn put_back(&mut self, now: Timestamp) {
        if let Some(batch) = self.in_hand.take() {
            let records = Arc::unwrap_or_clone(batch).into_records();
            self.buffer.put_back(now, &self.limits, records, self.place.next_offset);
        }
    }

    fn next(&mut self, now: Timestamp) -> Option<Action> {
        if self.state == State::BackingOff || self.wait.is_some() {
            return self.after_wait(now);
        }
        if self.state != State::Ready {
            return None;
        }
        if self.finishing {
            return self.finish();
        }
        if let Some(reason) = self.lost.take() {
            self.back_off(now, Resume::Locate, reason);
            return None;
        }
        if self.commit_due.is_some_and(|due| due <= now) {
            self.state = State::Committing;
            return Some(self.commit(self.place));
        }
        self.next_redrive(now).or_else(|| self.next_batch(now))
    }

    fn after_wait(&mut self, now: Timestamp) -> Option<Action> {
        let (until, resume) = self.wait?;
        if self.finishing {
            self.wait = None;
            self.state = State::Finished;
            return None;
        }
        if now < until {
            return None;
        }
        self.wait = None;
        match resume {
            Resume::Locate => {
                self.state = State::Locating;
                Some(Action::ReadPosition)
            }
            Resume::Apply => {
                self.state = State::Ready;
                self.next_redrive(now).or_else(|| self.next_batch(now))
            }
        }
    }

    fn next_batch(&mut self, now: Timestamp) -> Option<Action> {
        if let Some(batch) = &self.in_hand {
            let batch = Arc::clone(batch);
            self.state = State::Applying;
            return Some(Action::Apply { batch });
        }
        let rows = self.parking.next_rows(|offset| self.buffer.count_before(offset));
        let records = self.buffer.take(now, &self.limits, rows)?;
        let (records, parked) = self.parking.part(records);
        let has_followers = self.buffer.first().is_some();
        let batch = Arc::new(Batch { from: self.place, records, parked, has_followers });
        self.in_hand = Some(Arc::clone(&batch));
        self.state = State::Applying;
        Some(Action::Apply { batch })
    }

    fn finish(&mut self) -> Option<Action> {
        let is_committed = self.committed == Some(self.place.next_offset);
        if is_committed || self.commit_due.is_none() {
            self.buffer.clear();
            self.in_hand = None;
            self.state = State::Finished;
            return None;
        }
        self.state = State::Committing;
        Some(self.commit(self.place))
    }

    fn back_off(&mut self, now: Timestamp, resume: Resume, error: String) {
        self.position = None;
        self.target = None;
        if !error.is_empty() {
            self.error = Some(error);
        }
        let wait_us = self.limits.retry.wait_us(self.attempts);
        self.attempts = self.attempts.saturating_add(1);
        self.wait = Some((Timestamp(now.0.saturating_add(wait_us)), resume));
        self.state = State::BackingOff;
    }

    fn stop(&mut self, reason: String) -> Action {
        self.buffer.clear();
        self.in_hand = None;
        self.position = None;
        self.target = None;
        self.commit_due = None;
        self.error = Some(reason);
        self.state = State::Stopped;
        Action::Stop
    }
}

#[cfg(test)]
mod parking_tests;
#[cfg(test)]
mod tests;
