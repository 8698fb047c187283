//! Postgres as the auditor reads it: rows and checkpoints of one moment, in one transaction that
//! writes nothing.

use std::collections::HashMap;
use std::str::FromStr;
use std::time::Duration;

use chrono::{DateTime, Utc};
use futures::{StreamExt as _, pin_mut};
use postgres_native_tls::MakeTlsConnector;
use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{Client, Row as SqlRow};
use uuid::Uuid;

use super::banking::{DOMAIN, Table};
use super::cell::{Cell, Row};
use super::{Error, Parked};
use crate::config::Config;
use crate::kernel::stream::Namespace;

/// The longest that a connection may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// The columns that hold money: they are read as text, so that no client's type decides.
const MONEY: [&str; 12] = [
    "current_balance",
    "available_balance",
    "pending_out",
    "total_deposits",
    "total_withdrawals",
    "total_transfers_in",
    "total_transfers_out",
    "total_fees",
    "amount",
    "fee",
    "balance_after",
    "total",
];

/// Where a projection stands in a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Checkpoint {
    /// The id of the topic that was read.
    pub topic_id: Uuid,
    /// How many times the partition was rewound.
    pub epoch: i64,
    /// The next offset.
    pub next_offset: i64,
}

/// One moment of the database.
pub struct Moment {
    /// The generation of the tables.
    pub generation: i32,
    client: Client,
    schema: String,
    domain: String,
    /// Where the last 30 days begin, for a view that is read in this transaction.
    pub recent_from: i64,
    /// Checkpoints by topic and partition.
    pub checkpoints: HashMap<(String, i32), Checkpoint>,
    /// What is parked.
    pub parked: Parked,
}

impl Moment {
    /// Takes a look at everything at once, of the generation in use or of that one, whose views
    /// stand beside its tables; `None` if the projection has never run.
    ///
    /// # Errors
    /// Postgres does not answer.
    pub async fn open(config: &Config, generation: Option<i32>) -> Result<Option<Self>, Error> {
        let beside = generation;
        let client = connect(&config.postgres.url).await?;
        let begin = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY";
        let failed = Error::Postgres;
        client.batch_execute(begin).await.map_err(|error| failed("beginning", error))?;
        let namespace = &config.namespace;
        let millrace = namespace.underscored("millrace");
        let projection = format!("postgres.{DOMAIN}");
        let generation = match beside {
            Some(generation) => Some(generation),
            None => live(&client, &millrace, &projection).await?,
        };
        let Some(generation) = generation else { return Ok(None) };
        let now = "SELECT now() - interval '30 days' AS recent_from";
        let now = client.query_one(now, &[]).await.map_err(|error| failed("asking", error))?;
        let recent_from = now.get::<_, DateTime<Utc>>("recent_from").timestamp_micros();
        let checkpoints = checkpoints(&client, &millrace, &projection, generation).await?;
        let parked = parked(&client, &millrace, &projection, generation).await?;
        let schema = schema(namespace, generation);
        let domain = match beside {
            Some(_) => format!("{schema}_next"),
            None => namespace.underscored(DOMAIN),
        };
        Ok(Some(Self { generation, client, schema, domain, recent_from, checkpoints, parked }))
    }

    /// Reads rows of a table, of a partition or of streams, and hands each with its stream and its
    /// partition to `visit`.
    ///
    /// # Errors
    /// The statement fails.
    pub async fn rows(
        &self,
        table: &Table,
        partition: Option<i32>,
        ids: Option<&[String]>,
        mut visit: impl FnMut(String, i32, Row),
    ) -> Result<(), Error> {
        let statement = self.select(table, partition.is_some(), ids.is_some());
        let mut values: Vec<&(dyn ToSql + Sync)> = Vec::new();
        if let Some(partition) = &partition {
            values.push(partition);
        }
        if let Some(ids) = &ids {
            values.push(ids);
        }
        let failed = |error| Error::Postgres("reading rows", error);
        let rows = self.client.query_raw(&statement, values).await.map_err(failed)?;
        pin_mut!(rows);
        while let Some(row) = rows.next().await {
            let row = row.map_err(failed)?;
            let id = row.try_get("stream_id").map_err(failed)?;
            let partition = row.try_get("stream_partition").map_err(failed)?;
            let cells = table.columns.iter().map(|column| cell(&row, column));
            visit(id, partition, cells.collect());
        }
        Ok(())
    }

    fn select(&self, table: &Table, of_partition: bool, of_ids: bool) -> String {
        let Self { schema, domain, .. } = self;
        let Table { name, id, columns, own } = table;
        let column = |(place, column): (usize, &&str)| {
            let source = if place < *own { "s" } else { "v" };
            if *column == "recent_transaction_ids" {
                return format!("array_to_string({source}.{column}, ',') AS {column}");
            }
            let cast = if MONEY.contains(column) { "::text" } else { "" };
            format!("{source}.{column}{cast} AS {column}")
        };
        let list: Vec<String> = columns.iter().enumerate().map(column).collect();
        let mut statement = format!(
            "SELECT s.{id} AS stream_id, s.kafka_partition AS stream_partition, {}
             FROM {schema}.{name} s",
            list.join(", ")
        );
        if *own < columns.len() {
            statement += &format!(" LEFT JOIN {domain}.{name} v ON v.{id} = s.{id}");
        }
        let mut filters = Vec::new();
        if of_partition {
            filters.push("s.kafka_partition = $1".to_owned());
        }
        if of_ids {
            filters.push(format!("s.{id} = ANY(${})", filters.len() + 1));
        }
        if !filters.is_empty() {
            statement += &format!(" WHERE {}", filters.join(" AND "));
        }
        statement
    }

    /// Rows of partitions that the topic does not have: their streams.
    ///
    /// # Errors
    /// The statement fails.
    pub async fn astray(&self, table: &Table, count: i32) -> Result<Vec<(String, i32)>, Error> {
        let statement = format!(
            "SELECT {} AS stream_id, kafka_partition FROM {}.{}
             WHERE kafka_partition < 0 OR kafka_partition >= $1 LIMIT 1000",
            table.id, self.schema, table.name
        );
        let rows = self.client.query(&statement, &[&count]).await;
        let rows = rows.map_err(|error| Error::Postgres("reading rows", error))?;
        Ok(rows.iter().map(|row| (row.get("stream_id"), row.get("kafka_partition"))).collect())
    }

    /// What the view of fees says, by currency.
    ///
    /// # Errors
    /// The statement fails.
    pub async fn fee_ledger(&self) -> Result<HashMap<String, Cell>, Error> {
        let statement =
            format!("SELECT currency, total::text AS total FROM {}.fee_ledger", self.domain);
        let rows = self.client.query(&statement, &[]).await;
        let rows = rows.map_err(|error| Error::Postgres("reading the fees", error))?;
        let currency = |row: &SqlRow| row.get::<_, Option<String>>("currency");
        Ok(rows.iter().filter_map(|row| Some((currency(row)?, cell(row, "total")))).collect())
    }
}

async fn connect(url: &str) -> Result<Client, Error> {
    let address = |_| Error::Address("MILLRACE_POSTGRES_URL");
    let mut options = tokio_postgres::Config::from_str(url).map_err(address)?;
    options.application_name("millrace verify").connect_timeout(CONNECT_TIMEOUT);
    let tls = native_tls::TlsConnector::new();
    let tls = tls.map_err(|_| Error::Address("MILLRACE_POSTGRES_URL"))?;
    let connected = options.connect(MakeTlsConnector::new(tls)).await;
    let (client, connection) = connected.map_err(Error::PostgresUnreachable)?;
    tokio::spawn(async move {
        if let Err(error) = connection.await {
            tracing::debug!(%error, "the audit's connection has ended");
        }
    });
    Ok(client)
}

/// The schema of a generation's tables.
fn schema(namespace: &Namespace, generation: i32) -> String {
    namespace.underscored(&format!("{DOMAIN}_g{generation}"))
}

async fn live(client: &Client, millrace: &str, projection: &str) -> Result<Option<i32>, Error> {
    let failed = |error| Error::Postgres("looking for the live generation", error);
    let known = "SELECT to_regclass($1) IS NOT NULL AS known";
    let table = format!("{millrace}.projection");
    let row = client.query_one(known, &[&table]).await.map_err(failed)?;
    if !row.get::<_, bool>("known") {
        return Ok(None);
    }
    let select = format!("SELECT generation FROM {table} WHERE name = $1 AND state = 'live'");
    let row = client.query_opt(&select, &[&projection]).await.map_err(failed)?;
    Ok(row.map(|row| row.get("generation")))
}

async fn checkpoints(
    client: &Client,
    millrace: &str,
    projection: &str,
    generation: i32,
) -> Result<HashMap<(String, i32), Checkpoint>, Error> {
    let select = format!(
        "SELECT topic, partition, topic_id, epoch, next_offset FROM {millrace}.checkpoint
         WHERE projection = $1 AND generation = $2"
    );
    let rows = client.query(&select, &[&projection, &generation]).await;
    let rows = rows.map_err(|error| Error::Postgres("reading the checkpoints", error))?;
    let entry = |row: &SqlRow| {
        let checkpoint = Checkpoint {
            topic_id: row.get("topic_id"),
            epoch: row.get("epoch"),
            next_offset: row.get("next_offset"),
        };
        ((row.get("topic"), row.get("partition")), checkpoint)
    };
    Ok(rows.iter().map(entry).collect())
}

/// Streams with parked events. The table may be of another form than is known here: then none.
async fn parked(
    client: &Client,
    millrace: &str,
    projection: &str,
    generation: i32,
) -> Result<Parked, Error> {
    let failed = |error| Error::Postgres("looking for parked events", error);
    let known = "SELECT count(*) AS known FROM information_schema.columns
         WHERE table_schema = $1 AND table_name = 'failed_event'
         AND column_name IN ('projection', 'generation', 'topic', 'stream', 'position')";
    let known = client.query_one(known, &[&millrace]).await.map_err(failed)?;
    if known.get::<_, i64>("known") != 5 {
        return Ok(Parked::new());
    }
    let select = format!(
        "SELECT projection, topic, stream, min(position)::bigint AS position
         FROM {millrace}.failed_event WHERE projection = $1 AND generation = $2
         GROUP BY projection, topic, stream"
    );
    let rows = client.query(&select, &[&projection, &generation]).await.map_err(failed)?;
    let entry = |row: &SqlRow| {
        let key = (row.get("projection"), row.get("topic"), row.get("stream"));
        (key, row.get::<_, i64>("position").unsigned_abs())
    };
    Ok(rows.iter().map(entry).collect())
}

/// A value as it is compared. What cannot be read is shown as such: it differs from everything.
fn cell(row: &SqlRow, column: &str) -> Cell {
    let unreadable = |error: tokio_postgres::Error| Cell::Text(format!("unreadable: {error}"));
    let kind = row.columns().iter().find(|found| found.name() == column);
    let Some(kind) = kind.map(|found| found.type_().clone()) else { return Cell::Null };
    if kind == Type::INT8 {
        let found = row.try_get::<_, Option<i64>>(column);
        found.map_or_else(unreadable, |found| found.map_or(Cell::Null, Cell::Whole))
    } else if kind == Type::BOOL {
        let found = row.try_get::<_, Option<bool>>(column);
        found.map_or_else(unreadable, |found| found.map_or(Cell::Null, Cell::Flag))
    } else if kind == Type::UUID {
        let found = row.try_get::<_, Option<Uuid>>(column);
        found.map_or_else(unreadable, |found| found.map_or(Cell::Null, Cell::Id))
    } else if kind == Type::TIMESTAMPTZ {
        let found = row.try_get::<_, Option<DateTime<Utc>>>(column);
        let moment = |found: DateTime<Utc>| Cell::Moment(found.timestamp_micros());
        found.map_or_else(unreadable, |found| found.map_or(Cell::Null, moment))
    } else {
        let found = row.try_get::<_, Option<&str>>(column);
        let is_money = MONEY.contains(&column);
        found.map_or_else(
            unreadable,
            |found| {
                if is_money { Cell::money(found) } else { Cell::text(found) }
            },
        )
    }
}
