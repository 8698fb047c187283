//! Commands in both forms, and what their content is.

use super::*;

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
            grant: None,
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
