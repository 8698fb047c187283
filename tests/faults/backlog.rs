//! A projection that was away for a long time: a million events are waiting, and it takes them in
//! without holding more of them than it writes at a time.

use std::time::{Duration, Instant};

use uuid::Uuid;

use crate::harness::await_some;
use crate::harness::commands::{command, command_with_id, create, deposit, new_id};
use crate::harness::kafka::{Place, Producer, Reader, committed, own_partition};
use crate::harness::log::Answers;
use crate::harness::namespace::Namespace;
use crate::harness::serve::Serve;
use crate::harness::stores::{Postgres, analytics};

/// Unoptimised, a tenth of it takes as long.
const DEPOSITS: usize = if cfg!(debug_assertions) { 100_000 } else { 1_000_000 };
const ACCOUNTS: usize = 1_000;
/// A customer may have five accounts.
const ACCOUNTS_EACH: usize = 5;
const SENT_AT_A_TIME: usize = 50_000;
const HANDLED_WITHIN: Duration = Duration::from_secs(180);
const PROJECTED_WITHIN: Duration = Duration::from_secs(240);
const MEMORY_MAX: u64 = 300_000_000;

fn account(number: usize) -> String {
    format!("acc-{number}")
}

fn open_accounts(namespace: &Namespace, producer: &Producer) {
    let ids: Vec<Uuid> = (0..ACCOUNTS).map(|_| new_id()).collect();
    let open = |(number, id): (usize, &Uuid)| {
        let body = create(&format!("user-{}", number / ACCOUNTS_EACH), "savings", "5000.00");
        command_with_id(&account(number), *id, &body)
    };
    let openings: Vec<_> = ids.iter().enumerate().map(open).collect();
    let mut answers = Answers::new(namespace);
    producer.send(&namespace.topic("commands"), &openings);
    answers.await_count(&ids, 1);
}

/// Sends the deposits where their owners read; gives the offset behind the last of each partition.
fn send_deposits(namespace: &Namespace, producer: &Producer) -> Vec<i64> {
    let topic = namespace.topic("commands");
    let mut ends = vec![0; usize::try_from(namespace.partitions).unwrap()];
    for first in (0..DEPOSITS).step_by(SENT_AT_A_TIME) {
        let messages: Vec<_> = (first..DEPOSITS.min(first + SENT_AT_A_TIME))
            .map(|number| {
                let id = account(number % ACCOUNTS);
                let mut message = command(&id, &deposit("0.01"));
                message.partition = Some(own_partition(id.as_bytes(), namespace.partitions));
                message
            })
            .collect();
        for Place { partition, offset } in producer.send(&topic, &messages) {
            let end = &mut ends[usize::try_from(partition).unwrap()];
            *end = (*end).max(offset + 1);
        }
    }
    ends
}

fn await_handled(namespace: &Namespace, ends: &[i64]) {
    let group = namespace.group("handler.banking");
    await_some("every command decided", HANDLED_WITHIN, || {
        let stands = committed(namespace, &group, &namespace.topic("commands"));
        let is_done = stands.iter().zip(ends).all(|(stands, end)| stands >= end);
        if is_done { Ok(()) } else { Err(format!("at {stands:?} of {ends:?}")) }
    });
}

/// What a store says, once it is that.
fn await_number(what: &str, expected: usize, ask: impl Fn() -> Option<String>) {
    let expected = expected.to_string();
    await_some(what, PROJECTED_WITHIN, || match ask() {
        Some(found) if found == expected => Ok(()),
        found => Err(format!("{found:?} instead of {expected}")),
    });
}

#[test]
fn a_backlog_is_projected_in_bounded_memory() {
    let namespace = Namespace::new();
    let producer = Producer::with(
        &namespace.stack,
        &[("linger.ms", "50"), ("compression.type", "lz4"), ("batch.size", "1000000")],
    );
    let handler = Serve::ready(&namespace, "handler,reactor");
    open_accounts(&namespace, &producer);
    let started = Instant::now();
    let ends = send_deposits(&namespace, &producer);
    await_handled(&namespace, &ends);
    let handled = started.elapsed();
    handler.terminate();

    let mut events = 0;
    Reader::new(&namespace, &namespace.topic("events")).each_to_end(|_| events += 1);
    assert_eq!(events, ACCOUNTS + DEPOSITS, "an event each");

    let started = Instant::now();
    let serve = Serve::start(&namespace, "postgres,clickhouse");
    let postgres = Postgres::connect(&namespace).unwrap();
    let summaries = format!(
        "SELECT sum(version) AS events FROM {}.account_summary",
        namespace.schema("banking")
    );
    await_number("every event in Postgres", events, || {
        let rows = postgres.query(&summaries).ok()?;
        rows[0]["events"].clone()
    });
    let in_postgres = started.elapsed();
    let rows = format!(
        "SELECT count() AS events FROM {}.event WHERE aggregate = 'account'",
        namespace.schema("millrace")
    );
    await_number("every event in ClickHouse", events, || {
        let rows = analytics(&namespace, &rows).ok()?;
        rows[0]["events"].clone()
    });
    let in_both = started.elapsed();
    let memory = serve.memory_max();
    println!(
        "{DEPOSITS} commands sent and handled in {handled:.1?}; {events} events in Postgres after \
         {in_postgres:.1?}, in both stores after {in_both:.1?}; at most {} MB",
        memory / 1_000_000
    );
    assert!(memory <= MEMORY_MAX, "{memory} bytes; a backlog must not be held in memory");
    serve.terminate();
}
