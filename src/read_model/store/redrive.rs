//! Parked events of one stream, tried again in Postgres: oldest events -> rows, off the list, in
//! one transaction at the projection's place.

use deadpool_postgres::Client;
use tokio::time::timeout;

use super::parked::pointed_out;
use super::postgres::{Opened, Postgres, Rows, WRITE_TIMEOUT, answered, streams};
use super::{Error, Source, Store};
use crate::engine::projector::{Failure, Refusal};
use crate::kernel::projection::{Batch, Cause, Obstacle, Place, Redriven};

impl<R: Rows> Postgres<R> {
    /// Applies the oldest parked events of a stream and takes them off the list.
    pub(super) async fn try_again(
        &self,
        source: &Source,
        from: Place,
        stream: &str,
        rows: usize,
    ) -> Result<Redriven, Failure> {
        let mut client = self.database.client().await?;
        let work = self.try_again_with(&mut client, source, from, (stream, rows));
        let outcome = timeout(WRITE_TIMEOUT, work).await;
        let outcome = answered(outcome, client, "trying parked events again", WRITE_TIMEOUT);
        outcome.map_err(|failure| pointed_out(failure, &Batch::default()))
    }

    async fn try_again_with(
        &self,
        client: &mut Client,
        source: &Source,
        from: Place,
        (stream, rows): (&str, usize),
    ) -> Result<Redriven, Failure> {
        let Opened { generation, checkpoints, parked } = self.opened()?;
        let failed = || Error::postgres(format!("applying parked events of {}", source.topic));
        let advance = client.prepare_cached(&checkpoints.advance).await.map_err(failed())?;
        let transaction = client.transaction().await.map_err(failed())?;
        // The place stays; but it must be ours, and nobody else's meanwhile.
        let held = checkpoints.advance(&transaction, &advance, source, from, from.next_offset);
        if !held.await.map_err(failed())? {
            return Err(Failure::Conflict);
        }
        let records = parked.oldest(&transaction, source, stream, rows).await.map_err(failed())?;
        let batch = Batch { from, records, ..Batch::default() };
        let known = streams(&batch);
        let versions = self.rows.versions(&transaction, generation, source, &known).await;
        let versions = versions.map_err(failed())?;
        let mut changes = R::Changes::default();
        let applied = self.fold(source, &batch, Some(&versions), &mut changes).await?;
        let first = batch.records.first().map(|record| record.offset);
        if let Some(obstacle) = applied.obstacle.filter(|_| Some(applied.next_offset) == first) {
            return Err(refused(&obstacle));
        }
        if !self.rows.write(&transaction, generation, source, &changes).await.map_err(failed())? {
            let name = self.name();
            return Err(Failure::Permanent(format!("rows of {name} changed under their lock")));
        }
        let end = if first.is_some() { applied.next_offset } else { from.next_offset };
        let has_more = parked.delete(&transaction, source, stream, end).await.map_err(failed())?;
        transaction.commit().await.map_err(failed())?;
        let offsets = batch.records.iter().map(|record| record.offset);
        let events = offsets.filter(|offset| *offset < end).count() as u64;
        Ok(Redriven { events, has_more })
    }
}

/// What stands in front of a parked event that is tried again.
pub(super) fn refused(obstacle: &Obstacle) -> Failure {
    if obstacle.is_transient() {
        return Failure::Transient(obstacle.to_string());
    }
    let (reason, suspect) = (obstacle.to_string(), None);
    Failure::Refused(Refusal { cause: Cause::Undecodable, reason, suspect })
}
