//! Rows that are their own checkpoint, in ClickHouse: batch -> one block -> one insert.
//!
//! The highest offset of the newest epoch says where to go on. A block is atomic, because it is
//! of one partition and far below a million rows; sent twice it is absorbed, by its token or by
//! its rows' keys. A replay writes the same keys under a new epoch beside the old rows, so that no
//! reader ever sees a hole.

use std::sync::Arc;
use std::sync::atomic::{AtomicI32, Ordering};
use std::time::Duration;

use ::clickhouse::error::Error as ClientError;
use ::clickhouse::{Client, Compression};
use bytes::Bytes;

use super::block::Block;
use super::clickhouse_place::{EpochRow, Shown, held};
use super::fold::fold;
use super::parked::clickhouse::{self as parked, ParkedEvents};
use super::parked::{Count, pointed_out};
use super::redrive::refused;
use super::{Definition, Error, InUse, Source, Store};
use crate::config;
use crate::engine::projector::{Failure, Refusal};
use crate::kernel::codec::CodecError;
use crate::kernel::message::Record;
use crate::kernel::projection::{Applied, Batch, Head, Held, Place, Redriven};
use crate::kernel::stream::Namespace;

/// The longest that sending a block, or waiting for its acknowledgement, may take.
const INSERT_TIMEOUT: Duration = Duration::from_secs(60);

/// The longest that a statement may take when a projection starts.
const STATEMENT_SECONDS: &str = "60";

/// What a domain's rows are in ClickHouse.
pub trait Blocks: Send + Sync + 'static {
    /// What is projected.
    fn definition(&self) -> &Definition;

    /// The columns that are written, with their types.
    fn columns(&self) -> &'static [(&'static str, &'static str)];

    /// Adds an event's row; `false` (and no row) if its type is not known here.
    ///
    /// # Errors
    /// The event cannot be decoded.
    fn take(
        &self,
        source: &Source,
        epoch: u32,
        head: &Head<'_>,
        record: &Record,
        block: &mut Block,
    ) -> Result<bool, CodecError>;
}

/// A way to ClickHouse.
#[derive(Clone)]
pub struct Database {
    client: Client,
    url: String,
    name: String,
    namespace: Namespace,
}

impl Database {
    /// Reads the address; connects when first used.
    ///
    /// # Errors
    /// The address is unusable.
    pub fn new(settings: &config::ClickHouse, namespace: &Namespace) -> Result<Self, Error> {
        let host = settings
            .url
            .strip_prefix("http://")
            .or_else(|| settings.url.strip_prefix("https://"))
            .filter(|host| !host.is_empty())
            .ok_or_else(|| Error::Address {
                setting: "MILLRACE_CLICKHOUSE_URL",
                reason: "it must look like http://127.0.0.1:8123".to_owned(),
            })?;
        let near = ["127.", "localhost", "[::1]"];
        // On loopback compression costs more than it saves, and hides errors in mid-stream.
        let compression = if near.iter().any(|prefix| host.starts_with(prefix)) {
            Compression::None
        } else {
            Compression::Lz4
        };
        let client = Client::default()
            .with_url(&settings.url)
            .with_user(&settings.user)
            .with_password(&settings.password.0)
            .with_compression(compression)
            .with_product_info("millrace", env!("CARGO_PKG_VERSION"));
        Ok(Self {
            client,
            url: settings.url.clone(),
            name: namespace.underscored(&settings.database),
            namespace: namespace.clone(),
        })
    }

    /// The client; no database is selected, so names are written in full.
    #[must_use]
    pub const fn client(&self) -> &Client {
        &self.client
    }

    /// What the server calls its version.
    ///
    /// # Errors
    /// ClickHouse does not answer.
    pub async fn version(&self) -> Result<String, Error> {
        let version = self.client.query("SELECT version()").fetch_one::<String>().await;
        version.map_err(|source| self.failed(source, "asking for the version"))
    }

    /// The database's name, namespace included.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The prefix of every topic.
    pub(super) const fn namespace(&self) -> &Namespace {
        &self.namespace
    }

    pub(super) async fn execute(&self, statement: &str, action: &str) -> Result<(), Error> {
        self.client
            .query_raw(statement)
            .with_setting("max_execution_time", STATEMENT_SECONDS)
            .execute()
            .await
            .map_err(|source| self.failed(source, action))
    }

    pub(super) fn failed(&self, source: ClientError, action: &str) -> Error {
        if matches!(source, ClientError::Network(_)) {
            let url = self.url.clone();
            return Error::ClickHouseUnreachable { url, source };
        }
        Error::clickhouse(action)(source)
    }

    /// Inserts a block at once or not at all.
    pub(super) async fn insert(
        &self,
        table: &str,
        columns: &[(&str, &str)],
        block: Block,
        token: &str,
        action: &str,
    ) -> Result<(), Error> {
        let columns: Vec<&str> = columns.iter().map(|(name, _)| *name).collect();
        let statement = format!(
            "INSERT INTO {}.{table} ({}) FORMAT RowBinaryWithNamesAndTypes",
            self.name,
            columns.join(", ")
        );
        let mut insert = self
            .client
            .insert_formatted_with(statement)
            .with_timeouts(Some(INSERT_TIMEOUT), Some(INSERT_TIMEOUT))
            // Acknowledged means written: Kafka's offset follows on it.
            .with_setting("async_insert", "0")
            .with_setting("wait_end_of_query", "1")
            .with_setting("insert_deduplicate", "1")
            .with_setting("insert_deduplication_token", token)
            .with_setting("deduplicate_blocks_in_dependent_materialized_views", "1")
            // One block, whatever the server's defaults are.
            .with_setting("max_insert_block_size", "1048449")
            .with_setting("max_insert_threads", "1")
            .with_setting("input_format_parallel_parsing", "0");
        let sent = insert.send(Bytes::from(block.into_bytes())).await;
        sent.map_err(|error| self.failed(error, action))?;
        insert.end().await.map_err(|error| self.failed(error, action))
    }

    pub(super) async fn comment(&self, table: &str) -> Result<Option<String>, Error> {
        self.client
            .query_raw(
                "SELECT comment FROM system.tables
                 WHERE database = {database: String} AND name = {table: String}",
            )
            .param("database", &self.name)
            .param("table", table)
            .fetch_optional::<String>()
            .await
            .map_err(|source| self.failed(source, "reading the tables' comments"))
    }
}

/// The projection of a domain's events into ClickHouse.
pub struct ClickHouse<B> {
    pub(super) database: Database,
    blocks: Arc<B>,
    /// The generation in use, if it is not this one.
    target: Option<i32>,
    pub(super) generation: AtomicI32,
}

impl<B: Blocks> ClickHouse<B> {
    /// Puts blocks and database together.
    #[must_use]
    pub fn new(database: Database, blocks: B) -> Self {
        let (blocks, generation) = (Arc::new(blocks), AtomicI32::new(1));
        Self { database, blocks, target: None, generation }
    }

    /// The same over a generation, or over the one in use, with nothing prepared yet.
    pub(super) fn with_target(&self, target: Option<i32>) -> Self {
        let (database, blocks) = (self.database.clone(), Arc::clone(&self.blocks));
        Self { database, blocks, target, generation: AtomicI32::new(target.unwrap_or(1)) }
    }

    /// The table's name within its database: `banking_event_g1`.
    pub(super) fn table(&self) -> String {
        self.table_of(self.generation())
    }

    pub(super) fn table_of(&self, generation: i32) -> String {
        format!("{}_event_g{generation}", self.definition().domain)
    }

    /// The view that shows the generation in use, and names it.
    pub(super) fn view(&self) -> &'static str {
        self.definition().domain
    }

    async fn insert(&self, source: &Source, block: Block, token: &str) -> Result<(), Error> {
        // The nonce: the server's memory of tokens may outlive the rows.
        let Source { topic_id, partition, nonce, .. } = source;
        let token = format!("{topic_id} {partition} {token} {nonce:x}");
        let action = format!("inserting {} rows of {}", block.rows(), source.topic);
        let (table, columns) = (self.table(), self.blocks.columns());
        self.database.insert(&table, columns, block, &token, &action).await
    }

    /// What is parked of this generation.
    fn parked_events(&self) -> ParkedEvents<'_> {
        ParkedEvents::new(&self.database, self.name(), self.generation())
    }

    /// Folds records into one block.
    async fn fold(&self, source: &Source, batch: &Batch) -> Result<(Applied, Block), Failure> {
        let epoch = batch.from.epoch;
        let bytes: usize = batch.records.iter().map(Record::byte_count).sum();
        let mut block = Block::new(self.blocks.columns(), bytes + bytes / 4);
        let folded = fold(batch, None, |head: &Head<'_>, record: &Record| {
            self.blocks.take(source, epoch, head, record, &mut block)
        });
        let applied = folded.await.map_err(Failure::Refused)?;
        Ok((applied, block))
    }
}

impl<B: Blocks> Store for ClickHouse<B> {
    fn name(&self) -> String {
        format!("clickhouse.{}", self.definition().domain)
    }

    fn definition(&self) -> &Definition {
        self.blocks.definition()
    }

    fn generation(&self) -> i32 {
        self.generation.load(Ordering::Relaxed)
    }

    fn anew(&self) -> Self {
        self.with_target(None)
    }

    async fn in_use(&self) -> Result<InUse, Error> {
        let asked = self
            .database
            .client
            .query_raw(
                "SELECT comment, toUnixTimestamp64Milli(now64(3)) FROM system.tables
                 WHERE database = {database: String} AND name = {table: String}",
            )
            .param("database", &self.database.name)
            .param("table", self.view())
            .fetch_optional::<(String, i64)>()
            .await
            .map_err(|error| self.database.failed(error, "asking for the generation in use"))?;
        let shown = asked.and_then(|(comment, now)| Some((Shown::read(&comment)?, now)));
        let Some((shown, now)) = shown else {
            return Ok(InUse { generation: 1, is_held: false });
        };
        let is_held = shown.held_until.is_some_and(|until| now < until);
        Ok(InUse { generation: shown.generation, is_held })
    }

    async fn prepare(&self) -> Result<(), Error> {
        let database = &self.database;
        let make = format!("CREATE DATABASE IF NOT EXISTS {} ENGINE = Atomic", database.name);
        database.execute(&make, "making the database").await?;
        parked::prepare(database).await?;
        match self.target {
            None => self.open_in_use().await,
            Some(generation) => self.open(generation).await,
        }
    }

    async fn read_held(&self, source: &Source) -> Result<Held, Error> {
        let statement = format!(
            "SELECT topic_id, epoch, min(kafka_offset) AS first, max(kafka_offset) AS last
             FROM {}.{} WHERE aggregate = {{aggregate: String}}
             AND kafka_partition = {{partition: Int32}} GROUP BY topic_id, epoch",
            self.database.name,
            self.table()
        );
        let rows: Vec<EpochRow> = self
            .database
            .client
            .query_raw(&statement)
            .param("aggregate", source.aggregate.aggregate)
            .param("partition", source.partition)
            .fetch_all()
            .await
            .map_err(|error| self.database.failed(error, "reading where the rows end"))?;
        let parked = self.parked_events().streams(source).await?;
        Ok(parked.beside(held(&rows, source.topic_id)))
    }

    /// The rows are the checkpoint: a new epoch begins with its stamp in Kafka, and the old rows
    /// stay until the new ones stand beside them. What is parked and will be read again goes.
    async fn reset(
        &self,
        source: &Source,
        _expected: Option<Place>,
        place: Place,
        _clear: bool,
    ) -> Result<bool, Error> {
        self.parked_events().clear(source, place).await?;
        Ok(true)
    }

    /// What is parked goes first: the rows say how far the partition is.
    async fn apply(&self, source: &Source, batch: Arc<Batch>) -> Result<Applied, Failure> {
        let (applied, block) = self.fold(source, &batch).await?;
        let aside: Vec<_> = batch.parked_before(applied.next_offset).collect();
        if !aside.is_empty() {
            self.parked_events().insert(source, batch.from, &aside).await?;
        }
        if block.rows() > 0 {
            let Place { epoch, next_offset, .. } = batch.from;
            let token = format!("{epoch} {next_offset} {}", applied.next_offset);
            let inserted = self.insert(source, block, &token).await;
            inserted.map_err(|error| pointed_out(error.into(), &batch))?;
        }
        Ok(applied)
    }

    /// The rows first: what is applied and still on the list is applied once more, into the same.
    /// Only what stands before the place: the rows' end says how far the partition is.
    async fn redrive(
        &self,
        source: &Source,
        from: Place,
        stream: &str,
        rows: usize,
    ) -> Result<Redriven, Failure> {
        let parked = self.parked_events();
        let mut records = parked.oldest(source, stream, rows.saturating_add(1)).await?;
        let all = records.len();
        records.truncate(rows);
        records.retain(|record| record.offset < from.next_offset);
        let batch = Batch { from, records, ..Batch::default() };
        let (applied, block) = self.fold(source, &batch).await?;
        let done: Vec<i64> = batch.records.iter().map(|record| record.offset).collect();
        let done = &done[..done.partition_point(|offset| *offset < applied.next_offset)];
        if let Some(obstacle) = applied.obstacle.filter(|_| done.is_empty()) {
            return Err(refused(&obstacle));
        }
        let (first, last) = (done.first().copied(), done.last().copied());
        if block.rows() > 0 {
            let token = format!("{} again {first:?} {last:?}", from.epoch);
            let inserted = self.insert(source, block, &token).await;
            inserted.map_err(|error| pointed_out(error.into(), &batch))?;
        }
        parked.delete(source, from, done).await?;
        let has_more = done.len() < all;
        if !has_more {
            parked.handled(source, stream).await?;
        }
        Ok(Redriven { events: done.len() as u64, has_more })
    }

    async fn keep(&self, source: &Source, stream: &str, refusal: &Refusal) -> Result<(), Error> {
        self.parked_events().keep(source, stream, refusal).await
    }

    async fn parked(&self) -> Result<Vec<Count>, Error> {
        self.parked_events().count().await
    }
}
