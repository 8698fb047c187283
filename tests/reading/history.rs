//! A stream's history and its state at every moment, over HTTP and on the command line: what a fold
//! of the log says, whatever ClickHouse knows of it.

use std::time::Duration;

use rust_decimal::Decimal;
use serde_json::{Value, json};

use crate::desk::Desk;
use crate::harness::commands::{deposit, transfer, withdraw};
use crate::harness::log::{Event, await_process_managers, await_transfers, events_of};
use crate::harness::namespace::{Namespace, texts};
use crate::harness::serve::Serve;
use crate::harness::stores::{analytics, execute, plain};
use crate::harness::{await_some, http, judge};

const WITHIN: Duration = Duration::from_secs(30);
const STREAM: &str = "banking.account/acc-1";

fn get(serve: &Serve, query: &str) -> (u16, Value) {
    let url = format!("{}/v1/streams/{query}", serve.url());
    let (status, body) = http::request("GET", &url, &[], "").unwrap();
    (status, serde_json::from_str(&body).unwrap())
}

#[track_caller]
fn ok(serve: &Serve, query: &str) -> Value {
    let (status, body) = get(serve, query);
    assert_eq!(status, 200, "{query}: {body}");
    body
}

/// The first account's events, after a bit of everything.
fn work(namespace: &Namespace, desk: &Desk) -> Vec<Event> {
    desk.open_accounts(&["acc-1".to_owned(), "acc-2".to_owned()]);
    desk.accepted("acc-1", &deposit("50.25"));
    desk.accepted("acc-1", &transfer("acc-2", "20"));
    desk.accepted("acc-1", &transfer("nobody", "7.5"));
    desk.accepted("acc-1", &withdraw("10"));
    desk.accepted("acc-1", &json!({"type": "FreezeAccount", "reason": "look"}));
    desk.accepted("acc-1", &json!({"type": "UnfreezeAccount"}));
    desk.accepted("acc-2", &transfer("acc-1", "3"));
    let log = await_transfers(namespace);
    await_process_managers(namespace);
    log
}

/// What the specification says of an account after some of its events.
fn folded(events: &[&Event]) -> (String, &'static str, Decimal) {
    let (mut balance, mut status, mut under_way) = (String::new(), "UNOPENED", Decimal::ZERO);
    for event in events {
        let text = |name: &str| event.message.text(name);
        let number = |name: &str| text(name).map_or(Decimal::ZERO, |text| text.parse().unwrap());
        if let Some(after) = text("balance_after").or(text("initial_deposit")) {
            balance = plain(after);
        }
        match event.short_name() {
            "AccountCreated" | "AccountUnfrozen" => status = "ACTIVE",
            "AccountFrozen" => status = "FROZEN",
            "MoneyTransferred" => under_way += number("amount") + number("transfer_fee"),
            "TransferReversed" => under_way -= number("amount") + number("transfer_fee"),
            // A settled transfer was 20 with a fee of 2.
            "TransferSettled" => under_way -= number("amount") + Decimal::TWO,
            _ => {}
        }
    }
    (balance, status, under_way)
}

#[track_caller]
fn is_state(found: &Value, own: &[&Event], version: usize) {
    let (balance, status, under_way) = folded(&own[..version]);
    assert_eq!(found["version"], version, "{found}");
    assert_eq!(found["time"].as_str(), own[version - 1].header("ce_time"));
    let state = &found["state"];
    assert_eq!(state["balance"], balance, "{found}");
    assert_eq!(state["status"], status, "{found}");
    let found: Decimal = state["under_way_total"].as_str().unwrap().parse().unwrap();
    assert_eq!(found, under_way, "at {version}");
}

#[track_caller]
fn is_history(lines: &[Value], own: &[&Event]) {
    assert_eq!(lines.len(), own.len());
    for (line, event) in lines.iter().zip(own) {
        assert_eq!(line["sequence"], event.sequence);
        assert_eq!(line["type"], event.short_name());
        for (name, header) in [
            ("event_id", "ce_id"),
            ("time", "ce_time"),
            ("command_id", "command_id"),
            ("causation_id", "causation_id"),
            ("correlation_id", "correlation_id"),
        ] {
            assert_eq!(line[name].as_str(), event.header(header), "{name}: {line}");
        }
        assert_eq!(line["offset"], event.message.record.place.offset);
        let fields = line["fields"].as_object().unwrap();
        for (name, value) in fields {
            assert_eq!(*value, event.message.fields[name], "{name}: {line}");
        }
    }
}

#[test]
fn every_moment_of_a_stream_is_a_fold_of_the_log() {
    let namespace = Namespace::new();
    let serve = Serve::ready(&namespace, "");
    let desk = Desk::open(&namespace);
    let log = work(&namespace, &desk);
    judge::read_models_equal_log(&namespace, &log);
    let own = events_of(&log, "acc-1");

    // ClickHouse has everything, so it is told from there.
    let page = ok(&serve, &format!("{STREAM}?size=200"));
    is_history(page["data"].as_array().unwrap(), &own);
    assert_eq!(page["source"], json!({"clickhouse": own.len(), "log": 0}));
    assert_eq!((&page["total_count"], &page["has_next_page"]), (&json!(own.len()), &json!(false)));
    let second = ok(&serve, &format!("{STREAM}?size=2&page=2"));
    is_history(second["data"].as_array().unwrap(), &own[2..4]);
    assert_eq!(second["has_next_page"], true);
    is_history(&namespace.json(&["history", STREAM]), &own);
    let told = namespace.json(&["history", STREAM, "--from-log"]);
    is_history(&told, &own);
    assert_eq!((&told[0]["source"], told[0].get("actor")), (&json!("log"), Some(&Value::Null)));

    every_moment(&namespace, &serve, &own);
    let saga = own.iter().find_map(|event| event.message.text("transfer_id")).unwrap();
    let saga = ok(&serve, &format!("banking.transfer/{saga}?at=2100-01-01T00:00:00Z"));
    assert_eq!(
        (&saga["state"]["phase"], &saga["state"]["amount"]),
        (&"COMPLETED".into(), &"20".into())
    );
    let user = ok(&serve, "banking.customer/of-acc-1?version=2");
    let confirmed = user["state"]["open"].as_object().unwrap().values().next().unwrap();
    assert_eq!(*confirmed, json!({"account_id": "acc-1", "confirmed": true}));
    what_never_was(&namespace, &serve, &own);
    serve.terminate();
    behind_the_log(&namespace, &desk);
}

fn every_moment(namespace: &Namespace, serve: &Serve, own: &[&Event]) {
    for version in 1..=own.len() {
        is_state(&ok(serve, &format!("{STREAM}?version={version}")), own, version);
        let at = own[version - 1].header("ce_time").unwrap();
        // Several events of one command may have one time: the last of them counts.
        let same = own.iter().filter(|event| event.header("ce_time").unwrap() <= at).count();
        is_state(&ok(serve, &format!("{STREAM}?at={at}")), own, same);
    }
    let at = own[3].header("ce_time").unwrap();
    for arguments in [["--version", "4"], ["--at", at]] {
        for more in [&[][..], &["--from-log"]] {
            let arguments = [&["history", STREAM][..], &arguments, more].concat();
            let state = namespace.json(&arguments).remove(0);
            is_state(&state, own, 4);
        }
    }
    let shown = namespace.done(&["history", STREAM, "--version", "1"]);
    assert!(shown.contains("\"balance\": \"100\""), "{shown}");
}

fn what_never_was(namespace: &Namespace, serve: &Serve, own: &[&Event]) {
    let beyond = format!("{STREAM}?version={}", own.len() + 1);
    for (query, status, code) in [
        ("banking.account/nobody", 404, "StreamNotFound"),
        ("banking.account/nobody?version=1", 404, "StreamNotFound"),
        (&beyond, 404, "VersionNotReached"),
        (&format!("{STREAM}?at=2020-01-01T00:00:00Z"), 404, "BeforeFirstEvent"),
        (&format!("{STREAM}?at=yesterday"), 400, ""),
        ("banking.nothing/x", 404, ""),
    ] {
        let (found, body) = get(serve, query);
        assert_eq!((found, body["code"].as_str().unwrap_or_default()), (status, code), "{query}");
    }
    for (arguments, code, word) in [
        (&["--version", "99"][..], 1, "has no version 99"),
        (&["--version", "0"], 2, "counts from 1"),
        (&["--at", "2020-01-01T00:00:00Z"], 1, "did not exist yet"),
        (&["--at", "yesterday"], 2, "no time such as"),
        (&["--at", "2020-01-01T00:00:00Z", "--version", "1"], 2, "cannot be used with"),
        (&["--consistency-token", "x"], 1, "no consistency token"),
    ] {
        let output = namespace.run(&[&["history", STREAM], arguments].concat());
        let (_, said) = texts(&output);
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {said}");
        assert!(said.contains(word), "{arguments:?}: {said}");
    }
}

/// Nobody projects: what ClickHouse lacks comes from the log, be it the end or something between.
fn behind_the_log(namespace: &Namespace, desk: &Desk) {
    let serve = Serve::ready(namespace, "handler,api");
    let told = desk.accepted("acc-1", &deposit("1"));
    let log = crate::harness::log::events(namespace);
    let own = events_of(&log, "acc-1");
    let query = format!("{STREAM}?size=200&consistency_token={}", told.token);
    let page = ok(&serve, &query);
    is_history(page["data"].as_array().unwrap(), &own);
    assert_eq!(page["source"], json!({"clickhouse": own.len() - 1, "log": 1}));
    is_state(&ok(&serve, &format!("{STREAM}?version={}", own.len())), &own, own.len());
    let waited = ["history", STREAM, "--consistency-token", told.token.as_str()];
    is_history(&namespace.json(&waited), &own);
    let other = ok(&serve, "banking.account/acc-2?size=1");
    assert_eq!(other["source"]["log"], 0, "{other}");
    let of_other = format!("banking.account/acc-2?consistency_token={}", told.token);
    assert_eq!(get(&serve, &of_other).0, 400, "another stream's token says nothing of this one");

    let table = format!("{}.banking_event_g1", namespace.schema("millrace"));
    let which = "aggregate = 'account' AND aggregate_id = 'acc-1' AND sequence = 3";
    let lose = format!("ALTER TABLE {table} DELETE WHERE {which} SETTINGS mutations_sync = 1");
    execute(namespace, &lose).unwrap();
    await_some("a lost row", WITHIN, || {
        let select = format!("SELECT count() AS n FROM {table} WHERE {which}");
        let left = analytics(namespace, &select)?[0]["n"].clone();
        if left.as_deref() == Some("0") { Ok(()) } else { Err(format!("{left:?}")) }
    });
    let page = ok(&serve, &query);
    is_history(page["data"].as_array().unwrap(), &own);
    let note = "event 3 is missing in ClickHouse";
    let source = json!({"clickhouse": 2, "log": own.len() - 2, "note": note});
    assert_eq!(page["source"], source);
    serve.terminate();
}
