//! Given / when / then for deciders: the form in which every rule is tested.

use uuid::Uuid;

use super::decider::{Context, Decider};
use super::stream::StreamHash;
use super::time::Timestamp;

/// The aggregate id that scenarios use.
pub const SCENARIO_ID: &str = "scenario";
/// The moment at which a scenario's command is decided: 2026-01-01T00:00:00Z.
pub const SCENARIO_NOW: Timestamp = Timestamp(1_767_225_600_000_000);

/// A stream with a past.
pub struct Given<D: Decider> {
    state: D::State,
    version: u64,
    now: Timestamp,
}

/// What came of a command.
pub struct When<D: Decider> {
    outcome: Result<Vec<D::Event>, D::Rejection>,
    state: D::State,
    now: Timestamp,
}

/// Starts with the events that have happened, a second apart, the last one a minute ago.
pub fn given<D: Decider>(events: impl IntoIterator<Item = D::Event>) -> Given<D> {
    let events: Vec<_> = events.into_iter().collect();
    let count = i64::try_from(events.len()).unwrap_or(0);
    let mut state = D::State::default();
    for (index, event) in (0_i64..).zip(&events) {
        D::evolve(&mut state, event, SCENARIO_NOW.plus_seconds(index - count - 60));
    }
    Given { state, version: events.len() as u64, now: SCENARIO_NOW }
}

/// The context in which [`Given::when`] decides, for ids that a test expects.
#[expect(clippy::module_name_repetitions, reason = "it is used without its module's name")]
#[must_use]
pub fn scenario_context<D: Decider>(version: u64, now: Timestamp) -> Context {
    let stream = StreamHash::new(D::NAME, SCENARIO_ID);
    Context { now, stream, version, command_id: Uuid::nil() }
}

impl<D: Decider> Given<D> {
    /// Moves the clock of the decision.
    #[must_use]
    pub fn at(mut self, now: Timestamp) -> Self {
        self.now = now;
        self
    }

    /// Decides a command.
    #[must_use]
    #[expect(clippy::needless_pass_by_value, reason = "reads better in tests")]
    pub fn when(self, command: D::Command) -> When<D> {
        let context = scenario_context::<D>(self.version, self.now);
        let outcome = D::decide(&command, &self.state, &context);
        When { outcome, state: self.state, now: self.now }
    }
}

impl<D: Decider> When<D> {
    /// Expects just these events.
    ///
    /// # Panics
    /// If anything else came of it.
    #[track_caller]
    pub fn then(self, expected: impl IntoIterator<Item = D::Event>) {
        let expected: Vec<_> = expected.into_iter().collect();
        assert_eq!(self.outcome, Ok(expected));
    }

    /// Expects that nothing happens, since it is already so.
    ///
    /// # Panics
    /// If anything else came of it.
    #[track_caller]
    pub fn then_nothing(self) {
        assert_eq!(self.outcome, Ok(Vec::new()));
    }

    /// Expects this refusal.
    ///
    /// # Panics
    /// If anything else came of it.
    #[track_caller]
    pub fn then_rejected(self, expected: D::Rejection) {
        assert_eq!(self.outcome, Err(expected));
    }

    /// The state after the events, for what events alone do not show.
    ///
    /// # Panics
    /// If the command was refused.
    #[track_caller]
    #[expect(clippy::expect_used, reason = "a test's expectation")]
    pub fn state(self) -> D::State {
        let mut state = self.state;
        for event in self.outcome.expect("accepted") {
            D::evolve(&mut state, &event, self.now);
        }
        state
    }
}
