//! A saga's state -> where it stands, in words.

use super::Manager;
use crate::domain::banking::{account_opening, transfer};
use crate::engine::letter::Broken;
use crate::kernel::decider::Decider;
use crate::kernel::time::Timestamp;

/// How an opening ends that may go on one day, when its account is closed.
const OPENED: &str = "OPENED";

/// Where a saga stands.
#[derive(Debug)]
pub(super) struct Saga {
    pub(super) manager: Manager,
    pub(super) id: String,
    /// Whose it is, in a few words.
    pub(super) about: String,
    pub(super) standing: Standing,
    pub(super) step: Option<&'static str>,
    pub(super) attempt: u32,
    /// Its first event's time; without a stream, when its first command broke.
    pub(super) since: Timestamp,
    /// When it looks again by itself.
    pub(super) deadline: Option<Timestamp>,
    /// The last failure's code.
    pub(super) failure: Option<String>,
    pub(super) correlation_id: Option<String>,
    /// What caused its last event.
    pub(super) causation_id: Option<String>,
    /// 0 if it has no stream.
    pub(super) version: u64,
    /// Whose stream can tell what became of the step.
    pub(super) witness: Option<Witness>,
    /// What it was told and never took, because it broke: in order, the oldest first.
    pub(super) broken: Vec<Broken>,
}

/// What a saga's own stream says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    Waiting,
    /// An operator is waited for, and why.
    Parked(String),
    Ended(&'static str),
}

/// Whose stream holds what became of a step, though its answer tells no more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Witness {
    /// The account that may have received a transfer.
    Receiver(String),
    /// The account that may have a transfer back.
    Sender(String),
    /// The customer who may have given a slot, or denied it.
    Customer(String),
}

/// How far a saga is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    No,
    /// Something else may still begin.
    ForNow,
    ForGood,
}

/// What a saga's state says.
pub(super) struct Told {
    pub(super) about: String,
    pub(super) standing: Standing,
    pub(super) step: Option<&'static str>,
    pub(super) attempt: u32,
    pub(super) deadline: Option<Timestamp>,
    pub(super) witness: Option<Witness>,
}

/// A saga that can be shown.
pub(super) trait Shown: Decider {
    const MANAGER: Manager;

    fn tell(state: &Self::State) -> Told;

    fn end(state: &Self::State) -> End;

    /// The code of the failure that an event tells of.
    fn failure(event: &Self::Event) -> Option<&str>;

    /// Whether an operator says it: whoever does hears the answer, and can say it again.
    fn is_operators(command: &Self::Command) -> bool;
}

impl Saga {
    /// What it is called in lists.
    pub(super) const fn state(&self) -> &'static str {
        match (&self.standing, self.broken.is_empty()) {
            (_, false) => "FAILED",
            (Standing::Waiting, true) => "WAITING",
            (Standing::Parked(_), true) => "PARKED",
            (Standing::Ended(how), true) => how,
        }
    }

    /// Whether nothing will happen to it any more.
    pub(super) fn has_ended_for_good(&self) -> bool {
        matches!(self.standing, Standing::Ended(how) if how != OPENED)
    }

    /// The last thing that went wrong.
    pub(super) fn error(&self) -> Option<&str> {
        match (self.broken.last(), &self.standing) {
            (Some(broken), _) => Some(&broken.error),
            (None, Standing::Parked(reason)) => Some(reason),
            (None, Standing::Waiting | Standing::Ended(_)) => self.failure.as_deref(),
        }
    }
}

impl Shown for transfer::Transfer {
    const MANAGER: Manager = Manager::Transfer;

    fn tell(state: &Self) -> Told {
        let step = state.step();
        let ended = match state.phase {
            transfer::Phase::Completed => Some("COMPLETED"),
            transfer::Phase::Reversed => Some("REVERSED"),
            transfer::Phase::Unknown
            | transfer::Phase::Receiving
            | transfer::Phase::Settling
            | transfer::Phase::Reversing => None,
        };
        let witness = step.and_then(|step| match step {
            transfer::Step::Receive => Some(Witness::Receiver(state.to_account_id.clone())),
            transfer::Step::Reverse => Some(Witness::Sender(state.from_account_id.clone())),
            transfer::Step::Settle => None,
        });
        Told {
            about: format!(
                "{} {} from {} to {}",
                state.amount, state.currency, state.from_account_id, state.to_account_id
            ),
            standing: standing(ended, state.parked.as_ref()),
            step: step.map(transfer::Step::as_str),
            attempt: state.attempt,
            deadline: (ended.is_none() && state.parked.is_none()).then_some(state.due),
            witness,
        }
    }

    fn end(state: &Self) -> End {
        match state.phase {
            transfer::Phase::Completed | transfer::Phase::Reversed => End::ForGood,
            transfer::Phase::Unknown
            | transfer::Phase::Receiving
            | transfer::Phase::Settling
            | transfer::Phase::Reversing => End::No,
        }
    }

    fn failure(event: &transfer::Event) -> Option<&str> {
        if let transfer::Event::StepFailed(event) = event { Some(&event.reason) } else { None }
    }

    fn is_operators(command: &transfer::Command) -> bool {
        matches!(command, transfer::Command::Resume(_) | transfer::Command::Abandon(_))
    }
}

impl Shown for account_opening::Opening {
    const MANAGER: Manager = Manager::AccountOpening;

    fn tell(state: &Self) -> Told {
        use account_opening::{Outcome, Phase, Step};
        let (step, ended) = match state.phase {
            Phase::Unknown => (None, None),
            Phase::Waiting(step) => (Some(step), None),
            Phase::Ended(Outcome::Opened) => (None, Some(OPENED)),
            Phase::Ended(Outcome::Refused) => (None, Some("REFUSED")),
            Phase::Ended(Outcome::Closed) => (None, Some("CLOSED")),
        };
        let wanted = state.wanted.as_ref();
        let about = wanted.map(|wanted| format!("{} for {}", wanted.account_id, wanted.user_id));
        let witness = wanted.filter(|_| step == Some(Step::Reserve));
        Told {
            about: about.unwrap_or_default(),
            standing: standing(ended, state.parked.as_ref()),
            step: step.map(Step::as_str),
            attempt: state.attempt,
            deadline: (ended.is_none() && state.parked.is_none()).then_some(state.due),
            witness: witness.map(|wanted| Witness::Customer(wanted.user_id.clone())),
        }
    }

    fn end(state: &Self) -> End {
        use account_opening::{Outcome, Phase};
        match state.phase {
            // The account may be closed one day.
            Phase::Ended(Outcome::Opened) => End::ForNow,
            Phase::Ended(Outcome::Refused | Outcome::Closed) => End::ForGood,
            Phase::Unknown | Phase::Waiting(_) => End::No,
        }
    }

    fn failure(event: &account_opening::Event) -> Option<&str> {
        if let account_opening::Event::StepFailed(event) = event {
            Some(&event.reason)
        } else {
            None
        }
    }

    fn is_operators(command: &account_opening::Command) -> bool {
        use account_opening::Command;
        matches!(command, Command::Resume | Command::Abandon { .. })
    }
}

fn standing(ended: Option<&'static str>, parked: Option<&String>) -> Standing {
    match (ended, parked) {
        (Some(how), _) => Standing::Ended(how),
        (None, Some(reason)) => Standing::Parked(reason.clone()),
        (None, None) => Standing::Waiting,
    }
}
