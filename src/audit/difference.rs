//! What an audit found.

use std::time::Duration;

use serde::Serialize;

use super::cell::{Cell, Row};

/// Where a store says something else than the log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Difference {
    /// `log`, `snapshots`, `postgres` or `clickhouse`.
    pub store: &'static str,
    /// The stream, `banking.account/acc-1`; of a partition's checkpoint, `banking.account[3]`.
    pub stream: String,
    /// The event's number, where it is about one.
    pub sequence: Option<u64>,
    /// The table.
    pub table: String,
    /// The column; `row` where a row is missing or too many.
    pub column: String,
    /// What the log says; `null` where there must be nothing.
    pub expected: Option<String>,
    /// What was found; `null` where there is nothing.
    pub found: Option<String>,
    /// The partition.
    pub partition: i32,
    /// The event's offset, where it is known.
    pub offset: Option<i64>,
}

/// What is the same for many differences.
#[derive(Clone, Debug)]
pub(super) struct Place<'a> {
    pub(super) store: &'static str,
    pub(super) stream: String,
    pub(super) table: &'a str,
    pub(super) partition: i32,
}

impl Place<'_> {
    /// One difference there.
    pub(super) fn say(
        &self,
        event: (Option<u64>, Option<i64>),
        column: &str,
        expected: Option<String>,
        found: Option<String>,
    ) -> Difference {
        Difference {
            store: self.store,
            stream: self.stream.clone(),
            sequence: event.0,
            table: self.table.to_owned(),
            column: column.to_owned(),
            expected,
            found,
            partition: self.partition,
            offset: event.1,
        }
    }

    /// Where two rows differ, of the columns that both have.
    pub(super) fn rows(
        &self,
        event: (Option<u64>, Option<i64>),
        columns: &[&str],
        expected: &Row,
        found: &Row,
    ) -> Vec<Difference> {
        let cells = columns.iter().zip(expected.iter().zip(found));
        cells
            .filter(|(_, (expected, found))| expected != found)
            .map(|(column, (expected, found))| {
                self.say(event, column, expected.shown(), found.shown())
            })
            .collect()
    }

    /// A row that is not there.
    pub(super) fn missing(&self, event: (Option<u64>, Option<i64>)) -> Difference {
        self.say(event, "row", Some("a row".to_owned()), None)
    }

    /// A row that should not be there.
    pub(super) fn orphan(&self, event: (Option<u64>, Option<i64>), row: &[Cell]) -> Difference {
        let shown: Vec<String> = row.iter().take(8).map(Cell::to_string).collect();
        self.say(event, "row", None, Some(format!("a row: {}", shown.join(" "))))
    }
}

/// What an audit looked at, and what it found.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Report {
    /// Every difference that is named.
    pub differences: Vec<Difference>,
    /// Streams that differ but are not named in full, because there are so many.
    pub more_streams: u64,
    /// Streams with events that a projection has parked: they are left out behind those.
    pub parked: Vec<String>,
    /// What was left out, and why.
    pub notes: Vec<String>,
    /// Which one of all partitions was looked at, if it was just one.
    #[serde(skip)]
    pub audited: Option<u64>,
    /// How much was compared.
    pub compared: Compared,
}

/// How much was compared.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Compared {
    /// Streams.
    pub streams: u64,
    /// Events of the log.
    pub events: u64,
    /// Rows in Postgres.
    pub postgres_rows: u64,
    /// Rows in ClickHouse.
    pub clickhouse_rows: u64,
    /// Snapshots.
    pub snapshots: u64,
    /// Partitions.
    pub partitions: u64,
    /// How long it took, in milliseconds.
    pub ms: u64,
}

impl Compared {
    /// Takes down how long it took.
    pub(super) fn took(&mut self, time: Duration) {
        self.ms = u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    }
}

impl Report {
    /// Whether every store says what the log says.
    #[must_use]
    pub const fn is_clean(&self) -> bool {
        self.differences.is_empty() && self.more_streams == 0
    }
}
