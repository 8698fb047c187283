//! A replay is Kafka's own `--reset-offsets` and a start: the rows are the same afterwards, and no
//! panel counts anything twice, also while commands keep coming.

use std::collections::BTreeMap;
use std::time::Duration;

use rust_decimal::Decimal;
use uuid::Uuid;

use crate::harness::await_some;
use crate::harness::commands::{command_with_id, create, deposit, new_id, transfer, withdraw};
use crate::harness::fold::money;
use crate::harness::judge;
use crate::harness::kafka::{Message, Producer, committed};
use crate::harness::log::{Answers, Event, await_process_managers, await_transfers};
use crate::harness::namespace::Namespace;
use crate::harness::serve::Serve;
use crate::harness::stores::{Postgres, Row, analytics, plain};

const ACCOUNTS: usize = 30;
const REPLAYED_WITHIN: Duration = Duration::from_secs(60);
const PROJECTIONS: [&str; 2] = ["postgres.banking", "clickhouse.banking"];

/// Commands of every kind that moves money, for all accounts, round by round.
fn load(rounds: usize, first: bool) -> (Vec<Uuid>, Vec<Message>) {
    let mut ids = Vec::new();
    let mut commands = Vec::new();
    for round in 0..rounds {
        for account in 0..ACCOUNTS {
            let to = format!("acc-{}", (account + 1) % ACCOUNTS);
            let body = match round % 5 {
                0 if first && round == 0 => create(&format!("hal-{account}"), "savings", "5000.00"),
                0 | 1 => deposit("12.34"),
                2 => withdraw("1000.01"),
                3 => transfer(&to, "7.5"),
                _ => deposit("1500"),
            };
            ids.push(new_id());
            commands.push(command_with_id(&format!("acc-{account}"), ids[ids.len() - 1], &body));
        }
    }
    (ids, commands)
}

/// Puts both projections' groups back to the log's start, with Kafka's own tool.
fn reset(namespace: &Namespace) {
    let topic = namespace.topic("events");
    let [postgres, clickhouse] = PROJECTIONS.map(|name| namespace.group(name));
    namespace.kafka_tool(&[
        "consumer-groups",
        "--group",
        &postgres,
        "--group",
        &clickhouse,
        "--all-topics",
        "--reset-offsets",
        "--to-earliest",
        "--execute",
    ]);
    for group in [&postgres, &clickhouse] {
        assert_eq!(committed(namespace, group, &topic), [0, 0], "{group} was reset");
    }
}

/// Waits until both groups have read to the end of those events.
fn await_replayed(namespace: &Namespace, events: &[Event]) {
    let mut ends = [0, 0];
    for place in events.iter().map(|event| event.message.record.place) {
        let end = &mut ends[usize::try_from(place.partition).unwrap()];
        *end = (*end).max(place.offset + 1);
    }
    for group in PROJECTIONS.map(|name| namespace.group(name)) {
        await_some("the end of a replay", REPLAYED_WITHIN, || {
            let stands = committed(namespace, &group, &namespace.topic("events"));
            let done = stands.iter().zip(ends).all(|(stands, end)| *stands >= end);
            if done { Ok(()) } else { Err(format!("{group} at {stands:?} of {ends:?}")) }
        });
    }
}

/// How often each partition was begun anew, as Postgres holds it.
fn epochs(namespace: &Namespace, postgres: &Postgres) -> Vec<i64> {
    let table = format!("{}.checkpoint", namespace.schema("millrace"));
    let rows = postgres.query(&format!("SELECT epoch FROM {table} ORDER BY partition")).unwrap();
    rows.iter().map(|row| row["epoch"].as_deref().unwrap().parse().unwrap()).collect()
}

/// What every panel shows.
fn panels(namespace: &Namespace) -> BTreeMap<String, Vec<Row>> {
    let database = namespace.schema("millrace");
    let sql = format!(
        "SELECT name FROM system.tables WHERE database = '{database}' AND engine = 'View'
         AND startsWith(name, 'banking_') AND name != 'banking_event' ORDER BY name"
    );
    let names = analytics(namespace, &sql).unwrap();
    assert!(names.len() >= 5, "a view for each panel: {names:?}");
    let show = |row: Row| {
        let name = row["name"].clone().unwrap();
        let mut rows = analytics(namespace, &format!("SELECT * FROM {database}.{name}")).unwrap();
        rows.sort();
        (name, rows)
    };
    names.into_iter().map(show).collect()
}

/// Compares the panels' totals with the log.
fn panels_add_up(namespace: &Namespace, events: &[Event]) {
    let sum = |names: &[&str], field: &str| -> Decimal {
        let own = events.iter().filter(|event| names.contains(&event.short_name()));
        own.filter_map(|event| money(event, field)).sum()
    };
    let opened = sum(&["AccountCreated"], "initial_deposit");
    let deposits = opened + sum(&["MoneyDeposited"], "amount");
    let withdrawals = sum(&["MoneyWithdrawn"], "amount");
    let sent = sum(&["MoneyTransferred"], "amount");
    let fees = sum(&["MoneyWithdrawn"], "fee") + sum(&["MoneyTransferred"], "transfer_fee");
    let received = sum(&["MoneyReceived"], "amount");
    let balance = deposits - withdrawals - sent - fees + received;
    let database = namespace.schema("millrace");
    let mut expected = vec![("sum(balance)", "balance_by_type".to_owned(), balance)];
    for period in ["minute", "hour", "day"] {
        let flows = format!("deposits_withdrawals_{period}");
        expected.push(("sum(deposits)", flows.clone(), deposits));
        expected.push(("sum(withdrawals)", flows, withdrawals));
        expected.push(("sum(fees)", format!("fees_{period}"), fees));
        let volume = deposits + withdrawals + sent + received;
        expected.push(("sum(amount)", format!("volume_{period}"), volume));
    }
    for (column, panel, total) in expected {
        let sql = format!("SELECT {column} AS total FROM {database}.banking_{panel}");
        let found = analytics(namespace, &sql).unwrap().remove(0);
        let found = plain(found["total"].as_deref().unwrap());
        assert_eq!(found, plain(&total.to_string()), "{column} of {panel}");
    }
}

#[test]
fn a_reset_of_the_groups_ends_in_the_same_rows() {
    let namespace = Namespace::new();
    let topic = namespace.topic("commands");
    let producer = Producer::new(&namespace.stack);
    let handler = Serve::ready(&namespace, "handler,reactor");
    let projections = Serve::ready(&namespace, "postgres,clickhouse");
    let (ids, commands) = load(60, true);
    let mut answers = Answers::new(&namespace);
    producer.send(&topic, &commands[..ACCOUNTS]);
    answers.await_count(&ids[..ACCOUNTS], 1);
    producer.send(&topic, &commands[ACCOUNTS..]);
    answers.await_count(&ids, 1);
    let events = await_transfers(&namespace);
    await_process_managers(&namespace);
    assert_eq!(judge::log_is_sound(&namespace).len(), events.len());
    assert!(events.len() > commands.len() / 2, "{} events", events.len());
    judge::read_models_equal_log(&namespace, &events);
    panels_add_up(&namespace, &events);
    let before = panels(&namespace);
    let postgres = Postgres::connect(&namespace).unwrap();
    let first = epochs(&namespace, &postgres);
    assert_eq!(first.len(), 4, "two partitions of accounts, two of transfers");
    let rows = (
        judge::summaries(&namespace, &postgres),
        judge::transactions(&namespace, &postgres),
        judge::event_rows(&namespace),
        judge::transfers(&namespace, &postgres),
    );

    projections.terminate();
    reset(&namespace);
    let projections = Serve::ready(&namespace, "postgres,clickhouse");
    await_replayed(&namespace, &events);
    judge::read_models_equal_log(&namespace, &events);
    judge::assert_same("transfer", &judge::transfers(&namespace, &postgres), &rows.3);
    judge::assert_same("account_summary", &judge::summaries(&namespace, &postgres), &rows.0);
    let transactions = judge::transactions(&namespace, &postgres);
    judge::assert_same("account_transaction", &transactions, &rows.1);
    judge::assert_same("event", &judge::event_rows(&namespace), &rows.2);
    assert_eq!(panels(&namespace), before, "every panel shows what it showed");
    let epochs = epochs(&namespace, &postgres);
    assert!(epochs.iter().zip(first).all(|(now, before)| *now == before + 1), "{epochs:?}");

    // Once more, while the handler keeps writing.
    projections.terminate();
    reset(&namespace);
    let (more, commands) = load(20, false);
    let (early, late) = commands.split_at(commands.len() / 2);
    producer.send(&topic, early);
    let projections = Serve::start(&namespace, "postgres,clickhouse");
    for some in late.chunks(ACCOUNTS) {
        producer.send(&topic, some);
    }
    answers.await_count(&more, 1);
    let events = await_transfers(&namespace);
    assert_eq!(judge::log_is_sound(&namespace).len(), events.len());
    await_replayed(&namespace, &events);
    judge::read_models_equal_log(&namespace, &events);
    panels_add_up(&namespace, &events);
    projections.terminate();
    handler.terminate();
}
