//! What commands look like, what is bad, what is stored, and that all of it reads back.

mod bad;
mod commands;
mod events;

use super::*;
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
    r#"{"type":"CreateAccount","account_id":"acc-1","user_id":"u","account_type":"savings",
        "initial_deposit":"100","currency":"EUR"}"#,
    r#"{"type":"Deposit","amount":"150.00","reference":"salary"}"#,
    r#"{"type":"Withdraw","amount":"0.01","reference":null}"#,
    r#"{"type":"Transfer","to_account_id":"acc-2","amount":"1","reference":"rent"}"#,
    r#"{"type":"ReceiveTransfer","transfer_id":"t","from_account_id":"acc-2",
        "amount":"1","currency":"USD","valid_until":"2026-01-01T00:00:00Z"}"#,
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
            slot_id: None,
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
            slot_id: None,
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
