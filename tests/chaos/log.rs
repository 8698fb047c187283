//! The whole log in a few words a record: topics -> commands, events, answers, in the log's order.
//!
//! Read committed, with decoding of its own: Avro by the registry's schemas, keys and headers as
//! the contract has them.

use std::collections::{BTreeMap, HashMap};
use std::hash::{DefaultHasher, Hash, Hasher};

use rust_decimal::Decimal;
use serde_json::Value;
use uuid::Uuid;

use crate::harness::avro::Registry;
use crate::harness::kafka::{Place, Reader, Record};
use crate::harness::namespace::Namespace;

/// An event.
#[derive(Clone, Debug)]
pub(crate) struct Event {
    pub(crate) place: Place,
    pub(crate) account: String,
    pub(crate) sequence: u64,
    /// `MoneyDeposited`, without what stands before it.
    pub(crate) name: String,
    pub(crate) id: String,
    pub(crate) command_id: Uuid,
    pub(crate) micros: i64,
    /// `amount`, or what an account was opened with.
    pub(crate) amount: Decimal,
    pub(crate) fee: Decimal,
    pub(crate) balance_after: Option<Decimal>,
    pub(crate) currency: String,
}

/// A result.
#[derive(Clone, Debug)]
pub(crate) struct Answer {
    pub(crate) place: Place,
    pub(crate) id: Uuid,
    pub(crate) account: String,
    pub(crate) outcome: String,
    pub(crate) code: Option<String>,
    pub(crate) sequences: Option<(u64, u64)>,
    pub(crate) version: u64,
    pub(crate) details: BTreeMap<String, String>,
    pub(crate) is_duplicate: bool,
    /// Of everything but the mark of a duplicate.
    pub(crate) digest: u64,
}

/// Everything that is committed.
#[derive(Clone, Debug, Default)]
pub(crate) struct Log {
    /// How many records clients sent under each command id; what a handler moved is not theirs.
    pub(crate) commands: HashMap<Uuid, usize>,
    pub(crate) events: Vec<Event>,
    pub(crate) answers: Vec<Answer>,
}

impl Log {
    /// Reads it all.
    pub(crate) fn read(namespace: &Namespace) -> Self {
        let registry = Registry::new(namespace);
        let mut log = Self::default();
        Reader::new(namespace, &namespace.topic("commands")).each_to_end(|record| {
            if record.header("origin").is_none() {
                let id = Uuid::parse_str(record.header("ce_id").expect("a command id")).unwrap();
                *log.commands.entry(id).or_default() += 1;
            }
        });
        Reader::new(namespace, &namespace.topic("events"))
            .each_to_end(|record| log.events.push(event(&registry, &record)));
        Reader::new(namespace, &namespace.topic("results")).each_to_end(|record| {
            // The granted command of an opening has a result of its own beside its client's.
            if record.header("result_of").is_none() {
                log.answers.push(answer(&registry, &record));
            }
        });
        log
    }
}

fn event(registry: &Registry, record: &Record) -> Event {
    let key = record.key.as_deref().expect("an event's key");
    let (account, sequence) = key.split_at(key.len() - 9);
    assert_eq!(sequence[0], 0, "id, 0x00, sequence");
    let (name, fields) = registry.decode(record.value.as_deref().expect("an event"));
    let money = |names: [&str; 2]| names.iter().find_map(|name| decimal(&fields[*name]));
    let header = |name: &str| record.header(name).unwrap_or_else(|| panic!("no {name}"));
    let time = chrono::DateTime::parse_from_rfc3339(header("ce_time")).unwrap();
    Event {
        place: record.place,
        account: String::from_utf8(account.to_vec()).unwrap(),
        sequence: u64::from_be_bytes(sequence[1..].try_into().unwrap()),
        name: name.rsplit('.').next().unwrap().to_owned(),
        id: header("ce_id").to_owned(),
        command_id: Uuid::parse_str(header("command_id")).unwrap(),
        micros: time.timestamp_micros(),
        amount: money(["amount", "initial_deposit"]).unwrap_or_default(),
        fee: money(["fee", "transfer_fee"]).unwrap_or_default(),
        balance_after: money(["balance_after", "initial_deposit"]),
        currency: fields["currency"].as_str().unwrap_or_default().to_owned(),
    }
}

fn decimal(value: &Value) -> Option<Decimal> {
    Some(value.as_str()?.parse().unwrap())
}

fn answer(registry: &Registry, record: &Record) -> Answer {
    let (name, mut fields) = registry.decode(record.value.as_deref().expect("a result"));
    assert_eq!(name, "millrace.CommandResult");
    let text = |name: &str| fields[name].as_str().map(str::to_owned);
    let key = std::str::from_utf8(record.key.as_deref().expect("a key")).unwrap();
    let id = text("command_id").unwrap();
    assert_eq!(id, key, "a result's key is its command's id");
    let details = fields["details"].as_object().into_iter().flatten();
    let details =
        details.map(|(name, value)| (name.clone(), value.as_str().unwrap_or_default().to_owned()));
    let first = fields["first_sequence"].as_u64();
    let mut answer = Answer {
        place: record.place,
        id: Uuid::parse_str(&id).unwrap(),
        account: text("aggregate_id").unwrap(),
        outcome: text("outcome").unwrap(),
        code: text("code"),
        sequences: first.zip(fields["last_sequence"].as_u64()),
        version: fields["version"].as_u64().unwrap(),
        details: details.collect(),
        is_duplicate: fields["duplicate"] == true,
        digest: 0,
    };
    fields.as_object_mut().unwrap().remove("duplicate");
    let mut hasher = DefaultHasher::new();
    fields.to_string().hash(&mut hasher);
    answer.digest = hasher.finish();
    answer
}
