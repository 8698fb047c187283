//! ClickHouse as the auditor reads it: rows after FINAL, up to an offset.

use ::clickhouse::{Client, Compression, Row as SqlRow};
use serde::Deserialize;
use uuid::Uuid;

use super::banking::DOMAIN;
use super::cell::{Cell, Row, canonical};
use super::{Error, Parked};
use crate::config::Config;

/// The most rows of a partition that there should not be that are named.
const ASTRAY_MAX: u64 = 1_000;

/// The events' table of a generation.
pub struct Events {
    /// Which one.
    pub generation: i32,
    client: Client,
    table: String,
}

/// Where the rows of a partition end.
#[derive(Clone, Debug, SqlRow, Deserialize)]
pub struct End {
    /// The aggregate.
    pub aggregate: String,
    /// The partition.
    pub kafka_partition: i32,
    /// The topic that they were read from.
    #[serde(with = "::clickhouse::serde::uuid")]
    pub topic_id: Uuid,
    /// The highest offset.
    pub last: i64,
}

#[derive(SqlRow, Deserialize)]
struct First {
    projection: String,
    topic: String,
    stream: String,
    first: u64,
}

#[derive(SqlRow, Deserialize)]
struct Event {
    aggregate_id: String,
    sequence: u64,
    #[serde(with = "::clickhouse::serde::uuid")]
    event_id: Uuid,
    event_type: String,
    schema_version: u16,
    occurred_at: i64,
    user_id: String,
    amount: i128,
    currency: String,
    correlation_id: String,
    causation_id: String,
    #[serde(with = "::clickhouse::serde::uuid")]
    command_id: Uuid,
    kafka_offset: i64,
    payload: String,
    fee: i128,
    balance_after: Option<i128>,
    account_type: String,
    #[serde(with = "::clickhouse::serde::uuid")]
    topic_id: Uuid,
    kafka_partition: i32,
}

impl Event {
    fn into_cells(self) -> (String, Row) {
        let payload = match serde_json::from_str(&self.payload) {
            Ok(json) => canonical(&json),
            Err(_) => self.payload,
        };
        let row = vec![
            Cell::count(self.sequence),
            Cell::Id(self.event_id),
            Cell::Text(self.event_type),
            Cell::Whole(i64::from(self.schema_version)),
            Cell::Moment(self.occurred_at),
            Cell::Text(self.user_id),
            Cell::Money(self.amount),
            Cell::Text(self.currency),
            Cell::Text(self.correlation_id),
            Cell::Text(self.causation_id),
            Cell::Id(self.command_id),
            Cell::Whole(self.kafka_offset),
            Cell::Text(payload),
            Cell::Money(self.fee),
            self.balance_after.map_or(Cell::Null, Cell::Money),
            Cell::Text(self.account_type),
            Cell::Id(self.topic_id),
            Cell::Whole(i64::from(self.kafka_partition)),
        ];
        (self.aggregate_id, row)
    }
}

/// Which rows of a partition are compared.
#[derive(Clone, Copy, Debug)]
pub struct Part<'a> {
    /// The aggregate, as topics call it.
    pub aggregate: &'a str,
    /// The partition.
    pub partition: i32,
    /// The topic; rows of another one are all read.
    pub topic_id: Uuid,
    /// The offset to stop before.
    pub end: i64,
}

impl Events {
    /// Finds the table in use, or that generation's; `None` if the projection has never run.
    ///
    /// # Errors
    /// ClickHouse does not answer.
    pub async fn open(config: &Config, generation: Option<i32>) -> Result<Option<Self>, Error> {
        let settings = &config.clickhouse;
        let near = ["http://127.", "http://localhost", "http://[::1]"];
        let is_near = near.iter().any(|prefix| settings.url.starts_with(prefix));
        let client = Client::default()
            .with_url(&settings.url)
            .with_user(&settings.user)
            .with_password(&settings.password.0)
            // On loopback compression costs more than it saves, and hides errors in mid-stream.
            .with_compression(if is_near { Compression::None } else { Compression::Lz4 })
            .with_product_info("millrace-verify", env!("CARGO_PKG_VERSION"));
        let database = config.namespace.underscored(&settings.database);
        let generation = match generation {
            Some(generation) => Some(generation),
            None => in_use(&client, &database).await?,
        };
        let Some(generation) = generation else { return Ok(None) };
        let table = format!("{database}.{DOMAIN}_event_g{generation}");
        Ok(Some(Self { generation, client, table }))
    }

    /// Where the rows of every partition end.
    ///
    /// # Errors
    /// The statement fails.
    pub async fn ends(&self) -> Result<Vec<End>, Error> {
        let statement = format!(
            "SELECT aggregate, kafka_partition, topic_id, max(kafka_offset) AS last
             FROM {} GROUP BY aggregate, kafka_partition, topic_id",
            self.table
        );
        let rows = self.client.query_raw(&statement).fetch_all().await;
        rows.map_err(|error| Error::ClickHouse("reading where the rows end", error))
    }

    /// What is parked; nothing if the table is not there, or of another form than is known here. To
    /// be asked after [`Events::ends`]: what is passed over before such an end is parked before.
    ///
    /// # Errors
    /// The statement fails.
    pub async fn parked(&self) -> Result<Parked, Error> {
        let failed = |error| Error::ClickHouse("looking for parked events", error);
        let (database, _) = self.table.split_once('.').unwrap_or_default();
        let known = "SELECT count() FROM system.columns
             WHERE database = {database: String} AND table = 'failed_event'
             AND name IN ('projection', 'generation', 'topic', 'stream', 'position')";
        let known = self.client.query_raw(known).param("database", database);
        if known.fetch_one::<u64>().await.map_err(failed)? != 5 {
            return Ok(Parked::new());
        }
        // What a replay has taken off the list and not come to yet is nowhere: it counts as parked.
        // A revision is five times the epoch, and the first of an epoch is that one.
        let (table, generation) = (&self.table, self.generation);
        let statement = format!(
            "WITH reached AS (
                 SELECT topic_id, kafka_partition, epoch, max(kafka_offset) + 1 AS next
                 FROM {table} GROUP BY topic_id, kafka_partition, epoch)
             SELECT parked.projection, parked.topic, parked.stream,
                 toUInt64(min(parked.position)) AS first
             FROM (
                 SELECT projection, topic, partition, kafka_offset,
                     argMax(topic_id, revision) AS topic_id, argMax(stream, revision) AS stream,
                     argMax(position, revision) AS position, argMax(is_gone, revision) AS is_gone,
                     max(revision) AS newest
                 FROM {database}.failed_event
                 WHERE projection = 'clickhouse.{DOMAIN}' AND generation = {generation}
                 GROUP BY projection, topic, partition, kafka_offset) AS parked
             LEFT JOIN reached ON reached.topic_id = parked.topic_id
                 AND reached.kafka_partition = parked.partition
                 AND reached.epoch = intDiv(parked.newest, 5)
             WHERE parked.is_gone = 0
                 OR (parked.newest % 5 = 0 AND parked.kafka_offset >= reached.next)
             GROUP BY parked.projection, parked.topic, parked.stream"
        );
        let rows = self.client.query_raw(&statement).fetch_all::<First>().await;
        let entry = |row: First| ((row.projection, row.topic, row.stream), row.first);
        Ok(rows.map_err(failed)?.into_iter().map(entry).collect())
    }

    /// The end of a partition's rows that lie before an offset.
    ///
    /// # Errors
    /// The statement fails.
    pub async fn end_before(&self, part: Part<'_>) -> Result<i64, Error> {
        let statement = format!(
            "SELECT maxIf(kafka_offset + 1, kafka_offset < {{end: Int64}}) FROM {}
             WHERE aggregate = {{aggregate: String}} AND kafka_partition = {{partition: Int32}}
             AND topic_id = {{topic_id: UUID}}",
            self.table
        );
        let query = self.client.query_raw(&statement);
        let query = query.param("end", part.end).param("aggregate", part.aggregate);
        let query = query.param("partition", part.partition);
        let query = query.param("topic_id", part.topic_id.to_string());
        let found = query.fetch_one::<i64>().await;
        found.map_err(|error| Error::ClickHouse("reading where the rows end", error))
    }

    /// Reads rows of a partition, or of some of its streams, and hands each with its stream to
    /// `visit`.
    ///
    /// # Errors
    /// The statement fails.
    pub async fn rows(
        &self,
        part: Part<'_>,
        ids: Option<&[String]>,
        visit: impl FnMut(String, Row),
    ) -> Result<(), Error> {
        let filter = "(kafka_offset < {end: Int64} OR topic_id != {topic_id: UUID})";
        self.select(part, filter, ids, None, visit).await
    }

    /// Reads rows of a partition that lie at an offset or behind it.
    ///
    /// # Errors
    /// The statement fails.
    pub async fn rows_behind(
        &self,
        part: Part<'_>,
        visit: impl FnMut(String, Row),
    ) -> Result<(), Error> {
        let filter = "(kafka_offset >= {end: Int64} AND topic_id = {topic_id: UUID})";
        self.select(part, filter, None, Some(ASTRAY_MAX), visit).await
    }

    async fn select(
        &self,
        part: Part<'_>,
        filter: &str,
        ids: Option<&[String]>,
        limit: Option<u64>,
        mut visit: impl FnMut(String, Row),
    ) -> Result<(), Error> {
        let some = if ids.is_some() { " AND has({ids: Array(String)}, aggregate_id)" } else { "" };
        let limit = limit.map_or_else(String::new, |limit| format!(" LIMIT {limit}"));
        let statement = format!(
            "SELECT aggregate_id, sequence, event_id, event_type, schema_version, occurred_at,
             user_id, amount, currency, correlation_id, causation_id, command_id, kafka_offset,
             payload, fee, balance_after, account_type, topic_id, kafka_partition
             FROM {} FINAL WHERE aggregate = {{aggregate: String}}
             AND kafka_partition = {{partition: Int32}} AND {filter}{some}{limit}",
            self.table
        );
        let failed = |error| Error::ClickHouse("reading rows", error);
        let mut query = self
            .client
            .query_raw(&statement)
            .param("aggregate", part.aggregate)
            .param("partition", part.partition)
            .param("topic_id", part.topic_id.to_string())
            .param("end", part.end)
            // As its views say it: the key does not cross partitions.
            .with_setting("do_not_merge_across_partitions_select_final", "1");
        if let Some(ids) = ids {
            query = query.param("ids", ids);
        }
        let mut rows = query.fetch::<Event>().map_err(failed)?;
        while let Some(row) = rows.next().await.map_err(failed)? {
            let (id, cells) = row.into_cells();
            visit(id, cells);
        }
        Ok(())
    }
}

/// The generation that the domain's view names, or the first, if there is no such view yet.
async fn in_use(client: &Client, database: &str) -> Result<Option<i32>, Error> {
    let comments = client
        .query_raw(
            "SELECT comment FROM system.tables
             WHERE database = {database: String} AND name IN ({view: String}, {first: String})
             ORDER BY name = {view: String} DESC",
        )
        .param("database", database)
        .param("view", DOMAIN)
        .param("first", format!("{DOMAIN}_event_g1"))
        .fetch_all::<String>()
        .await
        .map_err(Error::ClickHouseUnreachable)?;
    let named = comments.first().and_then(|comment| {
        let (_, rest) = comment.split_once("(generation ")?;
        rest.split_once(')')?.0.parse().ok()
    });
    Ok(named.or_else(|| (!comments.is_empty()).then_some(1)))
}
