//! The command handler of one partition: commands -> events, results, position; exactly once.
//!
//! ```text
//! Fence -> ReadCommitted -> Restore snapshots, events, results -> [stamp] -> Ready -> turns
//!   ^                                                                          |
//!   +--------------- outcome unknown: who committed? --------------------------+
//! ```
//!
//! Guarantees: a command's events, its result and the next offset are one transaction; one whose
//! outcome is unknown was committed if its nonce stands beside the committed offset, and else the
//! log itself is asked, by starting over; the position record rules over whatever somebody did to
//! the group's offsets.
//!
//! What stays out: producers, consumers, threads, time. They come as inputs and leave as actions.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use super::answers::{Answers, Noted};
use super::draft::{Changes, Draft};
use super::position::{Position, Witness};
use super::protocol::{
    Action, Chunk, Committed, Counts, Handler, Input, Moment, Settings, Transaction,
};
use super::shelf::Shelf;
use super::streams::Streams;
use super::sweep::Sweep;
use super::timer::Timers;
use super::turns::TurnLimits;
use super::upkeep::Then;
use crate::kernel::codec::Codec;
use crate::kernel::decider::Decider;
use crate::kernel::message::{Headers, Outgoing, Record};
use crate::kernel::stream::{Kind, POSITION_KEY};
use crate::kernel::time::Timestamp;

/// How long an aborted turn waits before it is tried again: doubling between these two.
const RETRY_MIN: Duration = Duration::from_millis(10);
const RETRY_MAX: Duration = Duration::from_secs(1);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    Fencing,
    ReadingCommitted,
    Restoring(Kind),
    Stamping,
    Starting,
    Idle,
    LookingUp,
    Delivering,
    Transacting,
    /// The turn cannot be finished as it was begun.
    Abandoning,
    Sleeping,
    /// The shelf does not take or give: that is waited for, and then this is done.
    Waiting(Then),
    /// The outcome of a transaction is open: a new producer, then the committed offset tells.
    SettlingFence,
    SettlingRead,
    Stopped,
}

/// A turn whose transaction is under way.
pub(super) struct InFlight<D: Decider> {
    /// The commands that are decided.
    pub(super) batch: Vec<Record>,
    /// How many commands are still to be decided.
    pub(super) left: usize,
    pub(super) draft: Draft<D>,
    /// Kept for what was sent on before: deciding it anew might send on something else.
    pub(super) transaction: Option<Transaction>,
    pub(super) position: Position,
    /// Its last result, but for its place, which nobody knows yet.
    pub(super) last_result: Option<Noted>,
}

/// The command handler of one partition.
pub struct CommandHandler<D: Decider, C> {
    pub(super) settings: Settings,
    pub(super) codec: Arc<C>,
    pub(super) phase: Phase,
    pub(super) streams: Streams<D::State>,
    pub(super) answers: Answers,
    pub(super) shelf: Box<dyn Shelf>,
    /// The record that must stand where the results are read on; `None` once it was found.
    pub(super) expected: Option<Noted>,
    pub(super) timers: Timers,
    /// What holds the place back from which on a restore reads the events.
    pub(super) sweep: Sweep,
    /// A restore that did not read all events was not enough.
    pub(super) reads_whole: bool,
    /// Up to when the answers' window goes; `None` before the position is known.
    pub(super) window_end: Option<Timestamp>,
    /// As the last committed transaction left it; `None` before the first one. While a restore
    /// goes on, as its record says.
    pub(super) position: Option<Position>,
    pub(super) committed: Committed,
    pub(super) restoring: VecDeque<Record>,
    pub(super) inbox: VecDeque<Record>,
    pub(super) in_flight: Option<InFlight<D>>,
    pub(super) limits: TurnLimits,
    attempts: u32,
    /// How often in a row the shelf was asked in vain.
    pub(super) shelf_attempts: u32,
    pub(super) counts: Counts,
}

impl<D: Decider, C: Codec<D>> CommandHandler<D, C> {
    /// Makes the handler of one partition; [`Handler::start`] sets it going.
    #[must_use]
    pub fn new(settings: Settings, codec: Arc<C>, shelf: Box<dyn Shelf>) -> Self {
        Self {
            streams: Streams::new(settings.streams_in_memory),
            answers: Answers::new(settings.answers_in_memory, settings.window_seconds),
            sweep: Sweep::new(settings.restore_events, settings.streams_in_memory),
            reads_whole: false,
            settings,
            codec,
            phase: Phase::Fencing,
            shelf,
            expected: None,
            timers: Timers::default(),
            window_end: None,
            position: None,
            committed: Committed::default(),
            restoring: VecDeque::new(),
            inbox: VecDeque::new(),
            in_flight: None,
            limits: TurnLimits::default(),
            attempts: 0,
            shelf_attempts: 0,
            counts: Counts::default(),
        }
    }

    /// The streams as they are committed, for tests and audits.
    #[must_use]
    pub fn streams(&self) -> &Streams<D::State> {
        &self.streams
    }

    pub(super) fn start_over(&mut self) -> Action {
        self.streams.clear();
        self.timers = Timers::default();
        self.position = None;
        self.restoring.clear();
        self.inbox.clear();
        self.in_flight = None;
        self.limits = TurnLimits::default();
        self.phase = Phase::Fencing;
        Action::Fence
    }

    pub(super) fn stop(&mut self, reason: String) -> Action {
        self.phase = Phase::Stopped;
        Action::Stop(reason)
    }

    /// Commits the position alone, so that the group's offset is ours again.
    pub(super) fn stamp(&mut self, position: Position, moment: Moment) -> Action {
        self.position = None;
        self.phase = Phase::Stamping;
        let bound = Some(self.bound(&Changes::default()));
        let position = Position { nonce: moment.nonce, bound, ..position };
        let in_flight = InFlight::new(position, moment.now);
        let chunk = self.last_chunk(&in_flight.position, Vec::new());
        let transaction = self.transaction(&in_flight.position, chunk);
        self.in_flight = Some(in_flight);
        Action::Transact(transaction)
    }

    pub(super) fn ready(&mut self, position: Position) -> Action {
        let next_offset = position.next_offset;
        self.position = Some(position);
        self.phase = Phase::Starting;
        Action::Ready { next_offset }
    }

    /// The last records of a transaction, with the position behind them.
    pub(super) fn last_chunk(&self, position: &Position, mut records: Vec<Outgoing>) -> Chunk {
        records.push(Outgoing {
            kind: Kind::Snapshots,
            key: Some(POSITION_KEY.to_vec()),
            value: Some(position.to_bytes()),
            headers: Headers::default(),
        });
        Chunk { records, is_last: true }
    }

    pub(super) fn transaction(&self, position: &Position, chunk: Chunk) -> Transaction {
        let witness = Witness {
            cluster_id: self.settings.cluster_id.clone(),
            offset: position.next_offset,
            nonce: position.nonce,
        };
        Transaction { next_offset: position.next_offset, metadata: witness.to_text(), chunk }
    }

    pub(super) fn receive(&self) -> Action {
        let (timer, sweep) = (self.timers.next(), self.sweep.wakes_at());
        Action::Receive { until: timer.into_iter().chain(sweep).min() }
    }

    /// The transaction stands: the overlay becomes the state.
    fn merge(&mut self, last_result: Option<i64>) -> Option<Position> {
        let in_flight = self.in_flight.take()?;
        self.attempts = 0;
        let changes = in_flight.draft.changes;
        self.counts.commands += changes.command_count;
        self.counts.events += changes.event_count;
        self.counts.transactions += 1;
        self.streams.extend(changes.streams, changes.new_streams);
        self.sweep.committed(changes.event_count, changes.unsaved, &changes.swept);
        for ((id, name), at) in changes.timers {
            self.timers.set(&id, &name, at);
        }
        let command_time = in_flight.position.command_time;
        for (key, answer) in changes.answers {
            let at = command_time.map_or(answer.decided_at(), |time| time.max(answer.decided_at()));
            self.answers.insert(key, answer, at);
        }
        self.window_end = self.window_end.max(command_time);
        let place = |noted: Noted| last_result.map(|offset| Noted { offset, ..noted });
        self.answers.note(in_flight.last_result.and_then(place), changes.command_count);
        self.counts.next_offset = in_flight.position.next_offset;
        Some(in_flight.position)
    }

    fn committed(&mut self, moment: Moment, last_result: Option<i64>) -> Action {
        let stamping = self.phase == Phase::Stamping;
        self.sweep.rest(moment.now);
        match self.merge(last_result) {
            Some(position) if stamping => self.ready(position),
            Some(position) => {
                self.position = Some(position);
                self.go_on(moment)
            }
            None => self.stop("a commit without a transaction: this is a bug".to_owned()),
        }
    }

    /// Nothing was written: forget the overlay, keep the commands, try again after a while.
    fn aborted(&mut self, reason: &str) -> Action {
        let Settings { commands_topic, partition, .. } = &self.settings;
        tracing::warn!(%commands_topic, partition, reason, "transaction aborted; trying again");
        if self.phase == Phase::Stamping {
            // Nothing is decided yet: a new start is the simplest way to be right.
            self.in_flight = None;
            self.phase = Phase::Sleeping;
            return Action::Sleep(self.backoff());
        }
        if self.in_flight.as_ref().is_some_and(|turn| turn.transaction.is_some()) {
            self.phase = Phase::Sleeping;
            return Action::Sleep(self.backoff());
        }
        if let Some(in_flight) = self.in_flight.take() {
            self.put_back(in_flight.batch);
        }
        self.phase = Phase::Sleeping;
        Action::Sleep(self.backoff())
    }

    /// Has commands decided anew, before those that came after them.
    pub(super) fn put_back(&mut self, batch: Vec<Record>) {
        for record in batch.into_iter().rev() {
            self.inbox.push_front(record);
        }
    }

    fn backoff(&mut self) -> Duration {
        let wait = RETRY_MIN.saturating_mul(1 << self.attempts.min(10)).min(RETRY_MAX);
        self.attempts = self.attempts.saturating_add(1);
        wait
    }

    fn unknown(&mut self, reason: &str) -> Action {
        let Settings { commands_topic, partition, .. } = &self.settings;
        tracing::warn!(%commands_topic, partition, reason, "transaction's outcome is open; asking");
        if self.phase == Phase::Stamping {
            return self.start_over();
        }
        self.phase = Phase::SettlingFence;
        Action::Fence
    }

    /// The committed metadata says whose transaction was the last one.
    fn settle(&mut self, committed: &Committed, moment: Moment) -> Action {
        let witness = committed
            .offset
            .as_ref()
            .and_then(|(offset, text)| Witness::parse(text, *offset))
            .filter(|witness| witness.cluster_id == self.settings.cluster_id);
        let open = self.in_flight.as_ref().map(|in_flight| &in_flight.position);
        let is_committed = witness.zip(open).is_some_and(|(witness, open)| {
            witness.nonce == open.nonce && witness.offset == open.next_offset
        });
        if is_committed {
            self.phase = Phase::Transacting;
            return self.committed(moment, None);
        }
        // Not even the transaction before proves that this one was not committed: a broker may have
        // lost the marker beside the offset, and somebody else may have freed the offset since. The
        // position record knows.
        self.start_over()
    }
}

impl<D: Decider, C: Codec<D>> Handler for CommandHandler<D, C> {
    fn start(&mut self) -> Action {
        self.start_over()
    }

    fn step(&mut self, moment: Moment, input: Input) -> Action {
        match (self.phase, input) {
            (Phase::Fencing, Input::Fenced) => {
                self.phase = Phase::ReadingCommitted;
                Action::ReadCommitted
            }
            (Phase::ReadingCommitted, Input::Committed(committed)) => {
                self.committed = committed;
                self.restore(Kind::Snapshots, moment.now)
            }
            (Phase::Restoring(kind), Input::Restored(records)) => {
                self.restoring.extend(records);
                self.fold_restored(kind, moment.now)
            }
            (Phase::Restoring(kind), Input::SchemaLookedUp) => self.fold_restored(kind, moment.now),
            (Phase::Restoring(kind), Input::RestoreEnd) => self.restore_ended(kind, moment),
            (Phase::Waiting(then), Input::Woken) => self.try_again(then, moment),
            (Phase::Starting, Input::Started) => {
                self.phase = Phase::Idle;
                self.receive()
            }
            (Phase::Idle, Input::Arrived(records)) => {
                self.inbox.extend(records);
                self.next_turn(moment)
            }
            (Phase::Idle, Input::Woken) | (Phase::LookingUp, Input::SchemaLookedUp) => {
                self.next_turn(moment)
            }
            (Phase::Delivering, Input::Delivered) => self.delivered(),
            (Phase::Stamping | Phase::Transacting, Input::TransactionCommitted { last_result }) => {
                self.committed(moment, last_result)
            }
            (Phase::Transacting, Input::Written(records)) => self.go_on_deciding(records),
            (Phase::Stamping | Phase::Transacting, Input::TransactionAborted(reason)) => {
                self.aborted(&reason)
            }
            (Phase::Abandoning, Input::TransactionAborted(_)) => self.abandoned(moment),
            (
                Phase::Stamping | Phase::Transacting | Phase::Abandoning,
                Input::TransactionUnknown(reason),
            ) => self.unknown(&reason),
            (Phase::SettlingFence, Input::Fenced) => {
                self.phase = Phase::SettlingRead;
                Action::ReadCommitted
            }
            (Phase::SettlingRead, Input::Committed(committed)) => self.settle(&committed, moment),
            (Phase::Sleeping, Input::Woken) if self.position.is_none() => self.start_over(),
            (Phase::Sleeping, Input::Woken) if self.in_flight.is_some() => self.delivered(),
            (Phase::Sleeping, Input::Woken) => self.next_turn(moment),
            (phase, input) => self.stop(format!("{input:?} while {phase:?}: this is a bug")),
        }
    }

    fn counts(&self) -> Counts {
        let (streams, near) = self.streams.len();
        let (recent, shelved) = self.answers.len();
        Counts {
            streams,
            streams_in_memory: near as u64,
            answers: recent as u64 + shelved,
            answers_in_memory: recent as u64,
            to_restore_events: self.sweep.to_restore(),
            ..self.counts
        }
    }
}
