//! One row for each event that moves money.

use chrono::{DateTime, Utc};
use rust_decimal::Decimal;
use tokio_postgres::{Client, Row, Statement, Transaction};
use uuid::Uuid;

use super::numeric;
use crate::domain::banking::account::Event;
use crate::domain::money::Amount;
use crate::kernel::projection::{Head, Projection};
use crate::read_model::store::Source;
use crate::read_model::store::generation::Generation;

/// The table of one generation.
pub const TABLE: &str = include_str!("account_transaction.sql");

/// The view that users read.
pub const VIEW: &str = include_str!("account_transaction.view.sql");

/// The rows of a batch, one array a column.
#[derive(Debug, Default)]
pub struct Transactions {
    account_id: Vec<String>,
    occurred_at: Vec<DateTime<Utc>>,
    version: Vec<i64>,
    transaction_id: Vec<Uuid>,
    event_type: Vec<&'static str>,
    kind: Vec<&'static str>,
    amount: Vec<Decimal>,
    fee: Vec<Decimal>,
    currency: Vec<String>,
    description: Vec<String>,
    reference: Vec<Option<String>>,
    counterparty: Vec<Option<String>>,
    balance_after: Vec<Decimal>,
}

/// What one event moves.
struct Movement<'a> {
    kind: &'static str,
    amount: Amount,
    fee: Amount,
    balance_after: Amount,
    description: String,
    reference: Option<&'a String>,
    counterparty: Option<&'a String>,
}

fn movement(event: &Event) -> Option<Movement<'_>> {
    let moved = |kind, amount, balance_after, description| Movement {
        kind,
        amount,
        fee: Amount::ZERO,
        balance_after,
        description,
        reference: None,
        counterparty: None,
    };
    let movement = match event {
        Event::AccountCreated(event) => {
            let amount = event.initial_deposit;
            moved("CREDIT", amount, amount, "Opening deposit".to_owned())
        }
        Event::MoneyDeposited(event) => Movement {
            reference: event.reference.as_ref(),
            ..moved(
                "CREDIT",
                event.amount,
                event.balance_after,
                with_words("Deposit", event.reference.as_deref()),
            )
        },
        Event::MoneyWithdrawn(event) => Movement {
            fee: event.fee,
            reference: event.reference.as_ref(),
            ..moved(
                "DEBIT",
                event.amount,
                event.balance_after,
                with_words("Withdrawal", event.reference.as_deref()),
            )
        },
        Event::MoneyTransferred(event) => Movement {
            fee: event.transfer_fee,
            reference: event.reference.as_ref(),
            counterparty: Some(&event.to_account_id),
            ..moved(
                "TRANSFER_OUT",
                event.amount,
                event.balance_after,
                format!("Transfer to {}", event.to_account_id),
            )
        },
        Event::MoneyReceived(event) => Movement {
            reference: event.reference.as_ref(),
            counterparty: Some(&event.from_account_id),
            ..moved(
                "TRANSFER_IN",
                event.amount,
                event.balance_after,
                format!("Transfer from {}", event.from_account_id),
            )
        },
        Event::TransferReversed(event) => Movement {
            fee: event.transfer_fee.negated(),
            ..moved(
                "REVERSAL",
                event.amount,
                event.balance_after,
                with_words("Transfer reversed", event.reason.as_deref()),
            )
        },
        Event::EntryCorrected(event) => moved(
            "CORRECTION",
            event.amount,
            event.balance_after,
            with_words("Correction", event.reason.as_deref()),
        ),
        Event::TransferSettled(_)
        | Event::AccountFrozen(_)
        | Event::AccountUnfrozen(_)
        | Event::AccountClosed(_) => return None,
    };
    Some(movement)
}

fn with_words(what: &str, words: Option<&str>) -> String {
    match words.filter(|words| !words.is_empty()) {
        Some(words) => format!("{what} - {words}"),
        None => what.to_owned(),
    }
}

impl Projection for Transactions {
    type Event = Event;

    fn project(&mut self, head: &Head<'_>, event: Option<&Event>) {
        let Some(event) = event else { return };
        let Some(moved) = movement(event) else { return };
        let currency = event.currency();
        self.account_id.push(head.stream.to_owned());
        self.occurred_at.push(head.occurred_at.to_chrono());
        self.version.push(head.sequence.cast_signed());
        self.transaction_id.push(head.event_id);
        self.event_type.push(event.name());
        self.kind.push(moved.kind);
        self.amount.push(numeric(moved.amount, currency));
        self.fee.push(numeric(moved.fee, currency));
        self.currency.push(currency.as_str().to_owned());
        self.description.push(moved.description);
        self.reference.push(moved.reference.cloned());
        self.counterparty.push(moved.counterparty.cloned());
        self.balance_after.push(numeric(moved.balance_after, currency));
    }
}

impl Transactions {
    /// Writes the rows.
    pub(super) async fn write(
        &self,
        transaction: &Transaction<'_>,
        insert: &Statement,
        source: &Source,
    ) -> Result<(), tokio_postgres::Error> {
        if self.version.is_empty() {
            return Ok(());
        }
        transaction
            .execute(
                insert,
                &[
                    &source.partition,
                    &self.account_id,
                    &self.occurred_at,
                    &self.version,
                    &self.transaction_id,
                    &self.event_type,
                    &self.kind,
                    &self.amount,
                    &self.fee,
                    &self.currency,
                    &self.description,
                    &self.reference,
                    &self.counterparty,
                    &self.balance_after,
                ],
            )
            .await?;
        Ok(())
    }
}

/// The statement that writes a batch's rows. A row that is there already is left alone: the
/// account's own row says, in the same transaction, whether the batch may be written at all.
#[must_use]
pub fn insert(generation: &Generation) -> String {
    generation.fill(
        "INSERT INTO {schema}.account_transaction (
            kafka_partition, account_id, occurred_at, version, transaction_id, event_type, type,
            amount, fee, currency, description, reference, counterparty_account, balance_after)
         SELECT $1::integer, c.* FROM UNNEST(
            $2::text[], $3::timestamptz[], $4::bigint[], $5::uuid[], $6::text[], $7::text[],
            $8::numeric[], $9::numeric[], $10::text[], $11::text[], $12::text[], $13::text[],
            $14::numeric[]) AS c
         ON CONFLICT DO NOTHING",
    )
}

/// A transaction as users see it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the columns are described with the table")]
pub struct AccountTransaction {
    pub transaction_id: Uuid,
    pub account_id: String,
    pub event_type: String,
    pub kind: String,
    pub amount: Decimal,
    pub fee: Decimal,
    pub currency: String,
    pub occurred_at: DateTime<Utc>,
    pub description: String,
    pub reference: Option<String>,
    pub counterparty_account: Option<String>,
    pub balance_after: Decimal,
    pub version: i64,
}

/// Some of an account's transactions, newest first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page {
    /// The transactions.
    pub data: Vec<AccountTransaction>,
    /// How many there are in the period.
    pub total_count: i64,
}

/// Reads one page of the transactions in a period: `page` from 1, `size` at most 200.
///
/// # Errors
/// The statement fails.
pub async fn list(
    client: &Client,
    domain_schema: &str,
    account_id: &str,
    period: (DateTime<Utc>, DateTime<Utc>),
    page: u32,
    size: u32,
) -> Result<Page, tokio_postgres::Error> {
    let size = i64::from(size.clamp(1, 200));
    let skipped = i64::from(page.max(1) - 1) * size;
    let filter = format!(
        "FROM {domain_schema}.account_transaction
         WHERE account_id = $1 AND occurred_at >= $2 AND occurred_at <= $3"
    );
    let select =
        format!("SELECT * {filter} ORDER BY occurred_at DESC, version DESC LIMIT $4 OFFSET $5");
    let count = format!("SELECT count(*) AS total {filter}");
    let (from, to) = period;
    let page_values: [&(dyn tokio_postgres::types::ToSql + Sync); 5] =
        [&account_id, &from, &to, &size, &skipped];
    let (rows, total) = futures::try_join!(
        client.query(&select, &page_values),
        client.query_one(&count, &page_values[..3]),
    )?;
    Ok(Page {
        data: rows.iter().map(read).collect::<Result<_, _>>()?,
        total_count: total.try_get("total")?,
    })
}

fn read(row: &Row) -> Result<AccountTransaction, tokio_postgres::Error> {
    Ok(AccountTransaction {
        transaction_id: row.try_get("transaction_id")?,
        account_id: row.try_get("account_id")?,
        event_type: row.try_get("event_type")?,
        kind: row.try_get("type")?,
        amount: row.try_get("amount")?,
        fee: row.try_get("fee")?,
        currency: row.try_get("currency")?,
        occurred_at: row.try_get("occurred_at")?,
        description: row.try_get("description")?,
        reference: row.try_get("reference")?,
        counterparty_account: row.try_get("counterparty_account")?,
        balance_after: row.try_get("balance_after")?,
        version: row.try_get("version")?,
    })
}
