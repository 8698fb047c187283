//! `millrace bench`: options -> figures and ratios, as tables or JSON.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Context as _;
use clap::ValueEnum;
use indicatif::ProgressBar;
use tokio::signal::unix::{SignalKind, signal};

use super::{Exit, Failure, Output};
use crate::bench::raw::{self, Passage};
use crate::bench::{Bench, Error, Options, Part, Progress, Report};
use crate::config::Config;
use crate::kernel::stream::Namespace;

/// The subcommand's arguments.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  millrace bench
  millrace bench --commands 1000000 --batch 1000 --out bench.json
  millrace bench --only latency --rate 2000 --seconds 30 --json

Runs on the running stack, in a namespace of its own that is taken away at the end. Each figure has
its raw limit, measured in the same run, and `ratio` is the figure over it:
  handler     commands/s of a backlog, by the append times of the results, from 5 % on;
              per_cpu_second: commands a CPU second of the handler's process;
              raw: the same records in the same transactions, nothing decided;
              rss_mb: resident memory of a serve with all roles under the open-loop load
  latency     intended moment of sending -> committed event, at --rate; raw: the same passage;
              its ratio is of p99, so 1.5 is half as long again
  postgres    events/s of the projection; raw: unnest upserts of the same rows, prepared;
              p50_ms ...: an event's append time -> its row is seen by a polling SELECT, at --rate
  clickhouse  as postgres; raw: inserts of the same blocks, prepared
  restore     events/s of a restart, less what an idle start takes; raw: read, decode and fold
  transfers   transfers/s of a backlog; intended moment of sending -> completed at --rate / 10;
              its ratio is of p50, over six raw passages one after the other
  reads       an account by id over HTTP, 100 a second, while all roles and the load run;
              raw: a prepared SELECT of the same row; its ratio is of p99
Client, brokers and databases share the machine: figures mean little without their ratios.")]
pub struct Arguments {
    /// Commands in the backlog, openings of accounts included
    #[arg(long, default_value_t = 500_000, value_parser = from_to(20_000, 100_000_000))]
    commands: u32,
    /// Accounts that the commands go to
    #[arg(long, default_value_t = 100_000, value_parser = from_to(1, 50_000_000))]
    accounts: u32,
    /// Commands a second of the open-loop loads
    #[arg(long, default_value_t = 1_000, value_parser = from_to(1, 200_000))]
    rate: u32,
    /// The most commands in one transaction
    #[arg(long, default_value_t = 5_000, value_parser = from_to(1, 5_000))]
    batch: u32,
    /// Seconds that each open-loop load lasts, after two for warming up
    #[arg(long, default_value_t = 15, value_parser = from_to(1, 3_600))]
    seconds: u32,
    /// Measures only these parts (all by default)
    #[arg(long, value_delimiter = ',', value_name = "PART")]
    only: Vec<PartName>,
    /// Writes the JSON to a file too
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Passes that topic's commands through instead: the benchmark's own raw baseline
    #[arg(long, hide = true, requires = "raw_patterns")]
    raw_commands: Option<String>,
    /// The namespace whose records are copied
    #[arg(long, hide = true)]
    raw_patterns: Option<String>,
    /// Passes only what comes from now on
    #[arg(long, hide = true)]
    raw_from_end: bool,
}

fn from_to(least: i64, most: i64) -> clap::builder::RangedI64ValueParser<u32> {
    clap::value_parser!(u32).range(least..=most)
}

/// A part of the benchmark.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum PartName {
    /// Commands a second of a backlog.
    Handler,
    /// Command to committed event.
    Latency,
    /// Rows in Postgres.
    Postgres,
    /// Rows in ClickHouse.
    Clickhouse,
    /// A restart.
    Restore,
    /// Transfers from end to end.
    Transfers,
    /// Point queries while everything runs.
    Reads,
}

impl PartName {
    const fn part(self) -> Part {
        match self {
            Self::Handler => Part::Handler,
            Self::Latency => Part::Latency,
            Self::Postgres => Part::Postgres,
            Self::Clickhouse => Part::ClickHouse,
            Self::Restore => Part::Restore,
            Self::Transfers => Part::Transfers,
            Self::Reads => Part::Reads,
        }
    }
}

/// Runs the subcommand.
///
/// # Errors
/// A service does not answer, or something happens that would make a figure wrong.
pub async fn run(config: &Config, arguments: Arguments, output: Output) -> anyhow::Result<Exit> {
    let stop = Arc::new(AtomicBool::new(false));
    let interrupted = listen(&stop)?;
    if let Some(commands) = &arguments.raw_commands {
        let passage = Passage {
            commands: commands.clone(),
            patterns: Namespace::new(arguments.raw_patterns.as_deref().unwrap_or_default())
                .map_err(Failure::usage)?,
            batch: usize::try_from(arguments.batch)?,
            from_end: arguments.raw_from_end,
        };
        let config = config.clone();
        let passing = tokio::task::spawn_blocking(move || raw::run(&config, &passage, &stop));
        passing.await??;
        return Ok(Exit::Done);
    }
    let options = options(&arguments)?;
    let bars = Arc::new(Bars { output, bar: Mutex::default() });
    let mut bench =
        Bench::new(config, options, Arc::<Bars>::clone(&bars), Arc::clone(&stop)).await?;
    let outcome = tokio::select! {
        outcome = bench.run() => outcome,
        _ = interrupted => Err(Error::Interrupted),
    };
    stop.store(true, Ordering::Release);
    bars.end();
    let spinner = output.spinner("taking everything away");
    let cleaned = bench.clean().await;
    spinner.finish_and_clear();
    let report = outcome?;
    cleaned.context("the figures stand, but not everything could be taken away")?;
    if let Some(path) = &arguments.out {
        let text = serde_json::to_string_pretty(&report)? + "\n";
        std::fs::write(path, text).with_context(|| format!("writing {}", path.display()))?;
    }
    output.json(&report)?;
    show(&report, output);
    Ok(Exit::Done)
}

fn options(arguments: &Arguments) -> anyhow::Result<Options> {
    if arguments.accounts > arguments.commands {
        return Err(Failure::usage(format!(
            "--accounts {} need as many openings: --commands must be at least that",
            arguments.accounts
        )));
    }
    let all = PartName::value_variants();
    let wanted = |part: &&PartName| arguments.only.is_empty() || arguments.only.contains(part);
    Ok(Options {
        commands: usize::try_from(arguments.commands)?,
        accounts: usize::try_from(arguments.accounts)?,
        rate: arguments.rate,
        batch: usize::try_from(arguments.batch)?,
        seconds: arguments.seconds,
        parts: all.iter().filter(wanted).map(|part| part.part()).collect(),
    })
}

/// Ends when the process is told to stop; `stop` tells the threads.
fn listen(stop: &Arc<AtomicBool>) -> anyhow::Result<tokio::task::JoinHandle<()>> {
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot listen for Ctrl-C")?;
    let mut terminate = signal(SignalKind::terminate()).context("cannot listen for SIGTERM")?;
    let stop = Arc::clone(stop);
    Ok(tokio::spawn(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
        stop.store(true, Ordering::Release);
    }))
}

/// One bar at a time; without a terminal, a line for each step.
struct Bars {
    output: Output,
    bar: Mutex<Option<ProgressBar>>,
}

impl Progress for Bars {
    fn begin(&self, what: &str, length: usize) {
        let mut bar = self.bar.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(bar) = bar.take() {
            bar.finish_and_clear();
        }
        let next = if length == 0 {
            self.output.spinner(what.to_owned())
        } else {
            self.output.progress(u64::try_from(length).unwrap_or(u64::MAX), what.to_owned())
        };
        if next.is_hidden() {
            self.output.note(what);
        }
        *bar = Some(next);
    }

    fn reach(&self, position: usize) {
        let bar = self.bar.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(bar) = &*bar {
            bar.set_position(u64::try_from(position).unwrap_or(u64::MAX));
        }
    }

    fn end(&self) {
        let mut bar = self.bar.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(bar) = bar.take() {
            bar.finish_and_clear();
        }
    }
}

fn show(report: &Report, output: Output) {
    let mut rows: Vec<[String; 4]> = Vec::new();
    let mut row = |what: &str, figure: String, raw: String, ratio: String| {
        rows.push([what.to_owned(), figure, raw, ratio]);
    };
    let rate = |value: f64| format!("{value:.0}/s");
    let ms = |value: f64| format!("{value:.1} ms");
    if let Some(it) = &report.handler {
        row("handler: commands", rate(it.rate), rate(it.raw_rate), it.ratio.to_string());
        let (own, raw) = (it.per_cpu_second, it.raw_per_cpu_second);
        row("handler: commands a CPU second", rate(own), rate(raw), String::new());
        let memory = format!("{} MB", it.rss_mb);
        row("serve, all roles: memory", memory, String::new(), String::new());
    }
    if let Some(it) = &report.latency {
        row("command to event: p50", ms(it.real.p50_ms), ms(it.raw_p50_ms), String::new());
        row("command to event: p99", ms(it.real.p99_ms), ms(it.raw_p99_ms), it.ratio.to_string());
        row("command to event: p99.9", ms(it.real.p999_ms), ms(it.raw_p999_ms), String::new());
    }
    for (store, it) in [("Postgres", &report.postgres), ("ClickHouse", &report.clickhouse)] {
        let Some(it) = it else { continue };
        let ratio = it.ratio.to_string();
        row(&format!("{store}: events"), rate(it.rate), rate(it.raw_rate), ratio);
        let seen = &it.visible;
        let figures = [("p50", seen.p50_ms), ("p99", seen.p99_ms), ("p99.9", seen.p999_ms)];
        for (name, value) in figures {
            row(
                &format!("event to row in {store}: {name}"),
                ms(value),
                String::new(),
                String::new(),
            );
        }
    }
    if let Some(it) = &report.restore {
        row("restore: events", rate(it.rate), rate(it.raw_rate), it.ratio.to_string());
        row("restore: ready after", format!("{} s", it.ready_s), String::new(), String::new());
    }
    if let Some(it) = &report.transfers {
        let ratio = it.ratio.map(|ratio| ratio.to_string()).unwrap_or_default();
        row("transfers", rate(it.rate), String::new(), String::new());
        row("transfer to completed: p50", ms(it.real.p50_ms), String::new(), ratio);
        row("transfer to completed: p99", ms(it.real.p99_ms), String::new(), String::new());
    }
    if let Some(it) = &report.reads {
        row("account over HTTP: p50", ms(it.real.p50_ms), ms(it.raw_p50_ms), String::new());
        let ratio = it.ratio.to_string();
        row("account over HTTP: p99", ms(it.real.p99_ms), ms(it.raw_p99_ms), ratio);
        row("account over HTTP: p99.9", ms(it.real.p999_ms), String::new(), String::new());
    }
    output.table(["", "figure", "raw limit", "ratio"], rows);
}
