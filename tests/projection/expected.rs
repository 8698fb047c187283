//! What the read models must show: a fold of the log by code of its own, and the comparison.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use millrace::domain::banking::account::Event;
use millrace::domain::money::Amount;
use millrace::kernel::time::Timestamp;
use millrace::read_model::banking::{account_summary, account_transaction};
use rust_decimal::Decimal;

use crate::bank::Written;
use crate::stack::Stack;

#[derive(Clone, Debug, Default, PartialEq)]
struct Summary {
    user_id: String,
    account_type: String,
    currency: String,
    status: &'static str,
    balance: Decimal,
    pending_out: Decimal,
    created_at: DateTime<Utc>,
    last_transaction_at: Option<DateTime<Utc>>,
    recent: i64,
    /// Deposits, withdrawals, transfers in and out, fees.
    totals: [Decimal; 5],
    transaction_ids: Vec<String>,
    version: i64,
    updated_at: DateTime<Utc>,
}

fn d(amount: Amount) -> Decimal {
    amount.decimal()
}

impl Summary {
    fn take(&mut self, written: &Written) {
        let at = written.at.to_chrono();
        let event = &written.event;
        self.version += 1;
        self.updated_at = at;
        self.user_id = event.user_id().to_owned();
        self.currency = event.currency().as_str().to_owned();
        let balance = match event {
            Event::AccountCreated(event) => {
                self.status = "ACTIVE";
                self.account_type = event.account_type.as_str().to_owned();
                self.created_at = at;
                self.totals[0] += d(event.initial_deposit);
                Some(event.initial_deposit)
            }
            Event::MoneyDeposited(event) => {
                self.totals[0] += d(event.amount);
                Some(event.balance_after)
            }
            Event::MoneyWithdrawn(event) => {
                self.totals[1] += d(event.amount);
                self.totals[4] += d(event.fee);
                Some(event.balance_after)
            }
            Event::MoneyReceived(event) => {
                self.totals[2] += d(event.amount);
                Some(event.balance_after)
            }
            Event::MoneyTransferred(event) => {
                self.totals[3] += d(event.amount);
                self.totals[4] += d(event.transfer_fee);
                self.pending_out += d(event.amount);
                Some(event.balance_after)
            }
            Event::TransferReversed(event) => {
                self.totals[3] -= d(event.amount);
                self.totals[4] -= d(event.transfer_fee);
                self.pending_out -= d(event.amount);
                Some(event.balance_after)
            }
            Event::TransferSettled(event) => {
                self.pending_out -= d(event.amount);
                None
            }
            Event::EntryCorrected(event) => Some(event.balance_after),
            Event::AccountFrozen(_) => {
                self.status = "FROZEN";
                None
            }
            Event::AccountUnfrozen(_) => {
                self.status = "ACTIVE";
                None
            }
            Event::AccountClosed(_) => {
                self.status = "CLOSED";
                None
            }
        };
        if let Some(balance) = balance {
            self.balance = d(balance);
            self.last_transaction_at = Some(at);
            self.recent +=
                i64::from(written.at > millrace::clock::now().plus_seconds(-30 * 86_400));
            self.transaction_ids.insert(0, written.event_id.to_string());
        }
    }
}

fn fold(log: &[Written]) -> BTreeMap<String, Summary> {
    let mut summaries: BTreeMap<String, Summary> = BTreeMap::new();
    for written in log {
        summaries.entry(written.account_id.clone()).or_default().take(written);
    }
    summaries
}

/// Every event that moves money, as a line.
fn movements(log: &[Written]) -> Vec<String> {
    let words = |what: &str, words: &Option<String>| match words {
        Some(words) => format!("{what} - {words}"),
        None => what.to_owned(),
    };
    let line = |written: &Written| {
        let (kind, fee, balance, text) = match &written.event {
            Event::AccountCreated(event) => {
                ("CREDIT", Amount::ZERO, event.initial_deposit, "Opening deposit".to_owned())
            }
            Event::MoneyDeposited(event) => {
                ("CREDIT", Amount::ZERO, event.balance_after, words("Deposit", &event.reference))
            }
            Event::MoneyWithdrawn(event) => {
                ("DEBIT", event.fee, event.balance_after, words("Withdrawal", &event.reference))
            }
            Event::MoneyTransferred(event) => {
                let text = format!("Transfer to {}", event.to_account_id);
                ("TRANSFER_OUT", event.transfer_fee, event.balance_after, text)
            }
            Event::MoneyReceived(event) => {
                let text = format!("Transfer from {}", event.from_account_id);
                ("TRANSFER_IN", Amount::ZERO, event.balance_after, text)
            }
            Event::TransferReversed(event) => {
                let fee = event.transfer_fee.negated();
                ("REVERSAL", fee, event.balance_after, words("Transfer reversed", &event.reason))
            }
            Event::EntryCorrected(event) => {
                let text = words("Correction", &event.reason);
                ("CORRECTION", Amount::ZERO, event.balance_after, text)
            }
            Event::TransferSettled(_)
            | Event::AccountFrozen(_)
            | Event::AccountUnfrozen(_)
            | Event::AccountClosed(_) => return None,
        };
        let amount = d(written.event.amount()?).normalize();
        let (fee, balance) = (d(fee).normalize(), d(balance).normalize());
        let Written { account_id, sequence, event_id, at, .. } = written;
        Some(format!(
            "{account_id} {sequence:06} {event_id} {} {kind} {amount} {fee} {balance} {text}",
            at.to_rfc3339()
        ))
    };
    let mut lines: Vec<String> = log.iter().filter_map(line).collect();
    lines.sort();
    lines
}

/// Compares both Postgres tables with a fold of the log.
pub(crate) async fn assert_postgres(stack: &Stack, log: &[Written]) {
    let client = stack.database().client().await.unwrap();
    let domain = stack.config.namespace.underscored("banking");
    let expected = fold(log);
    for (account_id, expected) in &expected {
        let found = account_summary::find(&client, &domain, account_id).await.unwrap();
        let found = found.unwrap_or_else(|| panic!("{account_id} has no row"));
        let available = if expected.status == "ACTIVE" { expected.balance } else { Decimal::ZERO };
        assert_eq!(found.available_balance, available, "{account_id}");
        assert_eq!(found.is_active, expected.status == "ACTIVE", "{account_id}");
        let recent = expected.transaction_ids.iter().take(10).cloned().collect::<Vec<_>>();
        assert_eq!(found.recent_transaction_ids, recent, "{account_id}");
        let summary = Summary {
            user_id: found.user_id,
            account_type: found.account_type,
            currency: found.currency,
            status: expected.status,
            balance: found.current_balance,
            pending_out: found.pending_out,
            created_at: found.created_at,
            last_transaction_at: found.last_transaction_at,
            recent: found.transaction_count_30_days,
            totals: [
                found.total_deposits,
                found.total_withdrawals,
                found.total_transfers_in,
                found.total_transfers_out,
                found.total_fees,
            ],
            transaction_ids: expected.transaction_ids.clone(),
            version: found.version,
            updated_at: found.updated_at,
        };
        assert_eq!(found.status, expected.status, "{account_id}");
        assert_eq!(&summary, expected, "{account_id}");
    }
    let count = format!("SELECT count(*) FROM {domain}.account_summary");
    let count: i64 = client.query_one(&count, &[]).await.unwrap().get(0);
    assert_eq!(usize::try_from(count).unwrap(), expected.len());

    let mut found = Vec::new();
    let period = (DateTime::UNIX_EPOCH, millrace::clock::now().to_chrono());
    for account_id in expected.keys() {
        for page in 1.. {
            let page =
                account_transaction::list(&client, &domain, account_id, period, page, 200).await;
            let page = page.unwrap().data;
            if page.is_empty() {
                break;
            }
            found.extend(page.into_iter().map(|row| {
                let at = Timestamp(row.occurred_at.timestamp_micros()).to_rfc3339();
                let (amount, fee) = (row.amount.normalize(), row.fee.normalize());
                let balance = row.balance_after.normalize();
                format!(
                    "{} {:06} {} {at} {} {amount} {fee} {balance} {}",
                    row.account_id, row.version, row.transaction_id, row.kind, row.description
                )
            }));
        }
    }
    found.sort();
    assert_eq!(found, movements(log));
}

#[derive(clickhouse::Row, serde::Deserialize)]
struct EventRow {
    aggregate_id: String,
    sequence: u64,
    event_type: String,
    user_id: String,
    amount: String,
    currency: String,
    payload: String,
}

/// Compares ClickHouse's events and the panels' sums with the log.
pub(crate) async fn assert_clickhouse(stack: &Stack, log: &[Written]) {
    let database = stack.events();
    let name = database.name();
    let select = format!(
        "SELECT aggregate_id, sequence, event_type, user_id, toString(amount) AS amount, currency,
         payload FROM {name}.event
         WHERE domain = 'banking' AND aggregate = 'account' ORDER BY aggregate_id, sequence"
    );
    let rows: Vec<EventRow> = database.client().query(&select).fetch_all().await.unwrap();
    let mut sorted: Vec<&Written> = log.iter().collect();
    sorted.sort_by_key(|written| (written.account_id.clone(), written.sequence));
    assert_eq!(rows.len(), sorted.len());
    for (row, written) in rows.iter().zip(&sorted) {
        let event = &written.event;
        let place = format!("{} {}", written.account_id, written.sequence);
        assert_eq!(format!("{} {}", row.aggregate_id, row.sequence), place);
        assert_eq!(row.event_type, event.name(), "{place}");
        assert_eq!(row.user_id, event.user_id(), "{place}");
        let amount = event.amount().unwrap_or(Amount::ZERO);
        assert_eq!(Amount::parse(&row.amount), Ok(amount), "{place}");
        let currency = event.amount().map_or("", |_| event.currency().as_str().to_owned().leak());
        assert_eq!(row.currency, currency, "{place}");
        assert_eq!(row.payload, serde_json::to_string(event).unwrap(), "{place}");
    }

    let mut sums = [Decimal::ZERO; 4];
    for summary in fold(log).values() {
        for (sum, total) in sums.iter_mut().zip([0, 1, 4]) {
            *sum += summary.totals[total];
        }
        sums[3] += summary.balance;
    }
    let panels = [
        ("deposits", "banking_deposits_withdrawals_day"),
        ("withdrawals", "banking_deposits_withdrawals_hour"),
        ("fees", "banking_fees_minute"),
        ("balance", "banking_balance_by_type"),
    ];
    for ((column, view), expected) in panels.into_iter().zip(sums) {
        let select = format!("SELECT toString(sum({column})) FROM {name}.{view}");
        let found: String = database.client().query(&select).fetch_one().await.unwrap();
        assert_eq!(found.parse::<Decimal>().unwrap(), expected, "{view}.{column}");
    }
}
