//! Projections on the real services: rows equal a fold of the log, whatever happens in between.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::wildcard_enum_match_arm,
    clippy::disallowed_methods,
    reason = "a test stops where its expectation ends, and says what it saw"
)]

mod bank;
mod expected;
mod letters;
mod proxy;
mod resets;
mod sagas;
mod stack;

use std::sync::Arc;
use std::time::{Duration, Instant};

use bank::{Bank, Written};
use expected::{assert_clickhouse, assert_postgres};
use millrace::engine::projector::{Failure, State};
use millrace::kernel::projection::Batch;
use millrace::read_model::store::Store;
use millrace::runtime::projection::{PartitionStatus, Projection, Status};
use sagas::{Sagas, assert_events, assert_transfers};
use stack::{PARTITIONS, Stack, until};

/// Waits until a projection has applied the last event of every partition.
pub(crate) async fn at_the_end(stack: &Stack, projection: &Projection) {
    until("the projection has caught up", || async {
        let status = projection.status();
        let stopped = status.partitions.iter().find(|found| found.state == State::Stopped);
        assert!(stopped.is_none(), "{stopped:?}");
        let is_done = |found: &PartitionStatus| {
            let records = stack.read_topic(&found.topic, found.partition, 0);
            found.place.next_offset == records.last().map_or(0, |record| record.offset + 1)
                && found.state != State::Locating
        };
        status.partitions.len() == partition_count(&status.name)
            && status.partitions.iter().all(is_done)
    })
    .await;
}

/// How many partitions a projection has to itself.
fn partition_count(name: &str) -> usize {
    let topics = if name.starts_with("postgres") { 2 } else { 4 };
    topics * usize::try_from(PARTITIONS).unwrap()
}

/// Waits for the end, and checks that every event of an account has come.
async fn caught_up(stack: &Stack, projection: &Projection, log: &[Written]) {
    at_the_end(stack, projection).await;
    let events = if projection.status().name.starts_with("postgres") {
        postgres_events(stack).await
    } else {
        clickhouse_events(stack).await
    };
    assert_eq!(events, log.len());
}

/// How many events the accounts' versions add up to.
async fn postgres_events(stack: &Stack) -> usize {
    let client = stack.database().client().await.unwrap();
    let domain = stack.config.namespace.underscored("banking");
    let select = format!("SELECT coalesce(sum(version), 0)::bigint FROM {domain}.account_summary");
    let sum: i64 = client.query_one(&select, &[]).await.unwrap().get(0);
    usize::try_from(sum).unwrap()
}

async fn clickhouse_events(stack: &Stack) -> usize {
    let database = stack.events();
    let select =
        format!("SELECT count() FROM {}.event WHERE aggregate = 'account'", database.name());
    let count: u64 = database.client().query(&select).fetch_one().await.unwrap();
    usize::try_from(count).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_equal_a_fold_of_the_log() {
    let stack = Stack::new("fold").await;
    let mut bank = Bank::new(&stack, 1);
    bank.work(400, 20);
    let postgres = stack.project_to_postgres().await;
    let clickhouse = stack.project_to_clickhouse().await;
    bank.work_in_vain(100, 30);
    bank.work(200, 40);
    bank.repeat(50);
    bank.work(200, 40);
    caught_up(&stack, &postgres, &bank.log).await;
    assert_postgres(&stack, &bank.log).await;
    caught_up(&stack, &clickhouse, &bank.log).await;
    assert_clickhouse(&stack, &bank.log).await;
    tokio::task::spawn_blocking(move || drop((postgres, clickhouse))).await.unwrap();
    stack.clean().await;
}

/// What every panel shows.
async fn panels(stack: &Stack) -> Vec<String> {
    let database = stack.events();
    let (client, name) = (database.client(), database.name());
    let select = format!(
        "SELECT name FROM system.tables WHERE database = '{name}' AND engine = 'View'
         AND startsWith(name, 'banking_') AND name != 'banking_event' ORDER BY name"
    );
    let views: Vec<String> = client.query(&select).fetch_all().await.unwrap();
    assert_eq!(views.len(), 11);
    let mut shown = Vec::new();
    for view in views {
        let select = format!("SELECT toString(tuple(*)) AS line FROM {name}.{view} ORDER BY line");
        let rows: Vec<String> = client.query(&select).fetch_all().await.unwrap();
        assert!(!rows.is_empty(), "{view}");
        shown.push(format!("{view}: {rows:?}"));
    }
    shown
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_other_aggregates_are_told_too_and_count_no_money_twice() {
    let stack = Stack::new("sagas").await;
    let mut bank = Bank::new(&stack, 11);
    // Long enough for the window of 30 days.
    bank.work(1_200, 20);
    project_all(&stack, &bank.log).await;
    let before = panels(&stack).await;

    let mut sagas = Sagas::new(&stack, 12);
    sagas.work(900, 30);
    for kind in ["TransferCompleted", "TransferReversed", "TransferParked", "OpeningEnded"] {
        let is_there = sagas.log.iter().any(|told| told.event_type == kind);
        assert!(is_there, "no {kind} in the log");
    }
    let postgres = stack.project_to_postgres().await;
    let clickhouse = stack.project_to_clickhouse().await;
    sagas.work(200, 80);
    at_the_end(&stack, &postgres).await;
    at_the_end(&stack, &clickhouse).await;
    assert_events(&stack, &sagas.log).await;
    let rows = assert_transfers(&stack, &sagas.log).await;
    tokio::task::spawn_blocking(move || drop((postgres, clickhouse))).await.unwrap();
    assert_eq!(panels(&stack).await, before, "the panels count accounts' events alone");

    let forms: [&[&str]; 3] = [&["--to-earliest"], &["--shift-by", "-45"], &["--to-offset", "30"]];
    for form in forms {
        for store in ["postgres", "clickhouse"] {
            stack.reset_all(store, form);
        }
        project_all(&stack, &bank.log).await;
        assert_eq!(assert_transfers(&stack, &sagas.log).await, rows, "{form:?}");
        assert_events(&stack, &sagas.log).await;
        assert_eq!(panels(&stack).await, before, "{form:?}");
    }
    stack.clean().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reset_to_the_earliest_offset_replays_into_the_same_rows() {
    let stack = Stack::new("replay").await;
    let mut bank = Bank::new(&stack, 2);
    bank.work(500, 30);
    bank.work_in_vain(20, 30);
    project_all(&stack, &bank.log).await;
    let before = dump(&stack).await;

    for store in ["postgres", "clickhouse"] {
        stack.reset_offsets(store, &["--to-earliest"]);
    }
    bank.work(100, 40);
    project_all(&stack, &bank.log).await;
    let epochs = epochs(&stack).await;
    assert_eq!(epochs, [(1, 0), (1, 0)], "each partition was begun again from the start");
    assert_ne!(dump(&stack).await, before, "the replay went on to what is new");
    stack.clean().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn other_resets_end_in_the_same_rows_too() {
    let stack = Stack::new("resets").await;
    let mut bank = Bank::new(&stack, 3);
    bank.work(400, 20);
    project_all(&stack, &bank.log).await;
    let before = dump(&stack).await;
    let forms: [&[&str]; 4] =
        [&["--shift-by", "-37"], &["--to-offset", "25"], &["--to-latest"], &["--to-current"]];
    for form in forms {
        for store in ["postgres", "clickhouse"] {
            stack.reset_offsets(store, form);
        }
        project_all(&stack, &bank.log).await;
        assert_eq!(dump(&stack).await, before, "{form:?}");
    }
    // Skipping what is new is not followed.
    bank.work(50, 20);
    for store in ["postgres", "clickhouse"] {
        stack.reset_offsets(store, &["--to-latest"]);
    }
    project_all(&stack, &bank.log).await;
    stack.clean().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_without_their_kafka_commit_change_nothing() {
    let stack = Stack::new("killed").await;
    let mut bank = Bank::new(&stack, 4);
    bank.work(100, 10);
    project_all(&stack, &bank.log).await;
    bank.work(200, 20);
    // What a process does that is killed between the database's commit and Kafka's.
    apply_next_batch(&stack, stack.postgres(), &bank.log).await;
    apply_next_batch(&stack, stack.clickhouse(), &bank.log).await;
    bank.work(100, 20);
    project_all(&stack, &bank.log).await;
    stack.clean().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_topic_that_was_made_again_is_refused() {
    let stack = Stack::new("again").await;
    let mut bank = Bank::new(&stack, 5);
    bank.work(50, 5);
    project_all(&stack, &bank.log).await;
    stack.delete_topic().await;
    until("the topic is gone", || async { stack.try_create_topic().await }).await;
    let projections = [stack.project_to_postgres().await, stack.project_to_clickhouse().await];
    for projection in &projections {
        until("both partitions stop", || async {
            let mut partitions = projection.status().partitions;
            partitions.retain(|found| found.topic == stack.topic);
            partitions.len() == 2
                && partitions.iter().all(|found| {
                    let error = found.last_error.as_deref().unwrap_or_default();
                    found.state == State::Stopped && error.contains("made again")
                })
        })
        .await;
    }
    drop(projections);
    stack.clean().await;
}

/// Runs both projections until they have everything, compares, and stops them.
async fn project_all(stack: &Stack, log: &[Written]) {
    let (postgres, clickhouse) =
        tokio::join!(stack.project_to_postgres(), stack.project_to_clickhouse());
    caught_up(stack, &postgres, log).await;
    assert_postgres(stack, log).await;
    caught_up(stack, &clickhouse, log).await;
    assert_clickhouse(stack, log).await;
    // Blocks until each has left its group.
    tokio::task::spawn_blocking(move || drop((postgres, clickhouse))).await.unwrap();
}

/// Every row of both Postgres tables as text.
async fn dump(stack: &Stack) -> Vec<String> {
    let client = stack.database().client().await.unwrap();
    let schema = stack.config.namespace.underscored("banking_g1");
    let mut rows = Vec::new();
    for (table, order) in
        [("account_summary", "account_id"), ("account_transaction", "account_id, version")]
    {
        let select = format!("SELECT t::text AS line FROM {schema}.{table} t ORDER BY {order}");
        let found = client.query(&select, &[]).await.unwrap();
        rows.extend(found.iter().map(|row| row.get::<_, String>("line")));
    }
    rows
}

/// Each partition's epoch and where it began.
async fn epochs(stack: &Stack) -> Vec<(i64, i64)> {
    let client = stack.database().client().await.unwrap();
    let schema = stack.config.namespace.underscored("millrace");
    let select = format!(
        "SELECT epoch, epoch_start FROM {schema}.checkpoint WHERE topic = $1 ORDER BY partition"
    );
    let rows = client.query(&select, &[&stack.topic]).await.unwrap();
    rows.iter().map(|row| (row.get(0), row.get(1))).collect()
}

/// Applies what stands in the first partition behind the store's place, and tells Kafka nothing.
async fn apply_next_batch<S: Store>(stack: &Stack, store: S, log: &[Written]) {
    store.prepare().await.unwrap();
    let source = stack.source(0);
    let place = store.read_held(&source).await.unwrap().place.unwrap();
    let records = stack.read(0, place.next_offset);
    assert!(records.len() > 20, "{} of {}", records.len(), log.len());
    let batch = Arc::new(Batch { from: place, records, ..Batch::default() });
    let applied = store.apply(&source, Arc::clone(&batch)).await.unwrap();
    assert_eq!((applied.next_offset, applied.obstacle), (batch.end(), None));
    if store.name().starts_with("postgres") {
        // Whoever comes with the same batch once more is not the owner.
        assert_eq!(store.apply(&source, batch).await, Err(Failure::Conflict));
    } else {
        // Absorbed by its token at once; by its rows' keys it would be in any case.
        let before = clickhouse_rows(stack).await;
        assert!(store.apply(&source, batch).await.is_ok());
        assert_eq!(clickhouse_rows(stack).await, before);
    }
}

/// How many rows the table has, repeats included.
async fn clickhouse_rows(stack: &Stack) -> u64 {
    let database = stack.events();
    let select = format!("SELECT count() FROM {}.banking_event_g1", database.name());
    database.client().query(&select).fetch_one().await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_at_once_share_the_partitions_and_one_takes_over() {
    let stack = Stack::new("two").await;
    let mut bank = Bank::new(&stack, 6);
    bank.work(200, 20);
    // Together, so that both make the tables.
    let (first, second) = tokio::join!(stack.project_to_postgres(), stack.project_to_postgres());
    until("each has its share", || async {
        [&first, &second].iter().all(|projection| projection.status().partitions.len() == 2)
    })
    .await;
    for _ in 0..10 {
        bank.work(30, 20);
    }
    let stopping = Instant::now();
    tokio::task::spawn_blocking(move || drop(first)).await.unwrap();
    assert!(stopping.elapsed() < Duration::from_secs(4), "{:?}", stopping.elapsed());
    bank.work(100, 20);
    caught_up(&stack, &second, &bank.log).await;
    assert_postgres(&stack, &bank.log).await;
    tokio::task::spawn_blocking(move || drop(second)).await.unwrap();
    stack.clean().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_that_goes_away_is_waited_for() {
    let mut stack = Stack::new("away").await;
    let (postgres, clickhouse) = stack.go_through_proxies().await;
    let mut bank = Bank::new(&stack, 8);
    bank.work(200, 20);
    let projections = tokio::join!(stack.project_to_postgres(), stack.project_to_clickhouse());
    caught_up(&stack, &projections.0, &bank.log).await;
    caught_up(&stack, &projections.1, &bank.log).await;
    postgres.cut();
    clickhouse.cut();
    bank.work(200, 20);
    for projection in [&projections.0, &projections.1] {
        until("it says that it waits", || async {
            projection
                .status()
                .partitions
                .iter()
                .filter(|found| found.topic == stack.topic)
                .all(|found| found.state != State::Stopped && found.last_error.is_some())
        })
        .await;
    }
    postgres.mend();
    clickhouse.mend();
    bank.work(100, 20);
    caught_up(&stack, &projections.0, &bank.log).await;
    assert_postgres(&stack, &bank.log).await;
    caught_up(&stack, &projections.1, &bank.log).await;
    assert_clickhouse(&stack, &bank.log).await;
    let healthy = [&projections.0, &projections.1].iter().all(|projection| {
        projection.status().partitions.iter().all(|found| found.last_error.is_none())
    });
    assert!(healthy);
    tokio::task::spawn_blocking(move || drop(projections)).await.unwrap();
    stack.clean().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn unknown_types_are_passed_over_and_corrupt_events_are_parked() {
    let stack = Stack::new("unknown").await;
    let mut bank = Bank::new(&stack, 9);
    bank.work(50, 1);
    bank.write_unknown("acc-0");
    bank.work(50, 1);
    let projection = stack.project_to_postgres().await;
    let partition = bank.log[0].partition;
    let own = |status: Status| {
        let is_own =
            |found: &PartitionStatus| found.topic == stack.topic && found.partition == partition;
        status.partitions.into_iter().find(is_own)
    };
    let events = u64::try_from(bank.log.len()).unwrap();
    until("all is applied but one", || async {
        own(projection.status())
            .is_some_and(|found| (found.events, found.passed_over) == (events, 1))
    })
    .await;
    bank.write_corrupt("acc-0");
    bank.work_elsewhere(20, "acc-0");
    at_the_end(&stack, &projection).await;
    let parked = letters::parked(&stack, "postgres.banking").await;
    assert_eq!(parked.len(), 1);
    assert_eq!(
        (parked[0].stream.as_str(), parked[0].error_code.as_str()),
        ("acc-0", "Undecodable")
    );
    assert!(parked[0].error.contains("cannot decode"), "{}", parked[0].error);
    tokio::task::spawn_blocking(move || drop(projection)).await.unwrap();
    stack.clean().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tables_of_other_code_are_refused_and_the_way_out_is_named() {
    let stack = Stack::new("other").await;
    stack.postgres().prepare().await.unwrap();
    stack.clickhouse().prepare().await.unwrap();
    let client = stack.database().client().await.unwrap();
    let table = stack.config.namespace.underscored("millrace");
    let update = format!("UPDATE {table}.projection SET version = 0");
    client.batch_execute(&update).await.unwrap();
    let events = stack.events();
    let alter = format!("ALTER TABLE {}.banking_event_g1 MODIFY COMMENT 'older'", events.name());
    events.client().query(&alter).execute().await.unwrap();
    let errors = [
        stack.postgres().prepare().await.unwrap_err().to_string(),
        stack.clickhouse().prepare().await.unwrap_err().to_string(),
    ];
    assert!(errors[0].contains("`millrace rebuild postgres.banking`"), "{}", errors[0]);
    assert!(errors[1].contains("`millrace rebuild clickhouse.banking`"), "{}", errors[1]);
    stack.clean().await;
}
