//! What openings, customers and accounts tell each other: events and results -> commands.

use std::sync::Arc;

use serde_json::json;

use super::message::{Event, OpeningAdvanced, Step};
use super::{NAME, Opening};
use crate::domain::banking::account::{self, Account};
use crate::domain::banking::customer::{self, Customer};
use crate::domain::banking::reaction::{self, Cause};
use crate::kernel::codec::{Codec, CodecError};
use crate::kernel::message::Record;
use crate::kernel::reactor::{Dispatch, Reactor, step_id};
use crate::kernel::result::{CommandResult, Outcome};
use crate::kernel::stream::{AggregateName, Kind};

/// The opening saga's reactions.
pub struct AccountOpeningReactor {
    accounts: Arc<dyn Codec<Account>>,
    customers: Arc<dyn Codec<Customer>>,
    openings: Arc<dyn Codec<Opening>>,
}

impl AccountOpeningReactor {
    /// Makes the reactor of the codecs that read what it reacts to.
    #[must_use]
    pub fn new(
        accounts: Arc<dyn Codec<Account>>,
        customers: Arc<dyn Codec<Customer>>,
        openings: Arc<dyn Codec<Opening>>,
    ) -> Self {
        Self { accounts, customers, openings }
    }

    fn on_account_event(&self, cause: &Cause<'_>) -> Result<Option<Dispatch>, CodecError> {
        if !cause.is_one_of(&["AccountCreated", "AccountClosed"]) {
            return Ok(None);
        }
        // An account that was opened without a slot is none of ours.
        Ok(match self.accounts.decode_event(cause.value)? {
            account::Event::AccountCreated(event) => {
                event.slot_id.map(|slot| news(cause, &slot, &json!({"type": "RecordOpened"})))
            }
            account::Event::AccountClosed(event) => {
                event.slot_id.map(|slot| news(cause, &slot, &json!({"type": "RecordClosed"})))
            }
            account::Event::MoneyDeposited(_)
            | account::Event::MoneyWithdrawn(_)
            | account::Event::MoneyTransferred(_)
            | account::Event::MoneyReceived(_)
            | account::Event::TransferReversed(_)
            | account::Event::TransferSettled(_)
            | account::Event::AccountFrozen(_)
            | account::Event::AccountUnfrozen(_)
            | account::Event::EntryCorrected(_) => None,
        })
    }

    fn on_customer_event(&self, cause: &Cause<'_>) -> Result<Option<Dispatch>, CodecError> {
        let heard = ["SlotReserved", "SlotDenied", "SlotConfirmed", "SlotReleased", "SlotFreed"];
        if !cause.is_one_of(&heard) {
            return Ok(None);
        }
        let (slot_id, body) = match self.customers.decode_event(cause.value)? {
            customer::Event::SlotReserved(event) => {
                (event.slot_id, json!({"type": "RecordReserved"}))
            }
            customer::Event::SlotDenied(event) => {
                (event.slot_id, json!({"type": "RecordDenied", "code": event.code}))
            }
            customer::Event::SlotConfirmed(event) => {
                (event.slot_id, json!({"type": "RecordConfirmed"}))
            }
            customer::Event::SlotReleased(event) => {
                (event.slot_id, json!({"type": "RecordReleased"}))
            }
            customer::Event::SlotFreed(event) => (event.slot_id, json!({"type": "RecordFreed"})),
        };
        Ok(Some(news(cause, &slot_id, &body)))
    }

    fn on_opening_event(&self, cause: &Cause<'_>) -> Result<Option<Dispatch>, CodecError> {
        if !cause.is_one_of(&["OpeningStarted", "OpeningAdvanced"]) {
            return Ok(None);
        }
        Ok(match self.openings.decode_event(cause.value)? {
            Event::OpeningStarted(event) => Some(reserve(cause, &event.user_id, &event.account_id)),
            Event::OpeningAdvanced(event) => Some(match event.step {
                Step::Reserve => reserve(cause, &event.user_id, &event.account_id),
                Step::Open | Step::Refuse => create(cause, &event),
                Step::Confirm => slot(cause, &event, "ConfirmSlot"),
                Step::Release => slot(cause, &event, "ReleaseSlot"),
                Step::Free => slot(cause, &event, "FreeSlot"),
            }),
            Event::StepFailed(_) | Event::OpeningParked(_) | Event::OpeningEnded(_) => None,
        })
    }

    /// An accepted step is told by its event. Only what has none of its own, or repeats an answer
    /// that may have been lost, is told by the result.
    fn on_result(&self, record: &Record) -> Result<Option<Dispatch>, CodecError> {
        let Some((saga, value)) = reaction::asked_by(record) else { return Ok(None) };
        let result = self.accounts.decode_result(value)?;
        let step =
            Step::ALL.into_iter().find(|step| step_id(saga, step.as_str()) == result.command_id);
        let Some(step) = step else { return Ok(None) };
        let code = result.code.as_deref().unwrap_or("Unknown");
        let body = match result.outcome {
            Outcome::Accepted => match accepted(step, &result) {
                Some(command) => json!({"type": command}),
                None => return Ok(None),
            },
            Outcome::Rejected => {
                json!({"type": "RecordRefused", "step": step.as_str(), "code": code})
            }
            Outcome::Failed => {
                json!({"type": "RecordFailed", "step": step.as_str(), "code": code})
            }
        };
        Ok(Some(Dispatch {
            aggregate: NAME,
            id: saga.to_owned(),
            command_id: reaction::answer_id(saga, &result, record.offset),
            body: reaction::bytes(&body),
            reply_to: None,
            correlation_id: record.headers.text("correlation_id").map(str::to_owned),
            causation_id: Some(result.command_id.to_string()),
            metadata: reaction::carried(&record.headers),
        }))
    }
}

/// What an accepted step means, if its own event does not say it.
fn accepted(step: Step, result: &CommandResult) -> Option<&'static str> {
    let is_told = result.first_sequence.is_some();
    match step {
        // The first answer's event may also have been the no.
        Step::Reserve => (!is_told).then_some("RecordReserved"),
        Step::Open => (!is_told || result.duplicate).then_some("RecordOpened"),
        Step::Confirm => (!is_told || result.duplicate).then_some("RecordConfirmed"),
        Step::Release => (!is_told || result.duplicate).then_some("RecordReleased"),
        Step::Free => (!is_told || result.duplicate).then_some("RecordFreed"),
        // Said by nobody: whoever is refused is not accepted.
        Step::Refuse => None,
    }
}

impl Reactor for AccountOpeningReactor {
    fn name(&self) -> &'static str {
        "account-opening"
    }

    fn inputs(&self) -> Vec<(AggregateName, Kind)> {
        vec![
            (account::NAME, Kind::Events),
            (account::NAME, Kind::Results),
            (customer::NAME, Kind::Events),
            (customer::NAME, Kind::Results),
            (NAME, Kind::Events),
        ]
    }

    fn react(
        &self,
        aggregate: AggregateName,
        kind: Kind,
        record: &Record,
    ) -> Result<Vec<Dispatch>, CodecError> {
        let dispatch = match (aggregate, kind) {
            (account::NAME | customer::NAME, Kind::Results) => self.on_result(record)?,
            (_, Kind::Events) => match (Cause::of(record), aggregate) {
                (Some(cause), account::NAME) => self.on_account_event(&cause)?,
                (Some(cause), customer::NAME) => self.on_customer_event(&cause)?,
                (Some(cause), NAME) => self.on_opening_event(&cause)?,
                _ => None,
            },
            _ => None,
        };
        Ok(dispatch.into_iter().collect())
    }
}

/// What an event says. Its command id is the event's own in the saga's space.
fn news(cause: &Cause<'_>, slot_id: &str, body: &serde_json::Value) -> Dispatch {
    cause.dispatch(NAME, slot_id, step_id(slot_id, cause.event_id), body, None)
}

fn reserve(cause: &Cause<'_>, user_id: &str, account_id: &str) -> Dispatch {
    let body = json!({"type": "ReserveSlot", "slot_id": cause.id, "account_id": account_id});
    let command_id = step_id(cause.id, Step::Reserve.as_str());
    cause.dispatch(customer::NAME, user_id, command_id, &body, Some(cause.id))
}

fn slot(cause: &Cause<'_>, event: &OpeningAdvanced, command: &str) -> Dispatch {
    let body = json!({"type": command, "slot_id": cause.id});
    let command_id = step_id(cause.id, event.step.as_str());
    cause.dispatch(customer::NAME, &event.user_id, command_id, &body, Some(cause.id))
}

/// The client's command with its grant, or with the no that it is told.
fn create(cause: &Cause<'_>, event: &OpeningAdvanced) -> Dispatch {
    let refused = (event.step == Step::Refuse).then_some(event.reason.as_deref()).flatten();
    let body = json!({
        "type": "CreateAccount",
        "account_id": event.account_id,
        "user_id": event.user_id,
        "account_type": event.account_type,
        "initial_deposit": event.initial_deposit,
        "currency": event.currency,
        "grant_slot_id": cause.id,
        "grant_client_command_id": event.client_command_id,
        "grant_client_reply_to": event.client_reply_to,
        "grant_refused": refused,
    });
    let command_id = step_id(cause.id, event.step.as_str());
    cause.dispatch(account::NAME, &event.account_id, command_id, &body, Some(cause.id))
}
