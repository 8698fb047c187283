//! `millrace bench`: what the product does in a second, against the raw limit of the services it
//! stands on, in one run on the running stack.
//!
//! ```text
//! load -> commands topic -> `serve --only ..` (a process of its own) -> log, rows -> figures
//!                     \---> a raw baseline of the same shape ----------> raw figures -> ratio
//! ```
//!
//! - **handler**: commands a second of a backlog, between the append times of the result at 5 %
//!   and of the last one, and commands per CPU second of that process in between. Raw: a process
//!   that decides nothing writes copies of real records in the same transactions; it runs before
//!   and after, the mean counts. Memory: a `serve` with all roles and all accounts, everything
//!   projected, under the open-loop load.
//! - **latency**: from the *intended* moment of sending, at a fixed rate, to the committed event at
//!   a reader. Raw: the raw process under the same load.
//! - **postgres**: events a second of the projection, from the moment on at which every partition
//!   has rows. Raw: the same rows by plain `unnest` upserts into tables of the same form, prepared
//!   in memory, with the same batches and connections. Latency: from an event's append time (the
//!   broker's clock) to the first polling SELECT that sees its checkpoint.
//! - **clickhouse**: as postgres. Raw: the same blocks, prepared in memory, as many at once.
//! - **restore**: events a second of a handler's restart, from its start to all partitions ready,
//!   less what a start takes that restores nothing. Raw: read, decode, fold in a hash map.
//! - **transfers**: from the *intended* moment of sending to `TransferCompleted`, in an open loop;
//!   and transfers a second of a backlog. Raw: six raw passages, one after the other.
//! - **reads**: an account by its id over HTTP while all roles and the open-loop load run, from the
//!   intended moment of asking. Raw: a prepared SELECT of the same row.
//!
//! Every `ratio` is the figure over the raw one: above 1 is more of it, so for a latency longer.
//! The first 5 % of a backlog and the first two seconds of a load are warm-up and left out. A
//! command that fails, a record that is missing or a process that ends is an error, not a figure.
//! Client, brokers and databases share the machine, so figures mean little without their ratios.
//!
//! Everything happens in a namespace of its own and is taken away at the end, also when the run is
//! interrupted or fails.

pub mod child;
pub mod clickhouse;
pub mod figures;
pub mod ground;
pub mod handler;
pub mod latency;
pub mod load;
pub mod postgres;
pub mod raw;
pub mod reads;
pub mod restore;
pub mod transfers;
pub mod visible;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde::Serialize;

use crate::codec::banking::AccountCodec;
use crate::config::Config;
use crate::kernel::codec::CodecError;
use crate::log::kafka;
use crate::read_model::banking::Codecs;
use crate::read_model::store;
use crate::{runtime, topology};

use ground::Ground;

/// How long processes that were asked to stop are waited for.
const CHILDREN_TIMEOUT: Duration = Duration::from_secs(15);

/// What is measured, and how much of it.
#[derive(Clone, Debug)]
pub struct Options {
    /// Commands in the backlog, openings included.
    pub commands: usize,
    /// Accounts that they go to.
    pub accounts: usize,
    /// Commands a second of the open-loop loads.
    pub rate: u32,
    /// The most commands in one transaction.
    pub batch: usize,
    /// How long each open-loop load lasts, without its warm-up.
    pub seconds: u32,
    /// The parts, in the order in which they run.
    pub parts: Vec<Part>,
}

/// A part of the benchmark.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// Commands a second, per CPU second, memory.
    Handler,
    /// Command to committed event.
    Latency,
    /// Events a second into Postgres, and event to row.
    Postgres,
    /// Events a second into ClickHouse, and event to row.
    ClickHouse,
    /// Events a second of a restart.
    Restore,
    /// Transfers from end to end.
    Transfers,
    /// Point queries.
    Reads,
}

/// What a person sees meanwhile.
pub trait Progress: Send + Sync {
    /// A step begins; `length` is 0 if nobody knows how long it is.
    fn begin(&self, what: &str, length: usize);
    /// So much of it is done.
    fn reach(&self, position: usize);
    /// It is over.
    fn end(&self);
}

/// What came of it. A part that was not asked for is null.
#[derive(Debug, Default, Serialize)]
pub struct Report {
    /// What was asked for.
    pub settings: Settings,
    /// The backlog.
    pub handler: Option<handler::Figures>,
    /// The open loop.
    pub latency: Option<latency::Figures>,
    /// Rows in Postgres.
    pub postgres: Option<visible::Figures>,
    /// Rows in ClickHouse.
    pub clickhouse: Option<visible::Figures>,
    /// A restart.
    pub restore: Option<restore::Figures>,
    /// Transfers from end to end.
    pub transfers: Option<transfers::Figures>,
    /// Point queries while everything runs.
    pub reads: Option<reads::Figures>,
}

/// What was asked for.
#[derive(Debug, Default, Serialize)]
pub struct Settings {
    /// Commands in the backlog.
    pub commands: usize,
    /// Accounts.
    pub accounts: usize,
    /// Commands a second of the open loops.
    pub rate: u32,
    /// The most commands in one transaction.
    pub batch: usize,
    /// Seconds of each open loop.
    pub seconds: u32,
    /// Partitions of every topic.
    pub partitions: i32,
}

/// What went wrong, and where.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Kafka.
    #[error(transparent)]
    Kafka(#[from] kafka::Error),
    /// Topics.
    #[error(transparent)]
    Topics(#[from] kafka::topic::Error),
    /// Schemas.
    #[error(transparent)]
    Schemas(#[from] runtime::schemas::Error),
    /// A database.
    #[error(transparent)]
    Store(#[from] store::Error),
    /// What stands on the log cannot be read.
    #[error(transparent)]
    Codec(#[from] CodecError),
    /// A process of our own cannot be started or watched.
    #[error("cannot run {what}")]
    Child {
        /// The process.
        what: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// It was told to stop.
    #[error("interrupted")]
    Interrupted,
    /// A measurement that would be wrong.
    #[error("{0}")]
    Wrong(String),
}

/// A benchmark under way.
pub struct Bench {
    /// Where it happens.
    pub ground: Ground,
    /// What is measured.
    pub options: Options,
    /// Who watches.
    pub progress: Arc<dyn Progress>,
    /// Set when it is to end early.
    pub stop: Arc<AtomicBool>,
    /// How long a handler takes from its start to its readiness with nothing to restore.
    idle_start: Option<Duration>,
    /// Whether the backlog is handled.
    handled: bool,
}

impl Bench {
    /// Finds its ground; makes nothing yet.
    ///
    /// # Errors
    /// Kafka does not answer.
    pub async fn new(
        config: &Config,
        options: Options,
        progress: Arc<dyn Progress>,
        stop: Arc<AtomicBool>,
    ) -> Result<Self, Error> {
        let ground = Ground::find(config).await?;
        Ok(Self { ground, options, progress, stop, idle_start: None, handled: false })
    }

    /// Measures part after part.
    ///
    /// # Errors
    /// Whatever would make a figure wrong.
    pub async fn run(&mut self) -> Result<Report, Error> {
        self.progress.begin("making topics and schemas", 0);
        self.ground.make().await?;
        let mut report = Report { settings: self.settings(), ..Report::default() };
        self.warm_up().await?;
        for part in self.options.parts.clone() {
            self.check()?;
            match part {
                Part::Handler => report.handler = Some(handler::measure(self).await?),
                Part::Latency => report.latency = Some(latency::measure(self).await?),
                Part::Postgres => report.postgres = Some(postgres::measure(self).await?),
                Part::ClickHouse => report.clickhouse = Some(clickhouse::measure(self).await?),
                Part::Restore => report.restore = Some(restore::measure(self).await?),
                Part::Reads => report.reads = Some(reads::measure(self).await?),
                Part::Transfers => {
                    let raw = report.latency.as_ref();
                    report.transfers = Some(transfers::measure(self, raw).await?);
                }
            }
        }
        if let Some(handler) = &mut report.handler {
            handler.rss_mb = handler::memory(self).await?;
        }
        self.progress.end();
        Ok(report)
    }

    /// Takes everything away again.
    ///
    /// # Errors
    /// A service does not answer.
    pub async fn clean(&self) -> Result<(), Error> {
        // What still runs would make again what is taken away.
        let asked = Instant::now();
        while !child::all_ended() && asked.elapsed() < CHILDREN_TIMEOUT {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let wants = |part| self.options.parts.contains(&part);
        // Memory and reads are measured with all roles.
        let all = wants(Part::Handler) || wants(Part::Reads);
        self.ground.clean(all || wants(Part::Postgres), all || wants(Part::ClickHouse)).await
    }

    fn settings(&self) -> Settings {
        Settings {
            commands: self.options.commands,
            accounts: self.options.accounts,
            rate: self.options.rate,
            batch: self.options.batch,
            seconds: self.options.seconds,
            partitions: self.ground.partitions,
        }
    }

    fn check(&self) -> Result<(), Error> {
        if self.stop.load(Ordering::Acquire) { Err(Error::Interrupted) } else { Ok(()) }
    }

    /// Reads account events and results.
    #[must_use]
    pub fn codec(&self) -> AccountCodec {
        AccountCodec::new(Arc::clone(&self.ground.schemas))
    }

    /// Reads the events of all aggregates.
    #[must_use]
    pub fn codecs(&self) -> Codecs {
        topology::banking_codecs(&self.ground.schemas)
    }

    /// How many partitions every topic has.
    #[must_use]
    pub fn partition_count(&self) -> usize {
        usize::try_from(self.ground.partitions).unwrap_or(0)
    }
}

/// Runs what blocks on a thread of its own.
///
/// # Errors
/// As `work`.
pub async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|error| Error::Wrong(format!("a thread broke: {error}")))?
}
