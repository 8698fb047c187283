//! The position rules, and when a position is stored.

use super::*;
use crate::engine::dispatch::Target;
use crate::kernel::reactor::Dispatch;

const NAME: AggregateName = AggregateName { domain: "mill", aggregate: "wheel" };
const TOPIC_ID: Uuid = Uuid::from_u128(5);
const NOW: Timestamp = Timestamp(1_000_000_000);

/// Sends on whatever is not empty; a value of 0xff needs a schema first.
struct Echo;

impl Reactor for Echo {
    fn name(&self) -> &'static str {
        "echo"
    }

    fn inputs(&self) -> Vec<(AggregateName, Kind)> {
        vec![(NAME, Kind::Events)]
    }

    fn react(
        &self,
        aggregate: AggregateName,
        _kind: Kind,
        record: &Record,
    ) -> Result<Vec<Dispatch>, CodecError> {
        let value = record.value.as_deref().unwrap_or_default();
        match value {
            [] => Ok(Vec::new()),
            [0xff] => Err(CodecError::UnknownSchema(9)),
            _ => Ok(vec![Dispatch {
                aggregate,
                id: "a".to_owned(),
                command_id: Uuid::from_u128(1),
                body: value.to_vec(),
                reply_to: None,
                correlation_id: None,
                causation_id: None,
                metadata: Vec::new(),
            }]),
        }
    }
}

fn machine() -> Reacting {
    let target = Target { topic: "mill.wheel.commands".into(), partition_count: 1 };
    let settings = Settings {
        group: "millrace.reactor.echo".to_owned(),
        cluster_id: "c".to_owned(),
        topic: "mill.wheel.events".to_owned(),
        topic_id: TOPIC_ID,
        aggregate: NAME,
        kind: Kind::Events,
        partition: 0,
        targets: Targets::new([(NAME, target)].into()),
        key: hmac::Key::new(hmac::HMAC_SHA256, b"key"),
    };
    Reacting::new(settings, Arc::new(Echo))
}

fn begin(stored: Option<Stored>, offset: Option<(i64, &str)>) -> Action {
    let offset = offset.map(|(offset, text)| (offset, text.to_owned()));
    let committed = Committed { offset, log_start: 2, log_end: 90, events_end: 0 };
    machine().step(NOW, Input::Standing { stored, committed })
}

fn record(offset: i64, value: &[u8]) -> Record {
    Record { offset, value: Some(value.into()), ..Record::default() }
}

#[test]
fn it_begins_at_its_own_position_whatever_the_groups_offset_says() {
    let stored = Some(Stored { topic_id: TOPIC_ID, next_offset: 40 });
    for reset in [None, Some((2, "")), Some((90, "")), Some((7, "foreign"))] {
        assert_eq!(begin(stored, reset), Action::Ready { next_offset: 40 }, "{reset:?}");
    }
    let far = Some(Stored { topic_id: TOPIC_ID, next_offset: 99 });
    assert_eq!(begin(far, None), Action::Ready { next_offset: 90 });
    let deleted = Some(Stored { topic_id: TOPIC_ID, next_offset: 1 });
    assert_eq!(begin(deleted, None), Action::Ready { next_offset: 2 });
}

#[test]
fn without_one_it_takes_its_own_commit_or_the_start() {
    let own = Witness { cluster_id: "c".to_owned(), offset: 30, nonce: 0 }.to_text();
    assert_eq!(begin(None, Some((30, &own))), Action::Ready { next_offset: 30 });
    assert_eq!(begin(None, Some((31, &own))), Action::Ready { next_offset: 2 });
    assert_eq!(begin(None, Some((30, ""))), Action::Ready { next_offset: 2 });
    let other = Some(Stored { topic_id: Uuid::from_u128(6), next_offset: 40 });
    assert_eq!(begin(other, None), Action::Ready { next_offset: 2 });
}

#[test]
fn a_position_is_stored_behind_what_is_acknowledged_and_not_too_often() {
    let mut machine = machine();
    let committed = Committed::default();
    machine.step(NOW, Input::Standing { stored: None, committed });
    // At the beginning it is stored soon, so that whoever follows knows.
    let waiting = machine.step(NOW, Input::Started);
    assert!(matches!(waiting, Action::Receive { until: Some(_) }), "{waiting:?}");
    assert_eq!(machine.last_words().map(|(stored, _)| stored.next_offset), Some(0));

    let arrived = vec![record(0, b""), record(3, b"{}"), record(4, b"{}"), record(5, &[0xff])];
    let action = machine.step(NOW, Input::Arrived(arrived));
    let Action::Deliver(crossings) = action else { panic!("{action:?}") };
    assert_eq!(crossings.len(), 2, "what stands before the unknown schema goes first");
    assert_eq!(machine.last_words().map(|(stored, _)| stored.next_offset), Some(0));
    assert_eq!(machine.step(NOW, Input::Delivered), Action::LookUpSchema(9));
    let later = NOW.plus_seconds(1);
    assert_eq!(machine.last_words().map(|(stored, _)| stored.next_offset), Some(5));
    assert_eq!(machine.step(later, Input::SchemaLookedUp), Action::LookUpSchema(9));
    assert_eq!(machine.counts(), Counts { records: 3, commands: 2, next_offset: 5 });
}

#[test]
fn it_stores_when_the_time_has_come_and_rests() {
    let mut machine = machine();
    let committed = Committed::default();
    machine.step(NOW, Input::Standing { stored: None, committed });
    machine.step(NOW, Input::Started);
    let later = NOW.plus_seconds(1);
    let action = machine.step(later, Input::Woken);
    let stored = Stored { topic_id: TOPIC_ID, next_offset: 0 };
    assert!(matches!(&action, Action::Store(found, _) if *found == stored), "{action:?}");
    assert_eq!(machine.step(later, Input::Stored), Action::Receive { until: None });
    assert_eq!(machine.last_words(), None);
    let waiting = machine.step(later, Input::Arrived(vec![record(0, b"")]));
    assert!(matches!(waiting, Action::Receive { until: Some(_) }), "{waiting:?}");
    // A clock that goes back does not keep it from storing.
    let action = machine.step(NOW, Input::Woken);
    assert!(matches!(action, Action::Store(..)), "{action:?}");
}

#[test]
fn a_stored_position_reads_back() {
    let stored = Stored { topic_id: TOPIC_ID, next_offset: 7 };
    assert_eq!(Stored::from_bytes(&stored.to_bytes()), Some(stored));
    assert_eq!(Stored::from_bytes(&[2]), None);
    assert_eq!(Stored::from_bytes(&[]), None);
}
