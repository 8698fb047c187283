//! The open loop: commands at a fixed rate, whatever happens; each is timed from the moment at
//! which it should have been sent, so that a stall counts for everything it delays.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde::Serialize;

use super::child::Child;
use super::figures::{Latencies, Percentiles, ratio};
use super::ground::names;
use super::load::{Grants, Load, place_in};
use super::{Bench, Error, blocking};
use crate::clock;
use crate::config;
use crate::kernel::message::Record;
use crate::log::kafka::load::{Feed, Tail};

/// How much of a load is left out at its beginning.
pub const WARM_UP: Duration = Duration::from_secs(2);
/// How long the last events may take.
const STRAGGLERS: Duration = Duration::from_secs(10);
const POLL: Duration = Duration::from_millis(50);

/// What the open loop came to.
#[derive(Debug, Serialize)]
pub struct Figures {
    /// From the intended moment of sending to the committed event.
    #[serde(flatten)]
    pub real: Percentiles,
    /// As `p50_ms`, of the raw passage.
    pub raw_p50_ms: f64,
    /// As `p99_ms`, of the raw passage.
    pub raw_p99_ms: f64,
    /// As `p999_ms`, of the raw passage.
    pub raw_p999_ms: f64,
    /// `p99_ms` over `raw_p99_ms`: 1.5 is half as long again.
    pub ratio: f64,
    /// Commands a second.
    pub rate: u32,
    /// How many were timed.
    pub count: usize,
}

/// When a load's commands were to be sent, and where their events were seen.
pub struct Seen {
    /// For each event: the microsecond (since 1970) at which it was seen, and the one at which its
    /// command was to be sent.
    pub latencies: Vec<i64>,
    /// For each event: partition, offset, append time in microseconds.
    pub events: Vec<(i32, i64, i64)>,
}

/// Measures the open loop: raw, then real.
///
/// # Errors
/// An event did not come, or a process broke.
pub async fn measure(bench: &mut Bench) -> Result<Figures, Error> {
    bench.ensure_handled().await?;
    let raw_events = names(&bench.ground.namespace("rawa")?).events;
    bench.progress.begin("the open loop through the raw passage", 0);
    let child = bench.start_raw("rawa", true).await?;
    let raw = timed(bench, child, raw_events).await?;
    let config = bench.ground.config("")?;
    bench.progress.begin("the open loop", 0);
    let child = bench.start(&config, &["serve", "--only", "handler"]).await?;
    // It handles first what the raw passage was sent.
    let child = bench.wait_handled(child, &config, names(&config.namespace)).await?;
    let real = timed(bench, child, names(&config.namespace).events).await?;
    let percentiles = |seen: &Seen, what: &str| -> Result<Percentiles, Error> {
        let mut latencies = Latencies::new()?;
        seen.latencies.iter().for_each(|latency| latencies.add(*latency));
        latencies.percentiles(what)
    };
    let (figures, raw) = (percentiles(&real, "the open loop")?, percentiles(&raw, "the raw loop")?);
    Ok(Figures {
        real: figures,
        raw_p50_ms: raw.p50_ms,
        raw_p99_ms: raw.p99_ms,
        raw_p999_ms: raw.p999_ms,
        ratio: ratio(figures.p99_ms, raw.p99_ms),
        rate: bench.options.rate,
        count: real.latencies.len(),
    })
}

async fn timed(bench: &Bench, child: Child, events: String) -> Result<Seen, Error> {
    let seen = open_loop(bench, events).await?;
    blocking(move || child.stop()).await?;
    Ok(seen)
}

/// Sends at the rate for the time, and reads the events.
///
/// # Errors
/// An event did not come in time.
pub async fn open_loop(bench: &Bench, events: String) -> Result<Seen, Error> {
    let commands = names(&bench.ground.namespace("")?).commands;
    let grants = Grants::find(&bench.ground.config("")?)?;
    let (accounts, partitions) = (bench.options.accounts, bench.ground.partitions);
    let mut load = Load::new(&bench.ground.schemas, accounts, partitions, 0, grants)?;
    let run = clock::nonce();
    load.go_on(run);
    let kafka = bench.ground.installation.kafka.clone();
    let stop = Arc::clone(&bench.stop);
    let pace = Pace::new(bench);
    let opened = kafka.clone();
    let tail = blocking(move || Ok(Tail::open(&opened, &events, partitions)?)).await?;
    let start = Instant::now() + Duration::from_millis(300);
    let (sender_stop, sender_pace) = (Arc::clone(&stop), pace);
    let sending = blocking(move || send(&kafka, &commands, load, sender_pace, start, &sender_stop));
    let reading = blocking(move || read(&tail, run, pace, start, &stop));
    let (sent, seen) = tokio::join!(sending, reading);
    sent?;
    seen
}

/// The same load, for those who look at something else meanwhile.
///
/// # Errors
/// As [`open_loop`].
pub async fn drive(bench: &Bench) -> Result<(), Error> {
    let events = names(&bench.ground.namespace("")?).events;
    open_loop(bench, events).await.map(|_| ())
}

/// How fast, how long, and from which command on it counts.
#[derive(Clone, Copy)]
struct Pace {
    rate: u64,
    total: u64,
    warm: u64,
}

impl Pace {
    fn new(bench: &Bench) -> Self {
        let rate = u64::from(bench.options.rate);
        let warm = rate * WARM_UP.as_secs();
        Self { rate, total: warm + rate * u64::from(bench.options.seconds), warm }
    }

    /// How long after the start the `nth` command is to be sent.
    fn due(self, nth: u64) -> Duration {
        Duration::from_nanos(nth.saturating_mul(1_000_000_000) / self.rate)
    }
}

fn send(
    kafka: &config::Kafka,
    topic: &str,
    mut load: Load,
    pace: Pace,
    start: Instant,
    stop: &AtomicBool,
) -> Result<(), Error> {
    let producer = Feed::open(kafka)?;
    for nth in 0..pace.total {
        let wire = load.deposit()?;
        let due = start + pace.due(nth);
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
        producer.send(topic, wire.partition, wire.key.as_bytes(), &wire.value, &wire.headers)?;
        if stop.load(Ordering::Acquire) {
            return Err(Error::Interrupted);
        }
    }
    Ok(producer.flush()?)
}

fn read(
    tail: &Tail,
    run: u64,
    pace: Pace,
    start: Instant,
    stop: &AtomicBool,
) -> Result<Seen, Error> {
    let mut seen = Seen { latencies: Vec::new(), events: Vec::new() };
    let mut count = 0;
    let deadline = start + pace.due(pace.total) + STRAGGLERS;
    while count < pace.total {
        if stop.load(Ordering::Acquire) {
            return Err(Error::Interrupted);
        }
        if Instant::now() > deadline {
            let missing = pace.total - count;
            return Err(Error::Wrong(format!("{missing} of {} events did not come", pace.total)));
        }
        let Some((partition, record)) = tail.next(POLL)? else { continue };
        let now = Instant::now();
        let Some(nth) = command_of(&record, run) else { continue };
        count += 1;
        if nth >= pace.warm {
            let latency = now.saturating_duration_since(start + pace.due(nth));
            seen.latencies.push(i64::try_from(latency.as_micros()).unwrap_or(i64::MAX));
            seen.events.push((partition, record.offset, record.timestamp_ms * 1_000));
        }
    }
    Ok(seen)
}

/// Which command of the load an event belongs to: a real one says it in its headers, a raw one in
/// its key.
fn command_of(record: &Record, run: u64) -> Option<u64> {
    let key = record.key.as_deref().and_then(|key| place_in(run, key));
    key.or_else(|| place_in(run, record.headers.get("command_id")?))
}
