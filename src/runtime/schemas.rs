//! Which registry id stands for which schema: `millrace.schemas` and the registry -> [`Schemas`].
//!
//! - A start reads `millrace.schemas` to its end. Only what is not there is asked of the registry:
//!   once the ids are known, a start needs no registry.
//! - A schema is refused as missing only when the registry itself says so.
//! - The topic is written by `millrace schemas register` alone.

use std::sync::Arc;
use std::time::Duration;

use futures::{StreamExt as _, TryStreamExt as _};
use serde::{Deserialize, Serialize};

use crate::codec::compiled::{self, Subject};
use crate::codec::registry::{self, Registry};
use crate::codec::schemas::{Lookup, Schemas};
use crate::config::Config;
use crate::kernel::codec::CodecError;
use crate::kernel::message::Headers;
use crate::log::kafka;
use crate::log::kafka::partition_reader::{PartitionReader, Start, Visit};
use crate::log::kafka::sender::Sender;

/// The topic, before the namespace is put in front.
pub const TOPIC: &str = "millrace.schemas";

/// How long an id that the registry has denied is refused without asking again.
const MISSING_FOR: Duration = Duration::from_secs(60);

/// How long a second question about an id that was denied takes.
const DENIED_PAUSE: Duration = Duration::from_secs(1);
/// How many subjects are registered at a time.
const AT_ONCE: usize = 8;

/// Why the schemas are not there.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Kafka is away, or the topic is not there.
    #[error("cannot read the registered schemas")]
    Kafka(#[from] kafka::Error),
    /// The registry is away or refuses.
    #[error("{what}")]
    Registry {
        /// What it was needed for.
        what: String,
        /// What it says.
        #[source]
        source: registry::Error,
    },
    /// A schema of this program has no id.
    #[error("{record} version {version} is not registered: run `millrace schemas register`")]
    Unregistered {
        /// Its record.
        record: &'static str,
        /// Its version.
        version: u16,
    },
    /// The registry has given an id away twice, for example because it lost its data.
    #[error(
        "id {id} stands for two schemas: {known} in `{topic}`, on whose word events were \
         written, and {found} in the registry; restore the registry's data"
    )]
    Conflict {
        /// The id.
        id: u32,
        /// The topic that says otherwise.
        topic: String,
        /// The subject it stood for.
        known: String,
        /// The subject it stands for now.
        found: String,
    },
    /// A schema cannot be read.
    #[error("a registered schema cannot be used")]
    Schema(#[from] CodecError),
    /// An entry of the topic is no entry.
    #[error("the topic {topic} holds something else at offset {offset}: {reason}")]
    Entry {
        /// The topic.
        topic: String,
        /// Where.
        offset: i64,
        /// What is wrong.
        reason: String,
    },
    /// The work was cut short.
    #[error("reading the registered schemas was cut short")]
    Cut,
}

/// One entry of `millrace.schemas`; its key is the id as text.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// The subject that it is registered under.
    pub subject: String,
    /// Its version there.
    pub version: u32,
    /// SHA-256 of the schema, in hex.
    pub fingerprint: String,
    /// The schema itself.
    pub schema: String,
}

/// Gathers what every id stands for. Every schema of this program has an id afterwards.
///
/// # Errors
/// Kafka does not answer; or a schema has no id yet and the registry does not know it, or does not
/// answer.
pub async fn load(config: &Config) -> Result<Arc<Schemas>, Error> {
    let schemas = Arc::new(Schemas::default());
    for (id, entry) in entries(config).await? {
        schemas.add_writer(id, &entry.schema)?;
    }
    let unknown = schemas.without_id();
    if unknown.is_empty() {
        return Ok(schemas);
    }
    let first = unknown[0].source;
    let needed = |source| Error::Registry {
        what: format!(
            "{} version {} has no id yet (`millrace schemas register` gives it one)",
            first.record, first.version
        ),
        source,
    };
    let registry = Registry::new(&config.registry.url).map_err(needed)?;
    for subject in compiled::subjects(&config.namespace) {
        let wanted =
            |fingerprint: &str| subject.versions.iter().any(|own| own.fingerprint == fingerprint);
        if subject.versions.iter().all(|own| unknown.iter().all(|one| !std::ptr::eq(*one, *own))) {
            continue;
        }
        for registered in registry.versions(&subject.name).await.map_err(needed)? {
            if compiled::fingerprint(&registered.text).is_ok_and(|found| wanted(&found)) {
                schemas.add_writer(registered.id, &registered.text)?;
            }
        }
    }
    match schemas.without_id().first() {
        None => Ok(schemas),
        Some(missing) => Err(Error::Unregistered {
            record: missing.source.record,
            version: missing.source.version,
        }),
    }
}

/// Asks the registry what an id stands for and tells `schemas`: the schema, or that there is none
/// (for a minute, then it is asked again).
///
/// Who asks again although the registry has denied the id must have it: an event on the log. That
/// takes a second, so that asking again and again is waiting.
///
/// # Errors
/// The registry does not answer.
pub async fn look_up(config: &Config, schemas: &Arc<Schemas>, id: u32) -> Result<(), Error> {
    let failed =
        |source| Error::Registry { what: format!("schema {id} is not known here"), source };
    let was_denied = matches!(schemas.lookup(id), Lookup::Missing);
    let registry = Registry::new(&config.registry.url).map_err(failed)?;
    let found = registry.schema(id).await.map_err(failed)?;
    let added = found.map(|text| schemas.add_writer(id, &text));
    if let Some(Err(error)) = &added {
        tracing::warn!(id, %error, "a schema of the registry cannot be used");
    }
    if was_denied && !matches!(added, Some(Ok(()))) {
        tracing::warn!(id, "the registry has no such schema, but a record needs it");
        tokio::time::sleep(DENIED_PAUSE).await;
    }
    if !matches!(added, Some(Ok(()))) && schemas.mark_missing(id) {
        let schemas = Arc::clone(schemas);
        tokio::spawn(async move {
            tokio::time::sleep(MISSING_FOR).await;
            schemas.forget_missing();
        });
    }
    Ok(())
}

/// Every entry of `millrace.schemas` with its id, the newest of each.
///
/// # Errors
/// Kafka does not answer, or the topic does not exist.
pub async fn entries(config: &Config) -> Result<Vec<(u32, Entry)>, Error> {
    let (kafka, topic) = (config.kafka.clone(), config.namespace.dotted(TOPIC));
    let read = tokio::task::spawn_blocking(move || {
        let mut reader = PartitionReader::open(&kafka, &topic, 0, Start::Beginning)?;
        let mut found = std::collections::BTreeMap::new();
        let mut problem = None;
        reader.to_end(|record| {
            let id =
                record.key.as_deref().and_then(|key| std::str::from_utf8(key).ok()?.parse().ok());
            let entry = record.value.as_deref().map(serde_json::from_slice::<Entry>);
            let reason = match (id, entry) {
                (Some(id), Some(Ok(entry))) => {
                    found.insert(id, entry);
                    return Visit::Continue;
                }
                (Some(id), None) => {
                    found.remove(&id);
                    return Visit::Continue;
                }
                (Some(_), Some(Err(error))) => error.to_string(),
                (None, _) => "the key is no schema id".to_owned(),
            };
            problem = Some(Error::Entry { topic: topic.clone(), offset: record.offset, reason });
            Visit::Stop
        })?;
        problem.map_or_else(|| Ok(found.into_iter().collect()), Err)
    });
    read.await.map_err(|_| Error::Cut)?
}

/// Registers every version of every schema in order, sets each subject's level, and writes
/// `millrace.schemas`. What is there already stays as it is.
///
/// # Errors
/// The registry or Kafka does not answer, or the registry refuses a schema.
pub async fn register(config: &Config) -> Result<Vec<(u32, Entry)>, Error> {
    let failed = |what: String| move |source| Error::Registry { what, source };
    let registry = Registry::new(&config.registry.url)
        .map_err(failed("cannot register the schemas".to_owned()))?;
    let known = entries(config).await?;
    let sender = Sender::open(&config.kafka)?;
    let topic = config.namespace.dotted(TOPIC);
    // Most of the time is the registry's own, for each subject by itself.
    let registering = futures::stream::iter(compiled::subjects(&config.namespace))
        .map(|subject| register_subject(&registry, subject))
        .buffered(AT_ONCE);
    let written: Vec<_> = registering.try_collect().await?;
    let written: Vec<(u32, Entry)> = written.into_iter().flatten().collect();
    for (id, entry) in &written {
        let other = |(known_id, known): &&(u32, Entry)| {
            known_id == id && known.fingerprint != entry.fingerprint
        };
        if let Some((_, known)) = known.iter().find(other) {
            return Err(Error::Conflict {
                id: *id,
                topic,
                known: known.subject.clone(),
                found: entry.subject.clone(),
            });
        }
    }
    for (id, entry) in &written {
        if known.iter().any(|(known_id, known)| known_id == id && known == entry) {
            continue;
        }
        let value = serde_json::to_vec(entry).map_err(|error| Error::Entry {
            topic: topic.clone(),
            offset: -1,
            reason: error.to_string(),
        })?;
        let key = id.to_string();
        sender.send(&topic, 0, key.as_bytes(), &value, &Headers::default()).await?;
    }
    Ok(written)
}

/// Registers every version of one subject in order.
async fn register_subject(
    registry: &Registry,
    subject: Subject,
) -> Result<Vec<(u32, Entry)>, Error> {
    let failed =
        |source| Error::Registry { what: format!("cannot register {}", subject.name), source };
    let mut written = Vec::new();
    let mut present = registry.versions(&subject.name).await.map_err(failed)?;
    for (index, own) in subject.versions.iter().enumerate() {
        let is_own =
            |text: &str| compiled::fingerprint(text).is_ok_and(|found| found == own.fingerprint);
        if !present.iter().any(|registered| is_own(&registered.text)) {
            registry.register(&subject.name, own.source.text).await.map_err(failed)?;
            present = registry.versions(&subject.name).await.map_err(failed)?;
        }
        if index == 0 {
            // A subject has settings from its first version on; the next ones are judged by
            // them. A registry's own default may be to judge nothing.
            registry.set_level(&subject.name, subject.level).await.map_err(failed)?;
        }
        let registered = present.iter().find(|registered| is_own(&registered.text));
        let Some(registered) = registered else {
            return Err(Error::Unregistered {
                record: own.source.record,
                version: own.source.version,
            });
        };
        let entry = Entry {
            subject: subject.name.clone(),
            version: registered.version,
            fingerprint: own.fingerprint.clone(),
            schema: own.source.text.to_owned(),
        };
        written.push((registered.id, entry));
    }
    Ok(written)
}

/// What the repository's schemas would break, subject by subject.
///
/// # Errors
/// The registry does not answer.
pub async fn registered(
    config: &Config,
) -> Result<Vec<(Subject, Vec<registry::Registered>)>, Error> {
    let failed = |source| Error::Registry { what: "cannot compare the schemas".to_owned(), source };
    let registry = Registry::new(&config.registry.url).map_err(failed)?;
    let mut subjects = Vec::new();
    for subject in compiled::subjects(&config.namespace) {
        let versions = registry.versions(&subject.name).await.map_err(failed)?;
        subjects.push((subject, versions));
    }
    Ok(subjects)
}
