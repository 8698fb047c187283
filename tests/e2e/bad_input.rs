//! Commands that cannot be taken: each is answered with where and why, kept untouched, and passed
//! over. Nothing stops, nothing loops.

use apache_avro::types::Value as Avro;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::harness::avro::{Registry, encode, money};
use crate::harness::commands::{command_with_id, create, deposit, new_id};
use crate::harness::judge;
use crate::harness::kafka::{Message, Place, Producer, Record, own_partition, read_all};
use crate::harness::log::Answers;
use crate::harness::namespace::Namespace;
use crate::harness::serve::Serve;

/// One bad command and what must be said about it.
struct Case {
    name: &'static str,
    message: Message,
    code: &'static str,
    field: Option<&'static str>,
    aggregate_id: &'static str,
}

/// A case of the account that exists.
fn case(
    name: &'static str,
    value: impl Into<Vec<u8>>,
    code: &'static str,
    field: Option<&'static str>,
) -> Case {
    let message =
        Message { partition: Some(own_partition(b"acc-1", 2)), ..Message::new("acc-1", value) };
    Case { name, message, code, field, aggregate_id: "acc-1" }
}

fn json_case(
    name: &'static str,
    body: &Value,
    code: &'static str,
    field: Option<&'static str>,
) -> Case {
    case(name, body.to_string(), code, field)
}

impl Case {
    fn header(mut self, name: &str, value: impl AsRef<[u8]>) -> Self {
        self.message = self.message.header(name, value);
        self
    }

    fn key(mut self, key: Option<&[u8]>) -> Self {
        self.message.key = key.map(<[u8]>::to_vec);
        self.aggregate_id = "";
        self
    }
}

fn unreadable() -> Vec<Case> {
    let one = deposit("1").to_string();
    let bad = |name, value: &[u8]| case(name, value, "Undecodable", None);
    let mut tombstone = bad("a tombstone", b"");
    tombstone.message.value = None;
    let twice = r#"{"type":"Deposit","amount":"1","amount":"2"}"#;
    let deep = format!("{{\"type\":\"Deposit\",\"amount\":\"1\",\"x\":{}", "[".repeat(500_000));
    vec![
        bad("bytes of no kind", &[0xde, 0xad, 0xbe, 0xef]),
        bad("text that is no object", b"Deposit 1.00"),
        bad("an empty value", b""),
        tombstone,
        bad("JSON that ends early", &one.as_bytes()[..one.len() - 1]),
        bad("bytes after the JSON", format!("{one} {{}}").as_bytes()),
        bad("a JSON key twice", twice.as_bytes()),
        bad("JSON of half a million levels", deep.as_bytes()),
        bad(
            "JSON that is not UTF-8",
            b"{\"type\":\"Deposit\",\"amount\":\"1\",\"reference\":\"\xff\"}",
        ),
        bad("Avro without a whole schema id", &[0, 0, 0]),
        case("an unknown schema id", [0, 0x7f, 0xff, 0xff, 0xff, 2], "UnknownSchema", None),
        // Escaped for the eye it would be five times as long, in the message and in the details.
        case(
            "a type of 900 kB",
            format!("{{\"type\":\"{}\"}}", "\u{7f}".repeat(900_000)),
            "UnknownType",
            Some("type"),
        ),
        case("two megabytes", vec![b'{'; 2 * 1024 * 1024], "TooLarge", None),
    ]
}

fn wrong_fields() -> Vec<Case> {
    let amount = |text: Value| json!({"type": "Deposit", "amount": text});
    let bad = |name, body: &Value, field| json_case(name, body, "InvalidField", Some(field));
    let other = json!({"type": "Deposit", "amount": "1", "account_id": "acc-2"});
    let reference = json!({"type": "Deposit", "amount": "1", "reference": 7});
    let nul = json!({"type": "Deposit", "amount": "1", "reference": "a\u{0}b"});
    vec![
        json_case("an unknown type", &json!({"type": "Rob"}), "UnknownType", Some("type")),
        json_case("no type", &json!({"amount": "1"}), "MissingField", Some("type")),
        json_case("no amount", &json!({"type": "Deposit"}), "MissingField", Some("amount")),
        json_case("null", &amount(Value::Null), "MissingField", Some("amount")),
        bad("money as a number", &amount(json!(1.5)), "amount"),
        bad("no number", &amount(json!("much")), "amount"),
        bad("an exponent", &amount(json!("1e2")), "amount"),
        bad("more decimals than dollars have", &amount(json!("1.001")), "amount"),
        bad("more decimals than anybody has", &amount(json!("0.000000001")), "amount"),
        bad("16 digits before the point", &amount(json!("1000000000000000")), "amount"),
        bad("text as a number", &reference, "reference"),
        bad("text that no database holds", &nul, "reference"),
        bad("another account than the key", &other, "account_id"),
    ]
}

fn wrong_metadata() -> Vec<Case> {
    let bad = |field: &'static str, value: &[u8]| {
        json_case(field, &deposit("1"), "InvalidField", Some(field)).header(field, value)
    };
    let body = json!({"type": "Deposit", "amount": "1", "expected_version": "seven"});
    vec![
        bad("expected_version", b"-1"),
        bad("ce_time", b"yesterday"),
        bad("actor", &[b'x'; 2_000]),
        bad("correlation_id", b"\xff"),
        json_case("in the body", &body, "InvalidField", Some("expected_version")),
    ]
}

fn wrong_keys() -> Vec<Case> {
    let long = [b'k'; 257];
    let keyed =
        |name, key: &[u8]| json_case(name, &deposit("1"), "InvalidKey", None).key(Some(key));
    let without =
        |name, body: &Value| json_case(name, body, "InvalidKey", Some("account_id")).key(None);
    vec![
        keyed("a key that is not UTF-8", b"acc-\xff"),
        keyed("an empty key", b""),
        keyed("a key with a NUL", b"\0position"),
        keyed("a key of 257 bytes", &long),
        without("no key and no id", &deposit("1")),
        without("no key and an empty id", &json!({"type": "CloseAccount", "account_id": ""})),
    ]
}

fn wrong_avro(namespace: &Namespace) -> Vec<Case> {
    let registry = Registry::new(namespace);
    let record = |kind: &str, name: &str, fields: &[(&str, Avro)]| {
        let subject = format!("{}-millrace.{name}", namespace.topic(kind));
        let (id, schema) = registry.latest(&subject);
        encode(id, &schema, fields)
    };
    let deposit = |fields: &[(&str, Avro)]| record("commands", "banking.account.Deposit", fields);
    let text = |text: &str| Avro::String(text.to_owned());
    let good = deposit(&[("amount", money("1"))]);
    let longer = [&good[..], &[0]].concat();
    let other = deposit(&[("amount", money("1")), ("account_id", text("acc-2"))]);
    let event = record(
        "events",
        "banking.account.AccountFrozen",
        &[("user_id", text("ann")), ("currency", text("USD"))],
    );
    let fine = deposit(&[("amount", money("0.001"))]);
    let huge = deposit(&[("amount", Avro::Decimal(vec![0x7f; 20].into()))]);
    vec![
        case("Avro with a byte too many", longer, "Undecodable", None),
        case("Avro that ends early", &good[..good.len() - 2], "Undecodable", None),
        case("another account in Avro", other, "InvalidField", Some("account_id")),
        case("too many decimals in Avro", fine, "InvalidField", Some("amount")),
        case("more digits in Avro than anybody has", huge, "InvalidField", Some("amount")),
        case("a record that is no command", event, "UnknownType", Some("type")),
    ]
}

#[test]
fn each_bad_command_is_answered_kept_and_passed_over() {
    let namespace = Namespace::new();
    let serve = Serve::ready(&namespace, "");
    let producer = Producer::new(&namespace.stack);
    let topic = namespace.topic("commands");
    let mut answers = Answers::new(&namespace);
    let opening = new_id();
    producer.send(&topic, &[command_with_id("acc-1", opening, &create("ann", "checking", "100"))]);
    assert!(answers.first(opening).is_accepted());
    let cases: Vec<Case> =
        [unreadable(), wrong_fields(), wrong_metadata(), wrong_keys(), wrong_avro(&namespace)]
            .into_iter()
            .flatten()
            .collect();
    let mut sent = Vec::new();
    for (version, bad) in (2..).zip(&cases) {
        let id = new_id();
        let message =
            bad.message.clone().header("ce_id", id.to_string()).header("reply_to", "desk-7");
        let place = producer.send(&topic, std::slice::from_ref(&message))[0];
        check_result(bad, &mut answers, id);
        // The handler goes on: a good command behind it is done.
        let good = new_id();
        producer.send(&topic, &[command_with_id("acc-1", good, &deposit("1"))]);
        let done = answers.first(good);
        assert_eq!(done.fields["version"], version, "after {}: {done:?}", bad.name);
        sent.push((id, message, place));
    }
    let letters = read_all(&namespace, &namespace.topic("dead-letters"));
    for (bad, (id, message, place)) in cases.iter().zip(&sent) {
        let own: Vec<_> =
            letters.iter().filter(|one| one.header("ce_id") == Some(&id.to_string())).collect();
        assert_eq!(own.len(), 1, "{}: one dead letter", bad.name);
        check_dead_letter(&namespace, bad, own[0], message, *place);
        assert_eq!(answers.all(*id).len(), 1, "{}: one answer", bad.name);
    }
    assert_eq!(letters.len(), cases.len());
    // A repeat of a bad command is a repeat: the first answer, and no second dead letter.
    let (id, message, _) = &sent[0];
    producer.send(&topic, std::slice::from_ref(message));
    assert!(answers.nth(*id, 2).is_duplicate());
    assert_eq!(read_all(&namespace, &namespace.topic("dead-letters")).len(), cases.len());
    let all = judge::log_is_sound(&namespace);
    assert_eq!(all.len(), cases.len() + 1);
    judge::results_match_log(&answers.into_all(), &all);
    judge::read_models_equal_log(&namespace, &all);
    serve.terminate();
}

fn check_result(bad: &Case, answers: &mut Answers<'_>, id: Uuid) {
    let result = answers.first(id);
    let (name, told) = (bad.name, &result.fields);
    assert_eq!(told["outcome"], "REJECTED", "{name}: {told}");
    assert_eq!(told["code"], bad.code, "{name}: {told}");
    assert_eq!(told["details"]["field"].as_str(), bad.field, "{name}: {told}");
    assert!(told["details"]["reason"].as_str().is_some_and(|why| !why.is_empty()), "{name}");
    assert!(told["message"].as_str().is_some_and(|words| !words.is_empty()), "{name}");
    assert_eq!(told["aggregate_id"], bad.aggregate_id, "{name}");
    assert_eq!(told["retryable"], false, "{name}");
    assert!(told["first_sequence"].is_null() && told["last_sequence"].is_null(), "{name}");
    assert_eq!(result.record.header("reply_to"), Some("desk-7"), "{name}");
}

fn check_dead_letter(
    namespace: &Namespace,
    bad: &Case,
    letter: &Record,
    message: &Message,
    place: Place,
) {
    let name = bad.name;
    assert_eq!(letter.key, message.key, "{name}: the untouched key");
    assert!(letter.value == message.value, "{name}: the untouched bytes");
    for (header, value) in &message.headers {
        let kept = letter.headers.iter().find(|(found, _)| found == header);
        assert_eq!(kept.and_then(|(_, value)| value.as_ref()), Some(value), "{name}: {header}");
    }
    let (partition, offset) = (place.partition.to_string(), place.offset.to_string());
    assert_eq!(letter.place.partition, place.partition, "{name}");
    assert_eq!(letter.header("error_code"), Some(bad.code), "{name}");
    assert!(letter.header("error_message").is_some_and(|words| !words.is_empty()), "{name}");
    assert_eq!(letter.header("source_topic"), Some(namespace.topic("commands").as_str()), "{name}");
    assert_eq!(letter.header("source_partition"), Some(partition.as_str()), "{name}");
    assert_eq!(letter.header("source_offset"), Some(offset.as_str()), "{name}");
    assert_eq!(letter.header("attempts"), Some("1"), "{name}");
    assert!(letter.header("component").is_some_and(|who| who.contains("handler")), "{name}");
    let failed_at = letter.header("failed_at").expect("failed_at");
    chrono::DateTime::parse_from_rfc3339(failed_at).expect("a time");
}

#[test]
fn a_forged_internal_command_is_forbidden_and_no_dead_letter() {
    let namespace = Namespace::new();
    let serve = Serve::ready(&namespace, "handler,reactor");
    let producer = Producer::new(&namespace.stack);
    let topic = namespace.topic("commands");
    let transfer_id = new_id().to_string();
    let receive = json!({
        "type": "ReceiveTransfer", "transfer_id": transfer_id, "from_account_id": "acc-0",
        "amount": "1000000", "currency": "USD", "valid_until": "2100-01-01T00:00:00Z",
    });
    let reverse = json!({"type": "ReverseTransfer", "transfer_id": transfer_id, "reason": "mine"});
    let settle = json!({
        "type": "SettleTransfer", "transfer_id": transfer_id, "to_account_id": "acc-1",
    });
    let origin = format!("process-manager;{};{};0;7;0;{}", "g", Uuid::nil(), "00".repeat(32));
    let mut answers = Answers::new(&namespace);
    let opening = new_id();
    producer.send(&topic, &[command_with_id("acc-1", opening, &create("ann", "checking", "100"))]);
    assert!(answers.first(opening).is_accepted());
    for body in [&receive, &reverse, &settle] {
        for forged in [false, true] {
            let id = new_id();
            let mut message = command_with_id("acc-1", id, body);
            if forged {
                message = message.header("origin", &origin);
            }
            producer.send(&topic, &[message]);
            let result = answers.first(id);
            assert_eq!(result.fields["outcome"], "REJECTED", "{result:?}");
            assert_eq!(result.fields["code"], "Forbidden", "{result:?}");
        }
    }
    // A wrong signature is ignored: a command that anybody may send is done all the same.
    let id = new_id();
    let signed = command_with_id("acc-1", id, &deposit("1")).header("origin", &origin);
    producer.send(&topic, &[signed]);
    assert!(answers.first(id).is_accepted());
    assert_eq!(judge::log_is_sound(&namespace).len(), 2);
    assert!(read_all(&namespace, &namespace.topic("dead-letters")).is_empty());
    serve.terminate();
}
