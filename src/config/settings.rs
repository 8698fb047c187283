//! Every setting: its variable, its key in `millrace.toml`, and how its text is read.

use super::{CommandTime, Config, Secret};
use crate::kernel::stream::Namespace;

/// One thing that can be set.
pub(super) struct Setting {
    /// The environment variable.
    pub(super) variable: &'static str,
    /// The key in `millrace.toml`: `section.key`.
    pub(super) key: &'static str,
    /// What a good value looks like; stands behind "must be".
    pub(super) expected: &'static str,
    /// How much of a value may be shown.
    pub(super) shown: Shown,
    /// Takes the value, or says no.
    pub(super) set: fn(&mut Config, &str) -> Option<()>,
}

/// How much of a value may be shown.
#[derive(Clone, Copy)]
pub(super) enum Shown {
    /// All of it.
    Plain,
    /// An address without the user and password in it.
    Address,
    /// Nothing.
    Secret,
}

impl Setting {
    /// A value as an error may show it.
    pub(super) fn show(&self, value: &str) -> String {
        match self.shown {
            Shown::Plain => format!("{value:?}"),
            Shown::Address => format!("{:?}", redact_url(value)),
            Shown::Secret => "its value".to_owned(),
        }
    }
}

const fn plain(
    variable: &'static str,
    key: &'static str,
    expected: &'static str,
    set: fn(&mut Config, &str) -> Option<()>,
) -> Setting {
    Setting { variable, key, expected, shown: Shown::Plain, set }
}

const fn secret(
    variable: &'static str,
    key: &'static str,
    expected: &'static str,
    set: fn(&mut Config, &str) -> Option<()>,
) -> Setting {
    Setting { variable, key, expected, shown: Shown::Secret, set }
}

const fn address(
    variable: &'static str,
    key: &'static str,
    expected: &'static str,
    set: fn(&mut Config, &str) -> Option<()>,
) -> Setting {
    Setting { variable, key, expected, shown: Shown::Address, set }
}

const PATH: &str = "the path of a PEM file";
const HTTP_URL: &str = "an address such as http://127.0.0.1:8123";

static SETTINGS: [Setting; 30] = [
    plain(
        "MILLRACE_NAMESPACE",
        "namespace",
        "empty, or lower-case letters and digits, a letter first, at most 40",
        |config, text| store(&mut config.namespace, Namespace::new(text).ok()),
    ),
    secret(
        "MILLRACE_INTERNAL_KEY",
        "internal_key",
        "a secret of at least 16 characters",
        |config, text| {
            let good = text.is_empty() || text.chars().count() >= 16;
            store(&mut config.internal_key, good.then(|| optional_secret(text)))
        },
    ),
    plain(
        "MILLRACE_KAFKA_BROKERS",
        "kafka.brokers",
        "host:port, or several with commas between them",
        |config, text| {
            let good = text.split(',').all(is_host_and_port);
            store(&mut config.kafka.brokers, good.then(|| text.to_owned()))
        },
    ),
    plain(
        "MILLRACE_KAFKA_SECURITY_PROTOCOL",
        "kafka.security_protocol",
        "plaintext, ssl, sasl_plaintext or sasl_ssl",
        |config, text| {
            let text = text.to_ascii_lowercase();
            let good =
                ["", "plaintext", "ssl", "sasl_plaintext", "sasl_ssl"].contains(&text.as_str());
            store(&mut config.kafka.security_protocol, good.then(|| optional(&text).flatten()))
        },
    ),
    plain(
        "MILLRACE_KAFKA_SASL_MECHANISM",
        "kafka.sasl_mechanism",
        "PLAIN, SCRAM-SHA-256 or SCRAM-SHA-512",
        |config, text| {
            let text = text.to_ascii_uppercase();
            let good = ["", "PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"].contains(&text.as_str());
            store(&mut config.kafka.sasl_mechanism, good.then(|| optional(&text).flatten()))
        },
    ),
    plain(
        "MILLRACE_KAFKA_SASL_USERNAME",
        "kafka.sasl_username",
        "a user's name",
        |config, text| store(&mut config.kafka.sasl_username, optional(text)),
    ),
    secret("MILLRACE_KAFKA_SASL_PASSWORD", "kafka.sasl_password", "a password", |config, text| {
        store(&mut config.kafka.sasl_password, Some(optional_secret(text)))
    }),
    plain("MILLRACE_KAFKA_TLS_CA", "kafka.tls_ca", PATH, |config, text| {
        store(&mut config.kafka.tls_ca, optional(text))
    }),
    plain("MILLRACE_KAFKA_TLS_CERTIFICATE", "kafka.tls_certificate", PATH, |config, text| {
        store(&mut config.kafka.tls_certificate, optional(text))
    }),
    plain("MILLRACE_KAFKA_TLS_KEY", "kafka.tls_key", PATH, |config, text| {
        store(&mut config.kafka.tls_key, optional(text))
    }),
    plain(
        "MILLRACE_KAFKA_REPLICATION",
        "kafka.replication",
        "a number of copies from 1 to 9",
        |config, text| {
            let number = text.parse().ok().filter(|number| (1..=9).contains(number));
            store(&mut config.kafka.replication, number.map(Some))
        },
    ),
    // A password may stand in any of these addresses.
    address("MILLRACE_REGISTRY_URL", "registry.url", HTTP_URL, |config, text| {
        store(&mut config.registry.url, http_url(text))
    }),
    address(
        "MILLRACE_POSTGRES_URL",
        "postgres.url",
        "an address such as postgres://user:password@127.0.0.1:5432/database",
        |config, text| {
            let good = text.starts_with("postgres://") || text.starts_with("postgresql://");
            store(&mut config.postgres.url, good.then(|| text.to_owned()))
        },
    ),
    address("MILLRACE_CLICKHOUSE_URL", "clickhouse.url", HTTP_URL, |config, text| {
        store(&mut config.clickhouse.url, http_url(text))
    }),
    plain(
        "MILLRACE_CLICKHOUSE_DATABASE",
        "clickhouse.database",
        "letters, digits and underscores, no digit first",
        |config, text| {
            store(&mut config.clickhouse.database, is_identifier(text).then(|| text.to_owned()))
        },
    ),
    plain("MILLRACE_CLICKHOUSE_USER", "clickhouse.user", "a user's name", |config, text| {
        store(&mut config.clickhouse.user, (!text.is_empty()).then(|| text.to_owned()))
    }),
    secret("MILLRACE_CLICKHOUSE_PASSWORD", "clickhouse.password", "a password", |config, text| {
        store(&mut config.clickhouse.password, Some(Secret(text.to_owned())))
    }),
    plain("MILLRACE_HTTP_ADDR", "http.addr", "host:port", |config, text| {
        store(&mut config.http.addr, is_host_and_port(text).then(|| text.to_owned()))
    }),
    plain("MILLRACE_HANDLER_BATCH", "handler.batch", "a number from 1 to 5000", |config, text| {
        let number = text.parse().ok().filter(|number| (1..=5_000).contains(number));
        store(&mut config.handler.batch, number)
    }),
    plain(
        "MILLRACE_HANDLER_SNAPSHOT_EVERY",
        "handler.snapshot_every",
        "a number from 1 to 10000",
        |config, text| {
            let number = text.parse().ok().filter(|number| (1..=10_000).contains(number));
            store(&mut config.handler.snapshot_every, number)
        },
    ),
    plain(
        "MILLRACE_HANDLER_COMMAND_TIME",
        "handler.command_time",
        "handler or trust",
        |config, text| {
            let time = match text {
                "handler" => Some(CommandTime::Handler),
                "trust" => Some(CommandTime::Trust),
                _ => None,
            };
            store(&mut config.handler.command_time, time)
        },
    ),
    plain("MILLRACE_HANDLER_STATE_DIR", "handler.state_dir", "a directory", |config, text| {
        store(&mut config.handler.state_dir, (!text.is_empty()).then(|| Some(text.into())))
    }),
    plain(
        "MILLRACE_HANDLER_ANSWERS_IN_MEMORY",
        "handler.answers_in_memory",
        "a number from 1 to 100000000",
        |config, text| store(&mut config.handler.answers_in_memory, count_in_memory(text)),
    ),
    plain(
        "MILLRACE_HANDLER_STREAMS_IN_MEMORY",
        "handler.streams_in_memory",
        "a number from 1 to 100000000",
        |config, text| store(&mut config.handler.streams_in_memory, count_in_memory(text)),
    ),
    plain(
        "MILLRACE_HANDLER_RESTORE_EVENTS",
        "handler.restore_events",
        "a number from 1 to 1000000000",
        |config, text| {
            let number = text.parse().ok().filter(|number| (1..=1_000_000_000).contains(number));
            store(&mut config.handler.restore_events, number)
        },
    ),
    plain(
        "MILLRACE_HANDLER_INSTANCE_ID",
        "handler.instance_id",
        "a name of letters, digits, dots, dashes and underscores, at most 100",
        |config, text| {
            let legal = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
            let good = text.len() <= 100 && text.chars().all(legal);
            store(&mut config.handler.instance_id, good.then(|| optional(text)).flatten())
        },
    ),
    plain(
        "MILLRACE_AUDIT_INTERVAL",
        "audit.interval",
        "a number of seconds from 0 (never) to 604800",
        |config, text| {
            let number = text.parse().ok().filter(|number| *number <= 604_800);
            store(&mut config.audit.interval_seconds, number)
        },
    ),
    plain("MILLRACE_AUDIT_SAMPLE", "audit.sample", "a number from 1 to 10000", |config, text| {
        let number = text.parse().ok().filter(|number| (1..=10_000).contains(number));
        store(&mut config.audit.sample, number)
    }),
    plain("MILLRACE_LOG_FORMAT", "log.format", "text or json", |config, text| {
        let json = match text {
            "text" => Some(false),
            "json" => Some(true),
            _ => None,
        };
        store(&mut config.log.json, json)
    }),
    plain("MILLRACE_LOG", "log.filter", "a tracing filter such as info", |config, text| {
        store(&mut config.log.filter, (!text.is_empty()).then(|| text.to_owned()))
    }),
];

fn count_in_memory(text: &str) -> Option<usize> {
    text.parse().ok().filter(|number| (1..=100_000_000).contains(number))
}

/// The setting of that variable.
pub(super) fn by_variable(name: &str) -> Option<&'static Setting> {
    SETTINGS.iter().find(|setting| setting.variable == name)
}

/// The setting of that key.
pub(super) fn by_key(key: &str) -> Option<&'static Setting> {
    SETTINGS.iter().find(|setting| setting.key == key)
}

/// What somebody who wrote that variable may have meant.
pub(super) fn nearest_variable(name: &str) -> Option<&'static str> {
    nearest(name, SETTINGS.iter().map(|setting| setting.variable))
}

/// What somebody who wrote that key may have meant.
pub(super) fn nearest_key(key: &str) -> Option<&'static str> {
    nearest(key, SETTINGS.iter().map(|setting| setting.key))
}

/// The candidate with the fewest edits, if they are few.
pub fn nearest<'a>(name: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let few = name.chars().count() / 4 + 1;
    candidates
        .into_iter()
        .map(|candidate| (edits(name, candidate), candidate))
        .filter(|(edits, _)| *edits <= few)
        .min()
        .map(|(_, candidate)| candidate)
}

/// Levenshtein's distance: the fewest letters to put in, take out or change.
fn edits(from: &str, to: &str) -> usize {
    let to: Vec<char> = to.chars().collect();
    let mut row: Vec<usize> = (0..=to.len()).collect();
    for (i, a) in from.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, b) in to.iter().enumerate() {
            let changed = diagonal + usize::from(a != *b);
            diagonal = row[j + 1];
            row[j + 1] = changed.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[to.len()]
}

/// An address without the user, the password and the options in it.
#[must_use]
pub fn redact_url(url: &str) -> String {
    let (scheme, rest) = url.split_once("://").unwrap_or(("", url));
    let rest = rest.split('?').next().unwrap_or_default();
    let rest = rest.rsplit_once('@').map_or(rest, |(_, rest)| rest);
    if scheme.is_empty() { rest.to_owned() } else { format!("{scheme}://{rest}") }
}

fn store<T>(place: &mut T, value: Option<T>) -> Option<()> {
    *place = value?;
    Some(())
}

/// Empty text means: not set.
#[expect(clippy::unnecessary_wraps, reason = "every reader says yes or no")]
fn optional(text: &str) -> Option<Option<String>> {
    Some((!text.is_empty()).then(|| text.to_owned()))
}

fn optional_secret(text: &str) -> Option<Secret> {
    (!text.is_empty()).then(|| Secret(text.to_owned()))
}

fn is_host_and_port(text: &str) -> bool {
    text.trim().rsplit_once(':').is_some_and(|(host, port)| {
        !host.is_empty() && !host.contains('/') && port.parse::<u16>().is_ok()
    })
}

fn http_url(text: &str) -> Option<String> {
    let rest = text.strip_prefix("http://").or_else(|| text.strip_prefix("https://"))?;
    (!rest.is_empty() && !rest.starts_with('/')).then(|| text.trim_end_matches('/').to_owned())
}

fn is_identifier(text: &str) -> bool {
    let legal = |c: char| c.is_ascii_alphanumeric() || c == '_';
    !text.is_empty() && text.chars().all(legal) && !text.starts_with(|c: char| c.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_shown_without_what_is_secret() {
        assert_eq!(redact_url("postgres://u:p@ss@h:1/db?password=x"), "postgres://h:1/db");
        assert_eq!(redact_url("http://h:1"), "http://h:1");
        assert_eq!(redact_url("u:p@h"), "h");
    }

    #[test]
    fn the_nearest_name_is_found_unless_it_is_far() {
        assert_eq!(edits("kitten", "sitting"), 3);
        assert_eq!(nearest("topcis", ["topics", "status"]), Some("topics"));
        assert_eq!(nearest("topcis", ["zzz"]), None);
    }
}
