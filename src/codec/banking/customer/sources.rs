//! The schemas of every version of every record.

use crate::codec::compiled::Source;
use crate::kernel::stream::Kind;

/// Every version of every record.
pub const SOURCES: &[Source] = &[
    commands(
        "millrace.banking.customer.ReserveSlot",
        1,
        include_str!("../../../../schemas/banking/customer/ReserveSlot.avsc"),
    ),
    commands(
        "millrace.banking.customer.ConfirmSlot",
        1,
        include_str!("../../../../schemas/banking/customer/ConfirmSlot.avsc"),
    ),
    commands(
        "millrace.banking.customer.ReleaseSlot",
        1,
        include_str!("../../../../schemas/banking/customer/ReleaseSlot.avsc"),
    ),
    commands(
        "millrace.banking.customer.FreeSlot",
        1,
        include_str!("../../../../schemas/banking/customer/FreeSlot.avsc"),
    ),
    events(
        "millrace.banking.customer.SlotReserved",
        1,
        include_str!("../../../../schemas/banking/customer/SlotReserved.avsc"),
    ),
    events(
        "millrace.banking.customer.SlotDenied",
        1,
        include_str!("../../../../schemas/banking/customer/SlotDenied.avsc"),
    ),
    events(
        "millrace.banking.customer.SlotConfirmed",
        1,
        include_str!("../../../../schemas/banking/customer/SlotConfirmed.avsc"),
    ),
    events(
        "millrace.banking.customer.SlotReleased",
        1,
        include_str!("../../../../schemas/banking/customer/SlotReleased.avsc"),
    ),
    events(
        "millrace.banking.customer.SlotFreed",
        1,
        include_str!("../../../../schemas/banking/customer/SlotFreed.avsc"),
    ),
];

const fn commands(record: &'static str, version: u16, text: &'static str) -> Source {
    Source { record, version, kind: Kind::Commands, text }
}

const fn events(record: &'static str, version: u16, text: &'static str) -> Source {
    Source { record, version, kind: Kind::Events, text }
}
