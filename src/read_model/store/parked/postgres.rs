//! Parked events in Postgres: `millrace.failed_event`, in the transaction of rows and checkpoint.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use deadpool_postgres::Transaction;
use tokio_postgres::error::SqlState;
use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, Row};

use super::{Count, Filter, Letter, event_type, headers_from_json, headers_to_json, identity};
use super::{ERROR_CHARS_MAX, without_nul};
use crate::engine::projector::Refusal;
use crate::kernel::message::Record;
use crate::kernel::projection::Parked;
use crate::kernel::stream::parse_event_key;
use crate::kernel::time::Timestamp;
use crate::read_model::store::generation::Generation;
use crate::read_model::store::postgres::Database;
use crate::read_model::store::{Error, Source};

type Params<'a> = Vec<&'a (dyn ToSql + Sync)>;

/// One projection's parked events.
#[derive(Clone, Debug)]
pub(in crate::read_model::store) struct ParkedEvents {
    projection: String,
    generation: i32,
    table: String,
}

const KEY: &str = "projection = $1 AND generation = $2 AND topic = $3 AND partition = $4";
const EVENT: &str = "kafka_offset, event_time_ms, event_key, event_data, event_headers";

impl ParkedEvents {
    pub(in crate::read_model::store) fn new(projection: &str, generation: &Generation) -> Self {
        Self {
            projection: projection.to_owned(),
            generation: generation.number,
            table: format!("{}.failed_event", generation.millrace),
        }
    }

    fn key<'a>(&'a self, source: &'a Source) -> Params<'a> {
        vec![&self.projection, &self.generation, &source.topic, &source.partition]
    }

    /// Puts events aside. One that is there already is left alone.
    pub(in crate::read_model::store) async fn insert(
        &self,
        transaction: &Transaction<'_>,
        source: &Source,
        parked: Vec<&Parked>,
    ) -> Result<(), tokio_postgres::Error> {
        if parked.is_empty() {
            return Ok(());
        }
        let statement = format!(
            "INSERT INTO {} (projection, generation, topic, partition, stream, position,
                 kafka_offset, event_time_ms, event_type, event_key, event_data, event_headers,
                 error_code, error_message, attempts)
             SELECT $1::text, $2::integer, $3::text, $4::integer, e.* FROM UNNEST(
                 $5::text[], $6::bigint[], $7::bigint[], $8::bigint[], $9::text[], $10::bytea[],
                 $11::bytea[], $12::text[], $13::text[], $14::text[], $15::integer[]) AS e
             ON CONFLICT DO NOTHING",
            self.table
        );
        let all = || parked.iter().map(|parked| &parked.record);
        let streams: Vec<String> = all().map(|record| without_nul(identity(record).0)).collect();
        let sequences: Vec<i64> = all().map(|record| identity(record).1.cast_signed()).collect();
        let offsets: Vec<i64> = all().map(|record| record.offset).collect();
        let times: Vec<i64> = all().map(|record| record.timestamp_ms).collect();
        let types: Vec<String> = all().map(|record| without_nul(event_type(record))).collect();
        let keys: Vec<&[u8]> = all().map(|record| bytes(record.key.as_deref())).collect();
        let values: Vec<&[u8]> = all().map(|record| bytes(record.value.as_deref())).collect();
        let headers: Vec<String> =
            all().map(|record| headers_to_json(&record.headers).to_string()).collect();
        let codes: Vec<&str> = parked.iter().map(|parked| parked.cause.as_str()).collect();
        let errors: Vec<String> = parked.iter().map(|parked| without_nul(&parked.error)).collect();
        let attempts: Vec<i32> =
            parked.iter().map(|parked| parked.attempts.cast_signed()).collect();
        let mut values_of = self.key(source);
        values_of.extend::<Params<'_>>(vec![
            &streams, &sequences, &offsets, &times, &types, &keys, &values, &headers, &codes,
            &errors, &attempts,
        ]);
        let statement = transaction.prepare_cached(&statement).await?;
        transaction.execute(&statement, &values_of).await?;
        Ok(())
    }

    /// The parked streams of a partition, each with the offset of its first event.
    pub(in crate::read_model::store) async fn streams(
        &self,
        client: &Client,
        source: &Source,
    ) -> Result<BTreeMap<String, i64>, Error> {
        let select = format!(
            "SELECT DISTINCT ON (stream) event_key, kafka_offset FROM {} WHERE {KEY}
             ORDER BY stream, kafka_offset",
            self.table
        );
        let rows = client.query(&select, &self.key(source)).await;
        let rows = rows.map_err(Error::postgres("reading the parked streams"))?;
        let stream = |row: &Row| {
            let (stream, _) = parse_event_key(row.get("event_key"))?;
            Some((stream.to_owned(), row.get("kafka_offset")))
        };
        Ok(rows.iter().filter_map(stream).collect())
    }

    /// A stream's oldest parked events, locked.
    pub(in crate::read_model::store) async fn oldest(
        &self,
        transaction: &Transaction<'_>,
        source: &Source,
        stream: &str,
        rows: usize,
    ) -> Result<Vec<Record>, tokio_postgres::Error> {
        let select = format!(
            "SELECT {EVENT} FROM {} WHERE {KEY} AND stream = $5
             ORDER BY kafka_offset LIMIT $6 FOR UPDATE",
            self.table
        );
        let (stream, limit) = (without_nul(stream), i64::try_from(rows).unwrap_or(i64::MAX));
        let mut values = self.key(source);
        values.extend::<Params<'_>>(vec![&stream, &limit]);
        let rows = transaction.query(&select, &values).await?;
        Ok(rows.iter().map(record).collect())
    }

    /// Takes a stream's events up to that offset off the list; says whether it has more.
    pub(in crate::read_model::store) async fn delete(
        &self,
        transaction: &Transaction<'_>,
        source: &Source,
        stream: &str,
        end: i64,
    ) -> Result<bool, tokio_postgres::Error> {
        let table = &self.table;
        let stream = without_nul(stream);
        let mut values = self.key(source);
        values.push(&stream);
        let rest = format!(
            "SELECT EXISTS (SELECT 1 FROM {table} WHERE {KEY} AND stream = $5
                            AND kafka_offset >= $6) AS more"
        );
        let delete =
            format!("DELETE FROM {table} WHERE {KEY} AND stream = $5 AND kafka_offset < $6");
        values.push(&end);
        transaction.execute(&delete, &values).await?;
        Ok(transaction.query_one(&rest, &values).await?.get("more"))
    }

    /// Forgets the streams whose first parked event will be read again.
    pub(in crate::read_model::store) async fn clear(
        &self,
        transaction: &Transaction<'_>,
        source: &Source,
        from: i64,
    ) -> Result<(), tokio_postgres::Error> {
        let table = &self.table;
        let delete = format!(
            "DELETE FROM {table} WHERE {KEY} AND stream IN (
                 SELECT stream FROM {table} WHERE {KEY}
                 GROUP BY stream HAVING min(kafka_offset) >= $5)"
        );
        let mut values = self.key(source);
        values.push(&from);
        transaction.execute(&delete, &values).await?;
        Ok(())
    }

    /// Writes down why a stream's first event stays, and that nobody waits for it any more.
    pub(in crate::read_model::store) async fn keep(
        &self,
        client: &Client,
        source: &Source,
        stream: &str,
        refusal: &Refusal,
    ) -> Result<(), Error> {
        let table = &self.table;
        let update = format!(
            "WITH oldest AS (SELECT min(kafka_offset) AS at FROM {table}
                             WHERE {KEY} AND stream = $5)
             UPDATE {table} AS t SET redrive_requested_at = NULL,
                 error_code = CASE WHEN t.kafka_offset = oldest.at THEN $6 ELSE error_code END,
                 error_message =
                     CASE WHEN t.kafka_offset = oldest.at THEN $7 ELSE error_message END,
                 attempts = attempts + (t.kafka_offset = oldest.at)::integer
             FROM oldest WHERE {KEY} AND stream = $5"
        );
        let (stream, error) = (without_nul(stream), without_nul(&refusal.reason));
        let error: String = error.chars().take(ERROR_CHARS_MAX).collect();
        let code = refusal.cause.as_str();
        let mut values = self.key(source);
        values.extend::<Params<'_>>(vec![&stream, &code, &error]);
        let updated = client.execute(&update, &values).await;
        updated.map_err(Error::postgres("keeping parked events"))?;
        Ok(())
    }

    /// How many events are parked, and which streams somebody wants back.
    pub(in crate::read_model::store) async fn count(
        &self,
        client: &Client,
    ) -> Result<Vec<Count>, Error> {
        let failed = || Error::postgres("counting the parked events");
        let of = "projection = $1 AND generation = $2";
        let own: [&(dyn ToSql + Sync); 2] = [&self.projection, &self.generation];
        let mut counts = counts(client, &self.table, of, &own).await?;
        let wanted = format!(
            "SELECT DISTINCT ON (topic, partition, stream) topic, partition, event_key FROM {}
             WHERE projection = $1 AND generation = $2 AND redrive_requested_at IS NOT NULL",
            self.table
        );
        for row in client.query(&wanted, &own).await.map_err(failed())? {
            let (topic, partition): (String, i32) = (row.get("topic"), row.get("partition"));
            let count = counts
                .iter_mut()
                .find(|count| count.topic == topic && count.partition == partition);
            let stream = parse_event_key(row.get("event_key")).map(|(stream, _)| stream.to_owned());
            if let (Some(count), Some(stream)) = (count, stream) {
                count.wanted.push(stream);
            }
        }
        Ok(counts)
    }
}

fn bytes(part: Option<&[u8]>) -> &[u8] {
    part.unwrap_or_default()
}

fn record(row: &Row) -> Record {
    let bytes = |name: &str| Some(row.get::<_, &[u8]>(name).into());
    Record {
        offset: row.get("kafka_offset"),
        timestamp_ms: row.get("event_time_ms"),
        key: bytes("event_key"),
        value: bytes("event_data"),
        headers: headers_from_json(row.get("event_headers")),
    }
}

async fn counts(
    client: &Client,
    table: &str,
    of: &str,
    values: &[&(dyn ToSql + Sync)],
) -> Result<Vec<Count>, Error> {
    let select = format!(
        "SELECT projection, topic, partition, count(*) AS events,
             count(DISTINCT stream) AS streams
         FROM {table} WHERE {of}
         GROUP BY projection, topic, partition ORDER BY projection, topic, partition"
    );
    let rows = client.query(&select, values).await;
    let rows = rows.map_err(Error::postgres("counting the parked events"))?;
    let count = |row: &Row| Count {
        projection: row.get("projection"),
        topic: row.get("topic"),
        partition: row.get("partition"),
        events: row.get::<_, i64>("events").cast_unsigned(),
        streams: row.get::<_, i64>("streams").cast_unsigned(),
        wanted: Vec::new(),
    };
    Ok(rows.iter().map(count).collect())
}

/// What the command line asks about parked events: those of the generations in use.
impl Database {
    fn in_use(&self) -> String {
        let millrace = self.namespace().underscored("millrace");
        format!(
            "(projection, generation) IN
                 (SELECT name, generation FROM {millrace}.projection WHERE state = 'live')"
        )
    }

    fn failed_event(&self) -> String {
        format!("{}.failed_event", self.namespace().underscored("millrace"))
    }

    /// How many events of each projection and partition are parked.
    ///
    /// # Errors
    /// Postgres does not answer.
    pub async fn count_parked(&self) -> Result<Vec<Count>, Error> {
        let client = self.client().await?;
        none_without_table(counts(&client, &self.failed_event(), &self.in_use(), &[]).await)
    }

    /// Parked events, by projection and place in the log.
    ///
    /// # Errors
    /// Postgres does not answer.
    pub async fn list_parked(&self, filter: &Filter) -> Result<Vec<Letter>, Error> {
        let select = format!(
            "SELECT *, redrive_requested_at IS NOT NULL AS is_wanted FROM {}
             WHERE ($1::text IS NULL OR projection = $1) AND ($2::text IS NULL OR topic = $2)
               AND ($3::text IS NULL OR stream = $3) AND {}
             ORDER BY projection, generation, topic, partition, kafka_offset LIMIT $4",
            self.failed_event(),
            self.in_use()
        );
        let stream = filter.stream.as_deref().map(without_nul);
        let limit = i64::try_from(filter.limit).unwrap_or(i64::MAX);
        let client = self.client().await?;
        let rows =
            client.query(&select, &[&filter.projection, &filter.topic, &stream, &limit]).await;
        let rows = rows.map_err(Error::postgres("reading the parked events"));
        Ok(none_without_table(rows)?.iter().map(letter).collect())
    }

    /// How many such events are parked, and how many of them are still to be tried.
    ///
    /// # Errors
    /// Postgres does not answer.
    pub async fn left_parked(&self, filter: &Filter) -> Result<(u64, u64), Error> {
        let select = format!(
            "SELECT count(*) AS parked, count(redrive_requested_at) AS wanted FROM {}
             WHERE ($1::text IS NULL OR projection = $1) AND ($2::text IS NULL OR topic = $2)
               AND ($3::text IS NULL OR stream = $3) AND {}",
            self.failed_event(),
            self.in_use()
        );
        let stream = filter.stream.as_deref().map(without_nul);
        let client = self.client().await?;
        let rows = client.query(&select, &[&filter.projection, &filter.topic, &stream]).await;
        let rows = rows.map_err(Error::postgres("counting the parked events"));
        let number = |row: &Row, name: &str| row.get::<_, i64>(name).cast_unsigned();
        let rows = none_without_table(rows)?;
        Ok(rows
            .first()
            .map(|row| (number(row, "parked"), number(row, "wanted")))
            .unwrap_or_default())
    }

    /// Asks the projection to try parked events again; says how many those are.
    ///
    /// # Errors
    /// Postgres does not answer.
    pub async fn want_parked(&self, filter: &Filter) -> Result<u64, Error> {
        let update = format!(
            "UPDATE {} SET redrive_requested_at = now()
             WHERE projection = $1 AND ($2::text IS NULL OR topic = $2)
               AND ($3::text IS NULL OR stream = $3) AND {}",
            self.failed_event(),
            self.in_use()
        );
        let stream = filter.stream.as_deref().map(without_nul);
        let client = self.client().await?;
        let updated = client.execute(&update, &[&filter.projection, &filter.topic, &stream]).await;
        let updated = updated.map(|count| vec![count]);
        let updated = updated.map_err(Error::postgres("asking for parked events"));
        Ok(none_without_table(updated)?.into_iter().sum())
    }
}

/// Where no projection has ever started, nothing is parked.
fn none_without_table<T>(outcome: Result<Vec<T>, Error>) -> Result<Vec<T>, Error> {
    match outcome {
        Err(Error::Postgres { source, .. })
            if [SqlState::UNDEFINED_TABLE, SqlState::INVALID_SCHEMA_NAME]
                .iter()
                .any(|state| source.code() == Some(state)) =>
        {
            Ok(Vec::new())
        }
        other => other,
    }
}

fn letter(row: &Row) -> Letter {
    let parked_at: DateTime<Utc> = row.get("created_at");
    let record = record(row);
    let (stream, sequence) = identity(&record);
    Letter {
        projection: row.get("projection"),
        generation: row.get("generation"),
        topic: row.get("topic"),
        partition: row.get("partition"),
        stream: stream.to_owned(),
        sequence,
        error_code: row.get("error_code"),
        error: row.get("error_message"),
        attempts: row.get::<_, i32>("attempts").cast_unsigned(),
        parked_at: Timestamp(parked_at.timestamp_micros()),
        is_wanted: row.get("is_wanted"),
        record,
    }
}
