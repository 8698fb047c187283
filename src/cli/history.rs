//! `millrace history`: a stream's name -> its events, in order, straight from the log.

use std::sync::Arc;

use anyhow::{Context as _, bail};
use serde::Serialize;
use serde_json::{Value, json};
use tokio::sync::mpsc;

use super::{Exit, Output, reading, stream_name};
use crate::codec::banking::AccountCodec;
use crate::codec::banking::account_opening::AccountOpeningCodec;
use crate::codec::banking::customer::CustomerCodec;
use crate::codec::banking::transfer::TransferCodec;
use crate::codec::schemas::Schemas;
use crate::config::Config;
use crate::domain::banking::{account, account_opening, customer, transfer};
use crate::kernel::codec::{Codec, CodecError};
use crate::kernel::decider::Decider;
use crate::kernel::message::Record;
use crate::kernel::stream::{Kind, parse_event_key};
use crate::log::kafka;
use crate::log::kafka::partition_reader::Visit;
use crate::runtime;

/// How many events wait to be shown while the next ones are read.
const WAITING_MAX: usize = 1_000;
/// The longest table; `--json` has no limit.
const ROWS_MAX: usize = 10_000;

/// The subcommand's arguments.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  millrace history banking.account/acc-1\n  \
    millrace history banking.account acc-1 --json | jq .type\n\n\
    Reads the stream's partition from its beginning to its end. With --json, one line an event.")]
pub struct Arguments {
    /// The stream, for example banking.account/acc-1
    stream: String,
    /// The aggregate's id, if it does not stand behind the slash
    id: Option<String>,
}

impl Arguments {
    /// For that stream.
    pub(super) const fn of(aggregate: String, id: String) -> Self {
        Self { stream: aggregate, id: Some(id) }
    }
}

/// Runs the subcommand.
///
/// # Errors
/// There is no such stream, its events are damaged, or the brokers do not answer.
pub async fn run(config: &Config, arguments: Arguments, output: Output) -> anyhow::Result<Exit> {
    let (aggregate, id) = stream_name::stream(&arguments.stream, arguments.id.as_deref())?;
    let schemas = runtime::schemas::load(config).await?;
    let decode = decoder(&aggregate, &schemas)
        .with_context(|| format!("the events of {aggregate} cannot be read by this program"))?;
    let topic = config.namespace.dotted(&format!("{aggregate}.{}", Kind::Events.as_str()));
    let (events, mut coming) = mpsc::channel(WAITING_MAX);
    let (kafka, key_id) = (config.kafka.clone(), id.clone());
    let spinner = output.spinner(format!("reading {topic}"));
    let reader = tokio::task::spawn_blocking(move || read(&kafka, &topic, &key_id, &events));
    let (mut last, mut rows) = (0, Vec::new());
    while let Some((sequence, record)) = coming.recv().await {
        // An exact repeat that compaction has not removed yet.
        if sequence <= last {
            continue;
        }
        if sequence != last + 1 {
            bail!(
                "{aggregate}/{id} is damaged: event {} is missing before {sequence} (offset {})",
                last + 1,
                record.offset
            );
        }
        last = sequence;
        let fields = match &record.value {
            Some(value) => reading::decoded(config, &schemas, || decode(value)).await?,
            None => Value::Null,
        };
        output.json(&as_json(&aggregate, &id, sequence, &record, &fields))?;
        if !output.is_json() && rows.len() < ROWS_MAX {
            rows.push(as_row(sequence, &record, &fields));
        }
    }
    reader.await??;
    spinner.finish_and_clear();
    if last == 0 {
        bail!("{aggregate}/{id} has no events: there is no such stream");
    }
    let shown = rows.len() as u64;
    output.table(["#", "time", "event", "fields", "command id", "caused by"], rows);
    if !output.is_json() && shown < last {
        output.note(format!("{shown} of {last} events shown: --json shows all"));
    }
    Ok(Exit::Done)
}

/// Hands on the stream's events, in the order of the log.
fn read(
    config: &crate::config::Kafka,
    topic: &str,
    id: &str,
    events: &mpsc::Sender<(u64, Record)>,
) -> Result<(), kafka::Error> {
    let mut reader = reading::open_stream(config, topic, id)?;
    reader.to_end(|record| {
        let sequence = record
            .key
            .as_deref()
            .and_then(parse_event_key)
            .and_then(|(found, sequence)| (found == id).then_some(sequence));
        let Some(sequence) = sequence else { return Visit::Continue };
        // It is closed when nobody wants the rest.
        let wanted = events.blocking_send((sequence, record)).is_ok();
        if wanted { Visit::Continue } else { Visit::Stop }
    })
}

pub(super) type Decode = Box<dyn Fn(&[u8]) -> Result<Value, CodecError> + Send + Sync>;

/// How the events of an aggregate are read.
pub(super) fn decoder(aggregate: &str, schemas: &Arc<Schemas>) -> Option<Decode> {
    let schemas = Arc::clone(schemas);
    let names = [account::NAME, customer::NAME, transfer::NAME, account_opening::NAME];
    let name = names.into_iter().find(|name| name.to_string() == aggregate)?;
    Some(match name {
        account::NAME => decoding(AccountCodec::new(schemas)),
        customer::NAME => decoding(CustomerCodec::new(schemas)),
        transfer::NAME => decoding(TransferCodec::new(schemas)),
        account_opening::NAME => decoding(AccountOpeningCodec::new(schemas)),
        _ => return None,
    })
}

fn decoding<D: Decider<Event: Serialize>>(codec: impl Codec<D>) -> Decode {
    Box::new(move |value| {
        serde_json::to_value(codec.decode_event(value)?)
            .map_err(|error| CodecError::Corrupt { what: "an event", reason: error.to_string() })
    })
}

fn as_row(sequence: u64, record: &Record, fields: &Value) -> [String; 6] {
    let header = |name: &str| record.headers.text(name).unwrap_or_default().to_owned();
    let fields = fields.as_object().map_or_else(
        || "(erased)".to_owned(),
        |fields| {
            let present = fields.iter().filter(|(_, value)| !value.is_null());
            let texts = present.map(|(name, value)| match value.as_str() {
                Some(text) => format!("{name}={text}"),
                None => format!("{name}={value}"),
            });
            texts.collect::<Vec<_>>().join(" ")
        },
    );
    let command_id = header("command_id");
    // Nearly every event was caused by its own command.
    let cause = Some(header("causation_id")).filter(|cause| *cause != command_id);
    let (time, name) = (header("ce_time"), short(&header("ce_type")));
    [sequence.to_string(), time, name, fields, command_id, cause.unwrap_or_default()]
}

fn as_json(aggregate: &str, id: &str, sequence: u64, record: &Record, fields: &Value) -> Value {
    let header = |name: &str| record.headers.text(name);
    json!({
        "stream": format!("{aggregate}/{id}"),
        "sequence": sequence,
        "event_id": header("ce_id"),
        "type": header("ce_type").map(short),
        "schema_version": header("schema_version").and_then(|text| text.parse::<u16>().ok()),
        "time": header("ce_time"),
        "fields": fields,
        "command_id": header("command_id"),
        "correlation_id": header("correlation_id"),
        "causation_id": header("causation_id"),
        "actor": header("actor"),
        "offset": record.offset,
    })
}

/// `MoneyDeposited` of `millrace.banking.account.MoneyDeposited`.
fn short(full_name: &str) -> String {
    full_name.rsplit('.').next().unwrap_or_default().to_owned()
}
