//! A reader of the public views, ten times a second: every answer there, and none less than the one
//! before.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rust_decimal::Decimal;

use crate::harness::namespace::{Namespace, Stack};
use crate::harness::stores::{Postgres, Row, analytics};

const EVERY: Duration = Duration::from_millis(100);

/// What was seen, by the name of each figure.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    /// How often it was asked.
    pub(crate) count: usize,
    /// The slowest answer.
    pub(crate) slowest: Duration,
    /// The longest time between two answers.
    pub(crate) gap: Duration,
    /// Errors, and answers that say less than one before.
    pub(crate) wrong: Vec<String>,
}

/// Asks until it is stopped.
pub(crate) struct Probe {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Seen>,
}

impl Probe {
    /// Reads Postgres' views.
    pub(crate) fn postgres(namespace: &Namespace) -> Self {
        let postgres = Postgres::connect(namespace).unwrap();
        let schema = namespace.schema("banking");
        let sql = format!(
            "SELECT (SELECT count(*) FROM {schema}.account_summary) AS accounts,
                 (SELECT sum(version) FROM {schema}.account_summary) AS versions,
                 (SELECT sum(total_deposits) FROM {schema}.account_summary) AS deposits,
                 (SELECT count(*) FROM {schema}.account_transaction) AS transactions,
                 (SELECT count(*) FROM {schema}.transfer) AS transfers,
                 (SELECT sum(total) FROM {schema}.fee_ledger) AS fees"
        );
        Self::start(move || postgres.query(&sql))
    }

    /// Reads ClickHouse's views.
    pub(crate) fn clickhouse(namespace: &Namespace) -> Self {
        let database = namespace.schema("millrace");
        let own = Namespace {
            name: namespace.name.clone(),
            stack: Stack::from_env(),
            partitions: namespace.partitions,
        };
        let sql = format!(
            "SELECT (SELECT count() FROM {database}.event) AS events,
                 (SELECT sum(accounts) FROM {database}.banking_balance_by_type) AS accounts,
                 (SELECT sum(events) FROM {database}.banking_volume_day) AS moved,
                 (SELECT sum(deposits) FROM {database}.banking_deposits_withdrawals_hour)
                     AS deposits"
        );
        // Only its services are used: what it names is the test's to delete.
        let own = std::mem::ManuallyDrop::new(own);
        Self::start(move || analytics(&own, &sql))
    }

    fn start(ask: impl Fn() -> Result<Vec<Row>, String> + Send + 'static) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = std::thread::spawn(move || watch(&stopped, ask));
        Self { stop, thread }
    }

    /// Ends it, and says what it has seen.
    pub(crate) fn end(self) -> Seen {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().expect("the probe runs to its end")
    }
}

fn watch(stopped: &AtomicBool, ask: impl Fn() -> Result<Vec<Row>, String>) -> Seen {
    let mut seen = Seen::default();
    let mut last: Option<Row> = None;
    let mut answered = Instant::now();
    while !stopped.load(Ordering::Relaxed) {
        let asked = Instant::now();
        let answer = ask();
        seen.count += 1;
        seen.slowest = seen.slowest.max(asked.elapsed());
        seen.gap = seen.gap.max(answered.elapsed());
        answered = Instant::now();
        match answer {
            Ok(mut rows) if rows.len() == 1 => {
                let row = rows.remove(0);
                seen.wrong.extend(last.iter().flat_map(|last| less(last, &row)));
                last = Some(row);
            }
            Ok(rows) => seen.wrong.push(format!("{} rows", rows.len())),
            Err(error) => seen.wrong.push(error),
        }
        std::thread::sleep(EVERY.saturating_sub(asked.elapsed()));
    }
    seen
}

/// Where an answer says less than the one before.
fn less(before: &Row, after: &Row) -> Vec<String> {
    let number = |row: &Row, name: &str| -> Decimal {
        row.get(name).cloned().flatten().map_or(Decimal::ZERO, |text| text.parse().unwrap())
    };
    let smaller = before.keys().filter(|name| number(after, name) < number(before, name));
    smaller
        .map(|name| format!("{name}: {} after {}", number(after, name), number(before, name)))
        .collect()
}
