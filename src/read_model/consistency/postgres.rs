//! How far Postgres is with a stream: its row's version, in the reader's own snapshot.

use deadpool_postgres::GenericClient;
use uuid::Uuid;

use super::{Progress, Wanted};
use crate::kernel::stream::Namespace;
use crate::read_model::store::Error;

/// Looks at a stream. Whoever reads rows too does both in one `REPEATABLE READ` transaction.
///
/// # Errors
/// Postgres does not answer, or the projection has never run.
pub async fn look(
    client: &impl GenericClient,
    namespace: &Namespace,
    wanted: &Wanted,
) -> Result<Progress, Error> {
    let failed = || Error::postgres(format!("looking for {}", wanted.stream()));
    let (domain, millrace) =
        (namespace.underscored(&wanted.domain), namespace.underscored("millrace"));
    // A row that is hidden has its version all the same.
    let select = format!(
        "SELECT
             (SELECT max(version) FROM {domain}.stream_version
              WHERE aggregate = $1 AND stream = $2) AS version,
             (SELECT c.topic_id FROM {millrace}.checkpoint AS c
              JOIN {millrace}.projection AS p ON p.name = c.projection
                  AND p.generation = c.generation AND p.state = 'live'
              WHERE c.projection = $3 AND c.topic = $4 AND c.partition = $5) AS topic_id,
             (SELECT min(f.position) FROM {millrace}.failed_event AS f
              JOIN {millrace}.projection AS p ON p.name = f.projection
                  AND p.generation = f.generation AND p.state = 'live'
              WHERE f.projection = $3 AND f.topic = $4 AND f.partition = $5
                  AND f.stream = $2) AS parked"
    );
    let token = &wanted.token;
    let projection = format!("postgres.{}", wanted.domain);
    let statement = client.prepare_cached(&select).await.map_err(failed())?;
    let row = client
        .query_one(
            &statement,
            &[&wanted.aggregate, &token.stream, &projection, &wanted.topic, &token.partition],
        )
        .await
        .map_err(failed())?;
    let version: Option<i64> = row.try_get("version").map_err(failed())?;
    let topic_id: Option<Uuid> = row.try_get("topic_id").map_err(failed())?;
    let parked: Option<i64> = row.try_get("parked").map_err(failed())?;
    if topic_id.is_some_and(|found| found != token.topic_id) {
        return Ok(Progress::OtherTopic { projection });
    }
    let version = version.unwrap_or_default().cast_unsigned();
    if version >= token.sequence {
        return Ok(Progress::Reached);
    }
    let parked = parked.map(i64::cast_unsigned).filter(|first| *first <= token.sequence);
    Ok(match parked {
        Some(sequence) => Progress::Parked { projection, sequence },
        None => Progress::Behind(version),
    })
}
