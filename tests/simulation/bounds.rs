//! A handler from life to life: from where on it reads the events, and when it does not trust that.

use millrace::engine::position::Bound;
use millrace::engine::protocol::{Action, From, Handler, Input};
use millrace::engine::shelf::{MemoryShelf, ShelfError};
use millrace::kernel::message::Record;
use millrace::kernel::stream::{Kind, POSITION_KEY};
use millrace::kernel::time::Timestamp;
use uuid::Uuid;

use super::lives::{Life, Log, NOW};
use super::starts::rewrite;

const STREAMS: u64 = 60;
/// So many events may be left to be read.
const WANTED: u64 = 10;

/// A life that has decided a command for each stream, and then has time.
fn lived(log: &mut Log) -> Option<(i64, String)> {
    let mut life = Life::sweeping(log, WANTED, &MemoryShelf::default());
    life.start();
    life.send(0..STREAMS, 0, || {});
    let before = Life::count(life.log, Kind::Snapshots);
    for second in 1..4 {
        life.now = NOW.plus_seconds(second);
        // What is later is a transfer's deadline.
        let is_woken = |until: Option<Timestamp>| until.is_some_and(|until| until <= life.now);
        assert_eq!(matches!(life.last, Action::Receive { until } if is_woken(until)), second == 1);
        if second == 1 {
            let action = life.step(Input::Woken);
            life.run(action, || {});
        }
    }
    let written = Life::count(life.log, Kind::Snapshots) - before;
    assert!(written < 65, "{written} snapshots for {STREAMS} streams");
    life.committed
}

/// The next life knows every stream, and decides nothing twice. Says what it has read.
fn lives_on(log: &mut Log, committed: Option<(i64, String)>) -> (Vec<From>, u64, u64) {
    let events = Life::count(log, Kind::Events);
    let mut life = Life::sweeping(log, WANTED, &MemoryShelf::default());
    life.committed = committed;
    life.start();
    let counts = life.handler.counts();
    assert_eq!(counts.streams, STREAMS);
    life.send(0..STREAMS, i64::try_from(STREAMS).unwrap(), || {});
    assert_eq!(Life::count(life.log, Kind::Events), events, "nothing was decided twice");
    let of_events = life.restored.iter().filter(|(kind, _)| *kind == Kind::Events);
    (of_events.map(|(_, from)| *from).collect(), counts.read_events, counts.whole_reads)
}

fn of_kind(log: &mut Log, wanted: Kind) -> impl DoubleEndedIterator<Item = &mut Record> {
    let records = log.iter_mut().filter(move |(kind, _)| *kind == wanted);
    records.map(|(_, record)| record)
}

/// Changes the place in every position record.
fn rebound(log: &mut Log, change: impl Fn(&mut Option<Bound>)) {
    of_kind(log, Kind::Snapshots)
        .for_each(|record| rewrite(record, |position| change(&mut position.bound)));
}

#[test]
fn a_start_reads_the_last_events_alone() {
    let mut log = Log::new();
    let committed = lived(&mut log);
    let (from, read, whole) = lives_on(&mut log, committed);
    assert!(matches!(from[..], [From::Offset(offset)] if offset > 0), "{from:?}");
    assert!(read <= WANTED, "{read} events");
    assert_eq!(whole, 0);
}

#[test]
fn after_compaction_too() {
    let mut log = Log::new();
    let committed = lived(&mut log);
    let mut seen = std::collections::HashSet::new();
    let mut kept: Log = log.drain(..).rev().collect();
    kept.retain(|(kind, record)| *kind != Kind::Snapshots || seen.insert(record.key.clone()));
    log.extend(kept.into_iter().rev());
    let (_, read, whole) = lives_on(&mut log, committed);
    assert!(read <= WANTED && whole == 0, "{read} events");
}

#[test]
fn a_place_that_says_nothing_here_has_all_events_read() {
    let changes: [fn(&mut Option<Bound>); 4] = [
        // An older version wrote the record.
        |bound| *bound = None,
        |bound| bound.as_mut().unwrap().events_topic_id = Uuid::from_u128(99),
        |bound| bound.as_mut().unwrap().snapshots[2] ^= 1,
        |bound| bound.as_mut().unwrap().events_from = 1_000_000,
    ];
    for (index, change) in changes.into_iter().enumerate() {
        let mut log = Log::new();
        let committed = lived(&mut log);
        rebound(&mut log, change);
        let (from, read, whole) = lives_on(&mut log, committed);
        assert_eq!((&from[..], read, whole), (&[From::Start][..], STREAMS, 0), "{index}");
    }
}

#[test]
fn a_snapshot_that_is_lost_is_noticed() {
    for is_damaged in [false, true] {
        let mut log = Log::new();
        let committed = lived(&mut log);
        let is_first = |record: &&mut Record| record.key.as_deref() != Some(POSITION_KEY);
        let lost = of_kind(&mut log, Kind::Snapshots).find(is_first).unwrap();
        if is_damaged {
            lost.value.as_mut().unwrap()[0] ^= 0xff;
        } else {
            lost.key = None;
        }
        let (from, _, whole) = lives_on(&mut log, committed);
        assert!(matches!(from[..], [From::Offset(_), From::Start]), "{from:?}");
        assert_eq!(whole, 1);
    }
}

#[test]
fn all_snapshots_lost_but_the_position_are_noticed() {
    let mut log = Log::new();
    let committed = lived(&mut log);
    log.retain(|(kind, record)| {
        *kind != Kind::Snapshots || record.key.as_deref() == Some(POSITION_KEY)
    });
    let (from, _, whole) = lives_on(&mut log, committed);
    assert!(matches!(from[..], [From::Offset(_), From::Start]), "{from:?}");
    assert_eq!(whole, 1);
}

/// Without the position record the group's offset says where to go on, and nothing says where to
/// begin.
#[test]
fn a_snapshots_topic_that_was_emptied_has_all_events_read() {
    let mut log = Log::new();
    let committed = lived(&mut log);
    log.retain(|(kind, _)| *kind != Kind::Snapshots);
    let (from, read, whole) = lives_on(&mut log, committed);
    assert_eq!((&from[..], read, whole), (&[From::Start][..], STREAMS, 0));
}

#[test]
fn a_shelf_that_is_away_has_the_sweep_wait() {
    let (mut log, shelf) = (Log::new(), MemoryShelf::default());
    let mut life = Life::sweeping(&mut log, WANTED, &shelf);
    life.start();
    life.send(0..STREAMS, 0, || {});
    shelf.set_trouble(Some(ShelfError::Away("disk full".to_owned())));
    life.now = NOW.plus_seconds(5);
    let action = life.step(Input::Woken);
    life.run(action, || shelf.set_trouble(None));
    assert_eq!(life.waits, ["disk full"]);
}

/// Every event is another stream's: the worst that there is.
#[test]
fn under_load_a_snapshot_goes_with_twenty_events() {
    let mut log = Log::new();
    let mut life = Life::sweeping(&mut log, WANTED, &MemoryShelf::default());
    life.start();
    let mut sent = 0;
    for round in 1..=10 {
        life.send(sent..round * STREAMS, i64::try_from(sent).unwrap(), || {});
        sent = round * STREAMS;
    }
    let all = of_kind(&mut log, Kind::Snapshots);
    let swept = all.filter(|record| record.key.as_deref() != Some(POSITION_KEY)).count() as u64;
    assert!((sent / 20 - 3..=sent / 20).contains(&swept), "{swept} snapshots for {sent} events");
}
