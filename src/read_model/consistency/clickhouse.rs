//! How far ClickHouse is with streams: the highest sequence among their rows, looked up for all who
//! wait in one statement, one statement at a time.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use ::clickhouse::Row;
use ::clickhouse::error::Error as ClientError;
use ::clickhouse::query::Query;
use serde::Deserialize;
use tokio::sync::oneshot;
use uuid::Uuid;

use super::{Progress, Wanted};
use crate::read_model::store::Error;
use crate::read_model::store::clickhouse::Database;

/// The number of ClickHouse's error when a statement refuses by itself.
const REFUSED: &str = "Code: 395.";
/// The least time between two looks, however many wait: a look takes some 10 ms of a core.
const LOOKS_APART: Duration = Duration::from_millis(40);
/// The most streams in one statement.
const STREAMS_MAX: usize = 500;

#[derive(Row, Deserialize)]
struct Version {
    aggregate: String,
    aggregate_id: String,
    #[serde(with = "::clickhouse::serde::uuid")]
    topic_id: Uuid,
    version: u64,
}

#[derive(Row, Deserialize)]
struct Parked {
    topic: String,
    partition: i32,
    stream: String,
    first: u64,
}

struct Waiting {
    wanted: Wanted,
    give: oneshot::Sender<Progress>,
}

/// Looks for everybody who asks.
#[derive(Clone)]
pub struct Watch {
    database: Database,
    waiting: Arc<Mutex<Vec<Waiting>>>,
    /// Whoever has it looks, for all who wait then. The moment of the last look.
    turn: Arc<tokio::sync::Mutex<Option<Instant>>>,
}

impl Watch {
    /// Looks at nothing yet.
    #[must_use]
    pub fn new(database: Database) -> Self {
        Self { database, waiting: Arc::default(), turn: Arc::default() }
    }

    /// Looks at a stream: no earlier than now.
    ///
    /// # Errors
    /// ClickHouse does not answer, or the projection has never run.
    pub async fn look(&self, wanted: &Wanted) -> Result<Progress, Error> {
        loop {
            let (give, mut take) = oneshot::channel();
            self.queue().push(Waiting { wanted: wanted.clone(), give });
            let mut turn = tokio::select! {
                biased;
                told = &mut take => match told {
                    Ok(progress) => return Ok(progress),
                    // Whoever looked was broken off, or had an error: it may be ours to see.
                    Err(_) => continue,
                },
                turn = self.turn.lock() => turn,
            };
            if let Some(last) = *turn {
                tokio::time::sleep(LOOKS_APART.saturating_sub(last.elapsed())).await;
            }
            let some = {
                let mut queue = self.queue();
                let count = queue.len().min(STREAMS_MAX);
                queue.drain(..count).collect()
            };
            let looked = self.look_for(some).await;
            *turn = Some(Instant::now());
            drop(turn);
            looked?;
            // If there were too many of them, ours was not among them.
            if let Ok(progress) = take.try_recv() {
                return Ok(progress);
            }
        }
    }

    fn queue(&self) -> std::sync::MutexGuard<'_, Vec<Waiting>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn look_for(&self, all: Vec<Waiting>) -> Result<(), Error> {
        let versions = self.versions(&all).await?;
        let progress = |wanted: &Wanted| {
            let rows = versions.iter().filter(|row| {
                row.aggregate == wanted.aggregate && row.aggregate_id == wanted.token.stream
            });
            let (own, others): (Vec<_>, Vec<_>) =
                rows.partition(|row| row.topic_id == wanted.token.topic_id);
            let version = own.iter().map(|row| row.version).max().unwrap_or_default();
            if version >= wanted.token.sequence {
                Progress::Reached
            } else if others.is_empty() {
                Progress::Behind(version)
            } else {
                Progress::OtherTopic { projection: projection(wanted) }
            }
        };
        let mut behind = Vec::new();
        for waiting in all {
            match progress(&waiting.wanted) {
                Progress::Behind(version) => behind.push((waiting, version)),
                // Whoever asked may be gone.
                told @ (Progress::Reached
                | Progress::Parked { .. }
                | Progress::OtherTopic { .. }) => drop(waiting.give.send(told)),
            }
        }
        if behind.is_empty() {
            return Ok(());
        }
        let parked = self.parked(&behind).await?;
        for (waiting, version) in behind {
            let Wanted { token, topic, .. } = &waiting.wanted;
            let first = parked.iter().find(|row| {
                (row.topic == *topic && row.partition == token.partition)
                    && (row.stream == token.stream && row.first <= token.sequence)
            });
            let progress = first.map_or(Progress::Behind(version), |row| Progress::Parked {
                projection: projection(&waiting.wanted),
                sequence: row.first,
            });
            let _ = waiting.give.send(progress);
        }
        Ok(())
    }

    async fn versions(&self, all: &[Waiting]) -> Result<Vec<Version>, Error> {
        let select = format!(
            "SELECT aggregate, aggregate_id, topic_id, max(sequence) AS version FROM {}.event
             WHERE aggregate IN {{aggregates: Array(String)}}
                 AND aggregate_id IN {{streams: Array(String)}}
             GROUP BY aggregate, aggregate_id, topic_id",
            self.database.name()
        );
        let all = || all.iter().map(|waiting| &waiting.wanted);
        let aggregates: BTreeSet<&str> = all().map(|wanted| wanted.aggregate.as_str()).collect();
        let streams: BTreeSet<&str> = all().map(|wanted| wanted.token.stream.as_str()).collect();
        let query = self.database.client().query_raw(&select);
        let query = query.param("aggregates", aggregates).param("streams", streams);
        query.fetch_all().await.map_err(Error::clickhouse("looking how far streams are"))
    }

    /// The first event of each stream that the live generation has parked.
    async fn parked(&self, behind: &[(Waiting, u64)]) -> Result<Vec<Parked>, Error> {
        let name = self.database.name();
        // A view's comment says which generation it shows.
        let select = format!(
            "SELECT topic, partition, stream, min(position) AS first FROM {name}.failed_event FINAL
             WHERE stream IN {{streams: Array(String)}} AND (projection, generation) IN (
                 SELECT concat('clickhouse.', name),
                     toInt32OrZero(extract(comment, 'generation (\\d+)'))
                 FROM system.tables WHERE database = {{database: String}}
                     AND engine = 'View' AND match(comment, 'generation \\d+'))
             GROUP BY topic, partition, stream"
        );
        let streams = behind.iter().map(|(waiting, _)| waiting.wanted.token.stream.as_str());
        let query = self.database.client().query_raw(&select);
        let query =
            query.param("streams", streams.collect::<BTreeSet<_>>()).param("database", name);
        query.fetch_all().await.map_err(Error::clickhouse("looking for parked streams"))
    }
}

fn projection(wanted: &Wanted) -> String {
    format!("clickhouse.{}", wanted.domain)
}

/// A condition that makes a statement refuse unless the stream is far enough: to be followed by
/// [`with_token`] and judged by [`is_refusal`].
#[must_use]
pub fn guard(database: &Database) -> String {
    format!(
        "throwIf((SELECT maxIf(sequence, topic_id = {{token_topic: UUID}}) FROM {}.event
                  WHERE aggregate = {{token_aggregate: String}}
                      AND aggregate_id = {{token_stream: String}}) < {{token_sequence: UInt64}},
                 'not there yet') = 0",
        database.name()
    )
}

/// Fills the token in.
pub fn with_token(query: Query, wanted: &Wanted) -> Query {
    let Wanted { token, aggregate, .. } = wanted;
    query
        .param("token_topic", token.topic_id.to_string())
        .param("token_sequence", token.sequence)
        .param("token_aggregate", aggregate)
        .param("token_stream", &token.stream)
}

/// Whether a [`guard`] has refused.
#[must_use]
pub fn is_refusal(error: &ClientError) -> bool {
    matches!(error, ClientError::BadResponse(text) if text.contains(REFUSED))
}
