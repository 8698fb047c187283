//! The world around the handlers: a log, owners that come and go, a network that repeats itself.

use std::collections::VecDeque;
use std::sync::Arc;

use millrace::codec::banking::AccountCodec;
use millrace::domain::banking::account::Account;
use millrace::engine::command_handler::CommandHandler;
use millrace::engine::protocol::{
    Action, Committed, Crossing, From, Handler, Input, Moment, Settings, Transaction,
};
use millrace::kernel::message::Outgoing;
use millrace::kernel::stream::Kind;
use millrace::kernel::time::Timestamp;
use millrace::log::memory::{MemoryLog, Refused};
use rand::rngs::StdRng;
use rand::{Rng, RngExt, SeedableRng};
use ring::hmac;
use uuid::Uuid;

use super::disks::Disks;

pub(crate) const PARTITIONS: i32 = 3;
pub(crate) const COMMANDS_TOPIC_ID: Uuid = Uuid::from_u128(0xc0);
const GROUP: &str = "millrace.handler.banking";

/// What can go wrong, each as one in so many; 0 is never.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Faults {
    pub(crate) abort: u32,
    pub(crate) lost_acknowledgement: u32,
    pub(crate) left_open: u32,
    pub(crate) crash: u32,
    pub(crate) takeover: u32,
    pub(crate) reset: u32,
    /// Between the commit and what the handler makes of it.
    pub(crate) crash_at_commit: u32,
    pub(crate) disk: u32,
}

impl Faults {
    pub(crate) const NONE: Self = Self {
        abort: 0,
        lost_acknowledgement: 0,
        left_open: 0,
        crash: 0,
        takeover: 0,
        reset: 0,
        crash_at_commit: 0,
        disk: 0,
    };
    pub(crate) const MANY: Self = Self {
        abort: 12,
        lost_acknowledgement: 12,
        left_open: 15,
        crash: 60,
        takeover: 150,
        reset: 400,
        crash_at_commit: 25,
        disk: 80,
    };
}

/// One lane: a handler and what it is in the middle of.
struct Lane {
    partition: i32,
    handler: CommandHandler<Account, AccountCodec>,
    doing: Doing,
    epoch: u32,
    read_from: i64,
    /// Which of the partition's disks is its own.
    disk: usize,
    /// Whether the group still counts it in. One that it does not is a zombie.
    is_member: bool,
}

enum Doing {
    Act(Action),
    Restoring {
        kind: Kind,
        from: i64,
    },
    /// The offset and these records are to be written, then comes the commit.
    Writing {
        transaction: Transaction,
        written: usize,
        last_result: Option<i64>,
    },
    Sending {
        crossings: Vec<Crossing>,
        sent: usize,
    },
}

pub(crate) struct World {
    pub(crate) log: MemoryLog,
    pub(crate) rng: StdRng,
    pub(crate) faults: Faults,
    pub(crate) crashes: u32,
    pub(crate) shelf_waits: u32,
    disks: Vec<Disks>,
    /// How many answers and streams a handler keeps in memory in this world.
    in_memory: usize,
    codec: Arc<AccountCodec>,
    now: i64,
    lanes: Vec<Lane>,
    /// Sends of owners that are gone, which the network may still deliver.
    late: VecDeque<(i32, Outgoing)>,
}

impl World {
    pub(crate) fn new(seed: u64, codec: Arc<AccountCodec>) -> Self {
        let mut world = Self {
            log: MemoryLog::default(),
            rng: StdRng::seed_from_u64(seed),
            faults: Faults::MANY,
            crashes: 0,
            shelf_waits: 0,
            disks: (0..PARTITIONS).map(|_| Disks::default()).collect(),
            // In one world of four everything fits; in the others next to nothing does.
            in_memory: [1_000, 1, 2, 5][usize::try_from(seed % 4).unwrap_or(0)],
            codec,
            now: 1_760_000_000_000_000,
            lanes: Vec::new(),
            late: VecDeque::new(),
        };
        (0..PARTITIONS).for_each(|partition| world.take_over(partition));
        world
    }

    pub(crate) fn one_in(&mut self, n: u32) -> bool {
        n > 0 && self.rng.random_range(0..n) == 0
    }

    pub(crate) fn now(&mut self) -> Timestamp {
        self.now += self.rng.random_range(1..2_000);
        Timestamp(self.now)
    }

    pub(crate) fn produce(&mut self, partition: i32, record: &Outgoing) {
        let at = self.now().millis();
        self.log.append(partition, record, at);
    }

    fn moment(&mut self) -> Moment {
        let nonce = self.rng.next_u64();
        Moment { now: self.now(), nonce }
    }

    /// Gives a partition to a new owner. The old one is not told.
    fn take_over(&mut self, partition: i32) {
        for lane in self.lanes.iter_mut().filter(|lane| lane.partition == partition) {
            lane.is_member = false;
        }
        let settings = Settings {
            group: GROUP.to_owned(),
            cluster_id: "simulated".to_owned(),
            commands_topic: "banking.account.commands".to_owned(),
            commands_topic_id: COMMANDS_TOPIC_ID,
            events_topic: "banking.account.events".to_owned(),
            events_topic_id: Uuid::from_u128(0xe0),
            results_topic_id: Uuid::from_u128(0xe1),
            partition,
            partition_count: PARTITIONS,
            batch_max: self.rng.random_range(1..20),
            batch_bytes_max: 1 << 20,
            trust_command_time: false,
            snapshot_every: 5,
            window_seconds: 90_000,
            answers_in_memory: self.in_memory,
            streams_in_memory: self.in_memory,
            key: hmac::Key::new(hmac::HMAC_SHA256, b"simulated"),
        };
        let place = usize::try_from(partition).unwrap();
        let (disk, shelf) = self.disks[place].take(&mut self.rng);
        let mut handler = CommandHandler::new(settings, Arc::clone(&self.codec), Box::new(shelf));
        let doing = Doing::Act(handler.start());
        self.lanes.push(Lane {
            partition,
            handler,
            doing,
            epoch: 0,
            read_from: 0,
            disk,
            is_member: true,
        });
    }

    /// Lets something happen: a fault, a late delivery, or one step of one lane.
    pub(crate) fn step(&mut self) {
        let partition = self.rng.random_range(0..PARTITIONS);
        if self.one_in(self.faults.takeover) {
            self.take_over(partition);
        }
        if self.one_in(self.faults.reset) {
            let offset = self.rng.random_range(0..200);
            let offset = self.one_in(2).then_some(offset);
            self.log.reset_offset(partition, offset);
        }
        if !self.late.is_empty()
            && self.one_in(5)
            && let Some((partition, record)) = self.late.pop_front()
        {
            self.produce(partition, &record);
        }
        let index = self.rng.random_range(0..self.lanes.len());
        if self.one_in(self.faults.disk) {
            let Lane { partition, disk, .. } = self.lanes[index];
            self.disks[usize::try_from(partition).unwrap()].disturb(disk, &mut self.rng);
        }
        if self.one_in(self.faults.crash) {
            self.crash(index);
            return;
        }
        let mut lane = self.lanes.swap_remove(index);
        let zombie_ends = !lane.is_member && self.one_in(30);
        if zombie_ends || !self.advance(&mut lane) {
            let (partition, was_member) = (lane.partition, lane.is_member);
            self.bury(lane);
            if was_member {
                self.crashes += 1;
                self.take_over(partition);
            }
        } else {
            self.lanes.push(lane);
        }
    }

    /// Runs without faults until nobody has anything left to do.
    pub(crate) fn settle(&mut self) {
        self.faults = Faults::NONE;
        self.disks.iter_mut().for_each(Disks::mend);
        while let Some((partition, record)) = self.late.pop_front() {
            self.produce(partition, &record);
        }
        for round in 0.. {
            assert!(round < 100_000, "the handlers never come to rest");
            let mut moved = false;
            for index in (0..self.lanes.len()).rev() {
                let mut lane = self.lanes.swap_remove(index);
                if !lane.is_member {
                    continue;
                }
                moved |= !self.is_idle(&lane);
                assert!(self.advance(&mut lane), "an owner stopped without a fault");
                self.lanes.push(lane);
            }
            if !moved {
                return;
            }
        }
    }

    pub(crate) fn warm_starts(&self) -> u32 {
        self.disks.iter().map(|disks| disks.warm_starts).sum()
    }

    fn is_idle(&self, lane: &Lane) -> bool {
        let place = (Kind::Commands, lane.partition);
        matches!(lane.doing, Doing::Act(Action::Receive { .. }))
            && self.log.read(place, lane.read_from, 1).0.is_empty()
    }

    fn crash(&mut self, index: usize) {
        self.crashes += 1;
        let lane = self.lanes.swap_remove(index);
        let (partition, was_member) = (lane.partition, lane.is_member);
        self.bury(lane);
        if was_member {
            self.take_over(partition);
        }
    }

    /// What a dead owner had sent but not seen acknowledged may arrive late, or twice.
    fn bury(&mut self, lane: Lane) {
        self.disks[usize::try_from(lane.partition).unwrap()].give_back(lane.disk);
        if let Doing::Sending { crossings, sent } = lane.doing {
            let from = sent.saturating_sub(1);
            for crossing in crossings.into_iter().skip(from) {
                if self.one_in(2) {
                    break;
                }
                self.late.push_back((crossing.partition, crossing.record));
            }
        }
    }

    /// Carries one lane one step on; `false` is its end.
    fn advance(&mut self, lane: &mut Lane) -> bool {
        let doing = std::mem::replace(&mut lane.doing, Doing::Act(Action::More));
        match doing {
            Doing::Act(action) => self.act(lane, action),
            Doing::Restoring { kind, from } => self.restore(lane, kind, from),
            Doing::Writing { transaction, written, last_result } => {
                self.write(lane, transaction, written, last_result)
            }
            Doing::Sending { crossings, sent } => self.send(lane, crossings, sent),
        }
    }

    fn answer(&mut self, lane: &mut Lane, input: Input) -> bool {
        let moment = self.moment();
        lane.doing = Doing::Act(lane.handler.step(moment, input));
        true
    }

    fn id(partition: i32) -> String {
        format!("{GROUP}.{partition}")
    }

    fn act(&mut self, lane: &mut Lane, action: Action) -> bool {
        match action {
            Action::Fence => {
                if !lane.is_member {
                    return false; // By now it has learnt that it is out.
                }
                lane.epoch = self.log.init_producer(&Self::id(lane.partition));
                self.answer(lane, Input::Fenced)
            }
            Action::ReadCommitted => match self.log.committed_offset(lane.partition) {
                Ok(offset) => {
                    let committed = Committed { offset, log_start: 0, log_end: i64::MAX };
                    self.answer(lane, Input::Committed(committed))
                }
                Err(_) => {
                    lane.doing = Doing::Act(Action::ReadCommitted);
                    true
                }
            },
            Action::Restore { kind, from } => {
                let place = (kind, lane.partition);
                let from = match from {
                    From::Start | From::Moment(_) => 0,
                    From::Offset(offset) if offset < self.log.end_of(place) => offset,
                    From::Offset(_) => return self.answer(lane, Input::RestoreEnd),
                };
                lane.doing = Doing::Restoring { kind, from };
                true
            }
            Action::Wait { .. } => {
                self.shelf_waits += 1;
                self.answer(lane, Input::Woken)
            }
            Action::Ready { next_offset } => {
                lane.read_from = next_offset;
                self.answer(lane, Input::Started)
            }
            Action::Receive { until } => {
                let max = self.rng.random_range(1..30);
                let place = (Kind::Commands, lane.partition);
                let (records, next, _) = self.log.read(place, lane.read_from, max);
                lane.read_from = next;
                if records.is_empty() {
                    if until.is_some_and(|until| until.0 <= self.now) {
                        return self.answer(lane, Input::Woken);
                    }
                    lane.doing = Doing::Act(Action::Receive { until });
                    return true;
                }
                self.answer(lane, Input::Arrived(records))
            }
            Action::Deliver(crossings) => {
                lane.doing = Doing::Sending { crossings, sent: 0 };
                true
            }
            Action::Transact(transaction) => self.begin(lane, transaction),
            Action::Sleep(_) => self.answer(lane, Input::Woken),
            Action::LookUpSchema(_) | Action::More | Action::Stop(_) => {
                panic!("partition {}: {action:?}", lane.partition)
            }
        }
    }

    fn restore(&mut self, lane: &mut Lane, kind: Kind, from: i64) -> bool {
        let max = self.rng.random_range(1..50);
        let (records, next, end) = self.log.read((kind, lane.partition), from, max);
        let moment = self.moment();
        let mut action = lane.handler.step(moment, Input::Restored(records));
        if action == Action::More {
            if !end {
                lane.doing = Doing::Restoring { kind, from: next };
                return true;
            }
            action = lane.handler.step(moment, Input::RestoreEnd);
        }
        lane.doing = Doing::Act(action);
        true
    }

    /// The offset goes first; the group refuses it from somebody that it does not count in.
    fn begin(&mut self, lane: &mut Lane, transaction: Transaction) -> bool {
        let id = Self::id(lane.partition);
        if let Err(refused) = self.log.begin(&id, lane.epoch) {
            return self.refused(lane, refused);
        }
        if !lane.is_member || self.one_in(self.faults.abort) {
            return self.abort(lane);
        }
        let Transaction { next_offset, metadata, .. } = &transaction;
        let offset =
            self.log.send_offset((&id, lane.epoch), lane.partition, *next_offset, metadata);
        assert_eq!(offset, Ok(()), "it was just begun");
        lane.doing = Doing::Writing { transaction, written: 0, last_result: None };
        true
    }

    fn abort(&mut self, lane: &mut Lane) -> bool {
        match self.log.abort(&Self::id(lane.partition), lane.epoch) {
            Ok(()) => self.answer(lane, Input::TransactionAborted("simulated".to_owned())),
            Err(refused) => self.refused(lane, refused),
        }
    }

    fn refused(&mut self, lane: &mut Lane, refused: Refused) -> bool {
        self.answer(lane, Input::TransactionUnknown(refused.to_string()))
    }

    fn write(
        &mut self,
        lane: &mut Lane,
        transaction: Transaction,
        written: usize,
        mut last_result: Option<i64>,
    ) -> bool {
        let id = Self::id(lane.partition);
        let some = self.rng.random_range(1..10);
        let at = self.now().millis();
        for record in transaction.records.iter().skip(written).take(some) {
            if let Err(refused) = self.log.send((&id, lane.epoch), lane.partition, record, at) {
                return self.refused(lane, refused);
            }
            if record.kind == Kind::Results {
                last_result = Some(self.log.end_of((Kind::Results, lane.partition)) - 1);
            }
        }
        let written = written + some;
        if written < transaction.records.len() {
            lane.doing = Doing::Writing { transaction, written, last_result };
            return true;
        }
        if self.one_in(self.faults.abort) {
            return self.abort(lane);
        }
        if self.one_in(self.faults.left_open) {
            return self.answer(lane, Input::TransactionUnknown("no answer, not done".to_owned()));
        }
        match self.log.commit(&id, lane.epoch) {
            Err(refused) => self.refused(lane, refused),
            Ok(()) if self.one_in(self.faults.lost_acknowledgement) => {
                self.answer(lane, Input::TransactionUnknown("no answer, but done".to_owned()))
            }
            Ok(()) if self.one_in(self.faults.crash_at_commit) => false,
            Ok(()) => {
                // Now and then the brokers do not say.
                let last_result = last_result.filter(|_| !self.one_in(10));
                self.answer(lane, Input::TransactionCommitted { last_result })
            }
        }
    }

    /// One record at a time; an acknowledgement that is lost has everything from there sent again.
    fn send(&mut self, lane: &mut Lane, crossings: Vec<Crossing>, sent: usize) -> bool {
        let Some(crossing) = crossings.get(sent) else {
            return self.answer(lane, Input::Delivered);
        };
        let (partition, record) = (crossing.partition, crossing.record.clone());
        self.produce(partition, &record);
        let lost = self.one_in(self.faults.lost_acknowledgement);
        let sent = if lost { sent.saturating_sub(1) } else { sent + 1 };
        lane.doing = Doing::Sending { crossings, sent };
        true
    }
}
