//! Settings: defaults < `.millrace/stack.env` < `millrace.toml` < environment. One struct a
//! component.
//!
//! A name that is not known is an error, so is a value that cannot be; both are found before
//! anything starts. Secrets never appear in an error or a log.

mod load;
mod settings;

use std::fmt;
use std::path::PathBuf;

pub use settings::{nearest, redact_url};

use crate::kernel::stream::Namespace;

/// Which setting is wrong, where it stands, and what to do.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Nothing is called that.
    #[error(
        "unknown setting {name} in {origin}: {}",
        hint.map_or_else(|| "remove it".to_owned(), |hint| format!("did you mean {hint}?"))
    )]
    Unknown {
        /// The variable or key.
        name: String,
        /// The file, or the environment.
        origin: String,
        /// What may have been meant.
        hint: Option<&'static str>,
    },
    /// The value cannot be.
    #[error("bad setting {name} in {origin}: {shown} {reason}")]
    Bad {
        /// The variable or key.
        name: String,
        /// The file, or the environment.
        origin: String,
        /// The value, if it is not secret.
        shown: String,
        /// What would be good: `must be ...`.
        reason: String,
    },
    /// A file is not in its format.
    #[error("{}: {reason}", path.display())]
    Syntax {
        /// The file.
        path: PathBuf,
        /// Where and what.
        reason: String,
    },
    /// A file cannot be read.
    #[error("cannot read {}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
}

impl Error {
    /// The log filter cannot be read.
    #[must_use]
    pub fn log_filter(filter: &str, reason: &str) -> Self {
        Self::Bad {
            name: "MILLRACE_LOG (log.filter)".to_owned(),
            origin: "the settings".to_owned(),
            shown: format!("{filter:?}"),
            reason: format!("must be a tracing filter such as info or millrace=debug: {reason}"),
        }
    }
}

/// Everything that can be set.
#[derive(Clone, Debug, Default)]
pub struct Config {
    /// The prefix that keeps installations apart.
    pub namespace: Namespace,
    /// Signs the origins of commands that process managers send; derived from the cluster id if
    /// absent.
    pub internal_key: Option<Secret>,
    /// How to reach Kafka.
    pub kafka: Kafka,
    /// How to reach the schema registry.
    pub registry: Registry,
    /// How to reach Postgres.
    pub postgres: Postgres,
    /// How to reach ClickHouse.
    pub clickhouse: ClickHouse,
    /// Where `serve` listens.
    pub http: Http,
    /// The command handlers.
    pub handler: Handler,
    /// The auditor in the background.
    pub audit: Audit,
    /// What is logged, and how.
    pub log: Log,
}

/// Text that must not appear in logs.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Secret(pub String);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}

/// How to reach Kafka.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kafka {
    /// `host:port`, comma-separated.
    pub brokers: String,
    /// `plaintext`, `ssl`, `sasl_plaintext` or `sasl_ssl`.
    pub security_protocol: Option<String>,
    /// `PLAIN`, `SCRAM-SHA-256`, `SCRAM-SHA-512`.
    pub sasl_mechanism: Option<String>,
    /// The SASL user.
    pub sasl_username: Option<String>,
    /// The SASL password.
    pub sasl_password: Option<Secret>,
    /// A file with the certificates to trust.
    pub tls_ca: Option<String>,
    /// A file with the client's certificate.
    pub tls_certificate: Option<String>,
    /// A file with the client's private key.
    pub tls_key: Option<String>,
    /// What this process calls itself at the brokers; made of its id and its HTTP address.
    pub instance: String,
    /// How many copies each topic has (1 to 9); what the declarations say if absent.
    pub replication: Option<i32>,
}

impl Default for Kafka {
    fn default() -> Self {
        Self {
            brokers: "127.0.0.1:9092".to_owned(),
            security_protocol: None,
            sasl_mechanism: None,
            sasl_username: None,
            sasl_password: None,
            tls_ca: None,
            tls_certificate: None,
            tls_key: None,
            instance: "millrace".to_owned(),
            replication: None,
        }
    }
}

/// How to reach the schema registry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Registry {
    /// The base of its Confluent-compatible API.
    pub url: String,
}

impl Default for Registry {
    fn default() -> Self {
        Self { url: "http://127.0.0.1:8081/apis/ccompat/v7".to_owned() }
    }
}

/// How to reach Postgres.
#[derive(Clone, PartialEq, Eq)]
pub struct Postgres {
    /// `postgres://user:password@host:port/database`.
    pub url: String,
}

impl Default for Postgres {
    fn default() -> Self {
        Self { url: "postgres://millrace:millrace@127.0.0.1:5432/millrace".to_owned() }
    }
}

impl fmt::Debug for Postgres {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Postgres {{ url: {:?} }}", redact_url(&self.url))
    }
}

/// How to reach ClickHouse.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClickHouse {
    /// The HTTP address.
    pub url: String,
    /// The database, before the namespace is put in front.
    pub database: String,
    /// The user.
    pub user: String,
    /// The password.
    pub password: Secret,
}

impl Default for ClickHouse {
    fn default() -> Self {
        Self {
            url: "http://127.0.0.1:8123".to_owned(),
            database: "millrace".to_owned(),
            user: "default".to_owned(),
            password: Secret::default(),
        }
    }
}

/// Where `serve` listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Http {
    /// `host:port`.
    pub addr: String,
}

impl Default for Http {
    fn default() -> Self {
        Self { addr: "127.0.0.1:8080".to_owned() }
    }
}

/// The command handlers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Handler {
    /// The most commands in one transaction (1 to 5,000).
    pub batch: usize,
    /// How many events lie between two snapshots of a stream (1 to 10,000).
    pub snapshot_every: u64,
    /// Whose clock an event's time is.
    pub command_time: CommandTime,
    /// Where each partition keeps what memory has no room for; `None` is `.millrace/state`.
    pub state_dir: Option<PathBuf>,
    /// How many answers a partition keeps in memory.
    pub answers_in_memory: usize,
    /// How many aggregates a partition keeps in memory.
    pub streams_in_memory: usize,
    /// About how many events a partition's start reads, once it was quiet for a while
    /// (1 to 1,000,000,000).
    pub restore_events: u64,
    /// A name of this process alone, under which it comes back without a rebalance; a member
    /// without one leaves the group when it stops.
    pub instance_id: Option<String>,
}

impl Default for Handler {
    fn default() -> Self {
        Self {
            batch: 5_000,
            snapshot_every: 100,
            command_time: CommandTime::Handler,
            state_dir: None,
            answers_in_memory: 250_000,
            streams_in_memory: 300_000,
            restore_events: 10_000,
            instance_id: None,
        }
    }
}

impl Handler {
    /// Where each partition keeps what memory has no room for.
    #[must_use]
    pub fn state_dir(&self) -> PathBuf {
        self.state_dir.clone().unwrap_or_else(|| PathBuf::from(".millrace/state"))
    }
}

/// Whose clock an event's time is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CommandTime {
    /// The handler's own.
    #[default]
    Handler,
    /// The client's `ce_time`, if it lies between the stream's last event and now.
    Trust,
}

/// The auditor in the background.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Audit {
    /// How long it waits between two looks, on the average; 0 switches it off.
    pub interval_seconds: u64,
    /// How many streams it looks at (1 to 10,000).
    pub sample: usize,
}

impl Default for Audit {
    fn default() -> Self {
        Self { interval_seconds: 600, sample: 50 }
    }
}

/// What is logged, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Log {
    /// A tracing filter, for example `info` or `millrace=debug`.
    pub filter: String,
    /// Whether each line is a JSON object.
    pub json: bool,
}

impl Default for Log {
    fn default() -> Self {
        Self { filter: "info".to_owned(), json: false }
    }
}
