//! What commands look like, what is bad, what is stored, and that all of it reads back.

use proptest::prelude::*;

use super::*;
use crate::codec::command::raw_content_hash;
use crate::domain::banking::account::{
    AccountClosed, AccountCreated, AccountFrozen, AccountType, AccountUnfrozen, EntryCorrected,
    MoneyDeposited, MoneyReceived, MoneyTransferred, MoneyWithdrawn, TransferReversed,
    TransferSettled,
};
use crate::domain::money::{Amount, Currency};
use crate::kernel::codec::BadCommand;
use crate::kernel::time::Timestamp;

fn codec() -> AccountCodec {
    AccountCodec::new(Arc::new(Schemas::numbered_from(1)))
}

fn amount(text: &str) -> Amount {
    Amount::parse(text).unwrap()
}

fn decode(value: &[u8]) -> Result<Decoded<Command>, Undecoded> {
    codec().decode_command(Some("acc-1"), Some(value))
}

fn json(value: &str) -> Decoded<Command> {
    decode(value.as_bytes()).unwrap()
}

fn bad(key: Option<&str>, value: Option<&[u8]>) -> BadCommand {
    match codec().decode_command(key, value) {
        Err(Undecoded::Bad(bad)) => *bad,
        other => panic!("expected a bad command, got {other:?}"),
    }
}

fn bad_json(value: &str) -> (&'static str, Option<String>) {
    let bad = bad(Some("acc-1"), Some(value.as_bytes()));
    assert_eq!(bad.aggregate_id.as_deref(), Some("acc-1"));
    assert!(!bad.reason.is_empty());
    (bad.code, bad.field)
}

fn invalid(field: &str) -> (&'static str, Option<String>) {
    ("InvalidField", Some(field.to_owned()))
}

fn missing(field: &str) -> (&'static str, Option<String>) {
    ("MissingField", Some(field.to_owned()))
}

/// Every command, as a client would write it.
const EXAMPLES: [&str; 11] = [
    r#"{"type":"CreateAccount","account_id":"acc-1","user_id":"u","account_type":"savings","initial_deposit":"100","currency":"EUR"}"#,
    r#"{"type":"Deposit","amount":"150.00","reference":"salary"}"#,
    r#"{"type":"Withdraw","amount":"0.01","reference":null}"#,
    r#"{"type":"Transfer","to_account_id":"acc-2","amount":"1","reference":"rent"}"#,
    r#"{"type":"ReceiveTransfer","transfer_id":"t","from_account_id":"acc-2","amount":"1","currency":"USD","valid_until":"2026-01-01T00:00:00Z"}"#,
    r#"{"type":"ReverseTransfer","transfer_id":"t","reason":"AccountNotFound"}"#,
    r#"{"type":"SettleTransfer","transfer_id":"t","to_account_id":"acc-2"}"#,
    r#"{"type":"FreezeAccount","reason":"fraud"}"#,
    r#"{"type":"UnfreezeAccount"}"#,
    r#"{"type":"CloseAccount","reason":""}"#,
    r#"{"type":"CorrectEntry","compensates_event_id":"x","amount":"-1.5","reason":"typo"}"#,
];

/// The Avro form of a JSON command, as Apache's library writes it.
fn to_avro(text: &str) -> Vec<u8> {
    use apache_avro::types::Value;

    let fields: serde_json::Value = serde_json::from_str(text).unwrap();
    let record = format!("{NAMESPACE}.{}", fields["type"].as_str().unwrap());
    let place = compiled::current(&record).unwrap();
    let text = compiled::all()[place].source.text;
    let source: serde_json::Value = serde_json::from_str(text).unwrap();
    let values = source["fields"].as_array().unwrap().iter().map(|field| {
        let name = field["name"].as_str().unwrap();
        let given = fields[name].as_str();
        let kind = &field["type"];
        let value = if kind.is_array() {
            match given {
                Some(text) => Value::Union(1, Box::new(Value::String(text.to_owned()))),
                None => Value::Union(0, Box::new(Value::Null)),
            }
        } else if kind.is_string() {
            Value::String(given.unwrap().to_owned())
        } else if kind["logicalType"] == "decimal" {
            let mut buffer = [0; 16];
            let bytes = amount(given.unwrap()).to_be_bytes(&mut buffer).to_vec();
            Value::Decimal(bytes.into())
        } else {
            assert_eq!(kind["logicalType"], "timestamp-micros");
            Value::TimestampMicros(Timestamp::parse_rfc3339(given.unwrap()).unwrap().0)
        };
        (name.to_owned(), value)
    });
    let schema = apache_avro::Schema::parse_str(text).unwrap();
    let record = Value::Record(values.collect());
    let mut value = vec![0];
    value.extend_from_slice(&u32::try_from(place + 1).unwrap().to_be_bytes());
    let writer = apache_avro::writer::datum::GenericDatumWriter::builder(&schema).build().unwrap();
    writer.write_value(&mut value, record).unwrap();
    value
}

#[test]
fn reads_every_command_in_json() {
    let names: Vec<_> = EXAMPLES.iter().map(|text| json(text).type_name).collect();
    let known: Vec<_> = COMMANDS.iter().map(|(name, _)| *name).collect();
    assert_eq!(names, known);
    assert_eq!(
        json(EXAMPLES[1]).command,
        Command::Deposit(Deposit { amount: amount("150"), reference: Some("salary".to_owned()) })
    );
    assert_eq!(
        json(EXAMPLES[0]).command,
        Command::CreateAccount(CreateAccount {
            account_id: "acc-1".to_owned(),
            user_id: "u".to_owned(),
            account_type: "savings".to_owned(),
            initial_deposit: amount("100"),
            currency: "EUR".to_owned(),
        })
    );
}

#[test]
fn a_command_is_the_same_in_avro_and_in_json() {
    for text in EXAMPLES {
        let in_json = json(text);
        let in_avro = decode(&to_avro(text)).unwrap();
        assert_eq!(in_avro, in_json, "{text}");
    }
}

#[test]
fn content_is_what_a_command_means() {
    let hash = |text: &str| json(text).content_hash;
    let deposit = hash(r#"{"type":"Deposit","amount":"150.00"}"#);
    for same in [
        r#"{"type":"Deposit","amount":"150","reference":null}"#,
        r#"{ "amount":"150.0", "account_id":"acc-1", "actor":"me", "type":"Deposit", "x":[] }"#,
        r#"{"type":"Deposit","amount":"0150.000000000000","command_id":"1"}"#,
    ] {
        assert_eq!(hash(same), deposit, "{same}");
    }
    for other in [
        r#"{"type":"Withdraw","amount":"150.00"}"#,
        r#"{"type":"Deposit","amount":"150.01"}"#,
        r#"{"type":"Deposit","amount":"150.00","reference":""}"#,
    ] {
        assert_ne!(hash(other), deposit, "{other}");
    }
    let elsewhere =
        codec().decode_command(Some("acc-2"), Some(br#"{"type":"Deposit","amount":"150.00"}"#));
    assert_ne!(elsewhere.unwrap().content_hash, deposit);
    let opening = r#"{"type":"CreateAccount","account_type":"SAVINGS","initial_deposit":"100"}"#;
    assert_eq!(
        hash(opening),
        hash(
            r#"{"type":"CreateAccount","user_id":"","account_type":"Savings",
                "initial_deposit":"100.00","currency":"USD"}"#
        )
    );
    let raw = raw_content_hash("acc-1", Some(b"x"));
    assert_ne!(raw, raw_content_hash("acc-1", Some(b"y")));
    assert_ne!(raw, raw_content_hash("acc-2", Some(b"x")));
    assert_ne!(raw_content_hash("a", None), raw_content_hash("a", Some(b"")));
}

#[test]
fn metadata_may_stand_in_a_json_body() {
    let decoded = json(
        r#"{"type":"CloseAccount","command_id":"c","ce_time":"t","reply_to":"r","actor":"a",
            "correlation_id":"co","causation_id":"ca","ip_address":"ip","expected_version":7,
            "traceparent":"tp","ce_id":"no","meta_x":"no"}"#,
    );
    let mut body = decoded.body;
    body.sort();
    let text = |name: &'static str, value: &str| (name, value.to_owned());
    assert_eq!(
        body,
        [
            text("actor", "a"),
            text("causation_id", "ca"),
            text("ce_id", "c"),
            text("ce_time", "t"),
            text("correlation_id", "co"),
            text("expected_version", "7"),
            text("ip_address", "ip"),
            text("reply_to", "r"),
            text("traceparent", "tp"),
        ]
    );
    let named = json(r#"{"type":"CloseAccount","expected_version":"7","actor":null}"#);
    assert_eq!(named.body, [text("expected_version", "7")]);
    for version in ["-1", "1.5", "true", "18446744073709551615"] {
        let text = format!(r#"{{"type":"CloseAccount","expected_version":{version}}}"#);
        assert_eq!(bad_json(&text), invalid("expected_version"));
    }
    let bad = bad(
        Some("acc-1"),
        Some(br#"{"type":"Nonsense","command_id":"c","actor":5,"reply_to":"r"}"#),
    );
    assert_eq!((bad.code, bad.field.as_deref()), ("InvalidField", Some("actor")));
    assert_eq!(bad.body, [text("ce_id", "c"), text("reply_to", "r")]);
}

#[test]
fn bytes_that_are_no_command_are_undecodable() {
    let values: [&[u8]; 12] = [
        b"",
        b"hello",
        b" {}",
        b"[]",
        b"\x00",
        b"\x00\x00\x00\x00",
        b"{",
        b"{\"type\":\"CloseAccount\"} x",
        b"{\"type\":\"CloseAccount\",\"type\":\"CloseAccount\"}",
        b"{\"type\":\"Deposit\",\"amount\":\"1\",\"amount\":\"2\"}",
        b"{\"type\":\"\xff\"}",
        b"\xff\xfe",
    ];
    for value in values {
        let bad = bad(Some("acc-1"), Some(value));
        assert_eq!(bad.code, "Undecodable", "{value:?}");
        assert_eq!(bad.aggregate_id.as_deref(), Some("acc-1"));
    }
    assert_eq!(bad(Some("acc-1"), None).code, "Undecodable");
    let whole = to_avro(EXAMPLES[1]);
    for length in 5..whole.len() {
        assert_eq!(bad(Some("acc-1"), Some(&whole[..length])).code, "Undecodable");
    }
    let longer = [&whole[..], &[0]].concat();
    assert_eq!(bad(Some("acc-1"), Some(&longer)).code, "Undecodable");
}

#[test]
fn a_value_over_a_mebibyte_is_too_large() {
    let value = |length: usize| {
        let mut value = br#"{"type":"CloseAccount","reason":""#.to_vec();
        value.resize(length - 2, b'x');
        value.extend_from_slice(b"\"}");
        value
    };
    assert!(decode(&value(1024 * 1024)).is_ok());
    assert_eq!(bad(Some("acc-1"), Some(&value(1024 * 1024 + 1))).code, "TooLarge");
}

#[test]
fn an_unknown_schema_is_asked_for_first() {
    let codec = codec();
    let mut value = to_avro(EXAMPLES[1]);
    value[1..5].copy_from_slice(&4_000_u32.to_be_bytes());
    let decode = || codec.decode_command(Some("acc-1"), Some(&value));
    assert_eq!(decode(), Err(Undecoded::UnknownSchema(4_000)));
    codec.schemas.mark_missing(4_000);
    let Err(Undecoded::Bad(bad)) = decode() else {
        panic!("it is missing");
    };
    assert_eq!(bad.code, "UnknownSchema");
    codec.schemas.forget_missing();
    assert_eq!(decode(), Err(Undecoded::UnknownSchema(4_000)));
    let place = compiled::current("millrace.banking.account.Deposit").unwrap();
    let text = compiled::all()[place].source.text;
    codec.schemas.mark_missing(4_000);
    codec.schemas.add_writer(4_000, text).unwrap();
    assert_eq!(decode().unwrap(), json(EXAMPLES[1]));
}

#[test]
fn another_clients_schema_is_read_by_names() {
    let codec = codec();
    let foreign = r#"{"type":"record","name":"millrace.banking.account.Deposit","fields":[
        {"name":"note","type":{"type":"map","values":"int"}},
        {"name":"amount","type":{"type":"bytes","logicalType":"decimal","precision":10,"scale":2}},
        {"name":"reference","type":"string"}]}"#;
    codec.schemas.add_writer(900, foreign).unwrap();
    let value = b"\0\0\0\x03\x84\0\x04\x3a\x98\x0csalary";
    let decoded = codec.decode_command(Some("acc-1"), Some(value)).unwrap();
    assert_eq!(decoded, json(EXAMPLES[1]));
    let elsewhere = foreign.replace("account.Deposit", "customer.Deposit");
    codec.schemas.add_writer(900, &elsewhere).unwrap();
    let Err(Undecoded::Bad(bad)) = codec.decode_command(Some("acc-1"), Some(value)) else {
        panic!("it is another aggregate's");
    };
    assert_eq!(bad.code, "UnknownType");
}

#[test]
fn types_are_known_by_their_short_name() {
    let unknown = ("UnknownType", Some("type".to_owned()));
    for name in ["deposit", "MoneyDeposited", "millrace.banking.account.Deposit", "", "Create"] {
        assert_eq!(bad_json(&format!(r#"{{"type":"{name}"}}"#)), unknown, "{name}");
    }
    assert_eq!(bad_json(r#"{"type":5}"#), invalid("type"));
    assert_eq!(bad_json(r#"{"type":null}"#), missing("type"));
    assert_eq!(bad_json("{}"), missing("type"));
    let mut event = Vec::new();
    codec().encode_event(&events()[1], &mut event).unwrap();
    assert_eq!(bad(Some("acc-1"), Some(&event)).code, "UnknownType");
}

#[test]
fn fields_are_there_and_of_their_kind() {
    let deposit = |amount: &str| bad_json(&format!(r#"{{"type":"Deposit","amount":{amount}}}"#));
    for amount in ["1", "1.5", "true", "[]", "{}", r#""""#, r#""1e3""#, r#""1,5""#, r#""-""#] {
        assert_eq!(deposit(amount), invalid("amount"), "{amount}");
    }
    assert_eq!(deposit(r#""0.000000001""#), invalid("amount"));
    assert_eq!(deposit(r#""1000000000000000""#), invalid("amount"));
    assert_eq!(deposit(&format!(r#""{}""#, "9".repeat(100))), invalid("amount"));
    assert_eq!(deposit("null"), missing("amount"));
    assert_eq!(bad_json(r#"{"type":"Deposit"}"#), missing("amount"));
    assert_eq!(bad_json(r#"{"type":"Deposit","amount":"1","reference":5}"#), invalid("reference"));
    for id in ["5", r#""""#, &format!(r#""{}""#, "x".repeat(257))] {
        let text = format!(r#"{{"type":"Transfer","to_account_id":{id},"amount":"1"}}"#);
        assert_eq!(bad_json(&text), invalid("to_account_id"));
    }
    assert_eq!(bad_json(r#"{"type":"Transfer","amount":"1"}"#), missing("to_account_id"));
    let opening = r#"{"type":"CreateAccount","initial_deposit":"100"}"#;
    assert_eq!(bad_json(opening), missing("account_type"));
    let late = EXAMPLES[4].replace(r#""2026-01-01T00:00:00Z""#, "1767225600000000");
    assert_eq!(bad_json(&late), invalid("valid_until"));
}

#[test]
fn empty_decimal_bytes_are_refused_and_long_ones_read() {
    let deposit = |amount: &[u8]| {
        let place = compiled::current("millrace.banking.account.Deposit").unwrap();
        let mut value = vec![0, 0, 0, 0, u8::try_from(place + 1).unwrap(), 0];
        value.push(u8::try_from(amount.len() * 2).unwrap());
        value.extend_from_slice(amount);
        value.push(0);
        decode(&value)
    };
    assert!(matches!(deposit(&[]), Err(Undecoded::Bad(bad)) if bad.code == "InvalidField"));
    assert!(matches!(deposit(&[0x7f; 16]), Err(Undecoded::Bad(bad)) if bad.code == "InvalidField"));
    let mut long = [0; 20];
    long[16..].copy_from_slice(&100_000_000_u32.to_be_bytes());
    let Command::Deposit(command) = deposit(&long).unwrap().command else {
        panic!("it is a deposit");
    };
    assert_eq!(command.amount, amount("1"));
}

#[test]
fn the_id_stands_in_the_key_or_in_the_body_or_in_both_alike() {
    let with = |key: Option<&str>, id: &str| {
        let text = format!(r#"{{"type":"CloseAccount","actor":"me","account_id":{id}}}"#);
        codec().decode_command(key, Some(text.as_bytes()))
    };
    for (key, id) in [(Some("a"), "null"), (Some("a"), r#""a""#), (None, r#""a""#)] {
        assert_eq!(with(key, id).unwrap().aggregate_id, "a");
    }
    let refused = |key: Option<&str>, id: &str| match with(key, id) {
        Err(Undecoded::Bad(bad)) => {
            assert_eq!(bad.field.as_deref(), Some("account_id"));
            assert_eq!(bad.body.len(), 1);
            (bad.code, bad.aggregate_id)
        }
        other => panic!("expected a bad command, got {other:?}"),
    };
    let key = Some("a".to_owned());
    assert_eq!(refused(Some("a"), r#""b""#), ("InvalidField", key.clone()));
    assert_eq!(refused(Some("a"), r#""""#), ("InvalidField", key.clone()));
    assert_eq!(refused(Some("a"), "5"), ("InvalidField", key));
    assert_eq!(refused(None, "null"), ("InvalidKey", None));
    assert_eq!(refused(None, r#""""#), ("InvalidKey", None));
    let long = format!("{:?}", "x".repeat(257));
    assert_eq!(refused(None, &long), ("InvalidKey", None));
    assert_eq!(refused(None, "5"), ("InvalidField", None));
    let longest = "x".repeat(256);
    assert_eq!(with(None, &format!("{longest:?}")).unwrap().aggregate_id, longest);
    let unknown = bad(None, Some(br#"{"type":"No","account_id":"a"}"#));
    assert_eq!((unknown.code, unknown.aggregate_id.as_deref()), ("UnknownType", Some("a")));
}

/// One event of every kind.
fn events() -> Vec<Event> {
    let user_id = || "user-1".to_owned();
    let text = |text: &str| text.to_owned();
    let currency = Currency::USD;
    vec![
        Event::AccountCreated(AccountCreated {
            account_id: text("acc-1"),
            user_id: user_id(),
            account_type: AccountType::Savings,
            initial_deposit: amount("100"),
            currency,
        }),
        Event::MoneyDeposited(MoneyDeposited {
            user_id: user_id(),
            currency,
            amount: amount("150.25"),
            balance_after: amount("250.25"),
            reference: Some(text("salary")),
        }),
        Event::MoneyWithdrawn(MoneyWithdrawn {
            user_id: user_id(),
            currency,
            amount: amount("10"),
            fee: amount("0"),
            balance_after: amount("240.25"),
            reference: None,
        }),
        Event::MoneyTransferred(MoneyTransferred {
            user_id: user_id(),
            currency,
            transfer_id: text("t-1"),
            to_account_id: text("acc-2"),
            amount: amount("98"),
            transfer_fee: amount("2"),
            balance_after: amount("140.25"),
            reference: Some(text("Miete für März")),
        }),
        Event::MoneyReceived(MoneyReceived {
            user_id: user_id(),
            currency,
            transfer_id: text("t-2"),
            from_account_id: text("acc-3"),
            amount: amount("5"),
            balance_after: amount("145.25"),
            reference: None,
        }),
        Event::TransferReversed(TransferReversed {
            user_id: user_id(),
            currency,
            transfer_id: text("t-1"),
            amount: amount("98"),
            transfer_fee: amount("2"),
            balance_after: amount("245.25"),
            reason: Some(text("AccountNotFound")),
        }),
        Event::TransferSettled(TransferSettled {
            user_id: user_id(),
            currency,
            transfer_id: text("t-1"),
            to_account_id: text("acc-2"),
            amount: amount("98"),
        }),
        Event::AccountFrozen(AccountFrozen {
            user_id: user_id(),
            currency,
            reason: Some(text("fraud")),
        }),
        Event::AccountUnfrozen(AccountUnfrozen { user_id: user_id(), currency, reason: None }),
        Event::AccountClosed(AccountClosed {
            user_id: user_id(),
            currency,
            reason: Some(String::new()),
        }),
        Event::EntryCorrected(EntryCorrected {
            user_id: user_id(),
            currency,
            compensates_event_id: text("e"),
            amount: amount("-0.5"),
            balance_after: amount("244.75"),
            reason: None,
        }),
    ]
}

#[test]
fn every_event_reads_back_here_and_in_apaches_library() {
    let codec = codec();
    for (event, full_name) in events().into_iter().zip(EVENTS) {
        let mut value = b"before".to_vec();
        let written = codec.encode_event(&event, &mut value).unwrap();
        assert_eq!(written.full_name, full_name);
        assert!(full_name.ends_with(&format!(".{}", event.name())));
        let value = &value[6..];
        assert_eq!(codec.decode_event(value), Ok(event));
        let place = compiled::current(full_name).unwrap();
        let schema = apache_avro::Schema::parse_str(compiled::all()[place].source.text).unwrap();
        let reader =
            apache_avro::reader::datum::GenericDatumReader::builder(&schema).build().unwrap();
        let record = reader.read_value(&mut &value[5..]).unwrap();
        assert!(record.validate(&schema));
    }
}

#[test]
fn events_that_cannot_be_read_say_why() {
    let codec = codec();
    let mut value = Vec::new();
    codec.encode_event(&events()[1], &mut value).unwrap();
    let corrupt =
        |value: &[u8]| matches!(codec.decode_event(value), Err(CodecError::Corrupt { .. }));
    assert!(corrupt(&value[..value.len() - 1]));
    assert!(corrupt(&[&value[..], &[0]].concat()));
    assert!(corrupt(b"{}"));
    assert!(corrupt(b""));
    assert!(corrupt(&to_avro(EXAMPLES[1])));
    value[1..5].copy_from_slice(&4_000_u32.to_be_bytes());
    assert_eq!(codec.decode_event(&value), Err(CodecError::UnknownSchema(4_000)));
    codec.schemas.mark_missing(4_000);
    assert_eq!(codec.decode_event(&value), Err(CodecError::UnknownSchema(4_000)));
    let blind = AccountCodec::new(Arc::default());
    let mut nothing = Vec::new();
    assert!(blind.encode_event(&events()[1], &mut nothing).is_err());
    assert!(nothing.is_empty());
}

#[test]
fn a_newer_version_of_an_event_is_read_as_far_as_it_is_known() {
    let codec = codec();
    let place = compiled::current(EVENTS[1]).unwrap();
    let text = compiled::all()[place].source.text.replace(
        r#""fields": ["#,
        r#""fields": [{"name": "channel", "type": "string", "default": ""},"#,
    );
    codec.schemas.add_writer(77, &text).unwrap();
    let mut value = Vec::new();
    codec.encode_event(&events()[1], &mut value).unwrap();
    value[1..5].copy_from_slice(&77_u32.to_be_bytes());
    value.splice(5..5, *b"\x06app");
    assert_eq!(codec.decode_event(&value), Ok(events()[1].clone()));
}

#[test]
fn every_stored_version_reads_as_todays_event() {
    let golden = include_str!("golden.txt");
    let codec = codec();
    let mut read = std::collections::BTreeSet::new();
    for line in golden.lines().filter(|line| !line.starts_with('#')) {
        let mut words = line.splitn(4, ' ');
        let mut word = || words.next().unwrap();
        let (record, version, hex, expected) = (word(), word(), word(), word());
        let version: u16 = version.parse().unwrap();
        let place = compiled::all()
            .iter()
            .position(|one| one.source.record == record && one.source.version == version);
        let mut value = vec![0, 0, 0, 0, u8::try_from(place.unwrap() + 1).unwrap()];
        value.extend(
            (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()),
        );
        let event = codec.decode_event(&value).unwrap();
        assert_eq!(serde_json::to_string(&event).unwrap(), expected, "{record} {version}");
        read.insert((record, version));
    }
    let stored = SOURCES.iter().filter(|source| source.kind == Kind::Events);
    assert_eq!(read, stored.map(|source| (source.record, source.version)).collect());
}

proptest! {
    #[test]
    fn whatever_was_deposited_reads_back(
        units in -(10_i128.pow(28) - 1)..10_i128.pow(28),
        user_id in ".*",
        reference in prop::option::of(".*"),
    ) {
        let amount = Amount::from_units(units).unwrap();
        let event = Event::MoneyDeposited(MoneyDeposited {
            user_id,
            currency: Currency::USD,
            amount,
            balance_after: amount.negated(),
            reference,
        });
        let codec = codec();
        let mut value = Vec::new();
        codec.encode_event(&event, &mut value).unwrap();
        prop_assert_eq!(codec.decode_event(&value), Ok(event));
    }

    #[test]
    fn no_bytes_make_the_reader_panic(value in prop::collection::vec(any::<u8>(), 0..200), id in 0_u8..30) {
        let codec = codec();
        let _ = codec.decode_command(None, Some(&value));
        let avro = [&[0, 0, 0, 0, id], &value[..]].concat();
        let _ = codec.decode_command(Some("a"), Some(&avro));
        let _ = codec.decode_event(&avro);
        let _ = codec.decode_result(&avro);
    }
}
