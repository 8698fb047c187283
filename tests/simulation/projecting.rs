//! Drives the projector of one partition over a simulated database.

use millrace::engine::projector::{Action, Failure, Input, Limits, Projector, Retry};
use millrace::engine::reset_protocol::{Committed, Position};
use millrace::kernel::projection::{Batch, Obstacle};
use millrace::kernel::stream::parse_event_key;
use millrace::kernel::time::Timestamp;
use millrace::log::memory::GroupOffset;
use rand::{Rng, RngExt};

use super::bank::{CLUSTER_ID, Seat, topic_id};
use super::shared::Shared;

/// A projector and what it is in the middle of.
pub(crate) struct Projects {
    seat: Seat,
    machine: Projector,
    doing: Option<Action>,
    /// Where the reader stands, once it was put somewhere.
    read_from: Option<i64>,
    is_new: bool,
}

impl Projects {
    pub(crate) fn new(shared: &mut Shared, seat: Seat) -> Self {
        let limits = Limits {
            rows: shared.rng.random_range(1..20),
            bytes: 1 << 20,
            linger_us: 100_000,
            commit_every_us: 1_000_000,
            retry: Retry { first_us: 100_000, longest_us: 5_000_000, seed: shared.rng.next_u64() },
            parked_streams: 1_000,
        };
        let machine = Projector::new(limits);
        Self { seat, machine, doing: None, read_from: None, is_new: true }
    }

    pub(crate) fn is_idle(&self, shared: &Shared) -> bool {
        let reads = !self.machine.is_full()
            && self.read_from.is_some_and(|from| shared.log.has_more(self.seat.place, from));
        let is_due = self.machine.deadline().is_some_and(|at| at <= shared.now);
        // In the end nothing stays parked.
        let wants = shared.faults.poison == 0 && !shared.store.parked(self.seat.place).is_empty();
        !self.is_new && self.doing.is_none() && !reads && !is_due && !wants
    }

    /// Whether it is about to replace the checkpoint.
    pub(crate) const fn is_resetting(&self) -> bool {
        matches!(self.doing, Some(Action::ResetCheckpoint { .. }))
    }

    /// Whether it is about to apply a batch.
    pub(crate) const fn is_applying(&self) -> bool {
        matches!(self.doing, Some(Action::Apply { .. }))
    }

    pub(crate) fn wakes_at(&self) -> Option<Timestamp> {
        self.machine.deadline()
    }

    pub(crate) fn advance(&mut self, shared: &mut Shared, is_member: bool) -> bool {
        self.is_new = false;
        let input = match self.doing.take() {
            Some(action) => self.act(shared, action, is_member),
            None => {
                self.read(shared);
                let parked = shared.store.parked(self.seat.place);
                let wants = shared.faults.poison == 0 || shared.one_in(20);
                if !parked.is_empty() && wants { Input::Redrive(parked) } else { Input::Tick }
            }
        };
        let now = shared.tick();
        self.doing = self.machine.step(now, input);
        true
    }

    fn read(&mut self, shared: &mut Shared) {
        if let Some(from) = self.read_from.filter(|_| !self.machine.is_full()) {
            let max = shared.rng.random_range(1..20);
            let (records, next, _) = shared.log.read(self.seat.place, from, max);
            self.read_from = Some(next);
            let now = shared.tick();
            records.into_iter().for_each(|record| self.machine.offer(now, record));
        }
    }

    fn act(&mut self, shared: &mut Shared, action: Action, is_member: bool) -> Input {
        let Seat { group, place, .. } = self.seat;
        let topic_id = topic_id(place.aggregate, place.kind);
        // Somebody does not answer; whatever was asked may have been done.
        let is_lost = shared.one_in(shared.faults.lost_acknowledgement);
        let is_done = !is_lost || shared.one_in(2);
        let lost = || "no answer".to_owned();
        match action {
            Action::ReadPosition if is_lost => Input::PositionRead(Err(lost())),
            Action::ReadPosition => {
                let committed = shared.log.committed_offset(group, place).unwrap();
                let committed = committed.map(|(offset, metadata)| Committed { offset, metadata });
                Input::PositionRead(Ok(Box::new(Position {
                    cluster_id: CLUSTER_ID.to_owned(),
                    topic_id,
                    log_start: 0,
                    log_end: shared.log.end_offset(place),
                    committed,
                    held: shared.store.held(place),
                })))
            }
            Action::LookBetween { .. } if is_lost => Input::LookedBetween(Err(lost())),
            Action::LookBetween { from, to } => {
                let (records, ..) = shared.log.read(place, from, 1);
                Input::LookedBetween(Ok(records.first().is_some_and(|first| first.offset < to)))
            }
            Action::ResetCheckpoint { expected, place: next, clear } => {
                let is_ours =
                    is_done && shared.store.reset(place, topic_id, (expected, next, clear));
                Input::CheckpointReset(if is_lost { Err(lost()) } else { Ok(is_ours) })
            }
            Action::Commit { offset, metadata } => {
                if !is_member {
                    return Input::Committed(Err("the group does not count it in".to_owned()));
                }
                if is_done {
                    shared.log.commit_offset(GroupOffset { group, place, offset, metadata });
                }
                Input::Committed(if is_lost { Err(lost()) } else { Ok(()) })
            }
            Action::Seek { .. } if is_lost => Input::Sought(Err(lost())),
            Action::Seek { offset } => {
                self.read_from = Some(offset);
                Input::Sought(Ok(()))
            }
            Action::Redrive { from, stream, rows } => {
                self.poison(shared, None);
                let redriven = if is_done {
                    shared.store.redrive(place, from, (&stream, rows))
                } else {
                    Err(Failure::Transient(lost()))
                };
                let answer = if is_lost { Err(Failure::Transient(lost())) } else { redriven };
                Input::Redriven(answer)
            }
            Action::Keep { .. } => Input::Kept(if is_lost { Err(lost()) } else { Ok(()) }),
            Action::Apply { batch } => {
                self.poison(shared, Some(&batch));
                let obstacle = obstacle(shared, &batch);
                if !is_done {
                    return Input::Applied(Err(Failure::Transient(lost())));
                }
                let applied = shared.store.apply(place, &batch, obstacle);
                if is_lost {
                    return Input::Applied(Err(Failure::Transient(lost())));
                }
                Input::Applied(applied)
            }
            Action::Stop => panic!("{:?}: {:?}", self.seat, self.machine.error()),
        }
    }

    /// Some stream is refused from now on, or none any more.
    fn poison(&self, shared: &mut Shared, batch: Option<&Batch>) {
        let place = self.seat.place;
        if shared.faults.poison == 0 || shared.one_in(shared.faults.poison / 2) {
            shared.store.mend(place);
        }
        let records = batch.map_or(&[][..], |batch| &batch.records);
        if !records.is_empty() && shared.one_in(shared.faults.poison) {
            let index = shared.rng.random_range(0..records.len());
            let key = records[index].key.as_deref().unwrap();
            let (stream, _) = parse_event_key(key).unwrap();
            shared.store.poison(place, stream);
        }
    }
}

/// The schema of an event in the batch may not be known yet.
fn obstacle(shared: &mut Shared, batch: &Batch) -> Option<Obstacle> {
    if !shared.one_in(shared.faults.unknown) {
        return None;
    }
    if batch.records.is_empty() {
        return None;
    }
    let index = shared.rng.random_range(0..batch.records.len());
    Some(Obstacle::UnknownSchema { offset: batch.records[index].offset, schema_id: 7 })
}
