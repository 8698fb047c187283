//! What a handler does between its turns: the shelf is kept in order, a restore goes from topic to
//! topic.
//!
//! ```text
//! snapshots -> events (see `bound`) -> timers -> results (what the shelf does not hold) -> ready
//! committed -> what is too much goes to the shelf -> the next turn
//! ```
//!
//! A shelf that is away is waited for: all that it was to take is in memory still. One that is
//! damaged is emptied, and everything is read from the log again.

use std::time::Duration;

use super::command_handler::{CommandHandler, Phase};
use super::protocol::{Action, From, Moment, Settings};
use super::shelf::ShelfError;
use crate::kernel::codec::Codec;
use crate::kernel::decider::Decider;
use crate::kernel::stream::Kind;
use crate::kernel::time::Timestamp;

/// How long a shelf that is away is left alone: doubling between these two.
const PAUSE_MIN: Duration = Duration::from_millis(250);
const PAUSE_MAX: Duration = Duration::from_secs(10);

/// What comes next, once the shelf takes and gives again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Then {
    /// The shelf is emptied, and everything is read anew.
    StartOver,
    /// That topic is read, from its beginning if it had been begun.
    Restore(Kind),
    /// The next turn.
    Turn,
}

impl<D: Decider, C: Codec<D>> CommandHandler<D, C> {
    /// Has a topic read back.
    pub(super) fn restore(&mut self, kind: Kind, now: Timestamp) -> Action {
        if kind == Kind::Results {
            let last = self.position.as_ref().and_then(|position| position.command_time);
            self.window_end = Some(last.unwrap_or(now));
        }
        if let Err(error) = self.prepare(kind) {
            return self.in_trouble(error, Then::Restore(kind));
        }
        self.phase = Phase::Restoring(kind);
        let from = match (kind, self.expected) {
            (Kind::Events, _) => self.events_begin(),
            (Kind::Results, Some(noted)) => From::Offset(noted.offset),
            (Kind::Results, None) => {
                let end = self.window_end.unwrap_or(now);
                From::Moment(end.plus_seconds(-self.settings.window_seconds))
            }
            _ => From::Start,
        };
        Action::Restore { kind, from }
    }

    fn prepare(&mut self, kind: Kind) -> Result<(), ShelfError> {
        self.restoring.clear();
        let counts = &mut self.counts;
        match kind {
            Kind::Snapshots => {
                counts.restored_snapshots = 0;
                self.streams.clear();
                self.sweep.clear(self.committed.events_end);
                let topic_id = self.settings.results_topic_id;
                self.window_end = None;
                self.answers.open(topic_id, self.shelf.as_mut())?;
            }
            Kind::Events => (counts.restored_events, counts.read_events) = (0, 0),
            Kind::Timers => counts.restored_timers = 0,
            Kind::Results => {
                counts.restored_results = 0;
                if let Some(end) = self.window_end {
                    self.answers.forget_stale(end, self.shelf.as_mut())?;
                }
            }
            Kind::Commands | Kind::DeadLetters => {}
        }
        self.relieve()?;
        self.expected = self.answers.noted().filter(|_| kind == Kind::Results);
        Ok(())
    }

    /// A topic has been read to its end: the next one.
    pub(super) fn restore_ended(&mut self, kind: Kind, moment: Moment) -> Action {
        let now = moment.now;
        if kind == Kind::Events
            && let Some(action) = self.all_found(now)
        {
            return action;
        }
        match kind {
            Kind::Snapshots => self.restore(Kind::Events, now),
            Kind::Events if D::HAS_TIMERS => self.restore(Kind::Timers, now),
            Kind::Events | Kind::Timers => self.restore(Kind::Results, now),
            // The record that should have come first is not there.
            Kind::Results if self.expected.is_some() => self.read_anew(now),
            Kind::Results | Kind::Commands | Kind::DeadLetters => self.restored(moment),
        }
    }

    /// The results are not those that the shelf was filled from: all within the window are read.
    pub(super) fn read_anew(&mut self, now: Timestamp) -> Action {
        let Settings { commands_topic, partition, .. } = &self.settings;
        tracing::warn!(%commands_topic, partition,
            "the results topic does not go on where the state directory ends; reading all answers \
             of the window again");
        match self.answers.forget(self.shelf.as_mut()) {
            Ok(()) => self.restore(Kind::Results, now),
            Err(error) => self.in_trouble(error, Then::StartOver),
        }
    }

    /// Puts on the shelf what memory has no room for, and forgets what is before the window.
    pub(super) fn relieve(&mut self) -> Result<(), ShelfError> {
        // Before the position is known nothing is too old.
        let end = self.window_end.unwrap_or(Timestamp(i64::MIN / 2));
        self.answers.relieve(end, self.shelf.as_mut())?;
        self.streams.relieve::<D>(self.shelf.as_mut())
    }

    /// Goes on with the next turn, once there is room in memory.
    pub(super) fn go_on(&mut self, moment: Moment) -> Action {
        match self.relieve() {
            Ok(()) => {
                self.shelf_attempts = 0;
                self.next_turn(moment)
            }
            Err(error) => self.in_trouble(error, Then::Turn),
        }
    }

    /// The shelf did not do as it was told.
    pub(super) fn in_trouble(&mut self, error: ShelfError, then: Then) -> Action {
        let (reason, then) = match error {
            ShelfError::Away(reason) => (reason, then),
            ShelfError::Damaged(reason) => {
                let Settings { commands_topic, partition, .. } = &self.settings;
                tracing::warn!(%commands_topic, partition, reason,
                    "the state directory is damaged; reading everything from the log again");
                match self.shelf.reset() {
                    Ok(()) => return self.start_over(),
                    Err(error) => (error.to_string(), Then::StartOver),
                }
            }
        };
        let pause = PAUSE_MIN.saturating_mul(1 << self.shelf_attempts.min(10)).min(PAUSE_MAX);
        self.shelf_attempts = self.shelf_attempts.saturating_add(1);
        self.phase = Phase::Waiting(then);
        Action::Wait { reason, pause }
    }

    /// Tries again what the shelf could not do.
    pub(super) fn try_again(&mut self, then: Then, moment: Moment) -> Action {
        match then {
            Then::StartOver => match self.shelf.reset() {
                Ok(()) => self.start_over(),
                Err(error) => self.in_trouble(error, Then::StartOver),
            },
            Then::Restore(kind) => self.restore(kind, moment.now),
            Then::Turn => self.go_on(moment),
        }
    }
}
