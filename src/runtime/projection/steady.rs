//! The time that waits are measured by: a wall clock's start and a stopwatch -> moments.

use std::time::Instant;

use crate::clock;
use crate::kernel::time::Timestamp;

/// A clock that begins at the wall clock's time and never steps back, as that one may: a wait that
/// was to last a second would last as long as the step.
#[derive(Clone, Copy, Debug)]
pub(super) struct Steady {
    began: Timestamp,
    since: Instant,
}

impl Steady {
    pub(super) fn start() -> Self {
        Self { began: clock::now(), since: Instant::now() }
    }

    pub(super) fn now(self) -> Timestamp {
        let passed = i64::try_from(self.since.elapsed().as_micros()).unwrap_or(i64::MAX);
        Timestamp(self.began.0.saturating_add(passed))
    }
}
