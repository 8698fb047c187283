//! Banking in ClickHouse: one row an event, with what the panels add up in columns of its own.

use serde::Serialize;

use super::facts::Facts;
use super::{
    ACCOUNT_EVENTS, CUSTOMER_EVENTS, Codecs, DOMAIN, OPENING_EVENTS, TRANSFER_EVENTS, decode,
    panels,
};
use crate::domain::banking::{account, account_opening, customer, transfer};
use crate::domain::money::Amount;
use crate::kernel::codec::{Codec, CodecError};
use crate::kernel::decider::Decider;
use crate::kernel::message::Record;
use crate::kernel::projection::Head;
use crate::kernel::stream::AggregateName;
use crate::read_model::store::block::Block;
use crate::read_model::store::clickhouse::Blocks;
use crate::read_model::store::{Definition, Source};

/// Whose events are read: everybody's.
pub const AGGREGATES: [AggregateName; 4] =
    [account::NAME, customer::NAME, transfer::NAME, account_opening::NAME];

/// What is made of them.
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
    codecs: Codecs,
}

impl Events {
    /// Reads events by these codecs.
    #[must_use]
    pub const fn new(codecs: Codecs) -> Self {
        Self { codecs }
    }
}

/// Where an event stands.
#[derive(Clone, Copy)]
struct Place<'a> {
    source: &'a Source,
    epoch: u32,
    head: &'a Head<'a>,
    record: &'a Record,
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
        let place = Place { source, epoch, head, record };
        let Codecs { accounts, customers, transfers, openings } = &self.codecs;
        match source.aggregate {
            customer::NAME => place.add(&**customers, &CUSTOMER_EVENTS, block),
            transfer::NAME => place.add(&**transfers, &TRANSFER_EVENTS, block),
            account_opening::NAME => place.add(&**openings, &OPENING_EVENTS, block),
            _ => place.add(&**accounts, &ACCOUNT_EVENTS, block),
        }
    }
}

impl Place<'_> {
    /// Adds the row of the event that stands there; `false` if its type is not known here.
    fn add<D>(
        self,
        codec: &dyn Codec<D>,
        known: &[&str],
        block: &mut Block,
    ) -> Result<bool, CodecError>
    where
        D: Decider<Event: Serialize>,
        for<'e> Facts<'e>: From<&'e D::Event>,
    {
        let Some(event) = decode(codec, known, self.head, self.record)? else {
            return Ok(false);
        };
        self.write(&Facts::from(&event), &event, block)?;
        Ok(true)
    }

    fn write(
        self,
        facts: &Facts<'_>,
        event: &impl Serialize,
        block: &mut Block,
    ) -> Result<(), CodecError> {
        let Self { source, epoch, head, record } = self;
        block.text(source.aggregate.aggregate);
        block.text(head.stream);
        block.uint64(head.sequence);
        block.uuid(head.event_id);
        block.text(head.short_type());
        block.uint16(head.schema_version);
        block.time(head.occurred_at);
        block.text(facts.user_id);
        block.decimal(facts.money.map_or(0, |(amount, _)| amount.units()));
        // Where there is no money there is no currency.
        block.text(facts.money.as_ref().map_or("", |(_, currency)| currency.as_str()));
        block.text(head.correlation_id.unwrap_or_default());
        block.text(head.causation_id.unwrap_or_default());
        block.uuid(head.command_id.unwrap_or_default());
        block.int32(source.partition);
        block.int64(record.offset);
        block.json(event).map_err(|error| CodecError::Unencodable {
            what: "payload",
            reason: error.to_string(),
        })?;
        block.decimal(facts.fee.units());
        block.optional_decimal(facts.balance_after.map(Amount::units));
        block.text(facts.account_type);
        block.uuid(source.topic_id);
        block.uint32(epoch);
        block.end_row();
        Ok(())
    }
}
