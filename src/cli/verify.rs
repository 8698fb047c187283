//! `millrace verify`: streams, or everything -> whether each store says what the log says.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::{Exit, Failure, Output, stream_name};
use crate::audit::fact::Writers;
use crate::audit::{self, Difference, Progress, Report, Scope, Settings};
use crate::config::Config;
use crate::kernel::time::Timestamp;
use crate::runtime;

/// The longest table; `--json` has no limit.
const ROWS_MAX: usize = 200;

/// The subcommand's arguments.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    millrace verify --all\n  \
    millrace verify banking.account/acc-1\n  \
    millrace verify --projection postgres.banking --sample 100\n  \
    millrace verify --all --since 2026-11-20T00:00:00Z --json | jq .differences\n\n\
    The log is folded by code that shares nothing with the projections, and compared with the\n\
    snapshots, with Postgres (rows and checkpoints of one moment) and with ClickHouse (up to\n\
    where its rows end), while everything runs. Exit code 1 if anything differs. A sample looks\n\
    at so many streams of each partition, and does not find rows of streams that the log does\n\
    not have.\n\n\
    --repair prints the commands that make a store equal to the log again and changes nothing: a\n\
    replay is exact whatever goes on meanwhile, a row that is written by hand is not.")]
pub struct Arguments {
    /// The stream, for example banking.account/acc-1
    #[arg(required_unless_present_any = ["all", "projection", "sample", "since"])]
    stream: Option<String>,
    /// The aggregate's id, if it does not stand behind the slash
    id: Option<String>,
    /// Compares every stream, and what only an audit of all can see: sums, checkpoints, strays
    #[arg(long, conflicts_with = "stream")]
    all: bool,
    /// Compares only this one: postgres.banking, clickhouse.banking or snapshots
    #[arg(long, value_name = "PROJECTION")]
    projection: Option<String>,
    /// Compares so many streams of each partition, chosen by chance
    #[arg(long, value_name = "N", conflicts_with_all = ["stream", "all"],
          value_parser = clap::value_parser!(u32).range(1..=100_000))]
    sample: Option<u32>,
    /// Compares only streams that have an event since then (RFC 3339)
    #[arg(long, value_name = "TIME", conflicts_with = "stream")]
    since: Option<String>,
    /// The most streams in memory at a time; more are compared in several passes over the log
    #[arg(long, value_name = "N", default_value_t = 200_000,
          value_parser = clap::value_parser!(u32).range(100..=10_000_000))]
    streams_in_memory: u32,
    /// Prints the commands that put right what differs
    #[arg(long)]
    repair: bool,
}

/// Runs the subcommand.
///
/// # Errors
/// A service does not answer.
pub async fn run(config: &Config, arguments: Arguments, output: Output) -> anyhow::Result<Exit> {
    let settings = settings(&arguments)?;
    let writers = Arc::new(writers(config).await?);
    let bar = output.progress(0, "verifying");
    let shown = bar.clone();
    let done = AtomicU64::new(0);
    let progress: Progress = Arc::new(move |at, of| {
        // One partition after the other: each starts again at nothing.
        if at < done.swap(at, Ordering::Relaxed) || shown.length() != Some(of) {
            shown.set_length(of);
        }
        shown.set_position(at);
    });
    let audited = audit::run(config, writers, settings, progress).await;
    bar.finish_and_clear();
    let report = audited?;
    output.json(&report)?;
    show(output, &report);
    if report.is_clean() {
        return Ok(Exit::Done);
    }
    if arguments.repair {
        remedies(config, output, &report);
    }
    Ok(Exit::Failed)
}

/// Every schema that events may have been written with.
///
/// # Errors
/// `millrace.schemas` cannot be read, or holds something else.
pub(super) async fn writers(config: &Config) -> anyhow::Result<Writers> {
    let mut writers = Writers::default();
    for (id, entry) in runtime::schemas::entries(config).await? {
        writers.add(id, &entry.schema).map_err(|reason| audit::Error::Schema(id, reason))?;
    }
    Ok(writers)
}

fn settings(arguments: &Arguments) -> anyhow::Result<Settings> {
    let scope = match (&arguments.stream, arguments.sample) {
        (Some(stream), _) => {
            let (aggregate, id) = stream_name::stream(stream, arguments.id.as_deref())?;
            let aggregate = aggregate.split_once('.').map_or("", |(_, own)| own).to_owned();
            Scope::Stream { aggregate, id }
        }
        (None, Some(count)) => Scope::Sample(usize::try_from(count)?),
        (None, None) => Scope::All,
    };
    let since = match &arguments.since {
        Some(text) => Some(Timestamp::parse_rfc3339(text).ok_or_else(|| {
            Failure::usage(format!("--since {text:?} is no time such as 2026-11-20T00:00:00Z"))
        })?),
        None => None,
    };
    let mut settings = Settings {
        scope,
        since,
        streams_max: usize::try_from(arguments.streams_in_memory)?,
        ..Settings::default()
    };
    if let Some(projection) = &arguments.projection {
        let known = ["postgres.banking", "clickhouse.banking", "snapshots"];
        let is = |name: &str| projection == name || Some(projection.as_str()) == short(name);
        settings.postgres = is(known[0]);
        settings.clickhouse = is(known[1]);
        settings.snapshots = is(known[2]);
        if !known.iter().any(|name| is(name)) {
            let all = known.join(", ");
            return Err(Failure::usage(format!(
                "unknown projection {projection:?}: there are {all}"
            )));
        }
    }
    Ok(settings)
}

/// `postgres` of `postgres.banking`.
fn short(name: &str) -> Option<&str> {
    name.split_once('.').map(|(store, _)| store)
}

fn show(output: Output, report: &Report) {
    let row = |one: &Difference| {
        let text = |value: &Option<String>| value.clone().unwrap_or_else(|| "nothing".to_owned());
        let number = |value: Option<String>| value.unwrap_or_default();
        [
            one.store.to_owned(),
            one.stream.clone(),
            number(one.sequence.map(|sequence| sequence.to_string())),
            number(one.offset.map(|offset| offset.to_string())),
            format!("{}.{}", one.table, one.column),
            text(&one.expected),
            text(&one.found),
        ]
    };
    if !report.differences.is_empty() {
        let header = ["store", "stream", "#", "offset", "column", "expected", "found"];
        output.table(header, report.differences.iter().take(ROWS_MAX).map(row));
    }
    let count = report.differences.len();
    if count > ROWS_MAX {
        output.line(format!("{ROWS_MAX} of {count} differences shown: --json shows all"));
    }
    if report.more_streams > 0 {
        output.line(format!("{} more streams differ and are not named", report.more_streams));
    }
    for parked in &report.parked {
        output.line(format!("parked, not compared: {parked} on"));
    }
    for note in &report.notes {
        output.line(note);
    }
    let compared = &report.compared;
    let verdict = match count {
        0 if report.is_clean() => "no difference".to_owned(),
        1 => "1 difference".to_owned(),
        _ => format!("{count} differences"),
    };
    output.line(format!(
        "{verdict}: {} streams, {} events, {} rows in Postgres, {} in ClickHouse, {} snapshots \
         of {} partitions compared in {}.{:03} s",
        compared.streams,
        compared.events,
        compared.postgres_rows,
        compared.clickhouse_rows,
        compared.snapshots,
        compared.partitions,
        compared.ms / 1_000,
        compared.ms % 1_000,
    ));
}

/// What puts right what differs, as commands to copy.
fn remedies(config: &Config, output: Output, report: &Report) {
    let of = |store: &'static str| report.differences.iter().filter(move |one| one.store == store);
    for store in ["postgres", "clickhouse"] {
        let mut topics: Vec<String> = of(store)
            .filter_map(|one| one.stream.split(['/', '[']).next().map(|name| (one, name)))
            .filter(|(one, _)| one.partition >= 0)
            .map(|(one, name)| {
                let topic = config.namespace.dotted(&format!("{name}.events"));
                format!("--topic {topic}:{}", one.partition)
            })
            .collect();
        topics.sort();
        topics.dedup();
        if topics.is_empty() {
            continue;
        }
        let group = config.namespace.dotted(&format!("millrace.{store}.banking"));
        output.note(format!(
            "stop what runs `serve --only {store}`, then rebuild the partitions that differ, and \
             start it again:\n  ops/kafka consumer-groups --group {group} --reset-offsets \
             --to-earliest {} --execute",
            topics.join(" ")
        ));
        if store == "clickhouse" && of(store).any(|one| one.expected.is_none()) {
            let database = config.namespace.underscored(&config.clickhouse.database);
            output.note(format!(
                "rows that the log does not have stay: delete them by aggregate_id and sequence \
                 from {database}.banking_event_g<generation>"
            ));
        }
    }
    if of("snapshots").next().is_some() {
        output.note(
            "a snapshot is written anew when its stream has grown by \
             MILLRACE_HANDLER_SNAPSHOT_EVERY events; until then do not restart the handler",
        );
    }
    if of("log").next().is_some() {
        output.note("the log itself is damaged: restore the topic; no projection can put it right");
    }
}
