//! Where a benchmark happens: topics, schema ids, schemas and databases of namespaces of its own,
//! made at the start, taken away at the end.

use std::sync::Arc;

use super::Error;
use crate::codec::compiled;
use crate::codec::schemas::Schemas;
use crate::config::Config;
use crate::kernel::message::Headers;
use crate::kernel::stream::{Kind, Namespace};
use crate::log::kafka::sender::Sender;
use crate::log::kafka::topic::{Admin, Declared};
use crate::read_model::store;
use crate::runtime::schemas;
use crate::{clock, domain, topics};

/// One benchmark's ground: one namespace for the product, others beside it for its raw limits.
pub struct Ground {
    /// The installation's own settings.
    pub installation: Config,
    /// The ids of all schemas, the same in every namespace.
    pub schemas: Arc<Schemas>,
    /// How many partitions every topic has.
    pub partitions: i32,
    base: String,
    admin: Admin,
}

/// The topics of an aggregate in one namespace.
#[derive(Clone, Debug)]
pub struct Names {
    /// What comes in.
    pub commands: String,
    /// What follows.
    pub events: String,
    /// What is answered.
    pub results: String,
    /// Where the position stands.
    pub snapshots: String,
}

/// The names of an aggregate's topics in a namespace.
#[must_use]
pub fn names(namespace: &Namespace) -> Names {
    let topic = |kind| namespace.dotted(&domain::banking::account::NAME.topic(kind));
    Names {
        commands: topic(Kind::Commands),
        events: topic(Kind::Events),
        results: topic(Kind::Results),
        snapshots: topic(Kind::Snapshots),
    }
}

/// What stands beside the product's namespace.
const BESIDE: [&str; 4] = ["", "warm", "rawa", "rawb"];

impl Ground {
    /// Finds out what there is; makes nothing yet.
    ///
    /// # Errors
    /// Kafka does not answer.
    pub async fn find(installation: &Config) -> Result<Self, Error> {
        let admin = Admin::connect(&installation.kafka).await?;
        let base = format!("bench{:06x}", clock::nonce() & 0xff_ffff);
        let schemas = Arc::new(Schemas::default());
        let mut ground =
            Self { installation: installation.clone(), schemas, partitions: 0, base, admin };
        let declared = topics::declared(&ground.namespace("")?)?;
        let commands = names(&ground.namespace("")?).commands;
        let found = declared.iter().find(|topic| topic.name == commands);
        ground.partitions = found.map_or(0, |topic| topic.partitions);
        Ok(ground)
    }

    /// The namespace of that suffix: empty for the product's own.
    ///
    /// # Errors
    /// Never: the base is made of letters and digits.
    pub fn namespace(&self, suffix: &str) -> Result<Namespace, Error> {
        Namespace::new(&format!("{}{suffix}", self.base)).map_err(Error::Wrong)
    }

    /// The settings of that namespace.
    ///
    /// # Errors
    /// As [`Ground::namespace`].
    pub fn config(&self, suffix: &str) -> Result<Config, Error> {
        Ok(Config { namespace: self.namespace(suffix)?, ..self.installation.clone() })
    }

    /// Makes every topic of every namespace, and the schemas' ids known there.
    ///
    /// # Errors
    /// Kafka does not answer, or refuses.
    pub async fn make(&mut self) -> Result<(), Error> {
        self.admin.create(&self.topics()?).await?;
        let entries = entries();
        let sender = Sender::open(&self.installation.kafka)?;
        for suffix in ["", "warm"] {
            let topic = self.namespace(suffix)?.dotted(schemas::TOPIC);
            for (id, entry) in &entries {
                let value = serde_json::to_vec(entry)
                    .map_err(|error| Error::Wrong(format!("schema {id}: {error}")))?;
                let key = id.to_string();
                sender.send(&topic, 0, key.as_bytes(), &value, &Headers::default()).await?;
            }
        }
        self.schemas = schemas::load(&self.config("")?).await?;
        Ok(())
    }

    fn topics(&self) -> Result<Vec<Declared>, Error> {
        let mut all = Vec::new();
        for suffix in BESIDE {
            let declared = topics::declared(&self.namespace(suffix)?)?;
            let raw = suffix.starts_with("raw");
            all.extend(declared.into_iter().filter(|topic| {
                let written = [Kind::Events, Kind::Results, Kind::Snapshots];
                !raw || topic.kind.is_some_and(|kind| written.contains(&kind))
            }));
        }
        Ok(all)
    }

    /// Takes away everything that carries our name. What is not there is no error; what cannot be
    /// taken away is named.
    ///
    /// # Errors
    /// A service refuses or does not answer.
    pub async fn clean(&self, postgres: bool, clickhouse: bool) -> Result<(), Error> {
        let topics = self.topics()?;
        let names: Vec<&str> = topics.iter().map(|topic| topic.name.as_str()).collect();
        let deleted = self.admin.delete(&names).await;
        let dropped = if postgres { self.drop_schemas().await } else { Ok(()) };
        let gone = if clickhouse { self.drop_databases().await } else { Ok(()) };
        deleted?;
        dropped?;
        gone
    }

    async fn drop_schemas(&self) -> Result<(), Error> {
        let failed = || store::Error::postgres("taking the benchmark's schemas away");
        let database = self.postgres()?;
        let client = database.client().await?;
        let rows = client
            .query(
                "SELECT nspname::text FROM pg_namespace WHERE starts_with(nspname::text, $1)",
                &[&self.base],
            )
            .await
            .map_err(failed())?;
        for row in rows {
            let schema: String = row.get(0);
            let statement = format!("DROP SCHEMA {schema} CASCADE");
            client.batch_execute(&statement).await.map_err(failed())?;
        }
        Ok(())
    }

    async fn drop_databases(&self) -> Result<(), Error> {
        let database = self.clickhouse()?;
        let statement = format!("DROP DATABASE IF EXISTS {} SYNC", database.name());
        let dropped = database.client().query(&statement).execute().await;
        dropped.map_err(store::Error::clickhouse("taking the benchmark's database away"))?;
        Ok(())
    }

    /// The way to Postgres, in our namespace.
    ///
    /// # Errors
    /// The address is unusable.
    pub fn postgres(&self) -> Result<store::postgres::Database, Error> {
        let namespace = self.namespace("")?;
        Ok(store::postgres::Database::new(&self.installation.postgres, &namespace)?)
    }

    /// The way to ClickHouse, in our namespace.
    ///
    /// # Errors
    /// The address is unusable.
    pub fn clickhouse(&self) -> Result<store::clickhouse::Database, Error> {
        let namespace = self.namespace("")?;
        Ok(store::clickhouse::Database::new(&self.installation.clickhouse, &namespace)?)
    }
}

/// Every compiled-in schema under an id of our own: in a namespace whose ids are all known nobody
/// asks the registry, so nothing is left behind there.
fn entries() -> Vec<(u32, schemas::Entry)> {
    let mut entries = Vec::new();
    for (id, compiled) in (1..).zip(compiled::all()) {
        let entry = schemas::Entry {
            subject: compiled.source.record.to_owned(),
            version: u32::from(compiled.source.version),
            fingerprint: compiled.fingerprint.clone(),
            schema: compiled.source.text.to_owned(),
        };
        entries.push((id, entry));
    }
    entries
}
