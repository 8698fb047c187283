//! Drives one partition of a reactor: sends outside any transaction, its position in a topic.

use millrace::engine::protocol::{Committed, Crossing};
use millrace::engine::reactor::{Action, Input, Reacting, Stored};
use millrace::kernel::message::{Headers, Outgoing};
use millrace::kernel::stream::Kind;
use millrace::kernel::time::Timestamp;
use millrace::log::memory::GroupOffset;
use rand::RngExt;

use super::bank::{POSITIONS, Seat, topic_id};
use super::shared::{Planted, Shared};

/// A reactor on one partition and what it is in the middle of.
pub(crate) struct Reacts {
    seat: Seat,
    machine: Reacting,
    doing: Doing,
    read_from: i64,
}

enum Doing {
    Act(Action),
    Sending { crossings: Vec<Crossing>, sent: usize },
}

impl Reacts {
    pub(crate) fn new(shared: &Shared, seat: Seat, reactor: usize) -> Self {
        let machine = shared.bank.reacting(seat, &shared.reactors[reactor]);
        let doing = Doing::Act(machine.start());
        Self { seat, machine, doing, read_from: 0 }
    }

    pub(crate) fn is_idle(&self, shared: &Shared) -> bool {
        match &self.doing {
            Doing::Act(Action::Receive { until }) => {
                until.is_none_or(|until| until > shared.now)
                    && !shared.log.has_more(self.seat.place, self.read_from)
            }
            _ => false,
        }
    }

    /// Whether it is about to send.
    pub(crate) const fn is_sending(&self) -> bool {
        matches!(self.doing, Doing::Sending { .. })
    }

    pub(crate) fn wakes_at(&self) -> Option<Timestamp> {
        match &self.doing {
            Doing::Act(Action::Receive { until }) => *until,
            _ => None,
        }
    }

    /// What may happen still when it is no more; one that is asked to go stores where it stands.
    pub(crate) fn bury(self, shared: &mut Shared, was_asked: bool) {
        if was_asked && let Some((stored, _)) = self.machine.last_words() {
            let record = position_record(self.seat, stored);
            shared.append(POSITIONS, &record);
        }
        match self.doing {
            Doing::Sending { crossings, sent } => {
                shared.sent_by_the_dead(&crossings[sent.saturating_sub(1)..]);
            }
            Doing::Act(Action::Store(stored, _)) => {
                shared.may_arrive_late(POSITIONS, position_record(self.seat, stored));
            }
            Doing::Act(_) => {}
        }
    }

    pub(crate) fn advance(&mut self, shared: &mut Shared, is_member: bool) -> bool {
        let doing =
            std::mem::replace(&mut self.doing, Doing::Sending { crossings: Vec::new(), sent: 0 });
        match doing {
            Doing::Act(action) => self.act(shared, action, is_member),
            Doing::Sending { crossings, sent } => self.send(shared, crossings, sent),
        }
    }

    fn answer(&mut self, shared: &mut Shared, input: Input) -> bool {
        let now = shared.tick();
        self.doing = Doing::Act(self.machine.step(now, input));
        true
    }

    fn act(&mut self, shared: &mut Shared, action: Action, is_member: bool) -> bool {
        match action {
            Action::ReadStanding => self.read_standing(shared),
            Action::Ready { next_offset } => {
                self.read_from = next_offset;
                self.answer(shared, Input::Started)
            }
            Action::Receive { until } => {
                let max = shared.rng.random_range(1..20);
                let (records, next, _) = shared.log.read(self.seat.place, self.read_from, max);
                self.read_from = next;
                if !records.is_empty() {
                    return self.answer(shared, Input::Arrived(records));
                }
                if until.is_some_and(|until| until <= shared.now) {
                    return self.answer(shared, Input::Woken);
                }
                self.doing = Doing::Act(Action::Receive { until });
                true
            }
            Action::Deliver(crossings) => {
                self.doing = Doing::Sending { crossings, sent: 0 };
                true
            }
            Action::Store(stored, metadata) => self.store(shared, stored, metadata, is_member),
            Action::LookUpSchema(_) => self.answer(shared, Input::SchemaLookedUp),
            Action::Stop(reason) => panic!("{:?}: {reason}", self.seat),
        }
    }

    fn read_standing(&mut self, shared: &mut Shared) -> bool {
        let Seat { group, place, .. } = self.seat;
        let key = position_key(self.seat);
        let found = shared.log.last_of_key(POSITIONS, &key).and_then(|it| it.value.as_deref());
        let mut stored = found.map(|bytes| Stored::from_bytes(bytes).unwrap());
        let offset = shared.log.committed_offset(group, place).unwrap();
        if shared.is_planted(Planted::Position) {
            let topic_id = topic_id(place.aggregate, place.kind);
            let next_offset = offset.as_ref().map_or(0, |(offset, _)| *offset);
            stored = Some(Stored { topic_id, next_offset });
        }
        let log_end = shared.log.end_offset(place);
        let committed = Committed { offset, log_start: 0, log_end, events_end: 0 };
        self.answer(shared, Input::Standing { stored, committed })
    }

    /// The position goes first, then the offset, if the group still counts us in.
    fn store(
        &mut self,
        shared: &mut Shared,
        stored: Stored,
        metadata: String,
        is_member: bool,
    ) -> bool {
        let record = position_record(self.seat, stored);
        if shared.one_in(shared.faults.lost_acknowledgement) {
            shared.may_arrive_late(POSITIONS, record);
            self.doing = Doing::Act(Action::Store(stored, metadata));
            return true;
        }
        shared.append(POSITIONS, &record);
        if is_member && !shared.one_in(shared.faults.abort) {
            let Seat { group, place, .. } = self.seat;
            let offset = stored.next_offset;
            shared.log.commit_offset(GroupOffset { group, place, offset, metadata });
        }
        self.answer(shared, Input::Stored)
    }

    fn send(&mut self, shared: &mut Shared, crossings: Vec<Crossing>, sent: usize) -> bool {
        let Some(crossing) = crossings.get(sent) else {
            return self.answer(shared, Input::Delivered);
        };
        let sent = if shared.breaks_delivery(self.seat.place, sent) {
            shared.sent_by_the_dead(&crossings[sent..]);
            0
        } else {
            shared.cross(crossing);
            sent + 1
        };
        self.doing = Doing::Sending { crossings, sent };
        true
    }
}

fn position_key(seat: Seat) -> Vec<u8> {
    let Seat { group, place, .. } = seat;
    let topic = place.aggregate.topic(place.kind);
    format!("{group}\0{topic}\0{}", place.partition).into_bytes()
}

fn position_record(seat: Seat, stored: Stored) -> Outgoing {
    Outgoing {
        kind: Kind::Snapshots,
        key: Some(position_key(seat)),
        value: Some(stored.to_bytes()),
        headers: Headers::default(),
    }
}
