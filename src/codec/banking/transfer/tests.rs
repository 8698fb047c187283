//! What is written reads back, and every stored version does.

use super::*;
use crate::codec::banking::{golden, payload};

#[test]
fn every_event_reads_back_and_writes_the_same_bytes() {
    let codec = TransferCodec::new(Arc::new(Schemas::numbered_from(1)));
    golden::check(include_str!("golden.txt"), SOURCES, |value| {
        let event = codec.decode_event(value).unwrap();
        let mut again = Vec::new();
        let written = codec.encode_event(&event, &mut again).unwrap();
        assert!(written.full_name.ends_with(event.name()));
        let fields = serde_json::to_value(&event).unwrap();
        assert_eq!(payload::transfer_event(event.name(), fields).as_ref(), Ok(&event));
        (serde_json::to_string(&event).unwrap(), again)
    });
    assert!(codec.decode_event(b"{}").is_err());
}

#[test]
fn every_command_reads_and_bad_ones_are_named() {
    let codec = TransferCodec::new(Arc::new(Schemas::numbered_from(1)));
    let decode = |text: &str| codec.decode_command(Some("t-1"), Some(text.as_bytes()));
    let examples = [
        r#"{"type":"StartTransfer","user_id":"u","currency":"USD","from_account_id":"a",
            "to_account_id":"b","amount":"98","fee":"2","reference":"rent"}"#,
        r#"{"type":"RecordReceived"}"#,
        r#"{"type":"RecordSettled"}"#,
        r#"{"type":"RecordReversed"}"#,
        r#"{"type":"RecordRefused","step":"RECEIVE","code":"AccountNotFound"}"#,
        r#"{"type":"RecordFailed","step":"SETTLE","code":"InternalError"}"#,
        r#"{"type":"Wake"}"#,
        r#"{"type":"Resume","received":"NO"}"#,
        r#"{"type":"Abandon","reason":"because"}"#,
    ];
    let names: Vec<_> = examples.iter().map(|text| decode(text).unwrap().type_name).collect();
    let known: Vec<_> = COMMANDS.iter().map(|(name, _)| *name).collect();
    assert_eq!(names, known);
    for (text, field) in [
        (r#"{"type":"Resume","received":"no"}"#, "received"),
        (r#"{"type":"RecordFailed","step":"PAY","code":"x"}"#, "step"),
        (&examples[0].replace("USD", "usd"), "currency"),
    ] {
        let Err(Undecoded::Bad(bad)) = decode(text) else { panic!("{text} is bad") };
        assert_eq!((bad.code, bad.field.as_deref()), ("InvalidField", Some(field)));
    }
}
