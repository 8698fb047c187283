//! What the transfer saga and the accounts tell each other: events and results -> commands.

use std::sync::Arc;

use serde_json::{Value, json};
use uuid::Uuid;

use super::event::{Event, Step};
use super::{NAME, Transfer};
use crate::domain::banking::account::{self, Account};
use crate::domain::banking::reaction::{self, Cause};
use crate::domain::money::{Amount, Currency};
use crate::kernel::codec::{Codec, CodecError};
use crate::kernel::message::Record;
use crate::kernel::reactor::{Dispatch, Reactor, step_id};
use crate::kernel::result::Outcome;
use crate::kernel::stream::{AggregateName, Kind};
use crate::kernel::time::Timestamp;

/// The longest reference that goes along, in bytes: written as JSON it must fit into a command.
const REFERENCE_BYTES_MAX: usize = 100_000;
/// The account's events that a transfer must hear of.
const HEARD: [&str; 4] =
    ["MoneyTransferred", "MoneyReceived", "TransferSettled", "TransferReversed"];

/// The transfer saga's reactions.
pub struct TransferReactor {
    accounts: Arc<dyn Codec<Account>>,
    transfers: Arc<dyn Codec<Transfer>>,
}

/// What RECEIVE needs, from either event that asks for it.
struct Receive<'a> {
    from_account_id: &'a str,
    to_account_id: &'a str,
    amount: Amount,
    currency: Currency,
    reference: Option<&'a str>,
    valid_until: Timestamp,
}

impl TransferReactor {
    /// Makes the reactor of the two codecs that read what it reacts to.
    #[must_use]
    pub fn new(accounts: Arc<dyn Codec<Account>>, transfers: Arc<dyn Codec<Transfer>>) -> Self {
        Self { accounts, transfers }
    }

    fn on_account_event(&self, cause: &Cause<'_>) -> Result<Option<Dispatch>, CodecError> {
        if !cause.is_one_of(&HEARD) {
            return Ok(None);
        }
        Ok(match self.accounts.decode_event(cause.value)? {
            account::Event::MoneyTransferred(event) => {
                let reference = event.reference.as_deref().map(shortened);
                let body = json!({
                    "type": "StartTransfer",
                    "user_id": event.user_id,
                    "currency": event.currency,
                    "from_account_id": cause.id,
                    "to_account_id": event.to_account_id,
                    "amount": event.amount,
                    "fee": event.transfer_fee,
                    "reference": reference,
                });
                Some(tell(cause, &event.transfer_id, step_id(&event.transfer_id, "START"), &body))
            }
            account::Event::MoneyReceived(event) => {
                Some(news(cause, &event.transfer_id, "RecordReceived"))
            }
            account::Event::TransferSettled(event) => {
                Some(news(cause, &event.transfer_id, "RecordSettled"))
            }
            account::Event::TransferReversed(event) => {
                Some(news(cause, &event.transfer_id, "RecordReversed"))
            }
            account::Event::AccountCreated(_)
            | account::Event::MoneyDeposited(_)
            | account::Event::MoneyWithdrawn(_)
            | account::Event::AccountFrozen(_)
            | account::Event::AccountUnfrozen(_)
            | account::Event::AccountClosed(_)
            | account::Event::EntryCorrected(_) => None,
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
            Outcome::Accepted if result.first_sequence.is_some() && !result.duplicate => {
                return Ok(None);
            }
            Outcome::Accepted => json!({"type": match step {
                Step::Receive => "RecordReceived",
                Step::Settle => "RecordSettled",
                Step::Reverse => "RecordReversed",
            }}),
            Outcome::Rejected => {
                json!({"type": "RecordRefused", "step": step.as_str(), "code": code})
            }
            Outcome::Failed => {
                json!({"type": "RecordFailed", "step": step.as_str(), "code": code})
            }
        };
        let command_id = reaction::answer_id(saga, &result, record.offset);
        Ok(Some(Dispatch {
            aggregate: NAME,
            id: saga.to_owned(),
            command_id,
            body: reaction::bytes(&body),
            reply_to: None,
            correlation_id: record.headers.text("correlation_id").map(str::to_owned),
            causation_id: Some(result.command_id.to_string()),
            metadata: reaction::carried(&record.headers),
        }))
    }

    fn on_transfer_event(&self, cause: &Cause<'_>) -> Result<Option<Dispatch>, CodecError> {
        let sent = ["TransferStarted", "TransferReceived", "ReversalStarted", "StepRepeated"];
        if !cause.is_one_of(&sent) {
            return Ok(None);
        }
        Ok(match self.transfers.decode_event(cause.value)? {
            Event::TransferStarted(event) => Some(receive(
                cause,
                &Receive {
                    from_account_id: &event.from_account_id,
                    to_account_id: &event.to_account_id,
                    amount: event.amount,
                    currency: event.currency,
                    reference: event.reference.as_deref(),
                    valid_until: event.valid_until,
                },
            )),
            Event::TransferReceived(event) => {
                Some(settle(cause, &event.from_account_id, &event.to_account_id))
            }
            Event::ReversalStarted(event) => {
                Some(reverse(cause, &event.from_account_id, &event.reason))
            }
            Event::StepRepeated(event) => Some(match event.step {
                Step::Receive => receive(
                    cause,
                    &Receive {
                        from_account_id: &event.from_account_id,
                        to_account_id: &event.to_account_id,
                        amount: event.amount,
                        currency: event.currency,
                        reference: event.reference.as_deref(),
                        valid_until: event.valid_until,
                    },
                ),
                Step::Settle => settle(cause, &event.from_account_id, &event.to_account_id),
                Step::Reverse => {
                    let reason = event.reason.as_deref().unwrap_or_default();
                    reverse(cause, &event.from_account_id, reason)
                }
            }),
            Event::TransferCompleted(_)
            | Event::TransferReversed(_)
            | Event::StepFailed(_)
            | Event::TransferParked(_) => None,
        })
    }
}

impl Reactor for TransferReactor {
    fn name(&self) -> &'static str {
        "transfer"
    }

    fn inputs(&self) -> Vec<(AggregateName, Kind)> {
        vec![(account::NAME, Kind::Events), (account::NAME, Kind::Results), (NAME, Kind::Events)]
    }

    fn react(
        &self,
        aggregate: AggregateName,
        kind: Kind,
        record: &Record,
    ) -> Result<Vec<Dispatch>, CodecError> {
        let dispatch = if kind == Kind::Results && aggregate == account::NAME {
            self.on_result(record)?
        } else if kind != Kind::Events {
            None
        } else if let Some(cause) = Cause::of(record) {
            match aggregate {
                account::NAME => self.on_account_event(&cause)?,
                NAME => self.on_transfer_event(&cause)?,
                _ => None,
            }
        } else {
            None
        };
        Ok(dispatch.into_iter().collect())
    }
}

fn tell(cause: &Cause<'_>, transfer_id: &str, command_id: Uuid, body: &Value) -> Dispatch {
    cause.dispatch(NAME, transfer_id, command_id, body, None)
}

/// What an account's event says. Its command id is the event's own in the saga's space.
fn news(cause: &Cause<'_>, transfer_id: &str, command: &str) -> Dispatch {
    let command_id = step_id(transfer_id, cause.event_id);
    tell(cause, transfer_id, command_id, &json!({"type": command}))
}

fn ask(cause: &Cause<'_>, step: Step, account_id: &str, body: &Value) -> Dispatch {
    let command_id = step_id(cause.id, step.as_str());
    cause.dispatch(account::NAME, account_id, command_id, body, Some(cause.id))
}

fn receive(cause: &Cause<'_>, receive: &Receive<'_>) -> Dispatch {
    let body = json!({
        "type": "ReceiveTransfer",
        "transfer_id": cause.id,
        "from_account_id": receive.from_account_id,
        "amount": receive.amount,
        "currency": receive.currency,
        "reference": receive.reference,
        "valid_until": receive.valid_until.to_rfc3339(),
    });
    ask(cause, Step::Receive, receive.to_account_id, &body)
}

fn settle(cause: &Cause<'_>, from_account_id: &str, to_account_id: &str) -> Dispatch {
    let body = json!({
        "type": "SettleTransfer",
        "transfer_id": cause.id,
        "to_account_id": to_account_id,
    });
    ask(cause, Step::Settle, from_account_id, &body)
}

fn reverse(cause: &Cause<'_>, from_account_id: &str, reason: &str) -> Dispatch {
    let body = json!({"type": "ReverseTransfer", "transfer_id": cause.id, "reason": reason});
    ask(cause, Step::Reverse, from_account_id, &body)
}

/// The longest start of a text that goes along.
fn shortened(text: &str) -> &str {
    let mut end = text.len().min(REFERENCE_BYTES_MAX);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}
