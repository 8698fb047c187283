//! What all actors of a world share: the log, the clock, the dice, a network that delivers late.

use std::collections::VecDeque;
use std::sync::Arc;

use hashbrown::HashMap;
use millrace::engine::protocol::{Crossing, Moment};
use millrace::engine::shelf::MemoryShelf;
use millrace::kernel::message::Outgoing;
use millrace::kernel::reactor::Reactor;
use millrace::kernel::stream::Kind;
use millrace::kernel::time::Timestamp;
use millrace::log::memory::{MemoryLog, Place};
use rand::rngs::StdRng;
use rand::{Rng, RngExt, SeedableRng};

use super::bank::{Bank, aggregate_of};
use super::disks::Disks;
use super::faulty::Mood;
use super::store::Store;

/// What can go wrong, each as one in so many; 0 is never.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Faults {
    pub(crate) abort: u32,
    pub(crate) lost_acknowledgement: u32,
    pub(crate) left_open: u32,
    /// Of a commit that is done, the marker beside the group's offset is lost.
    pub(crate) lost_marker: u32,
    pub(crate) crash: u32,
    pub(crate) takeover: u32,
    pub(crate) reset: u32,
    pub(crate) late: u32,
    pub(crate) pause: u32,
    pub(crate) long_pause: u32,
    pub(crate) compaction: u32,
    /// A step's decision breaks.
    pub(crate) breaks: u32,
    /// A schema is not known yet.
    pub(crate) unknown: u32,
    /// A projection's database is lost.
    pub(crate) wipe: u32,
    /// Somebody's clock is put right, or wrong.
    pub(crate) clock: u32,
    /// Between the commit and what the handler makes of it.
    pub(crate) crash_at_commit: u32,
    /// A disk is full, or damaged.
    pub(crate) disk: u32,
    /// A projection's database refuses a stream from now on.
    pub(crate) poison: u32,
    /// No fault: a start is compared with one that reads all events.
    pub(crate) compared: u32,
}

impl Faults {
    pub(crate) const NONE: Self = Self {
        abort: 0,
        lost_acknowledgement: 0,
        left_open: 0,
        lost_marker: 0,
        crash: 0,
        takeover: 0,
        reset: 0,
        late: 0,
        pause: 0,
        long_pause: 0,
        compaction: 0,
        breaks: 0,
        unknown: 0,
        wipe: 0,
        clock: 0,
        crash_at_commit: 0,
        disk: 0,
        poison: 0,
        compared: 1,
    };
    pub(crate) const MANY: Self = Self {
        abort: 15,
        lost_acknowledgement: 15,
        left_open: 20,
        lost_marker: 60,
        crash: 120,
        takeover: 200,
        reset: 400,
        late: 40,
        pause: 100,
        long_pause: 2_000,
        compaction: 200,
        breaks: 25,
        unknown: 300,
        wipe: 4_000,
        clock: 300,
        crash_at_commit: 60,
        disk: 150,
        poison: 60,
        compared: 40,
    };
}

/// What went wrong, counted.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Tally {
    pub(crate) crashes: u64,
    pub(crate) takeovers: u64,
    pub(crate) resets: u64,
    pub(crate) aborts: u64,
    pub(crate) unknown: u64,
    pub(crate) late: u64,
    pub(crate) days: u64,
    /// How often a disk was waited for.
    pub(crate) waits: u64,
    /// How much an operator sent again that broke at a saga.
    pub(crate) repaired: u64,
    /// Chunks behind the first of their turn.
    pub(crate) chunks: u64,
    /// Turns that were given up in the middle.
    pub(crate) abandoned: u64,
    /// Offsets that were freed from a transaction that nobody ends.
    pub(crate) freed: u64,
    /// Starts of handlers that did not begin with the oldest event.
    pub(crate) bounded_starts: u64,
    /// How many events they had not to read, where that was compared.
    pub(crate) left_out: u64,
    /// Starts that had to read all after all.
    pub(crate) whole_reads: u64,
}

impl Tally {
    pub(crate) fn add(&mut self, other: &Self) {
        self.crashes += other.crashes;
        self.takeovers += other.takeovers;
        self.resets += other.resets;
        self.aborts += other.aborts;
        self.unknown += other.unknown;
        self.late += other.late;
        self.days += other.days;
        self.waits += other.waits;
        self.repaired += other.repaired;
        self.chunks += other.chunks;
        self.abandoned += other.abandoned;
        self.freed += other.freed;
        self.bounded_starts += other.bounded_starts;
        self.left_out += other.left_out;
        self.whole_reads += other.whole_reads;
    }

    pub(crate) fn faults(&self) -> u64 {
        self.crashes
            + self.takeovers
            + self.resets
            + self.aborts
            + self.unknown
            + self.late
            + self.days
            + self.waits
    }
}

/// What is switched off on purpose, to see that the judge finds it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Planted {
    /// Then a transaction is committed while some of its records are still on their way.
    Drain,
    /// Then a commit that is not acknowledged is taken for one that was not done.
    Witness,
    /// Then what an aborted transaction did to the state stays.
    Rollback,
    /// Then answers are not read back, and no shelf holds them.
    Answers,
    /// Then the origins that were taken are not read back.
    Origins,
    /// Then a reactor begins where its group's offset stands.
    Position,
    /// Then a handler begins too far ahead in the events; and unless it is told how much there is
    /// in all, it does not notice.
    Bound { is_counted: bool },
}

/// What shall go wrong next at a place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Forced {
    /// The commit is done, but nobody hears of it.
    LostDone,
    /// The commit is not done, and nobody hears of it.
    LostOpen,
    /// As the two above, and then somebody commits the very offset of the batch.
    ForeignDone,
    ForeignOpen,
    /// The commit is done, but the marker beside the group's offset is lost with a broker.
    LostMarker,
    /// The delivery breaks before the record with that number.
    Delivery(usize),
}

pub(crate) struct Shared {
    pub(crate) bank: Arc<Bank>,
    pub(crate) reactors: Vec<Arc<dyn Reactor>>,
    pub(crate) mood: Arc<Mood>,
    pub(crate) log: MemoryLog,
    pub(crate) store: Store,
    disks: HashMap<Place, Disks>,
    /// How many answers and streams a handler keeps in memory in this world.
    pub(crate) in_memory: usize,
    /// From how many events on a handler sweeps in this world.
    pub(crate) restore_events: u64,
    pub(crate) rng: StdRng,
    pub(crate) faults: Faults,
    pub(crate) planted: Option<Planted>,
    pub(crate) forced: Vec<(Place, Forced)>,
    /// The most commands of a turn; drawn if it is not set.
    pub(crate) batch_max: Option<usize>,
    pub(crate) tally: Tally,
    pub(crate) now: Timestamp,
    /// Sends of owners that are gone, which the network may still deliver: in order for each
    /// partition, since their producers keep it.
    late: Vec<VecDeque<(Place, Outgoing)>>,
}

impl Shared {
    pub(crate) fn new(seed: u64, bank: Arc<Bank>, faults: Faults) -> Self {
        let mood = Arc::new(Mood::new(seed));
        mood.set(faults.breaks, faults.unknown);
        Self {
            reactors: bank.reactors(&mood),
            bank,
            mood,
            log: MemoryLog::default(),
            store: Store::default(),
            disks: HashMap::new(),
            // In one world of four everything fits; in the others next to nothing does.
            in_memory: [1_000, 1, 2, 5][usize::try_from(seed % 4).unwrap()],
            restore_events: [1, 30, 5][usize::try_from(seed % 3).unwrap()],
            rng: StdRng::seed_from_u64(seed),
            faults,
            planted: None,
            forced: Vec::new(),
            batch_max: None,
            tally: Tally::default(),
            now: Timestamp(1_760_000_000_000_000),
            late: Vec::new(),
        }
    }

    pub(crate) fn be_calm(&mut self) {
        self.faults = Faults::NONE;
        self.mood.set(0, 0);
        self.disks.values_mut().for_each(Disks::mend);
    }

    /// A new owner's machine has a disk for that partition.
    pub(crate) fn take_disk(&mut self, place: Place) -> (usize, MemoryShelf) {
        self.disks.entry(place).or_default().take(&mut self.rng)
    }

    pub(crate) fn give_disk_back(&mut self, place: Place, disk: usize) {
        self.disks.entry(place).or_default().give_back(disk);
    }

    pub(crate) fn disturb_disk(&mut self, place: Place, disk: usize) {
        self.disks.entry(place).or_default().disturb(disk, &mut self.rng);
    }

    /// How often an owner has started with a disk that held answers.
    pub(crate) fn warm_starts(&self) -> u64 {
        self.disks.values().map(|disks| u64::from(disks.warm_starts)).sum()
    }

    pub(crate) fn is_planted(&self, bug: Planted) -> bool {
        self.planted == Some(bug)
    }

    /// What shall go wrong there with a transaction.
    pub(crate) fn forced_commit(&mut self, place: Place) -> Option<Forced> {
        let is_it =
            |(at, forced): &(Place, Forced)| *at == place && !matches!(forced, Forced::Delivery(_));
        let index = self.forced.iter().position(is_it)?;
        Some(self.forced.swap_remove(index).1)
    }

    /// Whether a delivery from there shall break before that record.
    pub(crate) fn breaks_delivery(&mut self, place: Place, index: usize) -> bool {
        let found = self.forced.iter().position(|it| *it == (place, Forced::Delivery(index)));
        found.map(|index| self.forced.swap_remove(index)).is_some()
            || self.one_in(self.faults.lost_acknowledgement)
    }

    pub(crate) fn one_in(&mut self, n: u32) -> bool {
        n > 0 && self.rng.random_range(0..n) == 0
    }

    /// A little later than the last time that somebody looked.
    pub(crate) fn tick(&mut self) -> Timestamp {
        self.now.0 += self.rng.random_range(1..2_000);
        self.now
    }

    /// What a process with such a clock is told.
    pub(crate) fn moment(&mut self, skew: i64) -> Moment {
        let nonce = self.rng.next_u64();
        Moment { now: Timestamp(self.tick().0 + skew), nonce }
    }

    /// How many microseconds a clock is wrong.
    pub(crate) fn draw_skew(&mut self) -> i64 {
        if self.faults.clock == 0 { 0 } else { self.rng.random_range(-3_000_000..3_000_000) }
    }

    pub(crate) fn append(&mut self, place: Place, record: &Outgoing) {
        let at = self.tick();
        self.log.append(place, record, at);
    }

    pub(crate) fn cross(&mut self, crossing: &Crossing) {
        let (place, record) = addressed(crossing);
        self.append(place, &record);
    }

    /// What a sender that is gone had sent but not seen acknowledged may arrive late, or never.
    pub(crate) fn sent_by_the_dead(&mut self, unacknowledged: &[Crossing]) {
        let mut queues: Vec<VecDeque<(Place, Outgoing)>> = Vec::new();
        for (place, record) in unacknowledged.iter().map(addressed) {
            match queues.iter_mut().find(|queue| queue[0].0 == place) {
                Some(queue) => queue.push_back((place, record)),
                None => queues.push(VecDeque::from([(place, record)])),
            }
        }
        for mut queue in queues {
            let arrive = self.rng.random_range(0..=queue.len());
            queue.truncate(arrive);
            if !queue.is_empty() {
                self.late.push(queue);
            }
        }
    }

    pub(crate) fn may_arrive_late(&mut self, place: Place, record: Outgoing) {
        self.late.push(VecDeque::from([(place, record)]));
    }

    /// One of the late ones arrives; `false` if there is none.
    pub(crate) fn arrive_late(&mut self) -> bool {
        if self.late.is_empty() {
            return false;
        }
        let index = self.rng.random_range(0..self.late.len());
        if let Some((place, record)) = self.late[index].pop_front() {
            self.tally.late += 1;
            self.append(place, &record);
        }
        if self.late[index].is_empty() {
            self.late.swap_remove(index);
        }
        true
    }
}

fn addressed(crossing: &Crossing) -> (Place, Outgoing) {
    let (topic, partition, record) = crossing.parts();
    let place = Place { aggregate: aggregate_of(topic), kind: Kind::Commands, partition };
    (place, record.clone())
}
