//! The Decider: commands -> decide -> events -> evolve -> state. Pure; time and ids come in.

use serde::Serialize;
use serde::de::DeserializeOwned;
use uuid::Uuid;

use super::reactor::Dispatch;
use super::stream::{AggregateName, StreamHash};
use super::time::Timestamp;

/// The rules of one kind of aggregate.
pub trait Decider: Send + Sync + Sized + 'static {
    /// What the aggregate is called in topics, records and tables.
    const NAME: AggregateName;
    /// The version of `State` in snapshots. A change of `State`'s shape raises it; a snapshot with
    /// another number is ignored.
    const STATE_SCHEMA: u16;
    /// Whether it sets timers: then it has a timers topic.
    const HAS_TIMERS: bool = false;

    /// What may be wished for.
    type Command: Clone + Send + std::fmt::Debug;
    /// What can have happened.
    type Event: Clone + Send + PartialEq + std::fmt::Debug;
    /// What the rules need to remember. `Default` is the state before the first event.
    type State: Clone + Default + Send + PartialEq + Serialize + DeserializeOwned + std::fmt::Debug;
    /// Why a command was refused.
    type Rejection: Rejection;

    /// Says what follows from a command: events, none if it is already so, or a refusal.
    ///
    /// # Errors
    /// The typed refusal. It is a result, not a failure.
    fn decide(
        command: &Self::Command,
        state: &Self::State,
        context: &Context,
    ) -> Result<Vec<Self::Event>, Self::Rejection>;

    /// Takes a fact into the state. It never fails, logs or validates.
    fn evolve(state: &mut Self::State, event: &Self::Event, at: Timestamp);

    /// Whether only a process manager may send this command; anybody else gets `Forbidden`.
    fn is_internal(_command: &Self::Command) -> bool {
        false
    }

    /// What an event does to the aggregate's timers, in order.
    fn timers(_event: &Self::Event) -> Vec<Timer> {
        Vec::new()
    }

    /// The command that a timer stands for once its time has come; `None` drops the timer.
    fn on_timer(_timer: &str) -> Option<Self::Command> {
        None
    }

    /// Where a client's command goes instead of being decided here, although it would be accepted
    /// with events. It has no result until another command answers [on its
    /// behalf](Self::on_behalf_of). `context` holds the client's command id.
    fn hand_on(
        _command: &Self::Command,
        _context: &Context,
        _reply_to: Option<&str>,
    ) -> Option<Dispatch> {
        None
    }

    /// Whose command a process manager's command answers, besides itself.
    fn on_behalf_of(_command: &Self::Command) -> Option<Behalf> {
        None
    }
}

/// A client that waits for the result of another command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Behalf {
    /// The client's command id.
    pub command_id: Uuid,
    /// What the client wants echoed.
    pub reply_to: Option<String>,
}

/// A change of one of an aggregate's timers. Late is allowed, early never.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Timer {
    /// Wakes the aggregate at that moment or later; replaces the timer of that name.
    Set {
        /// Its name within the aggregate.
        name: &'static str,
        /// Not before this.
        at: Timestamp,
    },
    /// Forgets it.
    Clear {
        /// Its name within the aggregate.
        name: &'static str,
    },
}

/// What a decision may know besides command and state.
#[derive(Clone, Copy, Debug)]
pub struct Context {
    /// The moment of the decision.
    pub now: Timestamp,
    /// The stream that decides.
    pub stream: StreamHash,
    /// How many events the stream has.
    pub version: u64,
    /// The command's own id.
    pub command_id: Uuid,
}

impl Context {
    /// The id that the `nth` event of this decision will have, counted from 1.
    #[must_use]
    pub fn event_id(&self, nth: u64) -> Uuid {
        self.stream.event_id(self.version + nth)
    }
}

/// A typed refusal, as the outside sees it.
pub trait Rejection: Clone + Send + PartialEq + std::fmt::Debug {
    /// The stable code, for example `InsufficientFunds`.
    fn code(&self) -> &'static str;
    /// One sentence for people.
    fn message(&self) -> String;
    /// What belongs to the code, for example `available` and `requested`.
    fn details(&self) -> Vec<(&'static str, String)> {
        Vec::new()
    }
    /// Whether the command itself is malformed (not just refused): then it is a dead letter too.
    fn is_malformed(&self) -> bool {
        false
    }
    /// Whether the same wish may succeed later under a new command id, unchanged.
    fn is_retryable(&self) -> bool {
        false
    }
}
