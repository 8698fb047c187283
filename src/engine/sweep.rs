//! The streams that no snapshot covers, the oldest first: changed streams -> queue -> snapshots.
//!
//! ```text
//! changed -> queue (with a lower bound of its first uncovered event) -> snapshot -> out of it
//!              `-> the first one's bound: from there on a restore reads the events
//! ```
//!
//! The snapshot that is due every so many events covers busy streams. The others would hold that
//! place back for ever, so the oldest of them are swept: each turn adds a few of their snapshots to
//! its own transaction while more events than are wanted lie behind the place.
//!
//! | limit | value |
//! |---|---|
//! | while commands come | a snapshot for 20 events; one of several KiB counts as several |
//! | while none come | up to 500 snapshots a second, until few enough events are left |
//! | bytes of a turn's sweep | about 512 KiB |
//! | streams in the queue | as many as are kept in memory, and at least 1,000 |
//!
//! Guarantees: the place is a lower bound in every case. What a turn changes counts from where the
//! log ended before the turn, and what it sweeps counts once its transaction is committed: the
//! position record with the new place and the snapshots that allow it are one transaction. Streams
//! that the queue has no room for hold the place back until the next restore finds them again.

use std::collections::VecDeque;
use std::sync::Arc;

use super::snapshot;
use super::turn::{EVENT_BYTES_MAX, Overlay, Stream, Turn};
use crate::kernel::codec::Codec;
use crate::kernel::decider::Decider;
use crate::kernel::message::{Headers, Outgoing};
use crate::kernel::stream::Kind;
use crate::kernel::time::Timestamp;

/// Stands for the place of the first uncovered event of a stream that is covered.
pub const SAVED: i64 = i64::MAX;
/// So many events allow for one snapshot more while commands come.
const EVENTS_PER_SNAPSHOT: i64 = 20;
/// A snapshot of so many bytes costs as much as two small ones.
const SMALL_BYTES: usize = 1_024;
/// The most small snapshots of a turn, and what is saved up for.
const SNAPSHOTS_MAX: i64 = 500;
const CREDIT_MAX: i64 = SNAPSHOTS_MAX * EVENTS_PER_SNAPSHOT;
/// The most streams that a turn looks at.
const LOOKED_AT_MAX: usize = 5_000;
/// For how long no command must come before the sweep goes on without any, in seconds.
const PAUSE_SECONDS: i64 = 1;
/// The fewest streams that the queue has room for.
const QUEUE_MIN: usize = 1_000;

/// What a turn sweeps, once it is committed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Swept {
    /// How many streams at the front of the queue are done with.
    count: usize,
    /// What the snapshots cost.
    cost: i64,
    /// The bound of those whose state no record can hold.
    held_from: i64,
}

impl Default for Swept {
    fn default() -> Self {
        Self { count: 0, cost: 0, held_from: SAVED }
    }
}

/// The streams of a partition that no snapshot covers.
#[derive(Debug)]
pub(super) struct Sweep {
    /// How many events may lie behind the place before anything is swept.
    wanted: i64,
    queue_max: usize,
    queue: VecDeque<(i64, Arc<str>)>,
    /// The lowest bound of those that are not in the queue.
    held_from: i64,
    /// No event that is written from now on will stand before this.
    log_end: i64,
    /// The sum of all streams' versions.
    events: u64,
    /// What may be spent on snapshots while commands come; below zero after a large one.
    credit: i64,
    /// Until then nothing is swept without commands.
    rests_until: Timestamp,
}

impl Sweep {
    pub(super) fn new(restore_events: u64, streams_in_memory: usize) -> Self {
        Self {
            wanted: i64::try_from(restore_events).unwrap_or(i64::MAX),
            queue_max: streams_in_memory.max(QUEUE_MIN),
            queue: VecDeque::new(),
            held_from: SAVED,
            log_end: 0,
            events: 0,
            credit: 0,
            rests_until: Timestamp::default(),
        }
    }

    /// Forgets all, for a log that ends there.
    pub(super) fn clear(&mut self, log_end: i64) {
        let (wanted, queue_max) = (self.wanted, self.queue_max);
        *self = Self { wanted, queue_max, log_end, ..Self::new(0, 0) };
    }

    /// A restore knows a stream at another version than before.
    pub(super) const fn restored(&mut self, before: u64, version: u64) {
        self.events = self.events.wrapping_add(version.wrapping_sub(before));
    }

    /// A restore has read an event at that offset.
    pub(super) fn has_read(&mut self, offset: i64) {
        self.log_end = self.log_end.max(offset + 1);
    }

    /// A stream's first event from there on is in no snapshot.
    pub(super) fn push(&mut self, from: i64, id: Arc<str>) {
        if self.queue.len() < self.queue_max {
            self.queue.push_back((from, id));
        } else {
            self.held_from = self.held_from.min(from);
        }
    }

    /// No event that is written from now on will stand before this.
    pub(super) const fn log_end(&self) -> i64 {
        self.log_end
    }

    /// The sum of all streams' versions.
    pub(super) const fn events(&self) -> u64 {
        self.events
    }

    /// From where on a restore must read, once a turn is committed that sweeps this.
    pub(super) fn events_from(&self, swept: &Swept) -> i64 {
        let first = self.queue.get(swept.count).map_or(self.log_end, |(from, _)| *from);
        first.min(self.held_from).min(swept.held_from)
    }

    /// About how many events a restore would read.
    pub(super) fn to_restore(&self) -> u64 {
        let events = self.log_end - self.events_from(&Swept::default());
        u64::try_from(events).unwrap_or_default()
    }

    /// A transaction is over: the sweep does not go on at once if no commands come.
    pub(super) fn rest(&mut self, now: Timestamp) {
        self.rests_until = now.plus_seconds(PAUSE_SECONDS);
    }

    /// What a turn may spend on snapshots at that moment.
    pub(super) fn allowance(&mut self, now: Timestamp, has_commands: bool) -> i64 {
        // A clock that was put back is no reason to wait.
        let rest_max = now.plus_seconds(PAUSE_SECONDS);
        self.rests_until = self.rests_until.min(rest_max);
        if has_commands {
            self.credit
        } else if self.wakes_at().is_some_and(|at| at <= now) {
            CREDIT_MAX
        } else {
            0
        }
    }

    /// When the sweep goes on if no commands come.
    pub(super) fn wakes_at(&self) -> Option<Timestamp> {
        let (from, _) = self.queue.front()?;
        self.is_behind(*from).then_some(self.rests_until)
    }

    fn is_behind(&self, from: i64) -> bool {
        self.log_end - from > self.wanted
    }

    /// A turn is committed. Every event has an offset of its own, and the transaction's marker has
    /// one behind them.
    pub(super) fn committed(&mut self, events: u64, unsaved: Vec<Arc<str>>, swept: &Swept) {
        self.queue.drain(..swept.count.min(self.queue.len()));
        self.held_from = self.held_from.min(swept.held_from);
        for id in unsaved {
            self.push(self.log_end, id);
        }
        if events > 0 {
            self.log_end += events.cast_signed() + 1;
        }
        self.events += events;
        self.credit =
            (self.credit - swept.cost + events.cast_signed()).clamp(-CREDIT_MAX, CREDIT_MAX);
    }
}

impl<D: Decider, C: Codec<D>> Turn<'_, D, C> {
    /// Adds the snapshots of those that have waited longest for one, all commands being decided.
    pub(super) fn sweep(&mut self, sweep: &Sweep, allowance: i64) {
        let mut swept = Swept::default();
        for (from, id) in sweep.queue.iter().take(LOOKED_AT_MAX) {
            if !sweep.is_behind(*from) {
                break;
            }
            if swept.cost + EVENTS_PER_SNAPSHOT > allowance {
                // What is at hand and covered by now costs nothing.
                let is_done = |stream: &Stream<D::State>| stream.unsaved_from != *from;
                if !self.stream(id).is_some_and(is_done) {
                    break;
                }
            }
            self.fetch(id);
            if self.trouble.is_some() {
                return;
            }
            let is_waiting = |stream: &&Stream<D::State>| stream.unsaved_from == *from;
            if let Some(stream) = self.stream(id).filter(is_waiting) {
                if !self.changes.streams.contains_key(id) {
                    let stream = stream.clone();
                    self.changes.streams.insert(Arc::clone(id), stream);
                }
                match save::<D>(&mut self.changes.streams, id) {
                    Some(record) => {
                        let bytes = record.byte_count();
                        self.records.push(record);
                        let small = i64::try_from(1 + bytes / SMALL_BYTES).unwrap_or(1);
                        swept.cost += EVENTS_PER_SNAPSHOT * small;
                    }
                    None => swept.held_from = swept.held_from.min(*from),
                }
                self.snapshots_due.remove(&**id);
            }
            swept.count += 1;
        }
        self.changes.swept = swept;
    }
}

/// The snapshot of a changed stream as it is now. A state that is too large for a record is folded
/// from its events instead.
pub(super) fn save<D: Decider>(streams: &mut Overlay<D::State>, id: &str) -> Option<Outgoing> {
    let stream = streams.get_mut(id)?;
    let value = Some(snapshot::to_bytes::<D>(stream)?);
    let (key, headers) = (Some(id.as_bytes().to_vec()), Headers::default());
    let record = Outgoing { kind: Kind::Snapshots, key, value, headers };
    if record.byte_count() > EVENT_BYTES_MAX {
        return None;
    }
    stream.unsaved_from = SAVED;
    Some(record)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp(1_000_000_000);

    fn swept(count: usize) -> Swept {
        let cost = i64::try_from(count).unwrap() * EVENTS_PER_SNAPSHOT;
        Swept { count, cost, ..Swept::default() }
    }

    /// A turn that changes one stream, by so many events.
    fn change(sweep: &mut Sweep, id: &str, events: u64) {
        sweep.committed(events, vec![id.into()], &Swept::default());
    }

    #[test]
    fn what_no_snapshot_covers_holds_the_place_back() {
        let mut sweep = Sweep::new(10, 10);
        sweep.clear(100);
        assert_eq!(sweep.events_from(&Swept::default()), 100, "nothing is uncovered");
        change(&mut sweep, "a", 3);
        change(&mut sweep, "b", 1);
        // Three events and a marker, an event and a marker.
        assert_eq!(sweep.log_end(), 106);
        assert_eq!(sweep.events_from(&Swept::default()), 100);
        assert_eq!(sweep.events_from(&swept(1)), 104);
        assert_eq!(sweep.events_from(&swept(2)), 106);
        // It is done with once the turn is committed, and not before.
        assert_eq!(sweep.events_from(&Swept::default()), 100);
        sweep.committed(0, Vec::new(), &swept(1));
        assert_eq!((sweep.events_from(&Swept::default()), sweep.log_end()), (104, 106));
        assert_eq!(sweep.events(), 4);
    }

    #[test]
    fn what_it_has_no_room_for_holds_the_place_back_for_good() {
        let mut sweep = Sweep::new(10, 1);
        let room = QUEUE_MIN as u64;
        (0..=room).for_each(|number| change(&mut sweep, &format!("s{number}"), 1));
        let all = swept(QUEUE_MIN);
        assert_eq!(sweep.events_from(&all), 2 * i64::try_from(room).unwrap());
        sweep.committed(0, Vec::new(), &all);
        change(&mut sweep, "later", 1);
        assert_eq!(sweep.events_from(&swept(1)), 2 * i64::try_from(room).unwrap());
        let too_large = Swept { held_from: 7, ..swept(1) };
        assert_eq!(sweep.events_from(&too_large), 7);
        sweep.committed(0, Vec::new(), &too_large);
        assert_eq!(sweep.events_from(&Swept::default()), 7);
    }

    #[test]
    fn under_load_it_spends_what_the_events_allow_for() {
        let mut sweep = Sweep::new(10, 10);
        assert_eq!(sweep.allowance(NOW, true), 0);
        change(&mut sweep, "a", 25);
        assert_eq!(sweep.allowance(NOW, true), 25);
        sweep.committed(0, Vec::new(), &swept(1));
        assert_eq!(sweep.allowance(NOW, true), 5);
        // A large one is paid for by what comes.
        sweep.committed(0, Vec::new(), &swept(2));
        assert_eq!(sweep.allowance(NOW, true), -35);
        change(&mut sweep, "b", 1_000_000);
        assert_eq!(sweep.allowance(NOW, true), CREDIT_MAX);
    }

    #[test]
    fn without_commands_it_goes_on_from_second_to_second_until_few_enough_are_left() {
        let mut sweep = Sweep::new(10, 10);
        change(&mut sweep, "a", 9);
        assert_eq!(sweep.wakes_at(), None, "ten offsets are few enough");
        change(&mut sweep, "b", 1);
        sweep.rest(NOW);
        let next = NOW.plus_seconds(PAUSE_SECONDS);
        assert_eq!(sweep.wakes_at(), Some(next));
        assert_eq!(sweep.allowance(NOW, false), 0, "there were commands just now");
        assert_eq!(sweep.allowance(next, false), CREDIT_MAX);
        sweep.rest(next);
        assert_eq!(sweep.wakes_at(), Some(next.plus_seconds(PAUSE_SECONDS)));
        // A clock that is put back has it wait for no longer than ever.
        let before = NOW.plus_seconds(-86_400);
        assert_eq!(sweep.allowance(before, false), 0);
        assert_eq!(sweep.wakes_at(), Some(before.plus_seconds(PAUSE_SECONDS)));
        sweep.committed(0, Vec::new(), &swept(1));
        assert_eq!(sweep.wakes_at(), None);
    }
}
