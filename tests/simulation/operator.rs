//! The operator: finds sagas that are parked, or were told something that broke, and has them go
//! on, as the command line does.

use std::collections::BTreeMap;

use millrace::domain::banking::account;
use millrace::domain::banking::account_opening::{self, Opening};
use millrace::domain::banking::customer::{self, Customer};
use millrace::domain::banking::transfer::{self, Transfer};
use millrace::engine::letter::Broken;
use millrace::kernel::codec::Codec;
use millrace::kernel::message::Record;
use millrace::kernel::reactor::Dispatch;
use millrace::kernel::result::Outcome;
use millrace::kernel::stream::{AggregateName, Kind, parse_event_key};
use millrace::log::memory::Place;
use serde_json::json;
use uuid::Uuid;

use super::bank::Bank;
use super::shared::Shared;

/// Stands for whatever an opening is parked for while it waits for its slot.
const AT_RESERVE: &str = "RESERVE";
const SAGAS: [AggregateName; 2] = [transfer::NAME, account_opening::NAME];

#[derive(Default)]
pub(crate) struct Operator {
    /// How many commands it has sent.
    count: u128,
    rounds: u32,
}

impl Operator {
    /// Sends again what sagas were told and broke; `false` if there is nothing.
    pub(crate) fn repair(&mut self, shared: &mut Shared) -> bool {
        let broken = broken(shared);
        for (aggregate, letter) in &broken {
            let topic = shared.bank.targets.of(*aggregate).unwrap();
            let topic = (&*topic.topic, topic.partition_count);
            let crossing = letter.again(topic, &shared.bank.key).unwrap();
            shared.cross(&crossing);
            shared.tally.repaired += 1;
        }
        !broken.is_empty()
    }

    /// Resumes every saga that is parked; `false` if none is.
    pub(crate) fn resume_parked(&mut self, shared: &mut Shared) -> bool {
        let parked = parked(shared);
        self.rounds += 1;
        for (aggregate, id, reason) in &parked {
            let body = match reason.as_str() {
                AT_RESERVE => slot_told(shared, id),
                // Asked once more it only repeats that: the sender's stream says what became of it.
                "TransferNotOpen" => {
                    assert!(has_reversed(shared, id), "{id} is neither open nor given back");
                    json!({"type": "RecordReversed"})
                }
                // Nobody can tell any more but the receiver's whole stream.
                "Unverifiable" if self.rounds.is_multiple_of(2) => {
                    let received = if has_received(shared, id) { "YES" } else { "NO" };
                    json!({"type": "Resume", "received": received})
                }
                _ => json!({"type": "Resume"}),
            };
            self.send(shared, *aggregate, id, body.to_string());
        }
        !parked.is_empty()
    }

    /// Which sagas are parked, and why.
    pub(crate) fn parked(&self, shared: &Shared) -> Vec<(AggregateName, String, String)> {
        parked(shared)
    }

    pub(crate) fn send(
        &mut self,
        shared: &mut Shared,
        aggregate: AggregateName,
        id: &str,
        body: String,
    ) {
        self.count += 1;
        let dispatch = Dispatch {
            aggregate,
            id: id.to_owned(),
            command_id: Uuid::from_u128(0x0be7 << 64 | self.count),
            body: body.into_bytes(),
            reply_to: None,
            correlation_id: None,
            causation_id: None,
            metadata: Vec::new(),
        };
        let Bank { targets, key, .. } = &*shared.bank;
        let crossing = targets.address_by_operator(&dispatch, key).unwrap();
        shared.cross(&crossing);
    }
}

/// What broke at a saga and was not done later, in the order of the log, each once.
fn broken(shared: &Shared) -> Vec<(AggregateName, Broken)> {
    let is_saga = |place: &Place| SAGAS.contains(&place.aggregate);
    let mut broken: Vec<(AggregateName, Broken)> = Vec::new();
    for (place, record) in shared.log.in_order() {
        if !is_saga(&place) {
            continue;
        }
        if place.kind == Kind::DeadLetters
            && let Some(letter) = Broken::of(record)
            && broken.iter().all(|(_, known)| known.command_id != letter.command_id)
        {
            broken.push((place.aggregate, letter));
        }
        if place.kind == Kind::Results && record.headers.get("result_of").is_some() {
            let value = record.value.as_deref().unwrap();
            let codec = &*shared.bank.transfers;
            let result = Codec::<Transfer>::decode_result(codec, value).unwrap();
            if result.outcome != Outcome::Failed {
                broken.retain(|(_, known)| known.command_id != result.command_id);
            }
        }
    }
    broken
}

/// The last event of each saga's stream says whether it is parked, and why.
fn parked(shared: &Shared) -> Vec<(AggregateName, String, String)> {
    let mut last: BTreeMap<(AggregateName, String), &Record> = BTreeMap::new();
    for (place, record) in shared.log.in_order() {
        if place.kind == Kind::Events && SAGAS.contains(&place.aggregate) {
            let (id, _) = parse_event_key(record.key.as_deref().unwrap()).unwrap();
            last.insert((place.aggregate, id.to_owned()), record);
        }
    }
    let mut parked = Vec::new();
    for ((aggregate, id), record) in last {
        let value = record.value.as_deref().unwrap();
        let reason = if aggregate == transfer::NAME {
            match Codec::<Transfer>::decode_event(&*shared.bank.transfers, value).unwrap() {
                transfer::Event::TransferParked(event) => event.reason,
                _ => continue,
            }
        } else {
            match Codec::<Opening>::decode_event(&*shared.bank.openings, value).unwrap() {
                account_opening::Event::OpeningParked(event) => match event.step {
                    account_opening::Step::Reserve => AT_RESERVE.to_owned(),
                    _ => event.reason,
                },
                _ => continue,
            }
        };
        parked.push((aggregate, id, reason));
    }
    parked
}

/// A repeated answer does not say whether there is a slot: the customer's stream does.
fn slot_told(shared: &Shared, slot: &str) -> serde_json::Value {
    let mut told = json!({"type": "Resume"});
    for (place, record) in shared.log.in_order() {
        if (place.aggregate, place.kind) != (customer::NAME, Kind::Events) {
            continue;
        }
        let value = record.value.as_deref().unwrap();
        match Codec::<Customer>::decode_event(&*shared.bank.customers, value).unwrap() {
            customer::Event::SlotReserved(event) if event.slot_id == slot => {
                told = json!({"type": "RecordReserved"});
            }
            customer::Event::SlotDenied(event) if event.slot_id == slot => {
                told = json!({"type": "RecordDenied", "code": event.code});
            }
            _ => {}
        }
    }
    told
}

fn has_received(shared: &Shared, transfer: &str) -> bool {
    any_account_event(shared, |event| match event {
        account::Event::MoneyReceived(event) => event.transfer_id == transfer,
        _ => false,
    })
}

fn has_reversed(shared: &Shared, transfer: &str) -> bool {
    any_account_event(shared, |event| match event {
        account::Event::TransferReversed(event) => event.transfer_id == transfer,
        _ => false,
    })
}

fn any_account_event(shared: &Shared, is_it: impl Fn(&account::Event) -> bool) -> bool {
    shared.log.in_order().any(|(place, record)| {
        if (place.aggregate, place.kind) != (account::NAME, Kind::Events) {
            return false;
        }
        let value = record.value.as_deref().unwrap();
        let codec = &*shared.bank.accounts;
        is_it(&Codec::<account::Account>::decode_event(codec, value).unwrap())
    })
}
