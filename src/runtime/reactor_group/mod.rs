//! A process manager's reactor in this process: one consumer, one sender, one thread.
//!
//! ```text
//! consumer -> machine of the partition -> commands, acknowledged -> position, stored -> offset
//! ```
//!
//! A partition that waits for a schema is paused, and the others go on. What is sent is
//! acknowledged before the next poll, so a rebalance never meets a delivery that is under way.

mod driver;
mod partitions;

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use super::lane::SchemaLookUp;
use super::lane_status::LaneState;
use super::signing::{internal_key, targets};
use crate::config::Config;
use crate::engine::reactor::Counts;
use crate::kernel::reactor::Reactor;
use crate::kernel::stream::AggregateName;
use crate::log::kafka::group::{Place, Witness};
use crate::log::kafka::{Error, positions};
use driver::Driver;

/// How a reactor fares on a partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// What it is doing.
    pub state: LaneState,
    /// What it has done.
    pub counts: Counts,
    /// The last thing that went wrong.
    pub last_error: Option<String>,
}

/// A running reactor.
pub struct ReactorGroup {
    name: &'static str,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
    board: Arc<Board>,
}

/// What others may look at.
#[derive(Default)]
struct Board {
    partitions: Mutex<BTreeMap<Place, Status>>,
    has_joined: AtomicBool,
    is_lost: AtomicBool,
}

impl Board {
    fn join(&self) {
        self.has_joined.store(true, Ordering::Release);
        self.is_lost.store(false, Ordering::Release);
    }

    /// It is a member no more; `is_lost` if the group has thrown it out.
    fn leave(&self, is_lost: bool) {
        self.has_joined.store(false, Ordering::Release);
        self.is_lost.fetch_or(is_lost, Ordering::AcqRel);
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Place, Status>> {
        self.partitions.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn update(&self, place: &Place, change: impl FnOnce(&mut Status)) {
        if let Some(status) = self.lock().get_mut(place) {
            change(status);
        }
    }
}

impl ReactorGroup {
    /// Joins the group and starts reacting; `reached` are the aggregates that commands go to.
    ///
    /// # Errors
    /// No broker answers, or a topic is missing.
    pub fn start(
        config: &Config,
        reactor: Arc<dyn Reactor>,
        reached: &[AggregateName],
        look_up: SchemaLookUp,
    ) -> Result<Self, Error> {
        let name = reactor.name();
        let group = config.namespace.dotted(&format!("millrace.reactor.{name}"));
        let witness = Witness::open(&config.kafka, &group)?;
        let cluster_id = witness.cluster_id()?;
        let inputs = reactor.inputs();
        let topics: Vec<String> = inputs
            .iter()
            .map(|(aggregate, kind)| config.namespace.dotted(&aggregate.topic(*kind)))
            .collect();
        let ids = witness.topic_ids(&topics.iter().map(String::as_str).collect::<Vec<_>>())?;
        let topics: HashMap<_, _> = topics.into_iter().zip(ids.into_iter().zip(inputs)).collect();
        let positions_topic = config.namespace.dotted(positions::TOPIC);
        witness.partition_count(&positions_topic)?;
        let stop = Arc::new(AtomicBool::new(false));
        let board = Arc::new(Board::default());
        let driver = Driver {
            targets: targets(config, reached.iter().copied(), &witness)?,
            key: internal_key(config, &cluster_id),
            config: config.clone(),
            reactor,
            group,
            cluster_id,
            topics,
            positions_topic,
            witness,
            look_up,
            stop: Arc::clone(&stop),
            board: Arc::clone(&board),
        };
        let thread = std::thread::Builder::new()
            .name(format!("reactor-{name}"))
            .spawn(move || driver.run())
            .map_err(|error| Error::Unexpected(format!("cannot start a thread: {error}")))?;
        Ok(Self { name, stop, thread: Some(thread), board })
    }

    /// The process manager's name.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        self.name
    }

    /// How each partition that is ours fares.
    #[must_use]
    pub fn status(&self) -> BTreeMap<Place, Status> {
        self.board.lock().clone()
    }

    /// Whether the group has given this process its partitions, which may be none.
    #[must_use]
    pub fn has_joined(&self) -> bool {
        self.board.has_joined.load(Ordering::Acquire)
    }

    /// Whether the group has thrown it out, and it is not back yet.
    #[must_use]
    pub fn is_lost(&self) -> bool {
        self.board.is_lost.load(Ordering::Acquire)
    }

    /// Asks it to store its position and leave the group.
    pub fn request_stop(&self) {
        self.stop.store(true, Ordering::Release);
    }

    /// Whether it has left.
    #[must_use]
    pub fn is_stopped(&self) -> bool {
        self.thread.as_ref().is_none_or(JoinHandle::is_finished)
    }
}

impl Drop for ReactorGroup {
    fn drop(&mut self) {
        self.request_stop();
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!(reactor = self.name, "a reactor's thread broke");
        }
    }
}
