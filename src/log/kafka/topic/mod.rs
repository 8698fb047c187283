//! Topics as code: YAML files -> declared topics -> drift against the brokers -> changes.
//!
//! | never | because |
//! |---|---|
//! | another partition count | an id would lose its partition, and with it its past |
//! | a topic deleted | nobody can want that from an `apply` |
//! | compaction of events whose key is not unique | it keeps one event an aggregate |
//! | deletion or retention on events | they are the store |
//!
//! What the files say is checked here, before any broker is asked.

mod admin;
mod plan;

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;

pub use admin::{Admin, Applied};
pub use plan::{Drift, Found, drift};

use crate::kernel::stream::{Kind, Namespace};

/// The `batch.size` of the producers: a topic that takes less refuses whole batches.
pub const BATCH_BYTES: u64 = 8_000_000;

const KINDS: [Kind; 6] =
    [Kind::Commands, Kind::Events, Kind::Snapshots, Kind::Results, Kind::DeadLetters, Kind::Timers];

/// What is wrong with a topic's declaration, or with what was asked for it.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file is not in its format.
    #[error("{path}: {reason}")]
    Syntax {
        /// The file.
        path: String,
        /// Where and what.
        reason: String,
    },
    /// A declaration would lose data or cannot work.
    #[error("{path}: topic {topic}: {reason}")]
    Unsafe {
        /// The file.
        path: String,
        /// The topic.
        topic: String,
        /// Why, and what to do.
        reason: String,
    },
    /// Changes would lose data, or cannot be made here. Nothing was changed.
    #[error("nothing was changed: {}", .0.join("; "))]
    Refused(Vec<String>),
    /// A topic takes smaller batches than producers send.
    #[error(
        "topic {topic} has max.message.bytes {limit}, but producers send batches of {BATCH_BYTES}: \
         run `millrace topics apply`"
    )]
    Limit {
        /// The topic.
        topic: String,
        /// Its limit.
        limit: u64,
    },
    /// Kafka did not do it.
    #[error(transparent)]
    Kafka(#[from] super::Error),
}

/// A file's name and text.
#[derive(Clone, Copy, Debug)]
pub struct File<'a> {
    /// Where it stands, for messages.
    pub path: &'a str,
    /// What it says.
    pub text: &'a str,
}

/// What a topic's keys are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Key {
    /// The aggregate's id: many records have the same.
    AggregateId,
    /// The aggregate's id and the event's sequence: unique.
    AggregateIdAndSequence,
    /// The command's id.
    CommandId,
    /// Whatever the record had that could not be understood.
    AsTheSource,
    /// The saga's id and its timer's.
    SagaIdAndTimerId,
    /// The registry's id of a schema.
    RegistryId,
    /// A reactor's group, the topic it reads, and the partition.
    GroupTopicAndPartition,
}

/// A setting of a topic, and why it is so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Setting {
    /// The value, as the brokers write it.
    pub value: String,
    /// Why.
    pub reason: String,
}

/// A topic as it must be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Declared {
    /// Its full name, namespace included.
    pub name: String,
    /// What it holds of an aggregate; `None` for the product's own.
    pub kind: Option<Kind>,
    /// What its keys are.
    pub key: Key,
    /// How many partitions, for life.
    pub partitions: i32,
    /// How many copies.
    pub replication: i32,
    /// What is set, by Kafka's name.
    pub configs: BTreeMap<String, Setting>,
}

impl Declared {
    /// The value of a setting, if it is declared.
    #[must_use]
    pub fn config(&self, name: &str) -> Option<&str> {
        self.configs.get(name).map(|setting| setting.value.as_str())
    }

    /// The same topic with another partition count, for tests and benchmarks of their own.
    #[must_use]
    pub fn with_partitions(mut self, partitions: i32) -> Self {
        self.partitions = partitions;
        self
    }

    /// The same topic with as many copies as the installation wants; all but one of several must
    /// have a record before it counts, so that no single broker's death loses or stops anything.
    #[must_use]
    pub fn with_replication(mut self, copies: Option<i32>) -> Self {
        let Some(copies) = copies else { return self };
        self.replication = copies;
        if copies > 1 {
            let setting = Setting {
                value: (copies - 1).max(1).to_string(),
                reason: "all copies but one have a record before it counts".to_owned(),
            };
            self.configs.insert("min.insync.replicas".to_owned(), setting);
        }
        self
    }

    /// The name without its last part: the aggregate's topics share it.
    #[must_use]
    pub fn aggregate(&self) -> &str {
        self.name.rsplit_once('.').map_or(&self.name, |(rest, _)| rest)
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct KindsFile {
    kinds: BTreeMap<String, KindPolicy>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct KindPolicy {
    key: Key,
    configs: BTreeMap<String, RawSetting>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TopicsFile {
    partitions: i32,
    replication: i32,
    topics: Vec<RawTopic>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawTopic {
    name: String,
    key: Option<Key>,
    partitions: Option<i32>,
    replication: Option<i32>,
    #[serde(default)]
    configs: BTreeMap<String, RawSetting>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawSetting {
    value: serde_yaml_ng::Value,
    reason: String,
}

/// Reads and checks declarations: one file with the policies of kinds (`kinds:`), the others with
/// topics.
///
/// # Errors
/// The first thing that is wrong, with its file.
pub fn parse(files: &[File<'_>], namespace: &Namespace) -> Result<Vec<Declared>, Error> {
    let (kinds, topics): (Vec<_>, Vec<_>) =
        files.iter().partition(|file| file.path.ends_with("kinds.yaml"));
    let mut policies = BTreeMap::new();
    for file in kinds {
        policies.extend(read_yaml::<KindsFile>(file)?.kinds);
    }
    let mut declared: Vec<Declared> = Vec::new();
    let mut names = BTreeSet::new();
    for file in topics {
        let content: TopicsFile = read_yaml(file)?;
        for raw in &content.topics {
            let wrong = |reason: String| Error::Unsafe {
                path: file.path.to_owned(),
                topic: raw.name.clone(),
                reason,
            };
            let topic = resolve(raw, &content, &policies, namespace).map_err(wrong)?;
            check(&topic).map_err(wrong)?;
            if !names.insert(topic.name.clone()) {
                return Err(wrong("is declared twice: remove one".to_owned()));
            }
            let sibling = declared
                .iter()
                .find(|other| other.kind.is_some() && other.aggregate() == topic.aggregate());
            if let Some(other) = sibling.filter(|other| other.partitions != topic.partitions) {
                return Err(wrong(format!(
                    "has {} partitions but {} has {}: an aggregate's topics must have the same",
                    topic.partitions, other.name, other.partitions
                )));
            }
            declared.push(topic);
        }
    }
    Ok(declared)
}

/// The topics with as many copies as the installation wants.
#[must_use]
pub fn replicated(topics: Vec<Declared>, copies: Option<i32>) -> Vec<Declared> {
    topics.into_iter().map(|topic| topic.with_replication(copies)).collect()
}

fn read_yaml<T: for<'de> Deserialize<'de>>(file: &File<'_>) -> Result<T, Error> {
    serde_yaml_ng::from_str(file.text)
        .map_err(|error| Error::Syntax { path: file.path.to_owned(), reason: error.to_string() })
}

fn resolve(
    raw: &RawTopic,
    file: &TopicsFile,
    policies: &BTreeMap<String, KindPolicy>,
    namespace: &Namespace,
) -> Result<Declared, String> {
    let parts: Vec<&str> = raw.name.split('.').collect();
    let kind = match parts[..] {
        [_, _, last] => {
            Some(KINDS.into_iter().find(|kind| kind.as_str() == last).ok_or_else(|| {
                format!("its last part must be a kind: {}", KINDS.map(Kind::as_str).join(" "))
            })?)
        }
        ["millrace", _] => None,
        _ => {
            return Err("must be called <domain>.<aggregate>.<kind>, or millrace.<name>".to_owned());
        }
    };
    let legal = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    if parts.iter().any(|part| part.is_empty() || !part.chars().all(legal)) {
        return Err("must be in kebab-case: lower-case letters, digits and dashes".to_owned());
    }
    let policy =
        match kind {
            Some(kind) => Some(policies.get(kind.as_str()).ok_or_else(|| {
                format!("the kind {} has no policy in kinds.yaml", kind.as_str())
            })?),
            None => None,
        };
    let own = raw.configs.iter();
    let all = policy.into_iter().flat_map(|policy| &policy.configs).chain(own);
    let mut configs = BTreeMap::new();
    for (name, setting) in all {
        configs.insert(name.clone(), setting.read(name)?);
    }
    Ok(Declared {
        name: namespace.dotted(&raw.name),
        kind,
        key: raw.key.or(policy.map(|policy| policy.key)).ok_or("needs a key: what its keys are")?,
        partitions: raw.partitions.unwrap_or(file.partitions),
        replication: raw.replication.unwrap_or(file.replication),
        configs,
    })
}

impl RawSetting {
    fn read(&self, name: &str) -> Result<Setting, String> {
        use serde_yaml_ng::Value;
        let value = match &self.value {
            Value::String(text) => text.clone(),
            Value::Number(number) => number.to_string(),
            Value::Bool(yes) => yes.to_string(),
            Value::Null | Value::Sequence(_) | Value::Mapping(_) | Value::Tagged(_) => {
                return Err(format!("{name} must be text, a number, true or false"));
            }
        };
        if self.reason.trim().is_empty() {
            return Err(format!("{name} needs a reason"));
        }
        Ok(Setting { value, reason: self.reason.clone() })
    }
}

/// Refuses what would lose data or cannot work.
fn check(topic: &Declared) -> Result<(), String> {
    if !(1..=1_000).contains(&topic.partitions) {
        return Err(format!("{} partitions: must be 1 to 1000", topic.partitions));
    }
    if !(1..=9).contains(&topic.replication) {
        return Err(format!("replication {}: must be 1 to 9", topic.replication));
    }
    let limit = topic.config("max.message.bytes").and_then(|text| text.parse::<u64>().ok());
    if limit.is_none_or(|limit| limit < BATCH_BYTES) {
        return Err(format!(
            "max.message.bytes must be set, to {BATCH_BYTES} at least: \
             a producer's whole batch must fit"
        ));
    }
    if topic.kind == Some(Kind::Events) {
        check_store(topic)?;
    }
    Ok(())
}

fn check_store(topic: &Declared) -> Result<(), String> {
    let policy = topic.config("cleanup.policy").unwrap_or("delete");
    if policy != "compact" {
        return Err(format!(
            "cleanup.policy {policy} deletes events: an event store must have compact alone"
        ));
    }
    if topic.key != Key::AggregateIdAndSequence {
        return Err("compaction with a key that is not unique keeps one event an aggregate: \
             its key must be aggregate-id-and-sequence"
            .to_owned());
    }
    for name in ["retention.ms", "retention.bytes"] {
        let value = topic.config(name);
        if value.is_some_and(|value| value != "-1") || (value.is_none() && name == "retention.ms") {
            return Err(format!(
                "{name} {} deletes events: an event store must have -1",
                value.unwrap_or("(not set)")
            ));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const POLICIES: File<'static> = File {
        path: "kinds.yaml",
        text: "kinds:\n  events:\n    key: aggregate-id-and-sequence\n    configs:\n      \
               cleanup.policy: {value: compact, reason: store}\n      \
               retention.ms: {value: -1, reason: store}\n      \
               max.message.bytes: {value: 9000000, reason: batch}\n  commands:\n    \
               key: aggregate-id\n    configs:\n      \
               max.message.bytes: {value: 9000000, reason: batch}\n",
    };

    fn parsed(topics: &str) -> Result<Vec<Declared>, Error> {
        let text = format!("partitions: 4\nreplication: 1\ntopics:\n{topics}");
        let file = File { path: "shop.yaml", text: &text };
        parse(&[POLICIES, file], &Namespace::default())
    }

    #[track_caller]
    fn refused(topics: &str, expected: &str) {
        let error = parsed(topics).unwrap_err().to_string();
        assert!(error.contains(expected) && error.contains("shop.yaml"), "{error}");
    }

    #[test]
    fn a_topic_takes_its_kinds_policy_and_its_own_settings() {
        let topics = parsed(
            "  - name: shop.cart.events\n    partitions: 2\n    configs:\n      \
             min.cleanable.dirty.ratio: {value: 0.9, reason: rare}\n",
        )
        .unwrap();
        assert_eq!(topics[0].partitions, 2);
        assert_eq!(topics[0].config("cleanup.policy"), Some("compact"));
        assert_eq!(topics[0].config("retention.ms"), Some("-1"));
        assert_eq!(topics[0].config("min.cleanable.dirty.ratio"), Some("0.9"));
    }

    #[test]
    fn what_would_lose_events_is_refused() {
        let events = "  - name: shop.cart.events\n";
        refused(&format!("{events}    key: aggregate-id\n"), "not unique");
        for (name, value) in [
            ("cleanup.policy", "delete"),
            ("cleanup.policy", "\"compact,delete\""),
            ("retention.ms", "1000"),
            ("retention.bytes", "1000"),
        ] {
            let setting = format!("{name}: {{value: {value}, reason: cheaper}}");
            refused(&format!("{events}    configs: {{ {setting} }}\n"), "deletes events");
        }
    }

    #[test]
    fn what_cannot_work_is_refused() {
        refused("  - name: shop.cart.wishes\n", "must be a kind");
        refused("  - name: Shop.cart.events\n", "kebab-case");
        refused("  - name: cart\n", "must be called");
        refused("  - name: shop.cart.results\n", "no policy");
        refused("  - name: millrace.other\n", "needs a key");
        refused("  - {name: shop.cart.events, partitions: 0}\n", "1 to 1000");
        refused("  - {name: shop.cart.events, replication: 0}\n", "1 to 9");
        refused("  - name: shop.cart.events\n  - name: shop.cart.events\n", "twice");
        refused(
            "  - name: shop.cart.events\n  - {name: shop.cart.commands, partitions: 3}\n",
            "must have the same",
        );
        let small = "configs: { max.message.bytes: {value: 7999999, reason: small} }";
        refused(&format!("  - name: shop.cart.events\n    {small}\n"), "8000000 at least");
        let silent = "configs: { segment.ms: {value: 1, reason: ' '} }";
        refused(&format!("  - name: shop.cart.events\n    {silent}\n"), "needs a reason");
    }

    #[test]
    fn unknown_keys_are_refused() {
        refused("  - {name: shop.cart.events, partition: 3}\n", "unknown field `partition`");
        let error = parsed("  - name: shop.cart.events\nretention: 1\n").unwrap_err();
        assert!(error.to_string().contains("unknown field `retention`"), "{error}");
    }
}
