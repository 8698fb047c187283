//! text from files and the environment -> a checked [`Config`].
//!
//! | layer, later wins | where |
//! |---|---|
//! | defaults | the components' `Default` |
//! | `.millrace/stack.env` | the nearest one upward from here, or the one in `MILLRACE_HOME` |
//! | `millrace.toml` | the nearest one upward from the current directory |
//! | `MILLRACE_*` variables | the environment |

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use super::settings::{self, Setting};
use super::{Config, Error};

/// Variables that the scripts under `ops/` and the tests use; they set nothing here.
const SCRIPT_VARIABLES: [&str; 4] =
    ["MILLRACE_HOME", "MILLRACE_STACK", "MILLRACE_STACK_NAME", "MILLRACE_SIMULATION_SEED"];

/// Names with their values, in order.
type Variables = Vec<(String, String)>;

impl Config {
    /// Reads every layer, from the current directory and the environment.
    ///
    /// # Errors
    /// A setting is unknown or bad, or a file cannot be read.
    pub fn load() -> Result<Self, Error> {
        let directory = std::env::current_dir()
            .map_err(|source| Error::Unreadable { path: PathBuf::from("."), source })?;
        Self::load_from(&directory, std::env::vars_os())
    }

    /// Reads every layer, upward from `directory` and from `variables`.
    ///
    /// # Errors
    /// As [`Config::load`].
    pub fn load_from(
        directory: &Path,
        variables: impl IntoIterator<Item = (OsString, OsString)>,
    ) -> Result<Self, Error> {
        let (variables, home) = own_variables(variables)?;
        let mut config = Self::default();
        // Beside the stack that it belongs to, so that every process finds the same one.
        let beside = match &home {
            Some(home) => home.clone(),
            None => {
                ancestor_with(directory, ".millrace").unwrap_or_else(|| directory.join(".millrace"))
            }
        };
        config.handler.state_dir = Some(beside.join("state"));
        let stack = match home {
            Some(home) => Some(home.join("stack.env")).filter(|path| path.is_file()),
            None => nearest(directory, ".millrace/stack.env"),
        };
        if let Some(path) = stack {
            let lines = parse_env(&read(&path)?, &path)?;
            apply_variables(&mut config, lines, &path.display().to_string())?;
        }
        if let Some(path) = nearest(directory, "millrace.toml") {
            apply_toml(&mut config, &read(&path)?, &path)?;
        }
        apply_variables(&mut config, variables, "the environment")?;
        // Whoever looks at a group finds the owner of a partition by it.
        config.kafka.instance = format!("millrace-{}@{}", std::process::id(), config.http.addr);
        Ok(config)
    }
}

/// Keeps what is ours, and finds `MILLRACE_HOME`.
fn own_variables(
    variables: impl IntoIterator<Item = (OsString, OsString)>,
) -> Result<(Variables, Option<PathBuf>), Error> {
    let mut own = Vec::new();
    let mut home = None;
    for (name, value) in variables {
        // A name that is no UTF-8 is none of ours.
        let Some(name) = name.to_str().filter(|name| name.starts_with("MILLRACE_")) else {
            continue;
        };
        if name == "MILLRACE_HOME" && !value.is_empty() {
            home = Some(PathBuf::from(&value));
        }
        let value = value.into_string().map_err(|_| Error::Bad {
            name: name.to_owned(),
            origin: "the environment".to_owned(),
            shown: "the value".to_owned(),
            reason: "must be UTF-8".to_owned(),
        })?;
        own.push((name.to_owned(), value));
    }
    // The environment has no order; the first of several errors must not change from run to run.
    own.sort();
    Ok((own, home))
}

/// The nearest directory of that name, from `directory` upward.
fn ancestor_with(directory: &Path, name: &str) -> Option<PathBuf> {
    directory.ancestors().map(|place| place.join(name)).find(|path| path.is_dir())
}

/// The nearest file of that name, from `directory` upward.
fn nearest(directory: &Path, name: &str) -> Option<PathBuf> {
    let candidates = directory.ancestors().map(|place| place.join(name));
    candidates.into_iter().find(|path| path.is_file())
}

fn read(path: &Path) -> Result<String, Error> {
    std::fs::read_to_string(path)
        .map_err(|source| Error::Unreadable { path: path.to_owned(), source })
}

/// Reads `NAME=value` lines, with `export`, quotes, comments and blank lines as a shell has them.
fn parse_env(text: &str, path: &Path) -> Result<Variables, Error> {
    let mut variables = Vec::new();
    for (number, line) in (1..).zip(text.lines()) {
        let line = line.trim();
        let line = line.strip_prefix("export ").unwrap_or(line).trim_start();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let Some((name, value)) = line.split_once('=') else {
            return Err(Error::Syntax {
                path: path.to_owned(),
                reason: format!("line {number} is not NAME=value"),
            });
        };
        let quoted = ['"', '\''].iter().find_map(|&quote| {
            let inner = value.strip_prefix(quote)?;
            inner.strip_suffix(quote)
        });
        if name.starts_with("MILLRACE_") {
            variables.push((name.to_owned(), quoted.unwrap_or(value).to_owned()));
        }
    }
    Ok(variables)
}

fn apply_variables(config: &mut Config, variables: Variables, origin: &str) -> Result<(), Error> {
    for (name, value) in variables {
        if SCRIPT_VARIABLES.contains(&name.as_str()) {
            continue;
        }
        let Some(setting) = settings::by_variable(&name) else {
            return Err(Error::Unknown {
                hint: settings::nearest_variable(&name),
                name,
                origin: origin.to_owned(),
            });
        };
        apply(config, setting, &name, &value, origin)?;
    }
    Ok(())
}

fn apply_toml(config: &mut Config, text: &str, path: &Path) -> Result<(), Error> {
    let table: toml::Table = text.parse().map_err(|error: toml::de::Error| Error::Syntax {
        path: path.to_owned(),
        reason: error.message().to_owned(),
    })?;
    for (name, value) in &table {
        if let toml::Value::Table(section) = value {
            for (key, value) in section {
                apply_key(config, &format!("{name}.{key}"), value, path)?;
            }
        } else {
            apply_key(config, name, value, path)?;
        }
    }
    Ok(())
}

fn apply_key(
    config: &mut Config,
    key: &str,
    value: &toml::Value,
    path: &Path,
) -> Result<(), Error> {
    let origin = path.display().to_string();
    let Some(setting) = settings::by_key(key) else {
        return Err(Error::Unknown {
            name: key.to_owned(),
            hint: settings::nearest_key(key),
            origin,
        });
    };
    let text = match value {
        toml::Value::String(text) => text.clone(),
        toml::Value::Integer(number) => number.to_string(),
        toml::Value::Boolean(yes) => yes.to_string(),
        toml::Value::Float(_)
        | toml::Value::Datetime(_)
        | toml::Value::Array(_)
        | toml::Value::Table(_) => {
            return Err(Error::Bad {
                name: key.to_owned(),
                origin,
                shown: format!("a value of type {}", value.type_str()),
                reason: format!("must be {}", setting.expected),
            });
        }
    };
    apply(config, setting, key, &text, &origin)
}

fn apply(
    config: &mut Config,
    setting: &Setting,
    name: &str,
    value: &str,
    origin: &str,
) -> Result<(), Error> {
    (setting.set)(config, value).ok_or_else(|| Error::Bad {
        name: name.to_owned(),
        origin: origin.to_owned(),
        shown: setting.show(value),
        reason: format!("must be {}", setting.expected),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{CommandTime, Secret};

    /// A directory of its own, gone when dropped.
    struct Place(PathBuf);

    impl Place {
        fn new(name: &str) -> Self {
            let path =
                std::env::temp_dir().join(format!("millrace-config-{name}-{}", std::process::id()));
            std::fs::create_dir_all(path.join("a/b")).unwrap();
            Self(path)
        }

        fn file(self, name: &str, text: &str) -> Self {
            let path = self.0.join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
            self
        }

        fn load(&self, variables: &[(&str, &str)]) -> Result<Config, Error> {
            let variables = variables.iter().map(|(name, value)| (name.into(), value.into()));
            Config::load_from(&self.0.join("a/b"), variables)
        }

        fn refusal(&self, variables: &[(&str, &str)]) -> String {
            self.load(variables).unwrap_err().to_string()
        }
    }

    impl Drop for Place {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn later_layers_win() {
        let place = Place::new("layers")
            .file(
                ".millrace/stack.env",
                "# written by ops/stack\nexport MILLRACE_KAFKA_BROKERS=stack:1\n\
                 MILLRACE_REGISTRY_URL='http://stack:2/x'\n\
                 MILLRACE_CLICKHOUSE_URL=\"http://stack:3\"\n\
                 MILLRACE_STACK_NAME=demo\nPGPORT=5433\n",
            )
            .file(
                "millrace.toml",
                "namespace = \"shop\"\n[registry]\nurl = \"http://toml:2\"\n\
                 [clickhouse]\nurl = \"http://toml:3\"\n\
                 [handler]\nbatch = 100\n[log]\nformat = \"json\"\n",
            );
        let config =
            place.load(&[("MILLRACE_CLICKHOUSE_URL", "http://env:3"), ("HOME", "/")]).unwrap();
        assert_eq!(config.kafka.brokers, "stack:1");
        assert_eq!(config.registry.url, "http://toml:2");
        assert_eq!(config.clickhouse.url, "http://env:3");
        assert_eq!(config.namespace.as_str(), "shop");
        assert_eq!(config.handler.batch, 100);
        assert!(config.log.json);
        assert_eq!(config.http.addr, "127.0.0.1:8080");
        assert_eq!(config.handler.state_dir(), place.0.join(".millrace/state"));
    }

    #[test]
    fn home_says_where_the_stack_is() {
        let place = Place::new("home").file("other/stack.env", "MILLRACE_KAFKA_BROKERS=other:1\n");
        let home = place.0.join("other");
        let config = place.load(&[("MILLRACE_HOME", home.to_str().unwrap())]).unwrap();
        assert_eq!(config.kafka.brokers, "other:1");
        assert_eq!(config.handler.state_dir(), home.join("state"));
    }

    #[test]
    fn every_variable_of_the_table_is_taken() {
        let place = Place::new("all");
        let config = place
            .load(&[
                ("MILLRACE_KAFKA_BROKERS", "a:9092,b:9093"),
                ("MILLRACE_KAFKA_SECURITY_PROTOCOL", "SASL_SSL"),
                ("MILLRACE_KAFKA_SASL_MECHANISM", "SCRAM-SHA-512"),
                ("MILLRACE_KAFKA_SASL_USERNAME", "user"),
                ("MILLRACE_KAFKA_SASL_PASSWORD", "hidden"),
                ("MILLRACE_KAFKA_TLS_CA", "/ca.pem"),
                ("MILLRACE_KAFKA_TLS_CERTIFICATE", "/cert.pem"),
                ("MILLRACE_KAFKA_TLS_KEY", "/key.pem"),
                ("MILLRACE_POSTGRES_URL", "postgresql://u:hidden@h/db"),
                ("MILLRACE_CLICKHOUSE_DATABASE", "other"),
                ("MILLRACE_CLICKHOUSE_USER", "writer"),
                ("MILLRACE_CLICKHOUSE_PASSWORD", "hidden"),
                ("MILLRACE_HTTP_ADDR", "0.0.0.0:80"),
                ("MILLRACE_NAMESPACE", "test1"),
                ("MILLRACE_INTERNAL_KEY", "hidden-and-long-enough"),
                ("MILLRACE_LOG", "debug"),
                ("MILLRACE_LOG_FORMAT", "text"),
                ("MILLRACE_HANDLER_BATCH", "1"),
                ("MILLRACE_HANDLER_COMMAND_TIME", "trust"),
                ("MILLRACE_HANDLER_STATE_DIR", "/var/lib/millrace"),
                ("MILLRACE_HANDLER_ANSWERS_IN_MEMORY", "7"),
                ("MILLRACE_HANDLER_STREAMS_IN_MEMORY", "8"),
                ("MILLRACE_HANDLER_RESTORE_EVENTS", "9"),
            ])
            .unwrap();
        assert_eq!(config.kafka.security_protocol.as_deref(), Some("sasl_ssl"));
        assert_eq!(config.kafka.sasl_password, Some(Secret("hidden".to_owned())));
        assert_eq!(config.clickhouse.database, "other");
        assert_eq!(config.handler.command_time, CommandTime::Trust);
        assert_eq!(config.handler.state_dir(), Path::new("/var/lib/millrace"));
        assert_eq!((config.handler.answers_in_memory, config.handler.streams_in_memory), (7, 8));
        assert_eq!(config.handler.restore_events, 9);
        assert_eq!(config.namespace.as_str(), "test1");
        assert!(!format!("{config:?}").contains("hidden"), "{config:?}");
    }

    #[test]
    fn an_unknown_name_is_refused_with_a_hint() {
        let place = Place::new("unknown");
        assert_eq!(
            place.refusal(&[("MILLRACE_KAFKA_BROKER", "x")]),
            "unknown setting MILLRACE_KAFKA_BROKER in the environment: \
             did you mean MILLRACE_KAFKA_BROKERS?"
        );
        let far = place.refusal(&[("MILLRACE_QQQQQQQQQQQQ", "x")]);
        assert!(far.contains("remove it"), "{far}");
        let place = place.file("millrace.toml", "[kafka]\nbroker = \"x\"\n");
        let text = place.refusal(&[]);
        assert!(text.contains("kafka.broker in /"), "{text}");
        assert!(text.ends_with("did you mean kafka.brokers?"), "{text}");
        let place =
            place.file("millrace.toml", "").file(".millrace/stack.env", "MILLRACE_PORT=1\n");
        let text = place.refusal(&[]);
        assert!(text.contains("MILLRACE_PORT in /") && text.contains("stack.env"), "{text}");
    }

    #[test]
    fn a_bad_value_is_named_with_its_source_and_what_would_do() {
        let place = Place::new("bad");
        for (name, value) in [
            ("MILLRACE_HANDLER_BATCH", "0"),
            ("MILLRACE_HANDLER_BATCH", "5001"),
            ("MILLRACE_HANDLER_BATCH", "many"),
            ("MILLRACE_HANDLER_COMMAND_TIME", "client"),
            ("MILLRACE_HANDLER_STATE_DIR", ""),
            ("MILLRACE_HANDLER_STREAMS_IN_MEMORY", "0"),
            ("MILLRACE_HANDLER_ANSWERS_IN_MEMORY", "-1"),
            ("MILLRACE_KAFKA_BROKERS", ""),
            ("MILLRACE_KAFKA_BROKERS", "localhost"),
            ("MILLRACE_KAFKA_BROKERS", "localhost:99999"),
            ("MILLRACE_KAFKA_SECURITY_PROTOCOL", "tls"),
            ("MILLRACE_REGISTRY_URL", "127.0.0.1:8081"),
            ("MILLRACE_CLICKHOUSE_URL", "http://"),
            ("MILLRACE_CLICKHOUSE_DATABASE", "a;b"),
            ("MILLRACE_HTTP_ADDR", "8080"),
            ("MILLRACE_NAMESPACE", "Test"),
            ("MILLRACE_LOG_FORMAT", "yaml"),
        ] {
            let text = place.refusal(&[(name, value)]);
            assert!(text.contains(name), "{text}");
            assert!(text.contains(&format!("{value:?}")), "{text}");
            assert!(text.contains("the environment") && text.contains("must be"), "{text}");
            assert!(!text.contains('\n'), "{text}");
        }
        let secret = place.refusal(&[("MILLRACE_POSTGRES_URL", "mysql://u:hidden@h/db")]);
        assert!(!secret.contains("hidden"), "{secret}");
        let place = place.file("millrace.toml", "[handler]\nbatch = [1]\n");
        let text = place.refusal(&[]);
        assert!(text.contains("handler.batch") && text.contains("type array"), "{text}");
    }

    #[test]
    fn a_file_that_is_not_what_it_should_be_is_named() {
        let place = Place::new("syntax").file(".millrace/stack.env", "\nhello\n");
        let text = place.refusal(&[]);
        assert!(text.contains("stack.env: line 2 is not NAME=value"), "{text}");
        let place = Place::new("syntax2").file("millrace.toml", "= 1");
        assert!(place.refusal(&[]).contains("millrace.toml"));
    }
}
