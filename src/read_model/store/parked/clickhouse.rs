//! Parked events in ClickHouse: `failed_event`, one row an event, the newest revision counts.
//!
//! Each epoch has four revisions of an event: a replay that will read it again takes it off the
//! list, it is parked, its error is told anew, it was applied and is gone. So a slow owner's reset
//! takes nothing off that was parked in the epoch that it began.

use std::collections::BTreeMap;

use ::clickhouse::Row;
use serde::Deserialize;
use uuid::Uuid;

use super::{Count, event_type, headers_from_json, headers_to_json, identity};
use crate::engine::projector::Refusal;
use crate::kernel::message::Record;
use crate::kernel::projection::{Cause, Held, Parked, Place};
use crate::read_model::store::block::Block;
use crate::read_model::store::clickhouse::Database;
use crate::read_model::store::{Error, Source};

/// What is written of a parked event, in this order.
const COLUMNS: [(&str, &str); 19] = [
    ("projection", "LowCardinality(String)"),
    ("generation", "Int32"),
    ("topic", "LowCardinality(String)"),
    ("partition", "Int32"),
    ("kafka_offset", "Int64"),
    ("topic_id", "UUID"),
    ("epoch", "UInt32"),
    ("stream", "String"),
    ("position", "UInt64"),
    ("event_time_ms", "Int64"),
    ("event_type", "LowCardinality(String)"),
    ("event_key", "String"),
    ("event_data", "String"),
    ("event_headers", "String"),
    ("error_code", "LowCardinality(String)"),
    ("error_message", "String"),
    ("attempts", "UInt32"),
    ("revision", "UInt64"),
    ("is_gone", "UInt8"),
];

/// What follows on an event in one epoch. An owner that reads a parked tail again finds all of it
/// behind what is parked already: that must not hide why the first was put aside.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Revision {
    Cleared,
    Behind,
    Parked,
    Kept,
    Applied,
}

const REVISIONS: u64 = 5;

impl Revision {
    const fn of(self, epoch: u32) -> u64 {
        epoch as u64 * REVISIONS + self as u64
    }
}

/// Makes the tables that are not there yet.
pub(in crate::read_model::store) async fn prepare(database: &Database) -> Result<(), Error> {
    for table in [include_str!("clickhouse.sql"), include_str!("clickhouse_requests.sql")] {
        let statement = table.replace("{database}", database.name());
        database.execute(&statement, "making the tables of parked events").await?;
    }
    Ok(())
}

/// One projection's parked events.
pub(in crate::read_model::store) struct ParkedEvents<'a> {
    database: &'a Database,
    projection: String,
    generation: i32,
    table: String,
}

/// The parked streams of a partition, and where they say that it stands.
#[derive(Debug, Default)]
pub(in crate::read_model::store) struct Streams {
    first: BTreeMap<String, i64>,
    epoch: u32,
    topic_id: Option<Uuid>,
}

impl Streams {
    /// Adds them to what the rows say. Without any row they name no place: nobody can tell whether
    /// what stands before the first of them left none, or its rows are lost.
    pub(in crate::read_model::store) fn beside(self, held: Held) -> Held {
        let Self { first, epoch, topic_id } = self;
        if held.place.is_none() && held.topic_id.is_none() && !first.is_empty() {
            let parked_epoch = Some(epoch);
            return Held { topic_id, parked: first, parked_epoch, ..held };
        }
        Held { parked: first, ..held }
    }
}

#[derive(Row, Deserialize)]
struct StreamRow {
    stream: String,
    first: i64,
    newest: u32,
    #[serde(with = "::clickhouse::serde::uuid")]
    id: Uuid,
}

#[derive(Row, Deserialize)]
pub(super) struct EventRow {
    pub(super) projection: String,
    pub(super) generation: i32,
    pub(super) topic: String,
    pub(super) partition: i32,
    pub(super) kafka_offset: i64,
    pub(super) event_time_ms: i64,
    #[serde(with = "serde_bytes")]
    pub(super) event_key: Vec<u8>,
    #[serde(with = "serde_bytes")]
    pub(super) event_data: Vec<u8>,
    pub(super) event_headers: String,
    pub(super) error_code: String,
    pub(super) error_message: String,
    pub(super) attempts: u32,
    pub(super) created_us: i64,
    pub(super) is_wanted: u8,
}

#[derive(Row, Deserialize)]
struct CountRow {
    projection: String,
    topic: String,
    partition: i32,
    events: u64,
    streams: u64,
}

#[derive(Row, Deserialize)]
struct WantedRow {
    topic: String,
    partition: i32,
    stream: String,
}

pub(super) const EVENT: &str =
    "projection, generation, topic, partition, kafka_offset, event_time_ms,
    event_key, event_data, event_headers, error_code, error_message, attempts,
    toUnixTimestamp64Micro(created_at) AS created_us";

/// The streams that somebody waits for.
pub(super) const WANTED: &str = "GROUP BY projection, generation, topic, partition, stream
    HAVING max(requested_at) > max(handled_at)";

impl<'a> ParkedEvents<'a> {
    pub(in crate::read_model::store) fn new(
        database: &'a Database,
        projection: String,
        generation: i32,
    ) -> Self {
        let table = format!("{}.failed_event", database.name());
        Self { database, projection, generation, table }
    }

    /// `WHERE` for one partition.
    fn of(&self, source: &Source) -> String {
        let (projection, topic) = (quoted(&self.projection), quoted(&source.topic));
        let (generation, partition) = (self.generation, source.partition);
        format!(
            "projection = {projection} AND generation = {generation} AND topic = {topic}
             AND partition = {partition}"
        )
    }

    /// Puts events aside.
    pub(in crate::read_model::store) async fn insert(
        &self,
        source: &Source,
        from: Place,
        parked: &[&Parked],
    ) -> Result<(), Error> {
        let bytes: usize = parked.iter().map(|parked| parked.record.byte_count()).sum();
        let mut block = Block::new(&COLUMNS, bytes + parked.len() * 256);
        for parked in parked {
            let Parked { record, cause, error, attempts } = parked;
            let (stream, sequence) = identity(record);
            block.text(&self.projection);
            block.int32(self.generation);
            block.text(&source.topic);
            block.int32(source.partition);
            block.int64(record.offset);
            block.uuid(source.topic_id);
            block.uint32(from.epoch);
            block.text(stream);
            block.uint64(sequence);
            block.int64(record.timestamp_ms);
            block.text(event_type(record));
            block.bytes(record.key.as_deref().unwrap_or_default());
            block.bytes(record.value.as_deref().unwrap_or_default());
            block.text(&headers_to_json(&record.headers).to_string());
            block.text(cause.as_str());
            block.text(error);
            block.uint32(*attempts);
            let is_behind = *cause == Cause::BehindParked;
            let revision = if is_behind { Revision::Behind } else { Revision::Parked };
            block.uint64(revision.of(from.epoch));
            block.uint8(0);
            block.end_row();
        }
        let action = format!("parking {} events of {}", parked.len(), source.topic);
        // Nothing looks at the token: what comes twice has the same key.
        self.database.insert("failed_event", &COLUMNS, block, "", &action).await
    }

    /// The parked streams of a partition.
    pub(in crate::read_model::store) async fn streams(
        &self,
        source: &Source,
    ) -> Result<Streams, Error> {
        let select = format!(
            "SELECT stream, min(kafka_offset) AS first, max(epoch) AS newest,
                 any(topic_id) AS id
             FROM {} FINAL WHERE {} GROUP BY stream",
            self.table,
            self.of(source)
        );
        let rows: Vec<StreamRow> = self.rows(&select, "reading the parked streams").await?;
        Ok(Streams {
            epoch: rows.iter().map(|row| row.newest).max().unwrap_or_default(),
            topic_id: rows.first().map(|row| row.id),
            first: rows.into_iter().map(|row| (row.stream, row.first)).collect(),
        })
    }

    /// A stream's oldest parked events.
    pub(in crate::read_model::store) async fn oldest(
        &self,
        source: &Source,
        stream: &str,
        rows: usize,
    ) -> Result<Vec<Record>, Error> {
        let select = format!(
            "SELECT {EVENT}, toUInt8(0) AS is_wanted FROM {} FINAL WHERE {} AND stream = {}
             ORDER BY kafka_offset LIMIT {rows}",
            self.table,
            self.of(source),
            quoted(stream)
        );
        let rows: Vec<EventRow> = self.rows(&select, "reading parked events").await?;
        Ok(rows.into_iter().map(record).collect())
    }

    /// Takes events off the list: they are applied.
    pub(in crate::read_model::store) async fn delete(
        &self,
        source: &Source,
        from: Place,
        offsets: &[i64],
    ) -> Result<(), Error> {
        if offsets.is_empty() {
            return Ok(());
        }
        let offsets: Vec<String> = offsets.iter().map(i64::to_string).collect();
        let which = format!("kafka_offset IN ({})", offsets.join(", "));
        self.off_the_list(source, &which, Revision::Applied.of(from.epoch)).await
    }

    /// Forgets the streams whose first parked event will be read again.
    pub(in crate::read_model::store) async fn clear(
        &self,
        source: &Source,
        place: Place,
    ) -> Result<(), Error> {
        let which = format!(
            "stream IN (SELECT stream FROM {} FINAL WHERE {} GROUP BY stream
                        HAVING min(kafka_offset) >= {})",
            self.table,
            self.of(source),
            place.next_offset
        );
        self.off_the_list(source, &which, Revision::Cleared.of(place.epoch)).await
    }

    async fn off_the_list(&self, source: &Source, which: &str, revision: u64) -> Result<(), Error> {
        // Its stream too: while a replay has not come to it, it is neither here nor in a row, and
        // the auditor must know (`audit::clickhouse`).
        let (table, key) = (
            &self.table,
            "projection, generation, topic, partition, kafka_offset, topic_id, stream, position",
        );
        let insert = format!(
            "INSERT INTO {table} ({key}, revision, is_gone)
             SELECT {key}, {revision}, 1 FROM {table} FINAL WHERE {} AND {which}",
            self.of(source)
        );
        self.database.execute(&insert, "taking parked events off the list").await
    }

    /// Writes down why a stream's first event stays, and that nobody waits for it any more.
    pub(in crate::read_model::store) async fn keep(
        &self,
        source: &Source,
        stream: &str,
        refusal: &Refusal,
    ) -> Result<(), Error> {
        let names: Vec<&str> = COLUMNS.iter().map(|(name, _)| *name).collect();
        let kept = |name: &&str| match *name {
            "error_code" => quoted(refusal.cause.as_str()),
            "error_message" => quoted(&refusal.reason),
            "attempts" => "attempts + 1".to_owned(),
            "revision" => {
                let kept = Revision::Kept as u64;
                format!("intDiv(revision, {REVISIONS}) * {REVISIONS} + {kept}")
            }
            other => other.to_owned(),
        };
        let values: Vec<String> = names.iter().map(kept).collect();
        let insert = format!(
            "INSERT INTO {table} ({}, created_at) SELECT {}, created_at
             FROM {table} FINAL WHERE {} AND stream = {} ORDER BY kafka_offset LIMIT 1",
            names.join(", "),
            values.join(", "),
            self.of(source),
            quoted(stream),
            table = self.table,
        );
        self.database.execute(&insert, "keeping parked events").await?;
        self.handled(source, stream).await
    }

    /// Nobody waits for a stream any more.
    pub(in crate::read_model::store) async fn handled(
        &self,
        source: &Source,
        stream: &str,
    ) -> Result<(), Error> {
        let insert = format!(
            "INSERT INTO {}.failed_event_request
                 (projection, generation, topic, partition, stream, handled_at)
             SELECT {}, {}, {}, {}, {}, now64(6)",
            self.database.name(),
            quoted(&self.projection),
            self.generation,
            quoted(&source.topic),
            source.partition,
            quoted(stream)
        );
        self.database.execute(&insert, "closing a request for parked events").await
    }

    /// How many events are parked, and which streams somebody wants back.
    pub(in crate::read_model::store) async fn count(&self) -> Result<Vec<Count>, Error> {
        let own = format!(
            "projection = {} AND generation = {}",
            quoted(&self.projection),
            self.generation
        );
        let mut counts = counts(self.database, &own).await?;
        if counts.is_empty() {
            return Ok(counts);
        }
        let wanted = format!(
            "SELECT topic, partition, stream FROM {}.failed_event_request
             WHERE {own} AND (topic, partition, stream) IN (
                 SELECT topic, partition, stream FROM {} FINAL WHERE {own})
             {WANTED}",
            self.database.name(),
            self.table
        );
        let wanted: Vec<WantedRow> = self.rows(&wanted, "reading what is wanted back").await?;
        for WantedRow { topic, partition, stream } in wanted {
            let same = |count: &&mut Count| count.topic == topic && count.partition == partition;
            if let Some(count) = counts.iter_mut().find(same) {
                count.wanted.push(stream);
            }
        }
        Ok(counts)
    }

    async fn rows<T>(&self, select: &str, action: &str) -> Result<Vec<T>, Error>
    where
        T: ::clickhouse::RowOwned + ::clickhouse::RowRead,
    {
        fetch(self.database, select, action).await
    }
}

pub(super) async fn fetch<T>(
    database: &Database,
    select: &str,
    action: &str,
) -> Result<Vec<T>, Error>
where
    T: ::clickhouse::RowOwned + ::clickhouse::RowRead,
{
    let rows = database.client().query_raw(select).fetch_all::<T>().await;
    rows.map_err(|error| database.failed(error, action))
}

pub(super) async fn counts(database: &Database, of: &str) -> Result<Vec<Count>, Error> {
    let select = format!(
        "SELECT projection, topic, partition, count() AS events, uniqExact(stream) AS streams
         FROM {}.failed_event FINAL WHERE {of}
         GROUP BY projection, topic, partition ORDER BY projection, topic, partition",
        database.name()
    );
    let rows: Vec<CountRow> = fetch(database, &select, "counting the parked events").await?;
    let count = |row: CountRow| {
        let CountRow { projection, topic, partition, events, streams } = row;
        Count { projection, topic, partition, events, streams, wanted: Vec::new() }
    };
    Ok(rows.into_iter().map(count).collect())
}

/// A text as a literal in a statement.
pub(super) fn quoted(text: &str) -> String {
    let text = text.replace('\\', "\\\\").replace('\'', "\\'").replace('\0', "\\0");
    format!("'{text}'")
}

pub(super) fn record(row: EventRow) -> Record {
    Record {
        offset: row.kafka_offset,
        timestamp_ms: row.event_time_ms,
        key: Some(row.event_key.into()),
        value: Some(row.event_data.into()),
        headers: headers_from_json(&row.event_headers),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_epochs_reset_undoes_this_ones_and_nothing_of_its_own() {
        assert!(Revision::Applied.of(3) < Revision::Cleared.of(4));
        assert!(Revision::Cleared.of(4) < Revision::Behind.of(4));
        assert!(Revision::Behind.of(4) < Revision::Parked.of(4));
        assert!(Revision::Kept.of(4) < Revision::Applied.of(4));
    }

    #[test]
    fn parked_events_alone_name_no_place() {
        let streams = Streams {
            first: BTreeMap::from([("a".to_owned(), 7), ("b".to_owned(), 4)]),
            epoch: 2,
            topic_id: Some(Uuid::from_u128(7)),
        };
        let held = streams.beside(Held::default());
        assert_eq!((held.place, held.parked_epoch), (None, Some(2)));
        assert_eq!((held.topic_id, held.parked.len()), (Some(Uuid::from_u128(7)), 2));
        assert_eq!(Streams::default().beside(Held::default()), Held::default());
    }

    #[test]
    fn a_text_stays_within_its_quotes() {
        assert_eq!(quoted("a'; DROP\\"), "'a\\'; DROP\\\\'");
    }
}
