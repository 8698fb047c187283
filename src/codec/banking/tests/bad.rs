//! What counts as bad, and what is said about it.

use super::*;

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
    assert_eq!(bad_json(r#"{"type":"CloseAccount","reason":"a\u0000b"}"#), invalid("reason"));
    let long = "x".repeat(257);
    let opening = format!(r#"{{"type":"CreateAccount","user_id":"{long}"}}"#);
    assert_eq!(bad_json(&opening), invalid("user_id"));
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
        let of_the_body = key.is_none().then(|| "a".to_owned());
        assert_eq!(with(key, id).unwrap().aggregate_id, of_the_body);
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
    assert_eq!(refused(None, r#""a\u0000b""#), ("InvalidKey", None));
    assert_eq!(refused(None, "5"), ("InvalidField", None));
    let longest = "x".repeat(256);
    assert_eq!(with(None, &format!("{longest:?}")).unwrap().aggregate_id, Some(longest));
    let unknown = bad(None, Some(br#"{"type":"No","account_id":"a"}"#));
    assert_eq!((unknown.code, unknown.aggregate_id.as_deref()), ("UnknownType", Some("a")));
}
