//! A projection's place in a partition, beside its rows in Postgres. Every change of it is a
//! compare-and-set on what was read: whoever loses it was not the owner.

use tokio_postgres::types::ToSql;
use tokio_postgres::{Row, Statement};
use uuid::Uuid;

use super::generation::Generation;
use super::{Error, Source};
use crate::kernel::projection::{Held, Place};

/// The statements on one projection's checkpoints.
#[derive(Clone, Debug)]
pub struct Checkpoints {
    projection: String,
    generation: i32,
    /// Reads one.
    pub select: String,
    /// Moves one on.
    pub advance: String,
    /// Makes one where there is none.
    pub insert: String,
    /// Puts one elsewhere.
    pub replace: String,
}

impl Checkpoints {
    /// Writes the statements for a projection's generation.
    #[must_use]
    pub fn new(projection: &str, generation: &Generation) -> Self {
        let table = format!("{}.checkpoint", generation.millrace);
        let key = "projection = $1 AND generation = $2 AND topic = $3 AND partition = $4";
        Self {
            projection: projection.to_owned(),
            generation: generation.number,
            select: format!(
                "SELECT topic_id, epoch, epoch_start, next_offset FROM {table} WHERE {key}"
            ),
            advance: format!(
                "UPDATE {table} SET next_offset = $8, updated_at = now()
                 WHERE {key} AND topic_id = $5 AND epoch = $6 AND next_offset = $7"
            ),
            insert: format!(
                "INSERT INTO {table}
                     (projection, generation, topic, partition,
                      topic_id, epoch, epoch_start, next_offset)
                 VALUES ($1, $2, $3, $4, $5, $6, $7, $8) ON CONFLICT DO NOTHING"
            ),
            replace: format!(
                "UPDATE {table}
                 SET epoch = $8, epoch_start = $9, next_offset = $10, updated_at = now()
                 WHERE {key} AND topic_id = $5 AND epoch = $6 AND next_offset = $7"
            ),
        }
    }

    /// Reads a partition's place.
    ///
    /// # Errors
    /// The statement fails, or the row makes no sense.
    pub async fn read(
        &self,
        client: &tokio_postgres::Client,
        statement: &Statement,
        source: &Source,
    ) -> Result<Held, Error> {
        let key: [&(dyn ToSql + Sync); 4] =
            [&self.projection, &self.generation, &source.topic, &source.partition];
        let row = client
            .query_opt(statement, &key)
            .await
            .map_err(Error::postgres("reading the checkpoint"))?;
        row.map_or_else(|| Ok(Held::default()), |row| held(&row))
    }

    /// Moves a place on to `next_offset`, inside the transaction of the rows. `false`: somebody
    /// else has moved it.
    ///
    /// # Errors
    /// The statement fails.
    pub async fn advance(
        &self,
        transaction: &tokio_postgres::Transaction<'_>,
        statement: &Statement,
        source: &Source,
        from: Place,
        next_offset: i64,
    ) -> Result<bool, tokio_postgres::Error> {
        let epoch = i64::from(from.epoch);
        let values: [&(dyn ToSql + Sync); 8] = [
            &self.projection,
            &self.generation,
            &source.topic,
            &source.partition,
            &source.topic_id,
            &epoch,
            &from.next_offset,
            &next_offset,
        ];
        Ok(transaction.execute(statement, &values).await? == 1)
    }

    /// Puts a place elsewhere, if the expected one is still there. `false`: it is not.
    ///
    /// # Errors
    /// The statement fails.
    pub async fn reset(
        &self,
        transaction: &tokio_postgres::Transaction<'_>,
        source: &Source,
        expected: Option<Place>,
        place: Place,
    ) -> Result<bool, Error> {
        let epoch = i64::from(place.epoch);
        let old_epoch = expected.map_or(0, |expected| i64::from(expected.epoch));
        let old_offset = expected.map_or(0, |expected| expected.next_offset);
        let mut values: Vec<&(dyn ToSql + Sync)> = vec![
            &self.projection,
            &self.generation,
            &source.topic,
            &source.partition,
            &source.topic_id,
        ];
        let statement = if expected.is_some() {
            values.extend::<[&(dyn ToSql + Sync); 2]>([&old_epoch, &old_offset]);
            &self.replace
        } else {
            &self.insert
        };
        values.extend::<[&(dyn ToSql + Sync); 3]>([&epoch, &place.epoch_start, &place.next_offset]);
        let count = transaction
            .execute(statement.as_str(), &values)
            .await
            .map_err(Error::postgres("resetting the checkpoint"))?;
        Ok(count == 1)
    }
}

fn held(row: &Row) -> Result<Held, Error> {
    let epoch: i64 = row.get("epoch");
    let place = Place {
        epoch: u32::try_from(epoch)
            .map_err(|_| Error::Corrupt(format!("the checkpoint's epoch {epoch} is no epoch")))?,
        epoch_start: row.get("epoch_start"),
        next_offset: row.get("next_offset"),
    };
    Ok(Held {
        place: Some(place),
        topic_id: Some(row.get::<_, Uuid>("topic_id")),
        ..Held::default()
    })
}
