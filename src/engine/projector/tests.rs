//! The loop of one partition, case by case.

use uuid::Uuid;

use super::*;
use crate::engine::reset_protocol::Committed;
use crate::kernel::projection::{Held, Obstacle};

pub(super) const LIMITS: Limits = Limits {
    rows: 3,
    bytes: 1_000_000,
    linger_us: 400,
    commit_every_us: 1_000,
    retry: Retry { first_us: 1_000, longest_us: 10_000, seed: 7 },
    parked_streams: 2,
};

pub(super) const TOPIC: Uuid = Uuid::from_u128(7);

pub(super) fn at(moment: i64) -> Timestamp {
    Timestamp(moment)
}

pub(super) fn record(offset: i64) -> Record {
    Record { offset, timestamp_ms: offset, ..Record::default() }
}

pub(super) fn place(epoch: u32, next_offset: i64) -> Place {
    Place { epoch, epoch_start: 0, next_offset }
}

fn metadata(place: Place) -> String {
    CommitMetadata { cluster_id: "cluster".to_owned(), place }.encode()
}

/// The store holds `held`; Kafka has our commit of `committed`.
pub(super) fn position(held: Place, committed: Place) -> Input {
    let metadata = metadata(committed);
    Input::PositionRead(Ok(Box::new(Position {
        cluster_id: "cluster".to_owned(),
        topic_id: TOPIC,
        log_start: 0,
        log_end: 1_000,
        committed: Some(Committed { offset: committed.next_offset, metadata }),
        held: Held { place: Some(held), topic_id: Some(TOPIC), ..Held::default() },
    })))
}

/// A machine that reads from offset 10 on.
pub(super) fn ready() -> Projector {
    let mut machine = Projector::new(LIMITS);
    assert_eq!(machine.step(at(0), Input::Tick), Some(Action::ReadPosition));
    let seek = machine.step(at(0), position(place(0, 10), place(0, 10)));
    assert_eq!(seek, Some(Action::Seek { offset: 10 }));
    assert_eq!(machine.step(at(0), Input::Sought(Ok(()))), None);
    assert_eq!(machine.state(), State::Ready);
    machine
}

pub(super) fn offer(machine: &mut Projector, now: i64, offsets: impl IntoIterator<Item = i64>) {
    for offset in offsets {
        machine.offer(at(now), record(offset));
    }
}

pub(super) fn offsets(action: Option<Action>) -> Vec<i64> {
    match action {
        Some(Action::Apply { batch }) => batch.records.iter().map(|found| found.offset).collect(),
        other => panic!("{other:?} is no batch"),
    }
}

pub(super) fn applied(next_offset: i64) -> Input {
    Input::Applied(Ok(Applied { next_offset, ..Applied::default() }))
}

#[test]
fn a_first_start_writes_the_place_and_stamps_it_before_anything_is_read() {
    let mut machine = Projector::new(LIMITS);
    machine.step(at(0), Input::Tick);
    let mut nothing = Position {
        cluster_id: "cluster".to_owned(),
        topic_id: TOPIC,
        log_start: 5,
        log_end: 9,
        committed: None,
        held: Held::default(),
    };
    let start = Place { epoch: 0, epoch_start: 5, next_offset: 5 };
    let reset = machine.step(at(0), Input::PositionRead(Ok(Box::new(nothing.clone()))));
    let expected = Action::ResetCheckpoint { expected: None, place: start, clear: true };
    assert_eq!(reset, Some(expected));
    let stamp = machine.step(at(0), Input::CheckpointReset(Ok(true)));
    assert_eq!(stamp, Some(Action::Commit { offset: 5, metadata: metadata(start) }));
    let seek = machine.step(at(0), Input::Committed(Ok(())));
    assert_eq!(seek, Some(Action::Seek { offset: 5 }));

    // Somebody else was faster: read it all again.
    let mut second = Projector::new(LIMITS);
    second.step(at(0), Input::Tick);
    nothing.log_start = 5;
    second.step(at(0), Input::PositionRead(Ok(Box::new(nothing))));
    assert_eq!(second.step(at(0), Input::CheckpointReset(Ok(false))), None);
    assert_eq!(second.step(at(20_000), Input::Tick), Some(Action::ReadPosition));
}

#[test]
fn a_batch_waits_for_company_but_not_for_ever() {
    let mut machine = ready();
    offer(&mut machine, 100, [10, 11]);
    assert_eq!(machine.step(at(200), Input::Tick), None);
    assert_eq!(machine.deadline(), Some(at(500)));
    assert_eq!(offsets(machine.step(at(500), Input::Tick)), [10, 11]);
    // While it is applied, nothing else is begun.
    offer(&mut machine, 600, 12..20);
    assert_eq!(machine.step(at(600), Input::Tick), None);
    // What is full goes at once.
    assert_eq!(offsets(machine.step(at(700), applied(12))), [12, 13, 14]);
    assert_eq!(machine.place(), place(0, 12));
}

#[test]
fn the_last_batch_of_all_that_has_come_knows_it() {
    let followed = |action| match action {
        Some(Action::Apply { batch }) => batch.has_followers,
        other => panic!("{other:?} is no batch"),
    };
    let mut machine = ready();
    offer(&mut machine, 0, 10..14);
    assert!(followed(machine.step(at(0), Input::Tick)));
    assert!(!followed(machine.step(at(9_000), applied(13))));
}

#[test]
fn bytes_end_a_batch_too_and_one_record_always_fits() {
    let limits = Limits { bytes: 1_000, rows: 100, ..LIMITS };
    let mut machine = Projector { limits, ..ready() };
    let large = |offset| Record { value: Some(vec![0; 2_000].into()), ..record(offset) };
    machine.offer(at(0), large(10));
    machine.offer(at(0), large(11));
    assert!(machine.is_full());
    assert_eq!(offsets(machine.step(at(0), Input::Tick)), [10]);
    assert_eq!(offsets(machine.step(at(0), applied(11))), [11]);
    assert_eq!(machine.step(at(0), applied(12)), None);
    assert!(!machine.is_full());
}

#[test]
fn what_is_applied_is_committed_after_a_while() {
    let mut machine = ready();
    offer(&mut machine, 0, 10..13);
    machine.step(at(0), Input::Tick);
    assert_eq!(machine.step(at(50), applied(13)), None);
    assert_eq!(machine.deadline(), Some(at(1_050)));
    let commit = machine.step(at(1_050), Input::Tick);
    let expected = Action::Commit { offset: 13, metadata: metadata(place(0, 13)) };
    assert_eq!(commit, Some(expected));
    // A commit that fails is tried again; the work goes on, since the store knows the place.
    offer(&mut machine, 1_060, 13..16);
    let next = machine.step(at(1_100), Input::Committed(Err("rebalancing".to_owned())));
    assert_eq!(offsets(next), [13, 14, 15]);
    machine.step(at(1_200), applied(16));
    let again = machine.step(at(1_001_200), Input::Tick);
    let expected = Action::Commit { offset: 16, metadata: metadata(place(0, 16)) };
    assert_eq!(again, Some(expected));
}

#[test]
fn after_a_failure_the_store_is_asked_and_the_same_batch_tried_again() {
    let mut machine = ready();
    offer(&mut machine, 0, 10..13);
    machine.step(at(0), Input::Tick);
    offer(&mut machine, 0, 13..15);
    let failed = Failure::Transient("gone".to_owned());
    assert_eq!(machine.step(at(0), Input::Applied(Err(failed))), None);
    assert_eq!(machine.state(), State::BackingOff);
    assert_eq!(machine.error(), Some("gone"));
    assert_eq!(machine.step(at(100), Input::Tick), None);
    assert_eq!(machine.step(at(1_000), Input::Tick), Some(Action::ReadPosition));
    // It was not applied: the batch is still in memory, and the reader is behind it.
    let again = machine.step(at(1_000), position(place(0, 10), place(0, 10)));
    assert_eq!(offsets(again), [10, 11, 12]);
    assert_eq!(offsets(machine.step(at(1_000), applied(13))), [13, 14]);
    assert_eq!(machine.error(), None);
}

#[test]
fn after_an_unknown_outcome_that_was_a_success_the_reader_goes_to_the_stores_place() {
    let mut machine = ready();
    offer(&mut machine, 0, 10..13);
    machine.step(at(0), Input::Tick);
    machine.step(at(0), Input::Applied(Err(Failure::Transient("timeout".to_owned()))));
    machine.step(at(1_000), Input::Tick);
    let stamp = machine.step(at(1_000), position(place(0, 13), place(0, 10)));
    let expected = Action::Commit { offset: 13, metadata: metadata(place(0, 13)) };
    assert_eq!(stamp, Some(expected));
    let seek = machine.step(at(1_000), Input::Committed(Ok(())));
    assert_eq!(seek, Some(Action::Seek { offset: 13 }));
    // What was read before the seek is not taken.
    offer(&mut machine, 1_000, [13]);
    machine.step(at(1_000), Input::Sought(Ok(())));
    assert_eq!(machine.step(at(9_000), Input::Tick), None);
}

#[test]
fn another_owners_work_is_a_conflict_and_then_a_seek() {
    let mut machine = ready();
    offer(&mut machine, 0, 10..13);
    machine.step(at(0), Input::Tick);
    machine.step(at(0), Input::Applied(Err(Failure::Conflict)));
    machine.step(at(1_000), Input::Tick);
    let seek = machine.step(at(1_000), position(place(1, 4), place(1, 4)));
    assert_eq!(seek, Some(Action::Seek { offset: 4 }));
}

#[test]
fn an_unknown_schema_holds_the_partition_behind_what_could_be_applied() {
    let mut machine = ready();
    offer(&mut machine, 0, 10..13);
    machine.step(at(0), Input::Tick);
    let obstacle = Some(Obstacle::UnknownSchema { offset: 11, schema_id: 77 });
    let partly = Applied { next_offset: 11, obstacle, ..Applied::default() };
    assert_eq!(machine.step(at(0), Input::Applied(Ok(partly))), None);
    assert_eq!(machine.place(), place(0, 11));
    assert!(machine.error().unwrap().contains("77"));
    assert_eq!(offsets(machine.step(at(1_000), Input::Tick)), [11, 12]);
}

#[test]
fn what_was_left_over_without_an_obstacle_goes_next() {
    let mut machine = ready();
    offer(&mut machine, 0, 10..13);
    machine.step(at(0), Input::Tick);
    assert_eq!(offsets(machine.step(at(0), applied(11))), [11, 12]);
}

#[test]
fn a_reader_that_stands_still_is_put_where_the_store_stands() {
    let lost = || Input::Lost("unknown topic".to_owned());
    let mut machine = ready();
    offer(&mut machine, 0, 10..13);
    machine.step(at(0), Input::Tick);
    // The batch in hand ends first.
    assert_eq!(machine.step(at(0), lost()), None);
    assert_eq!(machine.step(at(0), applied(13)), None);
    assert_eq!((machine.state(), machine.error()), (State::BackingOff, Some("unknown topic")));
    assert_eq!(machine.step(at(1_000), Input::Tick), Some(Action::ReadPosition));
    let seek = machine.step(at(1_000), position(place(0, 13), place(0, 13)));
    assert_eq!(seek, Some(Action::Seek { offset: 13 }));
    machine.step(at(1_000), Input::Sought(Ok(())));
    assert_eq!((machine.state(), machine.error()), (State::Ready, None));

    // The same offset, but another topic: that is not for a machine to decide.
    assert_eq!(machine.step(at(2_000), lost()), None);
    machine.step(at(3_000), Input::Tick);
    let Input::PositionRead(Ok(mut other)) = position(place(0, 13), place(0, 13)) else {
        panic!("not a position")
    };
    other.topic_id = Uuid::from_u128(8);
    assert_eq!(machine.step(at(3_000), Input::PositionRead(Ok(other))), Some(Action::Stop));
    assert_eq!(machine.step(at(9_000), lost()), None);
    assert_eq!(machine.state(), State::Stopped);
}

#[test]
fn a_retry_of_records_that_are_gone_reads_them_again() {
    let mut machine = ready();
    offer(&mut machine, 0, 10..13);
    machine.step(at(0), Input::Tick);
    let obstacle = Some(Obstacle::UnknownSchema { offset: 11, schema_id: 77 });
    let partly = Applied { next_offset: 11, obstacle, ..Applied::default() };
    machine.step(at(0), Input::Applied(Ok(partly)));
    machine.step(at(0), Input::Lost("unknown topic".to_owned()));
    assert_eq!(machine.step(at(1_000), Input::Tick), Some(Action::ReadPosition));
}

#[test]
fn corrupt_events_stop_the_partition() {
    let mut machine = ready();
    offer(&mut machine, 0, 10..13);
    machine.step(at(0), Input::Tick);
    let obstacle = Some(Obstacle::Undecodable { offset: 12, reason: "short".to_owned() });
    let partly = Applied { next_offset: 12, obstacle, ..Applied::default() };
    assert_eq!(machine.step(at(0), Input::Applied(Ok(partly))), Some(Action::Stop));
    assert_eq!((machine.state(), machine.place()), (State::Stopped, place(0, 12)));
    assert_eq!(machine.error(), Some("offset 12: short"));
    offer(&mut machine, 0, [12]);
    assert_eq!(machine.step(at(9_000), Input::Tick), None);
}

#[test]
fn finishing_ends_the_batch_in_hand_and_commits_it() {
    let mut machine = ready();
    offer(&mut machine, 0, 10..13);
    machine.step(at(0), Input::Tick);
    offer(&mut machine, 0, 13..20);
    assert_eq!(machine.step(at(0), Input::Finish), None);
    let commit = machine.step(at(0), applied(13));
    let expected = Action::Commit { offset: 13, metadata: metadata(place(0, 13)) };
    assert_eq!(commit, Some(expected));
    assert_eq!(machine.step(at(0), Input::Committed(Ok(()))), None);
    assert_eq!(machine.state(), State::Finished);
}

#[test]
fn finishing_waits_for_nothing_else() {
    let mut idle = ready();
    idle.step(at(0), Input::Finish);
    assert_eq!(idle.state(), State::Finished);

    let mut waiting = ready();
    offer(&mut waiting, 0, 10..13);
    waiting.step(at(0), Input::Tick);
    waiting.step(at(0), Input::Applied(Err(Failure::Transient("gone".to_owned()))));
    waiting.step(at(0), Input::Finish);
    assert_eq!(waiting.state(), State::Finished);

    let mut locating = Projector::new(LIMITS);
    locating.step(at(0), Input::Tick);
    locating.step(at(0), Input::Finish);
    assert_eq!(locating.step(at(0), position(place(0, 10), place(0, 10))), None);
    assert_eq!(locating.state(), State::Finished);
}
