//! Another stream, read to its end -> what became of a saga's step, as a command that tells the
//! saga. That is no pure stage's to do.
//!
//! | the saga waits for | whose stream | what it may hold |
//! |---|---|---|
//! | RECEIVE | the receiver's | `MoneyReceived`: it may not know any more (`Unverifiable`) |
//! | REVERSE | the sender's | `TransferReversed`: after a day it only answers `TransferNotOpen` |
//! | RESERVE | the customer's | `SlotReserved` or `SlotDenied`: a repeated yes does not say which |

use std::sync::Arc;

use serde_json::{Value, json};

use super::saga::Witness;
use crate::cli::{Output, reading};
use crate::codec::banking::AccountCodec;
use crate::codec::banking::customer::CustomerCodec;
use crate::codec::schemas::Schemas;
use crate::config::Config;
use crate::domain::banking::account::{self, Account};
use crate::domain::banking::customer::{self, Customer};
use crate::kernel::codec::Codec;
use crate::kernel::decider::Decider;
use crate::kernel::message::Record;
use crate::kernel::stream::{Kind, parse_event_key};
use crate::log::kafka::partition_reader::Visit;
use crate::runtime;

/// What the stream says of that saga; `None` if it says nothing.
///
/// # Errors
/// The brokers do not answer, or an event cannot be read.
pub(super) async fn ask(
    config: &Config,
    witness: &Witness,
    saga: &str,
    output: Output,
) -> anyhow::Result<Option<Value>> {
    let schemas = runtime::schemas::load(config).await?;
    let (name, stream) = match witness {
        Witness::Receiver(id) | Witness::Sender(id) => (account::NAME, id.clone()),
        Witness::Customer(id) => (customer::NAME, id.clone()),
    };
    let spinner = output.spinner(format!("reading {name}/{stream}"));
    let handle = tokio::runtime::Handle::current();
    let search = Search { config: config.clone(), schemas, handle, stream };
    let (witness, saga) = (witness.clone(), saga.to_owned());
    let found = tokio::task::spawn_blocking(move || search.run(&witness, &saga)).await?;
    spinner.finish_and_clear();
    found
}

struct Search {
    config: Config,
    schemas: Arc<Schemas>,
    handle: tokio::runtime::Handle,
    stream: String,
}

impl Search {
    fn run(&self, witness: &Witness, saga: &str) -> anyhow::Result<Option<Value>> {
        let schemas = Arc::clone(&self.schemas);
        match witness {
            Witness::Receiver(_) => {
                let codec = AccountCodec::new(schemas);
                self.find::<Account>(&codec, &["MoneyReceived"], |event| received(event, saga))
            }
            Witness::Sender(_) => {
                let codec = AccountCodec::new(schemas);
                self.find::<Account>(&codec, &["TransferReversed"], |event| reversed(event, saga))
            }
            Witness::Customer(_) => {
                let codec = CustomerCodec::new(schemas);
                let names = ["SlotReserved", "SlotDenied"];
                self.find::<Customer>(&codec, &names, |event| reserved(event, saga))
            }
        }
    }

    fn find<D: Decider>(
        &self,
        codec: &dyn Codec<D>,
        names: &[&str],
        tell: impl Fn(&D::Event) -> Option<Value>,
    ) -> anyhow::Result<Option<Value>> {
        let topic = self.config.namespace.dotted(&D::NAME.topic(Kind::Events));
        let mut reader = reading::open_stream(&self.config.kafka, &topic, &self.stream)?;
        let mut found = Ok(None);
        reader.to_end(|record| {
            found = self.look(&record, codec, names, &tell);
            if matches!(found, Ok(None)) { Visit::Continue } else { Visit::Stop }
        })?;
        found
    }

    fn look<D: Decider>(
        &self,
        record: &Record,
        codec: &dyn Codec<D>,
        names: &[&str],
        tell: &impl Fn(&D::Event) -> Option<Value>,
    ) -> anyhow::Result<Option<Value>> {
        let key = record.key.as_deref().and_then(parse_event_key);
        let is_own = key.is_some_and(|(id, _)| id == self.stream);
        let name = record.headers.text("ce_type").unwrap_or_default();
        let name = name.rsplit_once('.').map_or(name, |(_, name)| name);
        let Some(value) = record.value.as_deref() else { return Ok(None) };
        if !is_own || !names.contains(&name) {
            return Ok(None);
        }
        let decode = || codec.decode_event(value);
        let event = self.handle.block_on(reading::decoded(&self.config, &self.schemas, decode))?;
        Ok(tell(&event))
    }
}

fn received(event: &account::Event, transfer: &str) -> Option<Value> {
    let account::Event::MoneyReceived(event) = event else { return None };
    (event.transfer_id == transfer).then(|| json!({"type": "Resume", "received": "YES"}))
}

fn reversed(event: &account::Event, transfer: &str) -> Option<Value> {
    let account::Event::TransferReversed(event) = event else { return None };
    (event.transfer_id == transfer).then(|| json!({"type": "RecordReversed"}))
}

fn reserved(event: &customer::Event, slot: &str) -> Option<Value> {
    match event {
        customer::Event::SlotReserved(event) if event.slot_id == slot => {
            Some(json!({"type": "RecordReserved"}))
        }
        customer::Event::SlotDenied(event) if event.slot_id == slot => {
            Some(json!({"type": "RecordDenied", "code": event.code}))
        }
        customer::Event::SlotReserved(_)
        | customer::Event::SlotDenied(_)
        | customer::Event::SlotConfirmed(_)
        | customer::Event::SlotReleased(_)
        | customer::Event::SlotFreed(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taken() -> customer::SlotTaken {
        let text = str::to_owned;
        customer::SlotTaken {
            user_id: text("ann"),
            slot_id: text("slot"),
            account_id: text("acc-1"),
        }
    }

    #[test]
    fn the_customers_stream_tells_a_yes_from_a_no() {
        let yes = customer::Event::SlotReserved(taken());
        assert_eq!(reserved(&yes, "slot"), Some(json!({"type": "RecordReserved"})));
        assert_eq!(reserved(&yes, "another"), None);
        let customer::SlotTaken { user_id, slot_id, account_id } = taken();
        let code = "AccountLimit".to_owned();
        let denied = customer::SlotDenied { user_id, slot_id, account_id, code };
        let no = customer::Event::SlotDenied(denied);
        let expected = json!({"type": "RecordDenied", "code": "AccountLimit"});
        assert_eq!(reserved(&no, "slot"), Some(expected));
        assert_eq!(reserved(&customer::Event::SlotReleased(taken()), "slot"), None);
    }
}
