//! The command handler of one partition: commands -> events, results, position; exactly once.
//!
//! ```text
//! Fence -> ReadCommitted -> Restore snapshots, events, results -> [stamp] -> Ready -> turns
//!   ^                                                                          |
//!   +--------------- outcome unknown: who committed? --------------------------+
//! ```
//!
//! Guarantees: a command's events, its result and the next offset are one transaction; one whose
//! outcome is unknown is settled by the nonce that stands beside the committed offset, and by
//! nothing else; the position record rules over whatever somebody did to the group's offsets.
//!
//! What stays out: producers, consumers, threads, time. They come as inputs and leave as actions.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use super::answers::{Answers, Noted};
use super::position::{Position, Witness};
use super::protocol::{Action, Committed, Counts, Handler, Input, Moment, Settings, Transaction};
use super::recall::Memory;
use super::shelf::Shelf;
use super::streams::Streams;
use super::timer::Timers;
use super::turn::{Changes, NeedsSchema, Turn};
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
    Sleeping,
    /// The shelf does not take or give: that is waited for, and then this is done.
    Waiting(Then),
    /// The outcome of a transaction is open: a new producer, then the committed offset tells.
    SettlingFence,
    SettlingRead,
    Stopped,
}

/// A turn whose transaction is under way.
struct InFlight<D: Decider> {
    batch: Vec<Record>,
    changes: Changes<D>,
    /// Kept for what was sent on before: deciding it anew might send on something else.
    transaction: Option<Transaction>,
    position: Position,
    /// Its last result, but for its place, which nobody knows yet.
    last_result: Option<Noted>,
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
    /// Up to when the answers' window goes; `None` before the position is known.
    pub(super) window_end: Option<Timestamp>,
    /// As the last committed transaction left it; `None` before the first one.
    pub(super) position: Option<Position>,
    pub(super) committed: Committed,
    pub(super) restoring: VecDeque<Record>,
    inbox: VecDeque<Record>,
    in_flight: Option<InFlight<D>>,
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
        let position = Position { nonce: moment.nonce, ..position };
        let transaction = self.transaction(&position, Vec::new());
        self.in_flight = Some(InFlight {
            batch: Vec::new(),
            changes: Changes::default(),
            transaction: None,
            position,
            last_result: None,
        });
        Action::Transact(transaction)
    }

    pub(super) fn ready(&mut self, position: Position) -> Action {
        let next_offset = position.next_offset;
        self.position = Some(position);
        self.phase = Phase::Starting;
        Action::Ready { next_offset }
    }

    fn transaction(&self, position: &Position, mut records: Vec<Outgoing>) -> Transaction {
        records.push(Outgoing {
            kind: Kind::Snapshots,
            key: Some(POSITION_KEY.to_vec()),
            value: Some(position.to_bytes()),
            headers: Headers::default(),
        });
        let witness = Witness {
            cluster_id: self.settings.cluster_id.clone(),
            offset: position.next_offset,
            nonce: position.nonce,
        };
        Transaction { next_offset: position.next_offset, metadata: witness.to_text(), records }
    }

    fn receive(&self) -> Action {
        Action::Receive { until: self.timers.next() }
    }

    /// Decides what has arrived, up to the limits, and starts the turn's first action.
    pub(super) fn next_turn(&mut self, moment: Moment) -> Action {
        let Some(position) = &self.position else {
            return self.stop("a turn without a position: this is a bug".to_owned());
        };
        let now = moment.now;
        let codec = Arc::clone(&self.codec);
        let shelf = self.shelf.as_ref();
        let memory = Memory { streams: &self.streams, answers: &self.answers, shelf };
        let mut turn = Turn::<D, C>::new(&self.settings, &codec, memory, position, now);
        for due in self.timers.due(now, self.settings.batch_max) {
            turn.fire(&due);
        }
        let expected = self.inbox.len().min(self.settings.batch_max);
        turn.reserve(expected);
        let mut batch = Vec::with_capacity(expected);
        let mut bytes = 0;
        let mut needs = None;
        let mut next_offset = position.next_offset;
        let mut command_time = position.command_time;
        while let Some(record) = self.inbox.front() {
            if batch.len() >= self.settings.batch_max || bytes >= self.settings.batch_bytes_max {
                break;
            }
            if record.offset >= position.next_offset {
                if let Err(NeedsSchema(id)) = turn.take(record) {
                    needs = Some(id);
                    break;
                }
                next_offset = record.offset + 1;
                let appended = Timestamp::from_millis(record.timestamp_ms).min(now);
                command_time = command_time.max(Some(appended));
                bytes += record.byte_count();
            }
            batch.extend(self.inbox.pop_front());
        }
        if let Some(error) = turn.trouble().cloned() {
            drop(turn);
            self.put_back(batch);
            return self.in_trouble(error, Then::Turn);
        }
        let (changes, records, crossings) = turn.finish();
        if next_offset == position.next_offset && records.is_empty() {
            self.phase = if needs.is_some() { Phase::LookingUp } else { Phase::Idle };
            return needs.map_or_else(|| self.receive(), Action::LookUpSchema);
        }
        let nonce = moment.nonce;
        let mut next = Position { next_offset, nonce, command_time, ..position.clone() };
        next.origins.extend(changes.origins.iter().map(|(source, at)| (source.clone(), *at)));
        let transaction = self.transaction(&next, records);
        let last_result = last_result(&transaction, now);
        let mut in_flight =
            InFlight { batch, changes, transaction: None, position: next, last_result };
        if !crossings.is_empty() {
            in_flight.transaction = Some(transaction);
            self.in_flight = Some(in_flight);
            self.phase = Phase::Delivering;
            return Action::Deliver(crossings);
        }
        self.in_flight = Some(in_flight);
        self.phase = Phase::Transacting;
        Action::Transact(transaction)
    }

    fn delivered(&mut self) -> Action {
        let transaction = self.in_flight.as_ref().and_then(|turn| turn.transaction.clone());
        match transaction {
            Some(transaction) => {
                self.phase = Phase::Transacting;
                Action::Transact(transaction)
            }
            None => self.stop("a delivery without a turn: this is a bug".to_owned()),
        }
    }

    /// The transaction stands: the overlay becomes the state.
    fn merge(&mut self, last_result: Option<i64>) -> Option<Position> {
        let in_flight = self.in_flight.take()?;
        self.attempts = 0;
        let changes = in_flight.changes;
        self.counts.commands += changes.command_count;
        self.counts.events += changes.event_count;
        self.counts.transactions += 1;
        self.streams.extend(changes.streams, changes.new_streams);
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
    fn put_back(&mut self, batch: Vec<Record>) {
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
        let (Some(witness), Some(open), Some(before)) = (witness, open, &self.position) else {
            return self.start_over();
        };
        let names = |position: &Position| {
            witness.nonce == position.nonce && witness.offset == position.next_offset
        };
        if names(open) {
            self.phase = Phase::Transacting;
            return self.committed(moment, None);
        }
        if names(before) {
            self.phase = Phase::Transacting;
            return self.aborted("it was not committed");
        }
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
            (Phase::Stamping | Phase::Transacting, Input::TransactionAborted(reason)) => {
                self.aborted(&reason)
            }
            (Phase::Stamping | Phase::Transacting, Input::TransactionUnknown(reason)) => {
                self.unknown(&reason)
            }
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
            ..self.counts
        }
    }
}

/// A transaction's last result, but for its place.
fn last_result(transaction: &Transaction, now: Timestamp) -> Option<Noted> {
    let record = transaction.records.iter().rfind(|record| record.kind == Kind::Results)?;
    Some(Noted::new(0, record.key.as_deref(), record.value.as_deref(), now))
}
