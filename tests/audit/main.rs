//! The auditor on the real services: it finds what is wrong, names it, and is silent otherwise.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::wildcard_enum_match_arm,
    clippy::disallowed_methods,
    reason = "a test stops where its expectation ends, and says what it saw"
)]

#[path = "../projection/bank.rs"]
#[expect(dead_code, reason = "the projections' tests need more of it")]
mod bank;
mod faults;
mod ledger;
#[path = "../projection/proxy.rs"]
#[expect(dead_code, reason = "the projections' tests need more of it")]
mod proxy;
mod replays;
#[path = "../projection/sagas.rs"]
#[expect(dead_code, reason = "the projections' tests need more of it")]
mod sagas;
#[path = "../projection/stack.rs"]
#[expect(dead_code, reason = "the projections' tests need more of it")]
mod stack;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Instant;

use bank::{Bank, Written};
use faults::{Faults, Planted};
use ledger::Ledger;
use millrace::audit::fact::Writers;
use millrace::audit::{self, Difference, Report, Scope, Settings};
use millrace::codec::compiled;
use millrace::engine::projector::State;
use millrace::kernel::stream::partition_of;
use millrace::runtime::projection::Projection;
use sagas::Sagas;
use stack::{PARTITIONS, Stack, until};

/// The schemas that the tests' events are written with.
fn writers() -> Arc<Writers> {
    let mut writers = Writers::default();
    for (id, compiled) in (1..).zip(compiled::all()) {
        writers.add(id, compiled.source.text).unwrap();
    }
    Arc::new(writers)
}

async fn audit(stack: &Stack, settings: Settings) -> Report {
    audit::run(&stack.config, writers(), settings, Arc::new(|_, _| {})).await.unwrap()
}

async fn audit_all(stack: &Stack) -> Report {
    audit(stack, Settings::default()).await
}

/// Waits until a projection has applied the last event of every partition.
async fn at_the_end(stack: &Stack, projection: &Projection) {
    let topics = if projection.status().name.starts_with("postgres") { 2 } else { 4 };
    let count = topics * usize::try_from(PARTITIONS).unwrap();
    until("the projection has caught up", || async {
        let status = projection.status();
        status.partitions.len() == count
            && status.partitions.iter().all(|found| {
                assert_ne!(found.state, State::Stopped, "{found:?}");
                let records = stack.read_topic(&found.topic, found.partition, 0);
                found.place.next_offset >= records.last().map_or(0, |record| record.offset + 1)
                    && found.state != State::Locating
            })
    })
    .await;
}

/// Projects everything that there is into both stores, and stops.
async fn project_all(stack: &Stack) {
    let (postgres, clickhouse) =
        (stack.project_to_postgres().await, stack.project_to_clickhouse().await);
    at_the_end(stack, &postgres).await;
    at_the_end(stack, &clickhouse).await;
    tokio::task::spawn_blocking(move || drop((postgres, clickhouse))).await.unwrap();
}

fn says(planted: &Planted, found: &Difference) -> bool {
    planted.store == found.store
        && planted.stream == found.stream
        && planted.columns.contains(&found.column.as_str())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_planted_faults_are_found_and_nothing_else() {
    let stack = Stack::new("planted").await;
    let mut bank = Bank::new(&stack, 21);
    bank.work(9_000, 300);
    bank.work_in_vain(50, 300);
    bank.repeat(40);
    let mut sagas = Sagas::new(&stack, 22);
    sagas.work(800, 30);
    project_all(&stack).await;

    let clean = audit_all(&stack).await;
    assert!(clean.is_clean(), "{:#?}", clean.differences);
    assert!(clean.compared.events > 3_000, "{:?}", clean.compared);

    let mut faults = Faults::new(&stack, &bank.log, &sagas.log);
    faults.plant().await;
    let planted = faults.planted;
    let kinds: BTreeSet<&str> = planted.iter().map(|one| one.kind).collect();
    println!("{} faults of {} kinds: {kinds:?}", planted.len(), kinds.len());
    assert!(planted.len() >= 100 && kinds.len() >= 12, "{} {kinds:?}", planted.len());

    let report = audit_all(&stack).await;
    let missed: Vec<&Planted> = planted
        .iter()
        .filter(|one| !report.differences.iter().any(|found| says(one, found)))
        .collect();
    assert!(missed.is_empty(), "not found: {missed:#?}");
    let is_planted = |found: &&Difference| {
        let of_stream = |one: &Planted| one.store == found.store && one.stream == found.stream;
        // What the fees add up to follows from the rows.
        planted.iter().any(of_stream) || found.table == "fee_ledger"
    };
    let others: Vec<&Difference> =
        report.differences.iter().filter(|found| !is_planted(found)).collect();
    assert!(others.is_empty(), "false alarms: {others:#?}");
    assert!(report.differences.iter().any(|found| found.table == "fee_ledger"));

    // One stream alone is told the same.
    let of = |report: &Report, stream: &str| -> Vec<Difference> {
        let all = report.differences.iter();
        all.filter(|found| found.stream == stream).cloned().collect()
    };
    for one in planted.iter().filter(|one| one.stream.starts_with("banking.account/")).step_by(9) {
        let id = one.stream.strip_prefix("banking.account/").unwrap().to_owned();
        // A row that says to be of another partition is told of there too.
        let own = partition_of(&id, PARTITIONS);
        let mut due = of(&report, &one.stream);
        due.retain(|found| found.partition == own);
        let scope = Scope::Stream { aggregate: "account".to_owned(), id };
        let alone = audit(&stack, Settings { scope, ..Settings::default() }).await;
        assert_eq!(of(&alone, &one.stream), due, "{}", one.stream);
    }
    // So it is in several passes, with little memory.
    let small = audit(&stack, Settings { streams_max: 20, ..Settings::default() }).await;
    let sorted = |mut all: Vec<Difference>| {
        all.sort_by_key(|one| format!("{one:?}"));
        all
    };
    assert_eq!(sorted(small.differences), sorted(report.differences));
    stack.clean().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn wrong_checkpoints_are_found() {
    let stack = Stack::new("checkpoints").await;
    let mut bank = Bank::new(&stack, 31);
    bank.work(300, 20);
    project_all(&stack).await;
    // Events that no store has yet.
    let projected = bank.log.len();
    bank.work(100, 20);
    let clean = audit_all(&stack).await;
    assert!(clean.is_clean(), "{:#?}", clean.differences);
    let schema = stack.config.namespace.underscored("millrace");
    let cases = [
        ("next_offset = next_offset + 20", "next_offset", false),
        ("next_offset = next_offset - 20", "next_offset", true),
        ("next_offset = next_offset + 100000", "next_offset", false),
        ("topic_id = gen_random_uuid()", "topic_id", true),
    ];
    for (change, column, is_alone) in cases {
        let client = stack.database().client().await.unwrap();
        let set = |change: &str| {
            format!(
                "UPDATE {schema}.checkpoint SET {change} WHERE topic = '{}' AND partition = 1",
                stack.topic
            )
        };
        let keep = format!(
            "SELECT topic_id::text, next_offset FROM {schema}.checkpoint WHERE topic = '{}'
             AND partition = 1",
            stack.topic
        );
        let before = client.query_one(&keep, &[]).await.unwrap();
        client.batch_execute(&set(change)).await.unwrap();
        let report = audit_all(&stack).await;
        let found = report.differences.iter().find(|one| one.table == "checkpoint");
        let found = found.unwrap_or_else(|| panic!("{change}: {:#?}", report.differences));
        assert_eq!((found.stream.as_str(), found.store), ("banking.account[1]", "postgres"));
        assert_eq!(found.column, column, "{found:?}");
        if is_alone {
            assert_eq!(report.differences.len(), 1, "{change}: {:#?}", report.differences);
        }
        let (id, next): (String, i64) = (before.get(0), before.get(1));
        let back = set(&format!("topic_id = '{id}', next_offset = {next}"));
        client.batch_execute(&back).await.unwrap();
    }
    let clean = audit_all(&stack).await;
    assert!(clean.is_clean(), "{:#?}", clean.differences);

    // Events that are parked are not expected, and not forgotten either.
    let streams = park(&stack, &bank.log[projected..], 1).await;
    let parked = audit_all(&stack).await;
    assert!(parked.is_clean(), "{:#?}", parked.differences);
    assert_eq!(parked.parked.len(), streams);
    stack.clean().await;
}

/// Takes down that a partition's events could not be applied, and that all of it was passed over.
/// Returns how many streams they are of.
async fn park(stack: &Stack, events: &[Written], partition: i32) -> usize {
    let client = stack.database().client().await.unwrap();
    let schema = stack.config.namespace.underscored("millrace");
    let columns = "SELECT column_name, data_type FROM information_schema.columns
         WHERE table_schema = $1 AND table_name = 'failed_event' AND is_nullable = 'NO'
         AND column_default IS NULL";
    let columns = client.query(columns, &[&schema]).await.unwrap();
    let mut streams = BTreeSet::new();
    for (offset, written) in (0..).zip(events) {
        if written.partition != partition {
            continue;
        }
        streams.insert(written.account_id.clone());
        let value = |row: &tokio_postgres::Row| match row.get::<_, &str>("column_name") {
            "projection" => "'postgres.banking'".to_owned(),
            "generation" => "1".to_owned(),
            "stream" => format!("'{}'", written.account_id),
            "position" => written.sequence.to_string(),
            "topic" => format!("'{}'", stack.topic),
            "partition" => partition.to_string(),
            "kafka_offset" => format!("{offset}"),
            _ if row.get::<_, &str>("data_type").ends_with("int") => "0".to_owned(),
            _ if row.get::<_, &str>("data_type") == "integer" => "0".to_owned(),
            _ => "''".to_owned(),
        };
        let names: Vec<&str> = columns.iter().map(|row| row.get("column_name")).collect();
        let values: Vec<String> = columns.iter().map(value).collect();
        let (names, values) = (names.join(", "), values.join(", "));
        let insert = format!("INSERT INTO {schema}.failed_event ({names}) VALUES ({values})");
        client.batch_execute(&insert).await.unwrap();
    }
    let end = ledger::end(stack, partition);
    let advance = format!(
        "UPDATE {schema}.checkpoint SET next_offset = {end}
         WHERE topic = '{}' AND partition = {partition}",
        stack.topic
    );
    client.batch_execute(&advance).await.unwrap();
    streams.len()
}

/// Events and partitions of two stores, while both are being filled. `AUDIT_EVENTS` says
/// how many.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_clean_log_raises_no_alarm_while_everything_runs() {
    let events = std::env::var("AUDIT_EVENTS").ok();
    let events: u64 = events.map_or(20_000, |text| text.parse().unwrap());
    let stack = Stack::new("clean").await;
    let mut ledger = Ledger::new(&stack, events / 10);
    ledger.write(events / 2);
    let (postgres, clickhouse) =
        (stack.project_to_postgres().await, stack.project_to_clickhouse().await);
    let mut audits = 0;
    while audits < 3 {
        ledger.write(events / 6);
        let report = audit_all(&stack).await;
        assert!(report.is_clean(), "{:#?}", report.differences);
        audits += 1;
    }
    at_the_end_fast(&stack, &postgres).await;
    at_the_end_fast(&stack, &clickhouse).await;
    let started = Instant::now();
    let report = audit_all(&stack).await;
    assert!(report.is_clean(), "{:#?}", report.differences);
    assert_eq!(report.compared.events, ledger.written);
    assert_eq!(report.compared.clickhouse_rows, ledger.written);
    println!("{:?} in {:?}, {}", report.compared, started.elapsed(), memory());
    let sample = Settings { scope: Scope::Sample(50), ..Settings::default() };
    let sample = audit(&stack, sample).await;
    assert!(sample.is_clean(), "{:#?}", sample.differences);
    assert_eq!(sample.compared.streams, 50 * u64::try_from(PARTITIONS).unwrap());
    tokio::task::spawn_blocking(move || drop((postgres, clickhouse))).await.unwrap();
    stack.clean().await;
}

/// As [`at_the_end`], for logs that are too long to be read again and again.
async fn at_the_end_fast(stack: &Stack, projection: &Projection) {
    let ends: Vec<i64> = (0..PARTITIONS).map(|partition| ledger::end(stack, partition)).collect();
    let deadline = Instant::now() + std::time::Duration::from_secs(1_800);
    loop {
        let status = projection.status();
        let done = status.partitions.iter().filter(|found| found.topic == stack.topic);
        let done = done.filter(|found| {
            let place = usize::try_from(found.partition).unwrap();
            found.place.next_offset >= ends[place]
        });
        if done.count() == ends.len() {
            return;
        }
        assert!(Instant::now() < deadline, "{status:?}");
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
}

/// How much memory this process has and had, as the system says it.
fn memory() -> String {
    let text = std::fs::read_to_string("/proc/self/status").unwrap();
    let lines = text.lines().filter(|line| line.starts_with("VmRSS") || line.starts_with("VmHWM"));
    lines.collect::<Vec<_>>().join(" ")
}
