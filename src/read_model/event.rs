//! A stream's events as ClickHouse has them: a name -> rows in order, and how far they can be
//! believed.

use ::clickhouse::Row;
use ::clickhouse::query::RowCursor;
use serde::Deserialize;
use uuid::Uuid;

use super::store::Error;
use super::store::clickhouse::Database;

/// The longest that one statement may take, in seconds.
const SECONDS_MAX: &str = "20";

/// A stream, and the partition that its events are in.
#[derive(Clone, Copy, Debug)]
pub struct Stream<'a> {
    /// The domain, for example `banking`.
    pub domain: &'a str,
    /// The aggregate within it, for example `account`.
    pub aggregate: &'a str,
    /// The aggregate's id.
    pub id: &'a str,
    /// The topic of its events, namespace included.
    pub topic: &'a str,
    /// The topic's id: rows of another one are not looked at.
    pub topic_id: Uuid,
    /// The partition.
    pub partition: i32,
}

/// What the rows of a stream and of its partition were at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Row, Deserialize)]
pub struct Head {
    /// The stream's highest sequence; 0 if it has no rows.
    pub last: u64,
    /// How many rows of its partition there are.
    pub rows: u64,
    /// The partition's highest offset: everything up to it is here or parked, if there are rows.
    pub partition_end: i64,
    /// How many of the stream's events are parked, in whatever generation.
    pub parked: u64,
}

/// One event's row.
#[derive(Clone, Debug, PartialEq, Row, Deserialize)]
pub struct Event {
    /// Its place in its stream.
    pub sequence: u64,
    /// Its id.
    #[serde(with = "::clickhouse::serde::uuid")]
    pub event_id: Uuid,
    /// Its type's short name.
    pub event_type: String,
    /// The version of its schema.
    pub schema_version: u16,
    /// When it happened, in microseconds.
    pub occurred_us: i64,
    /// The command that it came from.
    #[serde(with = "::clickhouse::serde::uuid")]
    pub command_id: Uuid,
    /// Empty if it has none.
    pub correlation_id: String,
    /// Empty if it has none.
    pub causation_id: String,
    /// Its place in its partition.
    pub kafka_offset: i64,
    /// Its fields as JSON.
    pub payload: String,
}

impl Database {
    /// Looks at a stream and its partition, in one statement.
    ///
    /// # Errors
    /// ClickHouse does not answer, or the projection has never run.
    pub async fn head(&self, stream: Stream<'_>) -> Result<Head, Error> {
        let name = self.name();
        let select = format!(
            "SELECT
                 assumeNotNull((SELECT max(sequence) FROM {name}.event
                  WHERE domain = {{domain: String}} AND aggregate = {{aggregate: String}}
                      AND aggregate_id = {{id: String}} AND topic_id = {{topic_id: UUID}})) AS last,
                 ends.rows AS rows, ends.partition_end AS partition_end,
                 assumeNotNull((SELECT count() FROM {name}.failed_event FINAL
                  WHERE projection = {{projection: String}} AND topic = {{topic: String}}
                      AND partition = {{partition: Int32}} AND stream = {{id: String}})) AS parked
             FROM (SELECT count() AS rows, max(kafka_offset) AS partition_end FROM {name}.event
                   WHERE domain = {{domain: String}} AND aggregate = {{aggregate: String}}
                       AND kafka_partition = {{partition: Int32}}
                       AND topic_id = {{topic_id: UUID}}) AS ends"
        );
        self.client()
            .query_raw(&select)
            .param("domain", stream.domain)
            .param("aggregate", stream.aggregate)
            .param("id", stream.id)
            .param("topic", stream.topic)
            .param("topic_id", stream.topic_id.to_string())
            .param("partition", stream.partition)
            .param("projection", format!("clickhouse.{}", stream.domain))
            .with_setting("max_execution_time", SECONDS_MAX)
            .fetch_one()
            .await
            .map_err(Error::clickhouse(format!("looking at stream {}", stream.id)))
    }

    /// A stream's rows, in order.
    ///
    /// # Errors
    /// As [`Database::head`].
    pub fn events(&self, stream: Stream<'_>) -> Result<RowCursor<Event>, Error> {
        let select = format!(
            "SELECT sequence, event_id, event_type, schema_version,
                 toUnixTimestamp64Micro(occurred_at) AS occurred_us, command_id, correlation_id,
                 causation_id, kafka_offset, payload
             FROM {}.event
             WHERE domain = {{domain: String}} AND aggregate = {{aggregate: String}}
                 AND aggregate_id = {{id: String}} AND topic_id = {{topic_id: UUID}}
             ORDER BY sequence",
            self.name()
        );
        self.client()
            .query_raw(&select)
            .param("domain", stream.domain)
            .param("aggregate", stream.aggregate)
            .param("id", stream.id)
            .param("topic_id", stream.topic_id.to_string())
            .with_setting("max_execution_time", SECONDS_MAX)
            .fetch()
            .map_err(Error::clickhouse(format!("reading stream {}", stream.id)))
    }
}
