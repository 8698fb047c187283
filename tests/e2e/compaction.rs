//! Compaction of the event store: it removes exact repeats and nothing else, and what is left
//! restores to the same state.

use std::collections::BTreeMap;
use std::time::Duration;

use uuid::Uuid;

use crate::harness::await_some;
use crate::harness::commands::{command_with_id, create, deposit, new_id};
use crate::harness::judge;
use crate::harness::kafka::{Message, Place, Producer, Record, read_all};
use crate::harness::log::Answers;
use crate::harness::namespace::Namespace;
use crate::harness::serve::Serve;

/// Accounts with many events.
const BUSY: usize = 40;
/// Deposits for each of them, in each part of the log.
const DEPOSITS: usize = 25;
/// Parts of the log; each begins with accounts that have one event only.
const PARTS: usize = 4;
/// Accounts with one event, in each part. Their repeats prove that the cleaner was there.
const QUIET: usize = 10;
/// The cleaner looks about once a second, and the active segment must have rolled.
const CLEANED_WITHIN: Duration = Duration::from_secs(90);

/// Sends commands and waits for their answers; gives their ids.
fn done(
    namespace: &Namespace,
    producer: &Producer,
    answers: &mut Answers<'_>,
    commands: &[(String, serde_json::Value)],
) -> Vec<Uuid> {
    let ids: Vec<Uuid> = commands.iter().map(|_| new_id()).collect();
    let messages: Vec<Message> =
        ids.iter().zip(commands).map(|(id, (key, body))| command_with_id(key, *id, body)).collect();
    producer.send(&namespace.topic("commands"), &messages);
    answers.await_count(&ids, 1);
    for id in &ids {
        assert!(answers.all(*id)[0].is_accepted());
    }
    ids
}

/// What an event is, wherever it stands.
fn content(records: &[Record]) -> BTreeMap<Vec<u8>, Record> {
    let nowhere = Place { partition: 0, offset: 0 };
    let one = |record: &Record| {
        let place = Place { partition: record.place.partition, ..nowhere };
        (record.key.clone().unwrap(), Record { place, ..record.clone() })
    };
    records.iter().map(one).collect()
}

#[test]
fn compaction_loses_no_event_and_changes_no_decision() {
    let namespace = Namespace::new();
    let topic = namespace.topic("events");
    let settings = "segment.bytes=1048576,segment.ms=500,min.cleanable.dirty.ratio=0.01,\
                    max.compaction.lag.ms=1000,delete.retention.ms=0";
    let entity = ["configs", "--alter", "--entity-type", "topics", "--entity-name", &topic];
    namespace.kafka_tool(&[&entity[..], &["--add-config", settings]].concat());
    let producer = Producer::new(&namespace.stack);
    let mut answers = Answers::new(&namespace);
    let handler = Serve::ready(&namespace, "handler,reactor");
    for part in 0..PARTS {
        let quiet = (0..QUIET).map(|n| format!("quiet-{part}-{n}"));
        let busy = (0..BUSY).filter(|_| part == 0).map(|n| format!("busy-{n}"));
        let opened: Vec<_> =
            quiet.chain(busy).map(|id| (id.clone(), create(&id, "CHECKING", "100"))).collect();
        done(&namespace, &producer, &mut answers, &opened);
        let paid: Vec<_> =
            (0..BUSY * DEPOSITS).map(|n| (format!("busy-{}", n % BUSY), deposit("1"))).collect();
        done(&namespace, &producer, &mut answers, &paid);
    }
    let before = read_all(&namespace, &topic);
    assert_eq!(before.len(), PARTS * (QUIET + BUSY * DEPOSITS) + BUSY);

    // What a producer does that was not told that its record had arrived: the same once more.
    let is_quiet = |record: &&Record| record.key.as_deref().unwrap().starts_with(b"quiet");
    let quiet: Vec<&Record> = before.iter().filter(is_quiet).collect();
    let repeats: Vec<Message> = quiet.iter().map(|record| again(record)).collect();
    producer.send(&topic, &repeats);
    let last = quiet.iter().map(|record| record.place).collect::<Vec<_>>();
    let mut extra = 0;
    await_some("the cleaner", CLEANED_WITHIN, || {
        // A write after segment.ms rolls the active segment, which the cleaner never touches.
        let nudge: Vec<_> = (0..4).map(|n| (format!("busy-{n}"), deposit("1"))).collect();
        extra += done(&namespace, &producer, &mut answers, &nudge).len();
        let left: Vec<_> = read_all(&namespace, &topic).iter().map(|one| one.place).collect();
        let stale = last.iter().filter(|place| left.contains(place)).count();
        if stale == 0 { Ok(()) } else { Err(format!("{stale} repeated events still stand")) }
    });
    let after = read_all(&namespace, &topic);
    assert_eq!(after.len(), before.len() + extra, "every event once");
    let (kept, found) = (content(&before), content(&after));
    for (key, record) in &kept {
        assert_eq!(found.get(key), Some(record), "an event is gone or changed");
    }
    handler.terminate();

    // A new life on the compacted log decides as the old one would have.
    let serve = Serve::ready(&namespace, "");
    let one_more: Vec<_> = (0..BUSY)
        .map(|n| format!("busy-{n}"))
        .chain((0..PARTS).map(|part| format!("quiet-{part}-0")))
        .map(|id| (id, deposit("0.01")))
        .collect();
    let versions: BTreeMap<String, u64> = one_more
        .iter()
        .map(|(id, _)| {
            let prefix = [id.as_bytes(), &[0]].concat();
            let own = found.keys().filter(|key| key.starts_with(&prefix)).count();
            (id.clone(), own as u64)
        })
        .collect();
    let ids = done(&namespace, &producer, &mut answers, &one_more);
    for (id, (account, _)) in ids.iter().zip(&one_more) {
        let version = answers.all(*id)[0].fields["version"].as_u64();
        assert_eq!(version, Some(versions[account] + 1), "{account} goes on where it stood");
    }
    let all = judge::log_is_sound(&namespace);
    judge::results_match_log(&answers.into_all(), &all);
    judge::read_models_equal_log(&namespace, &all);
    serve.terminate();
}

fn again(record: &Record) -> Message {
    Message {
        key: record.key.clone(),
        value: record.value.clone(),
        headers: record
            .headers
            .iter()
            .map(|(name, value)| (name.clone(), value.clone().unwrap_or_default()))
            .collect(),
        partition: Some(record.place.partition),
    }
}
