//! A stream that was parked, and a replay that takes it off the list long before it comes to it.

use std::collections::BTreeMap;

use crate::bank::Bank;
use crate::stack::Stack;
use crate::{audit_all, project_all};

/// A stream with several events, all of them in front of the last of its partition.
fn early_stream(bank: &Bank) -> (String, i32) {
    let mut of: BTreeMap<&str, (i32, u64)> = BTreeMap::new();
    let early = bank.log.len() / 2;
    for written in &bank.log[..early] {
        let found = of.entry(&written.account_id).or_insert((written.partition, 0));
        found.1 += 1;
    }
    let is_over = |id: &str| bank.log[early..].iter().all(|written| written.account_id != id);
    let is_before =
        |partition: i32| bank.log[early..].iter().any(|written| written.partition == partition);
    let found = of
        .iter()
        .find(|(id, (partition, count))| *count >= 3 && is_over(id) && is_before(*partition));
    let (id, (partition, _)) = found.expect("a stream that ends early");
    ((*id).to_owned(), *partition)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_parked_stream_is_not_missing_while_a_replay_comes_to_it() {
    let stack = Stack::new("replays").await;
    let mut bank = Bank::new(&stack, 41);
    bank.work(300, 60);
    project_all(&stack).await;
    assert!(audit_all(&stack).await.is_clean());
    let events = stack.events();
    let run = async |statement: String| {
        let query = events.client().query_raw(&statement).with_setting("mutations_sync", "2");
        query.execute().await.unwrap_or_else(|error| panic!("{statement}: {error}"));
    };
    let (rows, list) =
        (format!("{}.banking_event_g1", events.name()), format!("{}.failed_event", events.name()));
    let (id, partition) = early_stream(&bank);
    let of_stream = format!("aggregate = 'account' AND aggregate_id = '{id}' AND sequence >= 2");

    // It is parked from its second event on, in the first epoch: its rows are not there.
    run(format!(
        "INSERT INTO {list} (projection, generation, topic, partition, kafka_offset, topic_id,
             epoch, stream, position, revision, is_gone)
         SELECT 'clickhouse.banking', 1, '{}', kafka_partition, kafka_offset, topic_id,
             epoch, aggregate_id, sequence, epoch * 5 + 2, 0
         FROM {rows} FINAL WHERE {of_stream}",
        stack.topic
    ))
    .await;
    run(format!("ALTER TABLE {rows} DELETE WHERE {of_stream}")).await;
    let parked = audit_all(&stack).await;
    assert!(parked.is_clean(), "{:#?}", parked.differences);
    assert_eq!(parked.parked.len(), 1, "{:?}", parked.parked);

    // A replay begins, and takes off the list what it will read again.
    run(format!(
        "INSERT INTO {list} (projection, generation, topic, partition, kafka_offset, topic_id,
             stream, position, revision, is_gone)
         SELECT projection, generation, topic, partition, kafka_offset, topic_id,
             stream, position, (epoch + 1) * 5, 1
         FROM {list} FINAL"
    ))
    .await;
    let replaying = audit_all(&stack).await;
    assert!(replaying.is_clean(), "{:#?}", replaying.differences);
    assert_eq!(replaying.parked, parked.parked);

    // It has passed it, and neither made its rows nor parked it again: now they are missing.
    run(format!(
        "INSERT INTO {rows} SELECT * REPLACE(epoch + 1 AS epoch) FROM {rows} FINAL
         WHERE aggregate = 'account' AND kafka_partition = {partition}
         ORDER BY kafka_offset DESC LIMIT 1"
    ))
    .await;
    let passed = audit_all(&stack).await;
    assert!(!passed.differences.is_empty(), "its rows are missing");
    let stream = format!("banking.account/{id}");
    let is_its =
        |one: &millrace::audit::Difference| one.stream == stream && one.store == "clickhouse";
    assert!(passed.differences.iter().all(is_its), "{:#?}", passed.differences);
    stack.clean().await;
}
