//! Judges a whole log: exactly once, dense, consistent, conserved; and the stores against it.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::Duration;

use rust_decimal::Decimal;
use serde_json::Value;

use super::await_some;
use super::fold::{Expected, fold, money, payload};
use super::log::{Event, Message, events, events_of_kind};
use super::namespace::Namespace;
use super::stores::{Postgres, Row, analytics, plain};

/// Whose events are in the log besides the accounts'.
const OTHERS: [&str; 3] = ["account-opening", "customer", "transfer"];

/// How long the read models may lag behind the log.
const CAUGHT_UP_WITHIN: Duration = Duration::from_secs(60);

/// Checks that results and events tell the same story, each command once.
pub(crate) fn results_match_log(answers: &BTreeMap<String, Vec<Message>>, events: &[Event]) {
    let mut by_command: HashMap<&str, Vec<&Event>> = HashMap::new();
    for event in events {
        by_command.entry(event.header("command_id").unwrap()).or_default().push(event);
    }
    for (id, all) in answers {
        let first: Vec<_> = all.iter().filter(|one| is_first(one)).collect();
        assert_eq!(first.len(), 1, "first results of {id}: {all:#?}");
        for repeat in all.iter().filter(|one| one.is_duplicate()) {
            assert_eq!(without_mark(repeat), without_mark(first[0]), "a repeat is identical");
        }
        let own = by_command.remove(id.as_str()).unwrap_or_default();
        let told = (first[0].fields["first_sequence"].as_u64())
            .zip(first[0].fields["last_sequence"].as_u64());
        let told: Vec<u64> = told.map_or_else(Vec::new, |(from, to)| (from..=to).collect());
        let found: Vec<u64> = own.iter().map(|event| event.sequence).collect();
        // The events of a process manager's command may name the client's that it answers too.
        let of_client = found.is_empty() && first[0].record.header("result_of").is_some();
        assert!(found == told || of_client, "the events of {id}: {:?}", first[0]);
        assert!(first[0].is_accepted() || found.is_empty(), "{:?}", first[0]);
        if let Some(last) = found.last() {
            assert_eq!(first[0].fields["version"].as_u64(), Some(*last));
            assert_eq!(first[0].text("aggregate_id"), Some(own[0].account.as_str()));
        }
    }
    assert!(by_command.is_empty(), "events without a result: {:?}", by_command.keys());
}

fn is_first(result: &Message) -> bool {
    !result.is_duplicate() && result.text("code") != Some("IdempotencyConflict")
}

fn without_mark(result: &Message) -> Value {
    let mut fields = result.fields.clone();
    fields.as_object_mut().unwrap().remove("duplicate");
    fields
}

/// Checks that at every prefix no balance is negative and, by currency, deposits and corrections
/// are balances, fees, money under way and withdrawals.
pub(crate) fn money_is_conserved(events: &[Event]) {
    let mut balances: HashMap<&str, Decimal> = HashMap::new();
    let mut sums: HashMap<&str, Decimal> = HashMap::new();
    for event in events {
        let amount = money(event, "amount").or(money(event, "initial_deposit")).unwrap_or_default();
        let fee = money(event, "transfer_fee").or(money(event, "fee")).unwrap_or_default();
        // What came in from outside, less where it must be now.
        let change = match event.short_name() {
            "AccountCreated" | "MoneyDeposited" | "EntryCorrected" | "MoneyReceived" => amount,
            "MoneyWithdrawn" | "MoneyTransferred" => -(amount + fee),
            "TransferReversed" => amount + fee,
            _ => Decimal::ZERO,
        };
        let before = balances.get(event.account.as_str()).copied().unwrap_or_default();
        let stated = if event.short_name() == "AccountCreated" {
            Some(amount)
        } else {
            money(event, "balance_after")
        };
        let after = stated.unwrap_or(before);
        assert!(after >= Decimal::ZERO, "{event:?}");
        balances.insert(&event.account, after);
        let sum = sums.entry(event.message.text("currency").unwrap()).or_default();
        *sum += change - (after - before);
        assert_eq!(*sum, Decimal::ZERO, "money appeared or vanished: {event:?}");
    }
}

/// Checks that no event stands in the log twice; gives the log.
pub(crate) fn log_is_sound(namespace: &Namespace) -> Vec<Event> {
    let events = events(namespace);
    let mut seen = HashSet::new();
    let mut ids = HashSet::new();
    for event in &events {
        assert!(seen.insert((&event.account, event.sequence)), "twice: {event:?}");
        assert!(ids.insert(event.header("ce_id").unwrap()), "an event id twice: {event:?}");
    }
    money_is_conserved(&events);
    events
}

/// Waits until both stores have seen that many events of accounts and of the others.
fn await_read_models(namespace: &Namespace, postgres: &Postgres, events: &[Event], own: &[Event]) {
    let transfers = own.iter().filter(|event| event.message.name.contains(".transfer.")).count();
    for (table, count) in [("account_summary", events.len()), ("transfer", transfers)] {
        await_some("Postgres at the log's end", CAUGHT_UP_WITHIN, || {
            let schema = namespace.schema("banking");
            let sql = format!("SELECT coalesce(sum(version), 0) AS n FROM {schema}.{table}");
            reached(postgres.query(&sql)?, count)
        });
    }
    for (is, count) in [("=", events.len()), ("!=", own.len())] {
        await_some("ClickHouse at the log's end", CAUGHT_UP_WITHIN, || {
            let database = namespace.schema("millrace");
            let sql =
                format!("SELECT count() AS n FROM {database}.event WHERE aggregate {is} 'account'");
            reached(analytics(namespace, &sql)?, count)
        });
    }
}

fn reached(rows: Vec<Row>, count: usize) -> Result<(), String> {
    let found = rows[0]["n"].as_deref().and_then(|text| text.parse::<usize>().ok());
    match found {
        Some(found) if found >= count => Ok(()),
        _ => Err(format!("{found:?} of {count} events")),
    }
}

/// Every event of the other aggregates.
fn others(namespace: &Namespace) -> Vec<Event> {
    OTHERS.iter().flat_map(|aggregate| events_of_kind(namespace, aggregate)).collect()
}

/// Waits for the stores and compares every row with a fold of the log: of these, the accounts'
/// events, and of what the other aggregates have said. A process manager may still have to tell
/// itself the end, so it is looked at again if the log grew meanwhile.
pub(crate) fn read_models_equal_log(namespace: &Namespace, events: &[Event]) {
    let postgres = Postgres::connect(namespace).unwrap();
    let (own, found, transfer_rows) = await_some("a quiet log", CAUGHT_UP_WITHIN, || {
        let own = others(namespace);
        await_read_models(namespace, &postgres, events, &own);
        let found = event_rows(namespace);
        let transfer_rows = transfers(namespace, &postgres);
        let more = others(namespace).len() - own.len();
        if more == 0 { Ok((own, found, transfer_rows)) } else { Err(format!("{more} more")) }
    });
    let expected = fold(events, &own);
    assert_same("account_summary", &summaries(namespace, &postgres), &expected.summaries);
    let transactions = transactions(namespace, &postgres);
    assert_same("account_transaction", &transactions, &without_free_words(&expected));
    assert_same("transfer", &transfer_rows, &expected.transfers);
    assert_same("event", &found, &expected.events);
}

/// The specification leaves the words of reversals and corrections open.
fn without_free_words(expected: &Expected) -> BTreeMap<String, Row> {
    let mut rows = expected.transactions.clone();
    for row in rows.values_mut() {
        row.retain(|column, value| column != "description" || value.is_some());
    }
    rows
}

/// Every column of `account_summary` but `updated_at`.
pub(crate) fn summaries(namespace: &Namespace, postgres: &Postgres) -> BTreeMap<String, Row> {
    let sql = format!(
        "SELECT account_id, user_id, account_type, currency, status, current_balance,
             available_balance, pending_out, {created} AS created_at,
             {moved} AS last_transaction_at,
             transaction_count_30_days, total_deposits, total_withdrawals, total_transfers_in,
             total_transfers_out, total_fees, is_active,
             array_to_string(recent_transaction_ids, ',') AS recent_transaction_ids, version
         FROM {schema}.account_summary WHERE updated_at IS NOT NULL",
        created = epoch("created_at"),
        moved = epoch("last_transaction_at"),
        schema = namespace.schema("banking"),
    );
    let rows = postgres.query(&sql).unwrap().into_iter().map(|mut row| {
        normalise(&mut row, |name| name.ends_with("_balance") || name.starts_with("total_"));
        normalise(&mut row, |name| name == "pending_out");
        (row["account_id"].clone().unwrap(), row)
    });
    rows.collect()
}

/// Every column of `account_transaction`.
pub(crate) fn transactions(namespace: &Namespace, postgres: &Postgres) -> BTreeMap<String, Row> {
    let sql = format!(
        "SELECT transaction_id, account_id, event_type, type, amount, fee, currency,
             {occurred} AS occurred_at, description, reference, counterparty_account,
             balance_after, version
         FROM {schema}.account_transaction",
        occurred = epoch("occurred_at"),
        schema = namespace.schema("banking"),
    );
    let rows = postgres.query(&sql).unwrap().into_iter().map(|mut row| {
        normalise(&mut row, |name| ["amount", "fee", "balance_after"].contains(&name));
        let kind = row["type"].as_deref().unwrap();
        if ["REVERSAL", "CORRECTION"].contains(&kind) {
            assert!(row["description"].as_deref().is_some_and(|words| !words.is_empty()));
            row.remove("description");
        }
        let id = row["account_id"].as_deref().unwrap();
        (format!("{id}#{}", row["version"].as_deref().unwrap()), row)
    });
    rows.collect()
}

/// Every column of `transfer`.
pub(crate) fn transfers(namespace: &Namespace, postgres: &Postgres) -> BTreeMap<String, Row> {
    let sql = format!(
        "SELECT transfer_id, state, from_account_id, to_account_id, amount, fee, currency, reason,
             {deadline} AS deadline, {created} AS created_at, {ended} AS ended_at, version
         FROM {schema}.transfer",
        deadline = epoch("deadline"),
        created = epoch("created_at"),
        ended = epoch("ended_at"),
        schema = namespace.schema("banking"),
    );
    let rows = postgres.query(&sql).unwrap().into_iter().map(|mut row| {
        normalise(&mut row, |name| ["amount", "fee"].contains(&name));
        (row["transfer_id"].clone().unwrap(), row)
    });
    rows.collect()
}

/// Every column of `millrace.event`; a row that stands there twice is an error.
pub(crate) fn event_rows(namespace: &Namespace) -> BTreeMap<String, Row> {
    let sql = format!(
        "SELECT domain, aggregate, aggregate_id, sequence, event_id, event_type, schema_version,
             toUnixTimestamp64Micro(occurred_at) AS occurred_at, user_id, amount, currency,
             correlation_id, causation_id, command_id, kafka_partition, kafka_offset, payload
         FROM {}.event",
        namespace.schema("millrace"),
    );
    let mut rows = BTreeMap::new();
    for mut row in analytics(namespace, &sql).unwrap() {
        normalise(&mut row, |name| name == "amount");
        let told: Value = serde_json::from_str(row["payload"].as_deref().unwrap()).unwrap();
        row.insert("payload".to_owned(), Some(payload(&told)));
        let id = row["aggregate_id"].as_deref().unwrap();
        let aggregate = row["aggregate"].as_deref().unwrap();
        let key = format!("{aggregate}/{id}#{}", row["sequence"].as_deref().unwrap());
        assert!(rows.insert(key.clone(), row).is_none(), "{key} stands in ClickHouse twice");
    }
    rows
}

fn epoch(column: &str) -> String {
    format!("(extract(epoch FROM {column}) * 1000000)::bigint")
}

fn normalise(row: &mut Row, is_number: impl Fn(&str) -> bool) {
    for (_, value) in row.iter_mut().filter(|(name, _)| is_number(name)) {
        *value = value.as_deref().map(plain);
    }
}

#[track_caller]
pub(crate) fn assert_same(
    what: &str,
    found: &BTreeMap<String, Row>,
    expected: &BTreeMap<String, Row>,
) {
    for (key, row) in expected {
        assert_eq!(found.get(key), Some(row), "{what} of {key}");
    }
    let more: Vec<_> = found.keys().filter(|key| !expected.contains_key(*key)).collect();
    assert!(more.is_empty(), "{what} holds what the log does not: {more:?}");
}
