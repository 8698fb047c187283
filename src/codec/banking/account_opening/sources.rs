//! The schemas of every version of every record.

use crate::codec::compiled::Source;
use crate::kernel::stream::Kind;

/// Every version of every record.
pub const SOURCES: &[Source] = &[
    commands(
        "millrace.banking.account_opening.StartOpening",
        1,
        include_str!("../../../../schemas/banking/account_opening/StartOpening.avsc"),
    ),
    commands(
        "millrace.banking.account_opening.RecordReserved",
        1,
        include_str!("../../../../schemas/banking/account_opening/RecordReserved.avsc"),
    ),
    commands(
        "millrace.banking.account_opening.RecordDenied",
        1,
        include_str!("../../../../schemas/banking/account_opening/RecordDenied.avsc"),
    ),
    commands(
        "millrace.banking.account_opening.RecordOpened",
        1,
        include_str!("../../../../schemas/banking/account_opening/RecordOpened.avsc"),
    ),
    commands(
        "millrace.banking.account_opening.RecordConfirmed",
        1,
        include_str!("../../../../schemas/banking/account_opening/RecordConfirmed.avsc"),
    ),
    commands(
        "millrace.banking.account_opening.RecordReleased",
        1,
        include_str!("../../../../schemas/banking/account_opening/RecordReleased.avsc"),
    ),
    commands(
        "millrace.banking.account_opening.RecordClosed",
        1,
        include_str!("../../../../schemas/banking/account_opening/RecordClosed.avsc"),
    ),
    commands(
        "millrace.banking.account_opening.RecordFreed",
        1,
        include_str!("../../../../schemas/banking/account_opening/RecordFreed.avsc"),
    ),
    commands(
        "millrace.banking.account_opening.RecordRefused",
        1,
        include_str!("../../../../schemas/banking/account_opening/RecordRefused.avsc"),
    ),
    commands(
        "millrace.banking.account_opening.RecordFailed",
        1,
        include_str!("../../../../schemas/banking/account_opening/RecordFailed.avsc"),
    ),
    commands(
        "millrace.banking.account_opening.Wake",
        1,
        include_str!("../../../../schemas/banking/account_opening/Wake.avsc"),
    ),
    commands(
        "millrace.banking.account_opening.Resume",
        1,
        include_str!("../../../../schemas/banking/account_opening/Resume.avsc"),
    ),
    commands(
        "millrace.banking.account_opening.Abandon",
        1,
        include_str!("../../../../schemas/banking/account_opening/Abandon.avsc"),
    ),
    events(
        "millrace.banking.account_opening.OpeningStarted",
        1,
        include_str!("../../../../schemas/banking/account_opening/OpeningStarted.avsc"),
    ),
    events(
        "millrace.banking.account_opening.OpeningAdvanced",
        1,
        include_str!("../../../../schemas/banking/account_opening/OpeningAdvanced.avsc"),
    ),
    events(
        "millrace.banking.account_opening.StepFailed",
        1,
        include_str!("../../../../schemas/banking/account_opening/StepFailed.avsc"),
    ),
    events(
        "millrace.banking.account_opening.OpeningParked",
        1,
        include_str!("../../../../schemas/banking/account_opening/OpeningParked.avsc"),
    ),
    events(
        "millrace.banking.account_opening.OpeningEnded",
        1,
        include_str!("../../../../schemas/banking/account_opening/OpeningEnded.avsc"),
    ),
];

const fn commands(record: &'static str, version: u16, text: &'static str) -> Source {
    Source { record, version, kind: Kind::Commands, text }
}

const fn events(record: &'static str, version: u16, text: &'static str) -> Source {
    Source { record, version, kind: Kind::Events, text }
}
