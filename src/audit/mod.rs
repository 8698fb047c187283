//! The auditor: log -> a fold of its own -> every way in which snapshots, Postgres and ClickHouse
//! say something else, at one consistent cut, while everything runs.
//!
//! **What is checked shares no code with what checks it.** Events are read as generic Avro by the
//! schema that they were written with ([`fact`]); what each column must be is said once more, as
//! tables of rules ([`banking`]); the stores are read by connections and statements of this
//! folder. It imports neither `read_model`, nor `engine`, nor `codec`, nor `domain` (whose
//! `evolve` made the snapshots): `tests/architecture.rs` holds it to that.
//!
//! | store | the cut |
//! |---|---|
//! | Postgres | rows and checkpoints of one snapshot; the log up to each checkpoint |
//! | ClickHouse | per partition, up to the end of its rows or of what was committed to Kafka |
//! | snapshots | each at its own version |
//!
//! Memory is bounded: one partition at a time, and of that at most
//! [`Settings::streams_max`] streams (a range of their hashes) in one pass over the log. A pass
//! keeps the fold of each stream and a digest of its other rows; only streams that differ are read
//! once more, in full, to name each difference.

pub mod banking;
pub mod cell;
pub mod clickhouse;
mod compare;
mod detail;
pub mod difference;
pub mod fact;
mod partition;
mod pass;
pub mod postgres;
mod run;
mod snapshots;

use std::collections::HashMap;
use std::sync::Arc;

pub use difference::{Difference, Report};
pub use run::run;

use crate::kernel::time::Timestamp;
use crate::log::kafka;

/// Which streams are looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Scope {
    /// Every one.
    All,
    /// That one of an aggregate (`account`, by its topic's word).
    Stream {
        /// The aggregate.
        aggregate: String,
        /// Its id.
        id: String,
    },
    /// So many, chosen by chance in each partition that is looked at.
    Sample(usize),
}

/// What is compared.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Which streams.
    pub scope: Scope,
    /// Only streams that have an event since then.
    pub since: Option<Timestamp>,
    /// Whether snapshots are.
    pub snapshots: bool,
    /// Whether Postgres is.
    pub postgres: bool,
    /// Whether ClickHouse is.
    pub clickhouse: bool,
    /// The generation of tables, if it is not the one in use; of one store alone.
    pub generation: Option<i32>,
    /// Only one partition, for audits bit by bit: this one of all, counted round and round.
    pub only: Option<u64>,
    /// The most streams in one pass over a partition.
    pub streams_max: usize,
    /// The most streams of which differences are named in full.
    pub named_max: usize,
    /// How long to rest after so many records; zero is not at all.
    pub rest: Rest,
}

/// How the log is read: at full speed, or gently.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rest {
    /// At full speed.
    Never,
    /// So many times as long as the work before it took.
    Times(u32),
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            scope: Scope::All,
            since: None,
            snapshots: true,
            postgres: true,
            clickhouse: true,
            generation: None,
            only: None,
            streams_max: 200_000,
            named_max: 10_000,
            rest: Rest::Never,
        }
    }
}

/// The first parked event of a stream, by projection, topic and stream.
pub type Parked = HashMap<(String, String, String), u64>;

/// Is told how far the audit has come: offsets done, offsets in all.
pub type Progress = Arc<dyn Fn(u64, u64) + Send + Sync>;

/// Why an audit could not be made to its end.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Kafka does not answer, or a topic is not there.
    #[error("cannot read the log")]
    Kafka(#[from] kafka::Error),
    /// Postgres does not answer.
    #[error("Postgres does not answer: is it running? (MILLRACE_POSTGRES_URL)")]
    PostgresUnreachable(#[source] tokio_postgres::Error),
    /// A statement failed.
    #[error("Postgres: {0} failed")]
    Postgres(&'static str, #[source] tokio_postgres::Error),
    /// The address is malformed.
    #[error("{0} is no usable address")]
    Address(&'static str),
    /// ClickHouse does not answer.
    #[error("ClickHouse does not answer: is it running? (MILLRACE_CLICKHOUSE_URL)")]
    ClickHouseUnreachable(#[source] ::clickhouse::error::Error),
    /// A statement failed.
    #[error("ClickHouse: {0} failed")]
    ClickHouse(&'static str, #[source] ::clickhouse::error::Error),
    /// A schema cannot be read.
    #[error("schema {0} cannot be used: {1}")]
    Schema(u32, String),
    /// The work was cut short.
    #[error("the audit was cut short")]
    Cut,
}

impl Error {
    /// Whether a service cannot be reached.
    #[must_use]
    pub const fn is_unreachable(&self) -> bool {
        matches!(self, Self::PostgresUnreachable(_) | Self::ClickHouseUnreachable(_))
    }
}
