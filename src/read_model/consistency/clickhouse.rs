//! How far ClickHouse is with a stream: the highest sequence among its rows.

use ::clickhouse::Row;
use ::clickhouse::error::Error as ClientError;
use ::clickhouse::query::Query;
use serde::Deserialize;
use uuid::Uuid;

use super::{Progress, Wanted};
use crate::read_model::store::Error;
use crate::read_model::store::clickhouse::Database;

/// The number of ClickHouse's error when a statement refuses by itself.
const REFUSED: &str = "Code: 395.";

#[derive(Row, Deserialize)]
struct Found {
    version: u64,
    others: u64,
}

/// Looks at a stream.
///
/// # Errors
/// ClickHouse does not answer, or the projection has never run.
pub async fn look(database: &Database, wanted: &Wanted) -> Result<Progress, Error> {
    let failed = || Error::clickhouse(format!("looking for {}", wanted.stream()));
    let select = format!(
        "SELECT maxIf(sequence, topic_id = {{token_topic: UUID}}) AS version,
             countIf(topic_id != {{token_topic: UUID}}) AS others
         FROM {}.event WHERE {STREAM}",
        database.name()
    );
    let query = with_token(database.client().query_raw(&select), wanted);
    let found: Found = query.fetch_one().await.map_err(failed())?;
    if found.version >= wanted.token.sequence {
        return Ok(Progress::Reached);
    }
    let projection = format!("clickhouse.{}", wanted.domain);
    if found.others > 0 {
        return Ok(Progress::OtherTopic { projection });
    }
    let first = first_parked(database, &projection, wanted).await.map_err(failed())?;
    let first = first.filter(|first| (1..=wanted.token.sequence).contains(first));
    Ok(match first {
        Some(sequence) => Progress::Parked { projection, sequence },
        None => Progress::Behind(found.version),
    })
}

const STREAM: &str =
    "aggregate = {token_aggregate: String} AND aggregate_id = {token_stream: String}";

/// The stream's first event that the live generation has parked.
async fn first_parked(
    database: &Database,
    projection: &str,
    wanted: &Wanted,
) -> Result<Option<u64>, ClientError> {
    let name = database.name();
    // A view's comment says which generation it shows.
    let select = format!(
        "SELECT min(position) FROM {name}.failed_event FINAL
         WHERE projection = {{projection: String}} AND topic = {{topic: String}}
             AND partition = {{partition: Int32}} AND stream = {{stream: String}}
             AND generation = (SELECT toInt32OrZero(extract(comment, 'generation (\\d+)'))
                               FROM system.tables WHERE database = {{database: String}}
                               AND name = {{view: String}})
         HAVING count() > 0"
    );
    database
        .client()
        .query_raw(&select)
        .param("projection", projection)
        .param("topic", &wanted.topic)
        .param("partition", wanted.token.partition)
        .param("stream", &wanted.token.stream)
        .param("database", name)
        .param("view", format!("{}_event", wanted.domain))
        .fetch_optional::<u64>()
        .await
}

/// A condition that makes a statement refuse unless the stream is far enough: to be followed by
/// [`with_token`] and judged by [`is_refusal`].
#[must_use]
pub fn guard(database: &Database) -> String {
    format!(
        "throwIf((SELECT maxIf(sequence, topic_id = {{token_topic: UUID}}) FROM {}.event
                  WHERE {STREAM}) < {{token_sequence: UInt64}}, 'not there yet') = 0",
        database.name()
    )
}

/// Fills the token in.
#[must_use]
pub fn with_token(query: Query, wanted: &Wanted) -> Query {
    let Wanted { token, aggregate, .. } = wanted;
    let topic_id: Uuid = token.topic_id;
    query
        .param("token_topic", topic_id.to_string())
        .param("token_sequence", token.sequence)
        .param("token_aggregate", aggregate)
        .param("token_stream", &token.stream)
}

/// Whether a [`guard`] has refused.
#[must_use]
pub fn is_refusal(error: &ClientError) -> bool {
    matches!(error, ClientError::BadResponse(text) if text.contains(REFUSED))
}
