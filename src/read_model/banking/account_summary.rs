//! One row an account: events -> sums, balance and status.

use chrono::{DateTime, Utc};
use hashbrown::HashMap;
use rust_decimal::Decimal;
use tokio_postgres::{Client, Row, Transaction};

use super::numeric;
use crate::domain::banking::account::Event;
use crate::domain::money::{Amount, Currency};
use crate::kernel::projection::{Head, Projection};
use crate::kernel::time::Timestamp;
use crate::read_model::store::Source;
use crate::read_model::store::fold::Versions;
use crate::read_model::store::generation::Generation;

/// The table of one generation.
pub const TABLE: &str = include_str!("account_summary.sql");

/// The view that users read, and the fees over it.
pub const VIEW: &str = include_str!("account_summary.view.sql");

/// What a batch changes about accounts.
#[derive(Debug, Default)]
pub struct Summaries {
    accounts: HashMap<String, Change>,
}

/// What a batch changes about one account.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Change {
    first_version: u64,
    version: u64,
    user_id: Option<String>,
    currency: Option<Currency>,
    account_type: Option<&'static str>,
    status: Option<&'static str>,
    balance: Option<Amount>,
    created_at: Option<Timestamp>,
    last_transaction_at: Option<Timestamp>,
    updated_at: Timestamp,
    pending_out: i128,
    deposits: i128,
    withdrawals: i128,
    transfers_in: i128,
    transfers_out: i128,
    fees: i128,
}

impl Change {
    fn money(&mut self, balance_after: Amount, at: Timestamp) {
        self.balance = Some(balance_after);
        self.last_transaction_at = Some(at);
    }

    fn take(&mut self, event: &Event, at: Timestamp) {
        match event {
            Event::AccountCreated(event) => {
                self.money(event.initial_deposit, at);
                self.account_type = Some(event.account_type.as_str());
                self.status = Some("ACTIVE");
                self.created_at = Some(at);
                self.deposits += event.initial_deposit.units();
            }
            Event::MoneyDeposited(event) => {
                self.money(event.balance_after, at);
                self.deposits += event.amount.units();
            }
            Event::MoneyWithdrawn(event) => {
                self.money(event.balance_after, at);
                self.withdrawals += event.amount.units();
                self.fees += event.fee.units();
            }
            Event::MoneyTransferred(event) => {
                self.money(event.balance_after, at);
                self.transfers_out += event.amount.units();
                self.pending_out += event.amount.units();
                self.fees += event.transfer_fee.units();
            }
            Event::MoneyReceived(event) => {
                self.money(event.balance_after, at);
                self.transfers_in += event.amount.units();
            }
            Event::TransferReversed(event) => {
                self.money(event.balance_after, at);
                self.transfers_out -= event.amount.units();
                self.pending_out -= event.amount.units();
                self.fees -= event.transfer_fee.units();
            }
            Event::TransferSettled(event) => self.pending_out -= event.amount.units(),
            Event::AccountFrozen(_) => self.status = Some("FROZEN"),
            Event::AccountUnfrozen(_) => self.status = Some("ACTIVE"),
            Event::AccountClosed(_) => self.status = Some("CLOSED"),
            Event::EntryCorrected(event) => self.money(event.balance_after, at),
        }
    }
}

impl Projection for Summaries {
    type Event = Event;

    fn project(&mut self, head: &Head<'_>, event: Option<&Event>) {
        let change = self.accounts.entry_ref(head.stream).or_default();
        if change.version == 0 {
            change.first_version = head.sequence;
        }
        change.version = head.sequence;
        change.updated_at = head.occurred_at;
        if let Some(event) = event {
            if change.user_id.is_none() {
                change.user_id = Some(event.user_id().to_owned());
                change.currency = Some(event.currency());
            }
            change.take(event, head.occurred_at);
        }
    }
}

/// The columns that are written, as one array each.
#[derive(Default)]
struct Columns<'a> {
    account_id: Vec<&'a str>,
    user_id: Vec<Option<&'a str>>,
    account_type: Vec<Option<&'a str>>,
    currency: Vec<Option<&'a str>>,
    status: Vec<Option<&'a str>>,
    balance: Vec<Option<Decimal>>,
    sums: [Vec<Decimal>; 6],
    created_at: Vec<Option<DateTime<Utc>>>,
    last_transaction_at: Vec<Option<DateTime<Utc>>>,
    first_version: Vec<i64>,
    version: Vec<i64>,
    updated_at: Vec<DateTime<Utc>>,
}

impl<'a> Columns<'a> {
    fn push(&mut self, account_id: &'a str, change: &'a Change) {
        let currency = change.currency.unwrap_or(Currency::USD);
        let time = |moment: Option<Timestamp>| moment.map(Timestamp::to_chrono);
        self.account_id.push(account_id);
        self.user_id.push(change.user_id.as_deref());
        self.account_type.push(change.account_type);
        self.currency.push(change.currency.as_ref().map(Currency::as_str));
        self.status.push(change.status);
        self.balance.push(change.balance.map(|balance| numeric(balance, currency)));
        let sums = [
            change.pending_out,
            change.deposits,
            change.withdrawals,
            change.transfers_in,
            change.transfers_out,
            change.fees,
        ];
        for (column, units) in self.sums.iter_mut().zip(sums) {
            // A batch's sums stay far below the 28 digits of one amount.
            let amount = Amount::from_units(units).unwrap_or(Amount::ZERO);
            column.push(numeric(amount, currency));
        }
        self.created_at.push(time(change.created_at));
        self.last_transaction_at.push(time(change.last_transaction_at));
        self.first_version.push(change.first_version.cast_signed());
        self.version.push(change.version.cast_signed());
        self.updated_at.push(change.updated_at.to_chrono());
    }
}

impl Summaries {
    /// Writes the changes; `false` if an account was not at the version that they follow on.
    pub(super) async fn write(
        &self,
        transaction: &Transaction<'_>,
        upsert: &tokio_postgres::Statement,
        source: &Source,
    ) -> Result<bool, tokio_postgres::Error> {
        // Sorted, so that two owners by mistake wait for each other instead of dead-locking.
        let mut sorted: Vec<(&String, &Change)> = self.accounts.iter().collect();
        sorted.sort_unstable_by_key(|(account_id, _)| *account_id);
        let mut columns = Columns::default();
        for (account_id, change) in &sorted {
            columns.push(account_id, change);
        }
        let [pending, deposits, withdrawals, transfers_in, transfers_out, fees] = &columns.sums;
        let row = transaction
            .query_one(
                upsert,
                &[
                    &source.partition,
                    &columns.account_id,
                    &columns.user_id,
                    &columns.account_type,
                    &columns.currency,
                    &columns.status,
                    &columns.balance,
                    pending,
                    &columns.created_at,
                    &columns.last_transaction_at,
                    deposits,
                    withdrawals,
                    transfers_in,
                    transfers_out,
                    fees,
                    &columns.first_version,
                    &columns.version,
                    &columns.updated_at,
                ],
            )
            .await?;
        let written = usize::try_from(row.get::<_, i64>("written")).ok();
        // A row that began with another event than its first was made of nothing: events before
        // it are missing, or stand in a row of another version.
        Ok(written == Some(sorted.len()) && row.get::<_, i64>("unfounded") == 0)
    }
}

/// The statement that writes a batch's changes and says how many rows took them.
#[must_use]
pub fn upsert(generation: &Generation) -> String {
    generation.fill(
        "WITH written AS (
            INSERT INTO {schema}.account_summary AS t (
                kafka_partition, account_id, user_id, account_type, currency, status,
                current_balance, pending_out, created_at, last_transaction_at, total_deposits,
                total_withdrawals, total_transfers_in, total_transfers_out, total_fees,
                first_version, version, updated_at)
            SELECT $1::integer, c.* FROM UNNEST(
                $2::text[], $3::text[], $4::text[], $5::text[], $6::text[], $7::numeric[],
                $8::numeric[], $9::timestamptz[], $10::timestamptz[], $11::numeric[],
                $12::numeric[], $13::numeric[], $14::numeric[], $15::numeric[], $16::bigint[],
                $17::bigint[], $18::timestamptz[]) AS c
            ON CONFLICT (account_id) DO UPDATE SET
                user_id = coalesce(t.user_id, excluded.user_id),
                account_type = coalesce(t.account_type, excluded.account_type),
                currency = coalesce(t.currency, excluded.currency),
                status = coalesce(excluded.status, t.status),
                current_balance = coalesce(excluded.current_balance, t.current_balance),
                pending_out = t.pending_out + excluded.pending_out,
                created_at = coalesce(t.created_at, excluded.created_at),
                last_transaction_at =
                    coalesce(excluded.last_transaction_at, t.last_transaction_at),
                total_deposits = t.total_deposits + excluded.total_deposits,
                total_withdrawals = t.total_withdrawals + excluded.total_withdrawals,
                total_transfers_in = t.total_transfers_in + excluded.total_transfers_in,
                total_transfers_out = t.total_transfers_out + excluded.total_transfers_out,
                total_fees = t.total_fees + excluded.total_fees,
                version = excluded.version,
                updated_at = excluded.updated_at
            WHERE t.version = excluded.first_version - 1
            RETURNING t.first_version
        )
        SELECT count(*) AS written, count(*) FILTER (WHERE first_version <> 1) AS unfounded
        FROM written",
    )
}

/// Reads accounts' versions and locks their rows.
pub(super) async fn versions(
    transaction: &Transaction<'_>,
    generation: &Generation,
    streams: &[&str],
) -> Result<Versions, tokio_postgres::Error> {
    let select = generation.fill(
        "SELECT account_id, version FROM {schema}.account_summary
         WHERE account_id = ANY($1) ORDER BY account_id FOR UPDATE",
    );
    let rows = transaction.query(&select, &[&streams]).await?;
    let version = |row: &Row| (row.get("account_id"), row.get::<_, i64>("version").cast_unsigned());
    Ok(rows.iter().map(version).collect())
}

/// An account as users see it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the columns are described with the view")]
pub struct AccountSummary {
    pub account_id: String,
    pub user_id: String,
    pub account_type: String,
    pub currency: String,
    pub status: String,
    pub current_balance: Decimal,
    pub available_balance: Decimal,
    pub pending_out: Decimal,
    pub created_at: DateTime<Utc>,
    pub last_transaction_at: Option<DateTime<Utc>>,
    pub transaction_count_30_days: i64,
    pub total_deposits: Decimal,
    pub total_withdrawals: Decimal,
    pub total_transfers_in: Decimal,
    pub total_transfers_out: Decimal,
    pub total_fees: Decimal,
    pub is_active: bool,
    pub recent_transaction_ids: Vec<String>,
    pub version: i64,
    pub updated_at: DateTime<Utc>,
}

/// Reads one account; `None` if there is none of that id.
///
/// # Errors
/// The statement fails.
pub async fn find(
    client: &Client,
    domain_schema: &str,
    account_id: &str,
) -> Result<Option<AccountSummary>, tokio_postgres::Error> {
    let select = format!("SELECT * FROM {domain_schema}.account_summary WHERE account_id = $1");
    let row = client.query_opt(&select, &[&account_id]).await?;
    row.as_ref().map(read).transpose()
}

fn read(row: &Row) -> Result<AccountSummary, tokio_postgres::Error> {
    Ok(AccountSummary {
        account_id: row.try_get("account_id")?,
        user_id: row.try_get("user_id")?,
        account_type: row.try_get("account_type")?,
        currency: row.try_get("currency")?,
        status: row.try_get("status")?,
        current_balance: row.try_get("current_balance")?,
        available_balance: row.try_get("available_balance")?,
        pending_out: row.try_get("pending_out")?,
        created_at: row.try_get("created_at")?,
        last_transaction_at: row.try_get("last_transaction_at")?,
        transaction_count_30_days: row.try_get("transaction_count_30_days")?,
        total_deposits: row.try_get("total_deposits")?,
        total_withdrawals: row.try_get("total_withdrawals")?,
        total_transfers_in: row.try_get("total_transfers_in")?,
        total_transfers_out: row.try_get("total_transfers_out")?,
        total_fees: row.try_get("total_fees")?,
        is_active: row.try_get("is_active")?,
        recent_transaction_ids: row.try_get("recent_transaction_ids")?,
        version: row.try_get("version")?,
        updated_at: row.try_get("updated_at")?,
    })
}
