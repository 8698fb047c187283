//! Drives one handler: its actions are carried out on the log in memory, with every fault between.

use millrace::engine::position::Position;
use millrace::engine::protocol::{
    Action, Chunk, Committed, Crossing, From, Handler, Input, Transaction,
};
use millrace::engine::shelf::MemoryShelf;
use millrace::kernel::stream::Kind;
use millrace::kernel::time::Timestamp;
use millrace::log::memory::{GroupOffset, Place, Refused};
use rand::RngExt;

use super::bank::Seat;
use super::shared::{Forced, Planted, Shared};
use super::starts::{self, rewrite};

/// A handler and what it is in the middle of.
pub(crate) struct Lane {
    seat: Seat,
    transactional_id: String,
    handler: Box<dyn Handler>,
    doing: Doing,
    epoch: u32,
    read_from: i64,
    /// Behind the commands of the transaction that is open.
    next_offset: i64,
    /// Where the last result of the transaction that is open stands.
    last_result: Option<i64>,
    /// The group's offset was freed: it is no witness before the next commit.
    offset_is_lost: bool,
    /// Which of the partition's disks is its own.
    disk: usize,
    /// How many microseconds its clock is wrong.
    skew: i64,
}

enum Doing {
    Act(Action),
    Restoring {
        kind: Kind,
        from: i64,
    },
    /// The offset is written, and these records are to be; behind the last comes the commit.
    Writing {
        chunk: Chunk,
        written: usize,
    },
    Sending {
        crossings: Vec<Crossing>,
        sent: usize,
    },
}

impl Lane {
    pub(crate) fn new(shared: &mut Shared, seat: Seat) -> Self {
        let drawn = shared.rng.random_range(1..20);
        let batch_max = shared.batch_max.unwrap_or(drawn);
        let leaks = shared.is_planted(Planted::Rollback);
        let (disk, mut shelf) = shared.take_disk(seat.place);
        if shared.is_planted(Planted::Answers) {
            shelf = MemoryShelf::default();
        }
        let chunk_max = shared.rng.random_range(1..=batch_max);
        let sizes = (batch_max, chunk_max, shared.in_memory, shared.restore_events);
        let mut handler = shared.bank.handler(seat, sizes, (&shared.mood, leaks), shelf);
        let doing = Doing::Act(handler.start());
        let Place { aggregate, partition, .. } = seat.place;
        let transactional_id = format!("{}.{aggregate}.{partition}", seat.group);
        let skew = shared.draw_skew();
        let (epoch, read_from, next_offset, last_result) = (0, 0, 0, None);
        Self {
            seat,
            transactional_id,
            handler,
            doing,
            epoch,
            read_from,
            next_offset,
            last_result,
            offset_is_lost: false,
            disk,
            skew,
        }
    }

    /// Whether nothing but a command or a timer moves it on.
    pub(crate) fn is_idle(&self, shared: &Shared) -> bool {
        match &self.doing {
            Doing::Act(Action::Receive { until }) => {
                until.is_none_or(|until| until > self.clock(shared))
                    && !shared.log.has_more(self.seat.place, self.read_from)
            }
            _ => false,
        }
    }

    /// Whether it is in the middle of a transaction.
    pub(crate) const fn is_writing(&self) -> bool {
        matches!(self.doing, Doing::Writing { .. } | Doing::Act(Action::Append(_) | Action::Abort))
    }

    /// When it is to be woken.
    pub(crate) fn wakes_at(&self) -> Option<Timestamp> {
        match &self.doing {
            Doing::Act(Action::Receive { until }) => {
                until.map(|until| Timestamp(until.0 - self.skew))
            }
            _ => None,
        }
    }

    /// Its disk is free for somebody else.
    pub(crate) fn leave(&self, shared: &mut Shared) {
        shared.give_disk_back(self.seat.place, self.disk);
    }

    /// What may happen still when it is no more.
    pub(crate) fn bury(self, shared: &mut Shared) {
        self.leave(shared);
        if let Doing::Sending { crossings, sent } = self.doing {
            shared.sent_by_the_dead(&crossings[sent.saturating_sub(1)..]);
        }
    }

    /// Carries it one step on; `false` is its end.
    pub(crate) fn advance(&mut self, shared: &mut Shared, is_member: bool) -> bool {
        if shared.one_in(shared.faults.clock) {
            self.skew = shared.draw_skew();
        }
        if shared.one_in(shared.faults.disk) {
            shared.disturb_disk(self.seat.place, self.disk);
        }
        let doing = std::mem::replace(&mut self.doing, Doing::Act(Action::More));
        match doing {
            Doing::Act(action) => self.act(shared, action, is_member),
            Doing::Restoring { kind, from } => self.restore(shared, kind, from),
            Doing::Writing { chunk, written } => self.write(shared, chunk, written),
            Doing::Sending { crossings, sent } => self.send(shared, crossings, sent),
        }
    }

    /// It knows what it would know if it had read all events.
    fn check_start(&self, shared: &mut Shared) {
        let counts = self.handler.counts();
        shared.tally.bounded_starts += u64::from(counts.events_from > 0);
        shared.tally.whole_reads += counts.whole_reads;
        if shared.planted.is_none() {
            assert_eq!(counts.whole_reads, 0, "{:?}: the bound was not enough", self.seat);
            if shared.one_in(shared.faults.compared) {
                shared.tally.left_out += starts::agree(shared, self.seat);
            }
        }
    }

    fn answer(&mut self, shared: &mut Shared, input: Input) -> bool {
        let moment = shared.moment(self.skew);
        self.doing = Doing::Act(self.handler.step(moment, input));
        true
    }

    const fn clock(&self, shared: &Shared) -> Timestamp {
        Timestamp(shared.now.0 + self.skew)
    }

    fn own(&self, kind: Kind) -> Place {
        Place { kind, ..self.seat.place }
    }

    fn act(&mut self, shared: &mut Shared, action: Action, is_member: bool) -> bool {
        match action {
            Action::Fence => {
                // By now it may have learnt that it is out; or it has not, and fences the owner.
                if !is_member && shared.one_in(2) {
                    return false;
                }
                self.epoch = shared.log.init_producer(&self.transactional_id);
                self.answer(shared, Input::Fenced)
            }
            Action::ReadCommitted => self.read_committed(shared),
            Action::Restore { kind, from } => {
                let place = self.own(kind);
                let from = match from {
                    From::Start => 0,
                    From::Moment(since) => shared.log.offset_at(place, since),
                    From::Offset(offset) if offset < shared.log.end_offset(place) => offset,
                    From::Offset(_) => return self.answer(shared, Input::RestoreEnd),
                };
                self.doing = Doing::Restoring { kind, from };
                true
            }
            Action::Ready { next_offset } => {
                self.read_from = next_offset;
                self.check_start(shared);
                self.answer(shared, Input::Started)
            }
            Action::Receive { until } => self.receive(shared, until),
            Action::Deliver(crossings) => {
                self.doing = Doing::Sending { crossings, sent: 0 };
                true
            }
            Action::Transact(transaction) => self.begin(shared, transaction, is_member),
            Action::Append(chunk) => {
                shared.tally.chunks += 1;
                self.doing = Doing::Writing { chunk, written: 0 };
                true
            }
            Action::Abort => {
                shared.tally.abandoned += 1;
                self.abort(shared)
            }
            Action::Sleep(_) => self.answer(shared, Input::Woken),
            Action::Wait { .. } => {
                shared.tally.waits += 1;
                self.answer(shared, Input::Woken)
            }
            Action::LookUpSchema(_) => self.answer(shared, Input::SchemaLookedUp),
            Action::More | Action::Stop(_) => panic!("{:?}: {action:?}", self.seat),
        }
    }

    fn read_committed(&mut self, shared: &mut Shared) -> bool {
        let Seat { group, place, .. } = self.seat;
        match shared.log.committed_offset(group, place) {
            Ok(offset) => {
                let offset = offset.filter(|_| !self.offset_is_lost);
                let log_end = shared.log.end_offset(place);
                let events_end = shared.log.end_offset(self.own(Kind::Events));
                let committed = Committed { offset, log_start: 0, log_end, events_end };
                self.answer(shared, Input::Committed(committed))
            }
            // Only what stays pending is freed; it may be another owner that is at work.
            Err(_) if shared.one_in(3) => self.free_offset(shared),
            Err(_) => {
                self.doing = Doing::Act(Action::ReadCommitted);
                true
            }
        }
    }

    /// Ends what holds the group's offset, as the driver does; whatever is committed there then is
    /// no witness of the last transaction.
    fn free_offset(&mut self, shared: &mut Shared) -> bool {
        let Seat { group, place, .. } = self.seat;
        let offset = GroupOffset { group, place, offset: 0, metadata: String::new() };
        let producer = (self.transactional_id.as_str(), self.epoch);
        self.doing = Doing::Act(Action::ReadCommitted);
        let begun = shared.log.begin(producer.0, producer.1);
        let sent = begun.and_then(|()| shared.log.send_offset(producer, offset));
        if sent.and_then(|()| shared.log.abort(producer.0, producer.1)).is_err() {
            // Fenced off: it makes a new producer.
            self.epoch = shared.log.init_producer(&self.transactional_id);
            return true;
        }
        shared.tally.freed += 1;
        self.offset_is_lost = true;
        true
    }

    fn receive(&mut self, shared: &mut Shared, until: Option<Timestamp>) -> bool {
        let max = shared.rng.random_range(1..30);
        let (records, next, _) = shared.log.read(self.seat.place, self.read_from, max);
        self.read_from = next;
        if !records.is_empty() {
            return self.answer(shared, Input::Arrived(records));
        }
        if until.is_some_and(|until| until <= self.clock(shared)) {
            return self.answer(shared, Input::Woken);
        }
        self.doing = Doing::Act(Action::Receive { until });
        true
    }

    fn restore(&mut self, shared: &mut Shared, kind: Kind, from: i64) -> bool {
        let max = shared.rng.random_range(1..100);
        let (mut records, next, end) = shared.log.read(self.own(kind), from, max);
        match shared.planted {
            Some(Planted::Answers) if kind == Kind::Results => records.clear(),
            Some(Planted::Origins) => records
                .iter_mut()
                .for_each(|record| rewrite(record, |position| position.origins.clear())),
            Some(Planted::Bound { is_counted }) => {
                let end = shared.log.end_offset(self.own(Kind::Events));
                let further = |position: &mut Position| {
                    let Some(bound) = &mut position.bound else { return };
                    bound.events_from = (bound.events_from + 4).min(end);
                    bound.figures = bound.figures.filter(|_| is_counted);
                };
                records.iter_mut().for_each(|record| rewrite(record, further));
            }
            _ => {}
        }
        let moment = shared.moment(self.skew);
        let mut action = self.handler.step(moment, Input::Restored(records));
        while let Action::LookUpSchema(_) = action {
            action = self.handler.step(moment, Input::SchemaLookedUp);
        }
        if action == Action::More {
            if !end {
                self.doing = Doing::Restoring { kind, from: next };
                return true;
            }
            action = self.handler.step(moment, Input::RestoreEnd);
        }
        self.doing = Doing::Act(action);
        true
    }

    /// The offset goes first; the group refuses it from somebody that it does not count in.
    fn begin(&mut self, shared: &mut Shared, transaction: Transaction, is_member: bool) -> bool {
        if let Err(refused) = shared.log.begin(&self.transactional_id, self.epoch) {
            return self.refused(shared, refused);
        }
        if !is_member || shared.one_in(shared.faults.abort) {
            return self.abort(shared);
        }
        let Transaction { next_offset, metadata, chunk } = transaction;
        let Seat { group, place, .. } = self.seat;
        let offset = GroupOffset { group, place, offset: next_offset, metadata };
        let outcome = shared.log.send_offset((&self.transactional_id, self.epoch), offset);
        assert_eq!(outcome, Ok(()), "it was just begun");
        self.next_offset = next_offset;
        self.last_result = None;
        self.doing = Doing::Writing { chunk, written: 0 };
        true
    }

    fn abort(&mut self, shared: &mut Shared) -> bool {
        match shared.log.abort(&self.transactional_id, self.epoch) {
            Ok(()) => {
                shared.tally.aborts += 1;
                self.answer(shared, Input::TransactionAborted("simulated".to_owned()))
            }
            Err(refused) => self.refused(shared, refused),
        }
    }

    fn refused(&mut self, shared: &mut Shared, refused: Refused) -> bool {
        self.unknown(shared, &refused.to_string())
    }

    fn unknown(&mut self, shared: &mut Shared, reason: &str) -> bool {
        shared.tally.unknown += 1;
        self.answer(shared, Input::TransactionUnknown(reason.to_owned()))
    }

    fn write(&mut self, shared: &mut Shared, chunk: Chunk, written: usize) -> bool {
        let some = shared.rng.random_range(1..10);
        let at = shared.tick();
        let producer = (self.transactional_id.as_str(), self.epoch);
        for record in chunk.records.iter().skip(written).take(some) {
            let place = self.own(record.kind);
            if let Err(refused) = shared.log.send(producer, place, record, at) {
                return self.refused(shared, refused);
            }
            if record.kind == Kind::Results {
                self.last_result = Some(shared.log.end_offset(place) - 1);
            }
        }
        let written = written + some;
        let hurries = shared.is_planted(Planted::Drain) && chunk.is_last && shared.one_in(10);
        if written < chunk.records.len() && !hurries {
            self.doing = Doing::Writing { chunk, written };
            return true;
        }
        if !chunk.is_last {
            if shared.one_in(shared.faults.abort) {
                return self.abort(shared);
            }
            return self.answer(shared, Input::Written(Vec::new()));
        }
        if let Some(forced) = shared.forced_commit(self.seat.place) {
            return self.end_as_forced(shared, forced, self.next_offset);
        }
        if shared.one_in(shared.faults.abort) {
            return self.abort(shared);
        }
        if shared.one_in(shared.faults.left_open) {
            return self.unknown(shared, "no answer, not done");
        }
        if shared.one_in(shared.faults.lost_marker) {
            return self.commit_without_marker(shared);
        }
        match shared.log.commit(&self.transactional_id, self.epoch) {
            Err(refused) => self.refused(shared, refused),
            Ok(()) if shared.one_in(shared.faults.lost_acknowledgement) => {
                if shared.is_planted(Planted::Witness) {
                    return self.answer(shared, Input::TransactionAborted("planted".to_owned()));
                }
                self.unknown(shared, "no answer, but done")
            }
            Ok(()) if shared.one_in(shared.faults.crash_at_commit) => false,
            Ok(()) => {
                // Now and then the brokers do not say.
                let last_result = self.last_result.filter(|_| !shared.one_in(10));
                self.offset_is_lost = false;
                self.answer(shared, Input::TransactionCommitted { last_result })
            }
        }
    }

    fn commit_without_marker(&mut self, shared: &mut Shared) -> bool {
        match shared.log.commit_without_offset(&self.transactional_id, self.epoch) {
            Ok(()) => self.unknown(shared, "no answer, and no marker beside the offset"),
            Err(refused) => self.refused(shared, refused),
        }
    }

    fn end_as_forced(&mut self, shared: &mut Shared, forced: Forced, next_offset: i64) -> bool {
        if forced == Forced::LostMarker {
            return self.commit_without_marker(shared);
        }
        let is_done = matches!(forced, Forced::LostDone | Forced::ForeignDone);
        if is_done {
            shared.log.commit(&self.transactional_id, self.epoch).unwrap();
        }
        if matches!(forced, Forced::ForeignDone | Forced::ForeignOpen) {
            shared.log.reset_offset(self.seat.group, self.seat.place, Some(next_offset));
        }
        self.unknown(shared, "as forced")
    }

    /// One record at a time. After an acknowledgement that is lost a new producer sends everything
    /// again, and what the old one had under way may come behind it.
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
