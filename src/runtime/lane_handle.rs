//! A lane as the poll thread sees it: commands -> its queue, up to a number and their bytes.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam_channel::{Sender, TrySendError, bounded};

use super::lane::{Lane, Shared, ToLane};
use super::lane_status::{LaneState, LaneStatus};
use super::plan::AggregatePlan;
use super::progress::Progress;
use crate::engine::protocol::{Counts, Settings};
use crate::kernel::message::Record;
use crate::state::DiskShelf;

/// The most commands that wait for one lane, and their bytes.
const QUEUED_MAX: usize = 10_000;
const QUEUED_BYTES_MAX: usize = 32 * 1024 * 1024;
/// How long the poll thread waits for a full lane that stands still.
const FULL_PATIENCE: Duration = Duration::from_millis(500);
const FULL_NAP: Duration = Duration::from_millis(1);

/// A lane as the poll thread sees it.
pub(super) struct LaneHandle {
    pub(super) to_lane: Sender<ToLane>,
    queued_bytes: Arc<AtomicUsize>,
    pub(super) stop: Arc<AtomicBool>,
    pub(super) status: Arc<Mutex<LaneStatus>>,
    pub(super) thread: JoinHandle<()>,
    /// A command that found no room; its partition is paused until there is some.
    pub(super) held: Option<Record>,
}

/// What became of a command that was offered to a lane.
pub(super) enum Offer {
    Taken,
    /// There is no room, and the lane stands still.
    Full(Record),
    /// The lane has stopped.
    Ended,
}

impl LaneHandle {
    /// Starts a partition's lane.
    ///
    /// # Errors
    /// The system has no thread for it.
    pub(super) fn start(
        plan: &AggregatePlan,
        group: &str,
        partition: i32,
        shared: &Shared,
    ) -> std::io::Result<Self> {
        let (to_lane, inbox) = bounded(QUEUED_MAX);
        let settings = Settings { partition, ..plan.settings.clone() };
        let status = Arc::new(Mutex::new(LaneStatus {
            topic: plan.topics.commands.clone(),
            partition,
            state: LaneState::Fencing,
            counts: Counts::default(),
            restored_percent: 0,
            ready_after: None,
            last_error: None,
        }));
        let stop = Arc::new(AtomicBool::new(false));
        let queued_bytes = Arc::new(AtomicUsize::new(0));
        let directory = shared.state_dir.join(&plan.topics.commands).join(partition.to_string());
        let lane = Lane {
            batch_max: settings.batch_max,
            handler: (plan.make)(settings, Box::new(DiskShelf::new(directory))),
            topics: plan.topics.clone(),
            partition,
            transactional_id: format!("{group}.{}.{partition}", plan.topics.commands),
            shared: shared.clone(),
            inbox,
            queued_bytes: Arc::clone(&queued_bytes),
            stop: Arc::clone(&stop),
            status: Arc::clone(&status),
            progress: Progress::default(),
            started: Instant::now(),
            producer: None,
            crossing: None,
            aborts: 0,
            offset_is_lost: false,
        };
        let thread = std::thread::Builder::new()
            .name(format!("lane-{partition}"))
            .spawn(move || lane.run_to_its_end())?;
        Ok(Self { to_lane, queued_bytes, stop, status, thread, held: None })
    }

    /// Whether it has worked off most of what it had.
    pub(super) fn has_room(&self) -> bool {
        self.to_lane.len() <= QUEUED_MAX / 4
            && self.queued_bytes.load(Ordering::Acquire) <= QUEUED_BYTES_MAX / 4
    }

    /// Hands over what found no room before.
    pub(super) fn take_held(&mut self) {
        let Some(record) = self.held.take() else { return };
        self.queued_bytes.fetch_add(record.byte_count(), Ordering::AcqRel);
        // There is room, and nobody else puts anything in.
        let _ = self.to_lane.try_send(ToLane::Record(record));
    }

    /// Puts a command into its queue; waits while that is full but moves.
    pub(super) fn offer(&self, record: Record, stop: &AtomicBool) -> Offer {
        let bytes = record.byte_count();
        let mut record = record;
        let mut waiting_since = Instant::now();
        let mut least = usize::MAX;
        loop {
            let queued = self.to_lane.len();
            if self.queued_bytes.load(Ordering::Acquire) < QUEUED_BYTES_MAX {
                self.queued_bytes.fetch_add(bytes, Ordering::AcqRel);
                match self.to_lane.try_send(ToLane::Record(record)) {
                    Ok(()) => return Offer::Taken,
                    Err(TrySendError::Full(ToLane::Record(back))) => record = back,
                    Err(_) => return Offer::Ended,
                }
                self.queued_bytes.fetch_sub(bytes, Ordering::AcqRel);
            }
            if queued < least {
                least = queued;
                waiting_since = Instant::now();
            }
            if waiting_since.elapsed() > FULL_PATIENCE || stop.load(Ordering::Acquire) {
                return Offer::Full(record);
            }
            std::thread::sleep(FULL_NAP);
        }
    }
}
