//! A client's wish for an account is handed on to the saga that asks the customer first.

use serde_json::json;

use super::command::CreateAccount;
use super::event::AccountType;
use crate::domain::banking::account_opening;
use crate::kernel::decider::Context;
use crate::kernel::reactor::{Dispatch, step_id};

/// The slot that the wish has or would have.
pub(super) fn slot_of(command: &CreateAccount, context: &Context) -> String {
    match &command.grant {
        Some(grant) => grant.slot_id.clone(),
        None => account_opening::slot_id(&command.account_id, context.command_id),
    }
}

/// What is sent on. The wish was found right by itself, so its type is one of the four.
pub(super) fn ask(command: &CreateAccount, context: &Context, reply_to: Option<&str>) -> Dispatch {
    let slot_id = slot_of(command, context);
    let account_type = AccountType::parse(&command.account_type);
    let body = json!({
        "type": "StartOpening",
        "account_id": command.account_id,
        "user_id": command.user_id,
        "account_type": account_type.unwrap_or(AccountType::Checking).as_str(),
        "initial_deposit": command.initial_deposit,
        "currency": command.currency,
        "client_command_id": context.command_id.to_string(),
        "client_reply_to": reply_to,
    });
    Dispatch {
        aggregate: account_opening::NAME,
        command_id: step_id(&slot_id, "START"),
        id: slot_id,
        body: body.to_string().into_bytes(),
        reply_to: None,
        correlation_id: None,
        causation_id: Some(context.command_id.to_string()),
        metadata: Vec::new(),
    }
}
