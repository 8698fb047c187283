//! Settings: defaults < `.millrace/stack.env` < `millrace.toml` < environment. One struct a component.

use std::fmt;

use serde::Deserialize;

use crate::kernel::stream::Namespace;

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
    /// What is logged, and how.
    pub log: Log,
}

/// Text that must not appear in logs.
#[derive(Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct Secret(pub String);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}

/// How to reach Kafka.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
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
        }
    }
}

/// How to reach the schema registry.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Registry {
    /// The base of its Confluent-compatible API.
    pub url: String,
}

impl Default for Registry {
    fn default() -> Self {
        Self {
            url: "http://127.0.0.1:8081/apis/ccompat/v7".to_owned(),
        }
    }
}

/// How to reach Postgres.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Postgres {
    /// `postgres://user:password@host:port/database`.
    pub url: String,
}

impl Default for Postgres {
    fn default() -> Self {
        Self {
            url: "postgres://millrace:millrace@127.0.0.1:5432/millrace".to_owned(),
        }
    }
}

impl fmt::Debug for Postgres {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Postgres { url: [redacted] }")
    }
}

/// How to reach ClickHouse.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
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
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Http {
    /// `host:port`.
    pub addr: String,
}

impl Default for Http {
    fn default() -> Self {
        Self {
            addr: "127.0.0.1:8080".to_owned(),
        }
    }
}

/// The command handlers.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Handler {
    /// The most commands in one transaction (1 to 5,000).
    pub batch: usize,
    /// Whose clock an event's time is.
    pub command_time: CommandTime,
}

impl Default for Handler {
    fn default() -> Self {
        Self {
            batch: 5_000,
            command_time: CommandTime::Handler,
        }
    }
}

/// Whose clock an event's time is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CommandTime {
    /// The handler's own.
    #[default]
    Handler,
    /// The client's `ce_time`, if it lies between the stream's last event and now.
    Trust,
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
        Self {
            filter: "info".to_owned(),
            json: false,
        }
    }
}
