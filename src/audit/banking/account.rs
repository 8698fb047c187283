//! Accounts: facts -> the row of `account_summary` and those of `account_transaction`, and what is
//! wrong with the facts themselves.
//!
//! One table says what each event does; everything else follows from its signs.

use std::collections::VecDeque;

use uuid::Uuid;

use super::Table;
use crate::audit::cell::{Cell, Row, money_text};
use crate::audit::fact::Fact;

/// The events that accounts have.
pub const EVENTS: [&str; 11] = [
    "AccountCreated",
    "MoneyDeposited",
    "MoneyWithdrawn",
    "MoneyTransferred",
    "MoneyReceived",
    "TransferReversed",
    "TransferSettled",
    "EntryCorrected",
    "AccountFrozen",
    "AccountUnfrozen",
    "AccountClosed",
];

/// One row an account; the last four columns are the view's.
pub const SUMMARY: Table = Table {
    name: "account_summary",
    id: "account_id",
    columns: &[
        "version",
        "first_version",
        "user_id",
        "account_type",
        "currency",
        "status",
        "current_balance",
        "pending_out",
        "total_deposits",
        "total_withdrawals",
        "total_transfers_in",
        "total_transfers_out",
        "total_fees",
        "created_at",
        "last_transaction_at",
        "updated_at",
        "available_balance",
        "is_active",
        "transaction_count_30_days",
        "recent_transaction_ids",
    ],
    own: 16,
};

/// One row for each event that moves money.
pub const TRANSACTION: Table = Table {
    name: "account_transaction",
    id: "account_id",
    columns: &[
        "version",
        "transaction_id",
        "event_type",
        "type",
        "amount",
        "fee",
        "currency",
        "occurred_at",
        "description",
        "reference",
        "counterparty_account",
        "balance_after",
    ],
    own: 12,
};

/// How many transactions the view names.
const RECENT_MAX: usize = 10;

/// What one event does.
struct Rule {
    event: &'static str,
    /// What its transaction is called; empty if it moves no money.
    kind: &'static str,
    /// What its description begins with.
    words: &'static str,
    /// The field that the description goes on with.
    more: &'static str,
    /// The field with its amount.
    amount: &'static str,
    /// Whether the amount is added to the balance (1), taken away (-1), or neither.
    sign: i128,
    /// The total that it counts in (see [`TOTALS`]) and whether it adds to it.
    total: Option<(usize, i128)>,
    /// Whether it puts money under way (1) or takes it off (-1).
    pending: i128,
    /// The field with its fee, and whether it is charged (1) or given back (-1).
    fee: Option<(&'static str, i128)>,
    /// The account's status afterwards.
    status: Option<&'static str>,
}

/// The totals, in the order of their columns.
const DEPOSITS: usize = 0;
const WITHDRAWALS: usize = 1;
const TRANSFERS_IN: usize = 2;
const TRANSFERS_OUT: usize = 3;
const TOTALS: usize = 4;

const NOTHING: Rule = Rule {
    event: "",
    kind: "",
    words: "",
    more: "",
    amount: "amount",
    sign: 0,
    total: None,
    pending: 0,
    fee: None,
    status: None,
};

const RULES: [Rule; 11] = [
    Rule {
        event: "AccountCreated",
        kind: "CREDIT",
        words: "Opening deposit",
        amount: "initial_deposit",
        sign: 1,
        total: Some((DEPOSITS, 1)),
        status: Some("ACTIVE"),
        ..NOTHING
    },
    Rule {
        event: "MoneyDeposited",
        kind: "CREDIT",
        words: "Deposit",
        more: "reference",
        sign: 1,
        total: Some((DEPOSITS, 1)),
        ..NOTHING
    },
    Rule {
        event: "MoneyWithdrawn",
        kind: "DEBIT",
        words: "Withdrawal",
        more: "reference",
        sign: -1,
        total: Some((WITHDRAWALS, 1)),
        fee: Some(("fee", 1)),
        ..NOTHING
    },
    Rule {
        event: "MoneyTransferred",
        kind: "TRANSFER_OUT",
        words: "Transfer to ",
        more: "to_account_id",
        sign: -1,
        total: Some((TRANSFERS_OUT, 1)),
        pending: 1,
        fee: Some(("transfer_fee", 1)),
        ..NOTHING
    },
    Rule {
        event: "MoneyReceived",
        kind: "TRANSFER_IN",
        words: "Transfer from ",
        more: "from_account_id",
        sign: 1,
        total: Some((TRANSFERS_IN, 1)),
        ..NOTHING
    },
    Rule {
        event: "TransferReversed",
        kind: "REVERSAL",
        words: "Transfer reversed",
        more: "reason",
        sign: 1,
        total: Some((TRANSFERS_OUT, -1)),
        pending: -1,
        fee: Some(("transfer_fee", -1)),
        ..NOTHING
    },
    Rule { event: "TransferSettled", pending: -1, ..NOTHING },
    Rule {
        event: "EntryCorrected",
        kind: "CORRECTION",
        words: "Correction",
        more: "reason",
        sign: 1,
        ..NOTHING
    },
    Rule { event: "AccountFrozen", status: Some("FROZEN"), ..NOTHING },
    Rule { event: "AccountUnfrozen", status: Some("ACTIVE"), ..NOTHING },
    Rule { event: "AccountClosed", status: Some("CLOSED"), ..NOTHING },
];

fn rule(event: &str) -> Option<&'static Rule> {
    RULES.iter().find(|rule| rule.event == event)
}

/// An account, added up.
#[derive(Clone, Debug, Default)]
pub struct Account {
    /// How many events it has.
    pub version: u64,
    first_version: u64,
    user_id: Option<String>,
    account_type: Option<String>,
    currency: Option<String>,
    status: Option<&'static str>,
    balance: Option<i128>,
    pending: i128,
    totals: [i128; TOTALS],
    /// Fees charged and not given back.
    pub fees: i128,
    created_at: Option<i64>,
    last_transaction_at: Option<i64>,
    updated_at: i64,
    /// Where the last 30 days begin, and how often money has moved since.
    recent_from: i64,
    moved: u64,
    recent: VecDeque<Uuid>,
}

impl Account {
    /// Starts with nothing; `recent_from` is where the last 30 days begin.
    #[must_use]
    pub fn new(recent_from: i64) -> Self {
        Self { recent_from, ..Self::default() }
    }

    /// Takes the next event in.
    pub fn take(&mut self, fact: &Fact) {
        if self.version == 0 {
            self.first_version = fact.sequence;
        }
        self.version = fact.sequence;
        self.updated_at = fact.at;
        let Some(rule) = rule(&fact.name) else { return };
        if self.user_id.is_none() {
            self.user_id = fact.text("user_id").map(str::to_owned);
            self.currency = fact.text("currency").map(str::to_owned);
        }
        let amount = fact.money(rule.amount).unwrap_or_default();
        if let Some((total, sign)) = rule.total {
            self.totals[total] += sign * amount;
        }
        self.pending += rule.pending * amount;
        self.fees += charged(rule, fact);
        if let Some(status) = rule.status {
            self.status = Some(status);
        }
        if rule.event == "AccountCreated" {
            self.account_type = fact.text("account_type").map(str::to_owned);
            self.created_at = Some(fact.at);
        }
        if !rule.kind.is_empty() {
            self.balance = Some(balance_after(rule, fact).unwrap_or_default());
            self.last_transaction_at = Some(fact.at);
            self.moved(fact);
        }
    }

    fn moved(&mut self, fact: &Fact) {
        self.moved += u64::from(fact.at > self.recent_from);
        self.recent.push_front(fact.event_id);
        self.recent.truncate(RECENT_MAX);
    }

    /// Its row.
    #[must_use]
    pub fn row(&self) -> Row {
        let money = |units: Option<i128>| units.map_or(Cell::Null, Cell::Money);
        let [deposits, withdrawals, transfers_in, transfers_out] = self.totals;
        let mut row = vec![
            Cell::count(self.version),
            Cell::count(self.first_version),
            Cell::text(self.user_id.as_deref()),
            Cell::text(self.account_type.as_deref()),
            Cell::text(self.currency.as_deref()),
            Cell::text(self.status),
            money(self.balance),
            Cell::Money(self.pending),
            Cell::Money(deposits),
            Cell::Money(withdrawals),
            Cell::Money(transfers_in),
            Cell::Money(transfers_out),
            Cell::Money(self.fees),
            Cell::moment(self.created_at),
            Cell::moment(self.last_transaction_at),
            Cell::Moment(self.updated_at),
        ];
        // The view hides a row that nothing is known of.
        if self.status.is_none() {
            row.extend(std::iter::repeat_n(Cell::Null, SUMMARY.columns.len() - SUMMARY.own));
            return row;
        }
        let is_active = self.status == Some("ACTIVE");
        let ids: Vec<String> = self.recent.iter().map(Uuid::to_string).collect();
        row.extend([
            if is_active { money(self.balance) } else { Cell::Money(0) },
            Cell::Flag(is_active),
            Cell::count(self.moved),
            Cell::Text(ids.join(",")),
        ]);
        row
    }

    /// Its currency, if it is known.
    #[must_use]
    pub fn currency(&self) -> Option<&str> {
        self.currency.as_deref().filter(|_| self.status.is_some())
    }

    /// What is wrong with the next event by the rules of money: column, expected, found.
    #[must_use]
    pub fn check(&self, fact: &Fact) -> Vec<(&'static str, String, String)> {
        let mut wrong = Vec::new();
        let Some(rule) = rule(&fact.name) else { return wrong };
        let amount = fact.money(rule.amount).unwrap_or_default();
        let due = match rule.event {
            "MoneyWithdrawn" => {
                let is_dear =
                    self.account_type.as_deref() == Some("SAVINGS") && amount > ones(1_000);
                Some(if is_dear { ones(5) } else { 0 })
            }
            "MoneyTransferred" => Some(if amount > ones(10_000) { ones(10) } else { ones(2) }),
            _ => None,
        };
        if let (Some(due), Some((field, _))) = (due, rule.fee) {
            let found = fact.money(field).unwrap_or_default();
            if found != due {
                wrong.push((field, money_text(due), money_text(found)));
            }
        }
        if let (false, Some(found)) = (rule.kind.is_empty(), fact.money("balance_after")) {
            let due = self.balance.unwrap_or_default() + rule.sign * amount - charged(rule, fact);
            if found != due {
                wrong.push(("balance_after", money_text(due), money_text(found)));
            }
        }
        wrong
    }
}

fn ones(number: i128) -> i128 {
    number * 100_000_000
}

fn charged(rule: &Rule, fact: &Fact) -> i128 {
    rule.fee.map_or(0, |(field, sign)| sign * fact.money(field).unwrap_or_default())
}

fn balance_after(rule: &Rule, fact: &Fact) -> Option<i128> {
    fact.money("balance_after").or_else(|| fact.money(rule.amount))
}

/// What an account's event is about: its money, what it charged, and the balance that it left.
#[must_use]
pub fn money_of(fact: &Fact) -> (Option<i128>, i128, Option<i128>) {
    let Some(rule) = rule(&fact.name) else { return (None, 0, None) };
    let balance = if rule.kind.is_empty() { None } else { balance_after(rule, fact) };
    (fact.money(rule.amount), charged(rule, fact), balance)
}

/// The transaction's row that an event makes, if it moves money.
#[must_use]
pub fn transaction(fact: &Fact) -> Option<Row> {
    let rule = rule(&fact.name).filter(|rule| !rule.kind.is_empty())?;
    let counterparty = fact.text("to_account_id").or_else(|| fact.text("from_account_id"));
    let more = fact.text(rule.more).filter(|text| !text.is_empty());
    let description = match more {
        Some(text) if rule.words.ends_with(' ') => format!("{}{text}", rule.words),
        Some(text) => format!("{} - {text}", rule.words),
        None => rule.words.to_owned(),
    };
    Some(vec![
        Cell::count(fact.sequence),
        Cell::Id(fact.event_id),
        Cell::Text(fact.name.clone()),
        Cell::Text(rule.kind.to_owned()),
        Cell::Money(fact.money(rule.amount).unwrap_or_default()),
        Cell::Money(charged(rule, fact)),
        Cell::text(fact.text("currency")),
        Cell::Moment(fact.at),
        Cell::Text(description),
        Cell::text(fact.text("reference")),
        Cell::text(counterparty),
        balance_after(rule, fact).map_or(Cell::Null, Cell::Money),
    ])
}
