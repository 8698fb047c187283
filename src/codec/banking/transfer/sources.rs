//! The schemas of every version of every record.

use crate::codec::compiled::Source;
use crate::kernel::stream::Kind;

/// Every version of every record.
pub const SOURCES: &[Source] = &[
    commands(
        "millrace.banking.transfer.StartTransfer",
        1,
        include_str!("../../../../schemas/banking/transfer/StartTransfer.avsc"),
    ),
    commands(
        "millrace.banking.transfer.RecordReceived",
        1,
        include_str!("../../../../schemas/banking/transfer/RecordReceived.avsc"),
    ),
    commands(
        "millrace.banking.transfer.RecordSettled",
        1,
        include_str!("../../../../schemas/banking/transfer/RecordSettled.avsc"),
    ),
    commands(
        "millrace.banking.transfer.RecordReversed",
        1,
        include_str!("../../../../schemas/banking/transfer/RecordReversed.avsc"),
    ),
    commands(
        "millrace.banking.transfer.RecordRefused",
        1,
        include_str!("../../../../schemas/banking/transfer/RecordRefused.avsc"),
    ),
    commands(
        "millrace.banking.transfer.RecordFailed",
        1,
        include_str!("../../../../schemas/banking/transfer/RecordFailed.avsc"),
    ),
    commands(
        "millrace.banking.transfer.Wake",
        1,
        include_str!("../../../../schemas/banking/transfer/Wake.avsc"),
    ),
    commands(
        "millrace.banking.transfer.Resume",
        1,
        include_str!("../../../../schemas/banking/transfer/Resume.avsc"),
    ),
    commands(
        "millrace.banking.transfer.Abandon",
        1,
        include_str!("../../../../schemas/banking/transfer/Abandon.avsc"),
    ),
    events(
        "millrace.banking.transfer.TransferStarted",
        1,
        include_str!("../../../../schemas/banking/transfer/TransferStarted.avsc"),
    ),
    events(
        "millrace.banking.transfer.TransferReceived",
        1,
        include_str!("../../../../schemas/banking/transfer/TransferReceived.avsc"),
    ),
    events(
        "millrace.banking.transfer.TransferCompleted",
        1,
        include_str!("../../../../schemas/banking/transfer/TransferCompleted.avsc"),
    ),
    events(
        "millrace.banking.transfer.ReversalStarted",
        1,
        include_str!("../../../../schemas/banking/transfer/ReversalStarted.avsc"),
    ),
    events(
        "millrace.banking.transfer.TransferReversed",
        1,
        include_str!("../../../../schemas/banking/transfer/TransferReversed.avsc"),
    ),
    events(
        "millrace.banking.transfer.StepFailed",
        1,
        include_str!("../../../../schemas/banking/transfer/StepFailed.avsc"),
    ),
    events(
        "millrace.banking.transfer.StepRepeated",
        1,
        include_str!("../../../../schemas/banking/transfer/StepRepeated.avsc"),
    ),
    events(
        "millrace.banking.transfer.TransferParked",
        1,
        include_str!("../../../../schemas/banking/transfer/TransferParked.avsc"),
    ),
];

const fn commands(record: &'static str, version: u16, text: &'static str) -> Source {
    Source { record, version, kind: Kind::Commands, text }
}

const fn events(record: &'static str, version: u16, text: &'static str) -> Source {
    Source { record, version, kind: Kind::Events, text }
}
