//! Banking in Postgres: account events -> `account_summary` and `account_transaction`.

use deadpool_postgres::Transaction;

use super::account_summary::{self, Summaries};
use super::account_transaction::{self, Transactions};
use super::{AGGREGATES, AccountCodec, DOMAIN, decode};
use crate::kernel::codec::CodecError;
use crate::kernel::message::Record;
use crate::kernel::projection::{Head, Projection};
use crate::read_model::store::fold::Versions;
use crate::read_model::store::generation::Generation;
use crate::read_model::store::postgres::Rows;
use crate::read_model::store::{Definition, Source};

/// What is made of account events.
const DEFINITION: Definition = Definition {
    domain: DOMAIN,
    aggregates: &AGGREGATES,
    version: 1,
    tables: &[account_summary::TABLE, account_transaction::TABLE],
    views: &[account_summary::VIEW, account_transaction::VIEW],
};

/// Banking's rows.
pub struct Banking {
    codec: AccountCodec,
}

impl Banking {
    /// Reads events by that codec.
    #[must_use]
    pub const fn new(codec: AccountCodec) -> Self {
        Self { codec }
    }
}

/// What a batch changes.
#[derive(Debug, Default)]
pub struct Changes {
    summaries: Summaries,
    transactions: Transactions,
}

impl Rows for Banking {
    type Changes = Changes;

    fn definition(&self) -> &Definition {
        &DEFINITION
    }

    fn take(
        &self,
        _source: &Source,
        head: &Head<'_>,
        record: &Record,
        changes: &mut Changes,
    ) -> Result<bool, CodecError> {
        let event = decode(&self.codec, head, record)?;
        changes.summaries.project(head, event.as_ref());
        changes.transactions.project(head, event.as_ref());
        Ok(event.is_some())
    }

    async fn versions(
        &self,
        transaction: &Transaction<'_>,
        generation: &Generation,
        _source: &Source,
        streams: &[&str],
    ) -> Result<Versions, tokio_postgres::Error> {
        account_summary::versions(transaction, generation, streams).await
    }

    async fn write(
        &self,
        transaction: &Transaction<'_>,
        generation: &Generation,
        source: &Source,
        changes: &Changes,
    ) -> Result<bool, tokio_postgres::Error> {
        let upsert = account_summary::upsert(generation);
        let insert = account_transaction::insert(generation);
        let (upsert, insert) = futures::try_join!(
            transaction.prepare_cached(&upsert),
            transaction.prepare_cached(&insert),
        )?;
        let (all, ()) = futures::try_join!(
            changes.summaries.write(transaction, &upsert, source),
            changes.transactions.write(transaction, &insert, source),
        )?;
        Ok(all)
    }

    async fn clear(
        &self,
        transaction: &Transaction<'_>,
        generation: &Generation,
        source: &Source,
    ) -> Result<(), tokio_postgres::Error> {
        for table in ["account_summary", "account_transaction"] {
            let delete =
                format!("DELETE FROM {}.{table} WHERE kafka_partition = $1", generation.schema);
            transaction.execute(&delete, &[&source.partition]).await?;
        }
        Ok(())
    }
}
