//! What both stores' parts share: how far rows have come, and when an event became visible in them.

use std::future::Future;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde::Serialize;

use super::child::Child;
use super::figures::{Latencies, Percentiles, megabytes, per_second, ratio, whole};
use super::ground::names;
use super::latency::{Seen, open_loop};
use super::{Bench, Error, blocking};
use crate::clock;
use crate::kernel::message::Record;
use crate::log::kafka::reader::{Begin, ReaderPool};

/// How long a projection may stand still before it is given up.
const STALL_MAX: Duration = Duration::from_secs(60);
/// How long rows may take that the open loop still waits for.
const STRAGGLERS: Duration = Duration::from_secs(10);

/// What a store's part came to.
#[derive(Debug, Serialize)]
pub struct Figures {
    /// Events a second through the projection.
    pub rate: f64,
    /// Events a second of the same rows without it.
    pub raw_rate: f64,
    /// `rate` over `raw_rate`.
    pub ratio: f64,
    /// From an event's append time to its row, under the open loop.
    #[serde(flatten)]
    pub visible: Percentiles,
    /// Events in the backlog.
    pub events: usize,
    /// Resident megabytes (10^6), at their highest, of the projection's process in the backlog.
    pub rss_mb: f64,
}

/// How far a partition's rows have come: the partition and the next offset.
pub type Mark = (i32, i64);

/// Looks at rows from outside, by SQL.
pub trait Rows {
    /// How far each partition's rows have come. None if there are no tables yet.
    fn marks(&self) -> impl Future<Output = Result<Vec<Mark>, Error>> + Send;
}

/// The log of events as it stands: the offsets of each partition.
pub struct Log {
    offsets: Vec<Vec<i64>>,
}

impl Log {
    /// Reads every event and hands it on with its partition.
    ///
    /// # Errors
    /// The log cannot be read, or `take` says so.
    pub async fn read(
        bench: &Bench,
        mut take: impl FnMut(i32, Record) -> Result<(), Error> + Send + 'static,
    ) -> Result<Self, Error> {
        let topic = names(&bench.ground.namespace("")?).events;
        let (kafka, partitions) =
            (bench.ground.installation.kafka.clone(), bench.ground.partitions);
        blocking(move || {
            let pool = ReaderPool::new(&kafka, 1);
            let mut all = Vec::new();
            for partition in 0..partitions {
                let (mut offsets, mut outcome) = (Vec::new(), Ok(()));
                pool.read_to_end(&topic, partition, Begin::Oldest, |records| {
                    for record in records {
                        offsets.push(record.offset);
                        if outcome.is_ok() {
                            outcome = take(partition, record);
                        }
                    }
                    outcome.is_ok()
                })?;
                outcome?;
                all.push(offsets);
            }
            Ok(Self { offsets: all })
        })
        .await
    }

    /// How many events there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.offsets.iter().map(Vec::len).sum()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many of them the marks have passed.
    fn passed(&self, marks: &[Mark]) -> usize {
        let one = |(partition, next): &Mark| {
            let offsets = self.offsets.get(usize::try_from(*partition).ok()?)?;
            Some(offsets.partition_point(|offset| offset < next))
        };
        marks.iter().filter_map(one).sum()
    }
}

/// Runs a projection over the backlog. Returns its rate from the moment on at which as many
/// partitions have rows as are written at once, and its highest memory in bytes.
///
/// # Errors
/// It stands still, or ends.
pub async fn run(
    bench: &Bench,
    rows: &impl Rows,
    log: &Log,
    role: &str,
    (at_once, look): (usize, Duration),
) -> Result<(f64, u64), Error> {
    let config = bench.ground.config("")?;
    let mut child = Child::start(&config, bench.options.batch, &["serve", "--only", role])?;
    let needed = at_once.min(bench.partition_count());
    let mut start = None;
    let mut last = (0, Instant::now());
    let (from, end) = loop {
        bench.check()?;
        child.check()?;
        let marks = rows.marks().await?;
        let (passed, now) = (log.passed(&marks), Instant::now());
        bench.progress.reach(passed);
        if start.is_none() && marks.iter().filter(|mark| mark.1 > 0).count() >= needed {
            start = Some((passed, now));
        }
        if passed > last.0 {
            last = (passed, now);
        } else if last.1.elapsed() > STALL_MAX {
            return Err(Error::Wrong(format!("serve --only {role} stands still at {passed}")));
        }
        match start {
            Some(start) if passed == log.len() => break (start, now),
            Some(_) | None => tokio::time::sleep(look).await,
        }
    };
    let (_, rss_max) = child.rss_bytes();
    blocking(move || child.stop()).await?;
    let rate = per_second(role, log.len() - from.0, end.saturating_duration_since(from.1))?;
    Ok((rate, rss_max))
}

/// Waits until all events that there are have their rows.
///
/// # Errors
/// The rows stand still.
pub async fn wait_for(bench: &Bench, rows: &impl Rows, log: &Log) -> Result<(), Error> {
    let mut last = (0, Instant::now());
    loop {
        bench.check()?;
        let passed = log.passed(&rows.marks().await?);
        if passed >= log.len() {
            return Ok(());
        }
        if passed > last.0 {
            last = (passed, Instant::now());
        } else if last.1.elapsed() > STALL_MAX {
            return Err(Error::Wrong(format!("rows stand still at {passed} events")));
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Under the open loop, polls how far the rows are, and says how long each event took from its
/// append time to the first poll that saw it.
///
/// # Errors
/// A row did not come in time.
pub async fn visible(
    bench: &Bench,
    rows: &impl Rows,
    role: &str,
    look: Duration,
) -> Result<Percentiles, Error> {
    let config = bench.ground.config("")?;
    let child = bench.start(&config, &["serve", "--only", &format!("handler,{role}")]).await?;
    let child = bench.wait_handled(child, &config, names(&config.namespace)).await?;
    let log = Log::read(bench, |_, _| Ok(())).await?;
    wait_for(bench, rows, &log).await?;
    let polls = Polls::default();
    let measuring = async {
        let seen = open_loop(bench, names(&config.namespace).events).await?;
        polls.wait_for(&seen).await?;
        Ok::<_, Error>(seen)
    };
    let (seen, ()) = tokio::try_join!(measuring, polls.fill(bench, rows, look))?;
    blocking(move || child.stop()).await?;
    polls.percentiles(&seen, role)
}

/// What each poll saw, while it was new: the moment of the answer and the marks.
#[derive(Default)]
struct Polls {
    seen: Mutex<Vec<(i64, Vec<Mark>)>>,
    over: AtomicBool,
}

impl Polls {
    fn seen(&self) -> MutexGuard<'_, Vec<(i64, Vec<Mark>)>> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn keep(&self, now: i64, marks: Vec<Mark>) {
        let mut seen = self.seen();
        if seen.last().is_none_or(|(_, last)| *last != marks) {
            seen.push((now, marks));
        }
    }

    async fn fill(&self, bench: &Bench, rows: &impl Rows, look: Duration) -> Result<(), Error> {
        while !self.over.load(Ordering::Acquire) {
            bench.check()?;
            let marks = rows.marks().await?;
            // The moment after the answer: the rows were visible then, maybe a little earlier.
            let now = clock::now().0;
            self.keep(now, marks);
            tokio::time::sleep(look).await;
        }
        Ok(())
    }

    /// Waits until a poll has seen every event.
    async fn wait_for(&self, events: &Seen) -> Result<(), Error> {
        let deadline = Instant::now() + STRAGGLERS;
        loop {
            let all = self.seen().last().is_some_and(|(_, marks)| {
                events
                    .events
                    .iter()
                    .all(|(partition, offset, _)| covers(marks, *partition, *offset))
            });
            if all {
                self.over.store(true, Ordering::Release);
                return Ok(());
            }
            if Instant::now() > deadline {
                return Err(Error::Wrong("an event has no row after 10 s".to_owned()));
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    fn percentiles(&self, events: &Seen, what: &str) -> Result<Percentiles, Error> {
        let polls = self.seen();
        let mut latencies = Latencies::new()?;
        for (partition, offset, appended) in &events.events {
            // Marks only grow, so the first poll that covers an event can be searched for.
            let first = polls.partition_point(|(_, marks)| !covers(marks, *partition, *offset));
            let (seen_at, _) =
                polls.get(first).ok_or_else(|| Error::Wrong("an event has no row".to_owned()))?;
            latencies.add(seen_at - appended);
        }
        latencies.percentiles(what)
    }
}

fn covers(marks: &[Mark], partition: i32, offset: i64) -> bool {
    marks.iter().any(|(found, next)| *found == partition && *next > offset)
}

/// Puts a store's part together.
#[must_use]
pub fn figures(
    (rate, rss_max): (f64, u64),
    raw_rate: f64,
    visible: Percentiles,
    log: &Log,
) -> Figures {
    Figures {
        rate: whole(rate),
        raw_rate: whole(raw_rate),
        ratio: ratio(rate, raw_rate),
        visible,
        events: log.len(),
        rss_mb: megabytes(rss_max),
    }
}
