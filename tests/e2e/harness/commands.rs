//! Commands as clients write them.

use serde_json::{Value, json};
use uuid::Uuid;

use super::kafka::Message;

/// A JSON command for an account.
pub(crate) fn command(account: &str, body: &Value) -> Message {
    Message::new(account, body.to_string())
}

/// As [`command`], under an id.
pub(crate) fn command_with_id(account: &str, id: Uuid, body: &Value) -> Message {
    command(account, body).header("ce_id", id.to_string())
}

/// Opens an account.
pub(crate) fn create(user: &str, kind: &str, deposit: &str) -> Value {
    json!({
        "type": "CreateAccount", "user_id": user, "account_type": kind, "initial_deposit": deposit,
    })
}

pub(crate) fn deposit(amount: &str) -> Value {
    json!({"type": "Deposit", "amount": amount})
}

pub(crate) fn withdraw(amount: &str) -> Value {
    json!({"type": "Withdraw", "amount": amount})
}

pub(crate) fn transfer(to: &str, amount: &str) -> Value {
    json!({"type": "Transfer", "to_account_id": to, "amount": amount})
}

/// A command id that nobody has had yet.
pub(crate) fn new_id() -> Uuid {
    Uuid::from_u128(rand::random())
}
