//! Commands as other libraries send them, and all that comes of them, field by field.

use std::collections::HashMap;

use apache_avro::types::Value as Avro;
use chrono::DateTime;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::harness::avro::{Registry, encode, money};
use crate::harness::commands::{command, command_with_id, create, deposit, new_id, withdraw};
use crate::harness::judge;
use crate::harness::kafka::{Message, Place, Producer, own_partition};
use crate::harness::log::{Answers, Event, Message as Decoded, events, events_of};
use crate::harness::namespace::Namespace;
use crate::harness::serve::Serve;
use crate::harness::stores::{Postgres, analytics};

const TRACE: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

/// A command with everything that may travel with it.
fn told(account: &str, id: Uuid, body: &Value) -> Message {
    command_with_id(account, id, body)
        .header("ce_time", "2026-11-21T10:15:00.5Z")
        .header("reply_to", "desk-7")
        .header("actor", "teller-1")
        .header("correlation_id", "visit-9")
        .header("causation_id", "click-3")
        .header("ip_address", "192.0.2.7")
        .header("traceparent", TRACE)
        .header("meta_branch", "zurich")
}

#[test]
fn what_comes_of_a_command_is_right_in_every_field() {
    let namespace = Namespace::new();
    let serve = Serve::ready(&namespace, "handler,postgres,clickhouse");
    let reactors = Serve::ready(&namespace, "reactor");
    let producer = Producer::new(&namespace.stack);
    let bodies = [
        create("ann", "savings", "5000.00"),
        json!({"type": "Deposit", "amount": "150.5", "reference": "salary", "unknown": [1, {}]}),
        json!({"type": "Withdraw", "amount": "1200.00"}),
        json!({"type": "Transfer", "to_account_id": "acc-2", "amount": "300", "reference": "rent"}),
        json!({"type": "FreezeAccount", "reason": "lost card"}),
        json!({"type": "Withdraw", "amount": "1.00"}),
        json!({"type": "UnfreezeAccount"}),
        json!({"type": "Withdraw", "amount": "999999.99", "reference": "all of it"}),
    ];
    let ids: Vec<Uuid> = bodies.iter().map(|_| new_id()).collect();
    let commands: Vec<Message> =
        ids.iter().zip(&bodies).map(|(id, body)| told("acc-1", *id, body)).collect();
    let mut answers = Answers::new(&namespace);
    // The customer is asked first: whoever goes on before the answer finds no account.
    producer.send(&namespace.topic("commands"), &commands[..1]);
    answers.await_count(&ids[..1], 1);
    // The transfer is to stay under way.
    reactors.terminate();
    producer.send(&namespace.topic("commands"), &commands[1..]);
    answers.await_count(&ids, 1);
    let all = judge::log_is_sound(&namespace);
    let own = events_of(&all, "acc-1");
    assert_eq!(own.len(), 6);
    check_results(&answers, &ids);
    let expected = [
        (
            "AccountCreated",
            json!({"account_id": "acc-1", "user_id": "ann", "currency": "USD",
            "account_type": "SAVINGS", "initial_deposit": "5000"}),
        ),
        (
            "MoneyDeposited",
            json!({"user_id": "ann", "currency": "USD", "amount": "150.5",
            "balance_after": "5150.5", "reference": "salary"}),
        ),
        (
            "MoneyWithdrawn",
            json!({"user_id": "ann", "currency": "USD", "amount": "1200",
            "fee": "5", "balance_after": "3945.5"}),
        ),
        (
            "MoneyTransferred",
            json!({"user_id": "ann", "currency": "USD", "amount": "300",
            "transfer_fee": "2", "balance_after": "3643.5", "reference": "rent",
            "to_account_id": "acc-2", "transfer_id": own[3].header("ce_id")}),
        ),
        ("AccountFrozen", json!({"user_id": "ann", "currency": "USD", "reason": "lost card"})),
        ("AccountUnfrozen", json!({"user_id": "ann", "currency": "USD"})),
    ];
    let commands_of_events = [0, 1, 2, 3, 4, 6];
    for (index, (name, fields)) in expected.iter().enumerate() {
        let id = ids[commands_of_events[index]];
        check_event(&namespace, own[index], index as u64 + 1, name, fields, id);
        let decided = &answers.all(id)[0].fields["decided_at"];
        assert_eq!(decided.as_i64(), Some(time(own[index].header("ce_time").unwrap())));
    }
    judge::read_models_equal_log(&namespace, &all);
    check_rows(&namespace, &own);
    serve.terminate();
}

/// An event's fields without those that are null, which is the same as absent, and without the
/// slot, which is the process manager's to choose.
fn told_fields(event: &Event) -> Value {
    let mut fields = event.message.fields.clone();
    fields.as_object_mut().unwrap().retain(|name, value| !value.is_null() && name != "slot_id");
    fields
}

fn time(text: &str) -> i64 {
    DateTime::parse_from_rfc3339(text).unwrap().timestamp_micros()
}

fn check_results(answers: &Answers<'_>, ids: &[Uuid]) {
    let of = |at: usize| &answers.all(ids[at])[0];
    let partition = of(0).record.place.partition;
    assert_eq!(partition, own_partition(b"acc-1", 2));
    let sequences = [Some(1), Some(2), Some(3), Some(4), Some(5), None, Some(6), None];
    for (at, sequence) in sequences.iter().enumerate() {
        let result = of(at);
        assert_eq!(result.record.place.partition, partition);
        let headers: Vec<_> = ["reply_to", "correlation_id", "traceparent"]
            .map(|name| result.record.header(name).unwrap_or_default())
            .into();
        assert_eq!(headers, ["desk-7", "visit-9", TRACE]);
        let told = &result.fields;
        let accepted = sequence.is_some();
        assert_eq!(told["outcome"], if accepted { "ACCEPTED" } else { "REJECTED" });
        assert_eq!(told["aggregate_id"], "acc-1");
        assert_eq!(told["first_sequence"], json!(sequence));
        assert_eq!(told["last_sequence"], json!(sequence));
        assert_eq!(told["version"], [1, 2, 3, 4, 5, 5, 6, 6][at]);
        assert_eq!(told["duplicate"], false);
        assert_eq!(told["retryable"], false);
        assert_eq!(told["code"].is_null(), accepted);
        assert_eq!(told["message"].is_null(), accepted);
        assert_eq!(told["content_hash"].as_str().unwrap().len(), 64);
        assert!(!told["consistency_token"].as_str().unwrap().is_empty());
    }
    assert_eq!(of(5).fields["code"], "AccountInactive");
    assert_eq!(of(7).fields["code"], "InsufficientFunds");
    let details = json!({"available": "3643.50", "requested": "1000004.99"});
    assert_eq!(of(7).fields["details"], details);
}

fn check_event(
    namespace: &Namespace,
    event: &Event,
    sequence: u64,
    name: &str,
    fields: &Value,
    command_id: Uuid,
) {
    assert_eq!(event.message.name, format!("millrace.banking.account.{name}"));
    assert_eq!(told_fields(event), *fields, "{name}");
    let mut key = b"acc-1\0".to_vec();
    key.extend_from_slice(&sequence.to_be_bytes());
    assert_eq!(event.message.record.key.as_deref(), Some(key.as_slice()));
    assert_eq!(event.message.record.place.partition, own_partition(b"acc-1", 2));
    let (id, command_id) = (event.header("ce_id").unwrap(), command_id.to_string());
    assert_eq!(Uuid::parse_str(id).unwrap().get_version_num(), 8);
    let (source, sequence) = (namespace.topic("events"), sequence.to_string());
    // What is written is the newest version, numbered as the registry numbers it.
    let subject = format!("{}-{}", namespace.topic("events"), event.message.name);
    let version = Registry::new(namespace).version(&subject).to_string();
    // An opening's last step is caused by the saga.
    let opens = name == "AccountCreated";
    let causation = if opens { event.header("causation_id").unwrap() } else { "click-3" };
    let expected: HashMap<&str, &str> = [
        ("ce_specversion", "1.0"),
        ("ce_id", id),
        ("ce_type", &event.message.name),
        ("ce_source", &source),
        ("ce_subject", "acc-1"),
        ("ce_time", event.header("ce_time").unwrap()),
        ("sequence", &sequence),
        ("schema_version", &version),
        ("command_id", &command_id),
        ("command_time", "2026-11-21T10:15:00.5Z"),
        ("correlation_id", "visit-9"),
        ("causation_id", causation),
        ("actor", "teller-1"),
        ("ip_address", "192.0.2.7"),
        ("traceparent", TRACE),
        ("meta_branch", "zurich"),
    ]
    .into();
    let names = event.message.record.headers.iter().map(|(name, _)| name.as_str());
    let found: HashMap<&str, &str> =
        names.map(|name| (name, event.header(name).unwrap())).collect();
    assert_eq!(found, expected, "headers of {name}");
    assert_eq!(event.message.record.headers.len(), expected.len(), "no header twice");
}

/// The same rows once more, written out by hand: the fold itself must be right.
fn check_rows(namespace: &Namespace, own: &[&Event]) {
    let postgres = Postgres::connect(namespace).unwrap();
    let summary = &judge::summaries(namespace, &postgres)["acc-1"];
    let newest: Vec<_> =
        own[..4].iter().rev().map(|event| event.header("ce_id").unwrap()).collect();
    let (newest, created, moved) = (newest.join(","), when(own[0]), when(own[3]));
    let expected = [
        ("account_id", "acc-1"),
        ("user_id", "ann"),
        ("account_type", "SAVINGS"),
        ("currency", "USD"),
        ("status", "ACTIVE"),
        ("current_balance", "3643.5"),
        ("available_balance", "3643.5"),
        ("pending_out", "300"),
        ("created_at", &created),
        ("last_transaction_at", &moved),
        ("transaction_count_30_days", "4"),
        ("total_deposits", "5150.5"),
        ("total_withdrawals", "1200"),
        ("total_transfers_in", "0"),
        ("total_transfers_out", "300"),
        ("total_fees", "7"),
        ("is_active", "t"),
        ("recent_transaction_ids", &newest),
        ("version", "6"),
    ];
    for (column, value) in expected {
        assert_eq!(summary[column].as_deref(), Some(value), "account_summary.{column}");
    }
    let transactions = judge::transactions(namespace, &postgres);
    let words: Vec<_> = (1..=4)
        .map(|version| {
            let row = &transactions[&format!("acc-1#{version}")];
            ["type", "description", "amount", "fee", "balance_after"]
                .map(|column| row[column].clone().unwrap())
                .join("|")
        })
        .collect();
    let expected = [
        "CREDIT|Opening deposit|5000|0|5000",
        "CREDIT|Deposit - salary|150.5|0|5150.5",
        "DEBIT|Withdrawal|1200|5|3945.5",
        "TRANSFER_OUT|Transfer to acc-2|300|2|3643.5",
    ];
    assert_eq!(words, expected);
    let schema = namespace.schema("banking");
    let fees = postgres.query(&format!("SELECT currency, total FROM {schema}.fee_ledger")).unwrap();
    assert_eq!((fees[0]["currency"].as_deref(), fees.len()), (Some("USD"), 1));
    assert_eq!(fees[0]["total"].as_deref(), Some("7.00"));
    let database = namespace.schema("millrace");
    let sql = format!(
        "SELECT DISTINCT payload FROM {database}.event
         WHERE aggregate = 'account' AND sequence = 1"
    );
    let rows = analytics(namespace, &sql).unwrap();
    let payload: Value = serde_json::from_str(rows[0]["payload"].as_deref().unwrap()).unwrap();
    assert!(payload["initial_deposit"].is_string(), "decimals are strings: {payload}");
}

fn when(event: &Event) -> String {
    time(event.header("ce_time").unwrap()).to_string()
}

#[test]
fn avro_by_the_registrys_ids_equals_json() {
    let namespace = Namespace::new();
    let serve = Serve::ready(&namespace, "handler,reactor");
    let registry = Registry::new(&namespace);
    let topic = namespace.topic("commands");
    let avro = |name: &str, fields: &[(&str, Avro)]| {
        let (id, schema) = registry.latest(&format!("{topic}-millrace.banking.account.{name}"));
        encode(id, &schema, fields)
    };
    let text = |text: &str| Avro::String(text.to_owned());
    let create_fields = [
        ("user_id", text("bob")),
        ("account_type", text("Business")),
        ("initial_deposit", money("100.00")),
    ];
    let deposit_fields =
        [("account_id", text("acc-a")), ("amount", money("0.01")), ("reference", text("tip"))];
    let ids: Vec<Uuid> = (0..5).map(|_| new_id()).collect();
    let with_id =
        |id: Uuid, value: Vec<u8>| Message::new("acc-a", value).header("ce_id", id.to_string());
    let json_again = json!({"type": "Deposit", "amount": "0.0100", "reference": "tip"});
    let commands = [
        with_id(ids[0], avro("CreateAccount", &create_fields)),
        with_id(ids[1], avro("Deposit", &deposit_fields)),
        with_id(ids[2], avro("Withdraw", &[("amount", money("-1"))])),
        with_id(ids[3], avro("Withdraw", &[("amount", money("100.01"))])),
        with_id(ids[4], avro("CloseAccount", &[("reason", text("moving"))])),
        // The same content in the other form is a repeat, not a conflict.
        command_with_id("acc-a", ids[1], &json_again),
    ];
    let producer = Producer::new(&namespace.stack);
    let mut answers = Answers::new(&namespace);
    producer.send(&topic, &commands[..1]);
    answers.await_count(&ids[..1], 1);
    producer.send(&topic, &commands[1..]);
    answers.await_count(&ids, 1);
    let repeat = answers.nth(ids[1], 2);
    assert!(repeat.is_duplicate() && repeat.is_accepted(), "{repeat:?}");
    let outcome = |at: usize| answers.all(ids[at])[0].text("code").map(str::to_owned);
    assert_eq!(outcome(2).as_deref(), Some("NonPositiveAmount"));
    let all = judge::log_is_sound(&namespace);
    let names: Vec<_> = all.iter().map(Event::short_name).collect();
    assert_eq!(names, ["AccountCreated", "MoneyDeposited", "MoneyWithdrawn", "AccountClosed"]);
    let created = json!({"account_id": "acc-a", "user_id": "bob", "account_type": "BUSINESS",
        "initial_deposit": "100", "currency": "USD"});
    assert_eq!(told_fields(&all[0]), created);
    assert_eq!(all[1].message.fields["amount"], "0.01");
    assert_eq!(all[2].message.fields["balance_after"], "0");
    assert_eq!(all[3].message.fields["reason"], "moving");
    judge::results_match_log(&answers.into_all(), &all);
    serve.terminate();
}

#[test]
fn any_partitioner_will_do_and_a_clients_order_survives() {
    const ACCOUNTS: usize = 60;
    const DEPOSITS: usize = 10;
    let namespace = Namespace::new();
    let serve = Serve::ready(&namespace, "");
    let producer = Producer::new(&namespace.stack);
    let mut commands = Vec::new();
    let mut ids = Vec::new();
    for round in 0..=DEPOSITS {
        for account in 0..ACCOUNTS {
            // Each deposit tells its place in the order.
            let body = match round {
                0 => create(&format!("carl-{account}"), "CHECKING", "100"),
                _ => json!({"type": "Deposit", "amount": "1", "reference": round.to_string()}),
            };
            ids.push(new_id());
            commands.push(command_with_id(&format!("acc-{account}"), ids[ids.len() - 1], &body));
        }
    }
    let mut answers = Answers::new(&namespace);
    let topic = namespace.topic("commands");
    let (openings, deposits) = commands.split_at(ACCOUNTS);
    let mut places = producer.send(&topic, openings);
    answers.await_count(&ids[..ACCOUNTS], 1);
    places.extend(producer.send(&topic, deposits));
    let strays = places.iter().zip(&commands).filter(|(place, command)| {
        place.partition != own_partition(command.key.as_deref().unwrap(), 2)
    });
    assert!(strays.count() > commands.len() / 4, "librdkafka hashes otherwise than the owner");

    answers.await_count(&ids, 1);
    let all = judge::log_is_sound(&namespace);
    for account in 0..ACCOUNTS {
        let id = format!("acc-{account}");
        let own = events_of(&all, &id);
        assert_eq!(own.len(), DEPOSITS + 1, "{id}");
        for (index, event) in own.iter().enumerate().skip(1) {
            assert_eq!(event.message.text("reference"), Some(index.to_string().as_str()), "{id}");
        }
        assert_eq!(own[0].message.record.place.partition, own_partition(id.as_bytes(), 2));
    }
    let answers = answers.into_all();
    assert!(answers.values().flatten().all(|one| !one.is_duplicate()), "moved, not repeated");
    judge::results_match_log(&answers, &all);
    judge::read_models_equal_log(&namespace, &all);
    serve.terminate();
}

#[test]
fn key_and_command_id_may_be_left_out() {
    let namespace = Namespace::new();
    let serve = Serve::ready(&namespace, "handler,reactor");
    let producer = Producer::new(&namespace.stack);
    let topic = namespace.topic("commands");
    let describe = namespace.kafka_tool(&["topics", "--describe", "--topic", &topic]);
    let topic_id = topic_id(&describe);
    let derived = |place: Place| {
        let Place { partition, offset } = place;
        Uuid::new_v5(&topic_id, format!("{partition}:{offset}").as_bytes())
    };
    let mut answers = Answers::new(&namespace);
    let mut send = |message: Message| {
        let place = producer.send(&topic, &[message])[0];
        answers.first(derived(place))
    };
    let stray = 1 - own_partition(b"acc-k", 2);
    let mut body = create("dora", "CHECKING", "500");
    body["account_id"] = json!("acc-k");
    body["actor"] = json!("from the body");
    let value = body.to_string().into_bytes();
    // No key, and on the wrong partition: the body says whose it is, the first place which it is.
    let keyless = Message { value: Some(value), partition: Some(stray), ..Message::default() };
    let created = send(keyless);
    assert!(created.is_accepted(), "{created:?}");
    assert_eq!(created.text("aggregate_id"), Some("acc-k"));
    let moved = Message { partition: Some(stray), ..command("acc-k", &deposit("1.00")) };
    assert!(send(moved).is_accepted());
    let own = Message { partition: Some(1 - stray), ..command("acc-k", &deposit("1.00")) };
    assert!(send(own.clone()).is_accepted());
    // A client's own repeat has another place: it is another command.
    assert_eq!(send(own).fields["version"], 4);

    // Metadata and ids in the body; an id that is no UUID is hashed to one, the same each time.
    let named = json!({"type": "Withdraw", "amount": "2", "command_id": "order-17"});
    let places = producer.send(&topic, &[command("acc-k", &named), command("acc-k", &named)]);
    assert_eq!(places.len(), 2);
    let known = new_id();
    let in_body = json!({"type": "Withdraw", "amount": "3", "command_id": known.to_string()});
    producer.send(&topic, &[command("acc-k", &in_body)]);
    assert!(answers.first(known).is_accepted());
    let all = events(&namespace);
    assert_eq!(all[0].header("actor"), Some("from the body"));
    let withdrawn = all.iter().filter(|event| event.short_name() == "MoneyWithdrawn");
    assert_eq!(withdrawn.count(), 2, "order-17 once, and the other");
    let hashed: Vec<Decoded> = answers
        .into_all()
        .into_values()
        .find(|all| all.len() == 2)
        .expect("a command with two answers");
    assert!(!hashed[0].is_duplicate() && hashed[1].is_duplicate(), "{hashed:#?}");
    let unknown = command_with_id("acc-none", new_id(), &withdraw("1"));
    producer.send(&topic, &[unknown]);
    serve.terminate();
}

/// The id in what Kafka's tool prints: `TopicId: <base64url>`.
pub(crate) fn topic_id(describe: &str) -> Uuid {
    use base64::Engine as _;
    let (_, rest) = describe.split_once("TopicId: ").expect("a topic id");
    let text = rest.split_whitespace().next().unwrap();
    let bytes = base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(text).unwrap();
    Uuid::from_slice(&bytes).unwrap()
}
