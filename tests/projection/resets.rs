//! Every way in which Kafka's own tool, or another client, moves a projection's group: started
//! again, the rows are those of a rebuild.

use chrono::DateTime;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::{Offset, TopicPartitionList};

use crate::bank::Bank;
use crate::stack::{PARTITIONS, Stack};
use crate::{dump, project_all};

const STORES: [&str; 2] = ["postgres", "clickhouse"];

/// Moves both groups on the accounts' topic, or on some of its partitions.
fn reset(stack: &Stack, partitions: &str, where_to: &[&str]) {
    let topic = format!("{}{partitions}", stack.topic);
    let [postgres, clickhouse] = STORES.map(|store| stack.group(store));
    let groups = ["--group", &postgres, "--group", &clickhouse, "--topic", &topic];
    let reset = ["--reset-offsets", "--execute"];
    stack.groups_tool(&[&reset[..], &groups, where_to].concat());
}

/// The time at which the middle of a partition's log was written, as the tool takes it.
fn middle_of(stack: &Stack) -> String {
    let records = stack.read(0, 0);
    let middle = records[records.len() / 2].timestamp_ms;
    let time = DateTime::from_timestamp_millis(middle).unwrap();
    time.format("%Y-%m-%dT%H:%M:%S%.3f").to_string()
}

/// What any other client does that knows nothing of ours: offsets with nothing beside them.
fn commit_as_another_client(stack: &Stack, offset: i64) {
    for store in STORES {
        let consumer: BaseConsumer = ClientConfig::new()
            .set("bootstrap.servers", &stack.config.kafka.brokers)
            .set("group.id", stack.group(store))
            .create()
            .unwrap();
        let mut offsets = TopicPartitionList::new();
        for partition in 0..PARTITIONS {
            let to = Offset::Offset(offset);
            offsets.add_partition_offset(&stack.topic, partition, to).unwrap();
        }
        consumer.commit(&offsets, CommitMode::Sync).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_form_of_a_reset_ends_in_the_rows_of_a_rebuild() {
    let stack = Stack::new("forms").await;
    let mut bank = Bank::new(&stack, 51);
    bank.work(300, 20);
    bank.work_in_vain(10, 20);
    bank.work(100, 20);
    project_all(&stack, &bank.log).await;
    let before = dump(&stack).await;
    let middle = middle_of(&stack);
    let file = std::env::temp_dir().join(format!("{}.csv", stack.topic));
    let lines: Vec<String> = STORES
        .iter()
        .flat_map(|store| (0..PARTITIONS).map(move |partition| (store, partition)))
        .map(|(store, partition)| {
            format!("{},{},{partition},{}", stack.group(store), stack.topic, 11 + partition)
        })
        .collect();
    std::fs::write(&file, lines.join("\n") + "\n").unwrap();
    let forms: [(&str, &[&str]); 8] = [
        ("", &["--to-datetime", &middle]),
        ("", &["--by-duration", "PT1H"]),
        ("", &["--by-duration", "PT0S"]),
        ("", &["--shift-by", "7"]),
        ("", &["--from-file", file.to_str().unwrap()]),
        (":1", &["--to-earliest"]),
        (":0", &["--shift-by", "-20"]),
        (":0,1", &["--to-offset", "9"]),
    ];
    for (partitions, form) in forms {
        reset(&stack, partitions, form);
        project_all(&stack, &bank.log).await;
        assert_eq!(dump(&stack).await, before, "{partitions} {form:?}");
    }
    std::fs::remove_file(&file).unwrap();

    for offset in [0, 17] {
        commit_as_another_client(&stack, offset);
        project_all(&stack, &bank.log).await;
        assert_eq!(dump(&stack).await, before, "another client's commit of {offset}");
    }
    for store in STORES {
        let group = stack.group(store);
        stack.groups_tool(&["--delete-offsets", "--group", &group, "--topic", &stack.topic]);
    }
    project_all(&stack, &bank.log).await;
    assert_eq!(dump(&stack).await, before, "deleted offsets");
    for store in STORES {
        stack.groups_tool(&["--delete", "--group", &stack.group(store)]);
    }
    // And what has come since is not skipped.
    bank.work(50, 20);
    project_all(&stack, &bank.log).await;
    stack.clean().await;
}
