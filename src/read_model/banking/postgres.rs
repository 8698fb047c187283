//! Banking in Postgres: account events -> `account_summary` and `account_transaction`; transfer
//! events -> `transfer`.

use deadpool_postgres::Transaction;

use super::account_summary::{self, Summaries};
use super::account_transaction::{self, Transactions};
use super::transfer::{self as transfers, Transfers};
use super::{ACCOUNT_EVENTS, Codecs, DOMAIN, TRANSFER_EVENTS, decode};
use crate::domain::banking::{account, transfer};
use crate::kernel::codec::CodecError;
use crate::kernel::message::Record;
use crate::kernel::projection::{Head, Projection};
use crate::kernel::stream::AggregateName;
use crate::read_model::store::fold::Versions;
use crate::read_model::store::generation::Generation;
use crate::read_model::store::postgres::Rows;
use crate::read_model::store::{Definition, Source};

/// Whose events are read.
pub const AGGREGATES: [AggregateName; 2] = [account::NAME, transfer::NAME];

/// The view that readers look at who wait for an event of their own.
const STREAM_VERSION: &str = include_str!("stream_version.view.sql");

/// What is made of them.
const DEFINITION: Definition = Definition {
    domain: DOMAIN,
    aggregates: &AGGREGATES,
    version: 1,
    tables: &[account_summary::TABLE, account_transaction::TABLE, transfers::TABLE],
    views: &[account_summary::VIEW, account_transaction::VIEW, transfers::VIEW, STREAM_VERSION],
};

/// Banking's rows.
pub struct Banking {
    codecs: Codecs,
}

impl Banking {
    /// Reads events by these codecs.
    #[must_use]
    pub const fn new(codecs: Codecs) -> Self {
        Self { codecs }
    }
}

/// What a batch changes: it is of one aggregate.
#[derive(Debug, Default)]
pub struct Changes {
    summaries: Summaries,
    transactions: Transactions,
    transfers: Transfers,
}

/// The tables that an aggregate's events fill.
fn tables(aggregate: AggregateName) -> &'static [&'static str] {
    match aggregate {
        account::NAME => &["account_summary", "account_transaction"],
        transfer::NAME => &["transfer"],
        _ => &[],
    }
}

impl Rows for Banking {
    type Changes = Changes;

    fn definition(&self) -> &Definition {
        &DEFINITION
    }

    fn take(
        &self,
        source: &Source,
        head: &Head<'_>,
        record: &Record,
        changes: &mut Changes,
    ) -> Result<bool, CodecError> {
        if source.aggregate == transfer::NAME {
            let event = decode(&*self.codecs.transfers, &TRANSFER_EVENTS, head, record)?;
            changes.transfers.project(head, event.as_ref());
            return Ok(event.is_some());
        }
        let event = decode(&*self.codecs.accounts, &ACCOUNT_EVENTS, head, record)?;
        changes.summaries.project(head, event.as_ref());
        changes.transactions.project(head, event.as_ref());
        Ok(event.is_some())
    }

    async fn versions(
        &self,
        transaction: &Transaction<'_>,
        generation: &Generation,
        source: &Source,
        streams: &[&str],
    ) -> Result<Versions, tokio_postgres::Error> {
        if source.aggregate == transfer::NAME {
            return transfers::versions(transaction, generation, streams).await;
        }
        account_summary::versions(transaction, generation, streams).await
    }

    async fn write(
        &self,
        transaction: &Transaction<'_>,
        generation: &Generation,
        source: &Source,
        changes: &Changes,
    ) -> Result<bool, tokio_postgres::Error> {
        if source.aggregate == transfer::NAME {
            let upsert = transaction.prepare_cached(&transfers::upsert(generation)).await?;
            return changes.transfers.write(transaction, &upsert, source).await;
        }
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
        for table in tables(source.aggregate) {
            let delete =
                format!("DELETE FROM {}.{table} WHERE kafka_partition = $1", generation.schema);
            transaction.execute(&delete, &[&source.partition]).await?;
        }
        Ok(())
    }
}
