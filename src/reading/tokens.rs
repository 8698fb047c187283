//! A consistency token's text -> whose events it is about, by the ids of the topics that there are.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use tokio::sync::Mutex;
use uuid::Uuid;

use crate::config::{self, Config};
use crate::kernel::stream::{Kind, Namespace};
use crate::kernel::token::{Token, Unreadable};
use crate::log::kafka;
use crate::log::kafka::sender::Sender;
use crate::read_model::consistency::Wanted;
use crate::topics;

/// How long the topics' ids are believed. What is projected of a topic that was made again since is
/// told from the other by its rows.
const KNOWN_FOR: Duration = Duration::from_secs(30);
/// How long an id that nobody knows is not asked for again.
const ASKED_FOR: Duration = Duration::from_secs(1);

/// Why a token cannot be waited for.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It is none of this form.
    #[error(transparent)]
    Unreadable(#[from] Unreadable),
    /// Its topic is not there.
    #[error(
        "this consistency token is of a topic that is not there (any more): it was made again \
         since, or the token is of another installation. Ask without it"
    )]
    NoTopic,
    /// Nobody can say which topics there are.
    #[error("cannot ask which topics there are")]
    Kafka(#[source] kafka::Error),
    /// A file of topics is wrong: a bug.
    #[error("cannot read which topics there should be")]
    Declared(#[source] kafka::topic::Error),
}

/// Knows the topics of events by their ids.
pub struct Tokens {
    kafka: config::Kafka,
    namespace: Namespace,
    topics: Mutex<Option<Known>>,
}

struct Known {
    sender: Sender,
    at: Instant,
    names: HashMap<Uuid, String>,
}

impl Tokens {
    /// Asks nobody yet.
    #[must_use]
    pub fn new(config: &Config) -> Self {
        let (kafka, namespace) = (config.kafka.clone(), config.namespace.clone());
        Self { kafka, namespace, topics: Mutex::default() }
    }

    /// Finds out what a token asks for.
    ///
    /// # Errors
    /// It is none, or of a topic that is not there, or the brokers do not answer.
    pub async fn wanted(&self, text: &str) -> Result<Wanted, Error> {
        let token = Token::parse(text)?;
        let topic = self.topic(token.topic_id).await?;
        let plain = match self.namespace.as_str() {
            "" => &topic,
            prefix => {
                topic.strip_prefix(prefix).and_then(|rest| rest.strip_prefix('.')).unwrap_or(&topic)
            }
        };
        let mut parts = plain.split('.');
        let mut part = || parts.next().unwrap_or_default().to_owned();
        let (domain, aggregate) = (part(), part());
        Ok(Wanted { token, topic, domain, aggregate })
    }

    async fn topic(&self, id: Uuid) -> Result<String, Error> {
        let mut topics = self.topics.lock().await;
        let name = |known: &Option<Known>| known.as_ref().and_then(|it| it.names.get(&id).cloned());
        let age = topics.as_ref().map(|known| known.at.elapsed());
        let found = name(&topics);
        let is_fresh =
            age.is_some_and(|age| age < if found.is_some() { KNOWN_FOR } else { ASKED_FOR });
        if !is_fresh {
            let sender = topics.as_ref().map(|known| known.sender.clone());
            match self.look(sender).await {
                Ok(known) => *topics = Some(known),
                // The brokers are away: what is known will do, the databases are asked in any case.
                Err(error) if found.is_none() => return Err(error),
                Err(_) => {}
            }
        }
        name(&topics).ok_or(Error::NoTopic)
    }

    async fn look(&self, sender: Option<Sender>) -> Result<Known, Error> {
        let declared = topics::declared(&self.namespace).map_err(Error::Declared)?;
        let declared = declared.into_iter().filter(|topic| topic.kind == Some(Kind::Events));
        let names: Vec<String> = declared.map(|topic| topic.name).collect();
        let kafka = self.kafka.clone();
        let asked = tokio::task::spawn_blocking(move || {
            let sender = sender.map_or_else(|| Sender::open(&kafka), Ok)?;
            let topics: Vec<&str> = names.iter().map(String::as_str).collect();
            let ids = sender.topic_ids(&topics)?;
            let named = ids.into_iter().zip(names);
            let names = named.filter_map(|(id, name)| Some((id?, name))).collect();
            Ok(Known { sender, at: Instant::now(), names })
        });
        let broke = |error| kafka::Error::Unexpected(format!("a thread broke: {error}"));
        asked.await.map_err(broke).flatten().map_err(Error::Kafka)
    }
}
