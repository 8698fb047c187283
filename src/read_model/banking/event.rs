//! Banking in ClickHouse: one row an event, with what the panels add up in columns of its own.

use super::{AGGREGATES, AccountCodec, DOMAIN, decode, panels};
use crate::domain::banking::account::Event;
use crate::domain::money::Amount;
use crate::kernel::codec::CodecError;
use crate::kernel::message::Record;
use crate::kernel::projection::Head;
use crate::read_model::store::block::Block;
use crate::read_model::store::clickhouse::Blocks;
use crate::read_model::store::{Definition, Source};

/// What is made of account events.
const DEFINITION: Definition = Definition {
    domain: DOMAIN,
    aggregates: &AGGREGATES,
    version: 1,
    tables: &[include_str!("event.sql")],
    views: &panels::VIEWS,
};

/// What is written, in this order.
const COLUMNS: [(&str, &str); 21] = [
    ("aggregate", "LowCardinality(String)"),
    ("aggregate_id", "String"),
    ("sequence", "UInt64"),
    ("event_id", "UUID"),
    ("event_type", "LowCardinality(String)"),
    ("schema_version", "UInt16"),
    ("occurred_at", "DateTime64(6, 'UTC')"),
    ("user_id", "String"),
    ("amount", "Decimal(38, 8)"),
    ("currency", "LowCardinality(String)"),
    ("correlation_id", "String"),
    ("causation_id", "String"),
    ("command_id", "UUID"),
    ("kafka_partition", "Int32"),
    ("kafka_offset", "Int64"),
    ("payload", "String"),
    ("fee", "Decimal(38, 8)"),
    ("balance_after", "Nullable(Decimal(38, 8))"),
    ("account_type", "LowCardinality(String)"),
    ("topic_id", "UUID"),
    ("epoch", "UInt32"),
];

/// Banking's events.
pub struct Events {
    codec: AccountCodec,
}

impl Events {
    /// Reads events by that codec.
    #[must_use]
    pub const fn new(codec: AccountCodec) -> Self {
        Self { codec }
    }
}

impl Blocks for Events {
    fn definition(&self) -> &Definition {
        &DEFINITION
    }

    fn columns(&self) -> &'static [(&'static str, &'static str)] {
        &COLUMNS
    }

    fn take(
        &self,
        source: &Source,
        epoch: u32,
        head: &Head<'_>,
        record: &Record,
        block: &mut Block,
    ) -> Result<bool, CodecError> {
        let Some(event) = decode(&self.codec, head, record)? else {
            return Ok(false);
        };
        let amount = event.amount();
        let currency = event.currency();
        block.text(source.aggregate.aggregate);
        block.text(head.stream);
        block.uint64(head.sequence);
        block.uuid(head.event_id);
        block.text(head.short_type());
        block.uint16(head.schema_version);
        block.time(head.occurred_at);
        block.text(event.user_id());
        block.decimal(amount.map_or(0, Amount::units));
        // Where there is no money there is no currency.
        block.text(amount.map_or("", |_| currency.as_str()));
        block.text(head.correlation_id.unwrap_or_default());
        block.text(head.causation_id.unwrap_or_default());
        block.uuid(head.command_id.unwrap_or_default());
        block.int32(source.partition);
        block.int64(record.offset);
        block.json(&event).map_err(|error| CodecError::Unencodable {
            what: "payload",
            reason: error.to_string(),
        })?;
        block.decimal(fee(&event));
        block.optional_decimal(balance_after(&event).map(Amount::units));
        block.text(account_type(&event));
        block.uuid(source.topic_id);
        block.uint32(epoch);
        block.end_row();
        Ok(true)
    }
}

/// What the event charged, in hundred-millionths; negative if it was given back.
fn fee(event: &Event) -> i128 {
    match event {
        Event::MoneyWithdrawn(event) => event.fee.units(),
        Event::MoneyTransferred(event) => event.transfer_fee.units(),
        Event::TransferReversed(event) => -event.transfer_fee.units(),
        Event::AccountCreated(_)
        | Event::MoneyDeposited(_)
        | Event::MoneyReceived(_)
        | Event::TransferSettled(_)
        | Event::AccountFrozen(_)
        | Event::AccountUnfrozen(_)
        | Event::AccountClosed(_)
        | Event::EntryCorrected(_) => 0,
    }
}

/// The balance that the event left, if it moved money.
const fn balance_after(event: &Event) -> Option<Amount> {
    match event {
        Event::AccountCreated(event) => Some(event.initial_deposit),
        Event::MoneyDeposited(event) => Some(event.balance_after),
        Event::MoneyWithdrawn(event) => Some(event.balance_after),
        Event::MoneyTransferred(event) => Some(event.balance_after),
        Event::MoneyReceived(event) => Some(event.balance_after),
        Event::TransferReversed(event) => Some(event.balance_after),
        Event::EntryCorrected(event) => Some(event.balance_after),
        Event::TransferSettled(_)
        | Event::AccountFrozen(_)
        | Event::AccountUnfrozen(_)
        | Event::AccountClosed(_) => None,
    }
}

/// The account's type, on the event that opens it.
const fn account_type(event: &Event) -> &'static str {
    match event {
        Event::AccountCreated(event) => event.account_type.as_str(),
        Event::MoneyDeposited(_)
        | Event::MoneyWithdrawn(_)
        | Event::MoneyTransferred(_)
        | Event::MoneyReceived(_)
        | Event::TransferReversed(_)
        | Event::TransferSettled(_)
        | Event::AccountFrozen(_)
        | Event::AccountUnfrozen(_)
        | Event::AccountClosed(_)
        | Event::EntryCorrected(_) => "",
    }
}
