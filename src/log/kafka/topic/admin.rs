//! Asks the brokers what there is, and makes it so.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rdkafka::admin::{
    AdminClient, AdminOptions, AlterConfig, ConfigResource, ConfigSource, NewTopic,
    OwnedResourceSpecifier, ResourceSpecifier, TopicReplication,
};
use rdkafka::config::FromClientConfigAndContext;
use rdkafka::types::RDKafkaErrorCode;

use super::plan::{Drift, Found, drift};
use super::{BATCH_BYTES, Declared, Error};
use crate::config;
use crate::kernel::stream::{Kind, parse_event_key};
use crate::log::kafka::client::{self, Quiet};
use crate::log::kafka::partition_reader::{PartitionReader, Start, Visit};
use crate::log::kafka::{self, CALL_TIMEOUT};

/// The longest to wait until every broker knows of a new topic.
const VISIBLE_TIMEOUT: Duration = Duration::from_secs(30);
/// How many keys of a partition are looked at before compaction is switched on.
const KEYS_LOOKED_AT: usize = 1_000;

/// What an `apply` did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Applied {
    /// The topics that were made.
    pub created: Vec<String>,
    /// The topics whose settings were changed.
    pub altered: Vec<String>,
}

/// A connection that may create, describe and change topics.
#[derive(Clone)]
pub struct Admin {
    client: Arc<AdminClient<Quiet>>,
    kafka: config::Kafka,
}

impl Admin {
    /// Connects.
    ///
    /// # Errors
    /// The options are wrong, or no broker answers.
    pub async fn connect(kafka: &config::Kafka) -> Result<Self, Error> {
        let options = client::base(kafka);
        let client = AdminClient::from_config_and_context(&options, Quiet)
            .map_err(kafka::Error::call("creating an admin client"))?;
        let admin = Self { client: Arc::new(client), kafka: kafka.clone() };
        client::answered(&options, admin.partitions().await)?;
        Ok(admin)
    }

    /// Every topic's partition and replica count.
    async fn partitions(&self) -> Result<BTreeMap<String, (i32, i32)>, kafka::KafkaError> {
        let client = Arc::clone(&self.client);
        let call = move || {
            let metadata = client.inner().fetch_metadata(None, CALL_TIMEOUT)?;
            let all = metadata.topics().iter().map(|topic| {
                let replicas = topic.partitions().iter().map(|found| found.replicas().len());
                let count = i32::try_from(topic.partitions().len()).unwrap_or(i32::MAX);
                let copies = i32::try_from(replicas.min().unwrap_or(0)).unwrap_or(i32::MAX);
                (topic.name().to_owned(), (count, copies))
            });
            Ok(all.collect())
        };
        let answer = tokio::task::spawn_blocking(call).await;
        answer.unwrap_or(Err(kafka::KafkaError::Canceled))
    }

    /// How many brokers there are.
    ///
    /// # Errors
    /// They do not answer.
    pub async fn broker_count(&self) -> Result<usize, Error> {
        let client = Arc::clone(&self.client);
        let call = move || client.inner().fetch_metadata(None, CALL_TIMEOUT);
        let answer = tokio::task::spawn_blocking(call).await;
        let metadata = answer.unwrap_or(Err(kafka::KafkaError::Canceled));
        let metadata = metadata.map_err(kafka::Error::call("listing brokers"))?;
        Ok(metadata.brokers().len())
    }

    /// Looks for topics; those that do not exist are left out.
    ///
    /// # Errors
    /// The brokers do not answer, or refuse.
    pub async fn find(&self, names: &[&str]) -> Result<BTreeMap<String, Found>, Error> {
        let mut partitions =
            self.partitions().await.map_err(kafka::Error::call("listing topics"))?;
        partitions.retain(|name, _| names.contains(&name.as_str()));
        let resources: Vec<_> =
            partitions.keys().map(|name| ResourceSpecifier::Topic(name)).collect();
        if resources.is_empty() {
            return Ok(BTreeMap::new());
        }
        let answers = self
            .client
            .describe_configs(&resources, &options())
            .await
            .map_err(kafka::Error::call("describing topics"))?;
        let mut found = BTreeMap::new();
        for answer in answers {
            let resource = answer.map_err(|code| refused("describing a topic", code))?;
            let OwnedResourceSpecifier::Topic(name) = &resource.specifier else {
                continue;
            };
            let (count, copies) = partitions.get(name).copied().unwrap_or_default();
            found.insert(name.clone(), as_found(&resource, count, copies));
        }
        Ok(found)
    }

    /// Compares topics with what the brokers have.
    ///
    /// # Errors
    /// The brokers do not answer, or refuse.
    pub async fn plan(&self, declared: &[Declared]) -> Result<Vec<Vec<Drift>>, Error> {
        let names: Vec<_> = declared.iter().map(|topic| topic.name.as_str()).collect();
        let found = self.find(&names).await?;
        let all = declared.iter().map(|topic| drift(topic, found.get(&topic.name)));
        Ok(all.collect())
    }

    /// Refuses topics that exist but take smaller batches than the producers send: a whole batch
    /// would fail at once, again and again.
    ///
    /// # Errors
    /// A topic's `max.message.bytes` is too small, or the brokers do not answer.
    pub async fn check_limits(&self, declared: &[Declared]) -> Result<(), Error> {
        let names: Vec<_> = declared.iter().map(|topic| topic.name.as_str()).collect();
        for (name, found) in self.find(&names).await? {
            let limit = found.configs.get("max.message.bytes").and_then(|text| text.parse().ok());
            if limit.is_some_and(|limit: u64| limit < BATCH_BYTES) {
                return Err(Error::Limit { topic: name, limit: limit.unwrap_or_default() });
            }
        }
        Ok(())
    }

    /// Creates topics and waits until they can be used. One that exists is left as it is.
    ///
    /// # Errors
    /// The brokers refuse, or do not show them in time.
    pub async fn create(&self, topics: &[Declared]) -> Result<(), Error> {
        if topics.is_empty() {
            return Ok(());
        }
        let new = topics.iter().map(|topic| {
            let replication = TopicReplication::Fixed(topic.replication);
            let mut new = NewTopic::new(&topic.name, topic.partitions, replication);
            for (name, setting) in &topic.configs {
                new = new.set(name, &setting.value);
            }
            new
        });
        let new: Vec<_> = new.collect();
        let answers = self
            .client
            .create_topics(&new, &options())
            .await
            .map_err(kafka::Error::call("creating topics"))?;
        for answer in answers {
            match answer {
                Ok(_) | Err((_, RDKafkaErrorCode::TopicAlreadyExists)) => {}
                Err((name, code)) => return Err(refused(&format!("creating {name}"), code)),
            }
        }
        self.wait_for(topics).await
    }

    async fn wait_for(&self, topics: &[Declared]) -> Result<(), Error> {
        let deadline = Instant::now() + VISIBLE_TIMEOUT;
        loop {
            let seen = self.partitions().await.map_err(kafka::Error::call("listing topics"))?;
            let missing = topics
                .iter()
                .find(|topic| seen.get(&topic.name).is_none_or(|(count, _)| *count == 0));
            let Some(missing) = missing else {
                return Ok(());
            };
            if Instant::now() >= deadline {
                return Err(Error::Kafka(kafka::Error::Unexpected(format!(
                    "topic {} was created but did not appear in {} s",
                    missing.name,
                    VISIBLE_TIMEOUT.as_secs()
                ))));
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Creates what is missing and changes what differs; never deletes. It changes nothing at all
    /// if any of it would lose data.
    ///
    /// # Errors
    /// Every refusal; or the brokers do not answer, or refuse.
    pub async fn apply(&self, declared: &[Declared]) -> Result<Applied, Error> {
        let names: Vec<_> = declared.iter().map(|topic| topic.name.as_str()).collect();
        let found = self.find(&names).await?;
        let (mut missing, mut different, mut refusals) = (Vec::new(), Vec::new(), Vec::new());
        for topic in declared {
            let Some(found) = found.get(&topic.name) else {
                missing.push(topic.clone());
                continue;
            };
            let differences = drift(topic, Some(found));
            let refused = differences.iter().filter_map(Drift::refusal);
            refusals.extend(refused.map(|reason| format!("topic {} {reason}", topic.name)));
            if differences.iter().any(Drift::is_repairable) {
                refusals.extend(self.check_compaction(topic, found).await?);
                different.push((topic, found));
            }
        }
        if !refusals.is_empty() {
            return Err(Error::Refused(refusals));
        }
        self.create(&missing).await?;
        for (topic, found) in &different {
            self.alter(topic, found).await?;
        }
        Ok(Applied {
            created: missing.into_iter().map(|topic| topic.name).collect(),
            altered: different.iter().map(|(topic, _)| topic.name.clone()).collect(),
        })
    }

    /// Sets a topic's declared settings and keeps every other one that stands on it.
    async fn alter(&self, topic: &Declared, found: &Found) -> Result<(), Error> {
        // This call replaces everything that is set on the topic, so what is there goes with it.
        let mut change = AlterConfig::new(ResourceSpecifier::Topic(&topic.name));
        let kept = found.overridden.iter().filter(|name| !topic.configs.contains_key(*name));
        for name in kept {
            if let Some(value) = found.configs.get(name) {
                change = change.set(name, value);
            }
        }
        for (name, setting) in &topic.configs {
            change = change.set(name, &setting.value);
        }
        let answers = self
            .client
            .alter_configs(&[change], &options())
            .await
            .map_err(kafka::Error::call(format!("changing {}", topic.name)))?;
        for answer in answers {
            answer.map_err(|(_, code)| refused(&format!("changing {}", topic.name), code))?;
        }
        Ok(())
    }

    /// Refuses to switch compaction on where a store holds anything but events under their own
    /// keys.
    async fn check_compaction(
        &self,
        topic: &Declared,
        found: &Found,
    ) -> Result<Option<String>, Error> {
        let compacted = found.configs.get("cleanup.policy");
        let compacted = compacted.is_some_and(|value| value.contains("compact"));
        if topic.kind != Some(Kind::Events) || compacted {
            return Ok(None);
        }
        let partitions = found.partitions;
        let (kafka, name) = (self.kafka.clone(), topic.name.clone());
        let look = move || -> Result<Option<String>, kafka::Error> {
            let mut reader = PartitionReader::open(&kafka, &name, 0, Start::Beginning)?;
            for partition in 0..partitions {
                reader.go_to(&name, partition, Start::Beginning)?;
                let (mut foreign, mut seen) = (None, 0);
                reader.to_end(|record| {
                    seen += 1;
                    let key = record.key.as_deref().unwrap_or_default();
                    if parse_event_key(key).is_none() {
                        foreign = Some(format!("partition {partition}, offset {}", record.offset));
                    }
                    if foreign.is_some() || seen >= KEYS_LOOKED_AT {
                        Visit::Stop
                    } else {
                        Visit::Continue
                    }
                })?;
                if foreign.is_some() {
                    return Ok(foreign);
                }
            }
            Ok(None)
        };
        let looked = tokio::task::spawn_blocking(look).await;
        let looked = looked.map_err(|error| kafka::Error::Unexpected(error.to_string()))?;
        Ok(looked?.map(|place| {
            format!(
                "topic {} holds a record whose key is not unique ({place}): compaction would lose \
                 data; copy its records into a new topic under keys of id and sequence",
                topic.name
            )
        }))
    }

    /// Deletes a consumer group that nobody is in.
    ///
    /// # Errors
    /// The brokers do not answer, or refuse.
    pub async fn delete_group(&self, group: &str) -> Result<(), Error> {
        let answers = self.client.delete_groups(&[group], &options()).await;
        let answers = answers.map_err(kafka::Error::call(format!("deleting group {group}")))?;
        match answers.into_iter().next() {
            Some(Err((_, code))) => Err(refused(&format!("deleting group {group}"), code)),
            Some(Ok(_)) | None => Ok(()),
        }
    }

    /// Deletes topics, for tests and benchmarks that made them. One that is not there is no error.
    ///
    /// # Errors
    /// The brokers refuse.
    pub async fn delete(&self, names: &[&str]) -> Result<(), Error> {
        if names.is_empty() {
            return Ok(());
        }
        let answers = self
            .client
            .delete_topics(names, &options())
            .await
            .map_err(kafka::Error::call("deleting topics"))?;
        for answer in answers {
            match answer {
                Ok(_) | Err((_, RDKafkaErrorCode::UnknownTopicOrPartition)) => {}
                Err((name, code)) => return Err(refused(&format!("deleting {name}"), code)),
            }
        }
        Ok(())
    }
}

fn as_found(resource: &ConfigResource, partitions: i32, replication: i32) -> Found {
    let mut found = Found { partitions, replication, ..Found::default() };
    for entry in &resource.entries {
        let Some(value) = &entry.value else { continue };
        found.configs.insert(entry.name.clone(), value.clone());
        if entry.source == ConfigSource::DynamicTopic {
            found.overridden.push(entry.name.clone());
        }
    }
    found
}

fn options() -> AdminOptions {
    AdminOptions::new().request_timeout(Some(CALL_TIMEOUT)).operation_timeout(Some(CALL_TIMEOUT))
}

fn refused(action: &str, code: RDKafkaErrorCode) -> Error {
    Error::Kafka(kafka::Error::Call {
        action: action.to_owned(),
        source: kafka::KafkaError::AdminOp(code),
    })
}
