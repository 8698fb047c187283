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
use ::clickhouse::{Client, Compression, Row};
use bytes::Bytes;
use serde::Deserialize;
use uuid::Uuid;

use super::block::Block;
use super::fold::fold;
use super::generation::tables_hash;
use super::parked::clickhouse::{self as parked, ParkedEvents};
use super::parked::{Count, pointed_out};
use super::redrive::refused;
use super::{Definition, Error, Source, Store};
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

    async fn comment(&self, table: &str) -> Result<Option<String>, Error> {
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
    database: Database,
    blocks: B,
    generation: AtomicI32,
}

#[derive(Row, Deserialize)]
struct EpochRow {
    #[serde(with = "::clickhouse::serde::uuid")]
    topic_id: Uuid,
    epoch: u32,
    first: i64,
    last: i64,
}

impl<B: Blocks> ClickHouse<B> {
    /// Puts blocks and database together.
    #[must_use]
    pub const fn new(database: Database, blocks: B) -> Self {
        Self { database, blocks, generation: AtomicI32::new(1) }
    }

    /// The table's name within its database: `banking_event_g1`.
    fn table(&self) -> String {
        let generation = self.generation.load(Ordering::Relaxed);
        format!("{}_event_g{generation}", self.definition().domain)
    }

    fn fill(&self, template: &str, hash: &str) -> String {
        let generation = self.generation.load(Ordering::Relaxed);
        template
            .replace("{database}", &self.database.name)
            .replace("{table}", &self.table())
            .replace("{generation}", &generation.to_string())
            .replace("{made_by}", &self.made_by(hash))
    }

    fn made_by(&self, hash: &str) -> String {
        format!("version {} tables {hash}", self.definition().version)
    }

    /// Points `event`, the view over all domains, at those that there are.
    async fn join_domains(&self) -> Result<(), Error> {
        let database = &self.database.name;
        let action = "making the view over all domains";
        // Two domains may start at once: whoever is last sees both.
        for _ in 0..5 {
            let domains = self.domains().await?;
            let parts: Vec<String> =
                domains.iter().map(|view| format!("SELECT * FROM {database}.{view}")).collect();
            let statement = format!(
                "CREATE OR REPLACE VIEW {database}.event AS\n{}\n\
                 COMMENT 'Every event of every domain, once each'",
                parts.join("\nUNION ALL\n")
            );
            self.database.execute(&statement, action).await?;
            if self.domains().await? == domains {
                break;
            }
        }
        Ok(())
    }

    async fn domains(&self) -> Result<Vec<String>, Error> {
        self.database
            .client
            .query_raw(
                "SELECT name FROM system.tables WHERE database = {database: String}
                 AND engine = 'View' AND endsWith(name, '_event') ORDER BY name",
            )
            .param("database", &self.database.name)
            .fetch_all::<String>()
            .await
            .map_err(|source| self.database.failed(source, "listing the domains' views"))
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
        let generation = self.generation.load(Ordering::Relaxed);
        ParkedEvents::new(&self.database, self.name(), generation)
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

    async fn prepare(&self) -> Result<(), Error> {
        let database = &self.database;
        let make = format!("CREATE DATABASE IF NOT EXISTS {} ENGINE = Atomic", database.name);
        database.execute(&make, "making the database").await?;
        parked::prepare(database).await?;
        let domain = self.definition().domain;
        let live = database.comment(&format!("{domain}_event")).await?;
        let live = live.as_deref().and_then(generation_of).unwrap_or(1);
        self.generation.store(live, Ordering::Relaxed);
        let hash = tables_hash(self.definition());
        for table in self.definition().tables {
            let statement = self.fill(table, &hash);
            let action = format!("making table {}", self.table());
            database.execute(&statement, &action).await?;
        }
        let made_by = database.comment(&self.table()).await?.unwrap_or_default();
        if made_by != self.made_by(&hash) {
            return Err(Error::Outdated { projection: self.name(), generation: live });
        }
        for view in self.definition().views {
            let statement = self.fill(view, &hash);
            database.execute(&statement, &format!("making the views of {domain}")).await?;
        }
        self.join_domains().await
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

/// What the rows of a partition say about where it stands.
fn held(rows: &[EpochRow], topic_id: Uuid) -> Held {
    let ours: Vec<&EpochRow> = rows.iter().filter(|row| row.topic_id == topic_id).collect();
    let Some(newest) = ours.iter().max_by_key(|row| row.epoch) else {
        let other = rows.first().map(|row| row.topic_id);
        return Held { topic_id: other, ..Held::default() };
    };
    Held {
        place: Some(Place {
            epoch: newest.epoch,
            epoch_start: newest.first,
            next_offset: newest.last + 1,
        }),
        topic_id: Some(topic_id),
        rows_end: ours.iter().map(|row| row.last + 1).max(),
        ..Held::default()
    }
}

/// The generation that a view's comment names.
fn generation_of(comment: &str) -> Option<i32> {
    let (_, rest) = comment.split_once("(generation ")?;
    rest.split_once(')')?.0.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOPIC: Uuid = Uuid::from_u128(7);

    fn row(topic_id: Uuid, epoch: u32, first: i64, last: i64) -> EpochRow {
        EpochRow { topic_id, epoch, first, last }
    }

    #[test]
    fn the_newest_epochs_rows_are_the_checkpoint() {
        let rows = [row(TOPIC, 0, 0, 99), row(TOPIC, 1, 40, 59)];
        let held = held(&rows, TOPIC);
        let place = Place { epoch: 1, epoch_start: 40, next_offset: 60 };
        assert_eq!(held.place, Some(place));
        assert_eq!(held.rows_end, Some(100));
    }

    #[test]
    fn rows_of_another_topic_are_no_checkpoint() {
        let other = Uuid::from_u128(8);
        let found = held(&[row(other, 3, 0, 9)], TOPIC);
        assert_eq!((found.place, found.topic_id), (None, Some(other)));
        let found = held(&[row(other, 3, 0, 9), row(TOPIC, 0, 0, 4)], TOPIC);
        assert_eq!(found.place.map(|place| place.next_offset), Some(5));
        assert_eq!(held(&[], TOPIC), Held::default());
    }

    #[test]
    fn a_views_comment_names_its_generation() {
        assert_eq!(generation_of("Every event (generation 12)"), Some(12));
        assert_eq!(generation_of("something else"), None);
    }
}
