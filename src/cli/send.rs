//! `millrace send`: arguments -> a JSON command at its partition -> its result.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use serde_json::{Map, Value, json};
use uuid::Uuid;

use super::{Exit, Failure, Output, reading, stream_name};
use crate::clock;
use crate::codec;
use crate::codec::schemas::Schemas;
use crate::config::Config;
use crate::engine::metadata::Metadata;
use crate::kernel::message::Headers;
use crate::kernel::result::{CommandResult, Outcome};
use crate::kernel::stream::{Kind, partition_of};
use crate::log::kafka::partition_reader::{Next, PartitionReader, Start};
use crate::log::kafka::sender::Sender;
use crate::runtime;

/// The longest that `--wait` takes.
const WAIT_SECONDS_MAX: u64 = 3_600;

/// The subcommand's arguments.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    millrace send banking.account acc-1 CreateAccount user_id=ann account_type=CHECKING \
    initial_deposit=250.00 --wait\n  \
    millrace send banking.account acc-1 Deposit amount=150.00 reference=salary --wait 10\n  \
    millrace send banking.account - CreateAccount user_id=ann account_type=SAVINGS \
    initial_deposit=100.00\n\nWithout --wait the exit code is 0 once Kafka has the command. With \
    it: 0 for ACCEPTED, 1 for REJECTED, FAILED or no answer.")]
pub struct Arguments {
    /// The kind of aggregate, for example banking.account
    #[arg(value_name = "DOMAIN.AGGREGATE")]
    aggregate: String,
    /// The aggregate's id; `-` makes a new one for a command that creates
    id: String,
    /// The command, for example Deposit
    command: String,
    /// The command's fields: name=text, or name:=JSON for lists, numbers and null
    #[arg(value_name = "KEY=VALUE")]
    fields: Vec<String>,
    /// Waits for the result, for so many seconds
    #[arg(long, value_name = "SECONDS", num_args = 0..=1, default_missing_value = "5",
          value_parser = clap::value_parser!(u64).range(1..=WAIT_SECONDS_MAX))]
    wait: Option<u64>,
    /// The command id, a UUID; the same id again is the same command
    #[arg(long = "id", value_name = "UUID")]
    command_id: Option<Uuid>,
    /// Refuses the command unless the stream is at this version
    #[arg(long, value_name = "N")]
    expected_version: Option<u64>,
    /// Who wishes it
    #[arg(long)]
    actor: Option<String>,
    /// What it belongs to
    #[arg(long, value_name = "ID")]
    correlation_id: Option<String>,
    /// What caused it
    #[arg(long, value_name = "ID")]
    causation_id: Option<String>,
    /// Further headers; those called meta_NAME go on to the events
    #[arg(long = "header", value_name = "KEY=VALUE")]
    headers: Vec<String>,
}

/// A command, ready to go.
struct Letter {
    aggregate: String,
    id: String,
    command_id: Uuid,
    headers: Headers,
    value: Vec<u8>,
}

/// Runs the subcommand.
///
/// # Errors
/// The arguments are wrong, the brokers do not answer, or no result comes in time.
pub async fn run(config: &Config, arguments: Arguments, output: Output) -> anyhow::Result<Exit> {
    let wait = arguments.wait.map(Duration::from_secs);
    let letter = write(&arguments)?;
    let topic =
        |kind: Kind| config.namespace.dotted(&format!("{}.{}", letter.aggregate, kind.as_str()));
    let commands = topic(Kind::Commands);
    let kafka = config.kafka.clone();
    let sender = tokio::task::spawn_blocking(move || Sender::open(&kafka)).await??;
    let partition = partition_of(&letter.id, sender.partition_count(&commands)?);
    // Opened before the command goes out, so that its result cannot be missed.
    let results = match wait {
        None => None,
        Some(_) => {
            let (kafka, results) = (config.kafka.clone(), topic(Kind::Results));
            let open = move || PartitionReader::open(&kafka, &results, partition, Start::End);
            let schemas = runtime::schemas::load(config).await?;
            Some((tokio::task::spawn_blocking(open).await??, schemas))
        }
    };
    let place = sender
        .send(&commands, partition, letter.id.as_bytes(), &letter.value, &letter.headers)
        .await?;
    if letter.id != arguments.id {
        output.line(format!("new id: {}", letter.id));
    }
    let (Some((results, schemas)), Some(wait)) = (results, wait) else {
        output.json(&json!({
            "command_id": letter.command_id, "aggregate_id": letter.id, "topic": commands,
            "partition": place.partition, "offset": place.offset,
        }))?;
        output.line(format!(
            "sent as {} to {commands}, partition {}, offset {}",
            letter.command_id, place.partition, place.offset
        ));
        return Ok(Exit::Done);
    };
    let command_id = letter.command_id;
    let waited = tokio::task::spawn_blocking(move || await_result(results, command_id, wait));
    let value = waited.await??.with_context(|| {
        format!(
            "no result of command {command_id} within {} s: is `millrace serve` running? The \
             command is in Kafka; the same --id again gives its result",
            wait.as_secs()
        )
    })?;
    let result = decode(config, &schemas, &value).await?;
    show(&result, output)?;
    Ok(if result.outcome == Outcome::Accepted { Exit::Done } else { Exit::Failed })
}

pub(super) fn await_result(
    mut results: PartitionReader,
    command_id: Uuid,
    wait: Duration,
) -> anyhow::Result<Option<Box<[u8]>>> {
    let key = command_id.to_string();
    let deadline = Instant::now() + wait;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        match results.next(left)? {
            Next::Record(record) if record.key.as_deref() == Some(key.as_bytes()) => {
                return Ok(Some(record.value.unwrap_or_default()));
            }
            Next::Record(_) | Next::End(_) if !left.is_zero() => {}
            Next::Record(_) | Next::End(_) | Next::Nothing => return Ok(None),
        }
    }
}

/// Reads a result; asks the registry if its schema is not known here.
pub(super) async fn decode(
    config: &Config,
    schemas: &Arc<Schemas>,
    value: &[u8],
) -> anyhow::Result<CommandResult> {
    reading::decoded(config, schemas, || codec::result::decode(schemas, value)).await
}

/// Makes a command of the arguments.
fn write(arguments: &Arguments) -> anyhow::Result<Letter> {
    let aggregate = stream_name::aggregate(&arguments.aggregate)?;
    let id = match arguments.id.as_str() {
        "-" => clock::new_id().to_string(),
        id => stream_name::id(id)?.to_owned(),
    };
    let command_id = arguments.command_id.unwrap_or_else(clock::new_id);
    let mut body = Map::new();
    body.insert("type".to_owned(), Value::String(arguments.command.clone()));
    for field in &arguments.fields {
        let (name, value) = parse_field(field)?;
        if body.insert(name.clone(), value).is_some() {
            return Err(Failure::usage(match name.as_str() {
                "type" => "the field type is the command's name: leave it out".to_owned(),
                _ => format!("the field {name} is given twice"),
            }));
        }
    }
    let mut headers = Headers::default();
    headers.push("ce_id", command_id.to_string());
    headers.push("ce_time", clock::now().to_rfc3339());
    let optional = [
        ("actor", arguments.actor.clone()),
        ("correlation_id", arguments.correlation_id.clone()),
        ("causation_id", arguments.causation_id.clone()),
        ("expected_version", arguments.expected_version.map(|version| version.to_string())),
    ];
    for (name, value) in optional {
        if let Some(value) = value {
            headers.push(name, value);
        }
    }
    for header in &arguments.headers {
        let (name, value) =
            header.split_once('=').filter(|(name, _)| !name.is_empty()).ok_or_else(|| {
                Failure::usage(format!(
                    "--header {header:?} is not KEY=VALUE: say meta_branch=zurich"
                ))
            })?;
        headers.push(name, value);
    }
    if let (_, Some(bad)) = Metadata::read(&headers, &Vec::new()) {
        return Err(Failure::usage(format!("header {}: {}", bad.field, bad.reason)));
    }
    Ok(Letter { aggregate, id, command_id, headers, value: serde_json::to_vec(&body)? })
}

/// Reads `name=text` or `name:=JSON`.
fn parse_field(field: &str) -> anyhow::Result<(String, Value)> {
    let malformed = |reason: &str| {
        Failure::usage(format!("field {field:?} {reason}: say amount=150.00, or items:='[...]'"))
    };
    let (name, text) = field.split_once('=').ok_or_else(|| malformed("is not KEY=VALUE"))?;
    let (name, value) = match name.strip_suffix(':') {
        Some(name) => {
            let value = serde_json::from_str(text).map_err(|_| malformed("is not KEY:=JSON"))?;
            (name, value)
        }
        None => (name, Value::String(text.to_owned())),
    };
    let legal = |c: char| c.is_ascii_alphanumeric() || c == '_';
    if name.is_empty() || !name.chars().all(legal) {
        return Err(malformed("has no name of letters, digits and underscores"));
    }
    Ok((name.to_owned(), value))
}

pub(super) fn show(result: &CommandResult, output: Output) -> anyhow::Result<()> {
    output.json(&as_json(result))?;
    let sequences = match (result.first_sequence, result.last_sequence) {
        (Some(first), Some(last)) if first == last => format!("{first}"),
        (Some(first), Some(last)) => format!("{first} to {last}"),
        _ => "none".to_owned(),
    };
    let mut rows = vec![
        ["outcome".to_owned(), result.outcome.as_str().to_owned()],
        ["aggregate id".to_owned(), result.aggregate_id.clone()],
        ["command id".to_owned(), result.command_id.to_string()],
    ];
    let optional = [("code", &result.code), ("message", &result.message)];
    for (name, value) in optional {
        rows.extend(value.iter().map(|value| [name.to_owned(), value.clone()]));
    }
    for (name, value) in &result.details {
        rows.push([format!("  {name}"), value.clone()]);
    }
    rows.push(["events".to_owned(), sequences]);
    rows.push(["version".to_owned(), result.version.to_string()]);
    rows.push(["decided at".to_owned(), result.decided_at.to_rfc3339()]);
    if result.duplicate {
        rows.push(["duplicate".to_owned(), "yes: the answer from before".to_owned()]);
    }
    output.table(["result", ""], rows);
    Ok(())
}

fn as_json(result: &CommandResult) -> Value {
    let hash: String = result.content_hash.iter().map(|byte| format!("{byte:02x}")).collect();
    let details: Map<String, Value> =
        result.details.iter().map(|(name, value)| (name.clone(), json!(value))).collect();
    json!({
        "command_id": result.command_id,
        "aggregate_id": result.aggregate_id,
        "outcome": result.outcome.as_str(),
        "code": result.code,
        "message": result.message,
        "retryable": result.retryable,
        "details": details,
        "content_hash": hash,
        "first_sequence": result.first_sequence,
        "last_sequence": result.last_sequence,
        "version": result.version,
        "decided_at": result.decided_at.to_rfc3339(),
        "duplicate": result.duplicate,
        "consistency_token": result.consistency_token,
    })
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        arguments: Arguments,
    }

    fn letter(line: &str) -> anyhow::Result<Letter> {
        let words = std::iter::once("send").chain(line.split_whitespace());
        write(&Line::try_parse_from(words)?.arguments)
    }

    #[test]
    fn a_command_is_json_with_its_metadata_as_headers() {
        let letter = letter(
            "banking.account acc-1 Deposit amount=150.00 reference=a=b --actor teller \
             --expected-version 3 --id 6f1c8d6e-6c0f-4e52-9c2b-0a4d8d5f1a11 --header meta_x=1",
        )
        .unwrap();
        let body: Value = serde_json::from_slice(&letter.value).unwrap();
        assert_eq!(body, json!({"type": "Deposit", "amount": "150.00", "reference": "a=b"}));
        assert_eq!(letter.headers.text("ce_id"), Some("6f1c8d6e-6c0f-4e52-9c2b-0a4d8d5f1a11"));
        assert_eq!(letter.headers.text("expected_version"), Some("3"));
        assert_eq!(letter.headers.text("actor"), Some("teller"));
        assert_eq!(letter.headers.text("meta_x"), Some("1"));
    }

    #[test]
    fn a_dash_makes_a_new_id() {
        let made = letter("banking.account - CreateAccount user_id=ann").unwrap();
        assert_eq!(Uuid::parse_str(&made.id).unwrap().get_version_num(), 7);
    }

    #[test]
    fn wrong_arguments_are_named() {
        for (line, expected) in [
            ("banking.acount a Deposit", "did you mean banking.account"),
            ("zzz a Deposit", "zzz"),
            ("banking.account a Deposit amount", "\"amount\" is not KEY=VALUE"),
            ("banking.account a Deposit =1", "has no name"),
            ("banking.account a Deposit n:=[", "is not KEY:=JSON"),
            ("banking.account a Deposit a=1 a=2", "twice"),
            ("banking.account a Deposit type=1", "leave it out"),
            ("banking.account a Deposit --header x", "is not KEY=VALUE"),
            ("banking.account a Deposit --header expected_version=x", "whole number"),
            ("banking.account a Deposit --id 17", "UUID"),
        ] {
            let error = letter(line).err().map(|error| format!("{error:#}")).unwrap_or_default();
            assert!(error.contains(expected), "{line}: {error}");
        }
    }
}
