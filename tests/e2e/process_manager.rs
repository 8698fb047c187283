//! Process managers: transfers and openings from end to end, a replay of reactors that emits
//! nothing, and what only a process manager may say, signed as one would, down to the rows.

use std::collections::HashMap;
use std::time::Duration;

use ring::hmac;
use serde_json::{Value, json};
use uuid::Uuid;

use millrace::engine::origin::{Origin, Sender, Signed, Source};

use crate::harness::await_some;
use crate::harness::commands::{command_with_id, create, new_id, transfer};
use crate::harness::judge;
use crate::harness::kafka::{Message, Producer, own_partition, read_all};
use crate::harness::log::{Answers, Message as Decoded, await_transfers, events_of_kind};
use crate::harness::namespace::Namespace;
use crate::harness::serve::Serve;
use crate::harness::stores::Postgres;

pub(crate) const KEY: &str = "a key that both sides know";

/// Sends commands with a signed origin, each with the next offset of its cause.
pub(crate) struct ProcessManager<'n> {
    namespace: &'n Namespace,
    producer: Producer,
    answers: Answers<'n>,
    offset: i64,
}

impl<'n> ProcessManager<'n> {
    pub(crate) fn new(namespace: &'n Namespace) -> Self {
        let producer = Producer::new(&namespace.stack);
        Self { namespace, producer, answers: Answers::new(namespace), offset: 0 }
    }

    fn signed(&self, account: &str, id: Uuid, body: &Value) -> Message {
        signed(&self.namespace.topic("commands"), account, id, body, self.offset)
    }

    pub(crate) fn say(&mut self, account: &str, body: &Value) -> Decoded {
        self.offset += 1;
        let id = new_id();
        let message = self.signed(account, id, body);
        self.producer.send(&self.namespace.topic("commands"), &[message]);
        self.answers.first(id)
    }

    /// Grants a client its slot; gives the client's own answer.
    pub(crate) fn open(&mut self, account: &str, mut body: Value) -> Decoded {
        let client = new_id();
        body["grant_slot_id"] = json!(new_id().to_string());
        body["grant_client_command_id"] = json!(client.to_string());
        body["grant_client_reply_to"] = json!("desk-3");
        let granted = self.say(account, &body);
        assert!(granted.record.header("result_of").is_some(), "{granted:?}");
        self.answers.first(client)
    }

    pub(crate) fn client(&mut self, account: &str, body: &Value) -> Decoded {
        let id = new_id();
        let message = command_with_id(account, id, body);
        self.producer.send(&self.namespace.topic("commands"), &[message]);
        self.answers.first(id)
    }
}

/// A command that names its cause, and that nobody but a process manager could have signed.
pub(crate) fn signed(topic: &str, to: &str, id: Uuid, body: &Value, offset: i64) -> Message {
    let message = command_with_id(to, id, body);
    let source = Source { group: "manager".to_owned(), topic_id: Uuid::nil(), partition: 0 };
    let origin = Origin { sender: Sender::ProcessManager, source, offset, index: 0 };
    let id = id.to_string();
    let signed = Signed {
        topic,
        key: to.as_bytes(),
        command_id: id.as_bytes(),
        value: message.value.as_deref().unwrap(),
    };
    let key = hmac::Key::new(hmac::HMAC_SHA256, KEY.as_bytes());
    let header = origin.to_header(signed, &key);
    Message { partition: Some(own_partition(to.as_bytes(), 2)), ..message }.header("origin", header)
}

#[test]
fn what_a_process_manager_signs_is_done_down_to_the_rows() {
    let namespace = Namespace::new();
    // No reactors: the test says what they would.
    let roles = "handler,postgres,clickhouse";
    let mut serve = Serve::start_with(&namespace, roles, &[("MILLRACE_INTERNAL_KEY", KEY)]);
    serve.wait_ready();
    let mut manager = ProcessManager::new(&namespace);
    let from = manager.open("from", create("ann", "CHECKING", "50000"));
    assert!(from.is_accepted());
    assert_eq!(from.record.header("reply_to"), Some("desk-3"));
    assert!(manager.open("to", create("bob", "CHECKING", "100")).is_accepted());
    assert!(manager.client("from", &transfer("to", "20000")).is_accepted());
    assert!(manager.client("from", &transfer("nobody", "300")).is_accepted());
    let all = judge::log_is_sound(&namespace);
    let mut sent = all.iter().filter(|event| event.short_name() == "MoneyTransferred");
    let mut next = || sent.next().unwrap().header("ce_id").unwrap().to_owned();
    let (arriving, returning) = (next(), next());

    let receive = json!({
        "type": "ReceiveTransfer", "transfer_id": arriving, "from_account_id": "from",
        "amount": "20000", "currency": "USD", "reference": "house",
        "valid_until": "2100-01-01T00:00:00Z",
    });
    assert_eq!(manager.say("to", &receive).fields["version"], 2);
    // Received once only, also under another command id.
    let again = manager.say("to", &receive);
    assert!(again.is_accepted() && again.fields["first_sequence"].is_null(), "{again:?}");
    let settle = json!({"type": "SettleTransfer", "transfer_id": arriving, "to_account_id": "to"});
    assert_eq!(manager.say("from", &settle).fields["version"], 4);
    let reverse =
        json!({"type": "ReverseTransfer", "transfer_id": returning, "reason": "not found"});
    assert_eq!(manager.say("from", &reverse).fields["version"], 5);
    let late = manager.say("from", &reverse);
    assert_eq!(late.fields["code"], "TransferNotOpen");
    let old = json!({
        "type": "ReceiveTransfer", "transfer_id": returning, "from_account_id": "from",
        "amount": "300", "currency": "USD", "valid_until": "2020-01-01T00:00:00Z",
    });
    assert_eq!(manager.say("to", &old).fields["code"], "Unverifiable");

    let first = all.iter().find(|event| event.account == "from").unwrap();
    let correct = json!({
        "type": "CorrectEntry", "compensates_event_id": first.header("ce_id"), "amount": "-10",
        "reason": "miscounted",
    });
    assert!(manager.client("from", &correct).is_accepted());

    let all = judge::log_is_sound(&namespace);
    judge::read_models_equal_log(&namespace, &all);
    let postgres = Postgres::connect(&namespace).unwrap();
    let rows = judge::summaries(&namespace, &postgres);
    let sums = |id: &str| {
        let names = ["current_balance", "pending_out", "total_transfers_in", "total_transfers_out"];
        let text = names.map(|name| rows[id][name].clone().unwrap()).join(" ");
        format!("{text} {}", rows[id]["total_fees"].as_deref().unwrap())
    };
    // 50,000 - 20,000 - 10 (fee) - 302 + 302 - 10.
    assert_eq!(sums("from"), "29980 0 0 20000 10");
    assert_eq!(sums("to"), "20100 0 20000 0 0");
    let transactions = judge::transactions(&namespace, &postgres);
    let kinds: Vec<_> = transactions
        .iter()
        .map(|(key, row)| {
            let told = ["type", "amount", "fee"].map(|name| row[name].as_deref().unwrap());
            format!("{key} {}", told.join(" "))
        })
        .collect();
    let expected = [
        "from#1 CREDIT 50000 0",
        "from#2 TRANSFER_OUT 20000 10",
        "from#3 TRANSFER_OUT 300 2",
        "from#5 REVERSAL 300 -2",
        "from#6 CORRECTION -10 0",
        "to#1 CREDIT 100 0",
        "to#2 TRANSFER_IN 20000 0",
    ];
    assert_eq!(kinds, expected);
    serve.terminate();
}

/// How many commands wait or waited in each partition of every aggregate's commands topic.
fn command_ends(namespace: &Namespace) -> Vec<(String, usize)> {
    let aggregates = ["account", "customer", "transfer", "account-opening"];
    let topics = aggregates.map(|name| format!("{}.banking.{name}.commands", namespace.name));
    topics.map(|topic| (topic.clone(), read_all(namespace, &topic).len())).into()
}

#[test]
fn transfers_end_the_sixth_account_loses_and_a_reset_of_reactors_emits_nothing() {
    let namespace = Namespace::new();
    let serve = Serve::ready(&namespace, "handler,postgres,clickhouse");
    let reactors = Serve::ready(&namespace, "reactor");
    let producer = Producer::new(&namespace.stack);
    let topic = namespace.topic("commands");
    let mut answers = Answers::new(&namespace);

    // Seven wishes at once for one customer: exactly five are granted.
    let ids: Vec<Uuid> = (0..7).map(|_| new_id()).collect();
    let opening = |(at, id): (usize, &Uuid)| {
        command_with_id(&format!("acc-{at}"), *id, &create("ann", "CHECKING", "1000"))
    };
    producer.send(&topic, &ids.iter().enumerate().map(opening).collect::<Vec<_>>());
    answers.await_count(&ids, 1);
    let (opened, refused): (Vec<_>, Vec<_>) =
        (0..7).partition(|at| answers.all(ids[*at])[0].is_accepted());
    assert_eq!((opened.len(), refused.len()), (5, 2));
    for at in &refused {
        assert_eq!(answers.all(ids[*at])[0].text("code"), Some("AccountLimit"));
    }
    // A repeat of either is answered as before, whatever happened since.
    for at in [opened[0], refused[0]] {
        producer.send(&topic, &[opening((at, &ids[at]))]);
        let repeat = answers.nth(ids[at], 2);
        assert!(repeat.is_duplicate(), "{repeat:?}");
    }
    // A closed account frees its slot.
    let close = [json!({"type": "Withdraw", "amount": "1000"}), json!({"type": "CloseAccount"})];
    for body in &close {
        let id = new_id();
        producer.send(&topic, &[command_with_id(&format!("acc-{}", opened[4]), id, body)]);
        assert!(answers.first(id).is_accepted());
    }
    await_some("a freed slot", Duration::from_secs(30), || {
        let id = new_id();
        let again = create("ann", "SAVINGS", "1000");
        producer.send(&topic, &[command_with_id(&format!("acc-{id}"), id, &again)]);
        let answer = answers.first(id);
        if answer.is_accepted() { Ok(()) } else { Err(format!("{answer:?}")) }
    });

    // Between the open ones, to one that does not exist, and to one that takes no money.
    let name = |at: usize| format!("acc-{}", opened[at]);
    let frozen = new_id();
    let freeze = json!({"type": "FreezeAccount"});
    producer.send(&topic, &[command_with_id(&name(3), frozen, &freeze)]);
    assert!(answers.first(frozen).is_accepted());
    let mut sent = Vec::new();
    for round in 0..60 {
        let to = match round % 6 {
            0 => "nobody".to_owned(),
            1 => name(3),
            _ => name((round + 1) % 3),
        };
        let id = new_id();
        sent.push(id);
        producer.send(&topic, &[command_with_id(&name(round % 3), id, &transfer(&to, "3"))]);
    }
    answers.await_count(&sent, 1);
    assert!(sent.iter().all(|id| answers.all(*id)[0].is_accepted()));
    let all = await_transfers(&namespace);
    let count = |name: &str| all.iter().filter(|event| event.short_name() == name).count();
    assert_eq!(["MoneyReceived", "TransferSettled", "TransferReversed"].map(count), [40, 40, 20]);
    assert_eq!(judge::log_is_sound(&namespace).len(), all.len());
    judge::results_match_log(&answers.into_all(), &all);
    judge::read_models_equal_log(&namespace, &all);

    // The groups go back to the beginning, and everything has been said already.
    reactors.terminate();
    let before = command_ends(&namespace);
    for manager in ["transfer", "account-opening"] {
        namespace.kafka_tool(&[
            "consumer-groups",
            "--group",
            &namespace.group(&format!("reactor.{manager}")),
            "--all-topics",
            "--reset-offsets",
            "--to-earliest",
            "--execute",
        ]);
    }
    let reactors = Serve::ready(&namespace, "reactor");
    let id = new_id();
    let last = command_with_id(&name(0), id, &transfer("nobody", "4"));
    let partition = Some(own_partition(name(0).as_bytes(), 2));
    producer.send(&topic, &[Message { partition, ..last }]);
    let after = await_some("the next transfer", Duration::from_secs(30), || {
        let all = await_transfers(&namespace);
        let count = all.iter().filter(|one| one.short_name() == "TransferReversed").count();
        if count == 21 { Ok(command_ends(&namespace)) } else { Err(format!("{count}")) }
    });
    // The account: the transfer, what nobody receives, its reversal. The saga: the start, the
    // refusal, the reversal.
    let more = |at: usize| after[at].1 - before[at].1;
    assert_eq!([more(0), more(1), more(2), more(3)], [3, 0, 3, 0], "{before:?} {after:?}");
    reactors.terminate();
    serve.terminate();
}

#[test]
fn timers_are_never_early_and_hardly_late_after_a_kill_too() {
    const SAGAS: usize = 300;
    let namespace = Namespace::new();
    let key = [("MILLRACE_INTERNAL_KEY", KEY)];
    // No reactors, so that nobody answers and every deadline passes.
    let mut serve = Serve::start_with(&namespace, "handler", &key);
    serve.wait_ready();
    let topic = format!("{}.banking.transfer.commands", namespace.name);
    let start = json!({
        "type": "StartTransfer", "user_id": "ann", "currency": "USD", "from_account_id": "a",
        "to_account_id": "b", "amount": "1", "fee": "2",
    });
    let started = (1..)
        .take(SAGAS)
        .map(|offset| signed(&topic, &new_id().to_string(), new_id(), &start, offset));
    Producer::new(&namespace.stack).send(&topic, &started.collect::<Vec<_>>());
    let count = |name: &str| {
        let all = events_of_kind(&namespace, "transfer");
        all.iter().filter(|event| event.short_name() == name).count()
    };
    let reached = |name: &str| {
        await_some(name, Duration::from_secs(60), || {
            let found = count(name);
            if found == SAGAS { Ok(()) } else { Err(format!("{found} of {SAGAS}")) }
        });
    };
    reached("TransferStarted");
    // The next owner has them from the log, and is there in time: deadlines are 10 s away.
    serve.kill();
    let mut serve = Serve::start_with(&namespace, "handler", &key);
    serve.wait_ready();
    let ready = millrace::clock::now().0;
    reached("StepRepeated");
    let mut due = HashMap::new();
    let mut late: Vec<i64> = Vec::new();
    for event in events_of_kind(&namespace, "transfer") {
        let at = event.header("ce_time").unwrap();
        let at = chrono::DateTime::parse_from_rfc3339(at).unwrap().timestamp_micros();
        if let Some(due) =
            due.insert(event.account.clone(), event.message.fields["deadline"].as_i64())
        {
            let due = due.unwrap();
            assert!(at >= due, "early by {} us", due - at);
            // While nobody owned the partition, nobody could be in time.
            late.push((at - due.max(ready)).max(0));
        }
    }
    late.sort_unstable();
    let p99 = late[late.len() * 99 / 100];
    println!("{} timers: p99 {p99} us late", late.len());
    assert!(late.len() >= SAGAS);
    assert!(p99 <= 1_000_000, "p99 is late by {p99} us");
    serve.terminate();
}
