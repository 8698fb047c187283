//! One owned partition, one thread: carries out a handler's actions on the real log.
//!
//! No two actions of a lane overlap, and nothing but its stop flag interrupts it. A lane that is
//! asked to stop finishes the transaction in hand first.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender};

use super::lane_status::{LaneState, LaneStatus};
use super::plan::TopicNames;
use super::progress::Progress;
use crate::clock;
use crate::config;
use crate::engine::protocol::{Action, Crossing, From, Handler, Input, Moment};
use crate::kernel::message::Record;
use crate::kernel::stream::Kind;
use crate::kernel::time::Timestamp;
use crate::log::kafka::Error;
use crate::log::kafka::crossing::CrossingProducer;
use crate::log::kafka::group::{ConsumerGroupMetadata, Place, Witness};
use crate::log::kafka::reader::{Begin, ReaderPool};
use crate::log::kafka::transaction::TransactionalProducer;

/// How often a waiting lane looks whether it should stop.
const STOP_CHECK: Duration = Duration::from_millis(100);
/// How long a service that does not answer is left alone.
const RETRY_PAUSE: Duration = Duration::from_millis(500);

/// What the polling thread tells a lane.
pub(super) enum ToLane {
    /// A command.
    Record(Record),
    /// The consumer stands where the lane wanted it.
    Started,
    /// Look at the stop flag.
    Stop,
}

/// What a lane tells the polling thread.
pub(super) struct FromLane {
    pub(super) place: Place,
    /// Where its commands are to be read from.
    pub(super) next_offset: i64,
}

/// Asks the registry for a schema and teaches it to the codec; an error is "no answer".
pub type SchemaLookUp = Arc<dyn Fn(u32) -> Result<(), String> + Send + Sync>;

/// Gives the group's metadata while this process is a member in good standing.
pub(super) type Membership =
    Arc<dyn Fn(&AtomicBool) -> Option<ConsumerGroupMetadata> + Send + Sync>;

/// What the lanes of a group share.
#[derive(Clone)]
pub(super) struct Shared {
    pub(super) kafka: config::Kafka,
    pub(super) readers: Arc<ReaderPool>,
    pub(super) witness: Arc<Mutex<Witness>>,
    pub(super) membership: Membership,
    pub(super) look_up: SchemaLookUp,
    pub(super) state_dir: Arc<Path>,
    pub(super) to_poller: Sender<FromLane>,
}

/// One partition's thread.
pub(super) struct Lane {
    pub(super) handler: Box<dyn Handler>,
    pub(super) topics: TopicNames,
    pub(super) partition: i32,
    pub(super) transactional_id: String,
    pub(super) batch_max: usize,
    pub(super) shared: Shared,
    pub(super) inbox: Receiver<ToLane>,
    pub(super) queued_bytes: Arc<AtomicUsize>,
    pub(super) stop: Arc<AtomicBool>,
    pub(super) status: Arc<Mutex<LaneStatus>>,
    pub(super) progress: Progress,
    /// When the partition was assigned, or began to be restored anew.
    pub(super) started: Instant,
    pub(super) producer: Option<TransactionalProducer>,
    pub(super) crossing: Option<CrossingProducer>,
    /// Transactions aborted since the last one that was committed.
    pub(super) aborts: u32,
    /// The group's offset is no witness: it was given up for what a broker's crash left open.
    pub(super) offset_is_lost: bool,
}

/// The lane was asked to stop.
pub(super) struct Stopping;

impl Lane {
    /// Runs until it is asked to stop or must. A panic is our bug; it must show.
    pub(super) fn run_to_its_end(self) {
        let status = Arc::clone(&self.status);
        if catch_unwind(AssertUnwindSafe(|| self.run())).is_err() {
            let mut status = status.lock().unwrap_or_else(PoisonError::into_inner);
            status.state = LaneState::Stopped;
            status.last_error = Some("the lane broke: this is a bug, see the log".to_owned());
        }
    }

    fn run(mut self) {
        let mut action = self.handler.start();
        loop {
            // A transaction that is begun is finished first.
            let is_open = matches!(action, Action::Append(_) | Action::Abort);
            if !is_open && self.is_stopping() {
                return;
            }
            action = match self.perform(action) {
                Ok(Some(action)) => action,
                Ok(None) => return,
                Err(Stopping) => return,
            };
            self.status().counts = self.handler.counts();
        }
    }

    fn perform(&mut self, action: Action) -> Result<Option<Action>, Stopping> {
        let input = match action {
            Action::Fence => self.fence()?,
            Action::ReadCommitted => self.read_committed()?,
            Action::Restore { kind, from } => return self.restore(kind, from).map(Some),
            Action::Ready { next_offset } => self.ready(next_offset)?,
            Action::Receive { until } => self.receive(until)?,
            Action::Deliver(crossings) => self.deliver(&crossings)?,
            Action::Transact(transaction) => self.transact(transaction),
            Action::Append(chunk) => self.append(chunk),
            Action::Abort => self.abort(),
            Action::LookUpSchema(id) => self.look_up(id)?,
            Action::Sleep(wait) => {
                self.sleep(wait)?;
                Input::Woken
            }
            Action::Wait { reason, pause } => {
                self.wait(&reason, pause)?;
                Input::Woken
            }
            Action::More => {
                // Only a restore asks for more, and it does so inside `restore`.
                self.fail("more was asked for outside a restore: this is a bug");
                return Ok(None);
            }
            Action::Stop(reason) => {
                tracing::error!(topic = %self.topics.commands, partition = self.partition, reason,
                    "partition stopped");
                self.fail(&reason);
                return Ok(None);
            }
        };
        Ok(Some(self.step(input)))
    }

    fn step(&mut self, input: Input) -> Action {
        self.handler.step(Moment { now: clock::now(), nonce: clock::nonce() }, input)
    }

    pub(super) fn is_stopping(&self) -> bool {
        self.stop.load(Ordering::Acquire)
    }

    pub(super) fn status(&self) -> std::sync::MutexGuard<'_, LaneStatus> {
        self.status.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn set_state(&self, state: LaneState) {
        self.status().state = state;
    }

    fn fail(&self, reason: &str) {
        let mut status = self.status();
        status.state = LaneState::Stopped;
        status.last_error = Some(reason.to_owned());
    }

    /// Says what does not work, once a try, and waits a little.
    pub(super) fn waiting(
        &self,
        what: &str,
        error: &dyn std::fmt::Display,
    ) -> Result<(), Stopping> {
        self.wait(&format!("{what}: {error}"), RETRY_PAUSE)
    }

    fn wait(&self, reason: &str, pause: Duration) -> Result<(), Stopping> {
        tracing::warn!(topic = %self.topics.commands, partition = self.partition, reason,
            "waiting; trying again");
        {
            let mut status = self.status();
            status.state = LaneState::Waiting;
            status.last_error = Some(reason.to_owned());
        }
        self.sleep(pause)
    }

    fn sleep(&self, wait: Duration) -> Result<(), Stopping> {
        let mut left = wait;
        while !left.is_zero() {
            if self.is_stopping() {
                return Err(Stopping);
            }
            let nap = left.min(STOP_CHECK);
            std::thread::sleep(nap);
            left -= nap;
        }
        Ok(())
    }

    fn fence(&mut self) -> Result<Input, Stopping> {
        if self.status().ready_after.is_some() {
            self.started = Instant::now();
        }
        self.set_state(LaneState::Fencing);
        self.producer = None;
        loop {
            if self.is_stopping() {
                return Err(Stopping);
            }
            match TransactionalProducer::open(&self.shared.kafka, &self.transactional_id) {
                Ok(producer) => {
                    self.producer = Some(producer);
                    return Ok(Input::Fenced);
                }
                Err(error) => self.waiting("cannot fence off older owners", &chain(&error))?,
            }
        }
    }

    pub(super) fn place(&self) -> Place {
        (self.topics.commands.clone(), self.partition)
    }

    /// Hands a topic's records to the handler, chunk by chunk; schemas are looked up on the way.
    fn restore(&mut self, kind: Kind, from: From) -> Result<Action, Stopping> {
        self.set_state(LaneState::Restoring);
        let start = match from {
            From::Start => Begin::Oldest,
            From::Moment(since) => Begin::Moment(since),
            From::Offset(offset) => Begin::Offset(offset),
        };
        let readers = Arc::clone(&self.shared.readers);
        let topic = self.topics.of(kind).to_owned();
        let partition = self.partition;
        match from {
            _ if kind == Kind::Snapshots => self.look_at_ends(),
            From::Offset(offset) => self.progress.begin_at(kind, offset),
            From::Start | From::Moment(_) => {}
        }
        loop {
            let mut ended = None;
            let outcome = readers.read_to_end(&topic, partition, start, |records| {
                if let Some(last) = records.last() {
                    self.status().restored_percent = self.progress.percent(kind, last.offset);
                }
                let mut action = self.step(Input::Restored(records));
                while let Action::LookUpSchema(id) = action {
                    match self.look_up(id) {
                        Ok(input) => action = self.step(input),
                        Err(Stopping) => return false,
                    }
                }
                if action != Action::More {
                    ended = Some(action);
                }
                ended.is_none() && !self.is_stopping()
            });
            match (ended, outcome) {
                (Some(action), _) => return Ok(action),
                (None, Ok(true)) => return Ok(self.step(Input::RestoreEnd)),
                (None, Ok(false)) => return Err(Stopping),
                (None, Err(error)) => self.waiting("cannot restore", &chain(&error))?,
            }
        }
    }

    /// Finds out how much there is to read, so that people can be told how long it takes.
    fn look_at_ends(&mut self) {
        self.progress = Progress::default();
        self.status().restored_percent = 0;
        for kind in [Kind::Snapshots, Kind::Events, Kind::Results] {
            let topic = self.topics.of(kind);
            // Where nobody can say, the others are all that is told of.
            if let Ok(Some((begin, end))) = self.shared.readers.ends(topic, self.partition) {
                self.progress.add(kind, begin, end);
            }
        }
    }

    fn ready(&mut self, next_offset: i64) -> Result<Input, Stopping> {
        let wish = FromLane { place: self.place(), next_offset };
        if self.shared.to_poller.send(wish).is_err() {
            return Err(Stopping);
        }
        loop {
            match self.inbox.recv_timeout(STOP_CHECK) {
                Ok(ToLane::Started) => break,
                // Read before the consumer stood where it should.
                Ok(ToLane::Record(record)) => self.taken(&record),
                Ok(ToLane::Stop) | Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return Err(Stopping),
            }
            if self.is_stopping() {
                return Err(Stopping);
            }
        }
        let counts = self.handler.counts();
        let after = self.started.elapsed();
        tracing::info!(topic = %self.topics.commands, partition = self.partition, next_offset,
            streams = counts.streams, snapshots = counts.restored_snapshots,
            events = counts.restored_events, events_from = counts.events_from,
            events_read = counts.read_events, timers = counts.restored_timers,
            results = counts.restored_results, answers = counts.answers,
            ms = u64::try_from(after.as_millis()).unwrap_or(u64::MAX), "partition ready");
        let mut status = self.status();
        status.state = LaneState::Running;
        status.restored_percent = 100;
        status.ready_after = Some(after);
        drop(status);
        Ok(Input::Started)
    }

    fn taken(&self, record: &Record) {
        self.queued_bytes.fetch_sub(record.byte_count(), Ordering::AcqRel);
    }

    /// Takes what has arrived; waits only if nothing has, and not longer than until that moment.
    fn receive(&mut self, until: Option<Timestamp>) -> Result<Input, Stopping> {
        let mut records = Vec::new();
        self.set_state(LaneState::Running);
        loop {
            if self.is_stopping() {
                return Err(Stopping);
            }
            let left = until.map_or(STOP_CHECK, |until| {
                let micros = u64::try_from(until.0 - clock::now().0).unwrap_or(0);
                // A little late rather than early.
                Duration::from_micros(micros + 1).min(STOP_CHECK)
            });
            match self.inbox.recv_timeout(left) {
                Ok(ToLane::Record(record)) => {
                    self.taken(&record);
                    records.push(record);
                    break;
                }
                Err(RecvTimeoutError::Timeout) if until.is_some_and(|at| at <= clock::now()) => {
                    return Ok(Input::Woken);
                }
                Ok(ToLane::Started | ToLane::Stop) | Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return Err(Stopping),
            }
        }
        while records.len() < self.batch_max {
            match self.inbox.try_recv() {
                Ok(ToLane::Record(record)) => {
                    self.taken(&record);
                    records.push(record);
                }
                Ok(ToLane::Started | ToLane::Stop) => {}
                Err(_) => break,
            }
        }
        Ok(Input::Arrived(records))
    }

    fn deliver(&mut self, crossings: &[Crossing]) -> Result<Input, Stopping> {
        let stop = Arc::clone(&self.stop);
        loop {
            if self.is_stopping() {
                return Err(Stopping);
            }
            let outcome = match self.crossing.take() {
                Some(producer) => Ok(producer),
                None => CrossingProducer::open(&self.shared.kafka),
            }
            .and_then(|producer| {
                let give_up = || stop.load(Ordering::Acquire);
                producer.deliver(crossings.iter().map(Crossing::parts), give_up)?;
                Ok(producer)
            });
            match outcome {
                Ok(producer) => {
                    self.crossing = Some(producer);
                    return Ok(Input::Delivered);
                }
                Err(error) => self.waiting("cannot send commands on", &chain(&error))?,
            }
        }
    }

    fn look_up(&mut self, id: u32) -> Result<Input, Stopping> {
        // Running, or restoring.
        let before = self.status().state;
        loop {
            if self.is_stopping() {
                return Err(Stopping);
            }
            match (self.shared.look_up)(id) {
                Ok(()) => {
                    if self.status().state == LaneState::Waiting {
                        self.set_state(before);
                    }
                    return Ok(Input::SchemaLookedUp);
                }
                Err(error) => {
                    self.waiting(&format!("the registry does not answer for schema {id}"), &error)?;
                }
            }
        }
    }
}

/// An error with its causes, on one line.
pub(super) fn chain(error: &Error) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(inner) = cause {
        text.push_str(": ");
        text.push_str(&inner.to_string());
        cause = inner.source();
    }
    text
}
