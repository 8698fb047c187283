//! Events that projections parked: their stores -> tables, and a word to the projection.

use std::time::{Duration, Instant};

use anyhow::bail;
use serde_json::{Value, json};

use super::{Exit, Output};
use crate::cli::reading;
use crate::config::Config;
use crate::kernel::stream::Kind;
use crate::read_model::store::parked::{Filter, Letter, headers_to_json};
use crate::read_model::store::{Error, clickhouse, postgres};
use crate::reading::aggregate;
use crate::runtime;
use crate::topology;

/// The time between two looks at what is still parked.
const LOOK_EVERY: Duration = Duration::from_millis(300);
/// The most events of a stream that are shown.
const SHOWN_MAX: usize = 1_000;

/// A stream.
pub(super) struct Stream {
    pub(super) aggregate: String,
    pub(super) id: String,
}

/// The stores that have parked events.
struct Stores {
    postgres: Option<postgres::Database>,
    clickhouse: Option<clickhouse::Database>,
}

impl Stores {
    fn open(config: &Config, projection: Option<&str>) -> Result<Self, Error> {
        let is_asked = |store: &str| {
            topology::PROJECTIONS.iter().any(|(name, domain, _)| {
                *name == store && projection.is_none_or(|asked| asked == format!("{name}.{domain}"))
            })
        };
        let postgres = is_asked("postgres")
            .then(|| postgres::Database::new(&config.postgres, &config.namespace));
        let clickhouse = is_asked("clickhouse")
            .then(|| clickhouse::Database::new(&config.clickhouse, &config.namespace));
        Ok(Self { postgres: postgres.transpose()?, clickhouse: clickhouse.transpose()? })
    }

    async fn list(&self, filter: &Filter) -> Result<Vec<Letter>, Error> {
        let mut letters = Vec::new();
        if let Some(database) = &self.postgres {
            letters.extend(database.list_parked(filter).await?);
        }
        if let Some(database) = &self.clickhouse {
            letters.extend(database.list_parked(filter).await?);
        }
        Ok(letters)
    }

    async fn want(&self, filter: &Filter) -> Result<u64, Error> {
        let mut count = 0;
        for (store, domain, _) in topology::PROJECTIONS {
            let name = format!("{store}.{domain}");
            if filter.projection.as_ref().is_some_and(|asked| *asked != name) {
                continue;
            }
            let filter = Filter { projection: Some(name), ..filter.clone() };
            count += match (store, &self.postgres, &self.clickhouse) {
                ("postgres", Some(database), _) => database.want_parked(&filter).await?,
                ("clickhouse", _, Some(database)) => database.want_parked(&filter).await?,
                _ => 0,
            };
        }
        Ok(count)
    }

    /// How many are parked, and how many of them are still to be tried.
    async fn left(&self, filter: &Filter) -> Result<(u64, u64), Error> {
        let mut left = (0, 0);
        if let Some(database) = &self.postgres {
            left = database.left_parked(filter).await?;
        }
        if let Some(database) = &self.clickhouse {
            let (parked, wanted) = database.left_parked(filter).await?;
            left = (left.0 + parked, left.1 + wanted);
        }
        Ok(left)
    }
}

fn events_topic(config: &Config, aggregate: &str) -> String {
    config.namespace.dotted(&format!("{aggregate}.{}", Kind::Events.as_str()))
}

fn filter(config: &Config, stream: Option<&Stream>, projection: Option<String>) -> Filter {
    Filter {
        projection,
        topic: stream.map(|stream| events_topic(config, &stream.aggregate)),
        stream: stream.map(|stream| stream.id.clone()),
        limit: SHOWN_MAX,
    }
}

pub(super) async fn list(
    config: &Config,
    projection: Option<String>,
    aggregate: Option<&str>,
    limit: usize,
    output: Output,
) -> anyhow::Result<()> {
    let stores = Stores::open(config, projection.as_deref())?;
    let topic = aggregate.map(|aggregate| events_topic(config, aggregate));
    let filter = Filter { projection, topic, stream: None, limit };
    let letters = stores.list(&filter).await?;
    for letter in &letters {
        output.json(&as_json(config, letter, None))?;
    }
    let (parked, _) = stores.left(&filter).await?;
    if letters.is_empty() {
        output.line("no parked events");
        return Ok(());
    }
    let header = ["projection", "stream", "#", "event", "error", "tries", "parked at", "message"];
    output.table(header, letters.iter().map(|letter| row(config, letter)));
    if !output.is_json() {
        output.note(format!("{} of {parked} parked events shown", letters.len()));
    }
    Ok(())
}

fn row(config: &Config, letter: &Letter) -> [String; 8] {
    [
        letter.projection.clone(),
        name(config, letter),
        letter.sequence.to_string(),
        event_type(letter).to_owned(),
        letter.error_code.clone(),
        letter.attempts.to_string(),
        letter.parked_at.to_rfc3339(),
        letter.error.lines().next().unwrap_or_default().chars().take(120).collect(),
    ]
}

/// The stream as the other subcommands name it.
fn name(config: &Config, letter: &Letter) -> String {
    format!("{}/{}", aggregate(config, letter), letter.stream)
}

fn aggregate<'a>(config: &Config, letter: &'a Letter) -> &'a str {
    let prefix = config.namespace.dotted("");
    let topic = letter.topic.strip_prefix(&prefix).unwrap_or(&letter.topic);
    topic.strip_suffix(".events").unwrap_or(topic)
}

fn event_type(letter: &Letter) -> &str {
    let full = letter.record.headers.text("ce_type").unwrap_or_default();
    full.rsplit('.').next().unwrap_or_default()
}

fn as_json(config: &Config, letter: &Letter, content: Option<(Value, Value)>) -> Value {
    let mut value = json!({
        "kind": "event",
        "projection": letter.projection,
        "generation": letter.generation,
        "stream": name(config, letter),
        "sequence": letter.sequence,
        "type": event_type(letter),
        "error_code": letter.error_code,
        "error_message": letter.error,
        "attempts": letter.attempts,
        "parked_at": letter.parked_at.to_rfc3339(),
        "redrive_requested": letter.is_wanted,
        "source_topic": letter.topic,
        "source_partition": letter.partition,
        "source_offset": letter.record.offset,
    });
    if let (Some((headers, fields)), Some(object)) = (content, value.as_object_mut()) {
        object.insert("headers".to_owned(), headers);
        object.insert("fields".to_owned(), fields);
    }
    value
}

pub(super) async fn show(
    config: &Config,
    stream: Stream,
    projection: Option<String>,
    output: Output,
) -> anyhow::Result<Exit> {
    let stores = Stores::open(config, projection.as_deref())?;
    let filter = filter(config, Some(&stream), projection);
    let letters = stores.list(&filter).await?;
    if letters.is_empty() {
        bail!("{}/{} has no parked events", stream.aggregate, stream.id);
    }
    let schemas = runtime::schemas::load(config).await?;
    let decode = aggregate::decoder(&stream.aggregate, &schemas);
    for letter in &letters {
        let bytes = letter.record.value.as_deref().unwrap_or_default();
        let fields = match &decode {
            Some(decode) => reading::decoded(config, &schemas, || decode(bytes)).await,
            None => Ok(Value::Null),
        };
        let fields = fields.unwrap_or_else(|error| json!({"undecodable": error.to_string()}));
        let headers = headers_to_json(&letter.record.headers);
        if output.is_json() {
            output.json(&as_json(config, letter, Some((headers, fields))))?;
            continue;
        }
        let place = format!("{}/{}/{}", letter.topic, letter.partition, letter.record.offset);
        let wanted = if letter.is_wanted { "yes, not tried yet" } else { "no" };
        let mut rows = vec![
            ["projection".to_owned(), letter.projection.clone()],
            ["stream".to_owned(), name(config, letter)],
            ["sequence".to_owned(), letter.sequence.to_string()],
            ["event".to_owned(), event_type(letter).to_owned()],
            ["fields".to_owned(), fields.to_string()],
            ["error".to_owned(), format!("{}: {}", letter.error_code, letter.error)],
            ["tries".to_owned(), letter.attempts.to_string()],
            ["parked at".to_owned(), letter.parked_at.to_rfc3339()],
            ["redrive asked for".to_owned(), wanted.to_owned()],
            ["stands at".to_owned(), place],
        ];
        let headers = letter.record.headers.iter().map(|(name, value)| {
            let value = value.map(String::from_utf8_lossy).unwrap_or_default().into_owned();
            [format!("  {name}"), value]
        });
        rows.extend(headers);
        output.table(["parked event", ""], rows);
        output.line("");
    }
    if letters.len() == SHOWN_MAX && !output.is_json() {
        output.note(format!("only the first {SHOWN_MAX} are shown"));
    }
    Ok(Exit::Done)
}

pub(super) async fn redrive(
    config: &Config,
    stream: Option<Stream>,
    projection: Option<String>,
    wait: u64,
    output: Output,
) -> anyhow::Result<Exit> {
    let stores = Stores::open(config, projection.as_deref())?;
    let filter = filter(config, stream.as_ref(), projection);
    let asked = stores.want(&filter).await?;
    if asked == 0 {
        bail!("nothing of that is parked: see `millrace dead-letters list`");
    }
    let progress = output.progress(asked, "applying");
    let deadline = Instant::now() + Duration::from_secs(wait);
    let (parked, wanted) = loop {
        let (parked, wanted) = stores.left(&filter).await?;
        progress.set_position(asked.saturating_sub(parked));
        if wanted == 0 || Instant::now() >= deadline {
            break (parked, wanted);
        }
        tokio::time::sleep(LOOK_EVERY).await;
    };
    progress.finish_and_clear();
    let applied = asked.saturating_sub(parked);
    output
        .json(&json!({"asked": asked, "applied": applied, "parked": parked, "untried": wanted}))?;
    output.line(format!("{applied} of {asked} parked events are applied"));
    if wanted > 0 {
        output.note(format!(
            "{wanted} were not tried within {wait} s: is the projection running? (`millrace \
             status`, `millrace serve`) They are marked, and it tries them when it is"
        ));
    } else if parked > 0 {
        let first = stores.list(&Filter { limit: 1, ..filter }).await?;
        for letter in &first {
            let (name, error) = (name(config, letter), &letter.error);
            output.note(format!(
                "{parked} are parked still, the first of them {name} number {}: {error}",
                letter.sequence
            ));
        }
    }
    Ok(if parked == 0 { Exit::Done } else { Exit::Failed })
}
