//! Rows in Postgres: the projection over the backlog against plain `unnest` upserts of the same
//! rows into tables of the same form, prepared in memory beforehand.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};
use hashbrown::HashMap;
use rust_decimal::Decimal;
use tokio::sync::Semaphore;
use tokio_postgres::error::SqlState;
use tokio_postgres::types::ToSql;
use uuid::Uuid;

use super::figures::{mean, per_second};
use super::visible::{self, Figures, Log, Mark, Rows};
use super::{Bench, Error};
use crate::codec::banking::AccountCodec;
use crate::domain::banking::account::Event;
use crate::domain::money::Amount;
use crate::kernel::codec::Codec;
use crate::kernel::message::Record;
use crate::kernel::projection::Head;
use crate::read_model::banking::{account_summary, account_transaction};
use crate::read_model::store;
use crate::read_model::store::postgres::Database;
use crate::runtime::projection::Settings;

const LOOK: Duration = Duration::from_millis(10);
const LOOK_LATENCY: Duration = Duration::from_millis(1);

struct Table(Database);

impl Rows for Table {
    /// Rows and checkpoint are one transaction, so the checkpoint says which rows are visible.
    async fn marks(&self) -> Result<Vec<Mark>, Error> {
        let client = self.0.client().await?;
        let statement = format!(
            "SELECT partition, next_offset FROM {}.checkpoint
             WHERE projection = 'postgres.banking' AND topic LIKE '%banking.account.events'
             ORDER BY partition",
            self.0.namespace().underscored("millrace")
        );
        match client.query(&statement, &[]).await {
            Ok(rows) => Ok(rows.iter().map(|row| (row.get(0), row.get(1))).collect()),
            Err(error) if error.code() == Some(&SqlState::UNDEFINED_TABLE) => Ok(Vec::new()),
            Err(error) => Err(failed()(error).into()),
        }
    }
}

fn failed() -> impl FnOnce(tokio_postgres::Error) -> store::Error {
    store::Error::postgres("measuring")
}

/// Measures the part: raw, real, raw, then event to row.
///
/// # Errors
/// Whatever would make the figures wrong.
pub async fn measure(bench: &mut Bench) -> Result<Figures, Error> {
    bench.ensure_handled().await?;
    bench.progress.begin("making rows for Postgres", 0);
    let prepared = Prepared::read(bench).await?;
    let rows = Table(bench.ground.postgres()?);
    bench.progress.begin("writing raw rows into Postgres", 0);
    let before = prepared.write(&rows.0).await?;
    bench.progress.begin("projecting into Postgres", prepared.log.len());
    let at_once = Settings::POSTGRES.parallel;
    let real = visible::run(bench, &rows, &prepared.log, "postgres", (at_once, LOOK)).await?;
    let tables = rows.0.namespace().underscored("banking_g1");
    check(&rows.0, &tables, prepared.log.len()).await?;
    bench.progress.begin("writing raw rows into Postgres", 0);
    let after = prepared.write(&rows.0).await?;
    bench.progress.begin("event to row in Postgres", 0);
    let seen = visible::visible(bench, &rows, "postgres", LOOK_LATENCY).await?;
    Ok(visible::figures(real, mean(&[before, after]), seen, &prepared.log))
}

/// Waits until everything is projected.
///
/// # Errors
/// It stands still.
pub async fn wait_projected(bench: &Bench) -> Result<(), Error> {
    let log = Log::read(bench, |_, _| Ok(())).await?;
    visible::wait_for(bench, &Table(bench.ground.postgres()?), &log).await
}

/// A statement's values: one array a column, after the partition.
type Values = Vec<Box<dyn ToSql + Sync + Send>>;

/// The rows of one transaction.
struct Batch {
    partition: i32,
    summaries: Values,
    transactions: Values,
}

/// The backlog as rows, cut into batches as the projection cuts them.
struct Prepared {
    log: Log,
    batches: Vec<Batch>,
}

impl Prepared {
    async fn read(bench: &Bench) -> Result<Self, Error> {
        let limits = Settings::POSTGRES.limits;
        let shared: Arc<Mutex<(Open, Vec<Batch>)>> = Arc::default();
        let (kept, codec) = (Arc::clone(&shared), bench.codec());
        let log = Log::read(bench, move |partition, record| {
            let mut shared = kept.lock().unwrap_or_else(PoisonError::into_inner);
            let (open, batches) = &mut *shared;
            let full = open.ids.len() >= limits.rows || open.bytes >= limits.bytes;
            if full || open.partition != partition {
                batches.extend(std::mem::take(open).close());
                open.partition = partition;
            }
            open.take(&codec, &record)
        })
        .await?;
        let mut shared = shared.lock().unwrap_or_else(PoisonError::into_inner);
        let (open, batches) = &mut *shared;
        batches.extend(std::mem::take(open).close());
        Ok(Self { log, batches: std::mem::take(batches) })
    }

    /// Writes all batches, as many at once as the projection does, each partition's in order.
    async fn write(&self, database: &Database) -> Result<f64, Error> {
        let schema = database.namespace().underscored("raw");
        let client = database.client().await?;
        let fill = |table: &str| table.replace("{schema}", &schema);
        let make = format!(
            "CREATE SCHEMA {schema}; {} {}",
            fill(account_summary::TABLE),
            fill(account_transaction::TABLE)
        );
        client.batch_execute(&make).await.map_err(failed())?;
        let slots = Arc::new(Semaphore::new(Settings::POSTGRES.parallel));
        let started = Instant::now();
        let mut lanes: HashMap<i32, Vec<&Batch>> = HashMap::new();
        for batch in &self.batches {
            lanes.entry(batch.partition).or_default().push(batch);
        }
        let lanes = lanes.into_values().map(|batches| {
            let (slots, schema) = (Arc::clone(&slots), &schema);
            async move {
                for batch in batches {
                    let _slot = slots.acquire().await;
                    batch.write(database, schema).await?;
                }
                Ok::<_, Error>(())
            }
        });
        futures::future::try_join_all(lanes).await?;
        let elapsed = started.elapsed();
        check(database, &schema, self.log.len()).await?;
        let drop = format!("DROP SCHEMA {schema} CASCADE");
        client.batch_execute(&drop).await.map_err(failed())?;
        per_second("raw rows", self.log.len(), elapsed)
    }
}

impl Batch {
    async fn write(&self, database: &Database, schema: &str) -> Result<(), Error> {
        let mut client = database.client().await?;
        let summaries = client.prepare_cached(&SUMMARIES.replace("{schema}", schema)).await;
        let transactions = client.prepare_cached(&TRANSACTIONS.replace("{schema}", schema)).await;
        let (summaries, transactions) =
            (summaries.map_err(failed())?, transactions.map_err(failed())?);
        let transaction = client.transaction().await.map_err(failed())?;
        let (upserted, inserted) = (self.values(&self.summaries), self.values(&self.transactions));
        let written = futures::try_join!(
            transaction.batch_execute("SET LOCAL synchronous_commit = off"),
            transaction.execute(&summaries, &upserted),
            transaction.execute(&transactions, &inserted),
        );
        written.map_err(failed())?;
        transaction.commit().await.map_err(failed())?;
        Ok(())
    }

    fn values<'a>(&'a self, arrays: &'a Values) -> Vec<&'a (dyn ToSql + Sync)> {
        let partition: &(dyn ToSql + Sync) = &self.partition;
        let arrays = arrays.iter().map(|array| -> &(dyn ToSql + Sync) { &**array });
        std::iter::once(partition).chain(arrays).collect()
    }
}

const SUMMARIES: &str = "INSERT INTO {schema}.account_summary AS t (
        kafka_partition, account_id, user_id, account_type, currency, status, current_balance,
        pending_out, created_at, last_transaction_at, total_deposits, total_withdrawals,
        total_transfers_in, total_transfers_out, total_fees, first_version, version, updated_at)
    SELECT $1::integer, c.* FROM UNNEST(
        $2::text[], $3::text[], $4::text[], $5::text[], $6::text[], $7::numeric[], $8::numeric[],
        $9::timestamptz[], $10::timestamptz[], $11::numeric[], $12::numeric[], $13::numeric[],
        $14::numeric[], $15::numeric[], $16::bigint[], $17::bigint[], $18::timestamptz[]) AS c
    ON CONFLICT (account_id) DO UPDATE SET
        current_balance = excluded.current_balance,
        last_transaction_at = excluded.last_transaction_at,
        total_deposits = t.total_deposits + excluded.total_deposits,
        total_withdrawals = t.total_withdrawals + excluded.total_withdrawals,
        total_fees = t.total_fees + excluded.total_fees,
        version = excluded.version,
        updated_at = excluded.updated_at";

const TRANSACTIONS: &str = "INSERT INTO {schema}.account_transaction (
        kafka_partition, account_id, occurred_at, version, transaction_id, event_type, type,
        amount, fee, currency, description, reference, counterparty_account, balance_after)
    SELECT $1::integer, c.* FROM UNNEST(
        $2::text[], $3::timestamptz[], $4::bigint[], $5::uuid[], $6::text[], $7::text[],
        $8::numeric[], $9::numeric[], $10::text[], $11::text[], $12::text[], $13::text[],
        $14::numeric[]) AS c";

/// What a batch adds to one account.
#[derive(Default)]
struct Summary {
    user_id: String,
    account_type: Option<&'static str>,
    balance: Decimal,
    created_at: Option<DateTime<Utc>>,
    deposits: Decimal,
    withdrawals: Decimal,
    fees: Decimal,
    first_version: i64,
    version: i64,
    at: DateTime<Utc>,
}

/// A batch that is being put together.
#[derive(Default)]
struct Open {
    partition: i32,
    bytes: usize,
    summaries: HashMap<String, Summary>,
    ids: Vec<Uuid>,
    accounts: Vec<String>,
    times: Vec<DateTime<Utc>>,
    versions: Vec<i64>,
    types: Vec<&'static str>,
    kinds: Vec<&'static str>,
    amounts: Vec<Decimal>,
    fees: Vec<Decimal>,
    descriptions: Vec<String>,
    references: Vec<Option<String>>,
    balances: Vec<Decimal>,
}

impl Open {
    fn take(&mut self, codec: &AccountCodec, record: &Record) -> Result<(), Error> {
        let head = Head::read(record).map_err(Error::Wrong)?;
        let event = codec.decode_event(record.value.as_deref().unwrap_or_default())?;
        let (at, version) = (head.occurred_at.to_chrono(), head.sequence.cast_signed());
        let summary = self.summaries.entry_ref(head.stream).or_insert_with(|| Summary {
            user_id: event.user_id().to_owned(),
            first_version: version,
            ..Summary::default()
        });
        (summary.version, summary.at) = (version, at);
        let (kind, amount, fee, balance, description, reference) = match &event {
            Event::AccountCreated(event) => {
                let amount = numeric(event.initial_deposit);
                summary.account_type = Some(event.account_type.as_str());
                summary.created_at = Some(at);
                summary.deposits += amount;
                ("CREDIT", amount, Decimal::ZERO, amount, "Opening deposit".to_owned(), None)
            }
            Event::MoneyDeposited(event) => {
                let (amount, words) = (numeric(event.amount), &event.reference);
                summary.deposits += amount;
                let balance = numeric(event.balance_after);
                (
                    "CREDIT",
                    amount,
                    Decimal::ZERO,
                    balance,
                    described("Deposit", words),
                    words.clone(),
                )
            }
            Event::MoneyWithdrawn(event) => {
                let (amount, fee, words) =
                    (numeric(event.amount), numeric(event.fee), &event.reference);
                summary.withdrawals += amount;
                summary.fees += fee;
                let balance = numeric(event.balance_after);
                ("DEBIT", amount, fee, balance, described("Withdrawal", words), words.clone())
            }
            Event::MoneyTransferred(_)
            | Event::MoneyReceived(_)
            | Event::TransferReversed(_)
            | Event::TransferSettled(_)
            | Event::AccountFrozen(_)
            | Event::AccountUnfrozen(_)
            | Event::AccountClosed(_)
            | Event::EntryCorrected(_) => {
                return Err(Error::Wrong(format!("the load holds no {}", event.name())));
            }
        };
        summary.balance = balance;
        self.bytes += record.byte_count();
        self.ids.push(head.event_id);
        self.accounts.push(head.stream.to_owned());
        self.times.push(at);
        self.versions.push(version);
        self.types.push(event.name());
        self.kinds.push(kind);
        self.amounts.push(amount);
        self.fees.push(fee);
        self.descriptions.push(description);
        self.references.push(reference);
        self.balances.push(balance);
        Ok(())
    }

    /// Turns everything into arrays.
    fn close(self) -> Option<Batch> {
        let count = self.ids.len();
        if count == 0 {
            return None;
        }
        let mut sorted: Vec<(String, Summary)> = self.summaries.into_iter().collect();
        sorted.sort_unstable_by(|(a, _), (b, _)| a.cmp(b));
        let accounts: Vec<String> = sorted.iter().map(|(id, _)| id.clone()).collect();
        let rows: Vec<Summary> = sorted.into_iter().map(|(_, row)| row).collect();
        let summaries: Values = vec![
            Box::new(accounts),
            array(&rows, |row| row.user_id.clone()),
            array(&rows, |row| row.account_type),
            array(&rows, |_| "USD"),
            array(&rows, |_| "ACTIVE"),
            array(&rows, |row| row.balance),
            array(&rows, |_| Decimal::ZERO),
            array(&rows, |row| row.created_at),
            array(&rows, |row| row.at),
            array(&rows, |row| row.deposits),
            array(&rows, |row| row.withdrawals),
            array(&rows, |_| Decimal::ZERO),
            array(&rows, |_| Decimal::ZERO),
            array(&rows, |row| row.fees),
            array(&rows, |row| row.first_version),
            array(&rows, |row| row.version),
            array(&rows, |row| row.at),
        ];
        let transactions: Values = vec![
            Box::new(self.accounts),
            Box::new(self.times),
            Box::new(self.versions),
            Box::new(self.ids),
            Box::new(self.types),
            Box::new(self.kinds),
            Box::new(self.amounts),
            Box::new(self.fees),
            Box::new(vec!["USD"; count]),
            Box::new(self.descriptions),
            Box::new(self.references),
            Box::new(vec![None::<String>; count]),
            Box::new(self.balances),
        ];
        Some(Batch { partition: self.partition, summaries, transactions })
    }
}

fn array<T>(rows: &[Summary], column: impl Fn(&Summary) -> T) -> Box<dyn ToSql + Sync + Send>
where
    T: ToSql + Sync + Send + 'static,
{
    Box::new(rows.iter().map(column).collect::<Vec<T>>())
}

/// With the two decimals of the load's currency, as the projection writes it.
fn numeric(amount: Amount) -> Decimal {
    amount.decimal().round_dp(2)
}

fn described(what: &str, words: &Option<String>) -> String {
    words.as_ref().map_or_else(|| what.to_owned(), |words| format!("{what} - {words}"))
}

/// Every event has its transaction.
async fn check(database: &Database, schema: &str, events: usize) -> Result<(), Error> {
    let client = database.client().await?;
    let statement = format!("SELECT count(*) FROM {schema}.account_transaction");
    let count: i64 = client.query_one(&statement, &[]).await.map_err(failed())?.get(0);
    if usize::try_from(count) == Ok(events) {
        return Ok(());
    }
    Err(Error::Wrong(format!("Postgres has {count} transactions of {events} events")))
}
