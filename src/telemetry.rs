//! Logs: tracing events -> lines on standard error, plain or JSON.
//!
//! librdkafka's own lines come along under the target `librdkafka`. It calls a broker that is away
//! an error many times a second, while the client itself tries again and our own lines say who
//! waits: they are left out unless the filter names them (`info,librdkafka=info`).

use std::io::{self, IsTerminal};

use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::{Directive, LevelFilter, ParseError};

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

/// What is too loud, and how loud it may be unless the filter names it.
const QUIETER: [(&str, LevelFilter); 4] = [
    ("librdkafka", LevelFilter::OFF),
    ("rdkafka", LevelFilter::OFF),
    ("hyper", LevelFilter::WARN),
    ("tokio_postgres", LevelFilter::WARN),
];

fn filter(text: &str) -> Result<EnvFilter, config::Error> {
    let wrong = |error: ParseError| config::Error::log_filter(text, &error.to_string());
    let mut filter: EnvFilter = text.parse().map_err(wrong)?;
    let words = || text.split(',').map(str::trim);
    let level = words().filter_map(|word| word.parse::<LevelFilter>().ok()).max();
    for (target, allowed) in QUIETER {
        // It may only become quieter than the filter makes it.
        if !text.contains(target) && level.is_some_and(|level| level > allowed) {
            let directive: Directive = format!("{target}={allowed}").parse().map_err(wrong)?;
            filter = filter.add_directive(directive);
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
        assert!(filter("info").unwrap().to_string().contains("librdkafka=off"));
        assert!(!filter("off").unwrap().to_string().contains("hyper"));
        let named = filter("info,librdkafka=debug").unwrap().to_string();
        assert!(!named.contains("librdkafka=off"), "{named}");
    }
}
