//! Parked events that somebody wants tried again: requests -> redrives, a stream at a time.
//!
//! A stream's events are tried in order, some at a time, fewer after a refusal. Nothing else is
//! begun meanwhile, so no later event of the stream can get in between; when none is left, the
//! stream is like any other.

use std::collections::VecDeque;

use super::protocol::{Action, Failure, State};
use super::{Projector, Resume};
use crate::kernel::projection::Redriven;
use crate::kernel::time::Timestamp;

/// The most events of a stream that are tried at once.
const ROWS_MAX: usize = 500;

/// The streams that wait for their turn.
#[derive(Debug)]
pub(super) struct Redrives {
    streams: VecDeque<String>,
    rows: usize,
}

impl Default for Redrives {
    fn default() -> Self {
        Self { streams: VecDeque::new(), rows: ROWS_MAX }
    }
}

impl Redrives {
    /// Takes requests; each stream waits once.
    pub(super) fn ask(&mut self, streams: Vec<String>) {
        for stream in streams {
            if !self.streams.contains(&stream) {
                self.streams.push_back(stream);
            }
        }
    }

    /// The first stream is done with.
    pub(super) fn end(&mut self) {
        self.streams.pop_front();
        self.rows = ROWS_MAX;
    }
}

impl Projector {
    /// The next parked events to try again, if somebody wants that.
    pub(super) fn next_redrive(&mut self, now: Timestamp) -> Option<Action> {
        while let Some(stream) = self.redrives.streams.front() {
            if self.parking.contains(stream) {
                break;
            }
            self.redrives.end();
        }
        let stream = self.redrives.streams.front()?.clone();
        // A batch that waits for another try was parted when the stream was still parked.
        self.put_back(now);
        self.state = State::Redriving;
        Some(Action::Redrive { from: self.place, stream, rows: self.redrives.rows })
    }

    /// Takes what came of it.
    pub(super) fn redriven(
        &mut self,
        now: Timestamp,
        outcome: Result<Redriven, Failure>,
    ) -> Option<Action> {
        match outcome {
            Ok(redriven) => {
                self.state = State::Ready;
                self.attempts = 0;
                if redriven.has_more && redriven.events == 0 {
                    // They stand behind the place: somebody asks again when it has passed them.
                    self.redrives.end();
                } else if !redriven.has_more {
                    if let Some(stream) = self.redrives.streams.front() {
                        self.parking.remove(stream);
                    }
                    self.redrives.end();
                }
            }
            Err(Failure::Refused(_)) if self.redrives.rows > 1 => {
                self.redrives.rows /= 2;
                self.state = State::Ready;
            }
            Err(Failure::Refused(refusal)) => {
                let stream = self.redrives.streams.front()?.clone();
                return Some(Action::Keep { stream, refusal });
            }
            Err(Failure::Permanent(error)) => return Some(self.stop(error)),
            Err(failure @ (Failure::Transient(_) | Failure::Conflict)) => {
                // It is asked for again soon; meanwhile the others go on.
                self.redrives.end();
                self.back_off(now, Resume::Locate, failure.to_string());
            }
        }
        self.next(now)
    }
}
