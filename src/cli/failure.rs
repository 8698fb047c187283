//! error -> exit code.

use crate::audit;
use crate::codec::registry;
use crate::config;
use crate::http;
use crate::log::kafka;
use crate::read_model::store;

/// The exit code when the work failed, or its answer is a no.
pub const FAILED: u8 = 1;
/// The exit code when the usage or a setting is wrong.
pub const USAGE: u8 = 2;
/// The exit code when a service cannot be reached at the start.
pub const UNREACHABLE: u8 = 3;

/// How a subcommand ended that did not break.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// Everything is as it should be: exit code 0.
    Done,
    /// The answer is a no (drift, a refusal), and has been printed: exit code 1.
    Failed,
}

/// An error that says its exit code. Any other error of the work has exit code 1.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// An argument or a setting is wrong; says which and what to do.
    #[error("{0}")]
    Usage(String),
}

impl Failure {
    /// A wrong argument or setting.
    pub fn usage(text: impl Into<String>) -> anyhow::Error {
        Self::Usage(text.into()).into()
    }
}

/// Chooses the exit code for an error: by the first one of its chain that says.
#[must_use]
pub fn exit_code(error: &anyhow::Error) -> u8 {
    error.chain().find_map(code_of).unwrap_or(FAILED)
}

/// An error and its causes. Some libraries repeat their cause in their own text: once is enough.
#[must_use]
pub fn one_line(error: &(dyn std::error::Error + 'static)) -> String {
    let mut line = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        let text = inner.to_string();
        if !line.contains(&text) {
            line.push_str(": ");
            line.push_str(&text);
        }
        cause = inner.source();
    }
    line.replace('\n', " ")
}

fn code_of(error: &(dyn std::error::Error + 'static)) -> Option<u8> {
    if let Some(failure) = error.downcast_ref::<Failure>() {
        return Some(match failure {
            Failure::Usage(_) => USAGE,
        });
    }
    if error.is::<config::Error>() || matches!(error.downcast_ref(), Some(http::Error::Bind { .. }))
    {
        return Some(USAGE);
    }
    if matches!(error.downcast_ref(), Some(registry::Error::Unreachable { .. })) {
        return Some(UNREACHABLE);
    }
    match error.downcast_ref() {
        Some(store::Error::Address { .. }) => return Some(USAGE),
        Some(
            store::Error::PostgresUnreachable { .. } | store::Error::ClickHouseUnreachable { .. },
        ) => return Some(UNREACHABLE),
        Some(_) | None => {}
    }
    match error.downcast_ref::<audit::Error>() {
        Some(audit::Error::Address(_)) => return Some(USAGE),
        Some(found) if found.is_unreachable() => return Some(UNREACHABLE),
        Some(_) | None => {}
    }
    // Its own text is that of the error inside, which therefore is not in the chain.
    if let Some(kafka::topic::Error::Kafka(inner)) = error.downcast_ref() {
        return code_of(inner);
    }
    match error.downcast_ref::<kafka::Error>()? {
        kafka::Error::Unreachable { .. } => Some(UNREACHABLE),
        kafka::Error::Call { source, .. } => kafka::is_no_answer(source).then_some(UNREACHABLE),
        kafka::Error::NoTopic(_) | kafka::Error::Unexpected(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use anyhow::Context as _;

    use super::*;

    #[test]
    fn the_chain_decides_the_code() {
        let usage: anyhow::Error = Failure::usage("no such topic");
        assert_eq!(exit_code(&usage), USAGE);
        let unreachable = Err::<(), _>(kafka::Error::Unreachable {
            brokers: "a:1".to_owned(),
            source: kafka::KafkaError::Canceled,
        });
        let unreachable = unreachable.context("reading topics").unwrap_err();
        assert_eq!(exit_code(&unreachable), UNREACHABLE);
        let inside = kafka::topic::Error::Kafka(kafka::Error::Unreachable {
            brokers: "a:1".to_owned(),
            source: kafka::KafkaError::Canceled,
        });
        assert_eq!(exit_code(&inside.into()), UNREACHABLE);
        let hanging = kafka::topic::Error::Kafka(kafka::Error::Call {
            action: "describing topics".to_owned(),
            source: kafka::KafkaError::AdminOp(kafka::RDKafkaErrorCode::OperationTimedOut),
        });
        assert_eq!(exit_code(&hanging.into()), UNREACHABLE);
        assert_eq!(exit_code(&anyhow::anyhow!("it broke")), FAILED);
    }
}
