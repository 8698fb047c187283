//! Every event's row in ClickHouse.

use super::Aggregate;
use super::account::money_of;
use crate::audit::cell::{Cell, Row};
use crate::audit::fact::Fact;

/// The events that customers have.
pub const CUSTOMER: [&str; 5] =
    ["SlotReserved", "SlotDenied", "SlotConfirmed", "SlotReleased", "SlotFreed"];

/// The events that openings have.
pub const OPENING: [&str; 5] =
    ["OpeningStarted", "OpeningAdvanced", "StepFailed", "OpeningParked", "OpeningEnded"];

/// The columns that are compared.
pub const COLUMNS: [&str; 18] = [
    "sequence",
    "event_id",
    "event_type",
    "schema_version",
    "occurred_at",
    "user_id",
    "amount",
    "currency",
    "correlation_id",
    "causation_id",
    "command_id",
    "kafka_offset",
    "payload",
    "fee",
    "balance_after",
    "account_type",
    "topic_id",
    "kafka_partition",
];

/// The row of an event; `None` if its type is one that the stores pass over.
#[must_use]
pub fn row(aggregate: Aggregate, fact: &Fact, topic_id: uuid::Uuid, partition: i32) -> Option<Row> {
    if !aggregate.events().contains(&fact.name.as_str()) {
        return None;
    }
    // Only an account's event charges: a process manager's tells of the same money once more.
    let (amount, fee, balance_after) = if aggregate == Aggregate::Account {
        money_of(fact)
    } else {
        (fact.money("amount").or_else(|| fact.money("initial_deposit")), 0, None)
    };
    let currency = amount.and_then(|_| fact.text("currency")).unwrap_or_default();
    let account_type = if aggregate == Aggregate::Account && fact.name == "AccountCreated" {
        fact.text("account_type").unwrap_or_default()
    } else {
        ""
    };
    Some(vec![
        Cell::count(fact.sequence),
        Cell::Id(fact.event_id),
        Cell::Text(fact.name.clone()),
        Cell::Whole(i64::from(fact.schema_version)),
        Cell::Moment(fact.at),
        Cell::text(fact.text("user_id").or(Some(""))),
        Cell::Money(amount.unwrap_or_default()),
        Cell::Text(currency.to_owned()),
        Cell::Text(fact.correlation_id.clone()),
        Cell::Text(fact.causation_id.clone()),
        Cell::Id(fact.command_id),
        Cell::Whole(fact.offset),
        Cell::Text(fact.payload()),
        Cell::Money(fee),
        balance_after.map_or(Cell::Null, Cell::Money),
        Cell::Text(account_type.to_owned()),
        Cell::Id(topic_id),
        Cell::Whole(i64::from(partition)),
    ])
}
