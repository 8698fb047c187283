//! An installation of its own on the shared stack: made for one test, gone after it.

use std::path::PathBuf;
use std::process::{Command, Output};
use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions};
use rdkafka::client::DefaultClientContext;
use rdkafka::producer::{BaseProducer, Producer as _};
use serde_json::Value;

use super::{http, stores};

/// Where the services answer.
pub(crate) struct Stack {
    pub(crate) brokers: String,
    pub(crate) registry: String,
    pub(crate) postgres: String,
    pub(crate) clickhouse: String,
    pub(crate) clickhouse_user: String,
    pub(crate) clickhouse_password: String,
}

impl Stack {
    /// Reads what `ops/stack env` prints from the environment.
    pub(crate) fn from_env() -> Self {
        let setting = |name: &str| {
            std::env::var(name).unwrap_or_else(|_| {
                panic!("{name} is not set: run `ops/test`, or export what `ops/stack env` prints")
            })
        };
        Self {
            brokers: setting("MILLRACE_KAFKA_BROKERS"),
            registry: setting("MILLRACE_REGISTRY_URL"),
            postgres: setting("MILLRACE_POSTGRES_URL"),
            clickhouse: setting("MILLRACE_CLICKHOUSE_URL"),
            clickhouse_user: setting("MILLRACE_CLICKHOUSE_USER"),
            clickhouse_password: setting("MILLRACE_CLICKHOUSE_PASSWORD"),
        }
    }

    pub(crate) fn kafka(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        // Else a client that a broker's pause has left without any broker is out for five minutes.
        config
            .set("bootstrap.servers", &self.brokers)
            .set("metadata.recovery.rebootstrap.trigger.ms", "3000");
        config
    }
}

/// An installation with a name of its own. Dropping it deletes all that it left in the services.
pub(crate) struct Namespace {
    pub(crate) name: String,
    pub(crate) stack: Stack,
    /// How many partitions the topics of an aggregate have.
    pub(crate) partitions: i32,
}

impl Namespace {
    /// Makes topics and schemas as they are declared.
    pub(crate) fn as_declared() -> Self {
        let namespace = Self::named(4);
        namespace.done(&["topics", "apply"]);
        namespace.done(&["schemas", "register"]);
        namespace
    }

    fn named(partitions: i32) -> Self {
        let name = format!("e{:08x}", rand::random::<u32>());
        let namespace = Self { name, stack: Stack::from_env(), partitions };
        std::fs::create_dir_all(namespace.directory()).unwrap();
        namespace
    }

    /// Makes topics and schemas, with two partitions.
    pub(crate) fn new() -> Self {
        let namespace = Self::named(2);
        let from = namespace.directory();
        let declared = include_str!("../../../topics/banking.yaml");
        let fewer = declared.replace("partitions: 4", "partitions: 2");
        assert_ne!(declared, fewer, "topics/banking.yaml says how many partitions");
        std::fs::write(from.join("banking.yaml"), fewer).unwrap();
        std::fs::write(from.join("millrace.yaml"), include_str!("../../../topics/millrace.yaml"))
            .unwrap();
        let from = from.to_str().unwrap().to_owned();
        namespace.done(&["topics", "apply", "--from", &from]);
        namespace.done(&["schemas", "register"]);
        namespace
    }

    /// Where the test's own files are.
    pub(crate) fn directory(&self) -> PathBuf {
        PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(&self.name)
    }

    /// The full name of one of the account's topics.
    pub(crate) fn topic(&self, kind: &str) -> String {
        format!("{}.banking.account.{kind}", self.name)
    }

    /// The full name of a consumer group.
    pub(crate) fn group(&self, name: &str) -> String {
        format!("{}.millrace.{name}", self.name)
    }

    /// The full name of a Postgres schema or ClickHouse database.
    pub(crate) fn schema(&self, name: &str) -> String {
        format!("{}_{name}", self.name)
    }

    /// The program, in this namespace.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_millrace"));
        command.env("MILLRACE_NAMESPACE", &self.name).args(arguments);
        command
    }

    /// Runs the program to its end.
    pub(crate) fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }

    /// Runs the program, which must succeed; gives what it printed.
    #[track_caller]
    pub(crate) fn done(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        let (out, err) = texts(&output);
        assert!(output.status.success(), "{arguments:?}: {}\n{out}\n{err}", output.status);
        out
    }

    /// Runs the program with `--json`; gives its lines.
    #[track_caller]
    pub(crate) fn json(&self, arguments: &[&str]) -> Vec<Value> {
        let out = self.done(&[&["--json"], arguments].concat());
        let values = serde_json::Deserializer::from_str(&out).into_iter::<Value>();
        values.collect::<Result<_, _>>().unwrap_or_else(|error| panic!("{error}: {out}"))
    }

    /// Runs one of Kafka's own tools.
    #[track_caller]
    pub(crate) fn kafka_tool(&self, arguments: &[&str]) -> String {
        let output = Command::new(concat!(env!("CARGO_MANIFEST_DIR"), "/ops/kafka"))
            .args(arguments)
            .args(["--bootstrap-server", &self.stack.brokers])
            .output()
            .unwrap();
        let (out, err) = texts(&output);
        assert!(output.status.success(), "ops/kafka {arguments:?}\n{out}\n{err}");
        out
    }

    fn delete_topics(&self) -> Result<(), rdkafka::error::KafkaError> {
        let config = self.stack.kafka();
        let producer: BaseProducer = config.create()?;
        let metadata = producer.client().fetch_metadata(None, Duration::from_secs(10))?;
        let prefix = format!("{}.", self.name);
        let names: Vec<&str> = metadata.topics().iter().map(|topic| topic.name()).collect();
        let own: Vec<&str> = names.into_iter().filter(|name| name.starts_with(&prefix)).collect();
        let admin: AdminClient<DefaultClientContext> = config.create()?;
        let options = AdminOptions::new().operation_timeout(Some(Duration::from_secs(10)));
        futures::executor::block_on(admin.delete_topics(&own, &options))?;
        Ok(())
    }

    fn delete_subjects(&self) -> Result<(), String> {
        let url = &self.stack.registry;
        let subjects: Vec<String> = serde_json::from_str(&http::get(&format!("{url}/subjects"))?)
            .map_err(|error| error.to_string())?;
        let prefix = format!("{}.", self.name);
        for subject in subjects.iter().filter(|subject| subject.starts_with(&prefix)) {
            for permanent in ["false", "true"] {
                let url = format!("{url}/subjects/{subject}?permanent={permanent}");
                http::request("DELETE", &url, &[], "").map_err(|error| error.to_string())?;
            }
        }
        Ok(())
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let results = [
            ("topics", self.delete_topics().map_err(|error| error.to_string())),
            ("subjects", self.delete_subjects()),
            ("Postgres schemas", stores::drop_schemas(self)),
            ("ClickHouse databases", stores::drop_databases(self)),
        ];
        for (what, result) in results {
            if let Err(error) = result {
                eprintln!("{what} of {} are left behind: {error}", self.name);
            }
        }
        // What the processes wrote is of use only if the test failed.
        if std::thread::panicking() {
            eprintln!("logs: {}", self.directory().display());
        } else {
            let _ = std::fs::remove_dir_all(self.directory());
        }
    }
}

/// Standard output and error of a process.
pub(crate) fn texts(output: &Output) -> (String, String) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (text(&output.stdout), text(&output.stderr))
}
