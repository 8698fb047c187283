//! `millrace history`: a stream's name -> its events in order, or its state as of then.

use std::time::{Duration, Instant};

use anyhow::bail;
use serde_json::Value;

use super::{Exit, Failure, Output, stream_name};
use crate::config::Config;
use crate::kernel::time::Timestamp;
use crate::log::kafka::partition_reader::Visit;
use crate::reading::state::{Moment, State};
use crate::reading::streams::{Error, From, Name, Streams, Summary, Told};
use crate::reading::tokens::Tokens;
use crate::runtime;

/// The longest table; `--json` has no limit.
const ROWS_MAX: usize = 10_000;
/// How long a token's event is waited for. The log has it within moments of its result.
const WAIT: Duration = Duration::from_secs(5);
/// The time between two looks for it.
const PAUSE: Duration = Duration::from_millis(20);

/// The subcommand's arguments.
#[derive(Debug, clap::Args)]
#[command(
    disable_version_flag = true,
    after_help = "Examples:\n  millrace history banking.account/acc-1\n  \
    millrace history banking.account acc-1 --json | jq .type\n  \
    millrace history banking.account/acc-1 --version 3\n  \
    millrace history banking.account/acc-1 --at 2026-11-21T10:15:00Z --json \
    | jq .state.balance\n\n\
    Reads ClickHouse as far as the stream's rows go and the rest from the log, so it is never \
    older than the log; without ClickHouse, the log alone. With --json, one line an event, with \
    its source; who acted (`actor`) is told by the log alone. --at and --version print the state \
    then, folded from the events up to that time (by their ce_time) or number, amounts as text."
)]
pub struct Arguments {
    /// The stream, for example banking.account/acc-1
    stream: String,
    /// The aggregate's id, if it does not stand behind the slash
    id: Option<String>,
    /// The state as of this time (RFC 3339) instead of the events
    #[arg(long, value_name = "TIME", conflicts_with = "at_version")]
    at: Option<String>,
    /// The state just after this event, counted from 1, instead of the events
    #[arg(id = "at_version", long = "version", value_name = "N")]
    version: Option<u64>,
    /// Waits until the event of this result's consistency token is there
    #[arg(long, value_name = "TOKEN")]
    consistency_token: Option<String>,
    /// Reads the log alone: slower, and the last word
    #[arg(long)]
    from_log: bool,
}

impl Arguments {
    /// For that stream, as the log has it.
    pub(super) const fn of(aggregate: String, id: String) -> Self {
        Self {
            stream: aggregate,
            id: Some(id),
            at: None,
            version: None,
            consistency_token: None,
            from_log: true,
        }
    }

    fn moment(&self) -> anyhow::Result<Option<Moment>> {
        if let Some(text) = &self.at {
            let time = Timestamp::parse_rfc3339(text).ok_or_else(|| {
                Failure::usage(format!("--at {text:?} is no time such as 2026-11-21T10:15:00Z"))
            })?;
            return Ok(Some(Moment::Time(time)));
        }
        match self.version {
            Some(0) => Err(Failure::usage("--version counts from 1")),
            other => Ok(other.map(Moment::Version)),
        }
    }
}

/// Runs the subcommand.
///
/// # Errors
/// There is no such stream or moment, its events are damaged, or the brokers do not answer.
pub async fn run(config: &Config, arguments: Arguments, output: Output) -> anyhow::Result<Exit> {
    let (aggregate, id) = stream_name::stream(&arguments.stream, arguments.id.as_deref())?;
    let stream = Name { aggregate, id };
    let moment = arguments.moment()?;
    let from = if arguments.from_log { From::Log } else { From::Rows };
    let wanted = wanted(config, &stream, arguments.consistency_token.as_deref()).await?;
    let schemas = runtime::schemas::load(config).await?;
    let streams = Streams::new(config, schemas)?;
    let spinner = output.spinner(format!("reading {stream}"));
    let deadline = Instant::now() + WAIT;
    loop {
        let (shown, summary) = match moment {
            Some(moment) => {
                let (state, summary) = streams.state(&stream, moment, from).await?;
                (Shown::State(state), summary)
            }
            None => {
                let mut told = Vec::new();
                let is_json = output.is_json();
                let wants_wait = wanted > 0;
                let summary = streams
                    .read(&stream, from, &mut |one| {
                        // Without a wait there is nothing to be taken back: out with it.
                        if is_json && !wants_wait {
                            drop(output.json(&one.to_json(&stream)));
                        } else if is_json || told.len() < ROWS_MAX {
                            told.push(one);
                        }
                        Ok(Visit::Continue)
                    })
                    .await?;
                (Shown::Events(told), summary)
            }
        };
        if summary.is_whole && summary.last < wanted {
            if Instant::now() > deadline {
                bail!(
                    "{stream} is at event {} after {} s, the token wants {wanted}",
                    summary.last,
                    WAIT.as_secs()
                );
            }
            tokio::time::sleep(PAUSE).await;
            continue;
        }
        spinner.finish_and_clear();
        return show(&stream, shown, &summary, output);
    }
}

/// What came of it.
enum Shown {
    State(Result<State, Error>),
    Events(Vec<Told>),
}

fn show(stream: &Name, shown: Shown, summary: &Summary, output: Output) -> anyhow::Result<Exit> {
    match shown {
        Shown::State(state) => {
            let state = state?.to_json(stream, summary);
            output.json(&state)?;
            output.line(serde_json::to_string_pretty(&state)?);
        }
        Shown::Events(told) => {
            if summary.last == 0 {
                bail!("{stream} has no events: there is no such stream");
            }
            if output.is_json() {
                for one in &told {
                    output.json(&one.to_json(stream))?;
                }
                return Ok(Exit::Done);
            }
            let shown = told.len() as u64;
            let header = ["#", "time", "event", "fields", "command id", "caused by"];
            output.table(header, told.iter().map(as_row));
            if shown < summary.last {
                let last = summary.last;
                output.note(format!("{shown} of {last} events shown: --json shows all"));
            }
        }
    }
    Ok(Exit::Done)
}

/// The event that a token asks for, which must be one of the stream's own; 0 without a token.
async fn wanted(config: &Config, stream: &Name, token: Option<&str>) -> anyhow::Result<u64> {
    let Some(token) = token else { return Ok(0) };
    let wanted = Tokens::new(config).wanted(token).await?;
    if wanted.stream() != stream.to_string() {
        return Err(Failure::usage(format!("this token is of {}, not {stream}", wanted.stream())));
    }
    Ok(wanted.token.sequence)
}

fn as_row(told: &Told) -> [String; 6] {
    let fields = told.fields.as_object().map_or_else(
        || "(erased)".to_owned(),
        |fields| {
            let present = fields.iter().filter(|(_, value)| !value.is_null());
            let texts = present.map(|(name, value)| match value.as_str() {
                Some(text) => format!("{name}={text}"),
                None => format!("{name}={}", Value::to_string(value)),
            });
            texts.collect::<Vec<_>>().join(" ")
        },
    );
    // Nearly every event was caused by its own command.
    let cause = told.causation_id.clone().filter(|cause| told.command_id.as_ref() != Some(cause));
    let command_id = told.command_id.clone().unwrap_or_default();
    let (time, name) = (told.at.to_rfc3339(), told.event_type.clone());
    [told.sequence.to_string(), time, name, fields, command_id, cause.unwrap_or_default()]
}
