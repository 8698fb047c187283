//! What each test has for itself on the real services: a namespace, two partitions of events, and
//! the tables that are made in it. All of it goes when the test ends.

use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use millrace::codec::banking::AccountCodec;
use millrace::codec::schemas::Schemas;
use millrace::config::Config;
use millrace::domain::banking::account;
use millrace::kernel::message::Record;
use millrace::kernel::stream::{Kind, Namespace};
use millrace::log::kafka::client::{self, Quiet};
use millrace::log::kafka::group::Witness;
use millrace::log::kafka::partition_reader::{PartitionReader, Start, Visit};
use millrace::read_model::banking::{Codecs, event, postgres as rows};
use millrace::read_model::store::Source;
use millrace::read_model::store::{clickhouse, postgres};
use millrace::runtime::projection::{Projection, Settings};
use millrace::topology;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::config::FromClientConfigAndContext;

use crate::proxy::Proxy;

pub(crate) const PARTITIONS: i32 = 2;

pub(crate) struct Stack {
    pub(crate) config: Config,
    /// The accounts' events.
    pub(crate) topic: String,
    pub(crate) schemas: Arc<Schemas>,
    pub(crate) codec: Arc<AccountCodec>,
}

impl Stack {
    pub(crate) async fn new(name: &str) -> Self {
        // What a projection says goes where a failing test shows it.
        let _ = tracing_subscriber::fmt()
            .with_test_writer()
            .with_max_level(tracing::Level::INFO)
            .try_init();
        let mut config = Config::load().expect("the settings of the stack");
        let unique = millrace::clock::new_id().as_u64_pair().1 % 1_000_000_000;
        config.namespace = Namespace::new(&format!("{name}{unique}")).unwrap();
        let topic = config.namespace.dotted(&account::NAME.topic(Kind::Events));
        let schemas = Arc::new(Schemas::numbered_from(1));
        let codec = Arc::new(AccountCodec::new(Arc::clone(&schemas)));
        let stack = Self { config, topic, schemas, codec };
        let all = stack.topics();
        assert!(stack.try_create(&all).await);
        stack
    }

    fn admin(&self) -> AdminClient<Quiet> {
        AdminClient::from_config_and_context(&client::base(&self.config.kafka), Quiet).unwrap()
    }

    /// From now on databases are reached through these.
    pub(crate) async fn go_through_proxies(&mut self) -> (Proxy, Proxy) {
        let postgres = &mut self.config.postgres.url;
        let (front, rest) = postgres.split_once('@').unwrap();
        let (host, database) = rest.split_once('/').unwrap();
        let to_postgres = Proxy::to(host).await;
        *postgres = format!("{front}@{}/{database}", to_postgres.address);
        let clickhouse = &mut self.config.clickhouse.url;
        let to_clickhouse = Proxy::to(clickhouse.trim_start_matches("http://")).await;
        *clickhouse = format!("http://{}", to_clickhouse.address);
        (to_postgres, to_clickhouse)
    }

    /// The events of an aggregate: `transfer`.
    pub(crate) fn topic_of(&self, aggregate: &str) -> String {
        self.config.namespace.dotted(&format!("banking.{aggregate}.events"))
    }

    /// The events of all aggregates, and the accounts' dead letters.
    fn topics(&self) -> Vec<String> {
        let events = event::AGGREGATES.iter().map(|name| self.topic_of(name.aggregate));
        events.chain([self.letters_topic()]).collect()
    }

    /// The accounts' dead letters.
    pub(crate) fn letters_topic(&self) -> String {
        self.config.namespace.dotted(&account::NAME.topic(Kind::DeadLetters))
    }

    /// Makes the accounts' topic; `false` if it is there already, or not yet gone.
    pub(crate) async fn try_create_topic(&self) -> bool {
        self.try_create(std::slice::from_ref(&self.topic)).await
    }

    async fn try_create(&self, names: &[String]) -> bool {
        let topic = |name| {
            NewTopic::new(name, PARTITIONS, TopicReplication::Fixed(1))
                .set("cleanup.policy", "compact")
                .set("message.timestamp.type", "LogAppendTime")
        };
        let topics: Vec<NewTopic<'_>> = names.iter().map(|name| topic(name)).collect();
        let outcome = self.admin().create_topics(&topics, &AdminOptions::new()).await.unwrap();
        outcome.iter().all(Result::is_ok)
    }

    /// A partition as its owner knows it.
    pub(crate) fn source(&self, partition: i32) -> Source {
        let group = self.config.namespace.dotted("millrace.test");
        let witness = Witness::open(&self.config.kafka, &group).unwrap();
        Source {
            aggregate: account::NAME,
            topic: self.topic.clone(),
            partition,
            topic_id: witness.topic_ids(&[&self.topic]).unwrap()[0],
            nonce: 7,
        }
    }

    /// Every committed record of an accounts' partition from that offset on.
    pub(crate) fn read(&self, partition: i32, from: i64) -> Vec<Record> {
        self.read_topic(&self.topic, partition, from)
    }

    /// Every committed record of a partition from that offset on.
    pub(crate) fn read_topic(&self, topic: &str, partition: i32, from: i64) -> Vec<Record> {
        let kafka = &self.config.kafka;
        let mut reader = PartitionReader::open(kafka, topic, partition, Start::At(from)).unwrap();
        let mut records = Vec::new();
        reader
            .to_end(|record| {
                records.push(record);
                Visit::Continue
            })
            .unwrap();
        records
    }

    pub(crate) async fn delete_topic(&self) {
        let _ = self.admin().delete_topics(&[&self.topic], &AdminOptions::new()).await;
    }

    fn codecs(&self) -> Codecs {
        topology::banking_codecs(&self.schemas)
    }

    pub(crate) fn postgres(&self) -> postgres::Postgres<rows::Banking> {
        postgres::Postgres::new(self.database(), rows::Banking::new(self.codecs()))
    }

    pub(crate) fn clickhouse(&self) -> clickhouse::ClickHouse<event::Events> {
        clickhouse::ClickHouse::new(self.events(), event::Events::new(self.codecs()))
    }

    pub(crate) fn database(&self) -> postgres::Database {
        postgres::Database::new(&self.config.postgres, &self.config.namespace).unwrap()
    }

    pub(crate) fn events(&self) -> clickhouse::Database {
        clickhouse::Database::new(&self.config.clickhouse, &self.config.namespace).unwrap()
    }

    pub(crate) async fn project_to_postgres(&self) -> Projection {
        let look_up = Arc::new(|id| Err(format!("no registry here for {id}")));
        Projection::start(&self.config, self.postgres(), Settings::POSTGRES, look_up).await.unwrap()
    }

    pub(crate) async fn project_to_clickhouse(&self) -> Projection {
        let look_up = Arc::new(|id| Err(format!("no registry here for {id}")));
        Projection::start(&self.config, self.clickhouse(), Settings::CLICKHOUSE, look_up)
            .await
            .unwrap()
    }

    /// Runs Kafka's own tool on a group and the accounts' topic, with whatever says where to go.
    pub(crate) fn reset_offsets(&self, store: &str, where_to: &[&str]) {
        self.reset_topics(store, &["--topic", &self.topic], where_to);
    }

    /// The same on all topics that the group reads.
    pub(crate) fn reset_all(&self, store: &str, where_to: &[&str]) {
        self.reset_topics(store, &["--all-topics"], where_to);
    }

    fn reset_topics(&self, store: &str, topics: &[&str], where_to: &[&str]) {
        let group = self.group(store);
        let reset = ["--reset-offsets", "--execute", "--group", &group];
        self.groups_tool(&[&reset[..], topics, where_to].concat());
    }

    /// The consumer group of a projection.
    pub(crate) fn group(&self, store: &str) -> String {
        self.config.namespace.dotted(&format!("millrace.{store}.banking"))
    }

    /// Runs Kafka's own tool for consumer groups until it does as it is told: a group that has only
    /// just been left still has members.
    pub(crate) fn groups_tool(&self, arguments: &[&str]) {
        let tool = Path::new(env!("CARGO_MANIFEST_DIR")).join("ops/kafka");
        let deadline = Instant::now() + Duration::from_secs(30);
        loop {
            let output = Command::new(&tool)
                .args(["consumer-groups", "--bootstrap-server", &self.config.kafka.brokers])
                .args(arguments)
                .output()
                .expect("ops/kafka runs");
            let said = String::from_utf8_lossy(&output.stdout).into_owned()
                + &String::from_utf8_lossy(&output.stderr);
            if output.status.success() && !said.contains("Error") {
                return;
            }
            assert!(Instant::now() < deadline, "{said}");
        }
    }

    pub(crate) async fn clean(&self) {
        let topics = self.topics();
        let topics: Vec<&str> = topics.iter().map(String::as_str).collect();
        let _ = self.admin().delete_topics(&topics, &AdminOptions::new()).await;
        let groups = ["postgres", "clickhouse"]
            .map(|store| self.config.namespace.dotted(&format!("millrace.{store}.banking")));
        let groups: Vec<&str> = groups.iter().map(String::as_str).collect();
        let _ = self.admin().delete_groups(&groups, &AdminOptions::new()).await;
        let client = self.database().client().await.unwrap();
        for schema in ["banking", "banking_g1", "millrace"] {
            let schema = self.config.namespace.underscored(schema);
            let drop = format!("DROP SCHEMA IF EXISTS {schema} CASCADE");
            client.batch_execute(&drop).await.unwrap();
        }
        let events = self.events();
        let drop = format!("DROP DATABASE IF EXISTS {} SYNC", events.name());
        events.client().query(&drop).execute().await.unwrap();
    }
}

/// Waits until `reached` says so.
pub(crate) async fn until<F: Future<Output = bool>>(what: &str, mut reached: impl FnMut() -> F) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !reached().await {
        assert!(Instant::now() < deadline, "waited in vain: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
