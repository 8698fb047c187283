//! What the log in memory keeps of the real one.

use super::*;
use crate::kernel::message::Headers;

const NAME: AggregateName = AggregateName { domain: "d", aggregate: "a" };
const EVENTS: Place = Place { aggregate: NAME, kind: Kind::Events, partition: 0 };
const COMMANDS: Place = Place { kind: Kind::Commands, ..EVENTS };
const NOW: Timestamp = Timestamp(0);

fn event(text: &str) -> Outgoing {
    let bytes = Some(text.as_bytes().to_vec());
    Outgoing { kind: Kind::Events, key: bytes.clone(), value: bytes, headers: Headers::default() }
}

fn offset(offset: i64, metadata: &str) -> GroupOffset {
    GroupOffset { group: "g", place: COMMANDS, offset, metadata: metadata.to_owned() }
}

fn text(record: &Record) -> String {
    String::from_utf8(record.value.as_ref().unwrap().to_vec()).unwrap()
}

fn texts(log: &MemoryLog) -> Vec<String> {
    log.read(EVENTS, 0, usize::MAX).0.iter().map(text).collect()
}

#[test]
fn nothing_is_seen_behind_an_open_transaction() {
    let mut log = MemoryLog::default();
    let (a, b) = (log.init_producer("a"), log.init_producer("b"));
    log.begin("a", a).unwrap();
    log.send(("a", a), EVENTS, &event("first"), NOW).unwrap();
    log.begin("b", b).unwrap();
    log.send(("b", b), EVENTS, &event("second"), NOW).unwrap();
    log.commit("b", b).unwrap();
    assert_eq!(texts(&log), Vec::<String>::new(), "b is behind a");
    assert!(!log.has_more(EVENTS, 0));
    log.commit("a", a).unwrap();
    assert_eq!(texts(&log), ["first", "second"]);
    let order: Vec<_> = log.in_order().map(|(_, record)| text(record)).collect();
    assert_eq!(order, ["second", "first"], "b was committed first");
}

#[test]
fn a_new_producer_aborts_and_fences_the_old_one() {
    let mut log = MemoryLog::default();
    let old = log.init_producer("a");
    log.begin("a", old).unwrap();
    log.send(("a", old), EVENTS, &event("lost"), NOW).unwrap();
    log.send_offset(("a", old), offset(5, "x")).unwrap();
    assert_eq!(log.committed_offset("g", COMMANDS), Err(Refused::Pending));
    assert_eq!(log.committed_offset("other", COMMANDS), Ok(None));
    let new = log.init_producer("a");
    assert_eq!(log.send(("a", old), EVENTS, &event("late"), NOW), Err(Refused::Fenced));
    assert_eq!(log.commit("a", old), Err(Refused::Fenced));
    assert_eq!(log.committed_offset("g", COMMANDS), Ok(None));
    log.begin("a", new).unwrap();
    log.send(("a", new), EVENTS, &event("kept"), NOW).unwrap();
    log.send_offset(("a", new), offset(6, "y")).unwrap();
    log.commit("a", new).unwrap();
    assert_eq!(texts(&log), ["kept"]);
    assert_eq!(log.committed_offset("g", COMMANDS), Ok(Some((6, "y".to_owned()))));
}

#[test]
fn an_offset_whose_marker_is_lost_is_pending_until_the_producers_next_marker() {
    let mut log = MemoryLog::default();
    let epoch = log.init_producer("p");
    log.begin("p", epoch).unwrap();
    log.send_offset(("p", epoch), offset(1, "first")).unwrap();
    log.send(("p", epoch), EVENTS, &event("a"), NOW).unwrap();
    log.commit_without_offset("p", epoch).unwrap();
    assert_eq!(texts(&log), ["a"]);
    let epoch = log.init_producer("p");
    assert_eq!(log.committed_offset("g", COMMANDS), Err(Refused::Pending));
    log.begin("p", epoch).unwrap();
    log.send_offset(("p", epoch), offset(0, "")).unwrap();
    log.abort("p", epoch).unwrap();
    assert_eq!(log.committed_offset("g", COMMANDS), Ok(None));
}

#[test]
fn reading_goes_on_where_it_stopped_across_holes() {
    let mut log = MemoryLog::default();
    let epoch = log.init_producer("a");
    for text in ["1", "2", "3"] {
        log.begin("a", epoch).unwrap();
        log.send(("a", epoch), EVENTS, &event(text), NOW).unwrap();
        log.commit("a", epoch).unwrap();
    }
    let (first, next, end) = log.read(EVENTS, 0, 2);
    assert_eq!((first.len(), end), (2, false));
    let (rest, _, end) = log.read(EVENTS, next, 2);
    assert_eq!((rest.len(), rest[0].offset, end), (1, 4, true));
}

#[test]
fn compaction_keeps_the_last_record_of_each_key() {
    let mut log = MemoryLog::default();
    for (key, value) in [("a", "1"), ("b", "2"), ("a", "3")] {
        let record = Outgoing { value: Some(value.into()), ..event(key) };
        log.append(EVENTS, &record, NOW);
    }
    log.compact(EVENTS);
    assert_eq!(texts(&log), ["2", "3"]);
    assert_eq!(log.read(EVENTS, 0, 1).0[0].offset, 1);
    assert_eq!(log.end_offset(EVENTS), 3);
}

#[test]
fn a_moment_leads_to_the_first_record_that_is_not_older() {
    let mut log = MemoryLog::default();
    for seconds in [1, 2, 3] {
        log.append(EVENTS, &event("x"), Timestamp(0).plus_seconds(seconds));
    }
    assert_eq!(log.offset_at(EVENTS, Timestamp(0).plus_seconds(2)), 1);
    assert_eq!(log.offset_at(EVENTS, Timestamp(0).plus_seconds(9)), 3);
}
