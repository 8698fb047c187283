//! The log as the judge reads it: events, results and dead letters, in the order of their commits.

use std::collections::BTreeMap;

use millrace::domain::banking::account::{self, Account};
use millrace::domain::banking::account_opening::{self, Opening};
use millrace::domain::banking::customer::{self, Customer};
use millrace::domain::banking::transfer::{self, Transfer};
use millrace::kernel::codec::Codec;
use millrace::kernel::message::Record;
use millrace::kernel::result::CommandResult;
use millrace::kernel::stream::{AggregateName, Kind, parse_event_key, partition_of};
use millrace::kernel::time::Timestamp;
use millrace::log::memory::Place;
use uuid::Uuid;

use crate::bank::{Bank, partitions};
use crate::shared::Shared;

pub(super) enum Fact {
    Account(account::Event),
    Customer(customer::Event),
    Transfer(transfer::Event),
    Opening(account_opening::Event),
}

pub(super) struct Happened {
    pub(super) aggregate: AggregateName,
    pub(super) stream: String,
    pub(super) sequence: u64,
    pub(super) command_id: Uuid,
    pub(super) at: Timestamp,
    pub(super) fact: Fact,
}

pub(super) struct Told {
    pub(super) aggregate: AggregateName,
    /// Whether a process manager had asked.
    pub(super) internal: bool,
    /// When it was appended.
    pub(super) at: Timestamp,
    pub(super) result: CommandResult,
}

#[derive(Default)]
pub(super) struct Story {
    pub(super) events: Vec<Happened>,
    pub(super) results: Vec<Told>,
    /// The command ids of the dead letters.
    pub(super) dead_letters: Vec<(AggregateName, Uuid)>,
    /// How many commands were sent on.
    pub(super) moved: u64,
    /// When the last command of each id was appended.
    pub(super) last_sent: BTreeMap<Uuid, Timestamp>,
}

impl Story {
    pub(super) fn read(shared: &Shared) -> Self {
        let mut story = Self::default();
        for (place, record) in shared.log.in_order() {
            match place.kind {
                Kind::Events => story.events.push(happened(&shared.bank, place, record)),
                Kind::Results => story.results.push(told(&shared.bank, place, record)),
                Kind::DeadLetters => {
                    let id = record.headers.text("ce_id").unwrap().parse().unwrap();
                    story.dead_letters.push((place.aggregate, id));
                }
                Kind::Commands => {
                    story.moved += u64::from(record.headers.get("origin").is_some());
                    if let Some(Ok(id)) = record.headers.text("ce_id").map(str::parse) {
                        story.last_sent.insert(id, Timestamp::from_millis(record.timestamp_ms));
                    }
                }
                Kind::Snapshots | Kind::Timers => {}
            }
        }
        story
    }

    /// How many commands, events and results there are.
    pub(super) fn counts(shared: &Shared) -> [usize; 3] {
        let count = |kind| shared.log.in_order().filter(|(place, _)| place.kind == kind).count();
        [Kind::Commands, Kind::Events, Kind::Results].map(count)
    }

    /// No event is lost, doubled or out of order, and time goes forward in each stream.
    pub(super) fn streams_are_dense(&self) {
        let mut last: BTreeMap<(AggregateName, &str), (u64, Timestamp)> = BTreeMap::new();
        for event in &self.events {
            let stream = last.entry((event.aggregate, &event.stream)).or_default();
            assert_eq!(event.sequence, stream.0 + 1, "{} {}", event.aggregate, event.stream);
            assert!(event.at >= stream.1, "{} goes back in time", event.stream);
            *stream = (event.sequence, event.at);
        }
    }
}

fn happened(bank: &Bank, place: Place, record: &Record) -> Happened {
    let Place { aggregate, partition, .. } = place;
    let (id, sequence) = parse_event_key(record.key.as_deref().unwrap()).unwrap();
    assert_eq!(partition, partition_of(id, partitions(aggregate)), "{id} is on its partition");
    let value = record.value.as_deref().unwrap();
    let fact = match aggregate {
        account::NAME => {
            Fact::Account(Codec::<Account>::decode_event(&*bank.accounts, value).unwrap())
        }
        customer::NAME => {
            Fact::Customer(Codec::<Customer>::decode_event(&*bank.customers, value).unwrap())
        }
        transfer::NAME => {
            Fact::Transfer(Codec::<Transfer>::decode_event(&*bank.transfers, value).unwrap())
        }
        _ => Fact::Opening(Codec::<Opening>::decode_event(&*bank.openings, value).unwrap()),
    };
    Happened {
        aggregate,
        stream: id.to_owned(),
        sequence,
        command_id: record.headers.text("command_id").unwrap().parse().unwrap(),
        at: Timestamp::parse_rfc3339(record.headers.text("ce_time").unwrap()).unwrap(),
        fact,
    }
}

fn told(bank: &Bank, place: Place, record: &Record) -> Told {
    let Place { aggregate, partition, .. } = place;
    let value = record.value.as_deref().unwrap();
    // All aggregates' results have one form.
    let result = Codec::<Account>::decode_result(&*bank.accounts, value).unwrap();
    assert_eq!(record.key.as_deref(), Some(result.command_id.to_string().as_bytes()));
    assert_eq!(partition, partition_of(&result.aggregate_id, partitions(aggregate)));
    let internal = record.headers.get("result_of").is_some();
    Told { aggregate, internal, at: Timestamp::from_millis(record.timestamp_ms), result }
}
