//! Commands in the dead-letters topics: records -> tables, and a command on its way again.

use std::collections::VecDeque;

use anyhow::{Context as _, bail};
use serde_json::{Value, json};
use uuid::Uuid;

use super::{Exit, Output};
use crate::config::Config;
use crate::engine::letter;
use crate::engine::metadata::ID_NAMESPACE;
use crate::engine::origin::Origin;
use crate::engine::reply::INTERNAL_ERROR;
use crate::kernel::message::{Headers, Record};
use crate::kernel::stream::{Kind, Namespace, partition_of};
use crate::log::kafka;
use crate::log::kafka::partition_reader::{PartitionReader, Start, Visit};
use crate::log::kafka::sender::Sender;
use crate::read_model::store::parked::headers_to_json;
use crate::topics;

/// A dead letter and where it stands.
struct Letter {
    aggregate: String,
    partition: i32,
    record: Record,
}

impl Letter {
    fn text(&self, name: &str) -> &str {
        self.record.headers.text(name).unwrap_or_default()
    }

    fn place(&self) -> String {
        let kind = Kind::DeadLetters.as_str();
        format!("{}.{kind}/{}/{}", self.aggregate, self.partition, self.record.offset)
    }

    /// Projections' letters stand in the same topics: their events are listed from the stores.
    fn is_command(&self) -> bool {
        self.text("source_topic").ends_with(&format!(".{}", Kind::Commands.as_str()))
    }

    /// The id to send it again under. What broke was not answered, so it keeps its own, which its
    /// client may try again, too. A refusal is the answer of its id: another one, the same each
    /// time, so that whoever sends it twice sends one command.
    fn id_again(&self) -> String {
        let own = self.record.headers.text("ce_id").map(str::to_owned).or_else(|| {
            let body: Value = serde_json::from_slice(self.record.value.as_deref()?).ok()?;
            body.get("command_id")?.as_str().map(str::to_owned)
        });
        match own {
            Some(own) if self.text("error_code") == INTERNAL_ERROR => own,
            _ => {
                let cause = format!("{}\0{}", self.place(), self.record.timestamp_ms);
                Uuid::new_v5(&ID_NAMESPACE, cause.as_bytes()).to_string()
            }
        }
    }

    fn key(&self) -> String {
        String::from_utf8_lossy(self.record.key.as_deref().unwrap_or_default()).into_owned()
    }

    /// The value as text, if it is some: JSON is, Avro is told by its bytes.
    fn value(&self) -> Value {
        match self.record.value.as_deref() {
            None => Value::Null,
            Some(bytes) => match std::str::from_utf8(bytes) {
                Ok(text) => Value::from(text),
                Err(_) => {
                    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
                    json!({ "hex": hex })
                }
            },
        }
    }

    fn as_json(&self, whole: bool) -> Value {
        let mut value = json!({
            "kind": "command",
            "place": self.place(),
            "key": self.key(),
            "error_code": self.text("error_code"),
            "error_message": self.text("error_message"),
            "component": self.text("component"),
            "attempts": self.text("attempts").parse::<u32>().ok(),
            "failed_at": self.text("failed_at"),
            "command_id": self.record.headers.text("ce_id"),
            "source_topic": self.text("source_topic"),
            "source_partition": self.text("source_partition").parse::<i32>().ok(),
            "source_offset": self.text("source_offset").parse::<i64>().ok(),
        });
        if let (true, Some(object)) = (whole, value.as_object_mut()) {
            object.insert("headers".to_owned(), headers_to_json(&self.record.headers));
            object.insert("value".to_owned(), self.value());
        }
        value
    }
}

pub(super) async fn list(
    config: &Config,
    aggregate: Option<&str>,
    limit: usize,
    output: Output,
) -> anyhow::Result<()> {
    let declared = topics::declared(&Namespace::default())?;
    let letters = declared.iter().filter(|topic| topic.kind == Some(Kind::DeadLetters));
    let topics: Vec<(String, String)> = letters
        .filter(|topic| aggregate.is_none_or(|wanted| wanted == topic.aggregate()))
        .map(|topic| (topic.aggregate().to_owned(), config.namespace.dotted(&topic.name)))
        .collect();
    let spinner = output.spinner("reading the dead-letters topics");
    let kafka = config.kafka.clone();
    let letters = tokio::task::spawn_blocking(move || read_all(&kafka, &topics, limit)).await??;
    spinner.finish_and_clear();
    for letter in &letters {
        output.json(&letter.as_json(false))?;
    }
    if letters.is_empty() {
        output.line("no dead letters of commands");
        return Ok(());
    }
    let header = ["command's place", "key", "error", "failed at", "message"];
    output.table(
        header,
        letters.iter().map(|letter| {
            let message = letter.text("error_message").lines().next().unwrap_or_default();
            [
                letter.place(),
                letter.key().chars().take(60).collect(),
                letter.text("error_code").to_owned(),
                letter.text("failed_at").to_owned(),
                message.chars().take(120).collect(),
            ]
        }),
    );
    Ok(())
}

/// The newest dead letters of commands of each topic.
fn read_all(
    config: &crate::config::Kafka,
    topics: &[(String, String)],
    limit: usize,
) -> Result<Vec<Letter>, kafka::Error> {
    let sender = Sender::open(config)?;
    let mut letters = Vec::new();
    for (aggregate, topic) in topics {
        let mut newest = VecDeque::new();
        for partition in 0..sender.partition_count(topic)? {
            let mut reader = PartitionReader::open(config, topic, partition, Start::Beginning)?;
            reader.to_end(|record| {
                let letter = Letter { aggregate: aggregate.clone(), partition, record };
                if letter.is_command() {
                    newest.push_back(letter);
                }
                // Room for one partition's more, so that sorting by time drops the oldest.
                if newest.len() > limit.saturating_mul(2) {
                    keep_newest(&mut newest, limit);
                }
                Visit::Continue
            })?;
        }
        keep_newest(&mut newest, limit);
        letters.extend(newest);
    }
    Ok(letters)
}

fn keep_newest(letters: &mut VecDeque<Letter>, limit: usize) {
    letters.make_contiguous().sort_by_key(|letter| letter.record.timestamp_ms);
    letters.drain(..letters.len().saturating_sub(limit));
}

/// Reads the dead letter that stands there.
async fn find(
    config: &Config,
    aggregate: &str,
    partition: i32,
    offset: i64,
) -> anyhow::Result<Letter> {
    let kind = Kind::DeadLetters.as_str();
    let topic = config.namespace.dotted(&format!("{aggregate}.{kind}"));
    let (kafka, name) = (config.kafka.clone(), topic.clone());
    let read = tokio::task::spawn_blocking(move || {
        let mut reader = PartitionReader::open(&kafka, &name, partition, Start::At(offset))?;
        let mut found = None;
        reader.to_end(|record| {
            found = Some(record);
            Visit::Stop
        })?;
        Ok::<_, kafka::Error>(found)
    });
    let record = read.await??.filter(|record| record.offset == offset);
    let record = record.with_context(|| {
        format!("{topic} partition {partition} has no dead letter at offset {offset}")
    })?;
    Ok(Letter { aggregate: aggregate.to_owned(), partition, record })
}

pub(super) async fn show(
    config: &Config,
    aggregate: &str,
    partition: i32,
    offset: i64,
    output: Output,
) -> anyhow::Result<Exit> {
    let letter = find(config, aggregate, partition, offset).await?;
    output.json(&letter.as_json(true))?;
    let mut rows = vec![
        ["place".to_owned(), letter.place()],
        ["key".to_owned(), letter.key()],
        [
            "value".to_owned(),
            letter.value().as_str().map_or_else(|| letter.value().to_string(), str::to_owned),
        ],
    ];
    rows.extend(letter.record.headers.iter().map(|(name, value)| {
        let value = value.map(String::from_utf8_lossy).unwrap_or_default().into_owned();
        [format!("  {name}"), value]
    }));
    output.table(["dead letter", ""], rows);
    Ok(Exit::Done)
}

pub(super) async fn redrive(
    config: &Config,
    aggregate: &str,
    partition: i32,
    offset: i64,
    output: Output,
) -> anyhow::Result<Exit> {
    let letter = find(config, aggregate, partition, offset).await?;
    let place = letter.place();
    if !letter.is_command() {
        bail!("{place} is an event: name its stream, as `millrace dead-letters list` shows it");
    }
    let headers = &letter.record.headers;
    let origin = headers.get("origin").and_then(Origin::claimed);
    if origin.is_some_and(|origin| origin.sender.is_process_manager()) {
        bail!(
            "{place} comes from a process manager, which sends it again itself: see `millrace \
             sagas list`"
        );
    }
    let (Some(key), Some(value)) = (&letter.record.key, &letter.record.value) else {
        bail!(
            "{place} is not whole (a command without key or value, or one that was too large): \
               send it anew with `millrace send`"
        );
    };
    let topic = config.namespace.dotted(&format!("{aggregate}.{}", Kind::Commands.as_str()));
    let command_id = letter.id_again();
    let headers = again(headers, &command_id);
    let kafka = config.kafka.clone();
    let sender = tokio::task::spawn_blocking(move || Sender::open(&kafka)).await??;
    let count = sender.partition_count(&topic)?;
    let partition = std::str::from_utf8(key).map_or(partition, |id| partition_of(id, count));
    let sent = sender.send(&topic, partition, key, value, &headers).await?;
    output.json(&json!({
        "command_id": command_id, "topic": topic, "partition": sent.partition,
        "offset": sent.offset,
    }))?;
    output.line(format!(
        "sent again as {command_id} to {topic}, partition {}, offset {}",
        sent.partition, sent.offset
    ));
    Ok(Exit::Done)
}

/// The headers of a command that is sent again: its own, its id, and what it follows on.
fn again(headers: &Headers, command_id: &str) -> Headers {
    let mut again = Headers::default();
    // A command that was moved has its mover's origin, which would make it a repeat.
    for (name, value) in letter::own(headers).iter() {
        if !["ce_id", "origin"].contains(&name) {
            again.push_optional(name, value);
        }
    }
    let first = headers.get("ce_id").filter(|first| *first != command_id.as_bytes());
    if let (Some(first), None) = (first, headers.get("causation_id")) {
        again.push("causation_id", first);
    }
    again.push("ce_id", command_id);
    again
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_goes_out_with_its_own_headers_and_without_its_movers() {
        let mut headers = Headers::default();
        for (name, value) in
            [("ce_id", "one"), ("actor", "ada"), ("origin", "x"), ("error_code", "MissingField")]
        {
            headers.push(name, value);
        }
        let other = again(&headers, "two");
        assert_eq!(other.text("ce_id"), Some("two"));
        assert_eq!(other.text("causation_id"), Some("one"));
        assert_eq!(other.text("actor"), Some("ada"));
        assert_eq!(other.len(), 3);
        let same = again(&headers, "one");
        assert_eq!((same.text("ce_id"), same.len()), (Some("one"), 2));
    }

    #[test]
    fn whoever_sends_a_letter_twice_sends_one_command() {
        let letter = |code: &str, id: Option<&str>, value: &str, offset| {
            let mut headers = Headers::default();
            if let Some(id) = id {
                headers.push("ce_id", id);
            }
            headers.push("error_code", code);
            let value = Some(value.as_bytes().into());
            let record = Record { offset, value, headers, ..Record::default() };
            Letter { aggregate: "banking.account".to_owned(), partition: 1, record }.id_again()
        };
        // Its client may try again, too: under the same id.
        assert_eq!(letter(INTERNAL_ERROR, Some("one"), "{}", 4), "one");
        assert_eq!(letter(INTERNAL_ERROR, None, r#"{"command_id":"two"}"#, 4), "two");
        // The refusal is the id's answer, so it takes another: the same each time.
        let refused = letter("UnknownSchema", Some("one"), "{}", 4);
        assert_ne!(refused, "one");
        assert_eq!(letter("UnknownSchema", Some("one"), "{}", 4), refused);
        assert_ne!(letter("UnknownSchema", Some("one"), "{}", 5), refused);
    }
}
