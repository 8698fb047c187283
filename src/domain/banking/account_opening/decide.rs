//! The rules: news and state -> events. What is past or known already gives none.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::NAME;
use super::message::{
    Command, Event, OpeningAdvanced, OpeningEnded, OpeningParked, OpeningStarted, Outcome,
    Rejection, Step, StepFailed, Wanted,
};
use crate::domain::banking::customer::ACCOUNT_LIMIT;
use crate::domain::banking::step::{ATTEMPTS_MAX, TIMER, answer_due, retry_due};
use crate::kernel::decider::{Context, Decider, Timer};
use crate::kernel::stream::AggregateName;
use crate::kernel::time::Timestamp;

/// The account's refusals that are definite: an id is taken for ever, and a content stays as it is.
const DEFINITE: [&str; 6] = [
    "AccountExists",
    "InvalidAccountType",
    "InvalidCurrency",
    "MinimumDeposit",
    "MissingUser",
    ACCOUNT_LIMIT,
];

/// An opening as its events have made it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Opening {
    /// Where it is.
    pub phase: Phase,
    /// Why nothing is sent any more, if so.
    pub parked: Option<String>,
    /// How often the step was sent.
    pub attempt: u32,
    /// Whether that attempt broke, so that the next one is due.
    pub has_failed: bool,
    /// When it must be looked after again.
    pub due: Timestamp,
    /// What the client has asked for.
    pub wanted: Option<Wanted>,
    /// Why there will be no account, if so.
    pub reason: Option<String>,
    /// Whether it was the customer who said no.
    pub denied: bool,
}

/// Where an opening is in its life.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Phase {
    /// Nothing has happened yet.
    #[default]
    Unknown,
    /// A step was sent.
    Waiting(Step),
    /// Nothing is left to do.
    Ended(Outcome),
}

impl Decider for Opening {
    const NAME: AggregateName = NAME;
    const STATE_SCHEMA: u16 = 1;
    const HAS_TIMERS: bool = true;

    type Command = Command;
    type Event = Event;
    type State = Self;
    type Rejection = Rejection;

    fn decide(command: &Command, state: &Self, context: &Context) -> Result<Vec<Event>, Rejection> {
        match (command, &state.wanted) {
            (Command::StartOpening(wanted), None) => Ok(started(wanted, context)),
            (_, None) => Err(Rejection::OpeningNotFound),
            (command, Some(wanted)) => state.hear(command, wanted, context),
        }
    }

    fn evolve(state: &mut Self, event: &Event, _at: Timestamp) {
        state.apply(event);
    }

    fn is_internal(_command: &Command) -> bool {
        true
    }

    fn timers(event: &Event) -> Vec<Timer> {
        let at = match event {
            Event::OpeningStarted(event) => event.deadline,
            Event::OpeningAdvanced(event) => event.deadline,
            Event::StepFailed(event) => event.retry_at,
            Event::OpeningParked(_) | Event::OpeningEnded(_) => {
                return vec![Timer::Clear { name: TIMER }];
            }
        };
        vec![Timer::Set { name: TIMER, at }]
    }

    fn on_timer(timer: &str) -> Option<Command> {
        (timer == TIMER).then_some(Command::Wake)
    }
}

impl Opening {
    /// The state for people: amounts as text, times as RFC 3339.
    #[must_use]
    pub fn to_json(&self) -> Value {
        let (phase, step, outcome) = match self.phase {
            Phase::Unknown => ("UNKNOWN", None, None),
            Phase::Waiting(step) => ("WAITING", Some(step), None),
            Phase::Ended(outcome) => ("ENDED", None, Some(outcome)),
        };
        json!({
            "phase": phase,
            "step": step,
            "outcome": outcome,
            "parked": self.parked,
            "attempt": self.attempt,
            "has_failed": self.has_failed,
            "due": step.map(|_| self.due.to_rfc3339()),
            "wanted": self.wanted,
            "reason": self.reason,
            "denied": self.denied,
        })
    }

    fn hear(
        &self,
        command: &Command,
        wanted: &Wanted,
        context: &Context,
    ) -> Result<Vec<Event>, Rejection> {
        let send = |step| vec![self.send(wanted, step, 1, self.reason.clone(), context)];
        Ok(match (command, self.phase) {
            // The client asks again and its answer is forgotten: what answers it is sent again.
            (Command::StartOpening(_), Phase::Ended(_)) => {
                send(if self.denied { Step::Refuse } else { Step::Open })
            }
            (Command::RecordReserved, Phase::Waiting(Step::Reserve)) => send(Step::Open),
            (
                Command::RecordDenied { code }
                | Command::RecordRefused { step: Step::Reserve, code },
                Phase::Waiting(Step::Reserve),
            ) if code == ACCOUNT_LIMIT => {
                vec![self.send(wanted, Step::Refuse, 1, Some(code.clone()), context)]
            }
            (Command::RecordOpened, Phase::Waiting(Step::Open)) => send(Step::Confirm),
            // The accounts' rules make it impossible; if it is there, somebody must hear of it.
            (
                Command::RecordOpened,
                Phase::Waiting(Step::Release | Step::Refuse) | Phase::Ended(Outcome::Refused),
            ) => return Err(Rejection::OpeningContradicted),
            (Command::RecordConfirmed, Phase::Waiting(Step::Confirm)) => {
                end(wanted, Outcome::Opened, None)
            }
            (Command::RecordReleased, Phase::Waiting(Step::Release)) => {
                end(wanted, Outcome::Refused, self.reason.clone())
            }
            // The news of the opening may still be on its way.
            (
                Command::RecordClosed,
                Phase::Waiting(Step::Open | Step::Confirm) | Phase::Ended(Outcome::Opened),
            ) => send(Step::Free),
            (Command::RecordFreed, Phase::Waiting(Step::Free)) => {
                end(wanted, Outcome::Closed, None)
            }
            (Command::RecordRefused { step, code }, Phase::Waiting(waiting))
                if *step == waiting =>
            {
                self.refused(wanted, waiting, code, context)
            }
            (Command::RecordFailed { step, code }, Phase::Waiting(waiting)) if *step == waiting => {
                self.failed(wanted, waiting, code, context)
            }
            (Command::Wake, Phase::Waiting(step)) => self.wake(wanted, step, context),
            (Command::Resume, Phase::Waiting(step)) if self.parked.is_some() => send(step),
            (Command::Abandon { reason }, Phase::Waiting(step)) => {
                self.abandon(wanted, step, reason.as_deref())
            }
            (Command::Abandon { .. }, Phase::Ended(_)) => return Err(Rejection::OpeningEnded),
            _ => Vec::new(),
        })
    }

    fn refused(&self, wanted: &Wanted, step: Step, code: &str, context: &Context) -> Vec<Event> {
        let is_definite = DEFINITE.contains(&code);
        match step {
            Step::Open if is_definite => {
                vec![self.send(wanted, Step::Release, 1, Some(code.to_owned()), context)]
            }
            // The account has told the client.
            Step::Refuse if is_definite => end(wanted, Outcome::Refused, Some(code.to_owned())),
            Step::Reserve
            | Step::Open
            | Step::Refuse
            | Step::Confirm
            | Step::Release
            | Step::Free => {
                if self.parked.as_deref() == Some(code) {
                    Vec::new()
                } else {
                    park(wanted, step, code.to_owned())
                }
            }
        }
    }

    fn failed(&self, wanted: &Wanted, step: Step, code: &str, context: &Context) -> Vec<Event> {
        if self.parked.is_some() || self.has_failed {
            return Vec::new();
        }
        if self.attempt >= ATTEMPTS_MAX {
            return park(wanted, step, code.to_owned());
        }
        vec![Event::StepFailed(StepFailed {
            user_id: wanted.user_id.clone(),
            step,
            attempt: self.attempt,
            reason: code.to_owned(),
            retry_at: retry_due(context, self.attempt),
        })]
    }

    /// A timer that was replaced may still fire: the state says what is due.
    fn wake(&self, wanted: &Wanted, step: Step, context: &Context) -> Vec<Event> {
        if self.parked.is_some() || context.now < self.due {
            Vec::new()
        } else if self.attempt >= ATTEMPTS_MAX {
            park(wanted, step, format!("no answer after {ATTEMPTS_MAX} attempts"))
        } else {
            vec![self.send(wanted, step, self.attempt + 1, self.reason.clone(), context)]
        }
    }

    /// Whoever looks at it later finds the last reason, also of one that was parked already.
    fn abandon(&self, wanted: &Wanted, step: Step, reason: Option<&str>) -> Vec<Event> {
        let reason = format!("abandoned: {}", reason.unwrap_or("no reason given"));
        if self.parked.as_ref() == Some(&reason) { Vec::new() } else { park(wanted, step, reason) }
    }

    fn send(
        &self,
        wanted: &Wanted,
        step: Step,
        attempt: u32,
        reason: Option<String>,
        context: &Context,
    ) -> Event {
        let wanted = wanted.clone();
        Event::OpeningAdvanced(OpeningAdvanced {
            user_id: wanted.user_id,
            account_id: wanted.account_id,
            account_type: wanted.account_type,
            initial_deposit: wanted.initial_deposit,
            currency: wanted.currency,
            client_command_id: wanted.client_command_id,
            client_reply_to: wanted.client_reply_to,
            step,
            attempt,
            reason,
            deadline: answer_due(context, attempt),
        })
    }

    fn apply(&mut self, event: &Event) {
        match event {
            Event::OpeningStarted(event) => {
                let event = event.clone();
                self.wanted = Some(Wanted {
                    user_id: event.user_id,
                    account_id: event.account_id,
                    account_type: event.account_type,
                    initial_deposit: event.initial_deposit,
                    currency: event.currency,
                    client_command_id: event.client_command_id,
                    client_reply_to: event.client_reply_to,
                });
                self.enter(Step::Reserve, 1, event.deadline);
            }
            Event::OpeningAdvanced(event) => {
                let ended = matches!(self.phase, Phase::Ended(_));
                // What is sent after the end is for the client, and nobody waits for its answer.
                if !ended || event.step == Step::Free {
                    self.reason.clone_from(&event.reason);
                    self.denied |= event.step == Step::Refuse;
                    self.enter(event.step, event.attempt, event.deadline);
                }
            }
            Event::StepFailed(event) => {
                self.has_failed = true;
                self.due = event.retry_at;
            }
            Event::OpeningParked(event) => self.parked = Some(event.reason.clone()),
            Event::OpeningEnded(event) => {
                self.phase = Phase::Ended(event.outcome);
                self.parked = None;
                self.has_failed = false;
            }
        }
    }

    fn enter(&mut self, step: Step, attempt: u32, deadline: Timestamp) {
        self.phase = Phase::Waiting(step);
        self.parked = None;
        self.attempt = attempt;
        self.has_failed = false;
        self.due = deadline;
    }
}

fn started(wanted: &Wanted, context: &Context) -> Vec<Event> {
    let wanted = wanted.clone();
    vec![Event::OpeningStarted(OpeningStarted {
        user_id: wanted.user_id,
        account_id: wanted.account_id,
        account_type: wanted.account_type,
        initial_deposit: wanted.initial_deposit,
        currency: wanted.currency,
        client_command_id: wanted.client_command_id,
        client_reply_to: wanted.client_reply_to,
        deadline: answer_due(context, 1),
    })]
}

fn end(wanted: &Wanted, outcome: Outcome, reason: Option<String>) -> Vec<Event> {
    let (user_id, account_id) = (wanted.user_id.clone(), wanted.account_id.clone());
    vec![Event::OpeningEnded(OpeningEnded { user_id, account_id, outcome, reason })]
}

fn park(wanted: &Wanted, step: Step, reason: String) -> Vec<Event> {
    vec![Event::OpeningParked(OpeningParked { user_id: wanted.user_id.clone(), step, reason })]
}
