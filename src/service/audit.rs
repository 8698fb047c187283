//! The auditor at work in the background: every now and then a few streams of one partition,
//! chosen by chance -> what `/metrics` shows, and a line in the log for each difference.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use tokio::task::JoinHandle;

use super::Wanted;
use crate::audit::fact::Writers;
use crate::audit::{self, Report, Rest, Scope, Settings};
use crate::clock;
use crate::config::Config;
use crate::runtime;

/// How many times as long as it reads events the audit rests.
const REST: u32 = 9;

/// How many partitions' results are remembered.
const REMEMBERED_MAX: usize = 10_000;

/// What the background audit shows.
struct Figures {
    streams: Counter,
    audits: Counter,
    failures: Counter,
    differences: Gauge,
    last: Gauge,
}

impl Figures {
    fn register(registry: &mut Registry) -> Self {
        let figures = Self {
            streams: Counter::default(),
            audits: Counter::default(),
            failures: Counter::default(),
            differences: Gauge::default(),
            last: Gauge::default(),
        };
        let mut counter = |name: &str, help: &str, counter: &Counter| {
            registry.register(format!("millrace_audit_{name}"), help, counter.clone());
        };
        counter("streams", "Streams compared with the log", &figures.streams);
        counter("runs", "Audits made to their end", &figures.audits);
        counter("failures", "Audits that were broken off: a service was away", &figures.failures);
        let mut gauge = |name: &str, help: &str, gauge: &Gauge| {
            registry.register(format!("millrace_audit_{name}"), help, gauge.clone());
        };
        let help = "Differences from the log in the last audit of each partition";
        gauge("differences", help, &figures.differences);
        let help = "When the last audit was made, in seconds since 1970";
        gauge("last_timestamp_seconds", help, &figures.last);
        figures
    }
}

/// The task; it ends when this is dropped.
pub(super) struct Background {
    task: JoinHandle<()>,
}

impl Drop for Background {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Background {
    /// Starts it, if there is a store to look at and it is not switched off.
    pub(super) fn start(config: &Config, wanted: Wanted, metrics: &mut Registry) -> Option<Self> {
        let pause = Duration::from_secs(config.audit.interval_seconds);
        if pause.is_zero() || !(wanted.postgres || wanted.clickhouse) {
            return None;
        }
        let (figures, config) = (Figures::register(metrics), config.clone());
        let task = tokio::spawn(async move {
            let mut found: HashMap<u64, i64> = HashMap::new();
            loop {
                // Not all processes at once.
                tokio::time::sleep(pause.mul_f64(rand::random_range(0.5..1.5))).await;
                let nth: u16 = rand::random();
                match look(&config, wanted, u64::from(nth)).await {
                    Ok(report) => show(&figures, &mut found, &report),
                    Err(reason) => {
                        figures.failures.inc();
                        tracing::warn!(reason, "audit broken off");
                    }
                }
            }
        });
        Some(Self { task })
    }
}

async fn look(config: &Config, wanted: Wanted, nth: u64) -> Result<Report, String> {
    let mut writers = Writers::default();
    let entries = runtime::schemas::entries(config).await.map_err(|error| error.to_string())?;
    for (id, entry) in entries {
        writers.add(id, &entry.schema)?;
    }
    let settings = Settings {
        scope: Scope::Sample(config.audit.sample),
        postgres: wanted.postgres,
        clickhouse: wanted.clickhouse,
        only: Some(nth),
        rest: Rest::Times(REST),
        ..Settings::default()
    };
    let audited = audit::run(config, Arc::new(writers), settings, Arc::new(|_, _| {})).await;
    audited.map_err(|error| error.to_string())
}

fn show(figures: &Figures, found: &mut HashMap<u64, i64>, report: &Report) {
    for one in &report.differences {
        tracing::error!(
            store = one.store,
            stream = one.stream,
            sequence = one.sequence,
            offset = one.offset,
            table = one.table,
            column = one.column,
            expected = one.expected,
            found = one.found,
            "audit: the store says something else than the log"
        );
    }
    let count = i64::try_from(report.differences.len()).unwrap_or(i64::MAX);
    if found.len() < REMEMBERED_MAX {
        found.insert(report.audited.unwrap_or_default(), count);
    }
    figures.differences.set(found.values().sum());
    figures.streams.inc_by(report.compared.streams);
    figures.audits.inc();
    figures.last.set(clock::now().millis() / 1_000);
    tracing::debug!(streams = report.compared.streams, differences = count, "audited");
}
