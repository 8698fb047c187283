//! Where rows live, and how they get there exactly once: batches -> rows + place.
//!
//! Postgres writes rows and checkpoint in one transaction. In ClickHouse the rows are the
//! checkpoint: one block a partition, absorbed by key if it comes twice. What changes is the
//! domains' business, what Kafka is, nobody's here.

pub mod block;
pub mod checkpoint;
pub mod clickhouse;
mod clickhouse_answer;
mod clickhouse_place;
mod clickhouse_tables;
pub mod fold;
pub mod generation;
pub mod migration;
pub mod parked;
pub mod postgres;
mod postgres_answer;
pub mod rebuild;
mod redrive;

use std::future::Future;
use std::sync::Arc;

use uuid::Uuid;

use crate::engine::projector::{Failure, Refusal};
use crate::kernel::projection::{Applied, Batch, Cause, Held, Place, Redriven};
use crate::kernel::stream::AggregateName;

/// One partition of one topic, as long as it is assigned to us.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// Whose events they are.
    pub aggregate: AggregateName,
    /// The topic.
    pub topic: String,
    /// The partition.
    pub partition: i32,
    /// The topic's id, which no later topic of that name has.
    pub topic_id: Uuid,
    /// Drawn at each assignment.
    pub nonce: u64,
}

/// What a domain's read models are made of in one store.
#[derive(Clone, Copy, Debug)]
pub struct Definition {
    /// The domain.
    pub domain: &'static str,
    /// Whose events are read.
    pub aggregates: &'static [AggregateName],
    /// The version of the projection's code: raised when the same events give other rows.
    pub version: i32,
    /// The tables of one generation; `{schema}` is filled in.
    pub tables: &'static [&'static str],
    /// The views under the names that users know; `{domain}` is their schema.
    pub views: &'static [&'static str],
}

/// What users see of a projection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InUse {
    /// The generation behind the views.
    pub generation: i32,
    /// Whether it may not be written for a moment: another one is about to take its place.
    pub is_held: bool,
}

/// A place for rows that takes each event once.
pub trait Store: Send + Sync + 'static {
    /// The projection's name, for example `postgres.banking`.
    fn name(&self) -> String;

    /// What is projected.
    fn definition(&self) -> &Definition;

    /// The generation of tables that is written, once they are prepared.
    fn generation(&self) -> i32;

    /// The same over the generation that is in use now, with nothing prepared yet.
    #[must_use]
    fn anew(&self) -> Self
    where
        Self: Sized;

    /// Which generation users see.
    fn in_use(&self) -> impl Future<Output = Result<InUse, Error>> + Send;

    /// Makes the tables and views that are not there yet. Several may do so at once.
    fn prepare(&self) -> impl Future<Output = Result<(), Error>> + Send;

    /// Reads where the rows of a partition stand.
    fn read_held(&self, source: &Source) -> impl Future<Output = Result<Held, Error>> + Send;

    /// Replaces the place, if it is still the expected one, and clears the partition's rows if
    /// asked to. `false`: it was another.
    fn reset(
        &self,
        source: &Source,
        expected: Option<Place>,
        place: Place,
        clear: bool,
    ) -> impl Future<Output = Result<bool, Error>> + Send;

    /// Writes what follows from a batch, what is put aside of it, and that it was written.
    fn apply(
        &self,
        source: &Source,
        batch: Arc<Batch>,
    ) -> impl Future<Output = Result<Applied, Failure>> + Send;

    /// Applies the oldest parked events of a stream, at most so many, and takes them off the list.
    fn redrive(
        &self,
        source: &Source,
        from: Place,
        stream: &str,
        rows: usize,
    ) -> impl Future<Output = Result<Redriven, Failure>> + Send;

    /// Writes down why a stream's first parked event still cannot be applied, and that nobody
    /// waits for it any more.
    fn keep(
        &self,
        source: &Source,
        stream: &str,
        refusal: &Refusal,
    ) -> impl Future<Output = Result<(), Error>> + Send;

    /// How many events are parked in each partition, and which of them somebody wants back.
    fn parked(&self) -> impl Future<Output = Result<Vec<parked::Count>, Error>> + Send;
}

/// What went wrong with a store, and where.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The address is malformed.
    #[error("{setting} is no usable address: {reason}")]
    Address {
        /// The setting.
        setting: &'static str,
        /// What is wrong with it; never the address itself, which may hold a password.
        reason: String,
    },
    /// Postgres does not answer.
    #[error("Postgres does not answer at {host}: is it running? (MILLRACE_POSTGRES_URL)")]
    PostgresUnreachable {
        /// Host and port.
        host: String,
        /// Why.
        #[source]
        source: deadpool_postgres::PoolError,
    },
    /// ClickHouse does not answer.
    #[error("ClickHouse does not answer at {url}: is it running? (MILLRACE_CLICKHOUSE_URL)")]
    ClickHouseUnreachable {
        /// The address.
        url: String,
        /// Why.
        #[source]
        source: ::clickhouse::error::Error,
    },
    /// A statement failed in Postgres.
    #[error("Postgres: {action} failed")]
    Postgres {
        /// What was tried.
        action: String,
        /// Why.
        #[source]
        source: tokio_postgres::Error,
    },
    /// Postgres keeps us waiting: the connection is given up.
    #[error("Postgres: {action} took more than {seconds} s: is it reachable, is it locked?")]
    PostgresTimeout {
        /// What was tried.
        action: String,
        /// How long it was waited for.
        seconds: u64,
    },
    /// A statement failed in ClickHouse.
    #[error("ClickHouse: {action} failed")]
    ClickHouse {
        /// What was tried.
        action: String,
        /// Why.
        #[source]
        source: ::clickhouse::error::Error,
    },
    /// The tables were made by other code than this.
    #[error(
        "the tables of {projection} (generation {generation}) were made by another version of \
         its code: run `millrace rebuild {projection}`"
    )]
    Outdated {
        /// The projection.
        projection: String,
        /// Its live generation.
        generation: i32,
    },
    /// Generations are not as they must be for what was asked.
    #[error("{0}")]
    Generation(String),
    /// A numbered migration was changed after it had been applied.
    #[error("migration {number} of schema {schema} is not the one that was applied to it")]
    Migration {
        /// The schema.
        schema: String,
        /// The migration's number.
        number: i32,
    },
    /// A row holds what no row may hold.
    #[error("{0}")]
    Corrupt(String),
}

impl Error {
    /// Names what was tried in Postgres.
    pub fn postgres(action: impl Into<String>) -> impl FnOnce(tokio_postgres::Error) -> Self {
        let action = action.into();
        move |source| Self::Postgres { action, source }
    }

    /// Names what was tried in ClickHouse.
    pub fn clickhouse(
        action: impl Into<String>,
    ) -> impl FnOnce(::clickhouse::error::Error) -> Self {
        let action = action.into();
        move |source| Self::ClickHouse { action, source }
    }

    /// Whether the same statement may succeed later, unchanged.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        match self {
            Self::PostgresUnreachable { .. }
            | Self::PostgresTimeout { .. }
            | Self::ClickHouseUnreachable { .. } => true,
            Self::Postgres { source, .. } => postgres_answer::is_transient(source),
            Self::ClickHouse { source, .. } => clickhouse_answer::is_transient(source),
            Self::Address { .. }
            | Self::Outdated { .. }
            | Self::Generation(_)
            | Self::Migration { .. }
            | Self::Corrupt(_) => false,
        }
    }

    /// Whether the store refuses what it was given, and will again, but might take other rows.
    #[must_use]
    pub fn is_refusal(&self) -> bool {
        match self {
            Self::Postgres { source, .. } => postgres_answer::is_refusal(source),
            Self::ClickHouse { source, .. } => clickhouse_answer::is_refusal(source),
            Self::PostgresUnreachable { .. }
            | Self::PostgresTimeout { .. }
            | Self::ClickHouseUnreachable { .. }
            | Self::Address { .. }
            | Self::Outdated { .. }
            | Self::Generation(_)
            | Self::Migration { .. }
            | Self::Corrupt(_) => false,
        }
    }

    /// The error and its causes in one line.
    #[must_use]
    pub fn chain(&self) -> String {
        let mut text = self.to_string();
        let mut cause = std::error::Error::source(self);
        while let Some(error) = cause {
            text = format!("{text}: {error}");
            cause = error.source();
        }
        text
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        if error.is_refusal() {
            let (cause, reason) = (Cause::StoreRefused, error.chain());
            Self::Refused(Refusal { cause, reason, suspect: None })
        } else if error.is_transient() {
            Self::Transient(error.chain())
        } else {
            Self::Permanent(error.chain())
        }
    }
}
