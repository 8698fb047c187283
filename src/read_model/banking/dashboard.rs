//! What the dashboard asks: panels from ClickHouse's views, accounts from Postgres -> JSON rows.
//!
//! Decimals are strings, times ISO 8601, so that no reader rounds anything. With a token the rows
//! have seen what the token asks for.

use std::sync::Arc;
use std::time::Duration;

use deadpool_postgres::{Client, Transaction};
use serde_json::Value;
use tokio::sync::Semaphore;
use tokio_postgres::IsolationLevel;

use crate::config::Config;
use crate::read_model::consistency::clickhouse::Watch;
use crate::read_model::consistency::{self, Progress, Seen, Wanted};
use crate::read_model::store::{Error, clickhouse, postgres};

/// The most rows that one panel answers with.
const ROWS_MAX: u32 = 2_000;

/// How long one question may take.
const QUESTION_TIMEOUT: Duration = Duration::from_secs(10);

/// The same for ClickHouse, in seconds.
const QUESTION_SECONDS: &str = "10";

/// The width of a panel's time steps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// A minute.
    Minute,
    /// An hour.
    Hour,
    /// A day.
    Day,
}

impl Step {
    /// Reads `minute`, `hour` or `day`.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        [Self::Minute, Self::Hour, Self::Day].into_iter().find(|step| step.as_str() == text)
    }

    /// How far back a panel goes: about as many steps as it may have rows.
    const fn window(self) -> &'static str {
        match self {
            Self::Minute => "36 HOUR",
            Self::Hour => "90 DAY",
            Self::Day => "5 YEAR",
        }
    }

    /// The word in views' names and columns.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Minute => "minute",
            Self::Hour => "hour",
            Self::Day => "day",
        }
    }
}

/// How many panels are added up at once: all who waited for one block ask at the same moment, and
/// together they would be slower than one after the other.
const PANELS_AT_ONCE: usize = 4;

/// One panel of the dashboard; each is a documented view.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Panel {
    /// Money moved, by currency and kind of event.
    Volume(Step),
    /// Fees charged less those given back.
    Fees(Step),
    /// Deposits against withdrawals.
    DepositsWithdrawals(Step),
    /// Accounts and what they hold, by type and currency.
    BalanceByType,
    /// The accounts that moved most in 30 days.
    LargestMovers,
}

impl Panel {
    /// The view that it reads, and the column whose highest values are the newest or largest.
    fn view(self) -> (String, &'static str) {
        match self {
            Self::Volume(step) => (format!("banking_volume_{}", step.as_str()), step.as_str()),
            Self::Fees(step) => (format!("banking_fees_{}", step.as_str()), step.as_str()),
            Self::DepositsWithdrawals(step) => {
                (format!("banking_deposits_withdrawals_{}", step.as_str()), step.as_str())
            }
            Self::BalanceByType => ("banking_balance_by_type".to_owned(), "balance"),
            Self::LargestMovers => ("banking_largest_movers".to_owned(), "moved"),
        }
    }

    /// The width of its time steps, if it has them.
    const fn step(self) -> Option<Step> {
        match self {
            Self::Volume(step) | Self::Fees(step) | Self::DepositsWithdrawals(step) => Some(step),
            Self::BalanceByType | Self::LargestMovers => None,
        }
    }
}

/// A page of accounts, newest first.
#[derive(Clone, Debug, PartialEq)]
pub struct Accounts {
    /// One object an account.
    pub data: Vec<Value>,
    /// How many there are in all.
    pub total_count: i64,
}

/// Answers the dashboard's questions.
#[derive(Clone)]
pub struct Dashboard {
    postgres: postgres::Database,
    clickhouse: clickhouse::Database,
    watch: Watch,
    panels: Arc<Semaphore>,
    schema: String,
}

impl Dashboard {
    /// Reads the addresses; connects when first asked.
    ///
    /// # Errors
    /// An address is unusable.
    pub fn new(config: &Config) -> Result<Self, Error> {
        let clickhouse = clickhouse::Database::new(&config.clickhouse, &config.namespace)?;
        Ok(Self {
            postgres: postgres::Database::for_questions(
                &config.postgres,
                &config.namespace,
                QUESTION_TIMEOUT,
            )?,
            watch: Watch::new(clickhouse.clone()),
            panels: Arc::new(Semaphore::new(PANELS_AT_ONCE)),
            clickhouse,
            schema: config.namespace.underscored(super::DOMAIN),
        })
    }

    /// The newest or largest rows of a panel.
    ///
    /// # Errors
    /// ClickHouse does not answer, or the projection has never run.
    pub async fn panel(
        &self,
        panel: Panel,
        size: Option<u32>,
        wanted: Option<&Wanted>,
    ) -> Result<Seen<Vec<Value>>, Error> {
        if let Some(wanted) = wanted {
            // Asked first: a statement that refuses is an error to ClickHouse and its log.
            let progress = self.watch.look(wanted).await?;
            if progress != Progress::Reached {
                return Ok(Seen::NotYet(progress));
            }
        }
        let (view, order) = panel.view();
        let size = size.unwrap_or(ROWS_MAX).clamp(1, ROWS_MAX);
        // Old events are left out before they are added up, not after.
        let since = panel
            .step()
            .map(|step| format!("{order} >= now() - INTERVAL {}", step.window()))
            .into_iter();
        let guard = wanted.map(|_| consistency::clickhouse::guard(&self.clickhouse));
        let conditions: Vec<String> = since.chain(guard).collect();
        let conditions = match conditions.join(" AND ") {
            none if none.is_empty() => none,
            some => format!("WHERE {some} "),
        };
        let select = format!(
            "SELECT * FROM {}.{view} {conditions}ORDER BY {order} DESC LIMIT {size}",
            self.clickhouse.name()
        );
        let query = self.clickhouse.client().query_raw(&select);
        let query = match wanted {
            Some(wanted) => consistency::clickhouse::with_token(query, wanted),
            None => query,
        };
        // It is never closed.
        let _turn = self.panels.acquire().await;
        let answer = query
            .with_setting("max_threads", "2")
            .with_setting("output_format_json_quote_decimals", "1")
            .with_setting("output_format_json_quote_64bit_integers", "0")
            .with_setting("date_time_output_format", "iso")
            .with_setting("max_execution_time", QUESTION_SECONDS)
            .fetch_bytes("JSONEachRow");
        let bytes = match answer {
            Ok(mut bytes) => bytes.collect().await,
            Err(error) => Err(error),
        };
        let bytes = match bytes {
            // The view shows another generation since, which is not as far.
            Err(error) if consistency::clickhouse::is_refusal(&error) => {
                return Ok(Seen::NotYet(Progress::Behind(0)));
            }
            other => other.map_err(Error::clickhouse(format!("reading {view}")))?,
        };
        let rows = serde_json::Deserializer::from_slice(&bytes).into_iter::<Value>();
        let rows: Result<_, _> = rows.collect();
        let rows = rows.map_err(|error| Error::Corrupt(format!("ClickHouse, {view}: {error}")))?;
        Ok(Seen::Answer(rows))
    }

    /// A page of accounts: `page` from 1.
    ///
    /// # Errors
    /// Postgres does not answer, or the projection has never run.
    pub async fn accounts(
        &self,
        page: u32,
        size: u32,
        wanted: Option<&Wanted>,
    ) -> Result<Seen<Accounts>, Error> {
        let failed = || Error::postgres("reading the accounts");
        let select = format!(
            "SELECT {ACCOUNT} FROM {}.account_summary
             ORDER BY created_at DESC, account_id LIMIT $1 OFFSET $2",
            self.schema
        );
        let count = format!("SELECT count(*) FROM {}.account_summary", self.schema);
        let (limit, skipped) = (i64::from(size), i64::from(page.max(1) - 1) * i64::from(size));
        let mut client = self.postgres.client().await?;
        let snapshot = snapshot(&mut client).await.map_err(failed())?;
        if let Some(behind) = self.behind(&snapshot, wanted).await? {
            return Ok(Seen::NotYet(behind));
        }
        let select = snapshot.prepare_cached(&select).await.map_err(failed())?;
        let count = snapshot.prepare_cached(&count).await.map_err(failed())?;
        let values: [&(dyn tokio_postgres::types::ToSql + Sync); 2] = [&limit, &skipped];
        let (rows, total) =
            futures::try_join!(snapshot.query(&select, &values), snapshot.query_one(&count, &[]))
                .map_err(failed())?;
        snapshot.commit().await.map_err(failed())?;
        let data = rows.iter().map(read_object).collect::<Result<_, _>>()?;
        Ok(Seen::Answer(Accounts { data, total_count: total.try_get(0).map_err(failed())? }))
    }

    /// One account, with its window of 30 days.
    ///
    /// # Errors
    /// As [`Dashboard::accounts`].
    pub async fn account(
        &self,
        id: &str,
        wanted: Option<&Wanted>,
    ) -> Result<Seen<Option<Value>>, Error> {
        let failed = || Error::postgres(format!("reading account {id}"));
        let select = format!(
            "SELECT ({ACCOUNT}::jsonb || jsonb_build_object(
                'available_balance', available_balance::text, 'is_active', is_active,
                'transaction_count_30_days', transaction_count_30_days,
                'total_deposits', total_deposits::text,
                'total_withdrawals', total_withdrawals::text,
                'total_transfers_in', total_transfers_in::text,
                'total_transfers_out', total_transfers_out::text,
                'last_transaction_at', last_transaction_at,
                'recent_transaction_ids', recent_transaction_ids, 'updated_at', updated_at))::text
             FROM {}.account_summary WHERE account_id = $1",
            self.schema
        );
        let mut client = self.postgres.client().await?;
        let row = if wanted.is_none() {
            // One statement is a snapshot by itself.
            let select = client.prepare_cached(&select).await.map_err(failed())?;
            client.query_opt(&select, &[&id]).await.map_err(failed())?
        } else {
            let snapshot = snapshot(&mut client).await.map_err(failed())?;
            if let Some(behind) = self.behind(&snapshot, wanted).await? {
                return Ok(Seen::NotYet(behind));
            }
            let select = snapshot.prepare_cached(&select).await.map_err(failed())?;
            let row = snapshot.query_opt(&select, &[&id]).await.map_err(failed())?;
            snapshot.commit().await.map_err(failed())?;
            row
        };
        row.as_ref().map(read_object).transpose().map(Seen::Answer)
    }

    /// What a snapshot has not seen yet, if anything.
    async fn behind(
        &self,
        snapshot: &Transaction<'_>,
        wanted: Option<&Wanted>,
    ) -> Result<Option<Progress>, Error> {
        let Some(wanted) = wanted else { return Ok(None) };
        let namespace = self.postgres.namespace();
        let progress = consistency::postgres::look(snapshot, namespace, wanted).await?;
        Ok(Some(progress).filter(|progress| *progress != Progress::Reached))
    }
}

/// All that follows sees the rows as they are at one moment.
async fn snapshot(client: &mut Client) -> Result<Transaction<'_>, tokio_postgres::Error> {
    let level = IsolationLevel::RepeatableRead;
    client.build_transaction().isolation_level(level).read_only(true).start().await
}

/// An account as JSON text.
const ACCOUNT: &str = "json_build_object(
    'account_id', account_id, 'user_id', user_id, 'account_type', account_type,
    'currency', currency, 'status', status, 'current_balance', current_balance::text,
    'pending_out', pending_out::text, 'total_fees', total_fees::text,
    'created_at', created_at, 'version', version)::text";

fn read_object(row: &tokio_postgres::Row) -> Result<Value, Error> {
    let text: &str = row.try_get(0).map_err(Error::postgres("reading a row"))?;
    serde_json::from_str(text).map_err(|error| Error::Corrupt(format!("Postgres: {error}")))
}
