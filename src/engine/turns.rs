//! How a handler takes its turns: what has arrived is decided and written, chunk by chunk.
//!
//! ```text
//! decide the first chunk -+-> all of it: (deliver ->) one transaction
//!                         `-> more: begin with the offset behind them all -> decide, append, ...
//! ```
//!
//! A chunk's records are written while they still are in a processor's cache, and their room is
//! used again. What is found out in the middle of a transaction that cannot be part of it (a schema
//! that must be looked up, commands to be sent on first, a shelf that does not answer) ends the
//! transaction by an abort, and the next turn is cut so that it is found out in time.

use std::sync::Arc;

use super::answers::Noted;
use super::command_handler::{CommandHandler, InFlight, Phase};
use super::draft::Draft;
use super::position::Position;
use super::protocol::{Action, Chunk, Crossing, Moment, Transaction};
use super::recall::Memory;
use super::shelf::ShelfError;
use super::turn::{NeedsSchema, Turn};
use super::upkeep::Then;
use crate::kernel::codec::Codec;
use crate::kernel::decider::Decider;
use crate::kernel::message::Outgoing;
use crate::kernel::stream::Kind;
use crate::kernel::time::Timestamp;

/// What an abandoned turn has taught about the next one.
#[derive(Default)]
pub(super) struct TurnLimits {
    /// So many commands stand before one that needs something first.
    commands: Option<usize>,
    /// Commands are being sent on: what was sent may not be decided anew, so a turn is decided as
    /// a whole before its transaction begins.
    is_whole: bool,
    /// Why the shelf did not answer.
    trouble: Option<ShelfError>,
}

/// Why a turn's commands end before they should.
enum Cut {
    Schema(u32),
    Shelf(ShelfError),
}

impl<D: Decider> InFlight<D> {
    pub(super) fn new(position: Position, now: Timestamp) -> Self {
        let (batch, draft) = (Vec::new(), Draft::new(now));
        Self { batch, left: 0, draft, transaction: None, position, last_result: None }
    }

    /// Takes out what is to be written.
    fn take_records(&mut self) -> Vec<Outgoing> {
        let records = std::mem::take(&mut self.draft.records);
        let last = records.iter().rfind(|record| record.kind == Kind::Results);
        if let Some(Outgoing { key, value, .. }) = last {
            let (key, value) = (key.as_deref(), value.as_deref());
            self.last_result = Some(Noted::new(0, key, value, self.draft.now));
        }
        records
    }
}

impl<D: Decider, C: Codec<D>> CommandHandler<D, C> {
    /// Decides the first of what has arrived, and starts the turn's first action.
    pub(super) fn next_turn(&mut self, moment: Moment) -> Action {
        let Some(position) = self.position.clone() else {
            return self.stop("a turn without a position: this is a bug".to_owned());
        };
        let before = position.next_offset;
        let (count, end) = self.plan_turn(before);
        let chunk = if self.limits.is_whole { count } else { self.settings.chunk_max };
        let mut turn = InFlight::new(Position { nonce: moment.nonce, ..position }, moment.now);
        turn.left = count;
        turn.batch.reserve(count);
        turn.draft.reserve(count, chunk.min(count));
        let mut cut = self.decide(&mut turn, chunk, true);
        if cut.is_none() && turn.left > 0 && !turn.draft.crossings.is_empty() {
            cut = self.decide(&mut turn, count, false);
        }
        let needs = match cut {
            None => None,
            Some(Cut::Schema(id)) => {
                turn.left = 0;
                Some(id)
            }
            Some(Cut::Shelf(error)) => {
                self.put_back(turn.batch);
                return self.in_trouble(error, Then::Turn);
            }
        };
        if turn.left > 0 {
            turn.position.next_offset = end;
            let records = turn.take_records();
            let chunk = Chunk { records, is_last: false };
            let transaction = self.transaction(&turn.position, chunk);
            self.in_flight = Some(turn);
            self.phase = Phase::Transacting;
            return Action::Transact(transaction);
        }
        let is_nothing = turn.draft.changes.timers.is_empty() && turn.draft.records.is_empty();
        if turn.position.next_offset == before && is_nothing {
            // Whatever was swept had been covered before.
            self.sweep.committed(0, Vec::new(), &turn.draft.changes.swept);
            self.phase = if needs.is_some() { Phase::LookingUp } else { Phase::Idle };
            return needs.map_or_else(|| self.receive(), Action::LookUpSchema);
        }
        let crossings = std::mem::take(&mut turn.draft.crossings);
        let chunk = self.finish(&mut turn);
        let transaction = self.transaction(&turn.position, chunk);
        self.limits.is_whole = !crossings.is_empty();
        if crossings.is_empty() {
            self.in_flight = Some(turn);
            self.phase = Phase::Transacting;
            return Action::Transact(transaction);
        }
        self.deliver_first(turn, transaction, crossings)
    }

    /// How many of the commands that have arrived are the next turn's, and the offset behind them.
    fn plan_turn(&mut self, next_offset: i64) -> (usize, i64) {
        // Read before the consumer stood where it should.
        while self.inbox.front().is_some_and(|record| record.offset < next_offset) {
            self.inbox.pop_front();
        }
        let most = self.limits.commands.take().unwrap_or(usize::MAX).min(self.settings.batch_max);
        let (mut count, mut bytes, mut end) = (0, 0, next_offset);
        for record in self.inbox.iter().take(most) {
            if bytes >= self.settings.batch_bytes_max {
                break;
            }
            bytes += record.byte_count();
            end = record.offset + 1;
            count += 1;
        }
        (count, end)
    }

    /// Decides some more commands of a turn; `first` also fires the timers that are due.
    fn decide(&mut self, turn: &mut InFlight<D>, most: usize, first: bool) -> Option<Cut> {
        let before = self.position.as_ref()?;
        let codec = Arc::clone(&self.codec);
        let shelf = self.shelf.as_ref();
        let log_end = self.sweep.log_end();
        let memory = Memory { streams: &self.streams, answers: &self.answers, shelf, log_end };
        let now = turn.draft.now;
        let draft = std::mem::replace(&mut turn.draft, Draft::new(now));
        let mut work = Turn::<D, C>::resume(&self.settings, &codec, memory, before, draft);
        if first {
            for due in self.timers.due(now, self.settings.batch_max) {
                work.fire(&due);
            }
        }
        let mut cut = None;
        let position = &mut turn.position;
        for _ in 0..most.min(turn.left) {
            let Some(record) = self.inbox.front() else { break };
            if let Err(NeedsSchema(id)) = work.take(record) {
                cut = Some(Cut::Schema(id));
                break;
            }
            position.next_offset = record.offset + 1;
            let appended = Timestamp::from_millis(record.timestamp_ms).min(now);
            position.command_time = position.command_time.max(Some(appended));
            turn.batch.extend(self.inbox.pop_front());
            turn.left -= 1;
        }
        if cut.is_none() && turn.left == 0 {
            let allowance = self.sweep.allowance(now, !turn.batch.is_empty());
            work.sweep(&self.sweep, allowance);
        }
        match work.pause() {
            Ok(draft) => turn.draft = draft,
            Err(error) => cut = Some(Cut::Shelf(error)),
        }
        cut
    }

    /// A chunk is written: the next one, which may be the last.
    pub(super) fn go_on_deciding(&mut self, room: Vec<Outgoing>) -> Action {
        let Some(mut turn) = self.in_flight.take() else {
            return self.stop("a chunk without a turn: this is a bug".to_owned());
        };
        turn.draft.records = room;
        let end = turn.position.next_offset;
        let cut = self.decide(&mut turn, self.settings.chunk_max, false);
        match cut {
            None if turn.draft.crossings.is_empty() => {}
            None => {
                self.limits.is_whole = true;
                return self.abandon(turn, end);
            }
            Some(Cut::Schema(_)) => {
                self.limits.commands = Some(turn.batch.len());
                return self.abandon(turn, end);
            }
            Some(Cut::Shelf(error)) => {
                self.limits.trouble = Some(error);
                return self.abandon(turn, end);
            }
        }
        let chunk = if turn.left > 0 {
            turn.position.next_offset = end;
            Chunk { records: turn.take_records(), is_last: false }
        } else {
            self.finish(&mut turn)
        };
        self.in_flight = Some(turn);
        Action::Append(chunk)
    }

    /// What is written last, with the position as it is after the turn.
    fn finish(&mut self, turn: &mut InFlight<D>) -> Chunk {
        turn.draft.finish();
        let origins = turn.draft.changes.origins.iter();
        turn.position.origins.extend(origins.map(|(source, at)| (source.clone(), *at)));
        turn.position.bound = Some(self.bound(&turn.draft.changes));
        let records = turn.take_records();
        self.last_chunk(&turn.position, records)
    }

    fn abandon(&mut self, mut turn: InFlight<D>, end: i64) -> Action {
        // As it was begun, should anybody ask whether it was committed.
        turn.position.next_offset = end;
        self.in_flight = Some(turn);
        self.phase = Phase::Abandoning;
        Action::Abort
    }

    /// Nothing was written: the turn is begun anew, as what was found out wants it.
    pub(super) fn abandoned(&mut self, moment: Moment) -> Action {
        if let Some(turn) = self.in_flight.take() {
            self.put_back(turn.batch);
        }
        match self.limits.trouble.take() {
            Some(error) => self.in_trouble(error, Then::Turn),
            None => self.next_turn(moment),
        }
    }

    fn deliver_first(
        &mut self,
        mut turn: InFlight<D>,
        transaction: Transaction,
        crossings: Vec<Crossing>,
    ) -> Action {
        turn.transaction = Some(transaction);
        self.in_flight = Some(turn);
        self.phase = Phase::Delivering;
        Action::Deliver(crossings)
    }

    /// What had to be sent on first is acknowledged.
    pub(super) fn delivered(&mut self) -> Action {
        let transaction = self.in_flight.as_ref().and_then(|turn| turn.transaction.clone());
        match transaction {
            Some(transaction) => {
                self.phase = Phase::Transacting;
                Action::Transact(transaction)
            }
            None => self.stop("a delivery without a turn: this is a bug".to_owned()),
        }
    }
}
