//! Events that are refused, case by case: the loop against a store that does not take some.

use std::collections::{BTreeMap, BTreeSet};

use super::tests::{LIMITS, TOPIC, applied, at, offsets, place, position, ready};
use super::*;
use crate::engine::reset_protocol::Committed;
use crate::kernel::projection::{Held, Parked, Redriven};
use crate::kernel::stream::{event_key, parse_event_key};

/// A store that refuses some streams; it keeps what was applied and what was put aside.
#[derive(Default)]
struct Store {
    refused: BTreeSet<&'static str>,
    /// Whether it says which event it means.
    tells: bool,
    rows: BTreeMap<String, Vec<u64>>,
    parked: Vec<Parked>,
    attempts: usize,
    tried: usize,
}

fn identity(record: &Record) -> (String, u64) {
    let (stream, sequence) = parse_event_key(record.key.as_deref().unwrap()).unwrap();
    (stream.to_owned(), sequence)
}

impl Store {
    fn apply(&mut self, batch: &Batch) -> Result<Applied, Failure> {
        self.attempts += 1;
        self.tried += batch.records.len();
        let bad = |record: &&Record| self.refused.contains(identity(record).0.as_str());
        if let Some(bad) = batch.records.iter().find(bad) {
            return Err(Failure::Refused(refusal(self.tells.then_some(bad.offset))));
        }
        for record in &batch.records {
            let (stream, sequence) = identity(record);
            self.rows.entry(stream).or_default().push(sequence);
        }
        self.parked.extend(batch.parked.iter().cloned());
        Ok(Applied { next_offset: batch.end(), ..Applied::default() })
    }

    fn redrive(&mut self, stream: &str, rows: usize) -> Result<Redriven, Failure> {
        self.attempts += 1;
        let is_its = |parked: &Parked| identity(&parked.record).0 == stream;
        if self.refused.contains(stream) {
            return Err(Failure::Refused(refusal(None)));
        }
        let mut done = Vec::new();
        self.parked.retain(|parked| {
            let takes = is_its(parked) && done.len() < rows;
            if takes {
                done.push(identity(&parked.record).1);
            }
            !takes
        });
        self.rows.entry(stream.to_owned()).or_default().extend(&done);
        let has_more = self.parked.iter().any(is_its);
        Ok(Redriven { events: done.len() as u64, has_more })
    }

    /// Carries out what the machine wants until it waits.
    fn run(&mut self, machine: &mut Projector, now: i64, input: Input) -> Option<Action> {
        let mut action = machine.step(at(now), input);
        loop {
            action = match action {
                Some(Action::Apply { batch }) => {
                    let outcome = self.apply(&batch);
                    drop(batch);
                    machine.step(at(now), Input::Applied(outcome))
                }
                Some(Action::Redrive { stream, rows, .. }) => {
                    let outcome = self.redrive(&stream, rows);
                    machine.step(at(now), Input::Redriven(outcome))
                }
                Some(Action::Commit { .. }) => machine.step(at(now), Input::Committed(Ok(()))),
                other => return other,
            };
        }
    }
}

fn refusal(suspect: Option<i64>) -> Refusal {
    Refusal { cause: Cause::StoreRefused, reason: "too large".to_owned(), suspect }
}

fn event(offset: i64, stream: &str, sequence: u64) -> Record {
    let key = Some(event_key(stream, sequence).into());
    Record { offset, key, value: Some(Box::from([])), ..Record::default() }
}

/// A machine with large batches that reads from offset 10 on.
fn machine(rows: usize) -> Projector {
    let limits = Limits { rows, ..LIMITS };
    Projector { parking: Parking::new(rows, limits.parked_streams), limits, ..ready() }
}

/// A thousand events of a hundred streams, one after the other.
fn offer_a_thousand(machine: &mut Projector) {
    for index in 0..1_000_u64 {
        let (stream, sequence) = (format!("s{}", index % 100), index / 100 + 1);
        machine.offer(at(0), event(10 + index.cast_signed(), &stream, sequence));
    }
}

#[test]
fn one_stream_is_parked_and_the_others_go_on() {
    for tells in [false, true] {
        let mut machine = machine(1_000);
        let mut store =
            Store { refused: BTreeSet::from(["s33", "s71"]), tells, ..Store::default() };
        offer_a_thousand(&mut machine);
        assert_eq!(store.run(&mut machine, 500, Input::Tick), None);
        assert_eq!((machine.state(), machine.error()), (State::Ready, None));
        assert_eq!(machine.place(), place(0, 1_010));
        assert_eq!(store.rows.len(), 98);
        assert!(store.rows.values().all(|sequences| sequences.iter().copied().eq(1..=10)));
        // The first of each was tried, the others stand behind it untried.
        let of = |name: &str| -> Vec<&Parked> {
            store.parked.iter().filter(|one| identity(&one.record).0 == name).collect()
        };
        for name in ["s33", "s71"] {
            let parked = of(name);
            assert!(parked.iter().map(|one| identity(&one.record).1).eq(1..=10));
            let (first, rest) = parked.split_first().unwrap();
            assert_eq!((first.cause, first.error.as_str()), (Cause::StoreRefused, "too large"));
            assert!(first.attempts > 0);
            assert!(rest.iter().all(|one| one.cause == Cause::BehindParked && one.attempts == 0));
        }
        let most = if tells { 12 } else { 50 };
        assert!(store.attempts <= most, "{} attempts", store.attempts);
        assert!(store.tried < 5_000, "{} events tried", store.tried);
    }
}

#[test]
fn what_goes_away_by_itself_is_not_parked() {
    let mut machine = machine(4);
    for offset in 10..14 {
        machine.offer(at(0), event(offset, "a", 1));
    }
    let first = machine.step(at(0), Input::Tick);
    assert_eq!(offsets(first), [10, 11, 12, 13]);
    let refused = Input::Applied(Err(Failure::Refused(refusal(None))));
    assert_eq!(offsets(machine.step(at(0), refused)), [10, 11]);
    assert_eq!(offsets(machine.step(at(0), applied(12))), [12]);
    assert_eq!(offsets(machine.step(at(0), applied(13))), [13]);
    assert_eq!(machine.step(at(0), applied(14)), None);
    assert_eq!(machine.parking.len(), 0);
}

#[test]
fn undecodable_bytes_park_their_stream_without_a_search() {
    let mut machine = machine(4);
    for (offset, stream) in [(10, "a"), (11, "b"), (12, "c"), (13, "b")] {
        machine.offer(at(0), event(offset, stream, 1));
    }
    machine.step(at(0), Input::Tick);
    let obstacle = Some(Obstacle::Undecodable { offset: 11, reason: "short".to_owned() });
    let partly = Applied { next_offset: 11, obstacle, ..Applied::default() };
    let Some(Action::Apply { batch }) = machine.step(at(0), Input::Applied(Ok(partly))) else {
        panic!("no batch")
    };
    assert_eq!(batch.records.iter().map(|record| record.offset).collect::<Vec<_>>(), [12]);
    let causes: Vec<Cause> = batch.parked.iter().map(|parked| parked.cause).collect();
    assert_eq!(causes, [Cause::Undecodable, Cause::BehindParked]);
    assert_eq!(batch.end(), 14);
}

#[test]
fn more_parked_streams_than_may_be_hold_the_partition_until_some_are_back() {
    let mut machine = machine(8);
    let mut store = Store { refused: BTreeSet::from(["a", "b", "c"]), ..Store::default() };
    for (offset, stream) in (10..).zip(["a", "b", "c", "d"]) {
        machine.offer(at(0), event(offset, stream, 1));
    }
    assert_eq!(store.run(&mut machine, 500, Input::Tick), None);
    assert_eq!((machine.state(), store.parked.len()), (State::BackingOff, 2));
    assert!(machine.error().unwrap().contains("2 streams are parked"));
    assert!(store.rows.is_empty());

    // Somebody mends one and asks for it: there is room again.
    store.refused.remove("a");
    store.run(&mut machine, 600, Input::Redrive(vec!["a".to_owned()]));
    assert_eq!(store.run(&mut machine, 50_000, Input::Tick), None);
    assert_eq!((machine.state(), machine.error()), (State::Ready, None));
    let parked: Vec<String> = store.parked.iter().map(|one| identity(&one.record).0).collect();
    assert_eq!(parked, ["b", "c"]);
    assert_eq!(store.rows.keys().collect::<Vec<_>>(), ["a", "d"]);
}

#[test]
fn a_stream_that_is_back_goes_on_in_order() {
    let mut machine = machine(4);
    let mut store = Store { refused: BTreeSet::from(["a"]), ..Store::default() };
    for sequence in 1..=600_u16 {
        machine.offer(at(0), event(9 + i64::from(sequence), "a", sequence.into()));
    }
    store.run(&mut machine, 500, Input::Tick);
    store.run(&mut machine, 1_500, Input::Tick);
    assert_eq!(store.parked.len(), 600);
    store.refused.clear();
    machine.offer(at(1_600), event(700, "a", 601));
    store.run(&mut machine, 1_600, Input::Redrive(vec!["a".to_owned(), "z".to_owned()]));
    store.run(&mut machine, 9_000, Input::Tick);
    assert!(store.parked.is_empty());
    assert!(store.rows["a"].iter().copied().eq(1..=601));
}

#[test]
fn what_is_still_refused_stays_and_why_is_written_down() {
    let mut machine = machine(4);
    let mut store = Store { refused: BTreeSet::from(["a"]), ..Store::default() };
    machine.offer(at(0), event(10, "a", 1));
    machine.offer(at(0), event(11, "a", 2));
    store.run(&mut machine, 500, Input::Tick);
    let keep = store.run(&mut machine, 600, Input::Redrive(vec!["a".to_owned()]));
    let expected = Action::Keep { stream: "a".to_owned(), refusal: refusal(None) };
    assert_eq!(keep, Some(expected));
    assert_eq!(store.run(&mut machine, 700, Input::Kept(Ok(()))), None);
    assert_eq!((machine.state(), machine.parking.len()), (State::Ready, 1));
}

#[test]
fn a_new_owner_knows_what_is_parked() {
    let mut machine = Projector::new(LIMITS);
    machine.step(at(0), Input::Tick);
    let Input::PositionRead(Ok(mut read)) = position(place(0, 12), place(0, 12)) else {
        panic!("not a position")
    };
    // A store that parks before it moves on may have parked what will be read again.
    let parked = BTreeMap::from([("a".to_owned(), 10), ("b".to_owned(), 14)]);
    read.held = Held { topic_id: Some(TOPIC), parked, ..read.held };
    machine.step(at(0), Input::PositionRead(Ok(read)));
    machine.step(at(0), Input::Sought(Ok(())));
    machine.offer(at(0), event(12, "a", 2));
    machine.offer(at(0), event(13, "b", 1));
    machine.offer(at(0), event(14, "b", 2));
    let Some(Action::Apply { batch }) = machine.step(at(500), Input::Tick) else {
        panic!("no batch")
    };
    assert_eq!(batch.records, [event(13, "b", 1)]);
    let parked: Vec<i64> = batch.parked.iter().map(|parked| parked.record.offset).collect();
    assert_eq!(parked, [12, 14]);
}

#[test]
fn a_replay_tries_again_what_it_will_read_again() {
    let mut machine = Projector::new(LIMITS);
    machine.step(at(0), Input::Tick);
    let Input::PositionRead(Ok(mut read)) = position(place(0, 30), place(0, 30)) else {
        panic!("not a position")
    };
    read.committed = Some(Committed { offset: 15, metadata: String::new() });
    read.held.parked = BTreeMap::from([("a".to_owned(), 10), ("b".to_owned(), 15)]);
    let reset = machine.step(at(0), Input::PositionRead(Ok(read)));
    assert!(matches!(reset, Some(Action::ResetCheckpoint { .. })), "{reset:?}");
    assert!(machine.parking.contains("a") && !machine.parking.contains("b"));
}

#[test]
fn a_batch_that_is_tried_again_keeps_what_it_puts_aside() {
    let mut machine = machine(4);
    let mut store = Store { refused: BTreeSet::from(["a"]), ..Store::default() };
    machine.offer(at(0), event(10, "a", 1));
    store.refused.clear();
    // Refused once, alone: it goes into the next batch as parked.
    machine.step(at(500), Input::Tick);
    let refused = Input::Applied(Err(Failure::Refused(refusal(None))));
    let Some(Action::Apply { batch }) = machine.step(at(500), refused) else { panic!("no batch") };
    assert_eq!(batch.parked.len(), 1);
    drop(batch);
    let lost = Input::Applied(Err(Failure::Transient("gone".to_owned())));
    assert_eq!(machine.step(at(500), lost), None);
    assert_eq!(machine.step(at(50_000), Input::Tick), Some(Action::ReadPosition));
    let again = machine.step(at(50_000), position(place(0, 10), place(0, 10)));
    let Some(Action::Apply { batch }) = again else { panic!("{again:?}") };
    assert_eq!(batch.parked[0].cause, Cause::StoreRefused);
    assert!(machine.parking.contains("a"));
    machine.step(at(50_000), applied(11));
    machine.offer(at(50_000), event(11, "a", 2));
    let Some(Action::Apply { batch }) = machine.step(at(50_400), Input::Tick) else {
        panic!("no batch")
    };
    assert_eq!((batch.records.len(), batch.parked[0].cause), (0, Cause::BehindParked));
}
