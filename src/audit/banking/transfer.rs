//! Transfers: the saga's facts -> the row of `transfer`.

use super::Table;
use crate::audit::cell::{Cell, Row};
use crate::audit::fact::Fact;

/// The events that transfers have.
pub const EVENTS: [&str; 8] = [
    "TransferStarted",
    "TransferReceived",
    "ReversalStarted",
    "StepFailed",
    "StepRepeated",
    "TransferParked",
    "TransferCompleted",
    "TransferReversed",
];

/// One row a transfer.
pub const TABLE: Table = Table {
    name: "transfer",
    id: "transfer_id",
    columns: &[
        "version",
        "first_version",
        "state",
        "from_account_id",
        "to_account_id",
        "amount",
        "fee",
        "currency",
        "refusal",
        "is_parked",
        "parked_because",
        "deadline",
        "created_at",
        "ended_at",
    ],
    own: 14,
};

/// A transfer, as far as it has come.
#[derive(Clone, Debug, Default)]
pub struct Transfer {
    /// How many events it has.
    pub version: u64,
    first_version: u64,
    state: Option<&'static str>,
    /// Sender and receiver.
    accounts: [Option<String>; 2],
    /// Amount and fee.
    money: [Option<i128>; 2],
    currency: Option<String>,
    refusal: Option<String>,
    is_parked: Option<bool>,
    parked_because: Option<String>,
    deadline: Option<i64>,
    created_at: Option<i64>,
    ended_at: Option<i64>,
}

impl Transfer {
    /// Takes the next event in.
    pub fn take(&mut self, fact: &Fact) {
        if self.version == 0 {
            self.first_version = fact.sequence;
        }
        self.version = fact.sequence;
        let name = fact.name.as_str();
        if !EVENTS.contains(&name) {
            return;
        }
        let owned = |field: &str| fact.text(field).map(str::to_owned);
        // Whatever is sent is waited for; what parks waits for somebody.
        if let Some(deadline) = fact.moment("deadline") {
            self.state = Some("PENDING");
            self.is_parked = Some(false);
            self.deadline = Some(deadline);
        }
        if let Some(retry_at) = fact.moment("retry_at") {
            self.deadline = Some(retry_at);
        }
        match name {
            "TransferStarted" => {
                self.accounts = [owned("from_account_id"), owned("to_account_id")];
                self.money = [fact.money("amount"), fact.money("fee")];
                self.currency = owned("currency");
                self.created_at = Some(fact.at);
            }
            "TransferParked" => {
                let part = |field| fact.text(field).unwrap_or_default();
                self.is_parked = Some(true);
                self.parked_because =
                    Some(format!("parked at {}: {}", part("step"), part("reason")));
            }
            "TransferCompleted" => self.end("COMPLETED", fact.at),
            "TransferReversed" => self.end("REVERSED", fact.at),
            _ => {}
        }
        if ["ReversalStarted", "TransferReversed"].contains(&name) {
            self.refusal = owned("reason");
        }
    }

    fn end(&mut self, state: &'static str, at: i64) {
        self.state = Some(state);
        self.is_parked = Some(false);
        self.ended_at = Some(at);
    }

    /// Its row.
    #[must_use]
    pub fn row(&self) -> Row {
        let money = |units: Option<i128>| units.map_or(Cell::Null, Cell::Money);
        let [from, to] = &self.accounts;
        let [amount, fee] = self.money;
        vec![
            Cell::count(self.version),
            Cell::count(self.first_version),
            Cell::text(self.state),
            Cell::text(from.as_deref()),
            Cell::text(to.as_deref()),
            money(amount),
            money(fee),
            Cell::text(self.currency.as_deref()),
            Cell::text(self.refusal.as_deref()),
            self.is_parked.map_or(Cell::Null, Cell::Flag),
            Cell::text(self.parked_because.as_deref()),
            Cell::moment(self.deadline),
            Cell::moment(self.created_at),
            Cell::moment(self.ended_at),
        ]
    }
}
