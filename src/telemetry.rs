//! Logs: tracing events -> lines on standard error, plain or JSON.
//!
//! librdkafka's own lines come along under the target `librdkafka`. It calls an unreachable broker
//! an error once a second, while the client itself retries: its lines are shown from `warn` up
//! unless the filter says otherwise.

use std::io::{self, IsTerminal};

use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::Directive;

use crate::config;

/// Starts logging as the settings say.
///
/// # Errors
/// The filter cannot be read.
pub fn init(log: &config::Log) -> Result<(), config::Error> {
    let filter = filter(&log.filter)?;
    let lines = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr)
        .with_ansi(io::stderr().is_terminal());
    // A second start in one process (tests) keeps the first.
    let _ = if log.json { lines.json().flatten_event(true).try_init() } else { lines.try_init() };
    Ok(())
}

/// What is too loud at `info`, unless the filter names it.
const QUIETER: [(&str, &str); 4] = [
    ("librdkafka", "librdkafka=warn"),
    ("rdkafka", "rdkafka=warn"),
    ("hyper", "hyper=warn"),
    ("tokio_postgres", "tokio_postgres=warn"),
];

fn filter(text: &str) -> Result<EnvFilter, config::Error> {
    let wrong = |reason: String| config::Error::log_filter(text, &reason);
    let mut filter: EnvFilter = text
        .parse()
        .map_err(|error: tracing_subscriber::filter::ParseError| wrong(error.to_string()))?;
    for (target, directive) in QUIETER {
        if !text.contains(target) {
            let directive: Result<Directive, _> = directive.parse();
            filter = filter.add_directive(directive.map_err(|error| wrong(error.to_string()))?);
        }
    }
    Ok(filter)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn takes_levels_and_targets_and_names_what_it_cannot_read() {
        for good in ["info", "millrace=debug,librdkafka=debug", "off", "warn,millrace::cli=trace"] {
            assert!(filter(good).is_ok(), "{good}");
        }
        let error = filter("millrace=loud").unwrap_err().to_string();
        assert!(error.contains("MILLRACE_LOG"), "{error}");
        assert!(error.contains("millrace=loud"), "{error}");
    }

    #[test]
    fn librdkafka_is_quieter_unless_it_is_named() {
        assert!(filter("info").unwrap().to_string().contains("librdkafka=warn"));
        let named = filter("info,librdkafka=debug").unwrap().to_string();
        assert!(!named.contains("librdkafka=warn"), "{named}");
    }
}
