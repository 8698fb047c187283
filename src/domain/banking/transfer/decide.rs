//! The rules: news and state -> events. What is past or known already gives none.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::command::{Command, RecordFailed, RecordRefused, Rejection, Resume};
use super::event::{
    Event, ReversalStarted, Step, StepFailed, StepRepeated, TransferCompleted, TransferParked,
    TransferReceived, TransferReversed, TransferStarted,
};
use super::{NAME, StartTransfer};
use crate::domain::banking::step::{ATTEMPTS_MAX, TIMER, answer_due, retry_due};
use crate::domain::money::{Amount, Currency};
use crate::kernel::decider::{Context, Decider, Timer};
use crate::kernel::stream::AggregateName;
use crate::kernel::time::Timestamp;

/// How long a transfer can be received. No longer than command ids are remembered (24 h).
const VALID_SECONDS: i64 = 24 * 60 * 60;
/// How long after that the receiver's history is complete for certain, whatever its clock says.
const HISTORY_COMPLETE_SECONDS: i64 = 24 * 60 * 60;
/// The refusals that are definite: the receiver has not taken it and never will.
const DEFINITE: [&str; 5] =
    ["AccountNotFound", "AccountInactive", "CurrencyMismatch", "LimitExceeded", "Expired"];

/// A transfer as its events have made it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Transfer {
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
    /// Who owns the sending account.
    pub user_id: String,
    /// The sender's currency.
    pub currency: Currency,
    /// Who sent it.
    pub from_account_id: String,
    /// Who shall have it.
    pub to_account_id: String,
    /// How much, without the fee.
    pub amount: Amount,
    /// The fee for it.
    pub fee: Amount,
    /// The sender's own words about it.
    pub reference: Option<String>,
    /// After this moment the receiver refuses it for good.
    pub valid_until: Timestamp,
    /// Why it is given back, if it is.
    pub reason: Option<String>,
}

/// Where a transfer is in its life.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Phase {
    /// Nothing has happened yet.
    #[default]
    Unknown,
    /// The receiver is asked.
    Receiving,
    /// The sender is told that it has arrived.
    Settling,
    /// The sender is asked to take it back.
    Reversing,
    /// It has arrived.
    Completed,
    /// It was given back.
    Reversed,
}

impl Phase {
    /// Its name for people.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Unknown => "UNKNOWN",
            Self::Receiving => "RECEIVING",
            Self::Settling => "SETTLING",
            Self::Reversing => "REVERSING",
            Self::Completed => "COMPLETED",
            Self::Reversed => "REVERSED",
        }
    }
}

impl Default for Transfer {
    fn default() -> Self {
        Self {
            phase: Phase::Unknown,
            parked: None,
            attempt: 0,
            has_failed: false,
            due: Timestamp(0),
            user_id: String::new(),
            currency: Currency::USD,
            from_account_id: String::new(),
            to_account_id: String::new(),
            amount: Amount::ZERO,
            fee: Amount::ZERO,
            reference: None,
            valid_until: Timestamp(0),
            reason: None,
        }
    }
}

impl Decider for Transfer {
    const NAME: AggregateName = NAME;
    const STATE_SCHEMA: u16 = 1;
    const HAS_TIMERS: bool = true;

    type Command = Command;
    type Event = Event;
    type State = Self;
    type Rejection = Rejection;

    fn decide(command: &Command, state: &Self, context: &Context) -> Result<Vec<Event>, Rejection> {
        match command {
            Command::StartTransfer(command) => Ok(state.start(command, context)),
            _ if state.phase == Phase::Unknown => Err(Rejection::TransferNotFound),
            Command::RecordReceived => state.received(context),
            Command::RecordSettled => Ok(state.settled()),
            Command::RecordReversed => Ok(state.reversed()),
            Command::RecordRefused(command) => Ok(state.refused(command, context)),
            Command::RecordFailed(command) => Ok(state.failed(command, context)),
            Command::Wake => Ok(state.wake(context)),
            Command::Resume(command) => state.resume(command, context),
            Command::Abandon(command) => state.abandon(command.reason.as_deref()),
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
            Event::TransferStarted(event) => event.deadline,
            Event::TransferReceived(event) => event.deadline,
            Event::ReversalStarted(event) => event.deadline,
            Event::StepRepeated(event) => event.deadline,
            Event::StepFailed(event) => event.retry_at,
            Event::TransferCompleted(_) | Event::TransferReversed(_) | Event::TransferParked(_) => {
                return vec![Timer::Clear { name: TIMER }];
            }
        };
        vec![Timer::Set { name: TIMER, at }]
    }

    fn on_timer(timer: &str) -> Option<Command> {
        (timer == TIMER).then_some(Command::Wake)
    }
}

impl Transfer {
    /// The state for people: amounts as text, times as RFC 3339.
    #[must_use]
    pub fn to_json(&self) -> Value {
        let has_ended = matches!(self.phase, Phase::Completed | Phase::Reversed);
        json!({
            "phase": self.phase.as_str(),
            "parked": self.parked,
            "attempt": self.attempt,
            "has_failed": self.has_failed,
            "due": (!has_ended).then(|| self.due.to_rfc3339()),
            "user_id": self.user_id,
            "currency": self.currency,
            "from_account_id": self.from_account_id,
            "to_account_id": self.to_account_id,
            "amount": self.amount,
            "fee": self.fee,
            "reference": self.reference,
            "valid_until": self.valid_until.to_rfc3339(),
            "reason": self.reason,
        })
    }

    /// What is waited for; `None` before the start and after the end.
    #[must_use]
    pub const fn step(&self) -> Option<Step> {
        match self.phase {
            Phase::Receiving => Some(Step::Receive),
            Phase::Settling => Some(Step::Settle),
            Phase::Reversing => Some(Step::Reverse),
            Phase::Unknown | Phase::Completed | Phase::Reversed => None,
        }
    }

    fn start(&self, command: &StartTransfer, context: &Context) -> Vec<Event> {
        if self.phase != Phase::Unknown {
            return Vec::new();
        }
        vec![Event::TransferStarted(TransferStarted {
            user_id: command.user_id.clone(),
            currency: command.currency,
            from_account_id: command.from_account_id.clone(),
            to_account_id: command.to_account_id.clone(),
            amount: command.amount,
            fee: command.fee,
            reference: command.reference.clone(),
            valid_until: context.now.plus_seconds(VALID_SECONDS),
            deadline: answer_due(context, 1),
        })]
    }

    fn received(&self, context: &Context) -> Result<Vec<Event>, Rejection> {
        match self.phase {
            Phase::Unknown => Err(Rejection::TransferNotFound),
            Phase::Receiving => Ok(vec![Event::TransferReceived(TransferReceived {
                user_id: self.user_id.clone(),
                currency: self.currency,
                from_account_id: self.from_account_id.clone(),
                to_account_id: self.to_account_id.clone(),
                amount: self.amount,
                deadline: answer_due(context, 1),
            })]),
            Phase::Settling | Phase::Completed => Ok(Vec::new()),
            // The accounts' rules make it impossible; if it is there, somebody must hear of it.
            Phase::Reversing | Phase::Reversed => Err(Rejection::TransferContradicted),
        }
    }

    fn settled(&self) -> Vec<Event> {
        if self.phase != Phase::Settling {
            return Vec::new();
        }
        vec![Event::TransferCompleted(TransferCompleted {
            user_id: self.user_id.clone(),
            currency: self.currency,
            amount: self.amount,
        })]
    }

    fn reversed(&self) -> Vec<Event> {
        if self.phase != Phase::Reversing {
            return Vec::new();
        }
        vec![Event::TransferReversed(TransferReversed {
            user_id: self.user_id.clone(),
            currency: self.currency,
            amount: self.amount,
            fee: self.fee,
            reason: self.reason.clone().unwrap_or_default(),
        })]
    }

    /// A refusal of SETTLE or REVERSE is never definite: `TransferNotOpen` says that the transfer
    /// has ended there already, and then the account's own event tells how.
    fn refused(&self, command: &RecordRefused, context: &Context) -> Vec<Event> {
        if self.step() != Some(command.step) {
            return Vec::new();
        }
        if command.step == Step::Receive && DEFINITE.contains(&command.code.as_str()) {
            self.start_reversal(command.code.clone(), context)
        } else if self.parked.as_ref() == Some(&command.code) {
            Vec::new()
        } else {
            self.park(command.step, command.code.clone())
        }
    }

    fn start_reversal(&self, reason: String, context: &Context) -> Vec<Event> {
        vec![Event::ReversalStarted(ReversalStarted {
            user_id: self.user_id.clone(),
            currency: self.currency,
            from_account_id: self.from_account_id.clone(),
            amount: self.amount,
            reason,
            deadline: answer_due(context, 1),
        })]
    }

    fn failed(&self, command: &RecordFailed, context: &Context) -> Vec<Event> {
        let is_news = self.parked.is_none() && !self.has_failed;
        if self.step() != Some(command.step) || !is_news {
            return Vec::new();
        }
        if self.attempt >= ATTEMPTS_MAX {
            return self.park(command.step, command.code.clone());
        }
        vec![Event::StepFailed(StepFailed {
            user_id: self.user_id.clone(),
            step: command.step,
            attempt: self.attempt,
            reason: command.code.clone(),
            retry_at: retry_due(context, self.attempt),
        })]
    }

    /// A timer that was replaced may still fire: the state says what is due.
    fn wake(&self, context: &Context) -> Vec<Event> {
        match self.step() {
            Some(step) if self.parked.is_none() && context.now >= self.due => {
                if self.attempt >= ATTEMPTS_MAX {
                    self.park(step, format!("no answer after {ATTEMPTS_MAX} attempts"))
                } else {
                    self.repeat(step, self.attempt + 1, context)
                }
            }
            _ => Vec::new(),
        }
    }

    fn resume(&self, command: &Resume, context: &Context) -> Result<Vec<Event>, Rejection> {
        match (self.step(), command.received) {
            (Some(Step::Receive), Some(true)) => self.received(context),
            (Some(Step::Receive), Some(false)) => {
                let complete = self.valid_until.plus_seconds(HISTORY_COMPLETE_SECONDS);
                if context.now <= complete {
                    return Err(Rejection::StillReceivable);
                }
                Ok(self.start_reversal("NotReceived".to_owned(), context))
            }
            (Some(step), _) if self.parked.is_some() => Ok(self.repeat(step, 1, context)),
            _ => Ok(Vec::new()),
        }
    }

    /// Whoever looks at it later finds the last reason, also of one that was parked already.
    fn abandon(&self, reason: Option<&str>) -> Result<Vec<Event>, Rejection> {
        let step = self.step().ok_or(Rejection::TransferEnded)?;
        let reason = format!("abandoned: {}", reason.unwrap_or("no reason given"));
        let is_known = self.parked.as_ref() == Some(&reason);
        Ok(if is_known { Vec::new() } else { self.park(step, reason) })
    }

    fn repeat(&self, step: Step, attempt: u32, context: &Context) -> Vec<Event> {
        vec![Event::StepRepeated(StepRepeated {
            user_id: self.user_id.clone(),
            step,
            attempt,
            deadline: answer_due(context, attempt),
            currency: self.currency,
            from_account_id: self.from_account_id.clone(),
            to_account_id: self.to_account_id.clone(),
            amount: self.amount,
            reference: self.reference.clone(),
            valid_until: self.valid_until,
            reason: self.reason.clone(),
        })]
    }

    fn park(&self, step: Step, reason: String) -> Vec<Event> {
        vec![Event::TransferParked(TransferParked { user_id: self.user_id.clone(), step, reason })]
    }

    fn apply(&mut self, event: &Event) {
        match event {
            Event::TransferStarted(event) => {
                self.user_id.clone_from(&event.user_id);
                self.currency = event.currency;
                self.from_account_id.clone_from(&event.from_account_id);
                self.to_account_id.clone_from(&event.to_account_id);
                self.amount = event.amount;
                self.fee = event.fee;
                self.reference.clone_from(&event.reference);
                self.valid_until = event.valid_until;
                self.enter(Phase::Receiving, event.deadline);
            }
            Event::TransferReceived(event) => self.enter(Phase::Settling, event.deadline),
            Event::ReversalStarted(event) => {
                self.reason = Some(event.reason.clone());
                self.enter(Phase::Reversing, event.deadline);
            }
            Event::TransferCompleted(_) => self.end(Phase::Completed),
            Event::TransferReversed(_) => self.end(Phase::Reversed),
            Event::StepFailed(event) => {
                self.has_failed = true;
                self.due = event.retry_at;
            }
            Event::StepRepeated(event) => {
                self.parked = None;
                self.attempt = event.attempt;
                self.has_failed = false;
                self.due = event.deadline;
            }
            Event::TransferParked(event) => self.parked = Some(event.reason.clone()),
        }
    }

    fn enter(&mut self, phase: Phase, deadline: Timestamp) {
        self.phase = phase;
        self.parked = None;
        self.attempt = 1;
        self.has_failed = false;
        self.due = deadline;
    }

    fn end(&mut self, phase: Phase) {
        self.phase = phase;
        self.parked = None;
        self.has_failed = false;
    }
}
