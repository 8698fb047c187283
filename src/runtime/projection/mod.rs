//! Drives projections over the real log and stores: topics of a domain -> rows of one store.
//!
//! ```text
//! poll thread: consumer -> buffers -> projector (a machine a partition) -> tokio tasks -> store
//!      ^----------------- completions, which wake the thread ------------------'
//! ```
//!
//! Guarantees: a partition's batch in hand is finished before the partition is given back; reading
//! starts where the machine says and nowhere else; all buffers are bounded. A store that goes away
//! is waited for. An event that is parked is a dead letter, too, before its partition goes on.

mod driver;
mod group;
mod letters;
mod look;
mod parked;
mod position;
mod steady;
mod watch;
mod work;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use crate::config::Config;
use crate::engine::projector::{Limits, Retry, State};
use crate::engine::reset_protocol::CommitMetadata;
use crate::kernel::projection::Place;
use crate::log::kafka;
use crate::read_model::store::{self, Store};

use super::lane::SchemaLookUp;
use driver::{Driver, Part};

/// How a projection works: its batches, and how many of them at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// The limits of each partition.
    pub limits: Limits,
    /// The most batches under way at once, over all partitions.
    pub parallel: usize,
}

/// The waits after a failure: a second, doubling to ten.
const RETRY: Retry = Retry { first_us: 1_000_000, longest_us: 10_000_000, seed: 0 };

/// The most streams of a partition that may be parked: their names are held in memory, some 3 MB.
const PARKED_STREAMS_MAX: usize = 10_000;

impl Settings {
    /// For Postgres: what has come is written at once.
    pub const POSTGRES: Self = Self {
        limits: Limits {
            rows: 5_000,
            bytes: 4 * 1024 * 1024,
            linger_us: 0,
            commit_every_us: 500_000,
            retry: RETRY,
            parked_streams: PARKED_STREAMS_MAX,
        },
        parallel: 4,
    };

    /// For ClickHouse: few large blocks.
    pub const CLICKHOUSE: Self = Self {
        limits: Limits {
            rows: 50_000,
            bytes: 8 * 1024 * 1024,
            linger_us: 400_000,
            commit_every_us: 1_000_000,
            retry: RETRY,
            parked_streams: PARKED_STREAMS_MAX,
        },
        parallel: 4,
    };
}

/// How one partition of a projection fares.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartitionStatus {
    /// The topic.
    pub topic: String,
    /// The partition.
    pub partition: i32,
    /// What it is doing.
    pub state: State,
    /// Up to where everything is applied.
    pub place: Place,
    /// The log's end when it was last asked for. The last offset before it may be a transaction's
    /// marker, so a projection that has everything may seem one behind.
    pub log_end: Option<i64>,
    /// How long the oldest record that was read has been waiting, by Kafka's time.
    pub lag_ms: i64,
    /// How many events became changes since the assignment.
    pub events: u64,
    /// How many were passed over because their type is not known.
    pub passed_over: u64,
    /// How many events are parked, and of how many streams, when the store was last asked.
    pub parked: (u64, u64),
    /// What is in the way.
    pub last_error: Option<String>,
}

/// How a projection fares.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Status {
    /// Its name, for example `postgres.banking`.
    pub name: String,
    /// Its consumer group.
    pub group: String,
    /// The generation of tables that it writes.
    pub generation: i32,
    /// Whether the group has given this process its partitions, which may be none.
    pub has_joined: bool,
    /// The partitions that are ours.
    pub partitions: Vec<PartitionStatus>,
    /// What is wrong with the group as a whole.
    pub last_error: Option<String>,
}

/// What went wrong when a projection was started.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Kafka.
    #[error(transparent)]
    Kafka(#[from] kafka::Error),
    /// The store.
    #[error(transparent)]
    Store(#[from] store::Error),
    /// The machine.
    #[error("cannot start a thread")]
    Thread(#[source] std::io::Error),
}

/// The group that fills a generation of tables that users do not see.
#[must_use]
pub fn group_beside(config: &Config, projection: &str, generation: i32) -> String {
    driver::group_beside(config, projection, generation)
}

/// The generation of tables that a commit is about; `None` if no projection made it.
#[must_use]
pub fn generation_of(metadata: &str) -> Option<i32> {
    let found = CommitMetadata::parse(metadata)?;
    Some(position::cluster_and_generation(&found.cluster_id).1)
}

/// A running projection.
pub struct Projection {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
    status: Arc<Mutex<Status>>,
}

impl Projection {
    /// Makes the tables that are missing, joins the group and starts to project. Needs a tokio
    /// runtime to run the store's work on.
    ///
    /// # Errors
    /// The store or the brokers do not answer, a topic is missing, or the tables are of another
    /// version of the code.
    pub async fn start<S: Store>(
        config: &Config,
        store: S,
        settings: Settings,
        look_up: SchemaLookUp,
    ) -> Result<Self, Error> {
        Self::start_as(config, store, (Part::InUse, settings), look_up).await
    }

    /// As [`Projection::start`], but into the store's own generation, whatever users see, in a
    /// group of its own.
    ///
    /// # Errors
    /// As [`Projection::start`].
    pub async fn start_beside<S: Store>(
        config: &Config,
        store: S,
        settings: Settings,
        look_up: SchemaLookUp,
    ) -> Result<Self, Error> {
        Self::start_as(config, store, (Part::Beside, settings), look_up).await
    }

    async fn start_as<S: Store>(
        config: &Config,
        store: S,
        settings: (Part, Settings),
        look_up: SchemaLookUp,
    ) -> Result<Self, Error> {
        store.prepare().await?;
        let stop = Arc::new(AtomicBool::new(false));
        let status = Arc::new(Mutex::new(Status::default()));
        let runtime = tokio::runtime::Handle::current();
        let (config, shared) = (config.clone(), Arc::clone(&status));
        let (stopped, name) = (Arc::clone(&stop), store.name());
        let driver = tokio::task::spawn_blocking(move || {
            Driver::new(&config, store, settings, look_up, runtime, (stopped, shared))
        });
        let broken = |error| kafka::Error::Unexpected(format!("starting {name}: {error}"));
        let driver = driver.await.map_err(broken)??;
        let thread = std::thread::Builder::new()
            .name(name)
            .spawn(move || driver.run())
            .map_err(Error::Thread)?;
        Ok(Self { stop, thread: Some(thread), status })
    }

    /// How it fares.
    #[must_use]
    pub fn status(&self) -> Status {
        self.status.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Asks it to finish the batches in hand, commit and leave the group.
    pub fn request_stop(&self) {
        self.stop.store(true, Ordering::Release);
        if let Some(thread) = &self.thread {
            thread.thread().unpark();
        }
    }

    /// Whether it has left.
    #[must_use]
    pub fn is_stopped(&self) -> bool {
        self.thread.as_ref().is_none_or(JoinHandle::is_finished)
    }
}

impl Drop for Projection {
    fn drop(&mut self) {
        self.request_stop();
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("a projection's poll thread broke");
        }
    }
}
