//! Snapshots: bytes -> what they say of a stream, and what its facts say instead.
//!
//! The record's form is read by structures of the auditor's own. A snapshot of another form is not
//! compared (a restore does not read it either); of an account's all of the state is, of other
//! aggregates' version and time.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_bytes::ByteBuf;

use super::Aggregate;
use crate::audit::cell::Cell;
use crate::audit::fact::{Fact, units};

/// The form of the record that is read here.
const FORM: u8 = 2;
/// The form of an account's state that is read here.
const ACCOUNT_STATE: u16 = 2;

/// How long a received transfer is remembered: a day, seven, and one of slack.
const REMEMBERED_MICROS: i64 = 9 * 86_400 * 1_000_000;

/// What a snapshot says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// How many events it contains.
    pub version: u64,
    /// When the last of them happened.
    pub last_time: i64,
    /// The state, if it is one that is read here.
    pub state: Option<Box<State>>,
}

/// An account's state, field by field.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct State {
    status: Status,
    account_id: String,
    user_id: String,
    slot_id: Option<String>,
    account_type: Type,
    currency: String,
    #[serde(deserialize_with = "money")]
    balance: i128,
    #[serde(deserialize_with = "money")]
    under_way_total: i128,
    under_way: BTreeMap<String, UnderWay>,
    received: BTreeMap<String, i64>,
    received_by_time: BTreeMap<(i64, String), ()>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
enum Status {
    #[default]
    Unopened,
    Active,
    Frozen,
    Closed,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
enum Type {
    #[default]
    Checking,
    Savings,
    Business,
    Investment,
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
struct UnderWay {
    to_account_id: String,
    #[serde(deserialize_with = "money")]
    amount: i128,
    #[serde(deserialize_with = "money")]
    fee: i128,
}

fn money<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<i128, D::Error> {
    let bytes = ByteBuf::deserialize(deserializer)?;
    units(&bytes).ok_or_else(|| serde::de::Error::custom("no money"))
}

/// Reads a snapshot; `None` if it is of a form that is not compared.
///
/// # Errors
/// It is of this form, but damaged.
pub fn read(aggregate: Aggregate, bytes: &[u8]) -> Result<Option<Snapshot>, String> {
    let Some(([FORM, schema @ ..], body)) = bytes.split_first_chunk::<3>() else {
        return Ok(None);
    };
    let damaged = |error: postcard::Error| error.to_string();
    let ((version, last_time), rest) =
        postcard::take_from_bytes::<(u64, i64)>(body).map_err(damaged)?;
    let mut snapshot = Snapshot { version, last_time, state: None };
    if aggregate == Aggregate::Account && u16::from_be_bytes(*schema) == ACCOUNT_STATE {
        let (state, rest) = postcard::take_from_bytes::<State>(rest).map_err(damaged)?;
        if !rest.is_empty() {
            return Err(format!("{} bytes are left over", rest.len()));
        }
        snapshot.state = Some(Box::new(state));
    }
    Ok(Some(snapshot))
}

impl Snapshot {
    /// Starts with nothing, for an aggregate.
    #[must_use]
    pub fn new(aggregate: Aggregate) -> Self {
        let state = (aggregate == Aggregate::Account).then(Box::default);
        Self { version: 0, last_time: 0, state }
    }

    /// Takes the next event in.
    pub fn take(&mut self, fact: &Fact) {
        self.version = fact.sequence;
        self.last_time = fact.at;
        if let Some(state) = &mut self.state {
            state.take(fact);
        }
    }

    /// Where this one, made of the facts, and one that was found say something else: column,
    /// expected, found.
    #[must_use]
    pub fn compare(&self, found: &Self) -> Vec<(&'static str, Cell, Cell)> {
        let mut all = vec![
            ("version", Cell::count(self.version), Cell::count(found.version)),
            ("last_time", Cell::Moment(self.last_time), Cell::Moment(found.last_time)),
        ];
        if let (Some(expected), Some(found)) = (&self.state, &found.state) {
            let columns = expected.cells().into_iter().zip(found.cells());
            all.extend(columns.map(|((name, expected), (_, found))| (name, expected, found)));
        }
        all.retain(|(_, expected, found)| expected != found);
        all
    }
}

impl State {
    fn take(&mut self, fact: &Fact) {
        let own = |name: &str| fact.text(name).unwrap_or_default().to_owned();
        let money = |name: &str| fact.money(name).unwrap_or_default();
        if let Some(balance) = fact.money("balance_after") {
            self.balance = balance;
        }
        match fact.name.as_str() {
            "AccountCreated" => {
                self.status = Status::Active;
                self.account_id = own("account_id");
                self.user_id = own("user_id");
                self.slot_id = fact.text("slot_id").map(str::to_owned);
                self.account_type = match fact.text("account_type") {
                    Some("SAVINGS") => Type::Savings,
                    Some("BUSINESS") => Type::Business,
                    Some("INVESTMENT") => Type::Investment,
                    _ => Type::Checking,
                };
                self.currency = own("currency");
                self.balance = money("initial_deposit");
            }
            "MoneyTransferred" => {
                let (amount, fee) = (money("amount"), money("transfer_fee"));
                let sent = UnderWay { to_account_id: own("to_account_id"), amount, fee };
                self.under_way.insert(own("transfer_id"), sent);
            }
            "TransferReversed" | "TransferSettled" => {
                self.under_way.remove(&own("transfer_id"));
            }
            "MoneyReceived" => {
                self.received.retain(|_, until| *until >= fact.at);
                self.received.insert(own("transfer_id"), fact.at + REMEMBERED_MICROS);
            }
            "AccountFrozen" => self.status = Status::Frozen,
            "AccountUnfrozen" => self.status = Status::Active,
            "AccountClosed" => self.status = Status::Closed,
            _ => {}
        }
        self.under_way_total = self.under_way.values().map(|sent| sent.amount + sent.fee).sum();
        self.received_by_time =
            self.received.iter().map(|(id, until)| ((*until, id.clone()), ())).collect();
    }

    fn cells(&self) -> Vec<(&'static str, Cell)> {
        let text = |text: &str| Cell::Text(text.to_owned());
        vec![
            ("status", Cell::Text(format!("{:?}", self.status))),
            ("account_id", text(&self.account_id)),
            ("user_id", text(&self.user_id)),
            ("slot_id", Cell::text(self.slot_id.as_deref())),
            ("account_type", Cell::Text(format!("{:?}", self.account_type))),
            ("currency", text(&self.currency)),
            ("balance", Cell::Money(self.balance)),
            ("under_way_total", Cell::Money(self.under_way_total)),
            ("under_way", Cell::Text(format!("{:?}", self.under_way))),
            ("received", Cell::Text(format!("{:?}", self.received))),
            ("received_by_time", Cell::Text(format!("{:?}", self.received_by_time.keys()))),
        ]
    }
}
