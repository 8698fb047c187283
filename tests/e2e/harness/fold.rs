//! What the read models must hold: a fold of the log, written from the specification and not from
//! the projections.

use std::collections::BTreeMap;
use std::str::FromStr;

use chrono::DateTime;
use rust_decimal::Decimal;
use serde_json::{Map, Value};

use super::log::Event;
use super::stores::{Row, plain};

/// The fields that hold money.
const MONEY: [&str; 5] = ["amount", "balance_after", "fee", "initial_deposit", "transfer_fee"];

/// Both stores' rows, by their keys.
#[derive(Debug, Default)]
pub(crate) struct Expected {
    pub(crate) summaries: BTreeMap<String, Row>,
    pub(crate) transactions: BTreeMap<String, Row>,
    pub(crate) events: BTreeMap<String, Row>,
    pub(crate) transfers: BTreeMap<String, Row>,
}

/// Folds accounts' events and those of all other aggregates, each stream in order.
pub(crate) fn fold(events: &[Event], others: &[Event]) -> Expected {
    let mut expected = Expected::default();
    let mut accounts: BTreeMap<&str, Account> = BTreeMap::new();
    for event in events {
        let key = format!("{}#{}", event.account, event.sequence);
        let account = accounts.entry(&event.account).or_default();
        let version = account.version;
        assert_eq!(event.sequence, version + 1, "{key}: sequences are dense");
        if let Some(row) = account.take(event) {
            expected.transactions.insert(key.clone(), row);
        }
        expected.events.insert(format!("account/{key}"), event_row(event));
    }
    let mut transfers: BTreeMap<&str, Transfer> = BTreeMap::new();
    for event in others {
        let aggregate = aggregate(event);
        let key = format!("{aggregate}/{}#{}", event.account, event.sequence);
        expected.events.insert(key, event_row(event));
        if aggregate == "transfer" {
            transfers.entry(&event.account).or_default().take(event);
        }
    }
    expected.transfers =
        transfers.into_iter().map(|(id, transfer)| (id.to_owned(), transfer.row(id))).collect();
    for (id, account) in accounts {
        expected.summaries.insert(id.to_owned(), account.row(id));
    }
    expected
}

#[derive(Default)]
struct Account {
    user_id: String,
    kind: String,
    currency: String,
    status: &'static str,
    version: u64,
    created_at: i64,
    moved_at: i64,
    balance: Decimal,
    pending_out: Decimal,
    deposits: Decimal,
    withdrawals: Decimal,
    transfers_in: Decimal,
    transfers_out: Decimal,
    fees: Decimal,
    transactions: Vec<String>,
}

impl Account {
    /// Takes an event in; gives its transaction's row if it moved money.
    fn take(&mut self, event: &Event) -> Option<Row> {
        self.version = event.sequence;
        let name = event.short_name();
        let amount = money(event, "amount").or(money(event, "initial_deposit")).unwrap_or_default();
        let fee = money(event, "transfer_fee").or(money(event, "fee")).unwrap_or_default();
        let (kind, fee, description) = match name {
            "AccountCreated" => {
                self.user_id = text(event, "user_id").unwrap();
                self.kind = text(event, "account_type").unwrap();
                self.currency = text(event, "currency").unwrap();
                self.status = "ACTIVE";
                self.created_at = micros(event);
                self.deposits += amount;
                ("CREDIT", fee, Some("Opening deposit".to_owned()))
            }
            "MoneyDeposited" => {
                self.deposits += amount;
                ("CREDIT", fee, Some(described("Deposit", event)))
            }
            "MoneyWithdrawn" => {
                self.withdrawals += amount;
                self.fees += fee;
                ("DEBIT", fee, Some(described("Withdrawal", event)))
            }
            "MoneyTransferred" => {
                self.transfers_out += amount;
                self.pending_out += amount;
                self.fees += fee;
                let to = text(event, "to_account_id").unwrap();
                ("TRANSFER_OUT", fee, Some(format!("Transfer to {to}")))
            }
            "MoneyReceived" => {
                self.transfers_in += amount;
                let from = text(event, "from_account_id").unwrap();
                ("TRANSFER_IN", fee, Some(format!("Transfer from {from}")))
            }
            "TransferReversed" => {
                self.transfers_out -= amount;
                self.pending_out -= amount;
                self.fees -= fee;
                ("REVERSAL", -fee, None)
            }
            "EntryCorrected" => ("CORRECTION", fee, None),
            "TransferSettled" => {
                self.pending_out -= amount;
                return None;
            }
            "AccountFrozen" => return self.becomes("FROZEN"),
            "AccountUnfrozen" => return self.becomes("ACTIVE"),
            "AccountClosed" => return self.becomes("CLOSED"),
            other => panic!("no event of an account: {other}"),
        };
        self.balance = money(event, "balance_after").unwrap_or(amount);
        self.moved_at = micros(event);
        let id = event.header("ce_id").unwrap().to_owned();
        self.transactions.push(id.clone());
        let counterparty = text(event, "to_account_id").or(text(event, "from_account_id"));
        Some(row([
            ("transaction_id", Some(id)),
            ("account_id", Some(event.account.clone())),
            ("event_type", Some(name.to_owned())),
            ("type", Some(kind.to_owned())),
            ("amount", number(amount)),
            ("fee", number(fee)),
            ("currency", Some(self.currency.clone())),
            ("occurred_at", Some(self.moved_at.to_string())),
            ("description", description),
            ("reference", text(event, "reference")),
            ("counterparty_account", counterparty),
            ("balance_after", number(self.balance)),
            ("version", Some(self.version.to_string())),
        ]))
    }

    fn becomes(&mut self, status: &'static str) -> Option<Row> {
        self.status = status;
        None
    }

    fn row(self, id: &str) -> Row {
        let active = self.status == "ACTIVE";
        let newest: Vec<_> = self.transactions.iter().rev().take(10).cloned().collect();
        row([
            ("account_id", Some(id.to_owned())),
            ("user_id", Some(self.user_id)),
            ("account_type", Some(self.kind)),
            ("currency", Some(self.currency)),
            ("status", Some(self.status.to_owned())),
            ("current_balance", number(self.balance)),
            ("available_balance", number(if active { self.balance } else { Decimal::ZERO })),
            ("pending_out", number(self.pending_out)),
            ("created_at", Some(self.created_at.to_string())),
            ("last_transaction_at", Some(self.moved_at.to_string())),
            ("transaction_count_30_days", Some(self.transactions.len().to_string())),
            ("total_deposits", number(self.deposits)),
            ("total_withdrawals", number(self.withdrawals)),
            ("total_transfers_in", number(self.transfers_in)),
            ("total_transfers_out", number(self.transfers_out)),
            ("total_fees", number(self.fees)),
            ("is_active", Some(if active { "t" } else { "f" }.to_owned())),
            ("recent_transaction_ids", Some(newest.join(","))),
            ("version", Some(self.version.to_string())),
        ])
    }
}

/// A transfer as its saga tells it.
#[derive(Default)]
struct Transfer {
    /// What its first event says.
    begun: BTreeMap<&'static str, Option<String>>,
    state: &'static str,
    reason: Option<String>,
    /// Why it is given back, also while it is parked for another reason.
    refusal: Option<String>,
    deadline: Option<i64>,
    ended_at: Option<i64>,
    version: u64,
}

impl Transfer {
    fn take(&mut self, event: &Event) {
        self.version += 1;
        assert_eq!(event.sequence, self.version, "{event:?}: sequences are dense");
        let time = |field: &str| event.message.fields[field].as_i64();
        self.deadline = time("deadline").or(time("retry_at"));
        match event.short_name() {
            "TransferStarted" => {
                self.state = "PENDING";
                for name in ["from_account_id", "to_account_id", "currency"] {
                    self.begun.insert(name, text(event, name));
                }
                for name in ["amount", "fee"] {
                    self.begun.insert(name, number(money(event, name).unwrap()));
                }
                self.begun.insert("created_at", Some(micros(event).to_string()));
            }
            "TransferReceived" => self.reason = None,
            "ReversalStarted" => {
                self.refusal = text(event, "reason");
                self.reason.clone_from(&self.refusal);
            }
            "StepRepeated" => self.reason.clone_from(&self.refusal),
            "StepFailed" => {}
            "TransferParked" => {
                let (step, why) = (text(event, "step").unwrap(), text(event, "reason").unwrap());
                self.reason = Some(format!("parked at {step}: {why}"));
            }
            "TransferCompleted" => self.end("COMPLETED", None, event),
            "TransferReversed" => self.end("REVERSED", text(event, "reason"), event),
            other => panic!("no event of a transfer: {other}"),
        }
    }

    fn end(&mut self, state: &'static str, reason: Option<String>, event: &Event) {
        (self.state, self.reason, self.ended_at) = (state, reason, Some(micros(event)));
    }

    fn row(self, id: &str) -> Row {
        let mut row = row([
            ("transfer_id", Some(id.to_owned())),
            ("state", Some(self.state.to_owned())),
            ("reason", self.reason),
            ("deadline", self.deadline.map(|at| at.to_string())),
            ("ended_at", self.ended_at.map(|at| at.to_string())),
            ("version", Some(self.version.to_string())),
        ]);
        row.extend(self.begun.into_iter().map(|(name, value)| (name.to_owned(), value)));
        row
    }
}

/// Whose event it is, as topics are called: `account-opening` of its record's name.
fn aggregate(event: &Event) -> String {
    event.message.name.split('.').nth(2).expect("a full name").replace('_', "-")
}

/// A row of `millrace.event`.
fn event_row(event: &Event) -> Row {
    let amount = money(event, "amount").or(money(event, "initial_deposit"));
    let header = |name: &str| Some(event.header(name).unwrap_or_default().to_owned());
    let place = event.message.record.place;
    row([
        ("domain", Some("banking".to_owned())),
        ("aggregate", Some(aggregate(event))),
        ("aggregate_id", Some(event.account.clone())),
        ("sequence", Some(event.sequence.to_string())),
        ("event_id", header("ce_id")),
        ("event_type", Some(event.short_name().to_owned())),
        ("schema_version", header("schema_version")),
        ("occurred_at", Some(micros(event).to_string())),
        ("user_id", text(event, "user_id")),
        ("amount", number(amount.unwrap_or_default())),
        ("currency", amount.map_or(Some(String::new()), |_| text(event, "currency"))),
        ("correlation_id", header("correlation_id")),
        ("causation_id", header("causation_id")),
        ("command_id", header("command_id")),
        ("kafka_partition", Some(place.partition.to_string())),
        ("kafka_offset", Some(place.offset.to_string())),
        ("payload", Some(payload(&event.message.fields))),
    ])
}

/// A payload without nulls, its decimals without trailing zeros. A decimal must be a string.
pub(crate) fn payload(fields: &Value) -> String {
    let fields = fields.as_object().expect("an object").iter();
    let told = fields.filter(|(_, value)| !value.is_null()).map(|(name, value)| {
        let value = match value.as_str() {
            Some(text) if MONEY.contains(&name.as_str()) => Value::String(plain(text)),
            _ => value.clone(),
        };
        (name.clone(), value)
    });
    Value::Object(told.collect::<Map<_, _>>()).to_string()
}

fn row<const N: usize>(columns: [(&str, Option<String>); N]) -> Row {
    columns.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

fn number(amount: Decimal) -> Option<String> {
    Some(plain(&amount.to_string()))
}

pub(crate) fn money(event: &Event, field: &str) -> Option<Decimal> {
    let text = event.message.text(field)?;
    Some(Decimal::from_str(text).unwrap())
}

fn text(event: &Event, field: &str) -> Option<String> {
    event.message.text(field).map(str::to_owned)
}

/// When the event happened, in microseconds.
pub(crate) fn micros(event: &Event) -> i64 {
    let time = event.header("ce_time").expect("ce_time");
    DateTime::parse_from_rfc3339(time).unwrap().timestamp_micros()
}

fn described(what: &str, event: &Event) -> String {
    match event.message.text("reference") {
        Some(reference) => format!("{what} - {reference}"),
        None => what.to_owned(),
    }
}
