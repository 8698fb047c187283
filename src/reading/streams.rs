//! A stream's name -> its events: from ClickHouse as far as its rows go, then from the log.
//!
//! ClickHouse finds a stream by its name; in the log it is spread over a partition. How far the
//! partition's rows reach says from where on the log must be read, to its end as it is now. So a
//! history is never older than the log, whatever the projection is doing. Rows that leave a gap,
//! cannot be read, are of another topic, or have parked events behind them are left for the log.
//!
//! What the rows lack: who acted (`actor`), and an event of a type that the projection did not know
//! when nothing of its stream has followed yet. The log alone has all.

use std::sync::Arc;

use serde_json::{Value, json};
use uuid::Uuid;

use super::aggregate::{Decode, decoder};
use super::log::{Log, Place};
use crate::codec::schemas::Schemas;
use crate::config::Config;
use crate::kernel::codec::CodecError;
use crate::kernel::message::Record;
use crate::kernel::stream::Kind;
use crate::kernel::time::Timestamp;
use crate::log::kafka;
use crate::log::kafka::partition_reader::{Start, Visit};
use crate::read_model::event;
use crate::read_model::store;
use crate::read_model::store::clickhouse::Database;
use crate::runtime;

/// Which stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Name {
    /// Its kind: `banking.account`.
    pub aggregate: String,
    /// The aggregate's id.
    pub id: String,
}

impl std::fmt::Display for Name {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.aggregate, self.id)
    }
}

/// Where an event was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// Its row.
    ClickHouse,
    /// Its record.
    Log,
}

/// Where to look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum From {
    /// In ClickHouse, as far as that goes, and in the log.
    Rows,
    /// In the log alone.
    Log,
}

/// An event, as it is told.
#[derive(Clone, Debug, PartialEq)]
pub struct Told {
    /// Its place in its stream.
    pub sequence: u64,
    /// When it happened.
    pub at: Timestamp,
    /// The short name of its type.
    pub event_type: String,
    /// Its fields; null if it was erased.
    pub fields: Value,
    /// The command that it came from.
    pub command_id: Option<String>,
    /// What the client said caused it.
    pub causation_id: Option<String>,
    /// What it belongs to.
    pub correlation_id: Option<String>,
    /// Who acted. ClickHouse does not know.
    pub actor: Option<String>,
    /// Its id.
    pub event_id: Option<String>,
    /// The version of its schema.
    pub schema_version: Option<u16>,
    /// Its place in its partition.
    pub offset: i64,
    /// Where it was read.
    pub source: Source,
}

impl Told {
    /// The event for scripts.
    #[must_use]
    pub fn to_json(&self, stream: &Name) -> Value {
        let mut told = json!({
            "stream": stream.to_string(),
            "sequence": self.sequence,
            "event_id": self.event_id,
            "type": self.event_type,
            "schema_version": self.schema_version,
            "time": self.at.to_rfc3339(),
            "fields": self.fields,
            "command_id": self.command_id,
            "correlation_id": self.correlation_id,
            "causation_id": self.causation_id,
            "offset": self.offset,
        });
        match self.source {
            Source::Log => {
                told["actor"] = json!(self.actor);
                told["source"] = "log".into();
            }
            Source::ClickHouse => told["source"] = "clickhouse".into(),
        }
        told
    }
}

/// How a stream was read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// The last event that was read; 0 if there is none.
    pub last: u64,
    /// How many events came from ClickHouse.
    pub from_clickhouse: u64,
    /// How many came from the log.
    pub from_log: u64,
    /// Whether the stream's end was reached, not only what was wanted.
    pub is_whole: bool,
    /// Why ClickHouse was not enough, if so.
    pub note: Option<String>,
    /// The offset behind the last event that was read.
    next: Option<i64>,
}

impl Summary {
    /// The sources for scripts.
    #[must_use]
    pub fn to_json(&self) -> Value {
        let mut sources = json!({"clickhouse": self.from_clickhouse, "log": self.from_log});
        if let Some(note) = &self.note {
            sources["note"] = note.as_str().into();
        }
        sources
    }

    fn count(&mut self, sequence: u64, offset: i64, source: Source) {
        self.last = sequence;
        self.next = Some(offset + 1);
        match source {
            Source::ClickHouse => self.from_clickhouse += 1,
            Source::Log => self.from_log += 1,
        }
    }

    fn start(&self) -> Start {
        self.next.map_or(Start::Beginning, Start::At)
    }
}

/// Why a stream cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Nothing is called that here.
    #[error("there is no aggregate {0}: try banking.account")]
    NoAggregate(String),
    /// It has no events.
    #[error("{0} has no events: there is no such stream")]
    NoStream(Name),
    /// It is shorter.
    #[error("{stream} has no version {version}: it is at {last}")]
    Beyond {
        /// The stream.
        stream: Name,
        /// What was asked for.
        version: u64,
        /// Its last event.
        last: u64,
    },
    /// It began later.
    #[error("{stream} did not exist yet: its first event is of {}", first.to_rfc3339())]
    NotYet {
        /// The stream.
        stream: Name,
        /// When it began.
        first: Timestamp,
    },
    /// An event is missing in the log.
    #[error("{stream} is damaged: event {missing} is missing before offset {offset}")]
    Damaged {
        /// The stream.
        stream: Name,
        /// The event.
        missing: u64,
        /// Where the next one stands.
        offset: i64,
    },
    /// An event cannot be read.
    #[error("event {sequence} of {stream} cannot be read")]
    Codec {
        /// The stream.
        stream: Name,
        /// The event.
        sequence: u64,
        /// Why.
        #[source]
        source: CodecError,
    },
    /// Nobody can say what a schema is.
    #[error(transparent)]
    Schemas(#[from] runtime::schemas::Error),
    /// The log cannot be read.
    #[error(transparent)]
    Kafka(#[from] kafka::Error),
}

/// Looks at each event as it comes. An event of the log that it refuses is an error; one of
/// ClickHouse is looked for in the log.
pub type Take<'a> = dyn FnMut(Told) -> Result<Visit, CodecError> + Send + 'a;

/// Reads streams.
#[derive(Clone)]
pub struct Streams {
    config: Config,
    schemas: Arc<Schemas>,
    clickhouse: Database,
    log: Log,
}

/// How the rows of a stream ended.
enum Ended {
    /// Nothing more is wanted.
    Stopped,
    /// They are all there is before that offset.
    Before(Option<i64>),
    /// Something is wrong with what follows.
    Short(String),
}

impl Streams {
    /// Connects to nothing yet.
    ///
    /// # Errors
    /// An address is unusable.
    pub fn new(config: &Config, schemas: Arc<Schemas>) -> Result<Self, store::Error> {
        let clickhouse = Database::new(&config.clickhouse, &config.namespace)?;
        let log = Log::new(&config.kafka);
        Ok(Self { config: config.clone(), schemas, clickhouse, log })
    }

    /// Hands out a stream's events in order, to its end or until no more are wanted.
    ///
    /// # Errors
    /// [`Error`]; a stream without events is none.
    pub async fn read(
        &self,
        stream: &Name,
        from: From,
        take: &mut Take<'_>,
    ) -> Result<Summary, Error> {
        let decode = decoder(&stream.aggregate, &self.schemas)
            .ok_or_else(|| Error::NoAggregate(stream.aggregate.clone()))?;
        let topic = format!("{}.{}", stream.aggregate, Kind::Events.as_str());
        let topic = self.config.namespace.dotted(&topic);
        let place = self.log.place(&topic, &stream.id).await?;
        let mut summary = Summary::default();
        let mut start = Start::Beginning;
        if from == From::Rows {
            let ended = self.read_rows(stream, &place, &mut summary, take).await;
            start = summary.start();
            match ended {
                Ok(Ended::Stopped) => return Ok(summary),
                Ok(Ended::Before(None)) => {}
                Ok(Ended::Before(Some(end))) => {
                    start = Start::At(end.max(summary.next.unwrap_or_default()));
                }
                Ok(Ended::Short(note)) => summary.note = Some(note),
                Err(error) => summary.note = Some(error.chain()),
            }
        }
        self.read_log(stream, (&place, start), &decode, &mut summary, take).await?;
        Ok(summary)
    }

    async fn read_rows(
        &self,
        stream: &Name,
        place: &Place,
        summary: &mut Summary,
        take: &mut Take<'_>,
    ) -> Result<Ended, store::Error> {
        let (domain, aggregate) = stream.aggregate.split_once('.').unwrap_or_default();
        let rows_of = event::Stream {
            domain,
            aggregate,
            id: &stream.id,
            topic: &place.topic,
            topic_id: place.topic_id,
            partition: place.partition,
        };
        let head = self.clickhouse.head(rows_of).await?;
        let mut rows = self.clickhouse.events(rows_of)?;
        let failed = || store::Error::clickhouse(format!("reading {stream}"));
        while let Some(row) = rows.next().await.map_err(failed())? {
            let missing = summary.last + 1;
            if row.sequence != missing {
                return Ok(Ended::Short(format!("event {missing} is missing in ClickHouse")));
            }
            let Some(told) = of_row(row) else {
                return Ok(Ended::Short(format!("event {missing} is no JSON in ClickHouse")));
            };
            let (sequence, offset) = (told.sequence, told.offset);
            match take(told) {
                Ok(visit) => {
                    summary.count(sequence, offset, Source::ClickHouse);
                    if visit == Visit::Stop {
                        return Ok(Ended::Stopped);
                    }
                }
                Err(error) => return Ok(Ended::Short(error.to_string())),
            }
        }
        Ok(if summary.last < head.last {
            // Other rows than those that were looked at: another generation's.
            Ended::Short(format!("event {} is missing in ClickHouse", summary.last + 1))
        } else if head.parked > 0 {
            Ended::Short("the stream is parked in ClickHouse".to_owned())
        } else {
            Ended::Before((head.rows > 0).then_some(head.partition_end + 1))
        })
    }

    async fn read_log(
        &self,
        stream: &Name,
        (place, start): (&Place, Start),
        decode: &Decode,
        summary: &mut Summary,
        take: &mut Take<'_>,
    ) -> Result<(), Error> {
        let mut start = start;
        let mut coming = self.log.read(place, &stream.id, start);
        while let Some(next) = coming.recv().await {
            let (sequence, record) = next?;
            let missing = summary.last + 1;
            // A row that was read already, or an exact repeat that compaction has not removed yet.
            if sequence < missing {
                continue;
            }
            if sequence > missing {
                if start == summary.start() {
                    let (stream, offset) = (stream.clone(), record.offset);
                    return Err(Error::Damaged { stream, missing, offset });
                }
                // The rows end before the others of their partition do.
                let lost = format!("event {missing} is missing in ClickHouse");
                summary.note.get_or_insert(lost);
                start = summary.start();
                coming = self.log.read(place, &stream.id, start);
                continue;
            }
            let failed = |source| Error::Codec { stream: stream.clone(), sequence, source };
            let fields = match &record.value {
                Some(value) => match decode(value) {
                    Err(CodecError::UnknownSchema(id)) => {
                        runtime::schemas::look_up(&self.config, &self.schemas, id).await?;
                        decode(value).map_err(failed)?
                    }
                    other => other.map_err(failed)?,
                },
                None => Value::Null,
            };
            let visit = take(of_record(sequence, &record, fields)).map_err(failed)?;
            summary.count(sequence, record.offset, Source::Log);
            start = summary.start();
            if visit == Visit::Stop {
                return Ok(());
            }
        }
        summary.is_whole = true;
        Ok(())
    }
}

/// What a row tells; `None` if its payload is no JSON.
fn of_row(row: event::Event) -> Option<Told> {
    let some = |text: String| Some(text).filter(|text| !text.is_empty());
    Some(Told {
        sequence: row.sequence,
        at: Timestamp(row.occurred_us),
        event_type: row.event_type,
        fields: serde_json::from_str(&row.payload).ok()?,
        command_id: Some(row.command_id).filter(|id| !id.is_nil()).map(|id: Uuid| id.to_string()),
        causation_id: some(row.causation_id),
        correlation_id: some(row.correlation_id),
        actor: None,
        event_id: Some(row.event_id.to_string()),
        schema_version: Some(row.schema_version),
        offset: row.kafka_offset,
        source: Source::ClickHouse,
    })
}

/// What a record tells.
fn of_record(sequence: u64, record: &Record, fields: Value) -> Told {
    let header = |name: &str| record.headers.text(name).map(str::to_owned);
    let appended = Timestamp::from_millis(record.timestamp_ms);
    let at = record.headers.text("ce_time").and_then(Timestamp::parse_rfc3339);
    // `MoneyDeposited` of `millrace.banking.account.MoneyDeposited`.
    let name = record.headers.text("ce_type").unwrap_or_default();
    Told {
        sequence,
        at: at.unwrap_or(appended),
        event_type: name.rsplit('.').next().unwrap_or_default().to_owned(),
        fields,
        command_id: header("command_id"),
        causation_id: header("causation_id"),
        correlation_id: header("correlation_id"),
        actor: header("actor"),
        event_id: header("ce_id"),
        schema_version: header("schema_version").and_then(|text| text.parse().ok()),
        offset: record.offset,
        source: Source::Log,
    }
}
