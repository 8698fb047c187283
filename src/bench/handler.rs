//! The backlog: commands/s through a real handler, and through the raw passage.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde::Serialize;

use super::child::Child;
use super::figures::{mean, megabytes, per, per_second, ratio, whole};
use super::ground::{Names, names};
use super::load::{Grants, Load};
use super::{Bench, Error, blocking, latency};
use crate::clock;
use crate::codec::banking::AccountCodec;
use crate::config::Config;
use crate::kernel::codec::Codec;
use crate::kernel::result::{CommandResult, Outcome, RESULT_OF};
use crate::log::kafka::group::Witness;
use crate::log::kafka::load::Feed;
use crate::log::kafka::partition_reader::{PartitionReader, Start};
use crate::log::kafka::reader::{Begin, ReaderPool};

/// Commands that are handled before anything is measured: the patterns of the raw passage.
const WARM_COMMANDS: usize = 60_000;
const WARM_ACCOUNTS: usize = 5_000;
/// Of how many results one is left out at the beginning.
const WARM_UP: usize = 20;
/// How often the log is looked at while a backlog is handled.
const LOOK: Duration = Duration::from_millis(50);
/// How long the log stands still before the group is asked whether everything is done.
const QUIET: Duration = Duration::from_millis(300);
/// How long nothing may happen.
const STALL_MAX: Duration = Duration::from_secs(60);
/// How long a full `serve` is left alone before its memory is looked at.
const SETTLE: Duration = Duration::from_secs(3);

/// What the backlog came to.
#[derive(Debug, Serialize)]
pub struct Figures {
    /// Commands a second.
    pub rate: f64,
    /// Commands a second of the raw passage.
    pub raw_rate: f64,
    /// `rate` over `raw_rate`.
    pub ratio: f64,
    /// Commands a CPU second of the handler's process.
    pub per_cpu_second: f64,
    /// Commands a CPU second of the raw passage's process.
    pub raw_per_cpu_second: f64,
    /// Resident megabytes (10^6) of a `serve` with all roles and all accounts.
    pub rss_mb: f64,
    /// Resident megabytes (10^6), at their highest, of the handler alone during the backlog.
    pub backlog_rss_mb: f64,
    /// Commands in the backlog.
    pub commands: usize,
    /// Commands that were refused; the load is made so that there are none.
    pub rejected: usize,
}

/// What one run came to.
struct Run {
    rate: f64,
    per_cpu_second: f64,
    rss_max: u64,
    rejected: usize,
}

impl Bench {
    /// Handles a small backlog: it warms the brokers up, its records are the raw passage's
    /// patterns, and its start says how long one takes that restores nothing.
    pub(super) async fn warm_up(&mut self) -> Result<(), Error> {
        let config = self.ground.config("warm")?;
        self.produce(&config, WARM_COMMANDS, WARM_ACCOUNTS, "warming up").await?;
        let mut child = Child::start(&config, self.options.batch, &["serve", "--only", "handler"])?;
        let (stop, partitions) = (Arc::clone(&self.stop), self.partition_count());
        let (child, idle) = blocking(move || {
            let idle = child.wait_ready(partitions, &stop)?;
            Ok((child, idle))
        })
        .await?;
        self.idle_start = Some(idle);
        let child = self.wait_handled(child, &config, names(&config.namespace)).await?;
        blocking(move || child.stop()).await
    }

    /// How long a start takes that restores nothing.
    pub(super) fn idle_start(&self) -> Duration {
        self.idle_start.unwrap_or_default()
    }

    async fn produce(
        &self,
        config: &Config,
        commands: usize,
        accounts: usize,
        what: &str,
    ) -> Result<(), Error> {
        self.progress.begin(what, commands);
        let topic = names(&config.namespace).commands;
        let grants = Grants::find(config)?;
        let (schemas, partitions) = (&self.ground.schemas, self.ground.partitions);
        let mut load = Load::new(schemas, accounts, partitions, clock::nonce(), grants)?;
        let (kafka, stop) = (config.kafka.clone(), Arc::clone(&self.stop));
        let progress = Arc::clone(&self.progress);
        blocking(move || {
            let producer = Feed::open(&kafka)?;
            for made in 0..commands {
                let wire = load.command()?;
                let key = wire.key.as_bytes();
                producer.send(&topic, wire.partition, key, &wire.value, &wire.headers)?;
                if made % 5_000 == 0 {
                    progress.reach(made);
                    if stop.load(Ordering::Acquire) {
                        return Err(Error::Interrupted);
                    }
                }
            }
            Ok(producer.flush()?)
        })
        .await
    }

    /// Has the backlog produced and handled, measured or not.
    pub(super) async fn ensure_handled(&mut self) -> Result<(), Error> {
        if self.handled {
            return Ok(());
        }
        let config = self.ground.config("")?;
        let Options { commands, accounts, .. } = self.options;
        self.produce(&config, commands, accounts, "producing the backlog").await?;
        self.progress.begin("handling the backlog", 0);
        let child = self.start(&config, &["serve", "--only", "handler"]).await?;
        let child = self.wait_handled(child, &config, names(&config.namespace)).await?;
        blocking(move || child.stop()).await?;
        self.handled = true;
        Ok(())
    }

    /// Starts a process and waits until it handles all partitions.
    pub(super) async fn start(&self, config: &Config, arguments: &[&str]) -> Result<Child, Error> {
        let mut child = Child::start(config, self.options.batch, arguments)?;
        let (stop, partitions) = (Arc::clone(&self.stop), self.partition_count());
        blocking(move || {
            child.wait_ready(partitions, &stop)?;
            Ok(child)
        })
        .await
    }

    /// Waits until the group of `config`'s namespace has handled all of `names.commands`.
    pub(super) async fn wait_handled(
        &self,
        child: Child,
        config: &Config,
        names: Names,
    ) -> Result<Child, Error> {
        let (config, stop) = (config.clone(), Arc::clone(&self.stop));
        let partitions = self.ground.partitions;
        blocking(move || wait_handled(child, &config, &names, partitions, &stop)).await
    }
}

use super::Options;

/// Measures the backlog: raw, real, raw.
///
/// # Errors
/// Whatever would make the figures wrong.
pub async fn measure(bench: &mut Bench) -> Result<Figures, Error> {
    let config = bench.ground.config("")?;
    let Options { commands, accounts, .. } = bench.options;
    bench.produce(&config, commands, accounts, "producing the backlog").await?;
    let before = raw(bench, "rawa").await?;
    bench.progress.begin("handling the backlog", 0);
    let child = bench.start(&config, &["serve", "--only", "handler"]).await?;
    let real = run(bench, child, &config, names(&config.namespace), true).await?;
    bench.handled = true;
    let after = raw(bench, "rawb").await?;
    let raw_rate = mean(&[before.rate, after.rate]);
    Ok(Figures {
        rate: whole(real.rate),
        raw_rate: whole(raw_rate),
        ratio: ratio(real.rate, raw_rate),
        per_cpu_second: whole(real.per_cpu_second),
        raw_per_cpu_second: whole(mean(&[before.per_cpu_second, after.per_cpu_second])),
        rss_mb: 0.0,
        backlog_rss_mb: megabytes(real.rss_max),
        commands,
        rejected: real.rejected,
    })
}

/// One raw passage of the whole backlog into a namespace beside ours.
async fn raw(bench: &Bench, suffix: &str) -> Result<Run, Error> {
    bench.progress.begin("the raw passage of the backlog", 0);
    let config = bench.ground.config(suffix)?;
    let commands = names(&bench.ground.namespace("")?).commands;
    let child = bench.start_raw(suffix, false).await?;
    let names = Names { commands, ..names(&config.namespace) };
    run(bench, child, &config, names, false).await
}

impl Bench {
    /// Starts a raw passage of our commands into a namespace beside ours.
    pub(super) async fn start_raw(&self, suffix: &str, from_end: bool) -> Result<Child, Error> {
        let config = self.ground.config(suffix)?;
        let commands = names(&self.ground.namespace("")?).commands;
        let warm = self.ground.namespace("warm")?;
        let mut arguments =
            vec!["bench", "--raw-commands", &commands, "--raw-patterns", warm.as_str()];
        let batch = self.options.batch.to_string();
        arguments.extend(["--batch", &batch]);
        if from_end {
            arguments.push("--raw-from-end");
        }
        self.start(&config, &arguments).await
    }
}

async fn run(
    bench: &Bench,
    child: Child,
    config: &Config,
    names: Names,
    decided: bool,
) -> Result<Run, Error> {
    let child = bench.wait_handled(child, config, names.clone()).await?;
    let (config, codec) = (config.clone(), bench.codec());
    let (partitions, commands) = (bench.ground.partitions, bench.options.commands);
    blocking(move || {
        let judge = decided.then_some(&codec);
        let results = Results::read(&config, &names.results, partitions, judge)?;
        if results.times.len() != commands {
            return Err(Error::Wrong(format!(
                "{commands} commands got {} results in {}",
                results.times.len(),
                names.results
            )));
        }
        let first = commands / WARM_UP;
        let (start, end) = (results.times[first], results.times[commands - 1]);
        let elapsed = Duration::from_millis((end - start).unsigned_abs());
        let measured = commands - first;
        let rate = per_second("the backlog", measured, elapsed)?;
        let cpu = child.cpu_seconds_between(start * 1_000, end * 1_000);
        let (_, rss_max) = child.rss_bytes();
        child.stop()?;
        if cpu <= 0.0 {
            return Err(Error::Wrong("no CPU time was seen: use more --commands".to_owned()));
        }
        let per_cpu_second = per(measured, cpu);
        Ok(Run { rate, per_cpu_second, rss_max, rejected: results.rejected })
    })
    .await
}

/// What stands in a results topic.
struct Results {
    /// The append times in milliseconds, sorted.
    times: Vec<i64>,
    rejected: usize,
}

impl Results {
    fn read(
        config: &Config,
        topic: &str,
        partitions: i32,
        judge: Option<&AccountCodec>,
    ) -> Result<Self, Error> {
        let pool = ReaderPool::new(&config.kafka, 1);
        let (mut times, mut rejected) = (Vec::new(), 0);
        for partition in 0..partitions {
            let mut outcome = Ok(());
            pool.read_to_end(topic, partition, Begin::Oldest, |records| {
                for record in &records {
                    // An opening has two results: the client's, and the process manager's own. The
                    // raw passage writes one for each command, whatever its pattern was.
                    if judge.is_some() && record.headers.get(RESULT_OF).is_some() {
                        continue;
                    }
                    times.push(record.timestamp_ms);
                    let Some(codec) = judge else { continue };
                    match codec.decode_result(record.value.as_deref().unwrap_or_default()) {
                        Ok(result) if result.outcome == Outcome::Accepted => {}
                        Ok(result) if result.outcome == Outcome::Rejected => rejected += 1,
                        Ok(result) => outcome = Err(failed(&result)),
                        Err(error) => outcome = Err(Error::Codec(error)),
                    }
                }
                outcome.is_ok()
            })?;
            outcome?;
        }
        times.sort_unstable();
        Ok(Self { times, rejected })
    }
}

fn failed(result: &CommandResult) -> Error {
    let message = result.message.as_deref().unwrap_or_default();
    Error::Wrong(format!("command {} failed: {message}", result.command_id))
}

fn wait_handled(
    mut child: Child,
    config: &Config,
    names: &Names,
    partitions: i32,
    stop: &AtomicBool,
) -> Result<Child, Error> {
    let group = config.namespace.dotted("millrace.handler.banking");
    let witness = Witness::open(&config.kafka, &group)?;
    let mut results = PartitionReader::open(&config.kafka, &names.results, 0, Start::End)?;
    let mut last = (0, Instant::now());
    loop {
        child.check()?;
        if stop.load(Ordering::Acquire) {
            return Err(Error::Interrupted);
        }
        let mut end = 0;
        for partition in 0..partitions {
            end += results.go_to(&names.results, partition, Start::End)?.1;
        }
        if end != last.0 {
            last = (end, Instant::now());
        } else if last.1.elapsed() > QUIET && is_done(&witness, names, partitions) {
            return Ok(child);
        } else if last.1.elapsed() > STALL_MAX {
            return Err(Error::Wrong(format!("nothing was handled for {} s", STALL_MAX.as_secs())));
        }
        std::thread::sleep(LOOK);
    }
}

fn is_done(witness: &Witness, names: &Names, partitions: i32) -> bool {
    (0..partitions).all(|partition| {
        // An open transaction holds the answer back: then it is not done.
        let standing = witness.standing(&(names.commands.clone(), partition));
        standing.is_ok_and(|standing| {
            let committed = standing.committed.map_or(0, |(offset, _)| offset);
            committed >= standing.log_end
        })
    })
}

/// The memory of a `serve` with all roles and all accounts, after everything is projected, at its
/// highest under the open-loop load.
///
/// # Errors
/// It does not run, or does not project everything.
pub async fn memory(bench: &mut Bench) -> Result<f64, Error> {
    bench.ensure_handled().await?;
    let config = bench.ground.config("")?;
    let child = bench.start(&config, &["serve"]).await?;
    bench.progress.begin("a serve with all roles, for its memory", 0);
    super::postgres::wait_projected(bench).await?;
    super::clickhouse::wait_projected(bench).await?;
    tokio::time::sleep(SETTLE).await;
    latency::drive(bench).await?;
    let (rss, _) = child.rss_bytes();
    blocking(move || child.stop()).await?;
    Ok(megabytes(rss))
}
