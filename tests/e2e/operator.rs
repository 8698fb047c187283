//! An operator: sees sagas, speaks to them, sends again what broke, and reads what no answer tells.

use std::time::Duration;

use serde_json::{Value, json};

use crate::harness::await_some;
use crate::harness::commands::{command_with_id, create, new_id, transfer};
use crate::harness::judge;
use crate::harness::kafka::{Message, Producer, own_partition};
use crate::harness::log::events_of_kind;
use crate::harness::namespace::Namespace;
use crate::harness::serve::Serve;
use crate::process_manager::{KEY, ProcessManager, signed};

/// Runs `sagas` with the installation's key: exit code, lines, what it says besides.
fn sagas(namespace: &Namespace, arguments: &[&str]) -> (Option<i32>, Vec<Value>, String) {
    let mut command = namespace.command(&[&["--json", "sagas"], arguments].concat());
    let output = command.env("MILLRACE_INTERNAL_KEY", KEY).output().unwrap();
    let lines = String::from_utf8(output.stdout).unwrap();
    let lines = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    (output.status.code(), lines, String::from_utf8(output.stderr).unwrap())
}

#[test]
fn an_operator_sees_sagas_and_speaks_to_them() {
    let namespace = Namespace::new();
    let key = [("MILLRACE_INTERNAL_KEY", KEY)];
    // No reactors, so that the saga stays where it is.
    let mut serve = Serve::start_with(&namespace, "handler", &key);
    serve.wait_ready();
    let topic = format!("{}.banking.transfer.commands", namespace.name);
    let id = new_id().to_string();
    let start = json!({
        "type": "StartTransfer", "user_id": "ann", "currency": "USD", "from_account_id": "a",
        "to_account_id": "b", "amount": "12.50", "fee": "2", "reference": "rent",
    });
    let producer = Producer::new(&namespace.stack);
    producer.send(&topic, &[signed(&topic, &id, new_id(), &start, 1)]);
    let run = |arguments: &[&str]| sagas(&namespace, arguments);
    let listed = |state: &str| run(&["list", "--state", state]).1;
    let waiting = await_some("the saga", Duration::from_secs(30), || {
        listed("open").pop().ok_or_else(|| "none".to_owned())
    });
    assert_eq!(waiting["saga"], id);
    assert_eq!(waiting["process_manager"], "transfer");
    assert_eq!(waiting["about"], "12.5 USD from a to b");
    assert_eq!((&waiting["state"], &waiting["step"]), (&json!("WAITING"), &json!("RECEIVE")));
    assert_eq!((&waiting["attempt"], &waiting["version"]), (&json!(1), &json!(1)));
    assert!(waiting["deadline"].is_string() && waiting["last_error"].is_null(), "{waiting}");
    assert!(listed("parked").is_empty());

    let (code, _, said) = run(&["resume", "transfer", &id]);
    assert!(code == Some(1) && said.contains("is not parked"), "{said}");
    let (code, told, said) = run(&["abandon", "transfer", &id, "--reason", "under review"]);
    assert_eq!((code, &told[0]["outcome"]), (Some(0), &json!("ACCEPTED")), "{said}");
    let parked = listed("parked").pop().unwrap();
    assert_eq!(parked["last_error"], "abandoned: under review");
    assert!(parked["deadline"].is_null(), "{parked}");
    let (code, told, said) = run(&["resume", "transfer", &id]);
    assert_eq!((code, &told[0]["outcome"]), (Some(0), &json!("ACCEPTED")), "{said}");
    assert!(listed("parked").is_empty());
    let (code, shown, _) = run(&["show", "transfer", &id]);
    assert_eq!((code, &shown[0]["state"]), (Some(0), &json!("WAITING")));
    let types: Vec<_> = shown[1..].iter().map(|event| event["type"].as_str().unwrap()).collect();
    assert_eq!(types, ["TransferStarted", "TransferParked", "StepRepeated"]);
    assert!(shown[1..].iter().all(|event| event["causation_id"].is_string()), "{shown:?}");
    assert_eq!(shown[2]["actor"], "operator");

    // Without the key it is nobody's word; and nobody hears of a saga that is not there.
    let forged = namespace.run(&["sagas", "abandon", "transfer", &id, "--reason", "mine"]);
    assert_eq!(forged.status.code(), Some(1), "{forged:?}");
    let (code, _, said) = run(&["show", "transfer", "nothing"]);
    assert!(code == Some(1) && said.contains("there is no transfer"), "{said}");
    serve.terminate();
}

#[test]
fn an_operator_sends_again_what_broke_at_a_saga() {
    let namespace = Namespace::new();
    let key = [("MILLRACE_INTERNAL_KEY", KEY)];
    let mut serve = Serve::start_with(&namespace, "handler", &key);
    serve.wait_ready();
    let topic = |kind: &str| format!("{}.banking.transfer.{kind}", namespace.name);
    let producer = Producer::new(&namespace.stack);
    let (id, command_id) = (new_id().to_string(), new_id());
    let start = json!({
        "type": "StartTransfer", "user_id": "ann", "currency": "USD", "from_account_id": "a",
        "to_account_id": "b", "amount": "12.50", "fee": "2",
    });
    // As a handler keeps a command whose decision broke; and one that nobody of ours had sent.
    let letter = |message: Message| {
        message
            .header("correlation_id", "desk-3")
            .header("error_code", "InternalError")
            .header("error_message", "the decision broke: one off")
            .header("failed_at", "2026-01-01T00:00:00Z")
    };
    let ours = signed(&topic("commands"), &id, command_id, &start, 7);
    let forged = new_id().to_string();
    let theirs = command_with_id(&forged, new_id(), &start);
    let theirs = Message { partition: Some(own_partition(forged.as_bytes(), 2)), ..theirs }
        .header("origin", format!("process-manager;manager;{};0;9;0;00", uuid::Uuid::nil()));
    producer.send(&topic("dead-letters"), &[letter(ours), letter(theirs)]);

    let (code, listed, said) = sagas(&namespace, &["list"]);
    assert_eq!((code, listed.len()), (Some(0), 2), "{said}");
    let found = listed.iter().find(|saga| saga["saga"] == id.as_str()).unwrap();
    assert_eq!((&found["state"], &found["version"]), (&json!("FAILED"), &json!(0)));
    assert_eq!(found["about"], "12.5 USD from a to b");
    assert_eq!(found["last_error"], "the decision broke: one off");
    assert_eq!(found["failed_commands"][0]["command"], "StartTransfer");
    assert_eq!(found["failed_commands"][0]["command_id"], command_id.to_string());
    let (code, shown, said) = sagas(&namespace, &["show", "transfer", &id]);
    assert_eq!((code, shown.len()), (Some(0), 1), "{said}");
    assert_eq!(shown[0]["failed_commands"], found["failed_commands"]);
    let (code, _, said) = sagas(&namespace, &["abandon", "transfer", &id, "--reason", "x"]);
    assert!(code == Some(1) && said.contains("never began"), "{said}");

    let (code, told, said) = sagas(&namespace, &["resume", "transfer", &id]);
    assert_eq!((code, &told[0]["outcome"]), (Some(0), &json!("ACCEPTED")), "{said}");
    assert_eq!(told[0]["command_id"], command_id.to_string());
    let (_, shown, _) = sagas(&namespace, &["show", "transfer", &id]);
    assert_eq!((&shown[0]["state"], &shown[0]["step"]), (&json!("WAITING"), &json!("RECEIVE")));
    assert_eq!(shown[1]["correlation_id"], "desk-3", "{shown:?}");
    let (code, _, said) = sagas(&namespace, &["resume", "transfer", &id]);
    assert!(code == Some(1) && said.contains("is not parked"), "{said}");

    let (code, told, said) = sagas(&namespace, &["resume", "transfer", &forged]);
    assert!(code == Some(1) && told.is_empty() && said.contains("not signed"), "{said}");
    let (_, listed, _) = sagas(&namespace, &["list", "--state", "failed"]);
    assert_eq!(listed.len(), 1, "{listed:?}");
    serve.terminate();
}

#[test]
fn an_operator_reads_what_a_repeated_answer_does_not_tell() {
    let namespace = Namespace::new();
    // No reactors: the test says what they would, and keeps back the news.
    let mut serve = Serve::start_with(&namespace, "handler", &[("MILLRACE_INTERNAL_KEY", KEY)]);
    serve.wait_ready();
    let mut manager = ProcessManager::new(&namespace);
    assert!(manager.open("from", create("ann", "CHECKING", "500")).is_accepted());
    assert!(manager.client("from", &transfer("nobody", "30")).is_accepted());
    let all = judge::log_is_sound(&namespace);
    let sent = all.iter().find(|event| event.short_name() == "MoneyTransferred").unwrap();
    let saga = sent.header("ce_id").unwrap().to_owned();
    let mut offset = 0;
    let mut say = |aggregate: &str, to: &str, body: Value| {
        offset += 1;
        let topic = format!("{}.banking.{aggregate}.commands", namespace.name);
        let message = signed(&topic, to, new_id(), &body, offset);
        Producer::new(&namespace.stack).send(&topic, &[message]);
    };
    let at = |manager: &str, id: &str, step: &str| {
        await_some(step, Duration::from_secs(30), || {
            let (_, shown, said) = sagas(&namespace, &["show", manager, id]);
            let found = shown.first().map(|saga| saga["step"].clone());
            if found == Some(json!(step)) { Ok(()) } else { Err(format!("{found:?} {said}")) }
        });
    };
    let parked = |manager: &str, id: &str| {
        let (code, _, said) = sagas(&namespace, &["abandon", manager, id, "--reason", "first"]);
        assert_eq!(code, Some(0), "{said}");
        let (code, told, said) = sagas(&namespace, &["abandon", manager, id, "--reason", "why"]);
        assert_eq!((code, told[0]["first_sequence"].is_u64()), (Some(0), true), "{said}");
        let (_, shown, _) = sagas(&namespace, &["show", manager, id]);
        assert_eq!(shown[0]["last_error"], "abandoned: why");
    };

    // The sender has it back, and the saga was never told.
    let start = json!({
        "type": "StartTransfer", "user_id": "ann", "currency": "USD", "from_account_id": "from",
        "to_account_id": "nobody", "amount": "30", "fee": "2",
    });
    say("transfer", &saga, start);
    let refused = json!({"type": "RecordRefused", "step": "RECEIVE", "code": "AccountNotFound"});
    say("transfer", &saga, refused);
    let reverse = json!({"type": "ReverseTransfer", "transfer_id": saga, "reason": "not found"});
    assert!(manager.say("from", &reverse).is_accepted());
    at("transfer", &saga, "REVERSE");
    parked("transfer", &saga);
    let (code, _, said) = sagas(&namespace, &["resume", "transfer", &saga]);
    assert!(code == Some(0) && said.contains("stream of from"), "{said}");
    let (_, shown, _) = sagas(&namespace, &["show", "transfer", &saga]);
    assert_eq!(shown[0]["state"], "REVERSED");
    let (_, open, _) = sagas(&namespace, &["list"]);
    assert!(open.is_empty(), "{open:?}");
    let (_, all, _) = sagas(&namespace, &["list", "--state", "all"]);
    assert_eq!(all.len(), 1, "{all:?}");

    // The customer has a slot for it, and the saga was never told.
    let slot = new_id().to_string();
    let start = json!({
        "type": "StartOpening", "account_id": "acc", "user_id": "ann", "account_type": "CHECKING",
        "initial_deposit": "100", "currency": "USD", "client_command_id": new_id().to_string(),
    });
    say("account-opening", &slot, start);
    let reserve = json!({"type": "ReserveSlot", "slot_id": slot, "account_id": "acc"});
    say("customer", "ann", reserve);
    await_some("a slot", Duration::from_secs(30), || {
        let events = events_of_kind(&namespace, "customer");
        if events.is_empty() { Err("none".to_owned()) } else { Ok(()) }
    });
    at("account-opening", &slot, "RESERVE");
    parked("account-opening", &slot);
    let (code, _, said) = sagas(&namespace, &["resume", "account-opening", &slot]);
    assert!(code == Some(0) && said.contains("stream of ann"), "{said}");
    at("account-opening", &slot, "OPEN");
    serve.terminate();
}
