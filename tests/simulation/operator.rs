//! The operator: finds sagas that are parked and has them go on, as the command line does.

use std::collections::BTreeMap;

use millrace::domain::banking::account;
use millrace::domain::banking::account_opening::{self, Opening};
use millrace::domain::banking::transfer::{self, Transfer};
use millrace::kernel::codec::Codec;
use millrace::kernel::message::Record;
use millrace::kernel::reactor::Dispatch;
use millrace::kernel::stream::{AggregateName, Kind, parse_event_key};
use serde_json::json;
use uuid::Uuid;

use super::bank::Bank;
use super::shared::Shared;

#[derive(Default)]
pub(crate) struct Operator {
    /// How many commands it has sent.
    count: u128,
    rounds: u32,
}

impl Operator {
    /// Resumes every saga that is parked; `false` if none is.
    pub(crate) fn resume_parked(&mut self, shared: &mut Shared) -> bool {
        let parked = parked(shared);
        self.rounds += 1;
        for (aggregate, id, reason) in &parked {
            let body = match reason.as_str() {
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

/// The last event of each saga's stream says whether it is parked, and why.
fn parked(shared: &Shared) -> Vec<(AggregateName, String, String)> {
    let mut last: BTreeMap<(AggregateName, String), &Record> = BTreeMap::new();
    for (place, record) in shared.log.in_order() {
        let is_saga = [transfer::NAME, account_opening::NAME].contains(&place.aggregate);
        if place.kind == Kind::Events && is_saga {
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
                account_opening::Event::OpeningParked(event) => event.reason,
                _ => continue,
            }
        };
        parked.push((aggregate, id, reason));
    }
    parked
}

fn has_received(shared: &Shared, transfer: &str) -> bool {
    shared.log.in_order().any(|(place, record)| {
        if (place.aggregate, place.kind) != (account::NAME, Kind::Events) {
            return false;
        }
        let value = record.value.as_deref().unwrap();
        match Codec::<account::Account>::decode_event(&*shared.bank.accounts, value).unwrap() {
            account::Event::MoneyReceived(event) => event.transfer_id == transfer,
            _ => false,
        }
    })
}
